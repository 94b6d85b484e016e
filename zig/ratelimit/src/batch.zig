//! Checks many keys in one call. A few keys are hashed before their entries are looked at, so that
//! the processor works on several at a time: between two locks it could not.
const std = @import("std");
const key_hash = @import("key_hash.zig");
const limiter_ = @import("limiter.zig");
const Limiter = limiter_.Limiter;

/// Also the most keys of one shard that are checked under one lock.
const keys_at_a_time = 32;

/// `check` for as many keys of `keys`, which has `next() []const u8`, as there are verdicts, in
/// order: 1 for each that passes, else 0. Returns how many pass. At an error the keys before the
/// one at fault are counted.
pub fn check(
    limiter: *Limiter,
    epoch: u32,
    keys: anytype,
    cost: u32,
    now_ms: u64,
    verdicts: []u8,
) limiter_.Error!u32 {
    var passed: u32 = 0;
    var rest = verdicts;
    while (rest.len > 0) {
        var prints: [keys_at_a_time]key_hash.Fingerprint = undefined;
        const wanted = @min(prints.len, rest.len);
        var hashed: usize = 0;
        const fault: ?limiter_.Error = while (hashed < wanted) : (hashed += 1) {
            prints[hashed] = limiter.fingerprint(keys.next(), cost) catch |err| break err;
        } else null;
        passed += try limiter.checkPrints(epoch, prints[0..hashed], cost, now_ms, rest[0..hashed]);
        if (fault) |err| return err;
        rest = rest[wanted..];
    }
    return passed;
}

/// Keys one behind the other, with the length of each; the lengths' sum is that of `bytes`.
pub const Measured = struct {
    bytes: []const u8,
    lengths: []const u32,

    pub inline fn next(keys: *Measured) []const u8 {
        const len = keys.lengths[0];
        defer keys.bytes = keys.bytes[len..];
        keys.lengths = keys.lengths[1..];
        return keys.bytes[0..len];
    }
};

/// Keys with a NUL between two. NULs are searched in a block of bytes at once: most keys are so
/// short that a search for each one's end would cost as much as its hash.
pub const Separated = struct {
    bytes: []const u8,
    key_start: usize = 0,
    block_start: usize = 0,
    next_block: usize = 0,
    /// A bit for each NUL of the block that ends a key not yet given.
    nuls: u64 = 0,

    const block_bytes = 64;

    /// How many keys there are: one more than NULs.
    pub fn count(bytes: []const u8) usize {
        var nuls: usize = 0;
        var start: usize = 0;
        while (start < bytes.len) : (start += block_bytes) nuls += @popCount(nulsAt(bytes, start));
        return nuls + 1;
    }

    /// Past the last key: an empty one.
    pub inline fn next(keys: *Separated) []const u8 {
        const start = keys.key_start;
        while (keys.nuls == 0) {
            if (keys.next_block >= keys.bytes.len) {
                keys.key_start = keys.bytes.len;
                return keys.bytes[start..];
            }
            keys.nuls = nulsAt(keys.bytes, keys.next_block);
            keys.block_start = keys.next_block;
            keys.next_block += block_bytes;
        }
        const end = keys.block_start + @ctz(keys.nuls);
        keys.nuls &= keys.nuls - 1;
        keys.key_start = end + 1;
        return keys.bytes[start..end];
    }

    inline fn nulsAt(bytes: []const u8, start: usize) u64 {
        const rest = bytes[start..];
        if (rest.len >= block_bytes) return nulsIn(rest[0..block_bytes]);
        var last: [block_bytes]u8 = @splat(1);
        @memcpy(last[0..rest.len], rest);
        return nulsIn(&last);
    }

    inline fn nulsIn(block: *const [block_bytes]u8) u64 {
        const bytes: @Vector(block_bytes, u8) = block.*;
        const zeros: @Vector(block_bytes, u8) = @splat(0);
        return @bitCast(bytes == zeros);
    }
};

const testing = std.testing;

test "keys between NULs are found as the standard library finds them" {
    var random = std.Random.DefaultPrng.init(5);
    var buffer: [300]u8 = undefined;
    for (0..2000) |round| {
        const bytes = buffer[0 .. round % (buffer.len + 1)];
        const nuls_in_256 = random.random().int(u8);
        for (bytes) |*byte| {
            byte.* = if (random.random().int(u8) <= nuls_in_256) 0 else random.random().int(u8);
        }
        var expected = std.mem.splitScalar(u8, bytes, 0);
        var found: Separated = .{ .bytes = bytes };
        var keys: usize = 0;
        while (expected.next()) |key| : (keys += 1) {
            const start = found.key_start;
            try testing.expectEqualStrings(key, found.next());
            try testing.expect(start + key.len <= bytes.len);
        }
        try testing.expectEqual(keys, Separated.count(bytes));
        try testing.expectEqualStrings("", found.next());
    }
}

test "a batch answers as single checks do, whatever the keys and their order" {
    var single: Limiter = .{};
    var batched: Limiter = .{};
    inline for (.{ &single, &batched }) |limiter| {
        limiter.table.openPrivate(1, testing.allocator, @splat(3), 60);
        limiter.init(try .init(.sliding_window, 3, 1000), .deny, false);
    }
    defer single.table.close();
    defer batched.table.close();
    var random = std.Random.DefaultPrng.init(6);
    for (0..300) |round| {
        var text: [200]u8 = undefined;
        var lengths: [100]u32 = undefined;
        const n = random.random().uintLessThan(usize, lengths.len + 1);
        for (lengths[0..n], 0..) |*len, i| {
            len.* = random.random().uintLessThan(u32, 3);
            for (text[2 * i ..][0..2]) |*byte| byte.* = random.random().uintLessThan(u8, 8);
        }
        var joined: [200]u8 = undefined;
        var size: usize = 0;
        var expected: [100]u8 = undefined;
        const now_ms = round * 100;
        for (lengths[0..n], expected[0..n], 0..) |len, *verdict, i| {
            const key = text[2 * i ..][0..len];
            @memcpy(joined[size..][0..len], key);
            size += len;
            verdict.* = @intFromBool(try single.check(1, key, 1, now_ms));
        }
        var keys: Measured = .{ .bytes = joined[0..size], .lengths = lengths[0..n] };
        var verdicts: [100]u8 = @splat(0);
        const passed = try check(&batched, 1, &keys, 1, now_ms, verdicts[0..n]);
        try testing.expectEqualSlices(u8, expected[0..n], verdicts[0..n]);
        try testing.expectEqual(std.mem.count(u8, verdicts[0..n], "\x01"), passed);
    }
}

test "keys before one that is too long are counted, those after it are not" {
    var limiter: Limiter = .{};
    limiter.table.openPrivate(1, testing.allocator, @splat(3), 100);
    defer limiter.table.close();
    limiter.init(try .init(.fixed_window, 1, 1000), .deny, false);
    const long: [limiter_.max_key_bytes + 1]u8 = @splat('x');
    var keys: Separated = .{ .bytes = "a\x00" ++ long ++ "\x00b" };
    var verdicts: [3]u8 = @splat(0);
    try testing.expectError(error.KeyTooLong, check(&limiter, 1, &keys, 1, 0, &verdicts));
    try testing.expect(!try limiter.check(1, "a", 1, 0));
    try testing.expect(try limiter.check(1, "b", 1, 0));
}
