//! The key table as JSON: [{"principal": ..., "keys": [...], "rules": [...]}, ...].

const std = @import("std");
const key_table = @import("key_table.zig");
const public_key = @import("public_key.zig");

pub const Error = error{ OutOfMemory, BadKeys };

const Item = struct {
    principal: Text,
    keys: []const Text,
    rules: ?[]const Text = null,
};

/// A string and nothing else: std takes an array of numbers too, numbers in quotes among them, and
/// panics at some of those (Zig 0.15.2, parseFloat with underscores).
const Text = struct {
    slice: []const u8,

    pub fn jsonParse(
        allocator: std.mem.Allocator,
        source: anytype,
        options: std.json.ParseOptions,
    ) std.json.ParseError(@TypeOf(source.*))!Text {
        if (try source.peekNextTokenType() != .string) return error.UnexpectedToken;
        return .{ .slice = try std.json.innerParse([]const u8, allocator, source, options) };
    }
};

/// Adds all of `json` to `draft`. On BadKeys `reason` says what is wrong and where.
pub fn parse(
    allocator: std.mem.Allocator,
    draft: *key_table.KeyTable.Draft,
    json: []const u8,
    reason: *std.Io.Writer,
) Error!void {
    const parsed = std.json.parseFromSlice([]const Item, allocator, json, .{}) catch |err| {
        return switch (err) {
            error.OutOfMemory => error.OutOfMemory,
            else => fail(reason, "not a JSON array of {{principal, keys, rules}} ({t})", .{err}),
        };
    };
    defer parsed.deinit();
    for (parsed.value, 0..) |item, i| {
        const principal = key_table.Principal.init(item.principal.slice) catch {
            return fail(reason, "principal {d}: must be 1 to {d} bytes of UTF-8 without control " ++
                "characters", .{ i, key_table.principal_max });
        };
        const rules = if (item.rules) |list| try joinRules(allocator, list, i, reason) else null;
        defer if (rules) |text| allocator.free(text);
        for (item.keys, 0..) |line, j| {
            const key = public_key.PublicKey.fromLine(line.slice, 0) catch |err| {
                return fail(reason, "principal {d}, key {d}: {s}", .{ i, j, describe(err) });
            };
            draft.add(&principal, &key, rules) catch |err| return switch (err) {
                error.OutOfMemory => error.OutOfMemory,
                error.OtherPrincipal => fail(reason, "principal {d}, key {d}: the key belongs " ++
                    "to another principal already", .{ i, j }),
                error.BadRule => fail(reason, "principal {d}: " ++ bad_rule, .{i}),
                error.TableFull => fail(reason, "more than {d} keys", .{key_table.keys_max}),
            };
        }
    }
}

fn joinRules(
    allocator: std.mem.Allocator,
    list: []const Text,
    index: usize,
    reason: *std.Io.Writer,
) Error![]u8 {
    var text: std.ArrayListUnmanaged(u8) = .empty;
    errdefer text.deinit(allocator);
    for (list, 0..) |rule, i| {
        if (std.mem.indexOfScalar(u8, rule.slice, '\n') != null) {
            return fail(reason, "principal {d}: " ++ bad_rule, .{index});
        }
        if (i > 0) try text.append(allocator, '\n');
        try text.appendSlice(allocator, rule.slice);
    }
    return text.toOwnedSlice(allocator);
}

pub const bad_rule = "a rule is \"read PATTERN\" or \"write PATTERN\"; PATTERN is a " ++
    "repository's name without .git, a prefix ending in /*, or *";

pub fn describe(err: public_key.Error) []const u8 {
    return switch (err) {
        error.Malformed => "not an OpenSSH public key line (\"type base64 [comment]\")",
        error.UnsupportedType => "this type of key cannot log in here (ed25519, ecdsa, rsa and " ++
            "their sk- variants can; certificates and dsa cannot)",
        error.TooWeak => "the RSA key is too short",
    };
}

fn fail(reason: *std.Io.Writer, comptime format: []const u8, args: anytype) error{BadKeys} {
    reason.print(format, args) catch {}; // a cut reason is still a reason
    return error.BadKeys;
}

const testing = std.testing;

fn expectBad(expected: []const u8, json: []const u8) !void {
    var table: key_table.KeyTable = .init(testing.allocator);
    defer table.deinit();
    var draft = table.startDraft();
    defer draft.deinit();
    var buffer: [300]u8 = undefined;
    var reason = std.Io.Writer.fixed(&buffer);
    try testing.expectError(error.BadKeys, parse(testing.allocator, &draft, json, &reason));
    try testing.expect(std.mem.startsWith(u8, reason.buffered(), expected));
}

test "a table in JSON is taken with its rules" {
    var table: key_table.KeyTable = .init(testing.allocator);
    defer table.deinit();
    var draft = table.startDraft();
    defer draft.deinit();
    var reason = std.Io.Writer.Discarding.init(&.{});
    const json = "[{\"principal\": \"alice\", \"keys\": [\"" ++ public_key.test_line ++
        " x\"], \"rules\": [\"write alice/*\", \"read *\"]}, {\"principal\": \"b\", \"keys\": []}]";
    try parse(testing.allocator, &draft, json, &reason.writer);
    table.replace(&draft);
    try testing.expectEqual(1, table.count());
    const key = try public_key.PublicKey.fromLine(public_key.test_line, 0);
    const digest = key.digest();
    try testing.expectEqual(.allowed, table.authorize(&digest, "alice", "alice/x", true));
    try testing.expectEqual(.denied, table.authorize(&digest, "alice", "bob/x", true));
}

test "mistakes in a table are named" {
    try expectBad("not a JSON array", "{}");
    try expectBad("not a JSON array", "[{\"principal\": \"a\"}]");
    try expectBad("not a JSON array", "[{\"principal\": [97], \"keys\": []}]");
    const number = "." ++ "0" ** 25 ++ "_" ++ "0" ** 24;
    try expectBad("not a JSON array", "[{\"principal\": [\"" ++ number ++ "\"], \"keys\": []}]");
    try expectBad("not a JSON array", "[{\"principal\": \"a\", \"keys\": [], \"colour\": 1}]");
    try expectBad("principal 0: must be", "[{\"principal\": \"\", \"keys\": []}]");
    try expectBad(
        "principal 0, key 0: not an OpenSSH",
        "[{\"principal\": \"a\", \"keys\": [\"x\"]}]",
    );
    const key = "\"keys\": [\"" ++ public_key.test_line ++ "\"]";
    try expectBad(
        "principal 0: a rule",
        "[{\"principal\": \"a\", " ++ key ++ ", \"rules\": [\"x\"]}]",
    );
    try expectBad(
        "principal 1, key 0: the key belongs",
        "[{\"principal\": \"a\", " ++ key ++ "}, {\"principal\": \"b\", " ++ key ++ "}]",
    );
}
