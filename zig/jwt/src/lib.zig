//! The C ABI of include/plue_jwt.h and nothing else: checks pointers, finds keys, reads the clock
//! and turns errors into codes. What the functions mean stands in the header.

const std = @import("std");
const hmac = @import("hmac.zig");
const jwt = @import("jwt.zig");
const secret_rules = @import("secret.zig");
const sha256 = @import("sha256.zig");
const KeyTable = @import("key_table.zig").KeyTable;
const Current = @import("key_table.zig").Current;
const config = @import("config");

const Error = jwt.SignError || jwt.VerifyError || secret_rules.Error || error{
    NullPointer,
    NoSecret,
    UnknownKey,
    KeyCount,
    OutOfMemory,
    Options,
};

/// enum jwt_error of the header; a test compares the two.
pub const Code = enum(i32) {
    ok = 0,
    null_pointer = -1,
    no_secret = -2,
    empty_secret = -3,
    secret_too_large = -4,
    asymmetric_key = -5,
    unknown_key = -6,
    key_count = -7,
    out_of_memory = -8,
    buffer_too_small = -9,
    options = -10,
    too_large = -20,
    segments = -21,
    header_encoding = -30,
    header_json = -31,
    header_duplicate = -32,
    algorithm = -33,
    crit = -34,
    b64 = -35,
    kid = -36,
    typ = -37,
    signature_encoding = -40,
    signature = -41,
    payload_encoding = -50,
    payload_json = -51,
    payload_depth = -52,
    duplicate_claim = -53,
    exp_type = -54,
    nbf_type = -55,
    iat_type = -56,
    expired = -57,
    not_yet_valid = -58,
    issued_in_future = -59,

    fn of(err: Error) Code {
        return switch (err) {
            error.NullPointer => .null_pointer,
            error.NoSecret => .no_secret,
            error.EmptySecret => .empty_secret,
            error.SecretTooLarge => .secret_too_large,
            error.AsymmetricKey => .asymmetric_key,
            error.UnknownKey => .unknown_key,
            error.KeyCount => .key_count,
            error.OutOfMemory => .out_of_memory,
            error.BufferTooSmall => .buffer_too_small,
            error.Options => .options,
            error.TooLarge => .too_large,
            error.Segments => .segments,
            error.HeaderEncoding => .header_encoding,
            error.HeaderJson => .header_json,
            error.HeaderDuplicate => .header_duplicate,
            error.Algorithm => .algorithm,
            error.Crit => .crit,
            error.B64 => .b64,
            error.Kid => .kid,
            error.Typ => .typ,
            error.SignatureEncoding => .signature_encoding,
            error.Signature => .signature,
            error.PayloadEncoding => .payload_encoding,
            error.PayloadJson => .payload_json,
            error.PayloadDepth => .payload_depth,
            error.DuplicateClaim => .duplicate_claim,
            error.ExpType => .exp_type,
            error.NbfType => .nbf_type,
            error.IatType => .iat_type,
            error.Expired => .expired,
            error.NotYetValid => .not_yet_valid,
            error.IssuedInFuture => .issued_in_future,
        };
    }
};

var process_secret: Current = .{};
var key_table: KeyTable = .empty;
var cpu_path: std.atomic.Value(CpuPath) = .init(.undetected);

threadlocal var last_error: Code = .ok;
/// The results of the *_text functions, and where the allocating ones build theirs. Two, so that a
/// verified payload can be signed again and a new token be verified without a copy between.
threadlocal var token_text: [jwt.default_max_token_bytes + 1]u8 = @splat(0);
threadlocal var payload_text: [jwt.default_max_token_bytes + 1]u8 = @splat(0);

fn fail(err: Error) void {
    last_error = .of(err);
}

fn failCode(err: Error) i32 {
    fail(err);
    return @intFromEnum(last_error);
}

fn succeed(len: usize) i32 {
    last_error = .ok;
    return @intCast(len); // at most jwt.max_token_bytes
}

// ---- errors --------------------------------------------------------------------------------

pub export fn jwt_last_error() i32 {
    return @intFromEnum(last_error);
}

pub export fn jwt_error_name(code: i32) [*:0]const u8 {
    const known = std.enums.fromInt(Code, code) orelse return "unknown";
    return @tagName(known);
}

// ---- one secret for the whole process ------------------------------------------------------

pub export fn jwt_init(secret: ?[*]const u8, secret_len: usize) bool {
    var key = prepareKey(secret, secret_len) catch |err| {
        fail(err);
        return false;
    };
    defer key.wipe();
    process_secret.set(&key);
    last_error = .ok;
    return true;
}

pub export fn jwt_sign(payload_json: ?[*:0]const u8) ?[*:0]u8 {
    return signAllocated(payload_json) catch |err| {
        fail(err);
        return null;
    };
}

pub export fn jwt_verify(token: ?[*:0]const u8) ?[*:0]u8 {
    return verifyAllocated(token) catch |err| {
        fail(err);
        return null;
    };
}

pub export fn jwt_free(ptr: ?*anyopaque) void {
    std.c.free(ptr);
}

pub export fn jwt_cleanup() void {
    process_secret.set(null);
}

fn prepareKey(secret: ?[*]const u8, secret_len: usize) Error!hmac.Key {
    if (secret_len == 0) return error.EmptySecret;
    const bytes = (secret orelse return error.NullPointer)[0..secret_len];
    try secret_rules.check(bytes);
    return .init(bytes, currentPath());
}

fn signAllocated(payload_json: ?[*:0]const u8) Error![*:0]u8 {
    const payload = try boundedText(payload_json);
    var key = try processKey();
    defer key.wipe();
    const token = try jwt.sign(&token_text, payload, &key);
    last_error = .ok;
    return copyAllocated(token);
}

fn verifyAllocated(token: ?[*:0]const u8) Error![*:0]u8 {
    const text = try boundedText(token);
    var key = try processKey();
    defer key.wipe();
    var matched: ?usize = null;
    const keys = (&key)[0..1];
    const payload = try jwt.verify(&payload_text, text, keys, defaultOptions(), &matched);
    last_error = .ok;
    return copyAllocated(payload);
}

fn copyAllocated(bytes: []const u8) error{OutOfMemory}![*:0]u8 {
    const room: [*]u8 = @ptrCast(std.c.malloc(bytes.len + 1) orelse return error.OutOfMemory);
    @memcpy(room[0..bytes.len], bytes);
    room[bytes.len] = 0;
    return room[0..bytes.len :0];
}

fn processKey() error{NoSecret}!hmac.Key {
    var key: hmac.Key = undefined;
    key.path = currentPath();
    try process_secret.get(&key);
    return key;
}

// ---- key handles ---------------------------------------------------------------------------

pub export fn jwt_key_create(secret: ?[*]const u8, secret_len: usize) u32 {
    var key = prepareKey(secret, secret_len) catch |err| {
        fail(err);
        return 0;
    };
    defer key.wipe();
    const handle = key_table.create(&key) catch |err| {
        fail(err);
        return 0;
    };
    last_error = .ok;
    return @bitCast(handle);
}

pub export fn jwt_key_destroy(key: u32) bool {
    key_table.destroy(@bitCast(key)) catch |err| {
        fail(err);
        return false;
    };
    last_error = .ok;
    return true;
}

fn findKey(handle: u32) error{UnknownKey}!hmac.Key {
    var key: hmac.Key = undefined;
    key.path = currentPath();
    try key_table.get(@bitCast(handle), &key);
    return key;
}

// ---- text in, text out ---------------------------------------------------------------------

pub export fn jwt_sign_text(key: u32, payload_json: ?[*:0]const u8) ?[*:0]const u8 {
    const payload = boundedText(payload_json) catch |err| {
        fail(err);
        return null;
    };
    const len = signHandle(key, payload, token_text[0..jwt.default_max_token_bytes]);
    return textResult(&token_text, len);
}

pub export fn jwt_verify_text(key: u32, token: ?[*:0]const u8) ?[*:0]const u8 {
    const text = boundedText(token) catch |err| {
        fail(err);
        return null;
    };
    const len = verifyHandle(key, text, payload_text[0..jwt.default_max_token_bytes]);
    return textResult(&payload_text, len);
}

fn textResult(
    buffer: *[jwt.default_max_token_bytes + 1]u8,
    len_or_code: i32,
) ?[*:0]const u8 {
    if (len_or_code < 0) return null;
    const len: usize = @intCast(len_or_code);
    buffer[len] = 0;
    return buffer[0..len :0];
}

/// A text without its terminator.
fn boundedText(text: ?[*:0]const u8) Error![]const u8 {
    const start = text orelse return error.NullPointer;
    const len = std.mem.len(start);
    if (len > jwt.default_max_token_bytes) return error.TooLarge;
    return start[0..len];
}

// ---- bytes in, bytes into the caller's buffer ----------------------------------------------

pub export fn jwt_sign_into(
    key: u32,
    payload: ?[*]const u8,
    payload_len: usize,
    out: ?[*]u8,
    out_cap: usize,
) i32 {
    const bytes = input(payload, payload_len) catch |err| return failCode(err);
    return signHandle(key, bytes, output(out, out_cap) catch |err| return failCode(err));
}

pub export fn jwt_verify_into(
    key: u32,
    token: ?[*]const u8,
    token_len: usize,
    out: ?[*]u8,
    out_cap: usize,
) i32 {
    const bytes = input(token, token_len) catch |err| return failCode(err);
    return verifyHandle(key, bytes, output(out, out_cap) catch |err| return failCode(err));
}

fn signHandle(handle: u32, payload: []const u8, out: []u8) i32 {
    var key = findKey(handle) catch |err| return failCode(err);
    defer key.wipe();
    const token = jwt.sign(out, payload, &key) catch |err| return failCode(err);
    return succeed(token.len);
}

fn verifyHandle(handle: u32, token: []const u8, out: []u8) i32 {
    var key = findKey(handle) catch |err| return failCode(err);
    defer key.wipe();
    var matched: ?usize = null;
    const keys = (&key)[0..1];
    const payload = jwt.verify(out, token, keys, defaultOptions(), &matched) catch |err|
        return failCode(err);
    return succeed(payload.len);
}

fn input(ptr: ?[*]const u8, len: usize) Error![]const u8 {
    if (len == 0) return &.{};
    const start = ptr orelse return error.NullPointer;
    if (len > jwt.max_token_bytes) return error.TooLarge;
    return start[0..len];
}

fn output(ptr: ?[*]u8, cap: usize) Error![]u8 {
    if (cap == 0) return &.{};
    const start = ptr orelse return error.NullPointer;
    return start[0..@min(cap, jwt.max_token_bytes)];
}

// ---- verification with options -------------------------------------------------------------

const OptionsC = extern struct {
    now_s: i64,
    leeway_s: i64,
    checks: u32,
    max_token_bytes: u32,

    const now_system = std.math.minInt(i64);
    const known_checks = 7;

    fn read(options: *const OptionsC) Error!jwt.Options {
        if (options.leeway_s < 0) return error.Options;
        if (options.checks & ~@as(u32, known_checks) != 0) return error.Options;
        if (options.max_token_bytes > jwt.max_token_bytes) return error.Options;
        return .{
            .now_s = if (options.now_s == now_system) systemClock() else options.now_s,
            .leeway_s = options.leeway_s,
            .checks = @bitCast(options.checks),
            .max_token_bytes = if (options.max_token_bytes == 0)
                jwt.default_max_token_bytes
            else
                options.max_token_bytes,
        };
    }
};

fn defaultOptions() jwt.Options {
    return .{ .now_s = systemClock() };
}

/// Seconds since 1970. Without a clock every token that expires has expired.
fn systemClock() i64 {
    const now = std.posix.clock_gettime(.REALTIME) catch return std.math.maxInt(i64);
    return now.sec;
}

fn optionsOrDefault(options: ?*align(1) const OptionsC) Error!jwt.Options {
    const given = options orelse return defaultOptions();
    const aligned = given.*;
    return aligned.read();
}

pub export fn jwt_verify_with(
    token: ?[*]const u8,
    token_len: usize,
    keys: ?[*]align(1) const u32,
    key_count: usize,
    options: ?*align(1) const OptionsC,
    out: ?[*]u8,
    out_cap: usize,
    key_index: ?*align(1) i32,
) i32 {
    var matched: ?usize = null;
    const result = verifyWith(token, token_len, keys, key_count, options, out, out_cap, &matched);
    return reportMatch(result, matched, key_index);
}

const KeyBuffer = [max_keys_per_call]hmac.Key;
const max_keys_per_call = 64;

fn verifyWith(
    token: ?[*]const u8,
    token_len: usize,
    keys: ?[*]align(1) const u32,
    key_count: usize,
    options: ?*align(1) const OptionsC,
    out: ?[*]u8,
    out_cap: usize,
    matched: *?usize,
) Error!usize {
    const bytes = try input(token, token_len);
    const room = try output(out, out_cap);
    const read = try optionsOrDefault(options);
    var buffer: KeyBuffer = undefined;
    const found = try findKeys(&buffer, keys, key_count);
    defer for (found) |*key| key.wipe();
    const payload = try jwt.verify(room, bytes, found, read, matched);
    return payload.len;
}

fn findKeys(buffer: *KeyBuffer, handles: ?[*]align(1) const u32, count: usize) Error![]hmac.Key {
    if (count == 0 or count > max_keys_per_call) return error.KeyCount;
    const given = (handles orelse return error.NullPointer)[0..count];
    const keys = buffer[0..count];
    for (keys, given, 0..) |*key, handle, i| {
        key.* = findKey(handle) catch |err| {
            for (keys[0..i]) |*earlier| earlier.wipe();
            return err;
        };
    }
    return keys;
}

fn reportMatch(result: Error!usize, matched: ?usize, key_index: ?*align(1) i32) i32 {
    if (key_index) |index| index.* = if (matched) |i| @intCast(i) else -1;
    return succeed(result catch |err| return failCode(err));
}

pub export fn jwt_verify_batch(
    key: u32,
    tokens: ?[*]const u8,
    lengths: ?[*]align(1) const u32,
    count: usize,
    options: ?*align(1) const OptionsC,
    out: ?[*]u8,
    out_cap: usize,
    results: ?[*]align(1) i32,
) i64 {
    return verifyBatch(key, tokens, lengths, count, options, out, out_cap, results) catch |err|
        return failCode(err);
}

const max_batch = 65_536;

fn verifyBatch(
    handle: u32,
    tokens: ?[*]const u8,
    lengths: ?[*]align(1) const u32,
    count: usize,
    options: ?*align(1) const OptionsC,
    out: ?[*]u8,
    out_cap: usize,
    results: ?[*]align(1) i32,
) Error!i64 {
    if (count > max_batch) return error.Options;
    const read = try optionsOrDefault(options);
    var key = try findKey(handle);
    defer key.wipe();
    last_error = .ok;
    if (count == 0) return 0;

    const sizes = (lengths orelse return error.NullPointer)[0..count];
    const verdicts = (results orelse return error.NullPointer)[0..count];
    var total: u64 = 0;
    for (sizes) |size| total += size;
    // Payloads are shorter than tokens, so no token can lack room once this is checked.
    if (total > out_cap) return error.BufferTooSmall;
    if (total > 0 and (tokens == null or out == null)) return error.NullPointer;

    var valid: i64 = 0;
    var at: usize = 0;
    var written: usize = 0;
    for (sizes, verdicts) |size, *verdict| {
        const token: []const u8 = if (size == 0) &.{} else tokens.?[at..][0..size];
        const room: []u8 = if (size == 0) &.{} else out.?[written..][0..size];
        at += size;
        var matched: ?usize = null;
        if (jwt.verify(room, token, (&key)[0..1], read, &matched)) |payload| {
            verdict.* = @intCast(payload.len);
            written += payload.len;
            valid += 1;
        } else |err| {
            verdict.* = @intFromEnum(Code.of(err));
        }
    }
    return valid;
}

// ---- the JWS below the JWT -----------------------------------------------------------------

pub export fn jwt_jws_sign(
    key: u32,
    header: ?[*]const u8,
    header_len: usize,
    payload: ?[*]const u8,
    payload_len: usize,
    out: ?[*]u8,
    out_cap: usize,
) i32 {
    const head = input(header, header_len) catch |err| return failCode(err);
    const body = input(payload, payload_len) catch |err| return failCode(err);
    const room = output(out, out_cap) catch |err| return failCode(err);
    var found = findKey(key) catch |err| return failCode(err);
    defer found.wipe();
    const token = jwt.signJws(room, head, body, &found) catch |err| return failCode(err);
    return succeed(token.len);
}

pub export fn jwt_jws_verify(
    token: ?[*]const u8,
    token_len: usize,
    keys: ?[*]align(1) const u32,
    key_count: usize,
    options: ?*align(1) const OptionsC,
    out: ?[*]u8,
    out_cap: usize,
    key_index: ?*align(1) i32,
) i32 {
    var matched: ?usize = null;
    const result = verifyJws(token, token_len, keys, key_count, options, out, out_cap, &matched);
    return reportMatch(result, matched, key_index);
}

fn verifyJws(
    token: ?[*]const u8,
    token_len: usize,
    keys: ?[*]align(1) const u32,
    key_count: usize,
    options: ?*align(1) const OptionsC,
    out: ?[*]u8,
    out_cap: usize,
    matched: *?usize,
) Error!usize {
    const bytes = try input(token, token_len);
    const room = try output(out, out_cap);
    const read = try optionsOrDefault(options);
    var buffer: KeyBuffer = undefined;
    const found = try findKeys(&buffer, keys, key_count);
    defer for (found) |*key| key.wipe();
    const payload = try jwt.verifyJws(room, bytes, found, read.max_token_bytes, matched);
    return payload.len;
}

pub export fn jwt_decode_unverified(
    token: ?[*]const u8,
    token_len: usize,
    part: u32,
    out: ?[*]u8,
    out_cap: usize,
) i32 {
    const bytes = input(token, token_len) catch |err| return failCode(err);
    const room = output(out, out_cap) catch |err| return failCode(err);
    const which = std.enums.fromInt(jwt.Part, part) orelse return failCode(error.Options);
    const text = jwt.decodeUnverified(room, bytes, which) catch |err| return failCode(err);
    return succeed(text.len);
}

pub export fn jwt_mac(
    key: u32,
    data: ?[*]const u8,
    data_len: usize,
    mac: ?*[hmac.mac_bytes]u8,
) bool {
    macInto(key, data, data_len, mac) catch |err| {
        fail(err);
        return false;
    };
    last_error = .ok;
    return true;
}

fn macInto(handle: u32, data: ?[*]const u8, data_len: usize, mac: ?*[hmac.mac_bytes]u8) Error!void {
    const target = mac orelse return error.NullPointer;
    const bytes = if (data_len == 0) "" else (data orelse return error.NullPointer)[0..data_len];
    var key = try findKey(handle);
    defer key.wipe();
    target.* = key.mac(bytes);
}

// ---- the library ---------------------------------------------------------------------------

const CpuPath = enum(u8) { undetected, scalar, @"sha-ni", sha2 };

fn currentPath() sha256.Path {
    return switch (cpu_path.load(.monotonic)) {
        .undetected => detectPath(),
        .scalar => .scalar,
        .@"sha-ni" => .@"sha-ni",
        .sha2 => .sha2,
    };
}

noinline fn detectPath() sha256.Path {
    const path = sha256.Path.detect();
    setPath(path);
    return path;
}

fn setPath(path: sha256.Path) void {
    cpu_path.store(switch (path) {
        .scalar => .scalar,
        .@"sha-ni" => .@"sha-ni",
        .sha2 => .sha2,
    }, .monotonic);
}

pub export fn jwt_version() [*:0]const u8 {
    return config.version;
}

pub export fn jwt_cpu_path() [*:0]const u8 {
    return @tagName(currentPath());
}

pub export fn jwt_force_cpu_path(name: ?[*:0]const u8) bool {
    const wanted = std.mem.span(name orelse {
        fail(error.NullPointer);
        return false;
    });
    const path = if (std.mem.eql(u8, wanted, "auto"))
        sha256.Path.detect()
    else
        std.meta.stringToEnum(sha256.Path, wanted);
    if (path == null or !path.?.isAvailable()) {
        fail(error.Options);
        return false;
    }
    setPath(path.?);
    last_error = .ok;
    return true;
}

test {
    _ = @import("lib_test.zig");
    _ = @import("table_test.zig");
    _ = @import("duration.zig");
    _ = jwt;
}

test "the exports are those of the header, with the same arguments" {
    try @import("lib_test.zig").expectSignatures(@This());
}
