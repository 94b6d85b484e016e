//! Turns a key into a 128-bit fingerprint under a secret seed. Only the fingerprint is stored, so
//! two keys with one fingerprint would share a counter: nobody may be able to find such a pair.
//!
//! The hash is multilinear (Dietzfelbinger 1996; Thorup, "High Speed Hashing for Integers and
//! Strings", 2015, section 3): the sum of 64-bit words times secret 128-bit multipliers, its upper
//! half kept, twice. It is strongly universal: any two keys, however chosen, collide with a
//! probability of 2^-128 over the seed. No assumption about the attacker's power is needed, only
//! that the seed stays secret; a fast unkeyed-core hash such as wyhash offers no such bound (its
//! public constants allow collisions under every seed).
const std = @import("std");
const racy = @import("racy.zig");

pub const max_key_bytes = 1024;
pub const seed_bytes = 32;
pub const Seed = [seed_bytes]u8;

/// `lo` is never 0: an empty slot is marked by that.
pub const Fingerprint = struct {
    lo: u64,
    hi: u64,

    /// A different key space of the same table, for example one per rule. `salt` must come from
    /// `Hasher.salt`, that is, be unknown to those who choose the keys.
    pub fn salted(fp: Fingerprint, salt: Fingerprint) Fingerprint {
        return .{ .lo = nonZero(fp.lo ^ salt.lo), .hi = fp.hi ^ salt.hi };
    }
};

const max_words = max_key_bytes / 8 + 1;

pub const Hasher = struct {
    /// Multipliers of the two halves side by side, so that a short key touches few cache lines.
    /// Index 0 belongs to the key's length, the last one to `derive`.
    multipliers: [max_words + 3][2]u128,

    /// Not for one stack frame's life: 4 kB, filled from `seed` once per table.
    pub fn init(hasher: *Hasher, seed: Seed) void {
        var random = std.Random.ChaCha.init(seed);
        const words: []u64 = @ptrCast(&hasher.multipliers);
        for (words) |*word| racy.store(word, random.random().int(u64));
    }

    /// `key` has at most `max_key_bytes` bytes.
    pub fn hash(hasher: *const Hasher, key: []const u8) Fingerprint {
        std.debug.assert(key.len <= max_key_bytes);
        var a: u128 = racy.load(&hasher.multipliers[0][0]) *% (key.len + 1);
        var b: u128 = racy.load(&hasher.multipliers[0][1]) *% (key.len + 1);
        var rest = key;
        var i: usize = 1;
        while (rest.len >= 8) : (i += 1) {
            const word = std.mem.readInt(u64, rest[0..8], .little);
            a +%= racy.load(&hasher.multipliers[i][0]) *% word;
            b +%= racy.load(&hasher.multipliers[i][1]) *% word;
            rest = rest[8..];
        }
        if (rest.len > 0) {
            const word = tailWord(key, rest);
            a +%= racy.load(&hasher.multipliers[i][0]) *% word;
            b +%= racy.load(&hasher.multipliers[i][1]) *% word;
        }
        return finish(a, b);
    }

    /// The fingerprint of entry number `index` that belongs to `fp`, in the same shard as `fp`.
    pub fn derive(hasher: *const Hasher, fp: Fingerprint, index: u64, shard_bits: u6) Fingerprint {
        var a: u128 = 0;
        var b: u128 = 0;
        for ([_]u64{ fp.lo, fp.hi, index }, hasher.multipliers[max_words..]) |word, *multiplier| {
            a +%= racy.load(&multiplier[0]) *% word;
            b +%= racy.load(&multiplier[1]) *% word;
        }
        const derived = finish(a, b);
        const shard_mask = ~(@as(u64, std.math.maxInt(u64)) >> shard_bits);
        return .{ .lo = derived.lo, .hi = (derived.hi & ~shard_mask) | (fp.hi & shard_mask) };
    }

    /// A secret for `Fingerprint.salted`, one per `purpose`. Derived, since a client may choose the
    /// purpose's name as its key: no key's fingerprint is a salt.
    pub fn salt(hasher: *const Hasher, purpose: []const u8) Fingerprint {
        return hasher.derive(hasher.hash(purpose), std.math.maxInt(u64), 0);
    }
};

/// The last 1 to 7 bytes of `key`. With the length hashed too, a word that repeats bytes already
/// hashed loses nothing, and one load beats seven.
inline fn tailWord(key: []const u8, tail: []const u8) u64 {
    if (key.len >= 8) return std.mem.readInt(u64, key[key.len - 8 ..][0..8], .little);
    if (tail.len >= 4) {
        const first: u64 = std.mem.readInt(u32, tail[0..4], .little);
        const last: u64 = std.mem.readInt(u32, tail[tail.len - 4 ..][0..4], .little);
        return first | last << 32;
    }
    const middle: u64 = tail[tail.len / 2];
    const last: u64 = tail[tail.len - 1];
    return tail[0] | middle << 8 | last << 16;
}

/// The upper halves are universal but linear in the key: a chosen row of keys would fall on a row
/// of buckets. Mixing them (a bijection) takes that structure away and keeps the bound.
inline fn finish(a: u128, b: u128) Fingerprint {
    return .{ .lo = nonZero(mix(@truncate(a >> 64))), .hi = mix(@truncate(b >> 64)) };
}

inline fn mix(value: u64) u64 {
    var x = value;
    x = (x ^ (x >> 32)) *% 0xd6e8feb86659fd93;
    x = (x ^ (x >> 32)) *% 0xd6e8feb86659fd93;
    return x ^ (x >> 32);
}

inline fn nonZero(value: u64) u64 {
    return if (value == 0) 1 else value;
}

const testing = std.testing;

fn testHasher() !*Hasher {
    const hasher = try testing.allocator.create(Hasher);
    hasher.init(@splat(7));
    return hasher;
}

test "every prefix of a key, with every byte changed, has its own fingerprint" {
    const hasher = try testHasher();
    defer testing.allocator.destroy(hasher);
    var seen = std.AutoHashMap([2]u64, void).init(testing.allocator);
    defer seen.deinit();
    var key: [40]u8 = undefined;
    for (0..key.len + 1) |len| {
        @memset(&key, 0);
        for (0..len + 1) |changed| {
            if (changed > 0) key[changed - 1] = 1;
            const fp = hasher.hash(key[0..len]);
            const entry = try seen.getOrPut(.{ fp.lo, fp.hi });
            try testing.expect(!entry.found_existing);
            if (changed > 0) key[changed - 1] = 0;
        }
    }
}

test "the fingerprint depends on the seed" {
    const hasher = try testHasher();
    defer testing.allocator.destroy(hasher);
    const first = hasher.hash("client");
    hasher.init(@splat(8));
    try testing.expect(first.lo != hasher.hash("client").lo);
}

test "a key named as a salt's purpose is another fingerprint, and meets no key of another salt" {
    const hasher = try testHasher();
    defer testing.allocator.destroy(hasher);
    const one = hasher.salt("one");
    const two = hasher.salt("two");
    try testing.expect(hasher.hash("one").lo != one.lo);
    try testing.expect(hasher.hash("one").salted(two).lo != hasher.hash("two").salted(one).lo);
}

test "the longest key is hashed, and a derived fingerprint stays in its shard" {
    const hasher = try testHasher();
    defer testing.allocator.destroy(hasher);
    const long: [max_key_bytes]u8 = @splat('x');
    const fp = hasher.hash(&long);
    const derived = hasher.derive(fp, 9, 6);
    try testing.expect(derived.lo != fp.lo);
    try testing.expectEqual(fp.hi >> 58, derived.hi >> 58);
}
