//! The C ABI as C sees it: the header's constants and layouts, null and closed included.
const std = @import("std");
const testing = std.testing;
const lib = @import("lib.zig");
const header = @cImport(@cInclude("plue_ratelimit.h"));
const rule = @import("rule.zig");
const sliding_window = @import("sliding_window.zig");
const moving_window = @import("moving_window.zig");

test "the header's errors are the library's" {
    inline for (@typeInfo(lib.Code).@"enum".fields) |field| {
        const name = comptime if (field.value == 0) "RATELIMIT_OK" else name: {
            var upper: [field.name.len]u8 = undefined;
            break :name "RATELIMIT_ERROR_" ++ std.ascii.upperString(&upper, field.name);
        };
        try testing.expectEqual(field.value, @field(header, name));
    }
}

test "the header's limits and constants are the library's" {
    try testing.expectEqual(@import("key_hash.zig").max_key_bytes, header.RATELIMIT_MAX_KEY_BYTES);
    try testing.expectEqual(@import("instances.zig").max_limiters, header.RATELIMIT_MAX_LIMITERS);
    try testing.expectEqual(@import("shared_file.zig").max_keys_limit, header.RATELIMIT_MAX_KEYS);
    const max_processes = @import("shared_file.zig").max_processes;
    try testing.expectEqual(max_processes, header.RATELIMIT_MAX_PROCESSES);
    try testing.expectEqual(0, header.RATELIMIT_SLIDING_WINDOW);
    try testing.expectEqual(@intFromEnum(rule.Algorithm.gcra), header.RATELIMIT_GCRA);
    const fixed_window = @intFromEnum(rule.Algorithm.fixed_window);
    try testing.expectEqual(fixed_window, header.RATELIMIT_FIXED_WINDOW);
    try testing.expectEqual(
        @intFromEnum(rule.Algorithm.sliding_window_floor),
        header.RATELIMIT_SLIDING_WINDOW_FLOOR,
    );
    try testing.expectEqual(1, header.RATELIMIT_WHEN_FULL_OVERFLOW);
    try testing.expectEqual(2, header.RATELIMIT_WHEN_FULL_ALLOW);
}

fn expectSameLayout(comptime Ours: type, comptime Theirs: type) !void {
    try testing.expectEqual(@sizeOf(Theirs), @sizeOf(Ours));
    inline for (@typeInfo(Ours).@"struct".fields) |field|
        try testing.expectEqual(@offsetOf(Theirs, field.name), @offsetOf(Ours, field.name));
}

test "the header's structs are laid out as the library's" {
    try expectSameLayout(rule.Decision, header.ratelimit_decision);
    try expectSameLayout(sliding_window.Counts, header.ratelimit_window_counts);
    try expectSameLayout(moving_window.Log.Content, header.ratelimit_log_content);
}

test "threads check while others replace the limiter of the process" {
    const Work = struct {
        fn check(stop: *std.atomic.Value(bool)) void {
            while (!stop.load(.monotonic)) _ = lib.ratelimit_check("key");
        }
    };
    try testing.expect(lib.ratelimit_init(1000, 1000));
    var stop: std.atomic.Value(bool) = .init(false);
    var threads: [3]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{}, Work.check, .{&stop});
    for (0..200) |_| {
        try testing.expect(lib.ratelimit_init(1000, 1000));
        _ = lib.ratelimit_cleanup();
        lib.ratelimit_reset("key");
    }
    stop.store(true, .monotonic);
    for (threads) |thread| thread.join();
    lib.ratelimit_destroy();
    try testing.expect(!lib.ratelimit_check("key"));
    try testing.expectEqual(@intFromEnum(lib.Code.no_limiter), lib.ratelimit_last_error());
}
