//! The text of `session.json`: the first version of it, and later ones in which only our own
//! members change. What the server or anybody else wrote there stays, to the byte.

const std = @import("std");
const Allocator = std.mem.Allocator;
const json_object = @import("json_object.zig");
const json_text = @import("json_text.zig");
const utf8 = @import("utf8.zig");

pub const Status = enum { starting, running, exited };

/// A member to set.
pub const Field = struct {
    key: []const u8,
    value: Value,
};

pub const Value = union(enum) {
    string: []const u8,
    strings: []const [:0]const u8,
    integer: i64,
    boolean: bool,
    /// Text that is JSON already.
    json: []const u8,
    /// Removes the member.
    absent,
};

/// Writes an object of `fields`, pretty-printed with two spaces as all writers of the file do.
pub fn create(gpa: Allocator, fields: []const Field) Allocator.Error![]u8 {
    var out: Output = .{ .gpa = gpa };
    errdefer out.list.deinit(gpa);
    for (fields) |field| try out.field(field);
    return out.finish();
}

/// Writes the object `old` with `fields` set: those it has in their place, new ones at the end.
pub fn update(
    gpa: Allocator,
    old: []const u8,
    fields: []const Field,
) (Allocator.Error || json_object.Error)![]u8 {
    var out: Output = .{ .gpa = gpa };
    errdefer out.list.deinit(gpa);
    var members: json_object.Members = undefined;
    try members.init(old);
    var seen: std.bit_set.IntegerBitSet(max_fields) = .initEmpty();
    std.debug.assert(fields.len <= max_fields);
    while (try members.next()) |member| {
        const index = for (fields, 0..) |field, i| {
            if (member.hasKey(field.key)) break i;
        } else {
            try out.begin(member.key);
            try out.list.appendSlice(gpa, member.value);
            continue;
        };
        if (seen.isSet(index)) continue;
        seen.set(index);
        try out.field(fields[index]);
    }
    for (fields, 0..) |field, i| if (!seen.isSet(i)) try out.field(field);
    return out.finish();
}

const max_fields = 32;

const Output = struct {
    gpa: Allocator,
    list: std.ArrayList(u8) = .empty,

    fn begin(out: *Output, key: []const u8) Allocator.Error!void {
        try out.list.appendSlice(out.gpa, if (out.list.items.len == 0) "{\n  \"" else ",\n  \"");
        try out.list.appendSlice(out.gpa, key);
        try out.list.appendSlice(out.gpa, "\": ");
    }

    fn field(out: *Output, it: Field) Allocator.Error!void {
        if (it.value == .absent) return;
        try out.begin(it.key);
        switch (it.value) {
            .string => |text| try out.string(text),
            .integer => |n| try out.list.print(out.gpa, "{d}", .{n}),
            .boolean => |b| try out.list.appendSlice(out.gpa, if (b) "true" else "false"),
            .strings => |strings| {
                try out.list.append(out.gpa, '[');
                for (strings, 0..) |text, i| {
                    try out.list.appendSlice(out.gpa, if (i == 0) "\n    " else ",\n    ");
                    try out.string(text);
                }
                try out.list.appendSlice(out.gpa, if (strings.len == 0) "]" else "\n  ]");
            },
            .json => |text| try out.list.appendSlice(out.gpa, text),
            .absent => unreachable, // returned above
        }
    }

    fn string(out: *Output, text: []const u8) Allocator.Error!void {
        try out.list.append(out.gpa, '"');
        var carry: utf8.Carry = .{};
        try out.list.ensureUnusedCapacity(out.gpa, json_text.capacity(text.len));
        const room = out.list.unusedCapacitySlice();
        out.list.items.len += json_text.encode(room, text, &carry);
        try out.list.ensureUnusedCapacity(out.gpa, json_text.capacity(0));
        out.list.items.len += json_text.flush(out.list.unusedCapacitySlice(), &carry);
        try out.list.append(out.gpa, '"');
    }

    fn finish(out: *Output) Allocator.Error![]u8 {
        try out.list.appendSlice(out.gpa, if (out.list.items.len == 0) "{}\n" else "\n}\n");
        return out.list.toOwnedSlice(out.gpa);
    }
};

const testing = std.testing;

test "a new object is pretty-printed; what is not UTF-8 becomes U+FFFD" {
    const text = try create(testing.allocator, &.{
        .{ .key = "id", .value = .{ .string = "x\"\xff" } },
        .{ .key = "command", .value = .{ .strings = &.{ "a", "b" } } },
        .{ .key = "none", .value = .{ .strings = &.{} } },
        .{ .key = "gone", .value = .absent },
        .{ .key = "pid", .value = .{ .integer = -7 } },
        .{ .key = "flag", .value = .{ .boolean = true } },
    });
    defer testing.allocator.free(text);
    try testing.expectEqualStrings(
        "{\n  \"id\": \"x\\\"\u{fffd}\",\n  \"command\": [\n    \"a\",\n    \"b\"\n  ],\n" ++
            "  \"none\": [],\n  \"pid\": -7,\n  \"flag\": true\n}\n",
        text,
    );
}

fn expectUpdated(expected: []const u8, old: []const u8, fields: []const Field) !void {
    const text = try update(testing.allocator, old, fields);
    defer testing.allocator.free(text);
    try testing.expectEqualStrings(expected, text);
}

test "an update keeps order and foreign members to the byte" {
    try expectUpdated(
        "{\n  \"name\": \"n\\u00e9\",\n  \"status\": \"exited\",\n" ++
            "  \"x\": {\"deep\" : [1.50]},\n  \"exitCode\": 3\n}\n",
        "{\"name\":\"n\\u00e9\",\"status\":\"running\", \"x\" : {\"deep\" : [1.50]} }",
        &.{
            .{ .key = "status", .value = .{ .string = "exited" } },
            .{ .key = "exitCode", .value = .{ .integer = 3 } },
        },
    );
}

test "an update removes a member, writes a doubled one once, and fills an empty object" {
    const none = [_]Field{.{ .key = "a", .value = .absent }};
    try expectUpdated("{\n  \"b\": 2\n}\n", "{\"a\":1,\"b\":2}", &none);
    const one = [_]Field{.{ .key = "a", .value = .{ .integer = 9 } }};
    try expectUpdated("{\n  \"a\": 9\n}\n", "{\"a\":1,\"a\":2}", &one);
    try expectUpdated("{\n  \"a\": 9\n}\n", "{}", &one);
    try expectUpdated("{}\n", "{}", &.{});
}

test "what is not an object cannot be updated" {
    for ([_][]const u8{ "", "[]", "{\"a\":", "nonsense" }) |old| {
        try testing.expectError(error.InvalidJson, update(testing.allocator, old, &.{}));
    }
}

test "running out of memory leaks nothing" {
    try testing.checkAllAllocationFailures(testing.allocator, struct {
        fn run(gpa: Allocator) !void {
            const fields = [_]Field{.{ .key = "b", .value = .{ .string = "c" ** 99 } }};
            gpa.free(try update(gpa, "{\"a\":1}", &fields));
        }
    }.run, .{});
}
