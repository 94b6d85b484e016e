//! Recognises keys that are no HMAC secrets. Whoever verifies HS256 with the text of a public key
//! lets everybody who has that key sign (CVE-2022-29217 and its successors), so such secrets are
//! refused. JWK text is refused even for symmetric keys: the secret is what its "k" decodes to.

const std = @import("std");
const json = @import("json.zig");

pub const max_bytes = 1024 * 1024;
/// RFC 7518, 3.2: a key of the size of the hash output or larger.
pub const recommended_bytes = 32;

pub const Error = error{ EmptySecret, SecretTooLarge, AsymmetricKey };

pub fn check(secret: []const u8) Error!void {
    if (secret.len == 0) return error.EmptySecret;
    if (secret.len > max_bytes) return error.SecretTooLarge;
    // Byte order marks of UTF-8 and UTF-16, and the zero bytes of the latter.
    const text = std.mem.trimLeft(u8, secret, "\xef\xbb\xbf\xff\xfe\x00" ++ std.ascii.whitespace);
    if (isPem(text) or isOpenSsh(text) or isJwk(text) or isDer(secret)) {
        return error.AsymmetricKey;
    }
}

/// Anywhere: certificates often come with a readable description before them (RFC 7468, 2).
fn isPem(text: []const u8) bool {
    return std.mem.indexOf(u8, text, "-----BEGIN ") != null or
        std.mem.indexOf(u8, text, "---- BEGIN ") != null;
}

/// The key types of OpenSSH's authorized_keys format.
fn isOpenSsh(text: []const u8) bool {
    for ([_][]const u8{
        "ssh-rsa",
        "ssh-dss",
        "ssh-ed25519",
        "ssh-ed448",
        "ecdsa-sha2-",
        "sk-ssh-ed25519",
        "sk-ecdsa-sha2-",
    }) |prefix| {
        if (std.mem.startsWith(u8, text, prefix)) return true;
    }
    return false;
}

const JwkVisitor = struct {
    found: bool = false,

    pub fn member(visitor: *JwkVisitor, m: json.Member) void {
        var buffer: [4]u8 = undefined;
        const name = json.shortText(&buffer, m.name) orelse return;
        if (std.mem.eql(u8, name, "kty") or std.mem.eql(u8, name, "keys")) visitor.found = true;
    }
};

/// A JWK or a JWK set (RFC 7517), in whatever else, and in whatever others still read as JSON.
fn isJwk(text: []const u8) bool {
    if (text.len == 0 or (text[0] != '{' and text[0] != '[')) return false;
    if (holdsKty(text)) return true;
    var visitor: JwkVisitor = .{};
    json.readObject(text, 16, &visitor) catch |err| switch (err) {
        error.Json, error.TooDeep => return false,
    };
    return visitor.found;
}

/// The name of the one member that every JWK has. Zero bytes do not count, which reads UTF-16.
fn holdsKty(text: []const u8) bool {
    const name = "\"kty\"";
    var matched: usize = 0;
    for (text) |byte| {
        if (byte == 0) continue;
        matched = if (byte == name[matched]) matched + 1 else @intFromBool(byte == name[0]);
        if (matched == name.len) return true;
    }
    return false;
}

/// The smallest public key, Ed25519, has 44 bytes as SubjectPublicKeyInfo.
const min_der_bytes = 44;

/// An ASN.1 SEQUENCE of exactly this length that begins as one of: SubjectPublicKeyInfo (RFC 5280),
/// a certificate, PrivateKeyInfo (RFC 5958), RSA keys (RFC 8017), EC keys (RFC 5915). A random
/// secret passes for one with a chance of about one in a billion.
fn isDer(secret: []const u8) bool {
    if (secret.len < min_der_bytes) return false;
    const outer = Element.read(secret) orelse return false;
    if (outer.tag != Element.sequence or outer.rest.len != 0) return false;
    const first = Element.read(outer.body) orelse return false;
    switch (first.tag) {
        Element.sequence => {
            const inner = Element.read(first.body) orelse return false;
            return switch (inner.tag) {
                Element.object_identifier, Element.integer, Element.explicit_0 => true,
                else => false,
            };
        },
        Element.integer => {
            const second = Element.read(first.rest) orelse return false;
            return switch (second.tag) {
                Element.sequence, Element.integer, Element.octet_string => true,
                else => false,
            };
        },
        else => return false,
    }
}

/// One tag, length and value of DER (X.690).
const Element = struct {
    tag: u8,
    body: []const u8,
    rest: []const u8,

    const integer = 0x02;
    const octet_string = 0x04;
    const object_identifier = 0x06;
    const sequence = 0x30;
    const explicit_0 = 0xa0;

    fn read(bytes: []const u8) ?Element {
        if (bytes.len < 2) return null;
        var len: usize = bytes[1];
        var start: usize = 2;
        if (len >= 0x80) {
            const length_bytes = len & 0x7f;
            if (length_bytes == 0 or length_bytes > 4 or bytes.len < 2 + length_bytes) return null;
            len = 0;
            for (bytes[2..][0..length_bytes]) |byte| len = len << 8 | byte;
            start += length_bytes;
        }
        if (len > bytes.len - start) return null;
        return .{
            .tag = bytes[0],
            .body = bytes[start..][0..len],
            .rest = bytes[start + len ..],
        };
    }
};

const testing = std.testing;

test "ordinary secrets are accepted, short and binary ones too" {
    try check("s");
    try check("\x00");
    try check("your-256-bit-secret");
    try check("{\"not\":\"a key\"}");
    try check("[\"not\", \"kt\", \"ty\", \"a kty\"]");
    try check("\"kty\"");
    try check("{kty");
    try check("0" ** 64);
    try check("\x30\x2a" ++ "\x00" ** 42);
    try check("ssh is fun");
    try check(&@as([max_bytes]u8, @splat('x')));
}

test "an empty and a huge secret are refused" {
    try testing.expectError(error.EmptySecret, check(""));
    try testing.expectError(error.SecretTooLarge, check(&@as([max_bytes + 1]u8, @splat('x'))));
}

test "keys of other kinds are refused, also behind white space" {
    const spki_ed25519 = "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" ++ "k" ** 32;
    const pkcs8_ed25519 = "\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20" ++
        "k" ** 32;
    const pkcs1_rsa = "\x30\x82\x01\x0a\x02\x82\x01\x01\x00" ++ "n" ** 256 ++
        "\x02\x03\x01\x00\x01";
    const sec1_ec = "\x30\x31\x02\x01\x01\x04\x20" ++ "d" ** 32 ++ "\xa0\x0a\x06\x08" ++ "o" ** 8;
    for ([_][]const u8{
        "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n",
        "\n \t-----BEGIN RSA PUBLIC KEY-----\n",
        "\xef\xbb\xbf-----BEGIN CERTIFICATE-----\n",
        "Subject: CN=example\n-----BEGIN CERTIFICATE-----\n",
        "---- BEGIN SSH2 PUBLIC KEY ----\n",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
        "  ssh-rsa AAAAB3NzaC1yc2E",
        "ecdsa-sha2-nistp256 AAAA",
        "sk-ssh-ed25519@openssh.com AAAA",
        "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}",
        " \r\n{ \"e\":\"AQAB\", \"\\u006bty\" : \"RSA\" }\n",
        "{\"kty\":\"oct\",\"k\":\"AAAA\"}",
        "{\"keys\":[]}",
        "[{\"kty\":\"RSA\"}]",
        "{\"a\":[[{\"kty\":\"RSA\"}]]}",
        "{\"kty\":\"RSA\",\"x\":NaN}",
        "{\"\"kty\"",
        "[" ** 1000 ++ "\"kty\"",
        "\xff\xfe{\x00\"\x00k\x00t\x00y\x00\"\x00:\x001\x00}\x00",
        "\x00{\x00\"\x00k\x00t\x00y\x00\"\x00:\x001\x00}",
        "---- BEGIN PUBLIC KEY ----\nMCow\n---- END PUBLIC KEY ----\n",
        spki_ed25519,
        pkcs8_ed25519,
        pkcs1_rsa,
        sec1_ec,
    }) |secret| {
        errdefer std.debug.print("secret: {s}\n", .{secret});
        try testing.expectError(error.AsymmetricKey, check(secret));
    }
}

test "DER cut at any byte is read without harm" {
    const whole = "\x30\x82\x00\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" ++ "k" ** 40;
    for (0..whole.len) |len| _ = isDer(whole[0..len]);
    _ = isDer("\x30\x84\xff\xff\xff\xff" ++ "k" ** 40);
    _ = isDer("\x30\x80" ++ "k" ** 44);
    _ = isDer("\x30\xff" ++ "k" ** 44);
}
