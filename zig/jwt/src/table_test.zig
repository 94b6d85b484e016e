//! The table of refusals and the Wycheproof vectors of the tree that this package is part of,
//! through the C ABI. Skipped where the package stands alone: the same rules have tests of their
//! own in the files that they concern.

const std = @import("std");
const c = @cImport(@cInclude("plue_jwt.h"));
const config = @import("config");
const testing = std.testing;

const Case = struct {
    name: []const u8,
    @"error": []const u8 = "ok",
    token: ?[]const u8 = null,
    token_parts: []const struct { []const u8, usize } = &.{},
    now_s: i64 = c.JWT_NOW_SYSTEM,
    leeway_s: i64 = 0,
    secret_base64: []const u8 = "",
    secret_repeat: struct { []const u8, usize } = .{ "", 0 },
    payload_base64: []const u8 = "",

    fn tokenText(case: Case, allocator: std.mem.Allocator) ![]const u8 {
        if (case.token) |token| return token;
        var text: std.ArrayList(u8) = .empty;
        for (case.token_parts) |part| {
            for (0..part[1]) |_| try text.appendSlice(allocator, part[0]);
        }
        return text.items;
    }
};

const Table = struct {
    secret: []const u8,
    refused_tokens: []const Case,
    accepted_tokens: []const Case,
    refused_secrets: []const Case,
    refused_payloads: []const Case,
};

fn readJson(comptime T: type, arena: std.mem.Allocator, name: []const u8) !T {
    const folder = config.test_folder orelse return error.SkipZigTest;
    const path = try std.fs.path.join(arena, &.{ folder, name });
    const text = try std.fs.cwd().readFileAlloc(arena, path, 1 << 20);
    return std.json.parseFromSliceLeaky(T, arena, text, .{ .ignore_unknown_fields = true });
}

fn createKey(secret: []const u8) !u32 {
    const key = c.jwt_key_create(secret.ptr, secret.len);
    return if (key == 0) error.KeyRefused else key;
}

fn decodeBase64(arena: std.mem.Allocator, text: []const u8) ![]u8 {
    const decoder = std.base64.standard.Decoder;
    const bytes = try arena.alloc(u8, try decoder.calcSizeForSlice(text));
    try decoder.decode(bytes, text);
    return bytes;
}

fn nameOf(code: i32) []const u8 {
    return std.mem.span(c.jwt_error_name(@min(code, 0)));
}

test "the table's tokens have the verdicts of the table" {
    var arena_state: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const table = try readJson(Table, arena, "jwt/refusals.json");
    const key = try createKey(table.secret);
    defer _ = c.jwt_key_destroy(key);
    try testing.expect(table.refused_tokens.len > 100);
    const lists = [_][]const Case{ table.refused_tokens, table.accepted_tokens };
    const cases = try std.mem.concat(arena, Case, &lists);
    for (cases) |case| {
        errdefer std.debug.print("case: {s}\n", .{case.name});
        const token = try case.tokenText(arena);
        const out = try testing.allocator.alloc(u8, token.len);
        defer testing.allocator.free(out);
        const options: c.jwt_options = .{
            .now_s = case.now_s,
            .leeway_s = case.leeway_s,
            .checks = c.JWT_CHECK_ALL,
            .max_token_bytes = 0,
        };
        const code = c.jwt_verify_with(
            token.ptr,
            token.len,
            &key,
            1,
            &options,
            out.ptr,
            out.len,
            null,
        );
        try testing.expectEqualStrings(case.@"error", nameOf(code));
        if (case.now_s != c.JWT_NOW_SYSTEM) continue;
        // The calls without options say the same about what the clock does not change.
        const plain = c.jwt_verify_into(key, token.ptr, token.len, out.ptr, out.len);
        try testing.expectEqual(code, plain);
        const text = try arena.dupeZ(u8, token);
        try testing.expectEqual(code >= 0, c.jwt_verify_text(key, text) != null);
    }
}

test "the table's secrets and payloads are refused" {
    var arena_state: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const table = try readJson(Table, arena, "jwt/refusals.json");
    for (table.refused_secrets) |case| {
        errdefer std.debug.print("secret: {s}\n", .{case.name});
        const repeated = try arena.alloc(u8, case.secret_repeat[1]);
        if (repeated.len > 0) @memset(repeated, case.secret_repeat[0][0]);
        const plain = try decodeBase64(arena, case.secret_base64);
        const secret = if (repeated.len > 0) repeated else plain;
        try testing.expectEqual(0, c.jwt_key_create(secret.ptr, secret.len));
        try testing.expectEqualStrings(case.@"error", nameOf(c.jwt_last_error()));
        try testing.expect(!c.jwt_init(secret.ptr, secret.len));
        try testing.expectEqualStrings(case.@"error", nameOf(c.jwt_last_error()));
    }
    const key = try createKey(table.secret);
    defer _ = c.jwt_key_destroy(key);
    for (table.refused_payloads) |case| {
        errdefer std.debug.print("payload: {s}\n", .{case.name});
        const payload = try decodeBase64(arena, case.payload_base64);
        var out: [4096]u8 = undefined;
        const code = c.jwt_sign_into(key, payload.ptr, payload.len, &out, out.len);
        try testing.expectEqualStrings(case.@"error", nameOf(code));
    }
}

const JwsVectors = struct {
    testGroups: []const struct {
        private: struct { kty: []const u8 = "", alg: []const u8 = "", k: []const u8 = "" },
        tests: []const struct { tcId: u32, jws: std.json.Value, result: []const u8 },
    },
};

test "Wycheproof's 40 HS256 tokens, save four that are wrong in themselves" {
    var arena_state: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const vectors = try readJson(JwsVectors, arena, "vectors/wycheproof_jws.json");
    var seen: usize = 0;
    for (vectors.testGroups) |group| {
        const is_oct = std.mem.eql(u8, group.private.kty, "oct");
        if (!is_oct or !std.mem.eql(u8, group.private.alg, "HS256")) continue;
        const decoder = std.base64.url_safe_no_pad.Decoder;
        const secret = try arena.alloc(u8, try decoder.calcSizeForSlice(group.private.k));
        try decoder.decode(secret, group.private.k);
        const key = try createKey(secret);
        defer _ = c.jwt_key_destroy(key);
        for (group.tests) |case| {
            errdefer std.debug.print("case {d}\n", .{case.tcId});
            const token = if (case.jws == .string)
                case.jws.string
            else
                try std.json.Stringify.valueAlloc(arena, case.jws, .{});
            var out: [1024]u8 = undefined;
            const code = c.jwt_jws_verify(token.ptr, token.len, &key, 1, null, &out, out.len, null);
            const valid = switch (case.tcId) {
                372, 373 => false, // each holds an illegal character
                367, 370 => true, // each is the very token of case 357
                else => std.mem.eql(u8, case.result, "valid"),
            };
            try testing.expectEqual(valid, code >= 0);
            seen += 1;
        }
    }
    try testing.expectEqual(40, seen);
}

const MacVectors = struct {
    testGroups: []const struct {
        tagSize: u32,
        tests: []const struct {
            tcId: u32,
            key: []const u8,
            msg: []const u8,
            tag: []const u8,
            result: []const u8,
        },
    },
};

test "Wycheproof's HMAC-SHA256 vectors" {
    var arena_state: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const vectors = try readJson(MacVectors, arena, "vectors/wycheproof_hmac_sha256.json");
    var seen: usize = 0;
    for (vectors.testGroups) |group| for (group.tests) |case| {
        errdefer std.debug.print("case {d}\n", .{case.tcId});
        var buffer: [3][1024]u8 = undefined;
        const secret = try std.fmt.hexToBytes(&buffer[0], case.key);
        const message = try std.fmt.hexToBytes(&buffer[1], case.msg);
        const tag = try std.fmt.hexToBytes(&buffer[2], case.tag);
        if (secret.len == 0) continue; // no HMAC key here
        const key = try createKey(secret);
        defer _ = c.jwt_key_destroy(key);
        var mac: [c.JWT_MAC_BYTES]u8 = undefined;
        try testing.expect(c.jwt_mac(key, message.ptr, message.len, &mac));
        const same = std.mem.eql(u8, tag, mac[0 .. group.tagSize / 8]);
        try testing.expectEqual(std.mem.eql(u8, case.result, "valid"), same);
        seen += 1;
    };
    try testing.expect(seen > 150);
}
