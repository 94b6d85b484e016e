//! Public keys as OpenSSH writes them: "type base64 [comment]". Checks the shape (RFC 4253,
//! section 6.6), not the mathematics: a signature that verifies does that.

const std = @import("std");
const base64 = std.base64.standard;

/// Longest blob accepted, in bytes. RSA with 16384 bits needs 2.1 kB.
pub const blob_max = 4096;
/// "SHA256:" and 43 characters of base64 without padding.
pub const fingerprint_len = 7 + 43;
/// Longest type name, "sk-ecdsa-sha2-nistp256@openssh.com", with room.
pub const type_max = 48;
/// Longest "type base64".
pub const line_max = type_max + 1 + base64.Encoder.calcSize(blob_max);

pub const Digest = [std.crypto.hash.sha2.Sha256.digest_length]u8;
pub const Fingerprint = [fingerprint_len]u8;

/// Key types that may authenticate. Certificates are missing on purpose: libssh does not check
/// them against an authority. So is ssh-dss.
pub const types = [_][]const u8{
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
};

pub const Error = error{
    /// Not "type base64", or a blob that does not match its type.
    Malformed,
    /// A type not in `types`.
    UnsupportedType,
    /// An RSA key with fewer bits than asked for.
    TooWeak,
};

pub const PublicKey = struct {
    /// One of `types`, static.
    type_name: []const u8,
    blob_buffer: [blob_max]u8,
    blob_len: usize,

    /// `line` is one OpenSSH line without options; what follows the base64 is a comment.
    pub fn fromLine(line: []const u8, rsa_min_bits: u32) Error!PublicKey {
        const trimmed = std.mem.trim(u8, line, " \t\r\n");
        if (std.mem.indexOfAny(u8, trimmed, "\r\n") != null) return error.Malformed;
        var words = std.mem.tokenizeAny(u8, trimmed, " \t");
        const type_name = words.next() orelse return error.Malformed;
        const text = words.next() orelse return error.Malformed;
        const key = try fromBase64(text, rsa_min_bits);
        if (!std.mem.eql(u8, key.type_name, type_name)) return error.Malformed;
        return key;
    }

    pub fn fromBase64(text: []const u8, rsa_min_bits: u32) Error!PublicKey {
        const len = base64.Decoder.calcSizeForSlice(text) catch return error.Malformed;
        if (len > blob_max) return error.Malformed;
        var key: PublicKey = .{ .type_name = "", .blob_buffer = undefined, .blob_len = len };
        base64.Decoder.decode(key.blob_buffer[0..len], text) catch return error.Malformed;
        var rest = key.blob();
        const type_name = try takeString(&rest);
        key.type_name = for (types) |known| {
            if (std.mem.eql(u8, known, type_name)) break known;
        } else return error.UnsupportedType;
        if (std.mem.eql(u8, type_name, "ssh-rsa")) {
            _ = try takeString(&rest); // the exponent
            if (bitLength(try takeString(&rest)) < rsa_min_bits) return error.TooWeak;
        } else {
            _ = try takeString(&rest); // the point, or the name of the curve
        }
        return key;
    }

    pub fn blob(key: *const PublicKey) []const u8 {
        return key.blob_buffer[0..key.blob_len];
    }

    pub fn digest(key: *const PublicKey) Digest {
        var out: Digest = undefined;
        std.crypto.hash.sha2.Sha256.hash(key.blob(), &out, .{});
        return out;
    }

    /// "type base64" without a comment.
    pub fn writeLine(key: *const PublicKey, out: *[line_max + 1]u8) [:0]const u8 {
        const head = std.fmt.bufPrint(out, "{s} ", .{key.type_name}) catch unreachable; // line_max
        const text = base64.Encoder.encode(out[head.len..], key.blob());
        out[head.len + text.len] = 0;
        return out[0 .. head.len + text.len :0];
    }
};

/// As `ssh-keygen -l` shows it.
pub fn fingerprint(digest: *const Digest) Fingerprint {
    var out: Fingerprint = undefined;
    @memcpy(out[0..7], "SHA256:");
    _ = std.base64.standard_no_pad.Encoder.encode(out[7..], digest);
    return out;
}

fn takeString(rest: *[]const u8) Error![]const u8 {
    if (rest.len < 4) return error.Malformed;
    const len = std.mem.readInt(u32, rest.*[0..4], .big);
    if (len > rest.len - 4) return error.Malformed;
    defer rest.* = rest.*[4 + len ..];
    return rest.*[4..][0..len];
}

fn bitLength(mpint: []const u8) u64 {
    const digits = std.mem.trimLeft(u8, mpint, "\x00");
    if (digits.len == 0) return 0;
    return @as(u64, digits.len) * 8 - @clz(digits[0]);
}

const testing = std.testing;

pub const test_line = "ssh-ed25519 " ++ test_base64;
pub const test_base64 =
    "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

test "a line gives its type, blob and fingerprint, and can be written again" {
    const key = try PublicKey.fromLine("  " ++ test_line ++ " alice@example \n", 2048);
    try testing.expectEqualStrings("ssh-ed25519", key.type_name);
    try testing.expectEqual(51, key.blob().len);
    var out: [line_max + 1]u8 = undefined;
    try testing.expectEqualStrings(test_line, key.writeLine(&out));
    // ssh-keygen -lf of the same line
    try testing.expectEqualStrings(
        "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA",
        &fingerprint(&key.digest()),
    );
}

test "lines that are no key are refused" {
    const malformed = [_][]const u8{
        "",                             "ssh-ed25519",
        test_base64,                    "ssh-rsa " ++ test_base64,
        "ssh-ed25519 AAAA",             "ssh-ed25519 !!!!",
        test_line ++ "=",               "ssh-ed25519 " ++ test_base64[0..40],
        test_line ++ "\n" ++ test_line, "command=\"x\" " ++ test_line,
        "ssh-ed25519 AAAA/////w==",
    };
    for (malformed) |line| {
        try testing.expectError(error.Malformed, PublicKey.fromLine(line, 2048));
    }
    const dsa = PublicKey.fromLine("ssh-dss AAAAB3NzaC1kc3M=", 0);
    try testing.expectError(error.UnsupportedType, dsa);
}

test "an RSA key below the limit is too weak" {
    var blob: [300]u8 = undefined;
    var writer = std.Io.Writer.fixed(&blob);
    for ([_][]const u8{ "ssh-rsa", "\x01\x00\x01", "\x00\x80" ++ "\x00" ** 127 }) |part| {
        try writer.writeInt(u32, @intCast(part.len), .big);
        try writer.writeAll(part);
    }
    var text: [400]u8 = undefined;
    const line = base64.Encoder.encode(&text, writer.buffered());
    try testing.expectError(error.TooWeak, PublicKey.fromBase64(line, 2048));
    _ = try PublicKey.fromBase64(line, 1024);
}

test "a blob cut at any byte is refused or still whole in itself" {
    const key = try PublicKey.fromLine(test_line, 2048);
    var text: [100]u8 = undefined;
    for (0..key.blob().len) |len| {
        const cut = base64.Encoder.encode(&text, key.blob()[0..len]);
        if (PublicKey.fromBase64(cut, 2048)) |_| return error.TestUnexpectedResult else |_| {}
    }
}
