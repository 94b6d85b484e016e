//! Tests of the C ABI, called as C calls it: through the declarations of plue_jwt.h.

const std = @import("std");
const c = @cImport(@cInclude("plue_jwt.h"));
const config = @import("config");
const testing = std.testing;

const secret = "a secret of more than thirty-two bytes";
const payload = "{\"sub\":\"ann\",\"admin\":false}";

fn create(text: []const u8) u32 {
    return c.jwt_key_create(text.ptr, text.len);
}

fn name(code: i32) []const u8 {
    return std.mem.span(c.jwt_error_name(code));
}

fn expectError(expected: []const u8) !void {
    try testing.expectEqualStrings(expected, name(c.jwt_last_error()));
}

fn expectCode(expected: []const u8, code: i64) !void {
    try testing.expectEqualStrings(expected, name(@intCast(code)));
    try expectError(expected);
}

/// Compares exported functions with the header's declarations, both ways, argument by argument.
/// Zig checks none of this when it exports.
pub fn expectSignatures(comptime Exports: type) !void {
    @setEvalBranchQuota(1_000_000);
    comptime var in_header = 0;
    inline for (@typeInfo(c).@"struct".decls) |decl| {
        if (comptime !std.mem.startsWith(u8, decl.name, "jwt_")) continue;
        const Declared = @TypeOf(@field(c, decl.name));
        if (@typeInfo(Declared) != .@"fn") continue;
        in_header += 1;
        if (!@hasDecl(Exports, decl.name)) {
            std.debug.print("declared but not exported: {s}\n", .{decl.name});
            return error.NotExported;
        }
        const declared = @typeInfo(Declared).@"fn";
        const exported = @typeInfo(@TypeOf(@field(Exports, decl.name))).@"fn";
        errdefer std.debug.print("differs from the header: {s}\n", .{decl.name});
        try testing.expectEqual(declared.params.len, exported.params.len);
        inline for (declared.params, exported.params) |want, have| {
            try expectSameType(want.type.?, have.type.?);
        }
        try expectSameType(declared.return_type.?, exported.return_type.?);
    }
    comptime var in_library = 0;
    inline for (@typeInfo(Exports).@"struct".decls) |decl| {
        if (comptime std.mem.startsWith(u8, decl.name, "jwt_")) in_library += 1;
    }
    try testing.expectEqual(in_header, in_library);
}

fn expectSameType(comptime Declared: type, comptime Exported: type) !void {
    try testing.expectEqual(@bitSizeOf(Declared), @bitSizeOf(Exported));
    try testing.expectEqual(isPointer(Declared), isPointer(Exported));
    if (@typeInfo(Declared) == .int) {
        const declared = @typeInfo(Declared).int.signedness;
        try testing.expectEqual(declared, @typeInfo(Exported).int.signedness);
    }
}

fn isPointer(comptime T: type) bool {
    return switch (@typeInfo(T)) {
        .pointer => true,
        .optional => |optional| @typeInfo(optional.child) == .pointer,
        else => false,
    };
}

test "every code of the header has its name, and no other number has one" {
    @setEvalBranchQuota(1_000_000);
    comptime var in_header = 1; // JWT_OK
    inline for (@typeInfo(c).@"struct".decls) |decl| {
        if (comptime !std.mem.startsWith(u8, decl.name, "JWT_ERROR_")) continue;
        in_header += 1;
        var lower: [decl.name.len]u8 = undefined;
        const expected = std.ascii.lowerString(&lower, decl.name)["JWT_ERROR_".len..];
        try testing.expectEqualStrings(expected, name(@field(c, decl.name)));
    }
    try testing.expectEqualStrings("ok", name(c.JWT_OK));
    var named: usize = 0;
    var code: i32 = -1000;
    while (code <= 1000) : (code += 1) {
        if (!std.mem.eql(u8, name(code), "unknown")) named += 1;
    }
    try testing.expectEqual(in_header, named);
    try testing.expectEqualStrings("unknown", name(std.math.minInt(i32)));
}

test "one secret for the process: before, during and after" {
    c.jwt_cleanup();
    try testing.expectEqual(null, c.jwt_sign(payload));
    try expectError("no_secret");
    try testing.expectEqual(null, c.jwt_verify("a.b.c"));
    try expectError("no_secret");

    try testing.expect(c.jwt_init(secret, secret.len));
    defer c.jwt_cleanup();
    try expectError("ok");
    const token = c.jwt_sign(payload);
    defer c.jwt_free(token);
    const back = c.jwt_verify(token);
    defer c.jwt_free(back);
    try testing.expectEqualStrings(payload, std.mem.span(back));

    // A refused secret leaves the one before in place.
    try testing.expect(!c.jwt_init(null, 0));
    try expectError("empty_secret");
    try testing.expect(!c.jwt_init(null, 5));
    try expectError("null_pointer");
    try testing.expect(!c.jwt_init("", 0));
    try testing.expect(!c.jwt_init("ssh-rsa AAAA", 12));
    try expectError("asymmetric_key");
    const again = c.jwt_verify(token);
    defer c.jwt_free(again);
    try testing.expect(again != null);

    // A second secret replaces the first; one byte is enough.
    try testing.expect(c.jwt_init("s", 1));
    try testing.expectEqual(null, c.jwt_verify(token));
    try expectError("signature");
    c.jwt_cleanup();
    c.jwt_cleanup();
    try testing.expectEqual(null, c.jwt_verify(token));
    try expectError("no_secret");
}

test "free of null is nothing and leaves the last error" {
    try testing.expectEqual(null, c.jwt_sign(null));
    try expectError("null_pointer");
    c.jwt_free(null);
    try expectError("null_pointer");
}

test "null pointers are an error everywhere" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    var out: [300]u8 = undefined;
    var verdict: i32 = 0;
    try testing.expectEqual(null, c.jwt_verify(null));
    try expectError("null_pointer");
    try testing.expectEqual(null, c.jwt_sign_text(key, null));
    try expectError("null_pointer");
    try testing.expectEqual(null, c.jwt_verify_text(key, null));
    try expectError("null_pointer");
    try testing.expectEqual(0, c.jwt_key_create(null, 9));
    try expectError("null_pointer");
    try expectCode("null_pointer", c.jwt_sign_into(key, null, 5, &out, out.len));
    try expectCode("null_pointer", c.jwt_sign_into(key, payload, payload.len, null, 100));
    try expectCode("null_pointer", c.jwt_verify_into(key, null, 5, &out, out.len));
    try expectCode("null_pointer", c.jwt_verify_into(key, "a.b.c", 5, null, 9));
    try expectCode("null_pointer", c.jwt_verify_with(null, 5, &key, 1, null, &out, 300, null));
    try expectCode("null_pointer", c.jwt_verify_with("a", 1, null, 1, null, &out, 300, null));
    try expectCode("null_pointer", c.jwt_jws_verify(null, 5, &key, 1, null, &out, 300, null));
    try expectCode("null_pointer", c.jwt_jws_sign(key, null, 5, "x", 1, &out, out.len));
    try expectCode("null_pointer", c.jwt_decode_unverified(null, 5, 0, &out, out.len));
    try expectCode("null_pointer", c.jwt_verify_batch(key, null, null, 1, null, null, 0, &verdict));
    try testing.expect(!c.jwt_mac(key, null, 1, &out));
    try expectError("null_pointer");
    try testing.expect(!c.jwt_mac(key, "x", 1, null));
    try testing.expect(!c.jwt_force_cpu_path(null));
}

test "a null pointer with no bytes is an empty text" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    var out: [300]u8 = undefined;
    try expectCode("payload_json", c.jwt_sign_into(key, null, 0, &out, out.len));
    try expectCode("segments", c.jwt_verify_into(key, null, 0, &out, out.len));
    try expectCode("buffer_too_small", c.jwt_sign_into(key, payload, payload.len, null, 0));
    const len = c.jwt_jws_sign(key, "{\"alg\":\"HS256\"}", 15, null, 0, &out, out.len);
    try testing.expect(len > 0);
    try testing.expectEqual(0, c.jwt_jws_verify(&out, @intCast(len), &key, 1, null, null, 0, null));
    try testing.expect(c.jwt_mac(key, null, 0, &out));
}

test "text in, text out, and the last error of each call" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    var token: [300]u8 = undefined;
    const signed = std.mem.span(c.jwt_sign_text(key, payload));
    @memcpy(token[0..signed.len], signed);
    token[signed.len] = 0;
    try testing.expectEqualStrings(payload, std.mem.span(c.jwt_verify_text(key, &token)));
    try expectError("ok");
    token[signed.len - 2] ^= 1;
    try testing.expectEqual(null, c.jwt_verify_text(key, &token));
    try expectError("signature");
    try testing.expect(c.jwt_sign_text(key, payload) != null);
    try expectError("ok");
}

test "a payload can be signed again, and a token verified, right where they are" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    const claims = "{\"sub\":\"alice\",\"note\":\"" ++ "long " ** 200 ++ "\"}";
    const first = c.jwt_sign_text(key, claims);
    var kept: [8192]u8 = undefined;
    const token = kept[0..std.mem.len(first)];
    @memcpy(token, std.mem.span(first));

    const again = c.jwt_sign_text(key, c.jwt_verify_text(key, first));
    try testing.expectEqualStrings(token, std.mem.span(again));
    try testing.expectEqualStrings(claims, std.mem.span(c.jwt_verify_text(key, again)));
}

test "a handle that was destroyed or made up is an error everywhere" {
    const key = create(secret);
    try testing.expect(c.jwt_key_destroy(key));
    var out: [300]u8 = undefined;
    var verdict: i32 = 0;
    for ([_]u32{ key, 0, 1, 0xffff_ffff, key +% 1 }) |stale| {
        try testing.expect(!c.jwt_key_destroy(stale));
        try expectError("unknown_key");
        try testing.expectEqual(null, c.jwt_sign_text(stale, payload));
        try expectError("unknown_key");
        try testing.expectEqual(null, c.jwt_verify_text(stale, "a.b.c"));
        try expectError("unknown_key");
        try expectCode("unknown_key", c.jwt_sign_into(stale, payload, payload.len, &out, 300));
        try expectCode("unknown_key", c.jwt_verify_into(stale, "a.b.c", 5, &out, 300));
        try expectCode("unknown_key", c.jwt_verify_with("a", 1, &stale, 1, null, &out, 9, null));
        try expectCode("unknown_key", c.jwt_jws_verify("a", 1, &stale, 1, null, &out, 9, null));
        try expectCode("unknown_key", c.jwt_jws_sign(stale, "{}", 2, "", 0, &out, 300));
        const batch = c.jwt_verify_batch(stale, null, null, 0, null, null, 0, &verdict);
        try expectCode("unknown_key", batch);
        try testing.expect(!c.jwt_mac(stale, "x", 1, &out));
        try expectError("unknown_key");
    }
}

test "options out of range are an error" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    var out: [300]u8 = undefined;
    const good: c.jwt_options = .{ .now_s = 5, .leeway_s = 0, .checks = 7, .max_token_bytes = 0 };
    var negative_leeway = good;
    negative_leeway.leeway_s = -1;
    var unknown_check = good;
    unknown_check.checks = 8;
    var too_large = good;
    too_large.max_token_bytes = c.JWT_MAX_TOKEN_BYTES + 1;
    for ([_]c.jwt_options{ negative_leeway, unknown_check, too_large }) |bad| {
        try expectCode("options", c.jwt_verify_with("a", 1, &key, 1, &bad, &out, 300, null));
        try expectCode("options", c.jwt_jws_verify("a", 1, &key, 1, &bad, &out, 300, null));
        try expectCode("options", c.jwt_verify_batch(key, null, null, 0, &bad, null, 0, null));
    }
    try expectCode("segments", c.jwt_verify_with("a", 1, &key, 1, &good, &out, 300, null));
    try expectCode("key_count", c.jwt_verify_with("a", 1, &key, 0, &good, &out, 300, null));
    const many: [c.JWT_MAX_KEYS_PER_CALL + 1]u32 = @splat(key);
    const all = c.jwt_verify_with("a", 1, &many, many.len, &good, &out, 300, null);
    try expectCode("key_count", all);
    const most = c.jwt_verify_with("a", 1, &many, many.len - 1, &good, &out, 300, null);
    try expectCode("segments", most);
    try expectCode("options", c.jwt_decode_unverified("a", 1, 2, &out, out.len));
    const batch = c.jwt_verify_batch(key, null, null, c.JWT_MAX_BATCH + 1, null, null, 0, null);
    try expectCode("options", batch);
}

test "verification with options: checks, clock, leeway, rotation" {
    const keys = [_]u32{ create("the new secret"), create(secret) };
    defer for (keys) |key| {
        _ = c.jwt_key_destroy(key);
    };
    var token: [300]u8 = undefined;
    var out: [300]u8 = undefined;
    const text = "{\"exp\":1000}";
    const len: usize = @intCast(c.jwt_sign_into(keys[1], text, text.len, &token, token.len));

    var options: c.jwt_options = .{
        .now_s = 999,
        .leeway_s = 0,
        .checks = c.JWT_CHECK_ALL,
        .max_token_bytes = 0,
    };
    var index: i32 = 9;
    const good = c.jwt_verify_with(&token, len, &keys, 2, &options, &out, out.len, &index);
    try testing.expectEqualStrings(text, out[0..@intCast(good)]);
    try testing.expectEqual(1, index);

    options.now_s = 1000;
    index = 9;
    const expired = c.jwt_verify_with(&token, len, &keys, 2, &options, &out, out.len, &index);
    try expectCode("expired", expired);
    try testing.expectEqual(1, index);

    options.leeway_s = 1;
    try testing.expect(c.jwt_verify_with(&token, len, &keys, 2, &options, &out, 300, null) > 0);
    options.leeway_s = 0;
    options.checks = c.JWT_CHECK_NBF | c.JWT_CHECK_IAT;
    try testing.expect(c.jwt_verify_with(&token, len, &keys, 2, &options, &out, 300, null) > 0);
    options.now_s = c.JWT_NOW_SYSTEM;
    options.checks = c.JWT_CHECK_ALL;
    try expectCode("expired", c.jwt_verify_with(&token, len, &keys, 2, &options, &out, 300, null));
    try expectCode("expired", c.jwt_verify_with(&token, len, &keys, 2, null, &out, 300, null));

    const none = c.jwt_verify_with(&token, len, &keys, 1, null, &out, out.len, &index);
    try expectCode("signature", none);
    try testing.expectEqual(-1, index);
    options.max_token_bytes = @intCast(len - 1);
    const long = c.jwt_verify_with(&token, len, &keys, 2, &options, &out, 300, null);
    try expectCode("too_large", long);
}

test "a batch has a verdict for each of its tokens" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    var tokens: [600]u8 = undefined;
    var lengths: [4]u32 = undefined;
    var at: usize = 0;
    for ([_][]const u8{ payload, "{\"exp\":1}", "{}" }, 0..) |text, i| {
        const len = c.jwt_sign_into(key, text.ptr, text.len, tokens[at..].ptr, tokens.len - at);
        lengths[i] = @intCast(len);
        at += @intCast(len);
    }
    lengths[3] = 0;
    var out: [600]u8 = undefined;
    var results: [4]i32 = undefined;
    const valid = c.jwt_verify_batch(key, &tokens, &lengths, 4, null, &out, out.len, &results);
    try testing.expectEqual(2, valid);
    const expected = [4]i32{ payload.len, c.JWT_ERROR_EXPIRED, 2, c.JWT_ERROR_SEGMENTS };
    try testing.expectEqual(expected, results);
    try testing.expectEqualStrings(payload ++ "{}", out[0 .. payload.len + 2]);

    const small = c.jwt_verify_batch(key, &tokens, &lengths, 4, null, &out, at - 1, &results);
    try expectCode("buffer_too_small", small);
    lengths = @splat(std.math.maxInt(u32));
    const huge = c.jwt_verify_batch(key, &tokens, &lengths, 4, null, &out, at, &results);
    try expectCode("buffer_too_small", huge);
    try testing.expectEqual(0, c.jwt_verify_batch(key, null, null, 0, null, null, 0, null));
}

test "huge texts are refused, not read into anything" {
    const gpa = testing.allocator;
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    const huge = try gpa.allocSentinel(u8, c.JWT_MAX_TOKEN_BYTES + 1, 0);
    defer gpa.free(huge);
    @memset(huge, 'a');
    try testing.expect(c.jwt_init(secret, secret.len));
    defer c.jwt_cleanup();
    try testing.expectEqual(null, c.jwt_sign(huge));
    try expectError("too_large");
    try testing.expectEqual(null, c.jwt_verify(huge));
    try expectError("too_large");
    try testing.expectEqual(null, c.jwt_sign_text(key, huge));
    try expectError("too_large");
    try testing.expectEqual(null, c.jwt_verify_text(key, huge));
    try expectError("too_large");
    var out: [9]u8 = undefined;
    try expectCode("too_large", c.jwt_sign_into(key, huge, huge.len, &out, out.len));
    try expectCode("too_large", c.jwt_verify_into(key, huge, huge.len, &out, out.len));
    try expectCode("too_large", c.jwt_decode_unverified(huge, huge.len, 0, &out, out.len));
    try testing.expect(!c.jwt_init(huge, huge.len));
    try expectError("secret_too_large");
}

test "bytes that are not UTF-8 and embedded NUL are refused on both sides" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    var token: [300]u8 = undefined;
    var out: [300]u8 = undefined;
    for ([_][]const u8{ "{\"a\":\"\xff\"}", "{\"a\":\"\x00\"}", "{}\x00" }) |bad| {
        try expectCode("payload_json", c.jwt_sign_into(key, bad.ptr, bad.len, &token, token.len));
        const head = "{\"alg\":\"HS256\"}";
        const len = c.jwt_jws_sign(key, head, head.len, bad.ptr, bad.len, &token, token.len);
        try testing.expect(len > 0);
        const verdict = c.jwt_verify_into(key, &token, @intCast(len), &out, out.len);
        try expectCode("payload_json", verdict);
    }
    try testing.expectEqual(null, c.jwt_verify_text(key, "\xff\xfe.\xff.\xff"));
    try expectError("header_encoding");
}

test "a MAC is HMAC-SHA256" {
    // RFC 4231, 4.3.
    const key = create("Jefe");
    defer _ = c.jwt_key_destroy(key);
    var mac: [c.JWT_MAC_BYTES]u8 = undefined;
    const text = "what do ya want for nothing?";
    try testing.expect(c.jwt_mac(key, text, text.len, &mac));
    const expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    try testing.expectEqualStrings(expected, &std.fmt.bytesToHex(mac, .lower));
}

test "every path of this CPU gives the same token; an unknown path is refused" {
    const key = create(secret);
    defer _ = c.jwt_key_destroy(key);
    defer _ = c.jwt_force_cpu_path("auto");
    const detected = std.mem.span(c.jwt_cpu_path());
    var first: [300]u8 = undefined;
    const len: usize = @intCast(c.jwt_sign_into(key, payload, payload.len, &first, first.len));
    for ([_][*:0]const u8{ "scalar", "sha-ni", "sha2", "auto" }) |path| {
        if (!c.jwt_force_cpu_path(path)) continue;
        var token: [300]u8 = undefined;
        _ = c.jwt_sign_into(key, payload, payload.len, &token, token.len);
        try testing.expectEqualStrings(first[0..len], token[0..len]);
    }
    try testing.expectEqualStrings(detected, std.mem.span(c.jwt_cpu_path()));
    try testing.expect(!c.jwt_force_cpu_path("avx9000"));
    try expectError("options");
    try testing.expectEqualStrings(config.version, std.mem.span(c.jwt_version()));
}

const Rotation = struct {
    const secrets = [2][]const u8{ "the old secret", "the new secret" };
    const rounds = 2_000;

    keys: [2]u32,
    failed: std.atomic.Value(u32) = .init(0),
    stop: std.atomic.Value(bool) = .init(false),

    fn rotate(rotation: *Rotation) void {
        var i: usize = 0;
        while (!rotation.stop.load(.monotonic)) : (i +%= 1) {
            const text = secrets[i % 2];
            if (!c.jwt_init(text.ptr, text.len)) _ = rotation.failed.fetchAdd(1, .monotonic);
            // Handles come and go at the same time.
            const key = create("another");
            if (!c.jwt_key_destroy(key)) _ = rotation.failed.fetchAdd(1, .monotonic);
        }
    }

    fn signAndVerify(rotation: *Rotation) void {
        for (0..rounds) |_| rotation.once() catch {
            _ = rotation.failed.fetchAdd(1, .monotonic);
        };
    }

    fn once(rotation: *Rotation) !void {
        const token = c.jwt_sign(payload);
        defer c.jwt_free(token);
        if (token == null) return error.NotSigned;
        var out: [100]u8 = undefined;
        const len = std.mem.len(token);
        const with = c.jwt_verify_with(token, len, &rotation.keys, 2, null, &out, 100, null);
        if (with != payload.len) return error.NeitherSecret;
        const back = c.jwt_verify(token);
        defer c.jwt_free(back);
        // The secret may have changed since: then, and only then, the signature is wrong.
        if (back == null and c.jwt_last_error() != c.JWT_ERROR_SIGNATURE) return error.WrongReason;
    }
};

test "eight threads sign and verify while the secret rotates" {
    var rotation: Rotation = .{
        .keys = .{ create(Rotation.secrets[0]), create(Rotation.secrets[1]) },
    };
    defer for (rotation.keys) |key| {
        _ = c.jwt_key_destroy(key);
    };
    defer c.jwt_cleanup();
    try testing.expect(c.jwt_init(Rotation.secrets[0].ptr, Rotation.secrets[0].len));
    const rotator = try std.Thread.spawn(.{}, Rotation.rotate, .{&rotation});
    var threads: [8]std.Thread = undefined;
    for (&threads) |*thread| {
        thread.* = try std.Thread.spawn(.{}, Rotation.signAndVerify, .{&rotation});
    }
    for (threads) |thread| thread.join();
    rotation.stop.store(true, .monotonic);
    rotator.join();
    try testing.expectEqual(0, rotation.failed.load(.monotonic));
}
