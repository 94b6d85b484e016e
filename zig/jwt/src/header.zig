//! The JOSE header (RFC 7515, section 4) of an HS256 token: which ones are accepted.

const std = @import("std");
const json = @import("json.zig");

/// What sign writes. Verification recognises its encoded form and skips the rest of this file.
pub const standard = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";

/// Longest decoded header.
pub const max_bytes = 8192;
const max_depth = 16;

pub const Error = error{
    HeaderJson,
    HeaderDuplicate,
    Algorithm,
    Crit,
    B64,
    Kid,
    Typ,
};

const Parameter = enum { alg, crit, b64, kid, typ };

const Header = struct {
    value: std.EnumMap(Parameter, []const u8) = .{},
    duplicate: bool = false,

    pub fn member(header: *Header, m: json.Member) void {
        var buffer: [4]u8 = undefined;
        const name = json.shortText(&buffer, m.name) orelse return;
        const parameter = std.meta.stringToEnum(Parameter, name) orelse return;
        if (header.value.contains(parameter)) header.duplicate = true;
        header.value.put(parameter, m.value);
    }
};

/// Accepts one JSON object with alg exactly HS256; nothing else may say how to read the token.
/// A key or a URL in the header is never looked at: the caller's keys are the only ones.
pub fn check(text: []const u8) Error!void {
    var header: Header = .{};
    try readJson(text, &header);
    if (header.duplicate) return error.HeaderDuplicate;

    const algorithm = header.value.get(.alg) orelse return error.Algorithm;
    var buffer: [5]u8 = undefined;
    const raw = json.stringBody(algorithm) orelse return error.Algorithm;
    const name = json.shortText(&buffer, raw) orelse return error.Algorithm;
    if (!std.mem.eql(u8, name, "HS256")) return error.Algorithm;

    // RFC 7515, 4.1.11: an extension that is not understood makes the token invalid, and none is.
    if (header.value.contains(.crit)) return error.Crit;
    // RFC 7797: false would mean that the payload is not base64url at all.
    if (header.value.get(.b64)) |b64| if (!std.mem.eql(u8, b64, "true")) return error.B64;
    if (header.value.get(.kid)) |kid| if (json.stringBody(kid) == null) return error.Kid;
    if (header.value.get(.typ)) |typ| if (json.stringBody(typ) == null) return error.Typ;
}

/// Only the form: one JSON object, whatever it says.
pub fn checkForm(text: []const u8) error{HeaderJson}!void {
    var header: Header = .{};
    try readJson(text, &header);
}

fn readJson(text: []const u8, header: *Header) error{HeaderJson}!void {
    json.readObject(text, max_depth, header) catch |err| switch (err) {
        error.Json, error.TooDeep => return error.HeaderJson,
    };
}

const testing = std.testing;

test "headers that only differ in order, space, kid or typ are accepted" {
    for ([_][]const u8{
        standard,
        "{\"alg\":\"HS256\"}",
        "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}",
        "{\"typ\":\"at+jwt\",\"alg\":\"HS256\",\"kid\":\"2026-07\"}",
        "{\"alg\":\"\\u0048S256\",\"b64\":true,\"x\":[{\"alg\":\"none\"}]}",
        "{\"alg\":\"HS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AA\"},\"jku\":\"https://a.example\"}",
    }) |text| {
        errdefer std.debug.print("header: {s}\n", .{text});
        try check(text);
    }
}

test "every other header is refused for its own reason" {
    const Case = struct { Error, []const u8 };
    for ([_]Case{
        .{ error.HeaderJson, "" },
        .{ error.HeaderJson, "[]" },
        .{ error.HeaderJson, "\"HS256\"" },
        .{ error.HeaderJson, "{\"alg\":\"HS256\"" },
        .{ error.HeaderJson, "{\"alg\":\"HS256\",\"x\":\"\xff\"}" },
        .{ error.HeaderJson, "{\"alg\":\"HS256\",\"x\":" ++ "[" ** 20 ++ "]" ** 20 ++ "}" },
        .{ error.HeaderDuplicate, "{\"alg\":\"none\",\"alg\":\"HS256\"}" },
        .{ error.HeaderDuplicate, "{\"alg\":\"HS256\",\"\\u0061lg\":\"HS256\"}" },
        .{ error.HeaderDuplicate, "{\"alg\":\"HS256\",\"kid\":\"a\",\"kid\":\"b\"}" },
        .{ error.Algorithm, "{}" },
        .{ error.Algorithm, "{\"typ\":\"JWT\"}" },
        .{ error.Algorithm, "{\"ALG\":\"HS256\"}" },
        .{ error.Algorithm, "{\"alg\":\"none\"}" },
        .{ error.Algorithm, "{\"alg\":\"NoNe\"}" },
        .{ error.Algorithm, "{\"alg\":\"hs256\"}" },
        .{ error.Algorithm, "{\"alg\":\"HS256 \"}" },
        .{ error.Algorithm, "{\"alg\":\"HS384\"}" },
        .{ error.Algorithm, "{\"alg\":\"RS256\"}" },
        .{ error.Algorithm, "{\"alg\":\"\"}" },
        .{ error.Algorithm, "{\"alg\":null}" },
        .{ error.Algorithm, "{\"alg\":[\"HS256\"]}" },
        .{ error.Crit, "{\"alg\":\"HS256\",\"crit\":[\"b64\"]}" },
        .{ error.Crit, "{\"alg\":\"HS256\",\"crit\":[]}" },
        .{ error.Crit, "{\"alg\":\"HS256\",\"crit\":null}" },
        .{ error.Crit, "{\"alg\":\"HS256\",\"cri\\u0074\":[\"exp\"],\"b64\":false}" },
        .{ error.B64, "{\"alg\":\"HS256\",\"b64\":false}" },
        .{ error.B64, "{\"alg\":\"HS256\",\"b64\":\"true\"}" },
        .{ error.Kid, "{\"alg\":\"HS256\",\"kid\":7}" },
        .{ error.Kid, "{\"alg\":\"HS256\",\"kid\":null}" },
        .{ error.Kid, "{\"alg\":\"HS256\",\"kid\":[\"a\"]}" },
        .{ error.Typ, "{\"alg\":\"HS256\",\"typ\":1}" },
    }) |case| {
        errdefer std.debug.print("header: {s}\n", .{case[1]});
        try testing.expectError(case[0], check(case[1]));
    }
}
