//! The SHA-256 block function (FIPS 180-4), three times: with the SHA instructions of x86_64, with
//! those of aarch64, and in plain Zig. Which one runs is chosen at run time, because the library
//! is built once for the oldest CPU of each architecture. Not a hash function: no buffering, no
//! padding; hmac.zig does that.

const std = @import("std");
const builtin = @import("builtin");
const assert = std.debug.assert;

pub const block_bytes = 64;
pub const digest_bytes = 32;

pub const State = [8]u32;

pub const initial_state: State = .{
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/// The ways to compute a block. The tag names are what users see.
pub const Path = enum(u8) {
    scalar,
    @"sha-ni",
    sha2,

    /// The fastest path of the CPU this runs on.
    pub fn detect() Path {
        return switch (builtin.cpu.arch) {
            .x86_64 => if (x86HasSha()) .@"sha-ni" else .scalar,
            .aarch64 => if (aarch64HasSha2()) .sha2 else .scalar,
            else => .scalar,
        };
    }

    /// Whether this CPU can take the path.
    pub fn isAvailable(path: Path) bool {
        return path == .scalar or path == detect();
    }
};

/// Folds whole blocks into the state.
pub fn compress(path: Path, state: *State, blocks: []const u8) void {
    assert(blocks.len % block_bytes == 0);
    switch (path) {
        .scalar => compressScalar(state, blocks),
        .@"sha-ni" => if (builtin.cpu.arch == .x86_64) compressX86(state, blocks) else unreachable,
        .sha2 => if (builtin.cpu.arch == .aarch64) compressAarch64(state, blocks) else unreachable,
    }
}

fn x86HasSha() bool {
    if (cpuid(0, 0).eax < 7) return false;
    const ssse3 = cpuid(1, 0).ecx & (1 << 9) != 0;
    const sse4_1 = cpuid(1, 0).ecx & (1 << 19) != 0;
    const sha = cpuid(7, 0).ebx & (1 << 29) != 0;
    return ssse3 and sse4_1 and sha;
}

const CpuidLeaf = struct { eax: u32, ebx: u32, ecx: u32 };

fn cpuid(leaf: u32, subleaf: u32) CpuidLeaf {
    var eax: u32 = undefined;
    var ebx: u32 = undefined;
    var ecx: u32 = undefined;
    asm volatile ("cpuid"
        : [_] "={eax}" (eax),
          [_] "={ebx}" (ebx),
          [_] "={ecx}" (ecx),
        : [_] "{eax}" (leaf),
          [_] "{ecx}" (subleaf),
        : .{ .edx = true });
    return .{ .eax = eax, .ebx = ebx, .ecx = ecx };
}

/// HWCAP_SHA2 of Linux's asm/hwcap.h on aarch64, which std does not name.
const hwcap_sha2 = 1 << 6;

fn aarch64HasSha2() bool {
    return switch (builtin.os.tag) {
        .linux => std.os.linux.getauxval(std.elf.AT_HWCAP) & hwcap_sha2 != 0,
        .macos => true, // every Apple silicon Mac
        else => false,
    };
}

// The constants of FIPS 180-4, 4.2.2, computed from their definition below: the first 32 bits of
// the fractional parts of the cube roots of the first 64 primes.
const round_constants: [64]u32 align(16) = roundConstants();

fn roundConstants() [64]u32 {
    @setEvalBranchQuota(100_000);
    var constants: [64]u32 = undefined;
    var found = 0;
    var candidate = 2;
    while (found < 64) : (candidate += 1) {
        const prime = for (2..candidate) |divisor| {
            if (candidate % divisor == 0) break false;
        } else true;
        if (!prime) continue;
        // The largest root with root^3 <= prime * 2^96 is the cube root, scaled by 2^32.
        var root: u128 = 0;
        var bit: u128 = 1 << 35;
        while (bit > 0) : (bit >>= 1) {
            const tried: u512 = root | bit;
            if (tried * tried * tried <= @as(u512, candidate) << 96) root |= bit;
        }
        constants[found] = @truncate(root);
        found += 1;
    }
    return constants;
}

fn compressScalar(state: *State, blocks: []const u8) void {
    var offset: usize = 0;
    while (offset < blocks.len) : (offset += block_bytes) {
        scalarBlock(state, blocks[offset..][0..block_bytes]);
    }
}

fn scalarBlock(state: *State, block: *const [block_bytes]u8) void {
    var w: [16]u32 = undefined;
    inline for (&w, 0..) |*word, i| word.* = std.mem.readInt(u32, block[4 * i ..][0..4], .big);

    // The eight variables do not move; what rotates is which of them plays a, b, c ...
    var v = state.*;
    inline for (0..64) |t| {
        if (t >= 16) {
            w[t % 16] +%= smallSigma0(w[(t + 1) % 16]) +% w[(t + 9) % 16] +%
                smallSigma1(w[(t + 14) % 16]);
        }
        const a = v[(64 - t) % 8];
        const b = v[(65 - t) % 8];
        const c = v[(66 - t) % 8];
        const e = v[(68 - t) % 8];
        const f = v[(69 - t) % 8];
        const g = v[(70 - t) % 8];
        const choice = g ^ (e & (f ^ g));
        const majority = (a & b) ^ (c & (a ^ b));
        const t1 = v[(71 - t) % 8] +% bigSigma1(e) +% choice +% round_constants[t] +% w[t % 16];
        v[(67 - t) % 8] +%= t1;
        v[(71 - t) % 8] = t1 +% bigSigma0(a) +% majority;
    }
    for (state, v) |*word, new| word.* +%= new;
}

inline fn bigSigma0(x: u32) u32 {
    return std.math.rotr(u32, x, 2) ^ std.math.rotr(u32, x, 13) ^ std.math.rotr(u32, x, 22);
}

inline fn bigSigma1(x: u32) u32 {
    return std.math.rotr(u32, x, 6) ^ std.math.rotr(u32, x, 11) ^ std.math.rotr(u32, x, 25);
}

inline fn smallSigma0(x: u32) u32 {
    return std.math.rotr(u32, x, 7) ^ std.math.rotr(u32, x, 18) ^ (x >> 3);
}

inline fn smallSigma1(x: u32) u32 {
    return std.math.rotr(u32, x, 17) ^ std.math.rotr(u32, x, 19) ^ (x >> 10);
}

const Words = @Vector(4, u32);

// pshufb turns four little-endian words into big-endian ones with this.
const byte_swap: [16]u8 align(16) = .{ 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12 };

/// SHA-NI with SSSE3 and SSE4.1, and no instruction beyond: a CPU may have SHA without AVX.
fn compressX86(state: *State, blocks: []const u8) void {
    const s = state.*;
    // The instructions want the state as (f e b a) and (h g d c), lowest lane first.
    var abef: Words = .{ s[5], s[4], s[1], s[0] };
    var cdgh: Words = .{ s[7], s[6], s[3], s[2] };

    var offset: usize = 0;
    while (offset < blocks.len) : (offset += block_bytes) {
        const abef_before = abef;
        const cdgh_before = cdgh;
        asm volatile (x86_block
            : [abef] "={xmm1}" (abef),
              [cdgh] "={xmm2}" (cdgh),
            : [_] "{xmm1}" (abef),
              [_] "{xmm2}" (cdgh),
              [block] "r" (blocks[offset..].ptr),
              [k] "r" (&round_constants),
              [swap] "r" (&byte_swap),
            : .{
              .xmm0 = true,
              .xmm3 = true,
              .xmm4 = true,
              .xmm5 = true,
              .xmm6 = true,
              .xmm7 = true,
              .memory = true,
            });
        abef +%= abef_before;
        cdgh +%= cdgh_before;
    }
    state.* = .{ abef[3], abef[2], cdgh[3], cdgh[2], abef[1], abef[0], cdgh[1], cdgh[0] };
}

/// All 64 rounds, four at a time. xmm1 holds abef, xmm2 cdgh; xmm3 to xmm6 the last 16 words of
/// the message schedule in turn; xmm0 is the fixed operand of sha256rnds2.
const x86_block = blk: {
    @setEvalBranchQuota(10_000);
    var text: []const u8 = "";
    for (0..16) |group| {
        const now, const next, const after, const last = turn(3, group);
        if (group < 4) text = text ++ std.fmt.comptimePrint(
            \\movdqu {[offset]d}(%[block]), %%xmm{[now]d}
            \\pshufb (%[swap]), %%xmm{[now]d}
            \\
        , .{ .offset = 16 * group, .now = now });
        text = text ++ std.fmt.comptimePrint(
            \\movdqa {[offset]d}(%[k]), %%xmm0
            \\paddd %%xmm{[now]d}, %%xmm0
            \\sha256rnds2 %%xmm1, %%xmm2
            \\pshufd $0x0e, %%xmm0, %%xmm0
            \\sha256rnds2 %%xmm2, %%xmm1
            \\
        , .{ .offset = 16 * group, .now = now });
        if (group >= 3 and group < 15) text = text ++ std.fmt.comptimePrint(
            \\movdqa %%xmm{[now]d}, %%xmm7
            \\palignr $4, %%xmm{[last]d}, %%xmm7
            \\sha256msg1 %%xmm{[after]d}, %%xmm{[next]d}
            \\paddd %%xmm7, %%xmm{[next]d}
            \\sha256msg2 %%xmm{[now]d}, %%xmm{[next]d}
            \\
        , .{ .now = now, .next = next, .after = after, .last = last });
    }
    break :blk text;
};

fn compressAarch64(state: *State, blocks: []const u8) void {
    var abcd: Words = state[0..4].*;
    var efgh: Words = state[4..8].*;

    var offset: usize = 0;
    while (offset < blocks.len) : (offset += block_bytes) {
        const abcd_before = abcd;
        const efgh_before = efgh;
        asm volatile (aarch64_block
            : [abcd] "={v0}" (abcd),
              [efgh] "={v1}" (efgh),
            : [_] "{v0}" (abcd),
              [_] "{v1}" (efgh),
              [block] "r" (blocks[offset..].ptr),
              [k] "r" (&round_constants),
            : .{
              .v2 = true,
              .v3 = true,
              .v4 = true,
              .v5 = true,
              .v6 = true,
              .v7 = true,
              .memory = true,
            });
        abcd +%= abcd_before;
        efgh +%= efgh_before;
    }
    state[0..4].* = abcd;
    state[4..8].* = efgh;
}

/// As x86_block: v0 holds abcd, v1 efgh, v2 to v5 the message schedule. The directive lets the
/// assembler accept instructions that the rest of the build may not use; it ends with this text.
const aarch64_block = blk: {
    @setEvalBranchQuota(10_000);
    var text: []const u8 = ".arch_extension sha2\n";
    for (0..16) |group| {
        const now, const next, const after, const last = turn(2, group);
        if (group < 4) text = text ++ std.fmt.comptimePrint(
            \\ldr q{[now]d}, [%[block], #{[offset]d}]
            \\rev32 v{[now]d}.16b, v{[now]d}.16b
            \\
        , .{ .offset = 16 * group, .now = now });
        text = text ++ std.fmt.comptimePrint(
            \\ldr q6, [%[k], #{[offset]d}]
            \\add v6.4s, v6.4s, v{[now]d}.4s
            \\mov v7.16b, v0.16b
            \\sha256h q0, q1, v6.4s
            \\sha256h2 q1, q7, v6.4s
            \\
        , .{ .offset = 16 * group, .now = now });
        if (group < 12) text = text ++ std.fmt.comptimePrint(
            \\sha256su0 v{[now]d}.4s, v{[next]d}.4s
            \\sha256su1 v{[now]d}.4s, v{[after]d}.4s, v{[last]d}.4s
            \\
        , .{ .now = now, .next = next, .after = after, .last = last });
    }
    break :blk text;
};

/// Four registers take turns in holding the words of this group of rounds and the three others.
fn turn(first: usize, group: usize) [4]usize {
    return .{
        first + group % 4,
        first + (group + 1) % 4,
        first + (group + 2) % 4,
        first + (group + 3) % 4,
    };
}

const testing = std.testing;

/// The hash of a message whose length leaves room for the padding in one more block.
fn hashForTest(path: Path, message: []const u8) [digest_bytes]u8 {
    var state = initial_state;
    const whole = message.len / block_bytes * block_bytes;
    compress(path, &state, message[0..whole]);
    var tail: [2 * block_bytes]u8 = @splat(0);
    const rest = message.len - whole;
    @memcpy(tail[0..rest], message[whole..]);
    tail[rest] = 0x80;
    const tail_len: usize = if (rest < 56) block_bytes else 2 * block_bytes;
    std.mem.writeInt(u64, tail[tail_len - 8 ..][0..8], message.len * 8, .big);
    compress(path, &state, tail[0..tail_len]);
    var digest: [digest_bytes]u8 = undefined;
    for (state, 0..) |word, i| std.mem.writeInt(u32, digest[4 * i ..][0..4], word, .big);
    return digest;
}

test "every path this CPU has agrees with std over random messages of random lengths" {
    var prng = std.Random.DefaultPrng.init(256);
    const random = prng.random();
    var buffer: [1024]u8 = undefined;
    for (0..2000) |_| {
        const message = buffer[0..random.uintAtMost(usize, buffer.len)];
        random.bytes(message);
        var expected: [digest_bytes]u8 = undefined;
        std.crypto.hash.sha2.Sha256.hash(message, &expected, .{});
        for (std.enums.values(Path)) |path| {
            if (!path.isAvailable()) continue;
            try testing.expectEqual(expected, hashForTest(path, message));
        }
    }
}

test "the round constants begin and end as FIPS 180-4 prints them" {
    try testing.expectEqual(0x428a2f98, round_constants[0]);
    try testing.expectEqual(0xc67178f2, round_constants[63]);
}
