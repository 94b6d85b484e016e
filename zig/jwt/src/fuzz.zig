//! What must hold for any bytes, for the fuzzer (`./dev fuzz`) and, for changed samples from fixed
//! seeds, for `zig build test`: verify says what a slow model made of std's parts says.

const std = @import("std");
const base64url = @import("base64url.zig");
const header = @import("header.zig");
const json = @import("json.zig");
const jwt = @import("jwt.zig");

const Allocator = std.mem.Allocator;
const codec = std.base64.url_safe_no_pad;
const Hmac = std.crypto.auth.hmac.sha2.HmacSha256;

const now_s = 1_700_000_000;
const secrets = [_][]const u8{ "the secret that the fuzzer signs with", "the one before it" };

/// Each takes any bytes and returns an error when something is not as it must be.
pub const targets = struct {
    /// A token, its signature as it stands.
    pub fn token(gpa: Allocator, bytes: []const u8) !void {
        try checkVerdict(gpa, bytes, .{ .now_s = now_s });
    }

    /// A payload or a header behind a right signature; the first byte chooses the options.
    pub fn signed(gpa: Allocator, bytes: []const u8) !void {
        if (bytes.len == 0) return;
        const choice = bytes[0];
        const text = bytes[1..];
        const is_header = choice & 1 != 0;
        const made = try signAnything(
            gpa,
            if (is_header) text else header.standard,
            if (is_header) "{\"exp\":1900000000}" else text,
        );
        defer gpa.free(made);
        try checkVerdict(gpa, made, .{
            .now_s = now_s,
            .leeway_s = if (choice & 2 != 0) 60 else 0,
            .checks = .{
                .exp = choice & 4 == 0,
                .nbf = choice & 8 == 0,
                .iat = choice & 64 == 0,
            },
        });
    }

    /// The same bytes as data to encode and as text to decode.
    pub fn base64(gpa: Allocator, bytes: []const u8) !void {
        const text = try gpa.alloc(u8, base64url.encodedLength(bytes.len));
        defer gpa.free(text);
        base64url.encode(text, bytes);
        const expected = try gpa.alloc(u8, codec.Encoder.calcSize(bytes.len));
        defer gpa.free(expected);
        if (!std.mem.eql(u8, codec.Encoder.encode(expected, bytes), text)) return error.Encoded;
        const back = try decode(gpa, text) orelse return error.OwnTextRefused;
        defer gpa.free(back);
        if (!std.mem.eql(u8, back, bytes)) return error.Decoded;

        const decoded = try decode(gpa, bytes);
        defer if (decoded) |it| gpa.free(it);
        if (base64url.isValid(bytes) != (decoded != null)) return error.IsValid;
        const canonical = try modelDecode(gpa, bytes);
        defer if (canonical) |it| gpa.free(it);
        if ((decoded == null) != (canonical == null)) return error.Canonical;
        if (decoded) |it| if (!std.mem.eql(u8, it, canonical.?)) return error.Decoded;
    }

    /// One JSON object.
    pub fn json_scan(gpa: Allocator, text: []const u8) !void {
        var arena_state: std.heap.ArenaAllocator = .init(gpa);
        defer arena_state.deinit();
        const arena = arena_state.allocator();
        var visitor: Collector = .{ .arena = arena };
        const max_depth = 32;
        const accepted = if (json.readObject(text, max_depth, &visitor)) true else |_| false;
        if (visitor.failed) return error.OutOfMemory;
        const expected = try Model.read(arena, text) orelse {
            if (accepted and !Model.isHalfSurrogate(text)) return error.AcceptedWhatIsNoJson;
            return;
        };
        if (accepted != (expected.depth <= max_depth)) return error.RefusedJson;
        if (!accepted) return;
        if (visitor.members.items.len != expected.members.len) return error.Members;
        for (visitor.members.items, expected.members) |ours, theirs| {
            try checkMember(arena, ours, theirs);
        }
    }
};

const Collector = struct {
    arena: Allocator,
    members: std.ArrayList(json.Member) = .empty,
    failed: bool = false,

    pub fn member(collector: *Collector, m: json.Member) void {
        collector.members.append(collector.arena, m) catch {
            collector.failed = true;
        };
    }
};

fn checkMember(arena: Allocator, ours: json.Member, theirs: Model.Member) !void {
    var buffer: [6]u8 = undefined;
    if (json.shortText(&buffer, ours.name)) |name| {
        if (!std.mem.eql(u8, name, theirs.name)) return error.Name;
    } else {
        const short = theirs.name.len <= buffer.len;
        for (theirs.name) |byte| {
            if (byte >= 0x80) break;
        } else if (short) return error.ShortName;
    }
    const alone = try std.json.parseFromSliceLeaky(std.json.Value, arena, ours.value, .{
        .parse_numbers = false,
        .duplicate_field_behavior = .use_last,
    });
    if (std.meta.activeTag(alone) != std.meta.activeTag(theirs.value)) return error.Value;
    if ((json.stringBody(ours.value) != null) != (alone == .string)) return error.StringBody;
    if (json.isNumber(ours.value) != (alone == .number_string)) return error.IsNumber;
}

fn decode(gpa: Allocator, text: []const u8) !?[]u8 {
    const len = base64url.decodedLength(text.len) catch return null;
    const out = try gpa.alloc(u8, len);
    base64url.decode(out, text) catch {
        gpa.free(out);
        return null;
    };
    return out;
}

/// std's reader, and only the text that its writer makes of the result.
fn modelDecode(gpa: Allocator, text: []const u8) !?[]u8 {
    const out = try gpa.alloc(u8, codec.Decoder.calcSizeForSlice(text) catch return null);
    errdefer gpa.free(out);
    const again = try gpa.alloc(u8, codec.Encoder.calcSize(out.len));
    defer gpa.free(again);
    const same = if (codec.Decoder.decode(out, text))
        std.mem.eql(u8, codec.Encoder.encode(again, out), text)
    else |_|
        false;
    if (same) return out;
    gpa.free(out);
    return null;
}

/// signJws without its checks.
fn signAnything(gpa: Allocator, head: []const u8, payload: []const u8) ![]u8 {
    const head_len = base64url.encodedLength(head.len);
    const signed_len = head_len + 1 + base64url.encodedLength(payload.len);
    const out = try gpa.alloc(u8, signed_len + 1 + base64url.encodedLength(Hmac.mac_length));
    base64url.encode(out[0..head_len], head);
    out[head_len] = '.';
    base64url.encode(out[head_len + 1 .. signed_len], payload);
    var mac: [Hmac.mac_length]u8 = undefined;
    Hmac.create(&mac, out[0..signed_len], secrets[0]);
    out[signed_len] = '.';
    base64url.encode(out[signed_len + 1 ..], &mac);
    return out;
}

/// Compares verify's verdict, payload and key with the model's.
fn checkVerdict(gpa: Allocator, token: []const u8, options: jwt.Options) !void {
    var arena_state: std.heap.ArenaAllocator = .init(gpa);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    var keys: [secrets.len]jwt.Key = undefined;
    for (&keys, secrets) |*key, secret| key.* = .init(secret, .detect());

    const out = try gpa.alloc(u8, token.len);
    defer gpa.free(out);
    var matched: ?usize = null;
    const result = jwt.verify(out, token, &keys, options, &matched);
    const expected = Model.verify(arena, token, options) catch |err| switch (err) {
        error.OutOfMemory => return error.OutOfMemory,
        error.Unclear => return,
        else => {
            if (result) |_| return error.Accepted else |got| {
                if (got == err) return;
                std.debug.print("verify: {t}, the model: {t}\n", .{ got, err });
                return error.OtherRefusal;
            }
        },
    };
    const payload = result catch |err| {
        std.debug.print("verify: {t}, the model accepts\n", .{err});
        return error.Refused;
    };
    if (!std.mem.eql(u8, payload, expected.payload)) return error.Payload;
    if (matched != expected.key) return error.MatchedKey;
}

/// verify as its documentation reads, with std's base64, HMAC and JSON.
const Model = struct {
    members: []const Member,
    /// Objects and arrays inside each other.
    depth: usize,

    const Member = struct { name: []const u8, value: std.json.Value };
    const Verified = struct { payload: []const u8, key: usize };
    const Error = jwt.VerifyError || error{
        OutOfMemory,
        /// std refuses half a surrogate pair, which the grammar of RFC 8259 allows.
        Unclear,
    };

    fn verify(arena: Allocator, token: []const u8, options: jwt.Options) Error!Verified {
        if (token.len > options.max_token_bytes) return error.TooLarge;
        if (std.mem.count(u8, token, ".") != 2) return error.Segments;
        var segments = std.mem.splitScalar(u8, token, '.');
        const head = segments.next().?;
        const body = segments.next().?;
        const signature = segments.next().?;

        const head_text = try modelDecode(arena, head) orelse return error.HeaderEncoding;
        if (head_text.len > jwt.max_header_bytes) return error.HeaderEncoding;
        try checkHeader(arena, head_text);

        const payload = try modelDecode(arena, body) orelse return error.PayloadEncoding;
        const mac = try modelDecode(arena, signature) orelse return error.SignatureEncoding;
        const key = for (secrets, 0..) |secret, i| {
            var computed: [Hmac.mac_length]u8 = undefined;
            Hmac.create(&computed, token[0 .. head.len + 1 + body.len], secret);
            if (std.mem.eql(u8, &computed, mac)) break i;
        } else return error.Signature;
        try checkPayload(arena, payload, options);
        return .{ .payload = payload, .key = key };
    }

    fn checkHeader(arena: Allocator, text: []const u8) Error!void {
        const model = try read(arena, text) orelse
            return if (isHalfSurrogate(text)) error.Unclear else error.HeaderJson;
        if (model.depth > 16) return error.HeaderJson;
        for ([_][]const u8{ "alg", "crit", "b64", "kid", "typ" }) |name| {
            if (model.count(name) > 1) return error.HeaderDuplicate;
        }
        const algorithm = model.get("alg") orelse return error.Algorithm;
        if (algorithm != .string) return error.Algorithm;
        if (!std.mem.eql(u8, algorithm.string, "HS256")) return error.Algorithm;
        if (model.get("crit") != null) return error.Crit;
        if (model.get("b64")) |b64| if (b64 != .bool or !b64.bool) return error.B64;
        if (model.get("kid")) |kid| if (kid != .string) return error.Kid;
        if (model.get("typ")) |typ| if (typ != .string) return error.Typ;
    }

    fn checkPayload(arena: Allocator, text: []const u8, options: jwt.Options) Error!void {
        const model = try read(arena, text) orelse {
            if (isHalfSurrogate(text)) return error.Unclear;
            // Whether the depth or the grammar is met first is the reader's affair.
            return if (depthOf(text) > jwt.max_depth) error.Unclear else error.PayloadJson;
        };
        if (model.depth > jwt.max_depth) return error.PayloadDepth;
        for ([_][]const u8{ "iss", "sub", "aud", "exp", "nbf", "iat", "jti" }) |name| {
            if (model.count(name) > 1) return error.DuplicateClaim;
        }
        const now: f64 = @floatFromInt(options.now_s);
        const leeway: f64 = @floatFromInt(options.leeway_s);
        if (options.checks.iat) if (model.get("iat")) |value| {
            if ((seconds(value) orelse return error.IatType) > now + leeway) {
                return error.IssuedInFuture;
            }
        };
        if (options.checks.nbf) if (model.get("nbf")) |value| {
            if ((seconds(value) orelse return error.NbfType) > now + leeway) {
                return error.NotYetValid;
            }
        };
        if (options.checks.exp) if (model.get("exp")) |value| {
            if ((seconds(value) orelse return error.ExpType) <= now - leeway) {
                return error.Expired;
            }
        };
    }

    /// Without the fraction; null for what is no number, or no finite one.
    fn seconds(value: std.json.Value) ?f64 {
        if (value != .number_string) return null;
        const s = std.fmt.parseFloat(f64, value.number_string) catch return null;
        return if (std.math.isFinite(s)) @trunc(s) else null;
    }

    /// Null for what is not one JSON object.
    fn read(arena: Allocator, text: []const u8) error{OutOfMemory}!?Model {
        return tryRead(arena, text) catch |err| switch (err) {
            error.OutOfMemory => error.OutOfMemory,
            else => null,
        };
    }

    fn tryRead(arena: Allocator, text: []const u8) !Model {
        var scanner: std.json.Scanner = .initCompleteInput(arena, text);
        if (try scanner.next() != .object_begin) return error.NoObject;
        var members: std.ArrayList(Member) = .empty;
        while (true) switch (try scanner.nextAlloc(arena, .alloc_always)) {
            .object_end => break,
            .allocated_string => |name| try members.append(arena, .{
                .name = name,
                .value = try std.json.innerParse(std.json.Value, arena, &scanner, .{
                    .parse_numbers = false,
                    .duplicate_field_behavior = .use_last,
                    .allocate = .alloc_always,
                    .max_value_len = text.len,
                }),
            }),
            else => unreachable, // in an object std knows of nothing else
        };
        if (try scanner.next() != .end_of_document) return error.MoreThanOne;
        return .{ .members = members.items, .depth = depthOf(text) };
    }

    fn depthOf(text: []const u8) usize {
        var depth: usize = 0;
        var deepest: usize = 0;
        var in_string = false;
        var i: usize = 0;
        while (i < text.len) : (i += 1) switch (text[i]) {
            '"' => in_string = !in_string,
            '\\' => i += 1,
            '{', '[' => if (!in_string) {
                depth += 1;
                deepest = @max(deepest, depth);
            },
            '}', ']' => if (!in_string) {
                depth -|= 1;
            },
            else => {},
        };
        return deepest;
    }

    fn isHalfSurrogate(text: []const u8) bool {
        return std.ascii.indexOfIgnoreCase(text, "\\ud") != null;
    }

    fn count(model: *const Model, name: []const u8) usize {
        var n: usize = 0;
        for (model.members) |member| n += @intFromBool(std.mem.eql(u8, member.name, name));
        return n;
    }

    fn get(model: *const Model, name: []const u8) ?std.json.Value {
        return for (model.members) |member| {
            if (std.mem.eql(u8, member.name, name)) break member.value;
        } else null;
    }
};

// ---------------------------------------------------------------- changed samples, for the tests

const max_bytes = 512;

const samples = [_][2][]const u8{
    .{ header.standard, "{}" },
    .{
        header.standard,
        "{\"sub\":\"ann\",\"iat\":1516239022,\"exp\":1900000000.5,\"admin\":true}",
    },
    .{
        "{\"typ\":\"at+jwt\",\r\n \"alg\":\"HS256\",\"kid\":\"2026-07\"}",
        "{\"nbf\":-1e3,\"aud\":[\"a\",{\"b\":null}]," ++ "\"name\":\"\\u00e4\xc3\xa4 \\\"\\n\"}",
    },
    .{
        "{\"x\":[1,{\"alg\":\"none\"}],\"alg\":\"\\u0048S256\"}",
        " { \"e\\u0078p\" : 1900000000 , \"deep\":[[[[]]]], \"ok\":false } ",
    },
};

/// Half of them are changed after signing, and half before, so that the readers behind the
/// signature see the change.
fn checkChangedSamples(gpa: Allocator, seed: u64, count: u64) !void {
    var prng = std.Random.DefaultPrng.init(seed);
    const random = prng.random();
    for (0..count) |_| {
        const sample = samples[random.uintLessThan(usize, samples.len)];
        if (random.boolean()) {
            const token = try signAnything(gpa, sample[0], sample[1]);
            defer gpa.free(token);
            const changed = try mutate(gpa, random, "", token);
            defer gpa.free(changed);
            try targets.token(gpa, changed);
        } else {
            const in_header = random.uintLessThan(u8, 4) == 0;
            const text = if (in_header) sample[0] else sample[1];
            const changed = try mutate(gpa, random, if (in_header) "1" else "0", text);
            defer gpa.free(changed);
            try targets.signed(gpa, changed);
        }
    }
}

/// `start` and a copy of `text` with one to four changes.
fn mutate(gpa: Allocator, random: std.Random, start: []const u8, text: []const u8) ![]u8 {
    var buffer: [2 * max_bytes]u8 = undefined;
    @memcpy(buffer[0..text.len], text);
    var len = text.len;
    for (0..random.intRangeAtMost(usize, 1, 4)) |_| len = mutateOnce(random, &buffer, len);
    return std.mem.concat(gpa, u8, &.{ start, buffer[0..@min(len, 300)] });
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

test "100,000 mutated tokens, fewer in Debug: every verdict right, no crash, no leak" {
    // std.testing's allocator without stack traces, and with small pages: most of the time would
    // go into those.
    var debug_allocator: std.heap.DebugAllocator(.{
        .stack_trace_frames = 0,
        .page_size = 4096,
    }) = .{ .backing_allocator = std.heap.smp_allocator };
    const seeds: u64 = if (@import("builtin").mode == .Debug) 2 else 10;
    for (0..seeds) |seed| try checkChangedSamples(debug_allocator.allocator(), seed, 10_000);
    try std.testing.expect(debug_allocator.deinit() == .ok);
}
