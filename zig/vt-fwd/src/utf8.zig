//! UTF-8 as the recording needs it: what a byte sequence is (whole, cut short, malformed), and
//! the few bytes of a character that a read cut in two. Decoding to code points is not done here.

const std = @import("std");

/// U+FFFD, which stands in the recording for each byte that is not UTF-8.
pub const replacement = "\u{FFFD}";

pub const Class = union(enum) {
    /// The first `n` bytes are one character.
    whole: u3,
    /// All the bytes at hand are the beginning of a character.
    cut,
    /// The first byte belongs to no character.
    malformed,
};

/// Classifies the sequence that `bytes` (not empty) starts with, after table 3-7 of the Unicode
/// standard: no overlong forms, no surrogates, nothing above U+10FFFF.
pub fn classify(bytes: []const u8) Class {
    const first = bytes[0];
    const length: u3 = switch (first) {
        0x00...0x7f => return .{ .whole = 1 },
        0xc2...0xdf => 2,
        0xe0...0xef => 3,
        0xf0...0xf4 => 4,
        else => return .malformed,
    };
    if (bytes.len == 1) return .cut;
    const low: u8 = switch (first) {
        0xe0 => 0xa0,
        0xf0 => 0x90,
        else => 0x80,
    };
    const high: u8 = switch (first) {
        0xed => 0x9f,
        0xf4 => 0x8f,
        else => 0xbf,
    };
    if (bytes[1] < low or bytes[1] > high) return .malformed;
    for (bytes[2..@min(length, bytes.len)]) |byte| {
        if (byte & 0xc0 != 0x80) return .malformed;
    }
    return if (bytes.len < length) .cut else .{ .whole = length };
}

/// The beginning of a character whose rest has not arrived.
pub const Carry = struct {
    bytes: [3]u8 = undefined,
    len: u2 = 0,

    pub fn set(carry: *Carry, bytes: []const u8) void {
        std.debug.assert(bytes.len <= carry.bytes.len);
        @memcpy(carry.bytes[0..bytes.len], bytes);
        carry.len = @intCast(bytes.len);
    }

    pub fn slice(carry: *const Carry) []const u8 {
        return carry.bytes[0..carry.len];
    }
};

test "characters of every length are whole, and cut at each of their bytes" {
    for ([_][]const u8{ "a", "é", "€", "😀", "\u{10ffff}", "\u{d7ff}", "\u{e000}" }) |text| {
        try std.testing.expectEqual(Class{ .whole = @intCast(text.len) }, classify(text));
        for (1..text.len) |n| try std.testing.expectEqual(Class.cut, classify(text[0..n]));
    }
}

test "what is not UTF-8 is malformed at its first byte" {
    const cases = [_][]const u8{
        "\x80",         "\xbf",             "\xc0\x80",  "\xc1\xbf",         "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf5",      "\xff",             "\xc3A",
        "\xe2\x82A",    "\xf0\x9f\x98A",    "\xf0\x9fA", "\xf4\x90\x80\x80",
    };
    for (cases) |bytes| try std.testing.expectEqual(Class.malformed, classify(bytes));
}

test "classify agrees with the standard library on every sequence of two and three bytes" {
    var bytes: [3]u8 = undefined;
    for (0..0x10000) |n| {
        bytes = .{ @truncate(n >> 8), @truncate(n), 0x80 };
        const expected = if (std.unicode.utf8ByteSequenceLength(bytes[0])) |length|
            length > 3 or std.unicode.utf8ValidateSlice(bytes[0..length])
        else |_|
            false;
        switch (classify(&bytes)) {
            .whole => try std.testing.expect(expected),
            .cut => try std.testing.expect(bytes[0] >= 0xf0),
            .malformed => try std.testing.expect(!expected or bytes[0] >= 0xf0),
        }
    }
}
