//! Where sessions live, and what a session may be called.

const std = @import("std");

/// A session id names a directory and a socket: letters, digits, `_` and `-` only.
pub const max_id_bytes = 64;

/// What connect(2) accepts on every system we run on, without the terminating zero.
pub const max_socket_path_bytes = 103;

pub fn isValidId(id: []const u8) bool {
    if (id.len == 0 or id.len > max_id_bytes) return false;
    for (id) |c| switch (c) {
        'A'...'Z', 'a'...'z', '0'...'9', '_', '-' => {},
        else => return false,
    };
    return true;
}

/// `fwd_<milliseconds>_<pid>`: readers know forwarded sessions by the prefix, and two that start
/// in the same millisecond differ.
pub fn defaultId(buffer: *[max_id_bytes]u8, epoch_ms: i64, pid: i32) []const u8 {
    return std.fmt.bufPrint(buffer, "fwd_{d}_{d}", .{ epoch_ms, pid }) catch
        unreachable; // 4 + 20 + 1 + 11 characters at most
}

/// The control directory: `VIBETUNNEL_CONTROL_DIR`, else below HOME, else below the current
/// directory.
pub fn root(
    arena: std.mem.Allocator,
    control_dir: ?[]const u8,
    home: ?[]const u8,
) std.mem.Allocator.Error![]const u8 {
    if (control_dir) |path| if (path.len > 0) return path;
    const base = if (home) |path| (if (path.len > 0) path else ".") else ".";
    return std.fmt.allocPrint(arena, "{s}/.vibetunnel/control", .{base});
}

test "ids are short and harmless" {
    for ([_][]const u8{ "a", "fwd_1700000000000_42", "A-Z_09", "x" ** 64 }) |id| {
        try std.testing.expect(isValidId(id));
    }
    const bad = [_][]const u8{ "", ".", "..", "a/b", "a b", "é", "a\x00", "x" ** 65, "a.b" };
    for (bad) |id| {
        try std.testing.expect(!isValidId(id));
    }
    var buffer: [max_id_bytes]u8 = undefined;
    const longest = defaultId(&buffer, std.math.minInt(i64), std.math.minInt(i32));
    try std.testing.expect(isValidId(longest));
    try std.testing.expectEqualStrings("fwd_5_7", defaultId(&buffer, 5, 7));
}

test "the control directory" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const cases = [_]struct { ?[]const u8, ?[]const u8, []const u8 }{
        .{ "/c", "/h", "/c" },
        .{ "", "/h", "/h/.vibetunnel/control" },
        .{ null, "/h", "/h/.vibetunnel/control" },
        .{ null, "", "./.vibetunnel/control" },
        .{ null, null, "./.vibetunnel/control" },
    };
    for (cases) |case| {
        try std.testing.expectEqualStrings(case[2], try root(arena.allocator(), case[0], case[1]));
    }
}
