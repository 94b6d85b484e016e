//! Writes bytes as the inside of a JSON string: valid UTF-8 as it is, control characters, quote
//! and backslash escaped, every byte that is not UTF-8 as U+FFFD. Plain text, which is nearly all
//! of a terminal's output, is copied a vector at a time.

const std = @import("std");
const utf8 = @import("utf8.zig");

/// The most that one byte becomes: `\u001b`.
pub const max_growth = 6;

/// The room that `encode` may need for `len` bytes.
pub fn capacity(len: usize) usize {
    return (len + @sizeOf(utf8.Carry)) * max_growth + vector_len;
}

const vector_len = std.simd.suggestVectorLength(u8) orelse 16;
const Vector = @Vector(vector_len, u8);
const Mask = std.meta.Int(.unsigned, vector_len);

/// Encodes `carry` and `text` into `out` and returns the length. A character whose end is missing
/// stays in `carry` for the next call. `out` has at least `capacity(text.len)` bytes.
pub fn encode(out: []u8, text: []const u8, carry: *utf8.Carry) usize {
    std.debug.assert(out.len >= capacity(text.len));
    var w: usize = 0;
    var r: usize = 0;
    if (carry.len > 0) {
        if (text.len == 0) return 0;
        r = encodeCarry(out, &w, text, carry) orelse return w;
    }
    while (r < text.len) {
        const plain = copyPlain(out[w..], text[r..]);
        w += plain;
        r += plain;
        if (r == text.len) break;
        if (text[r] < 0x80) {
            w += escape(out[w..], text[r]);
            r += 1;
            continue;
        }
        const bytes = text[r..@min(r + 4, text.len)];
        switch (utf8.classify(bytes)) {
            .whole => |n| r += append(out, &w, bytes[0..n]),
            .malformed => {
                _ = append(out, &w, utf8.replacement);
                r += 1;
            },
            .cut => {
                carry.set(bytes);
                break;
            },
        }
    }
    return w;
}

/// What is left in `carry` when nothing will follow: U+FFFD for each of its bytes.
pub fn flush(out: []u8, carry: *utf8.Carry) usize {
    var w: usize = 0;
    for (0..carry.len) |_| _ = append(out, &w, utf8.replacement);
    carry.len = 0;
    return w;
}

/// Finishes the carried character with the first bytes of `text`. Returns how many of them it
/// took, or null when all of `text` went into the carry.
fn encodeCarry(out: []u8, w: *usize, text: []const u8, carry: *utf8.Carry) ?usize {
    var joined: [8]u8 = undefined;
    const held: usize = carry.len;
    const len = held + @min(text.len, 4);
    @memcpy(joined[0..held], carry.slice());
    @memcpy(joined[held..len], text[0 .. len - held]);
    carry.len = 0;
    var r: usize = 0;
    while (r < held) switch (utf8.classify(joined[r..@min(r + 4, len)])) {
        .whole => |n| r += append(out, w, joined[r..][0..n]),
        .malformed => {
            _ = append(out, w, utf8.replacement);
            r += 1;
        },
        .cut => {
            carry.set(joined[r..len]);
            return null;
        },
    };
    return r - held;
}

fn append(out: []u8, w: *usize, bytes: []const u8) usize {
    @memcpy(out[w.*..][0..bytes.len], bytes);
    w.* += bytes.len;
    return bytes.len;
}

/// Copies the longest prefix of `text` that needs no escape and is ASCII. It may write a vector
/// past that prefix into `out`.
fn copyPlain(out: []u8, text: []const u8) usize {
    var n: usize = 0;
    while (n + vector_len <= text.len) {
        const v: Vector = text[n..][0..vector_len].*;
        out[n..][0..vector_len].* = v;
        const special = (v < @as(Vector, @splat(0x20))) | (v > @as(Vector, @splat(0x7f))) |
            (v == @as(Vector, @splat('"'))) | (v == @as(Vector, @splat('\\')));
        const mask: Mask = @bitCast(special);
        if (mask != 0) return n + @ctz(mask);
        n += vector_len;
    }
    while (n < text.len and isPlain(text[n])) : (n += 1) out[n] = text[n];
    return n;
}

fn isPlain(byte: u8) bool {
    return byte >= 0x20 and byte <= 0x7f and byte != '"' and byte != '\\';
}

fn escape(out: []u8, byte: u8) usize {
    const short: u8 = switch (byte) {
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        0x08 => 'b',
        0x0c => 'f',
        '"' => '"',
        '\\' => '\\',
        else => {
            const hex = "0123456789abcdef";
            out[0..6].* = .{ '\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15] };
            return 6;
        },
    };
    out[0..2].* = .{ '\\', short };
    return 2;
}

const testing = std.testing;

fn expectEncoded(expected: []const u8, pieces: []const []const u8) !void {
    var carry: utf8.Carry = .{};
    var all: [4096]u8 = undefined;
    var len: usize = 0;
    for (pieces) |piece| len += encode(all[len..], piece, &carry);
    len += flush(all[len..], &carry);
    try testing.expectEqualStrings(expected, all[0..len]);
}

test "plain text is copied, control characters and quotes are escaped" {
    try expectEncoded("", &.{""});
    try expectEncoded("hello", &.{"hello"});
    const expected = "a\\nb\\r\\t\\b\\f\\\"\\\\\\u001b\\u0000\x7f";
    try expectEncoded(expected, &.{"a\nb\r\t\x08\x0c\"\\\x1b\x00\x7f"});
    const long = "0123456789" ** 20;
    try expectEncoded(long ++ "\\n" ++ long, &.{long ++ "\n" ++ long});
}

test "a character split across calls comes out whole at every split" {
    const text = "aé€😀z";
    for (0..text.len + 1) |i| {
        for (i..text.len + 1) |j| {
            try expectEncoded(text, &.{ text[0..i], text[i..j], text[j..] });
        }
    }
}

test "each malformed byte becomes U+FFFD, at every split" {
    const text = "A\xf0\x9fB\xff\xe2\x28\xa1\xed\xa0\x80C";
    const fffd = utf8.replacement;
    const expected = "A" ++ fffd ** 2 ++ "B" ++ fffd ++ fffd ++ "(" ++ fffd ** 4 ++ "C";
    for (0..text.len + 1) |i| {
        for (i..text.len + 1) |j| {
            try expectEncoded(expected, &.{ text[0..i], text[i..j], text[j..] });
        }
    }
}

test "a tail cut short at the end becomes U+FFFD for each byte" {
    try expectEncoded(utf8.replacement ** 2, &.{"\xf0\x9f"});
    try expectEncoded(utf8.replacement ** 3, &.{ "\xf0", "\x9f", "\x98" });
}

test "every byte value fits in the promised capacity and decodes again" {
    var text: [256]u8 = undefined;
    for (&text, 0..) |*byte, i| byte.* = @intCast(i);
    var out: [capacity(256) + 2]u8 = undefined;
    var carry: utf8.Carry = .{};
    const len = encode(out[1..], &text, &carry);
    out[0] = '"';
    out[len + 1] = '"';
    const json = out[0 .. len + 2];
    const parsed = try std.json.parseFromSlice([]const u8, testing.allocator, json, .{});
    defer parsed.deinit();
    try testing.expectEqualStrings(text[0..0x80], parsed.value[0..0x80]);
}
