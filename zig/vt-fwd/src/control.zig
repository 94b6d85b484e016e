//! The control messages that the server sends as JSON, and names of signals.

const std = @import("std");
const posix = std.posix;
const json_object = @import("json_object.zig");
const json_text = @import("json_text.zig");
const utf8 = @import("utf8.zig");
const Name = @import("title.zig").Name;
const Size = @import("asciicast.zig").Size;

pub const Command = union(enum) {
    resize: Size,
    /// Back to the size of the user's own terminal.
    reset_size,
    /// The number of a signal.
    kill: u8,
    update_title: Name,
};

/// Null for whatever is malformed or unknown: such messages are ignored, the connection stays.
pub fn parse(text: []const u8) ?Command {
    return read(text) catch null;
}

fn read(text: []const u8) json_object.Error!?Command {
    const cmd = try json_object.find(text, "cmd") orelse return null;
    const name = cmd.string() orelse return null;
    if (std.mem.eql(u8, name, "resize")) {
        return .{ .resize = .{
            .cols = dimension(try json_object.find(text, "cols")) orelse return null,
            .rows = dimension(try json_object.find(text, "rows")) orelse return null,
        } };
    }
    if (std.mem.eql(u8, name, "reset-size")) return .reset_size;
    if (std.mem.eql(u8, name, "kill")) {
        const member = try json_object.find(text, "signal") orelse
            return .{ .kill = posix.SIG.TERM };
        return .{ .kill = signalOf(member) orelse return null };
    }
    if (std.mem.eql(u8, name, "update-title")) {
        const title = try json_object.find(text, "title") orelse return null;
        return .{ .update_title = .fromJson(title.string() orelse return null) };
    }
    return null;
}

const update_title_start = "{\"cmd\":\"update-title\",\"title\":\"";
const update_title_end = "\"}";

pub const max_update_title_bytes = update_title_start.len + update_title_end.len +
    json_text.capacity(@sizeOf(Name));

/// Writes the message that renames a session.
pub fn updateTitle(out: *[max_update_title_bytes]u8, name: *const Name) []u8 {
    out[0..update_title_start.len].* = update_title_start.*;
    var carry: utf8.Carry = .{};
    const text = json_text.encode(out[update_title_start.len..], name.slice(), &carry);
    std.debug.assert(carry.len == 0); // a name is valid UTF-8
    const end = update_title_start.len + text;
    out[end..][0..update_title_end.len].* = update_title_end.*;
    return out[0 .. end + update_title_end.len];
}

/// A whole number from 1 to 65535.
fn dimension(member: ?json_object.Member) ?u16 {
    const number = (member orelse return null).integer() orelse return null;
    return if (number >= 1) std.math.cast(u16, number) else null;
}

/// A number that this system has, or a name with or without SIG in any case.
fn signalOf(member: json_object.Member) ?u8 {
    if (member.integer()) |number| {
        return if (number >= 1 and number < posix.NSIG) @intCast(number) else null;
    }
    const text = member.string() orelse return null;
    const bare = if (std.ascii.startsWithIgnoreCase(text, "SIG")) text[3..] else text;
    inline for (signal_names) |name| {
        if (@hasDecl(posix.SIG, name) and std.ascii.eqlIgnoreCase(bare, name)) {
            return @field(posix.SIG, name);
        }
    }
    return null;
}

/// All that Linux or macOS names; each system has most of them.
const signal_names = .{
    "HUP",   "INT",    "QUIT",   "ILL",  "TRAP", "ABRT", "BUS",  "FPE",  "KILL", "USR1", "SEGV",
    "USR2",  "PIPE",   "ALRM",   "TERM", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU",  "XFSZ",   "VTALRM", "PROF", "IO",   "SYS",  "IOT",  "POLL", "PWR",  "EMT",  "INFO",
    "WINCH", "STKFLT",
};

const testing = std.testing;

test "the server's messages" {
    try testing.expectEqual(
        Command{ .resize = .{ .cols = 100, .rows = 40 } },
        parse("{\"cmd\":\"resize\",\"cols\":100,\"rows\":40}").?,
    );
    try testing.expectEqual(.reset_size, std.meta.activeTag(parse("{\"cmd\":\"reset-size\"}").?));
    try testing.expectEqual(15, parse("{\"cmd\":\"kill\"}").?.kill);
    const title = parse("{\"title\":\"IPC\\u001b]2;unsafe\",\"cmd\":\"update-title\"}").?;
    try testing.expectEqualStrings("IPC]2;unsafe", title.update_title.slice());
}

test "the message that renames is understood again" {
    const name: Name = .fromBytes("a \"quoted\" \\ é name");
    var out: [max_update_title_bytes]u8 = undefined;
    const command = parse(updateTitle(&out, &name)).?;
    try testing.expectEqualStrings(name.slice(), command.update_title.slice());
}

test "signals by number and by name" {
    const cases = [_]struct { []const u8, ?u8 }{
        .{ "9", 9 },
        .{ "31", 31 },
        .{ std.fmt.comptimePrint("{d}", .{posix.NSIG - 1}), posix.NSIG - 1 },
        .{ std.fmt.comptimePrint("{d}", .{posix.NSIG}), null },
        .{ "\"SIGKILL\"", 9 },
        .{ "\"sigterm\"", 15 },
        .{ "\"int\"", 2 },
        .{ "\"Hup\"", 1 },
        .{ "\"WINCH\"", posix.SIG.WINCH },
        .{ "0", null },
        .{ "-9", null },
        .{ "65", null },
        .{ "9.0", null },
        .{ "null", null },
        .{ "true", null },
        .{ "[9]", null },
        .{ "\"\"", null },
        .{ "\"9\"", null },
        .{ "\"SIG\"", null },
        .{ "\"NOPE\"", null },
    };
    for (cases) |case| {
        var buffer: [64]u8 = undefined;
        const fmt = "{{\"cmd\":\"kill\",\"signal\":{s}}}";
        const command = parse(try std.fmt.bufPrint(&buffer, fmt, .{case[0]}));
        if (case[1]) |signal| {
            try testing.expectEqual(signal, command.?.kill);
        } else try testing.expectEqual(null, command);
    }
}

test "what is malformed or unknown is nothing" {
    const cases = [_][]const u8{
        "",
        "null",
        "[]",
        "{}",
        "{\"cmd\":1}",
        "{\"cmd\":\"fly\"}",
        "{\"cmd\":\"resize\"}",
        "{\"cmd\":\"resize\",\"cols\":0,\"rows\":1}",
        "{\"cmd\":\"resize\",\"cols\":-1,\"rows\":24}",
        "{\"cmd\":\"resize\",\"cols\":80.5,\"rows\":24}",
        "{\"cmd\":\"resize\",\"cols\":\"80\",\"rows\":24}",
        "{\"cmd\":\"resize\",\"cols\":70000,\"rows\":24}",
        "{\"cmd\":\"update-title\"}",
        "{\"cmd\":\"update-title\",\"title\":7}",
        "{\"cmd\":\"kill\"",
        "{\"cmd\":\"kill\"}x",
    };
    for (cases) |text| try testing.expectEqual(null, parse(text));
}
