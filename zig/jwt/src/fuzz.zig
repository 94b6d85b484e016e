//! Mutated tokens, from a fixed seed, bounded in number. Two kinds: a token that was changed after
//! signing, which no change may leave acceptable; and changed text that is signed rightly, so that
//! the readers behind the signature see it, whose verdict is compared with std's JSON reader.
//!
//!     zig build fuzz -Dfuzz-count=10000000

const std = @import("std");
const base64url = @import("base64url.zig");
const jwt = @import("jwt.zig");

const now_s = 1_700_000_000;
const max_bytes = 512;

const Sample = struct { header: []const u8, payload: []const u8 };

const samples = [_]Sample{
    .{ .header = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}", .payload = "{}" },
    .{
        .header = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}",
        .payload = "{\"sub\":\"ann\",\"iat\":1516239022,\"exp\":1900000000.5,\"admin\":true}",
    },
    .{
        .header = "{\"typ\":\"at+jwt\",\r\n \"alg\":\"HS256\",\"kid\":\"2026-07\"}",
        .payload = "{\"nbf\":-1e3,\"aud\":[\"a\",{\"b\":null}]," ++
            "\"name\":\"\\u00e4\xc3\xa4 \\\"\\n\"}",
    },
    .{
        .header = "{\"x\":[1,{\"alg\":\"none\"}],\"alg\":\"\\u0048S256\"}",
        .payload = " { \"e\\u0078p\" : 1900000000 , \"deep\":[[[[]]]], \"ok\":false } ",
    },
};

/// Returns an error, after saying which token was to blame, when a verdict is wrong.
fn run(allocator: std.mem.Allocator, seed: u64, count: u64) !void {
    var prng = std.Random.DefaultPrng.init(seed);
    const random = prng.random();
    const key = jwt.Key.init("the secret that the fuzzer signs with", .detect());
    for (0..count) |_| {
        const sample = samples[random.uintLessThan(usize, samples.len)];
        if (random.boolean()) {
            try changedAfterSigning(allocator, random, &key, sample);
        } else {
            try changedBeforeSigning(allocator, random, &key, sample);
        }
    }
}

fn changedAfterSigning(
    allocator: std.mem.Allocator,
    random: std.Random,
    key: *const jwt.Key,
    sample: Sample,
) !void {
    var buffer: [max_bytes]u8 = undefined;
    const token = try jwt.signJws(&buffer, sample.header, sample.payload, key);
    // The exact size, so that a read beyond the end is caught.
    const changed = try mutate(allocator, random, token);
    defer allocator.free(changed);
    const same = std.mem.eql(u8, token, changed);
    const accepted = try isAccepted(allocator, changed, key) == null;
    if (accepted != same) return blame(changed, "accepted after a change");
}

fn changedBeforeSigning(
    allocator: std.mem.Allocator,
    random: std.Random,
    key: *const jwt.Key,
    sample: Sample,
) !void {
    const change_header = random.uintLessThan(u8, 4) == 0;
    const text = if (change_header) sample.header else sample.payload;
    const changed = try mutate(allocator, random, text);
    defer allocator.free(changed);

    var buffer: [max_bytes]u8 = undefined;
    const head = if (change_header) changed else sample.header;
    const payload = if (change_header) sample.payload else changed;
    const token = signAnything(&buffer, head, payload, key);
    const refusal = try isAccepted(allocator, token, key);
    if (refusal == null) {
        // std refuses half a surrogate pair, which the grammar of RFC 8259 allows.
        if (std.ascii.indexOfIgnoreCase(changed, "\\ud") != null) return;
        if (!try stdReadsObject(allocator, changed)) return blame(token, "accepted, is no JSON");
    } else switch (refusal.?) {
        error.HeaderJson, error.PayloadJson => {
            if (try stdReadsObject(allocator, changed)) return blame(token, "refused, is JSON");
        },
        error.BufferTooSmall, error.TooLarge, error.Segments, error.Signature => {
            return blame(token, "refused for a wrong reason");
        },
        error.HeaderEncoding, error.SignatureEncoding, error.PayloadEncoding => {
            return blame(token, "refused for its encoding");
        },
        else => {}, // rightly: a rule about a name or a time
    }
}

/// signJws without its checks.
fn signAnything(out: []u8, head: []const u8, payload: []const u8, key: *const jwt.Key) []u8 {
    const head_len = base64url.encodedLength(head.len);
    const signed_len = head_len + 1 + base64url.encodedLength(payload.len);
    base64url.encode(out[0..head_len], head);
    out[head_len] = '.';
    base64url.encode(out[head_len + 1 .. signed_len], payload);
    const mac = key.mac(out[0..signed_len]);
    const token_len = signed_len + 1 + base64url.encodedLength(mac.len);
    out[signed_len] = '.';
    base64url.encode(out[signed_len + 1 .. token_len], &mac);
    return out[0..token_len];
}

/// The reason of a refusal, or null.
fn isAccepted(
    allocator: std.mem.Allocator,
    token: []const u8,
    key: *const jwt.Key,
) !?jwt.VerifyError {
    const out = try allocator.alloc(u8, token.len);
    defer allocator.free(out);
    var matched: ?usize = null;
    _ = jwt.verify(out, token, key[0..1], .{ .now_s = now_s }, &matched) catch |err|
        return @as(?jwt.VerifyError, err);
    return null;
}

fn stdReadsObject(allocator: std.mem.Allocator, text: []const u8) !bool {
    const options: std.json.ParseOptions = .{ .duplicate_field_behavior = .use_last };
    const parsed = std.json.parseFromSlice(std.json.Value, allocator, text, options) catch |err|
        return if (err == error.OutOfMemory) err else false;
    defer parsed.deinit();
    return parsed.value == .object;
}

/// A copy with one to four changes.
fn mutate(allocator: std.mem.Allocator, random: std.Random, text: []const u8) ![]u8 {
    var buffer: [2 * max_bytes]u8 = undefined;
    @memcpy(buffer[0..text.len], text);
    var len = text.len;
    for (0..random.intRangeAtMost(usize, 1, 4)) |_| len = mutateOnce(random, &buffer, len);
    return allocator.dupe(u8, buffer[0..@min(len, 300)]);
}

const interesting = "\x00\n \"\\{}[],:.-_=+/0129eEuntfAaZz~\x7f\x80\xc3\xff";

fn mutateOnce(random: std.Random, buffer: *[2 * max_bytes]u8, len: usize) usize {
    const at = random.uintAtMost(usize, len);
    switch (random.uintLessThan(u8, 7)) {
        0 => if (at < len) {
            buffer[at] ^= @as(u8, 1) << random.int(u3);
        },
        1 => if (at < len) {
            buffer[at] = random.int(u8);
        },
        2 => if (at < len) {
            buffer[at] = interesting[random.uintLessThan(usize, interesting.len)];
        },
        3 => if (len < max_bytes) { // insert
            std.mem.copyBackwards(u8, buffer[at + 1 .. len + 1], buffer[at..len]);
            buffer[at] = interesting[random.uintLessThan(usize, interesting.len)];
            return len + 1;
        },
        4 => if (at < len) { // delete
            std.mem.copyForwards(u8, buffer[at .. len - 1], buffer[at + 1 .. len]);
            return len - 1;
        },
        5 => if (len > 0 and len < max_bytes / 2) { // repeat a piece at the end
            const start = random.uintLessThan(usize, len);
            const piece = random.intRangeAtMost(usize, 1, len - start);
            std.mem.copyForwards(u8, buffer[len..][0..piece], buffer[start..][0..piece]);
            return len + piece;
        },
        else => return at, // cut
    }
    return len;
}

fn blame(token: []const u8, what: []const u8) error{WrongVerdict} {
    std.debug.print("{s}: {s}\n", .{ what, token });
    return error.WrongVerdict;
}

/// As run, in an allocator that finds leaks and writes beyond the end. It is std.testing's without
/// stack traces, and with small pages: most of the time would go into those.
pub fn runChecked(seeds: u64, count: u64) !void {
    var debug_allocator: std.heap.DebugAllocator(.{
        .stack_trace_frames = 0,
        .page_size = 4096,
    }) = .{ .backing_allocator = std.heap.smp_allocator };
    for (0..seeds) |seed| try run(debug_allocator.allocator(), seed, count / seeds);
    if (debug_allocator.deinit() == .leak) return error.Leak;
}

pub fn main() !void {
    const seeds = 100;
    var buffer: [4096]u8 = undefined;
    var arguments_memory: std.heap.FixedBufferAllocator = .init(&buffer);
    const args = try std.process.argsAlloc(arguments_memory.allocator());
    const count = if (args.len > 1) try std.fmt.parseInt(u64, args[1], 10) else 1_000_000;
    try runChecked(seeds, count);
    std.debug.print("{d} mutated tokens, every verdict right, no leak\n", .{count / seeds * seeds});
}
