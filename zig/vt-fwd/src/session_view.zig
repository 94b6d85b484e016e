//! A session.json as a reader sees it: every member that the contract knows, in one order, null
//! where it is missing or of another type. Whoever wrote the file, the result can be relied on.

const std = @import("std");
const json_object = @import("json_object.zig");
const session_json = @import("session_json.zig");
const Name = @import("title.zig").Name;

const Kind = enum { id, name, string, strings, status, count, boolean };

/// The order is that of the result.
const members = [_]struct { []const u8, Kind }{
    .{ "id", .id },
    .{ "name", .name },
    .{ "command", .strings },
    .{ "workingDir", .string },
    .{ "status", .status },
    .{ "startedAt", .string },
    .{ "pid", .count },
    .{ "exitCode", .count },
    .{ "initialCols", .count },
    .{ "initialRows", .count },
    .{ "lastClearOffset", .count },
    .{ "version", .string },
    .{ "attachedViaVT", .boolean },
    .{ "gitRepoPath", .string },
    .{ "gitBranch", .string },
    .{ "gitMainRepoPath", .string },
    .{ "gitAheadCount", .count },
    .{ "gitBehindCount", .count },
    .{ "gitHasChanges", .boolean },
    .{ "gitIsWorktree", .boolean },
};

pub const Error = error{OutOfMemory} || json_object.Error;

/// `alive` tells whether a process is there; null not to ask.
pub fn normalise(
    arena: std.mem.Allocator,
    id: []const u8,
    text: []const u8,
    alive: ?*const fn (i64) bool,
) Error![]u8 {
    var found: [members.len]?json_object.Member = @splat(null);
    var reader: json_object.Members = undefined;
    try reader.init(text);
    while (try reader.next()) |member| {
        for (members, &found) |known, *slot| {
            if (member.hasKey(known[0])) slot.* = member;
        }
    }
    var fields: [members.len]session_json.Field = undefined;
    for (&fields, members, found) |*field, known, member| {
        field.* = .{ .key = known[0], .value = try valueOf(arena, known[1], member) };
    }
    for (&fields) |*field| {
        if (std.mem.eql(u8, field.key, "id")) field.value = .{ .string = id };
    }
    if (alive) |isAlive| buryDead(&fields, isAlive);
    return session_json.create(arena, &fields);
}

const none: session_json.Value = .{ .json = "null" };

fn valueOf(
    arena: std.mem.Allocator,
    kind: Kind,
    found: ?json_object.Member,
) error{OutOfMemory}!session_json.Value {
    const member = found orelse return none;
    switch (kind) {
        .id => return none,
        .name => {
            const name = try arena.create(Name);
            name.* = .fromJson(member.string() orelse return none);
            return .{ .string = name.slice() };
        },
        .string => return if (member.string() != null) .{ .json = member.value } else none,
        .strings => return if (isStrings(member.value)) .{ .json = member.value } else none,
        .status => {
            const text = member.string() orelse return none;
            _ = std.meta.stringToEnum(session_json.Status, text) orelse return none;
            return .{ .string = text };
        },
        .count => {
            const number = member.integer() orelse return none;
            return if (number >= 0) .{ .integer = number } else none;
        },
        .boolean => {
            if (std.mem.eql(u8, member.value, "true")) return .{ .boolean = true };
            return if (std.mem.eql(u8, member.value, "false")) .{ .boolean = false } else none;
        },
    }
}

/// A checked JSON value is an array of nothing but strings.
fn isStrings(value: []const u8) bool {
    if (value[0] != '[') return false;
    var in_string = false;
    var i: usize = 1;
    while (i < value.len - 1) : (i += 1) switch (value[i]) {
        '"' => in_string = !in_string,
        '\\' => i += 1,
        ' ', '\t', '\r', '\n', ',' => {},
        else => if (!in_string) return false,
    };
    return true;
}

/// A process that is gone cannot say so itself.
fn buryDead(fields: *[members.len]session_json.Field, isAlive: *const fn (i64) bool) void {
    var status: ?*session_json.Value = null;
    var pid: ?i64 = null;
    var exit_code: ?*session_json.Value = null;
    for (fields) |*field| {
        if (std.mem.eql(u8, field.key, "status")) status = &field.value;
        if (std.mem.eql(u8, field.key, "exitCode")) exit_code = &field.value;
        if (std.mem.eql(u8, field.key, "pid") and field.value == .integer) {
            pid = field.value.integer;
        }
    }
    const state = status.?;
    if (state.* != .string or !std.mem.eql(u8, state.string, "running")) return;
    if (isAlive(pid orelse return)) return;
    state.* = .{ .string = "exited" };
    exit_code.?.* = .{ .integer = 1 };
}

const testing = std.testing;

fn expectMembers(expected: []const u8, text: []const u8, alive: ?*const fn (i64) bool) !void {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const result = try normalise(arena.allocator(), "dir", text, alive);
    const tree = try std.json.parseFromSliceLeaky(std.json.Value, arena.allocator(), result, .{});
    var shown: std.ArrayList(u8) = .empty;
    for (members) |known| {
        const value = tree.object.get(known[0]).?;
        if (value == .null) continue;
        const json = try std.json.Stringify.valueAlloc(arena.allocator(), value, .{});
        try shown.print(arena.allocator(), "{s}={s} ", .{ known[0], json });
    }
    try testing.expectEqual(members.len, tree.object.count());
    try testing.expectEqualStrings(expected, std.mem.trimRight(u8, shown.items, " "));
}

test "members of the right type are kept, others are null, unknown ones left out" {
    try expectMembers("id=\"dir\"", "{}", null);
    try expectMembers(
        \\id="dir" name="a]2;b" command=["sh","\"[1]"] status="running" pid=7 gitHasChanges=true
    ,
        \\{"id":"other","name":"a\u0007\u001b]2;b","command":["sh", "\"[1]"],"status":"running",
        \\ "pid":7,"gitHasChanges":true,"x":[1]}
    , null);
    try expectMembers("id=\"dir\" command=[]",
        \\{"name":7,"command":[],"workingDir":[],"status":"dancing","startedAt":1,"pid":-1,
        \\ "exitCode":1.5,"attachedViaVT":"yes","lastClearOffset":"0"}
    , null);
    try expectMembers("id=\"dir\"", "{\"command\":[\"a\",1]}", null);
    try expectMembers("id=\"dir\"", "{\"command\":[[\"a\"]]}", null);
}

test "who says that it runs and is gone has ended with 1" {
    const dead = struct {
        fn isAlive(pid: i64) bool {
            return pid == 1;
        }
    }.isAlive;
    try expectMembers("id=\"dir\" status=\"exited\" pid=2 exitCode=1",
        \\{"status":"running","pid":2}
    , dead);
    try expectMembers("id=\"dir\" status=\"running\" pid=1",
        \\{"status":"running","pid":1}
    , dead);
    try expectMembers("id=\"dir\" status=\"starting\"", "{\"status\":\"starting\"}", dead);
}

test "what is not an object is an error" {
    for ([_][]const u8{ "", "[]", "{", "null", "{}x" }) |text| {
        try testing.expectError(error.InvalidJson, normalise(testing.allocator, "d", text, null));
    }
}
