//! HMAC-SHA256 (RFC 2104) under a prepared key: the two blocks that depend on nothing but the
//! secret are hashed once, when the key is made, and the secret itself is not kept.

const std = @import("std");
const sha256 = @import("sha256.zig");

pub const mac_bytes = sha256.digest_bytes;
pub const Mac = [mac_bytes]u8;

pub const Key = struct {
    /// SHA-256 states after the key block xor ipad, and xor opad.
    inner: sha256.State,
    outer: sha256.State,
    path: sha256.Path,

    pub fn init(secret: []const u8, path: sha256.Path) Key {
        var block: [sha256.block_bytes]u8 = @splat(0);
        defer std.crypto.secureZero(u8, &block);
        if (secret.len <= block.len) {
            @memcpy(block[0..secret.len], secret);
        } else {
            var state = sha256.initial_state;
            finish(path, &state, secret, 0);
            block[0..mac_bytes].* = bytesOf(state);
            std.crypto.secureZero(u32, &state);
        }

        var key: Key = .{
            .inner = sha256.initial_state,
            .outer = sha256.initial_state,
            .path = path,
        };
        for (&block) |*byte| byte.* ^= 0x36;
        sha256.compress(path, &key.inner, &block);
        for (&block) |*byte| byte.* ^= 0x36 ^ 0x5c;
        sha256.compress(path, &key.outer, &block);
        return key;
    }

    pub fn wipe(key: *Key) void {
        std.crypto.secureZero(u32, &key.inner);
        std.crypto.secureZero(u32, &key.outer);
    }

    pub fn mac(key: *const Key, message: []const u8) Mac {
        var state = key.inner;
        finish(key.path, &state, message, sha256.block_bytes);
        var block = outer_padding;
        block[0..mac_bytes].* = bytesOf(state);
        state = key.outer;
        sha256.compress(key.path, &state, &block);
        return bytesOf(state);
    }
};

/// The last block of the outer hash, all but the digest at its beginning: it always has the same
/// length, and so the same padding.
const outer_padding: [sha256.block_bytes]u8 = padding: {
    var block: [sha256.block_bytes]u8 = @splat(0);
    block[mac_bytes] = 0x80;
    std.mem.writeInt(u64, block[block.len - 8 ..], (sha256.block_bytes + mac_bytes) * 8, .big);
    break :padding block;
};

/// In a time that does not depend on where they differ.
pub fn equal(a: *const Mac, b: *const Mac) bool {
    return std.crypto.timing_safe.eql(Mac, a.*, b.*);
}

/// Hashes the rest of a message of which `hashed_bytes`, whole blocks, are in the state already,
/// and the padding of FIPS 180-4, 5.1.1.
fn finish(path: sha256.Path, state: *sha256.State, rest: []const u8, hashed_bytes: u64) void {
    const whole = rest.len - rest.len % sha256.block_bytes;
    sha256.compress(path, state, rest[0..whole]);

    var tail: [2 * sha256.block_bytes]u8 = @splat(0);
    // The tail can hold a part of a secret, when a key is made from a long one.
    defer if (hashed_bytes == 0) std.crypto.secureZero(u8, &tail);
    const tail_bytes = rest.len - whole;
    @memcpy(tail[0..tail_bytes], rest[whole..]);
    tail[tail_bytes] = 0x80;
    const fits_one = tail_bytes < sha256.block_bytes - 8;
    const padded = tail[0..if (fits_one) sha256.block_bytes else 2 * sha256.block_bytes];
    std.mem.writeInt(u64, padded[padded.len - 8 ..][0..8], (hashed_bytes + rest.len) * 8, .big);
    sha256.compress(path, state, padded);
}

fn bytesOf(state: sha256.State) Mac {
    var bytes: Mac = undefined;
    inline for (state, 0..) |word, i| std.mem.writeInt(u32, bytes[4 * i ..][0..4], word, .big);
    return bytes;
}

const testing = std.testing;
const HmacSha256 = std.crypto.auth.hmac.sha2.HmacSha256;

test "a MAC equals std's on every path, for random keys and messages of random lengths" {
    var prng = std.Random.DefaultPrng.init(2104);
    const random = prng.random();
    var secret_buffer: [200]u8 = undefined;
    var message_buffer: [400]u8 = undefined;
    for (0..2000) |_| {
        const secret = secret_buffer[0..random.uintAtMost(usize, secret_buffer.len)];
        const message = message_buffer[0..random.uintAtMost(usize, message_buffer.len)];
        random.bytes(secret);
        random.bytes(message);
        var expected: Mac = undefined;
        HmacSha256.create(&expected, message, secret);
        for (std.enums.values(sha256.Path)) |path| {
            if (!path.isAvailable()) continue;
            const key = Key.init(secret, path);
            try testing.expectEqual(expected, key.mac(message));
        }
    }
}

test "a key made on one path works on another" {
    var key = Key.init("a secret", .scalar);
    const expected = key.mac("message");
    key.path = .detect();
    try testing.expectEqual(expected, key.mac("message"));
}

test "a wiped key holds nothing" {
    var key = Key.init("a secret", .scalar);
    key.wipe();
    try testing.expectEqual(@as(sha256.State, @splat(0)), key.inner);
    try testing.expectEqual(@as(sha256.State, @splat(0)), key.outer);
}

test "equal looks at every byte" {
    const a: Mac = @splat(7);
    try testing.expect(equal(&a, &a));
    for (0..mac_bytes) |i| {
        var b = a;
        b[i] ^= 1;
        try testing.expect(!equal(&a, &b));
    }
}
