//! base64url without padding (RFC 4648, section 5; RFC 7515, section 2). Decoding is strict: no
//! other alphabet, no padding, no white space, and only the canonical form, so that no two texts
//! decode to the same bytes.

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub fn encodedLength(bytes: usize) usize {
    return bytes / 3 * 4 + switch (bytes % 3) {
        0 => @as(usize, 0),
        1 => 2,
        else => 3,
    };
}

/// The number of bytes that a text of this length stands for; a length of 4n + 1 is impossible.
pub fn decodedLength(characters: usize) error{Encoding}!usize {
    return characters / 4 * 3 + switch (characters % 4) {
        0 => @as(usize, 0),
        1 => return error.Encoding,
        2 => 1,
        else => 2,
    };
}

/// Two characters for each value of 12 bits: half the look-ups of one character at a time.
const pairs: [4096][2]u8 = blk: {
    @setEvalBranchQuota(20_000);
    var table: [4096][2]u8 = undefined;
    for (&table, 0..) |*pair, i| pair.* = .{ alphabet[i >> 6], alphabet[i & 63] };
    break :blk table;
};

/// `out` has exactly the encoded length.
pub fn encode(out: []u8, bytes: []const u8) void {
    assert(out.len == encodedLength(bytes.len));
    const whole = bytes.len / 3;
    for (0..whole) |i| {
        const three = bytes[3 * i ..][0..3];
        const value = @as(u32, three[0]) << 16 | @as(u32, three[1]) << 8 | three[2];
        const four = out[4 * i ..][0..4];
        four[0..2].* = pairs[value >> 12];
        four[2..4].* = pairs[value & 0xfff];
    }
    const rest = bytes[3 * whole ..];
    const last = out[4 * whole ..];
    switch (rest.len) {
        0 => {},
        1 => last[0..2].* = pairs[@as(u32, rest[0]) << 4],
        else => {
            const value = @as(u32, rest[0]) << 8 | rest[1];
            last[0..2].* = pairs[value >> 4];
            last[2] = alphabet[value << 2 & 63];
        },
    }
}

/// Above every value of 24 bits: marks a character outside the alphabet.
const invalid: u32 = 1 << 31;

/// values[p][c]: the bits of character c at place p of a group of four.
const values: [4][256]u32 = blk: {
    var table: [4][256]u32 = @splat(@splat(invalid));
    for (alphabet, 0..) |character, value| {
        for (0..4) |place| table[place][character] = value << (18 - 6 * place);
    }
    break :blk table;
};

/// Decodes into `out`, which has exactly the decoded length. On an error `out` holds rubbish.
pub fn decode(out: []u8, text: []const u8) error{Encoding}!void {
    assert(out.len == try decodedLength(text.len));
    const whole = text.len / 4;
    var i: usize = 0;
    if (builtin.cpu.arch.endian() == .little) {
        while (3 * i + chunk_room <= out.len) : (i += 4) {
            try decodeChunk(out[3 * i ..][0..chunk_room], text[4 * i ..][0..chunk_characters]);
        }
    }
    var seen: u32 = 0;
    while (i < whole) : (i += 1) {
        const four = text[4 * i ..][0..4];
        const value = values[0][four[0]] | values[1][four[1]] |
            values[2][four[2]] | values[3][four[3]];
        seen |= value;
        out[3 * i ..][0..3].* = .{
            @truncate(value >> 16),
            @truncate(value >> 8),
            @truncate(value),
        };
    }
    const rest = text[4 * whole ..];
    const last = out[3 * whole ..];
    if (rest.len >= 2) {
        var value = values[0][rest[0]] | values[1][rest[1]];
        if (rest.len == 3) value |= values[2][rest[2]];
        seen |= value;
        last[0] = @truncate(value >> 16);
        if (rest.len == 3) last[1] = @truncate(value >> 8);
        // Bits that no byte takes must be zero, or two texts would mean the same bytes.
        const unused: u32 = if (rest.len == 3) 0xff else 0xffff;
        if (value & unused != 0) return error.Encoding;
    }
    if (seen & invalid != 0) return error.Encoding;
}

const chunk_characters = 16;
/// The 12 bytes that a chunk stands for, and two that are written behind them for nothing.
const chunk_room = 14;
const Chunk = @Vector(chunk_characters, u8);

/// Sixteen characters at a time, in two thirds of the tables' time, with instructions that every
/// CPU of an architecture has.
inline fn decodeChunk(
    out: *[chunk_room]u8,
    characters: *const [chunk_characters]u8,
) error{Encoding}!void {
    const chunk: Chunk = characters.*;
    // What takes a character to its value. It is never 0 for those of the alphabet.
    const distance = distances(chunk, 'A', 'Z', 0) | distances(chunk, 'a', 'z', 26) |
        distances(chunk, '0', '9', 52) | distances(chunk, '-', '-', 62) |
        distances(chunk, '_', '_', 63);
    if (@reduce(.Or, distance == @as(Chunk, @splat(0)))) return error.Encoding;

    // Neighbours are joined twice. Of two the first, in the low bits, has the more weight.
    const sixes: @Vector(8, u16) = @bitCast(chunk +% distance);
    const low_six: @Vector(8, u16) = @splat(0xff);
    const twelves: @Vector(4, u32) = @bitCast((sixes & low_six) << @splat(6) | sixes >> @splat(8));
    const low_twelve: @Vector(4, u32) = @splat(0xffff);
    const groups: [4]u32 = (twelves & low_twelve) << @splat(12) | twelves >> @splat(16);
    inline for (0..2) |half| {
        const six_bytes = @as(u64, groups[2 * half]) << 24 | groups[2 * half + 1];
        std.mem.writeInt(u64, out[6 * half ..][0..8], six_bytes << 16, .big);
    }
}

/// For each character from `first` to `last` what takes it to its value, 0 for the others.
inline fn distances(chunk: Chunk, first: u8, last: u8, first_value: u8) Chunk {
    const within = chunk -% @as(Chunk, @splat(first)) <= @as(Chunk, @splat(last - first));
    return @select(u8, within, @as(Chunk, @splat(first_value -% first)), @as(Chunk, @splat(0)));
}

/// Whether decode would succeed.
pub fn isValid(text: []const u8) bool {
    _ = decodedLength(text.len) catch return false;
    var seen: u32 = 0;
    for (text) |character| seen |= values[3][character];
    if (seen & invalid != 0) return false;
    return switch (text.len % 4) {
        2 => values[3][text[text.len - 1]] & 0xf == 0,
        3 => values[3][text[text.len - 1]] & 0x3 == 0,
        else => true,
    };
}

const testing = std.testing;
const std_codec = std.base64.url_safe_no_pad;

test "encode and decode agree with std for every length and random bytes" {
    var prng = std.Random.DefaultPrng.init(4648);
    var bytes: [300]u8 = undefined;
    prng.random().bytes(&bytes);
    var ours: [400]u8 = undefined;
    var theirs: [400]u8 = undefined;
    var back: [300]u8 = undefined;
    for (0..bytes.len + 1) |n| {
        const text = ours[0..encodedLength(n)];
        encode(text, bytes[0..n]);
        try testing.expectEqualStrings(std_codec.Encoder.encode(&theirs, bytes[0..n]), text);
        try testing.expect(isValid(text));
        try testing.expectEqual(n, try decodedLength(text.len));
        try decode(back[0..n], text);
        try testing.expectEqualSlices(u8, bytes[0..n], back[0..n]);
    }
}

test "of all texts of up to three characters exactly the canonical ones decode" {
    var text: [3]u8 = undefined;
    var bytes: [2]u8 = undefined;
    for (0..256) |a| for (0..256) |b| {
        text[0..2].* = .{ @intCast(a), @intCast(b) };
        try expectCanonical(text[0..2], bytes[0..1]);
        // Every third character would take 16 million rounds; these are the ones that matter.
        for ("AQZaz09-_+/=. \n\x00\x80\xff") |c| {
            text[2] = c;
            try expectCanonical(text[0..3], bytes[0..2]);
        }
    };
}

fn expectCanonical(text: []const u8, bytes: []u8) !void {
    const decodes = if (decode(bytes, text)) true else |_| false;
    try testing.expectEqual(decodes, isValid(text));
    if (decodes) {
        var again: [3]u8 = undefined;
        encode(again[0..text.len], bytes);
        try testing.expectEqualStrings(text, again[0..text.len]);
    } else {
        // What we refuse std refuses too, save non-canonical texts, which it may let pass.
        var alphabetic = true;
        for (text) |character| {
            if (std.mem.indexOfScalar(u8, alphabet, character) == null) alphabetic = false;
        }
        if (alphabetic) {
            const last = std.mem.indexOfScalar(u8, alphabet, text[text.len - 1]).?;
            try testing.expect(last % @as(usize, if (text.len == 2) 16 else 4) != 0);
        }
    }
}

test "one wrong character anywhere is refused" {
    const good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    var bytes: [24]u8 = undefined;
    try decode(&bytes, good);
    for (0..good.len) |i| for ("+/=.~ \t\n\r\x00\x7f\x80\xff") |wrong| {
        var text = good.*;
        text[i] = wrong;
        try testing.expectError(error.Encoding, decode(&bytes, &text));
        try testing.expect(!isValid(&text));
    };
}

test "each byte at each place of a long text decodes as it does in a short one" {
    const good = alphabet[0..48];
    var short: [3]u8 = undefined;
    var long: [36]u8 = undefined;
    for (0..good.len) |i| for (0..256) |byte| {
        var text = good.*;
        text[i] = @intCast(byte);
        const group = i / 4;
        if (decode(&short, text[4 * group ..][0..4])) {
            try decode(&long, &text);
            try testing.expectEqualSlices(u8, &short, long[3 * group ..][0..3]);
        } else |err| {
            try testing.expectError(err, decode(&long, &text));
        }
    };
}

test "a length of 4n + 1 is refused" {
    for (0..5) |n| {
        try testing.expectError(error.Encoding, decodedLength(4 * n + 1));
        try testing.expect(!isValid(("A" ** 21)[0 .. 4 * n + 1]));
    }
}
