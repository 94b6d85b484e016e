//! The configuration: one JSON object. The fields of `Config`, with their defaults, are the keys;
//! the ranges stand in `ranges`. The header's table says what each means.

const std = @import("std");
const Network = @import("networks.zig").Network;

pub const Decider = enum { auto, keys, callback, queue };
pub const Access = enum { none, read, write };

pub const Pair = struct { name: [:0]const u8, value: [:0]const u8 };

pub const Config = struct {
    repositories: [:0]const u8 = "",
    bind_address: [:0]const u8 = "127.0.0.1",
    user: [:0]const u8 = "git",
    git: [:0]const u8 = "git",
    host_keys: []const [:0]const u8 = &.{},
    proxy_protocol_from: []const [:0]const u8 = &.{},
    threads: u32 = 0,

    authenticate: Decider = .auto,
    authorize: Decider = .auto,
    default_access: Access = .none,
    decision_timeout_ms: u32 = 10_000,
    callback_threads: u32 = 1,
    max_pending_decisions: u32 = 4096,

    login_grace_s: u32 = 30,
    max_auth_tries: u32 = 6,
    max_connections: u32 = 4096,
    max_unauthenticated: u32 = 1024,
    max_unauthenticated_per_ip: u32 = 256,
    max_channels: u32 = 10,
    keepalive_s: u32 = 15,
    keepalive_count: u32 = 3,
    exec_grace_s: u32 = 60,
    idle_timeout_s: u32 = 600,
    git_timeout_s: u32 = 0,
    drain_timeout_s: u32 = 10,
    kill_grace_s: u32 = 5,
    push_grace_s: u32 = 60,

    archive: bool = false,
    fsck_objects: bool = true,
    git_config: []const Pair = &.{},
    environment: []const Pair = &.{},

    kex: [:0]const u8 = "",
    ciphers: [:0]const u8 = "",
    macs: [:0]const u8 = "",
    host_key_algorithms: [:0]const u8 = "",
    user_key_algorithms: [:0]const u8 = "",
    rsa_min_bits: u32 = 2048,
    rekey_bytes: u64 = 0,
    rekey_s: u32 = 0,
    event_queue: u32 = 1024,
    push_queue: u32 = 0,
};

/// Lowest and highest value; `or_zero` lets 0 through as well.
const Range = struct { min: u64, max: u64, or_zero: bool = false };

const ranges = .{
    .threads = Range{ .min = 0, .max = 64 },
    .decision_timeout_ms = Range{ .min = 1, .max = 600_000 },
    .callback_threads = Range{ .min = 1, .max = 16 },
    .max_pending_decisions = Range{ .min = 1, .max = 65_536 },
    .login_grace_s = Range{ .min = 1, .max = 3600 },
    .max_auth_tries = Range{ .min = 1, .max = 100 },
    .max_connections = Range{ .min = 1, .max = 65_536 },
    .max_unauthenticated = Range{ .min = 1, .max = 65_536 },
    .max_unauthenticated_per_ip = Range{ .min = 1, .max = 65_536 },
    .max_channels = Range{ .min = 1, .max = 1000 },
    .keepalive_s = Range{ .min = 0, .max = 86_400 },
    .keepalive_count = Range{ .min = 1, .max = 1000 },
    .exec_grace_s = Range{ .min = 0, .max = 86_400 },
    .idle_timeout_s = Range{ .min = 0, .max = 86_400 },
    .git_timeout_s = Range{ .min = 0, .max = 604_800 },
    .drain_timeout_s = Range{ .min = 0, .max = 3600 },
    .kill_grace_s = Range{ .min = 0, .max = 600 },
    .push_grace_s = Range{ .min = 0, .max = 86_400 },
    .rsa_min_bits = Range{ .min = 2048, .max = 16_384 },
    .rekey_bytes = Range{ .min = 65_536, .max = 1 << 40, .or_zero = true },
    .rekey_s = Range{ .min = 10, .max = 86_400, .or_zero = true },
    .event_queue = Range{ .min = 0, .max = 65_536 },
    .push_queue = Range{ .min = 0, .max = 65_536 },
};

pub const Error = error{ OutOfMemory, BadConfig };

/// Parses `json` into memory of `arena`, which the result points into. On BadConfig `reason` says
/// in one sentence what is wrong and where.
pub fn parse(arena: std.mem.Allocator, json: []const u8, reason: *std.Io.Writer) Error!Config {
    const options: std.json.ParseOptions = .{ .duplicate_field_behavior = .@"error" };
    const root = std.json.parseFromSliceLeaky(std.json.Value, arena, json, options) catch |err| {
        return switch (err) {
            error.OutOfMemory => error.OutOfMemory,
            else => fail(reason, "the configuration is not valid JSON ({t})", .{err}),
        };
    };
    if (root != .object) return fail(reason, "the configuration must be a JSON object", .{});
    var config: Config = .{};
    var members = root.object.iterator();
    while (members.next()) |member| {
        try setField(arena, &config, member.key_ptr.*, member.value_ptr.*, reason);
    }
    try check(&config, reason);
    return config;
}

fn setField(
    arena: std.mem.Allocator,
    config: *Config,
    key: []const u8,
    value: std.json.Value,
    reason: *std.Io.Writer,
) Error!void {
    inline for (@typeInfo(Config).@"struct".fields) |field| {
        if (std.mem.eql(u8, field.name, key)) {
            @field(config, field.name) = switch (field.type) {
                [:0]const u8 => try takeString(arena, key, value, reason),
                []const [:0]const u8 => try takeStrings(arena, key, value, reason),
                []const Pair => try takePairs(arena, key, value, reason),
                bool => if (value == .bool)
                    value.bool
                else
                    return fail(reason, "\"{s}\" must be true or false", .{key}),
                Decider, Access => try takeEnum(field.type, key, value, reason),
                u32, u64 => @intCast(
                    try takeInteger(@field(ranges, field.name), key, value, reason),
                ),
                else => comptime unreachable,
            };
            return;
        }
    }
    return fail(reason, "unknown key \"{f}\"", .{std.zig.fmtString(key[0..@min(key.len, 64)])});
}

fn takeString(
    arena: std.mem.Allocator,
    key: []const u8,
    value: std.json.Value,
    reason: *std.Io.Writer,
) Error![:0]const u8 {
    if (value != .string) return fail(reason, "\"{s}\" must hold strings", .{key});
    if (std.mem.indexOfScalar(u8, value.string, 0) != null) {
        return fail(reason, "\"{s}\" holds a NUL character", .{key});
    }
    return arena.dupeZ(u8, value.string);
}

fn takeStrings(
    arena: std.mem.Allocator,
    key: []const u8,
    value: std.json.Value,
    reason: *std.Io.Writer,
) Error![]const [:0]const u8 {
    if (value != .array) return fail(reason, "\"{s}\" must be an array of strings", .{key});
    const strings = try arena.alloc([:0]const u8, value.array.items.len);
    for (strings, value.array.items) |*string, item| {
        string.* = try takeString(arena, key, item, reason);
    }
    return strings;
}

fn takePairs(
    arena: std.mem.Allocator,
    key: []const u8,
    value: std.json.Value,
    reason: *std.Io.Writer,
) Error![]const Pair {
    if (value != .object) return fail(reason, "\"{s}\" must be an object of strings", .{key});
    const pairs = try arena.alloc(Pair, value.object.count());
    for (pairs, value.object.keys(), value.object.values()) |*pair, name, item| {
        if (name.len == 0 or std.mem.indexOfAny(u8, name, "=\x00\n") != null) {
            return fail(reason, "\"{s}\" holds a name that is empty or has '=' in it", .{key});
        }
        pair.* = .{
            .name = try arena.dupeZ(u8, name),
            .value = try takeString(arena, key, item, reason),
        };
    }
    return pairs;
}

fn takeEnum(
    comptime T: type,
    key: []const u8,
    value: std.json.Value,
    reason: *std.Io.Writer,
) Error!T {
    if (value == .string) {
        if (std.meta.stringToEnum(T, value.string)) |found| return found;
    }
    return fail(reason, "\"{s}\" must be one of: {s}", .{ key, comptime names(T) });
}

fn names(comptime T: type) []const u8 {
    var text: []const u8 = "";
    for (std.meta.fieldNames(T)) |name| {
        text = text ++ (if (text.len == 0) "" else ", ") ++ "\"" ++ name ++ "\"";
    }
    return text;
}

fn takeInteger(
    range: Range,
    key: []const u8,
    value: std.json.Value,
    reason: *std.Io.Writer,
) Error!u64 {
    const number = if (value == .integer) value.integer else -1;
    const fits = number >= 0 and number >= range.min and number <= range.max;
    if (fits or (range.or_zero and number == 0)) return @intCast(number);
    return fail(reason, "\"{s}\" must be {s}an integer from {d} to {d}", .{
        key, if (range.or_zero) "0 or " else "", range.min, range.max,
    });
}

fn check(config: *const Config, reason: *std.Io.Writer) Error!void {
    if (config.repositories.len == 0) {
        return fail(reason, "\"repositories\" is missing: name the directory that holds them", .{});
    }
    if (config.user.len == 0) return fail(reason, "\"user\" must not be empty", .{});
    if (config.git.len == 0) return fail(reason, "\"git\" must not be empty", .{});
    for (config.proxy_protocol_from) |text| {
        _ = Network.parse(text) catch return fail(reason, "\"proxy_protocol_from\": \"{f}\" is " ++
            "neither an IP address nor a network such as 10.0.0.0/8", .{std.zig.fmtString(text)});
    }
}

fn fail(reason: *std.Io.Writer, comptime format: []const u8, args: anytype) error{BadConfig} {
    reason.print(format, args) catch {}; // a cut reason is still a reason
    return error.BadConfig;
}

const testing = std.testing;

fn expectReason(expected: []const u8, json: []const u8) !void {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var buffer: [200]u8 = undefined;
    var reason = std.Io.Writer.fixed(&buffer);
    try testing.expectError(error.BadConfig, parse(arena.allocator(), json, &reason));
    try testing.expectEqualStrings(expected, reason.buffered());
}

test "what is left out has its default, what is given counts" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var buffer: [200]u8 = undefined;
    var reason = std.Io.Writer.fixed(&buffer);
    const config = try parse(arena.allocator(),
        \\{"repositories": "/srv/git", "threads": 3, "authorize": "queue", "archive": true,
        \\ "host_keys": ["/a", "/b"], "git_config": {"a.b": "c"}, "rekey_bytes": 1048576,
        \\ "default_access": "read", "keepalive_s": 0}
    , &reason);
    try testing.expectEqualStrings("/srv/git", config.repositories);
    try testing.expectEqualStrings("git", config.user);
    try testing.expectEqual(3, config.threads);
    try testing.expectEqual(Decider.queue, config.authorize);
    try testing.expectEqual(Decider.auto, config.authenticate);
    try testing.expectEqual(Access.read, config.default_access);
    try testing.expect(config.archive and config.fsck_objects);
    try testing.expectEqualStrings("/b", config.host_keys[1]);
    try testing.expectEqualStrings("c", config.git_config[0].value);
    try testing.expectEqual(1 << 20, config.rekey_bytes);
}

test "every mistake is named" {
    try expectReason("the configuration must be a JSON object", "[]");
    try expectReason("the configuration is not valid JSON (UnexpectedEndOfInput)", "{");
    try expectReason("\"repositories\" is missing: name the directory that holds them", "{}");
    try expectReason("unknown key \"colour\"", "{\"colour\": 1}");
    try expectReason("unknown key \"a\\n\"", "{\"a\\n\": 1}");
    try expectReason("\"threads\" must be an integer from 0 to 64", "{\"threads\": 65}");
    try expectReason("\"threads\" must be an integer from 0 to 64", "{\"threads\": -1}");
    try expectReason("\"threads\" must be an integer from 0 to 64", "{\"threads\": 1.5}");
    try expectReason("\"rekey_s\" must be 0 or an integer from 10 to 86400", "{\"rekey_s\": 1}");
    try expectReason("\"archive\" must be true or false", "{\"archive\": 1}");
    try expectReason("\"git\" must hold strings", "{\"git\": null}");
    try expectReason("\"git\" holds a NUL character", "{\"git\": \"a\\u0000\"}");
    try expectReason(
        "\"proxy_protocol_from\": \"10.0.0.1/8\" is neither an IP address nor a network such " ++
            "as 10.0.0.0/8",
        "{\"repositories\": \"/\", \"proxy_protocol_from\": [\"::1\", \"10.0.0.1/8\"]}",
    );
    try expectReason("\"host_keys\" must hold strings", "{\"host_keys\": [1]}");
    try expectReason("\"environment\" must be an object of strings", "{\"environment\": []}");
    try expectReason(
        "\"environment\" holds a name that is empty or has '=' in it",
        "{\"environment\": {\"A=B\": \"c\"}}",
    );
    try expectReason(
        "\"default_access\" must be one of: \"none\", \"read\", \"write\"",
        "{\"default_access\": \"all\"}",
    );
}

test "any cut of a good configuration is refused, never a crash" {
    const json = "{\"repositories\": \"/r\", \"threads\": 1, \"git_config\": {\"a\": \"b\"}}";
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    for (0..json.len) |end| {
        var buffer: [200]u8 = undefined;
        var reason = std.Io.Writer.fixed(&buffer);
        try testing.expectError(error.BadConfig, parse(arena.allocator(), json[0..end], &reason));
    }
}
