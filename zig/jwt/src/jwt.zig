//! Signs and verifies HS256 tokens (RFC 7519 over RFC 7515, compact serialization). Pure: keys,
//! the clock and the room for the result come from the caller, nothing is allocated.

const std = @import("std");
const assert = std.debug.assert;
const base64url = @import("base64url.zig");
const hmac = @import("hmac.zig");
const header = @import("header.zig");
const claims = @import("claims.zig");

pub const Key = hmac.Key;
pub const Checks = claims.Checks;

pub const default_max_token_bytes = 64 * 1024;
/// Bounds what options can ask for; any length of a token or payload fits an i32.
pub const max_token_bytes = 16 * 1024 * 1024;
pub const max_header_bytes = header.max_bytes;
pub const max_depth = claims.max_depth;

/// The encoded standard header, which nearly every token begins with, and its dot.
const standard_prefix = prefix: {
    @setEvalBranchQuota(10_000);
    var text: [base64url.encodedLength(header.standard.len)]u8 = undefined;
    base64url.encode(&text, header.standard);
    break :prefix text ++ ".";
};
const signature_characters = base64url.encodedLength(hmac.mac_bytes);

pub const SignError = error{ BufferTooSmall, TooLarge } ||
    header.Error || claims.FormError || claims.TimeError;

pub const SignatureError = error{
    BufferTooSmall,
    TooLarge,
    Segments,
    HeaderEncoding,
    SignatureEncoding,
    Signature,
    PayloadEncoding,
} || header.Error;

pub const VerifyError = SignatureError || claims.FormError || claims.TimeError;

pub const Options = struct {
    now_s: i64,
    leeway_s: i64 = 0,
    checks: Checks = .{},
    max_token_bytes: usize = default_max_token_bytes,
};

/// Writes a token with the standard header. The payload must be one that verify accepts at the
/// right time; the claims' times are not compared with any clock.
pub fn sign(out: []u8, payload: []const u8, key: *const Key) SignError![]u8 {
    if (payload.len > default_max_token_bytes) return error.TooLarge;
    const read = try claims.Claims.read(payload);
    try read.checkTypes();
    return finishToken(out, standard_prefix, payload, key, default_max_token_bytes);
}

/// Writes a token over any bytes, under any header that verifyJws accepts.
pub fn signJws(out: []u8, head: []const u8, payload: []const u8, key: *const Key) SignError![]u8 {
    if (head.len > max_header_bytes or payload.len > max_token_bytes) return error.TooLarge;
    try header.check(head);
    var buffer: [base64url.encodedLength(max_header_bytes) + 1]u8 = undefined;
    const head_characters = base64url.encodedLength(head.len);
    base64url.encode(buffer[0..head_characters], head);
    buffer[head_characters] = '.';
    const prefix = buffer[0 .. head_characters + 1];
    return finishToken(out, prefix, payload, key, max_token_bytes);
}

/// `prefix` is the encoded header with its dot.
fn finishToken(
    out: []u8,
    prefix: []const u8,
    payload: []const u8,
    key: *const Key,
    max_bytes: usize,
) error{ BufferTooSmall, TooLarge }![]u8 {
    const signed_len = prefix.len + base64url.encodedLength(payload.len);
    const token_len = signed_len + 1 + signature_characters;
    if (token_len > max_bytes) return error.TooLarge;
    if (token_len > out.len) return error.BufferTooSmall;

    const token = out[0..token_len];
    @memcpy(token[0..prefix.len], prefix);
    base64url.encode(token[prefix.len..signed_len], payload);
    const mac = key.mac(token[0..signed_len]);
    token[signed_len] = '.';
    base64url.encode(token[signed_len + 1 ..], &mac);
    return token;
}

/// Verifies with the first key whose signature matches; any later fault is final, whatever other
/// keys there are. `matched` tells the index of that key as soon as it is known. Returns the
/// payload in `out`.
pub fn verify(
    out: []u8,
    token: []const u8,
    keys: []const Key,
    options: Options,
    matched: *?usize,
) VerifyError![]u8 {
    const payload = try verifyJws(out, token, keys, options.max_token_bytes, matched);
    const read = try claims.Claims.read(payload);
    try read.checkTimes(options.checks, .{
        .now_s = options.now_s,
        .leeway_s = options.leeway_s,
    });
    return payload;
}

/// As verify, but the payload may be any bytes.
pub fn verifyJws(
    out: []u8,
    token: []const u8,
    keys: []const Key,
    max_bytes: usize,
    matched: *?usize,
) SignatureError![]u8 {
    assert(max_bytes <= max_token_bytes);
    matched.* = null;
    const segments = try Segments.split(token, max_bytes);
    if (!hasStandardHeader(token)) try checkHeader(segments.header);

    matched.* = findKey(segments, keys) catch |err| {
        // A token that is malformed anyway is called so, not forged. This says nothing that its
        // characters do not say to everybody.
        if (!base64url.isValid(segments.payload)) return error.PayloadEncoding;
        return err;
    };
    return decodeInto(out, segments.payload) catch |err| switch (err) {
        error.Encoding => error.PayloadEncoding,
        error.BufferTooSmall => error.BufferTooSmall,
    };
}

fn hasStandardHeader(token: []const u8) bool {
    return std.mem.startsWith(u8, token, standard_prefix);
}

fn findKey(
    segments: Segments,
    keys: []const Key,
) error{ SignatureEncoding, Signature }!usize {
    var given: hmac.Mac = undefined;
    if (segments.signature.len != signature_characters) {
        // A MAC of another length is a wrong one, unless it is not even base64url.
        if (!base64url.isValid(segments.signature)) return error.SignatureEncoding;
        return error.Signature;
    }
    base64url.decode(&given, segments.signature) catch return error.SignatureEncoding;
    for (keys, 0..) |*key, index| {
        const computed = key.mac(segments.signed);
        if (hmac.equal(&computed, &given)) return index;
    }
    return error.Signature;
}

// Out of line: its buffer would otherwise be part of every verification's stack.
noinline fn checkHeader(segment: []const u8) (header.Error || error{HeaderEncoding})!void {
    var buffer: [max_header_bytes]u8 = undefined;
    const text = decodeInto(&buffer, segment) catch |err| switch (err) {
        error.Encoding, error.BufferTooSmall => return error.HeaderEncoding,
    };
    try header.check(text);
}

pub const Part = enum(u32) { header = 0, payload = 1 };

/// Decodes a segment of a token of which nothing is verified.
pub fn decodeUnverified(out: []u8, token: []const u8, part: Part) SignatureError![]u8 {
    const segments = try Segments.split(token, max_token_bytes);
    switch (part) {
        .header => {
            const text = decodeInto(out, segments.header) catch |err| switch (err) {
                error.Encoding => return error.HeaderEncoding,
                error.BufferTooSmall => return error.BufferTooSmall,
            };
            try header.checkForm(text);
            return text;
        },
        .payload => return decodeInto(out, segments.payload) catch |err| switch (err) {
            error.Encoding => error.PayloadEncoding,
            error.BufferTooSmall => error.BufferTooSmall,
        },
    }
}

fn decodeInto(out: []u8, segment: []const u8) error{ Encoding, BufferTooSmall }![]u8 {
    const len = try base64url.decodedLength(segment.len);
    if (len > out.len) return error.BufferTooSmall;
    try base64url.decode(out[0..len], segment);
    return out[0..len];
}

const Segments = struct {
    header: []const u8,
    payload: []const u8,
    signature: []const u8,
    /// What the signature covers: the first two with the dot between them.
    signed: []const u8,

    fn split(token: []const u8, max_bytes: usize) error{ TooLarge, Segments }!Segments {
        if (token.len > max_bytes) return error.TooLarge;
        const first = if (hasStandardHeader(token))
            standard_prefix.len - 1
        else
            std.mem.indexOfScalar(u8, token, '.') orelse return error.Segments;
        const second = std.mem.indexOfScalarPos(u8, token, first + 1, '.') orelse
            return error.Segments;
        if (std.mem.indexOfScalarPos(u8, token, second + 1, '.') != null) return error.Segments;
        return .{
            .header = token[0..first],
            .payload = token[first + 1 .. second],
            .signature = token[second + 1 ..],
            .signed = token[0..second],
        };
    }
};

const testing = std.testing;

test {
    _ = @import("jwt_test.zig");
    _ = @import("fuzz.zig");
}
