//! What a host asks of a session, as one JSON object. Keys that nobody knows, values of another
//! type and numbers out of range are refused by name.

const std = @import("std");
const control_dir = @import("control_dir.zig");
const TitleMode = @import("cli.zig").TitleMode;
const Size = @import("asciicast.zig").Size;

const Allocator = std.mem.Allocator;
const Value = std.json.Value;

/// A configuration longer than this is refused.
pub const max_bytes = 8 * 1024 * 1024;

pub const Config = struct {
    argv: []const [:0]const u8 = &.{},
    /// Null: the host's own.
    cwd: ?[:0]const u8 = null,
    /// `NAME=value`; null: the host's own.
    env: ?[]const [*:0]const u8 = null,
    size: Size = .{ .cols = 120, .rows = 40 },
    id: ?[]const u8 = null,
    name: ?[]const u8 = null,
    title_mode: TitleMode = .none,
    control_dir: ?[]const u8 = null,
    record_input: bool = true,
    /// 0: no limit.
    max_cast_bytes: u64 = 0,
    git: bool = true,
};

/// Why a configuration was refused: the key, or empty when it is about the whole, and the cause.
pub const Problem = struct {
    /// A copy, as long as it needs to be to be known again.
    key_buffer: [64]u8 = undefined,
    key_len: usize = 0,
    cause: []const u8 = "",

    pub fn key(problem: *const Problem) []const u8 {
        return problem.key_buffer[0..problem.key_len];
    }

    pub fn set(problem: *Problem, name: []const u8, cause: []const u8) void {
        problem.key_len = @min(name.len, problem.key_buffer.len);
        @memcpy(problem.key_buffer[0..problem.key_len], name[0..problem.key_len]);
        // It becomes part of a message, which ends at a NUL and may be shown on a terminal.
        for (problem.key_buffer[0..problem.key_len]) |*byte| {
            if (std.ascii.isControl(byte.*)) byte.* = '?';
        }
        problem.cause = cause;
    }
};

pub const Error = error{ OutOfMemory, InvalidConfig };

/// The strings are in `arena`, or in `text`.
pub fn parse(arena: Allocator, text: []const u8, problem: *Problem) Error!Config {
    var reader: Reader = .{ .arena = arena, .problem = problem };
    return reader.parse(text);
}

const Key = enum {
    argv,
    cwd,
    env,
    cols,
    rows,
    id,
    name,
    title_mode,
    control_dir,
    record_input,
    max_cast_bytes,
    git,
};

const Reader = struct {
    arena: Allocator,
    problem: *Problem,

    fn parse(r: *Reader, text: []const u8) Error!Config {
        if (text.len > max_bytes) return r.refuse("", "is longer than 8 MiB");
        const result = std.json.parseFromSliceLeaky(Value, r.arena, text, .{});
        const tree = result catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.DuplicateField => return r.refuse("", "names a key twice"),
            else => return r.refuse("", "is not valid JSON in UTF-8"),
        };
        if (tree != .object) return r.refuse("", "is not a JSON object");
        var config: Config = .{};
        var members = tree.object.iterator();
        while (members.next()) |member| {
            const name = member.key_ptr.*;
            const key = std.meta.stringToEnum(Key, name) orelse
                return r.refuse(name, "is not a key of this configuration");
            try r.set(&config, key, member.value_ptr.*);
        }
        if (config.argv.len == 0) return r.refuse("argv", "is missing: the command and its words");
        return config;
    }

    fn set(r: *Reader, config: *Config, key: Key, value: Value) Error!void {
        const name = @tagName(key);
        switch (key) {
            .argv => config.argv = try r.words(value),
            .cwd => config.cwd = try r.string(name, value),
            .env => config.env = try r.environment(value),
            .cols => config.size.cols = try r.dimension(name, value),
            .rows => config.size.rows = try r.dimension(name, value),
            .id => {
                config.id = try r.string(name, value);
                if (!control_dir.isValidId(config.id.?)) {
                    return r.refuse(name, "has 1 to 64 letters, digits, '_' or '-'");
                }
            },
            .name => config.name = try r.string(name, value),
            .title_mode => config.title_mode = TitleMode.parse(try r.string(name, value)) orelse
                return r.refuse(name, "is none, filter, static or dynamic"),
            .control_dir => config.control_dir = try r.string(name, value),
            .record_input => config.record_input = try r.boolean(name, value),
            .max_cast_bytes => {
                if (value != .integer or value.integer < 0) {
                    return r.refuse(name, "is a whole number of bytes");
                }
                config.max_cast_bytes = @intCast(value.integer);
            },
            .git => config.git = try r.boolean(name, value),
        }
    }

    fn boolean(r: *Reader, key: []const u8, value: Value) Error!bool {
        return if (value == .bool) value.bool else r.refuse(key, "is true or false");
    }

    fn string(r: *Reader, key: []const u8, value: Value) Error![:0]const u8 {
        if (value != .string) return r.refuse(key, "is not a string");
        if (value.string.len == 0) return r.refuse(key, "is empty");
        return r.terminated(key, value.string);
    }

    fn terminated(r: *Reader, key: []const u8, text: []const u8) Error![:0]const u8 {
        if (std.mem.indexOfScalar(u8, text, 0) != null) return r.refuse(key, "holds a NUL");
        return r.arena.dupeZ(u8, text);
    }

    fn words(r: *Reader, value: Value) Error![]const [:0]const u8 {
        if (value != .array) return r.refuse("argv", "is not an array of strings");
        const list = try r.arena.alloc([:0]const u8, value.array.items.len);
        for (list, value.array.items) |*word, item| {
            if (item != .string) return r.refuse("argv", "is not an array of strings");
            word.* = try r.terminated("argv", item.string);
        }
        return list;
    }

    fn environment(r: *Reader, value: Value) Error![]const [*:0]const u8 {
        if (value != .object) return r.refuse("env", "is not an object of strings");
        var list: std.ArrayList([*:0]const u8) = .empty;
        var members = value.object.iterator();
        while (members.next()) |member| {
            const name = member.key_ptr.*;
            const content = member.value_ptr.*;
            if (content != .string) return r.refuse("env", "is not an object of strings");
            if (name.len == 0 or std.mem.indexOfAny(u8, name, "=\x00") != null) {
                return r.refuse("env", "has a name that is empty, or holds '=' or a NUL");
            }
            const text = try r.terminated("env", content.string);
            const entry = try std.fmt.allocPrintSentinel(r.arena, "{s}={s}", .{ name, text }, 0);
            try list.append(r.arena, entry);
        }
        return list.toOwnedSlice(r.arena);
    }

    fn dimension(r: *Reader, key: []const u8, value: Value) Error!u16 {
        const number = if (value == .integer) value.integer else 0;
        if (number < 1 or number > std.math.maxInt(u16)) {
            return r.refuse(key, "is a whole number from 1 to 65535");
        }
        return @intCast(number);
    }

    fn refuse(r: *Reader, key: []const u8, cause: []const u8) error{InvalidConfig} {
        r.problem.set(key, cause);
        return error.InvalidConfig;
    }
};

const testing = std.testing;

test "everything that can be asked for" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var problem: Problem = .{};
    const config = try parse(arena.allocator(),
        \\{"argv":["sh","-c",""],"cwd":"/tmp","env":{"A":"1","B":""},"cols":80,"rows":24,
        \\ "id":"a-1","name":"mine","title_mode":"dynamic","control_dir":"/c",
        \\ "record_input":false,"max_cast_bytes":9,"git":false}
    , &problem);
    try testing.expectEqual(3, config.argv.len);
    try testing.expectEqualStrings("", config.argv[2]);
    try testing.expectEqualStrings("A=1", std.mem.span(config.env.?[0]));
    try testing.expectEqual(Size{ .cols = 80, .rows = 24 }, config.size);
    try testing.expectEqual(.static, config.title_mode);
    try testing.expectEqual(9, config.max_cast_bytes);
}

test "what is wrong is refused by name" {
    const cases = [_][2][]const u8{
        .{ "", "" },
        .{ "[]", "" },
        .{ "{", "" },
        .{ "{\"argv\":[\"\xff\"]}", "" },
        .{ "{\"argv\":[\"a\"],\"argv\":[\"b\"]}", "" },
        .{ "{}", "argv" },
        .{ "{\"argv\":[]}", "argv" },
        .{ "{\"argv\":\"ls\"}", "argv" },
        .{ "{\"argv\":[1]}", "argv" },
        .{ "{\"argv\":[\"a\\u0000b\"]}", "argv" },
        .{ "{\"argv\":[\"a\"],\"colour\":1}", "colour" },
        .{ "{\"argv\":[\"a\"],\"cols\":0}", "cols" },
        .{ "{\"argv\":[\"a\"],\"rows\":65536}", "rows" },
        .{ "{\"argv\":[\"a\"],\"rows\":2.5}", "rows" },
        .{ "{\"argv\":[\"a\"],\"id\":\"a/b\"}", "id" },
        .{ "{\"argv\":[\"a\"],\"cwd\":\"\"}", "cwd" },
        .{ "{\"argv\":[\"a\"],\"env\":{\"A=B\":\"\"}}", "env" },
        .{ "{\"argv\":[\"a\"],\"env\":{\"A\":1}}", "env" },
        .{ "{\"argv\":[\"a\"],\"title_mode\":\"loud\"}", "title_mode" },
        .{ "{\"argv\":[\"a\"],\"record_input\":0}", "record_input" },
        .{ "{\"argv\":[\"a\"],\"max_cast_bytes\":-1}", "max_cast_bytes" },
        .{ "{\"argv\":[\"a\"],\"name\":null}", "name" },
    };
    for (cases) |case| {
        var arena: std.heap.ArenaAllocator = .init(testing.allocator);
        defer arena.deinit();
        var problem: Problem = .{};
        const result = parse(arena.allocator(), case[0], &problem);
        try testing.expectError(error.InvalidConfig, result);
        try testing.expectEqualStrings(case[1], problem.key());
        try testing.expect(problem.cause.len > 0);
    }
}
