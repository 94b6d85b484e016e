//! Tests of jwt.zig: published tokens, every cut and every single change of a token, rotation.

const std = @import("std");
const base64url = @import("base64url.zig");
const jwt = @import("jwt.zig");
const testing = std.testing;

const secret = "a secret of more than thirty-two bytes";
const now_s = 1_700_000_000;

fn testKey(text: []const u8) jwt.Key {
    return .init(text, .detect());
}

fn verifyOne(out: []u8, token: []const u8, key: jwt.Key, at_s: i64) ![]u8 {
    var matched: ?usize = null;
    return jwt.verify(out, token, &.{key}, .{ .now_s = at_s }, &matched);
}

// RFC 7515, appendix A.1.
const rfc_secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjA" ++
    "zZr1Z9CAow";
const rfc_token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4" ++
    "MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ." ++
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const rfc_header = "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}";
const rfc_payload = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n " ++
    "\"http://example.com/is_root\":true}";

fn rfcKey() !jwt.Key {
    var bytes: [64]u8 = undefined;
    try base64url.decode(&bytes, rfc_secret);
    return testKey(&bytes);
}

test "the token of RFC 7515, A.1 is verified, and signed to the same characters" {
    const key = try rfcKey();
    var out: [512]u8 = undefined;
    try testing.expectEqualStrings(rfc_payload, try verifyOne(&out, rfc_token, key, 1_300_819_379));
    try testing.expectError(error.Expired, verifyOne(&out, rfc_token, key, 1_300_819_380));
    const signed = try jwt.signJws(&out, rfc_header, rfc_payload, &key);
    try testing.expectEqualStrings(rfc_token, signed);
}

test "what is signed verifies, for payloads of many lengths" {
    const key = testKey(secret);
    var payload_buffer: [400]u8 = undefined;
    var token_buffer: [800]u8 = undefined;
    var out: [400]u8 = undefined;
    for (0..300) |n| {
        var text: [300]u8 = @splat('x');
        const payload = try std.fmt.bufPrint(&payload_buffer, "{{\"a\":\"{s}\"}}", .{text[0..n]});
        const token = try jwt.sign(&token_buffer, payload, &key);
        try testing.expectEqual(81 + (4 * payload.len + 2) / 3, token.len);
        try testing.expectEqualStrings(payload, try verifyOne(&out, token, key, now_s));
    }
}

test "a token cut anywhere is refused" {
    const key = try rfcKey();
    var out: [512]u8 = undefined;
    for (0..rfc_token.len) |len| {
        try testing.expect(std.meta.isError(verifyOne(&out, rfc_token[0..len], key, 0)));
        try testing.expect(std.meta.isError(verifyOne(&out, rfc_token[len + 1 ..], key, 0)));
    }
}

test "a token with any one character changed to any other is refused" {
    const key = testKey(secret);
    var token_buffer: [200]u8 = undefined;
    const token = try jwt.sign(&token_buffer, "{\"sub\":\"ann\",\"admin\":false}", &key);
    var out: [200]u8 = undefined;
    for (0..token.len) |i| {
        const right = token[i];
        defer token[i] = right;
        for (0..256) |wrong| {
            if (wrong == right) continue;
            token[i] = @intCast(wrong);
            try testing.expect(std.meta.isError(verifyOne(&out, token, key, now_s)));
        }
    }
}

test "a token is refused when malformed for what it is, and as forged only when well formed" {
    const key = testKey(secret);
    var token_buffer: [200]u8 = undefined;
    const token = try jwt.sign(&token_buffer, "{\"a\":1}", &testKey("another secret"));
    var out: [200]u8 = undefined;
    try testing.expectError(error.Signature, verifyOne(&out, token, key, now_s));
    token[40] = '!'; // in the payload
    try testing.expectError(error.PayloadEncoding, verifyOne(&out, token, key, now_s));
}

test "of several keys the first that matches counts, and it says which" {
    const keys = [_]jwt.Key{ testKey("one"), testKey("two"), testKey("three") };
    var token_buffer: [200]u8 = undefined;
    var out: [200]u8 = undefined;
    for (keys, 0..) |key, index| {
        const token = try jwt.sign(&token_buffer, "{\"a\":1}", &key);
        var matched: ?usize = null;
        _ = try jwt.verify(&out, token, &keys, .{ .now_s = now_s }, &matched);
        try testing.expectEqual(index, matched.?);
    }
    const token = try jwt.sign(&token_buffer, "{\"a\":1}", &testKey("four"));
    var matched: ?usize = 7;
    const options: jwt.Options = .{ .now_s = now_s };
    try testing.expectError(error.Signature, jwt.verify(&out, token, &keys, options, &matched));
    try testing.expectEqual(null, matched);
    try testing.expectError(error.Signature, jwt.verify(&out, token, &.{}, options, &matched));
}

test "an expired token of the first key is expired, whatever other keys there are" {
    const keys = [_]jwt.Key{ testKey("one"), testKey("two") };
    var token_buffer: [200]u8 = undefined;
    var out: [200]u8 = undefined;
    var matched: ?usize = null;
    const token = try jwt.sign(&token_buffer, "{\"exp\":1}", &keys[0]);
    const options: jwt.Options = .{ .now_s = now_s };
    try testing.expectError(error.Expired, jwt.verify(&out, token, &keys, options, &matched));
    try testing.expectEqual(0, matched.?);
}

test "sizes at the limits" {
    const gpa = testing.allocator;
    const key = testKey(secret);
    const out = try gpa.alloc(u8, jwt.max_token_bytes);
    defer gpa.free(out);
    const payload = try gpa.alloc(u8, jwt.default_max_token_bytes);
    defer gpa.free(payload);
    @memset(payload, ' ');
    payload[0..2].* = "{}".*;
    const back = try gpa.alloc(u8, payload.len);
    defer gpa.free(back);

    const longest = (jwt.default_max_token_bytes - 81) * 3 / 4;
    const token = try jwt.sign(out, payload[0..longest], &key);
    try testing.expectEqual(jwt.default_max_token_bytes, token.len);
    try testing.expectEqual(longest, (try verifyOne(back, token, key, now_s)).len);
    try testing.expectError(error.TooLarge, jwt.sign(out, payload[0 .. longest + 1], &key));

    var matched: ?usize = null;
    const large = try jwt.signJws(out, "{\"alg\":\"HS256\"}", payload, &key);
    try testing.expectError(error.TooLarge, verifyOne(back, large, key, now_s));
    var options: jwt.Options = .{ .now_s = now_s, .max_token_bytes = large.len };
    _ = try jwt.verify(back, large, &.{key}, options, &matched);
    options.max_token_bytes -= 1;
    try testing.expectError(error.TooLarge, jwt.verify(back, large, &.{key}, options, &matched));
}

test "a result that does not fit is an error, and one that just fits is not" {
    const key = testKey(secret);
    var out: [200]u8 = undefined;
    var back: [200]u8 = undefined;
    const payload = "{\"a\":\"text\"}";
    const token = try jwt.sign(&out, payload, &key);
    for (0..token.len) |len| {
        var small: [200]u8 = undefined;
        try testing.expectError(error.BufferTooSmall, jwt.sign(small[0..len], payload, &key));
    }
    for (0..payload.len) |len| {
        try testing.expectError(error.BufferTooSmall, verifyOne(back[0..len], token, key, 0));
    }
    _ = try jwt.sign(out[0..token.len], payload, &key);
    _ = try verifyOne(back[0..payload.len], token, key, 0);
}

test "a JWS may carry any bytes, a header still has to be one" {
    const key = testKey(secret);
    var out: [400]u8 = undefined;
    var back: [400]u8 = undefined;
    var matched: ?usize = null;
    const bytes = "\x00\xff not JSON";
    const token = try jwt.signJws(&out, "{\"alg\":\"HS256\",\"kid\":\"k\"}", bytes, &key);
    const read = try jwt.verifyJws(&back, token, &.{key}, token.len, &matched);
    try testing.expectEqualStrings(bytes, read);
    try testing.expectError(error.PayloadJson, verifyOne(&back, token, key, 0));
    try testing.expectError(error.Algorithm, jwt.signJws(&out, "{\"alg\":\"none\"}", bytes, &key));
    try testing.expectError(error.HeaderJson, jwt.signJws(&out, "", bytes, &key));
    const large_header = "{\"alg\":\"HS256\"" ++ " " ** jwt.max_header_bytes ++ "}";
    try testing.expectError(error.TooLarge, jwt.signJws(&out, large_header, bytes, &key));
}

test "unverified parts are decoded as they stand" {
    var out: [200]u8 = undefined;
    const head = try jwt.decodeUnverified(&out, rfc_token, .header);
    try testing.expectEqualStrings(rfc_header, head);
    const payload = try jwt.decodeUnverified(&out, rfc_token, .payload);
    try testing.expectEqualStrings(rfc_payload, payload);
    try testing.expectError(error.Segments, jwt.decodeUnverified(&out, "a.b", .header));
    try testing.expectError(error.HeaderJson, jwt.decodeUnverified(&out, "AAAA..", .header));
    try testing.expectError(error.HeaderEncoding, jwt.decodeUnverified(&out, "=..", .header));
    try testing.expectError(error.PayloadEncoding, jwt.decodeUnverified(&out, ".A.", .payload));
    try testing.expectError(
        error.BufferTooSmall,
        jwt.decodeUnverified(out[0..4], rfc_token, .payload),
    );
}
