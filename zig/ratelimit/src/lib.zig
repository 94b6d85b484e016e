//! The C ABI of include/plue_ratelimit.h and nothing else: checks pointers, finds limiters, reads
//! the clock and turns errors into codes. What the functions mean stands in the header.
const std = @import("std");
const builtin = @import("builtin");
const batch = @import("batch.zig");
const clock = @import("clock.zig");
const key_hash = @import("key_hash.zig");
const limiter_ = @import("limiter.zig");
const rule_ = @import("rule.zig");
const shared_file = @import("shared_file.zig");
const sliding_window = @import("sliding_window.zig");
const moving_window = @import("moving_window.zig");
const instances_ = @import("instances.zig");
const Instance = instances_.Instance;
const Instances = instances_.Instances;
const Decision = rule_.Decision;
const Rule = rule_.Rule;
const config = @import("config");

const default_max_keys = 1_000_000;

const Error = limiter_.Error || shared_file.OpenError || error{
    ZeroWindow,
    NullPointer,
    NoLimiter,
    Options,
    OutOfMemory,
    TooManyLimiters,
    BatchShape,
};

/// enum ratelimit_error of the header; a test compares the two.
pub const Code = enum(i32) {
    ok = 0,
    null_pointer = -1,
    no_limiter = -2,
    zero_window = -3,
    zero_cost = -4,
    key_too_long = -5,
    options = -6,
    batch_shape = -7,
    out_of_memory = -8,
    too_many_limiters = -9,
    system = -20,
    not_a_file = -21,
    not_owner = -22,
    mode = -23,
    format = -24,
    size = -25,
    too_many_processes = -26,
    no_boot_id = -27,
    in_use = -28,

    fn of(err: Error) Code {
        return switch (err) {
            error.NullPointer => .null_pointer,
            error.NoLimiter, error.Closed => .no_limiter,
            error.ZeroWindow => .zero_window,
            error.ZeroCost => .zero_cost,
            error.KeyTooLong => .key_too_long,
            error.Options => .options,
            error.BatchShape => .batch_shape,
            error.OutOfMemory => .out_of_memory,
            error.TooManyLimiters => .too_many_limiters,
            error.System => .system,
            error.NotAFile => .not_a_file,
            error.NotOwner => .not_owner,
            error.Mode => .mode,
            error.Format => .format,
            error.Size => .size,
            error.TooManyProcesses => .too_many_processes,
            error.NoBootId => .no_boot_id,
            error.InUse => .in_use,
        };
    }
};

var instances: Instances = .{ .allocator = std.heap.c_allocator };
/// The limiter of the functions without a handle; 0: none.
var process_handle: std.atomic.Value(u32) = .init(0);
var fork_watch = std.once(watchForks);

threadlocal var last_error: Code = .ok;
threadlocal var last_errno: i32 = 0;

extern "c" fn pthread_atfork(
    prepare: ?*const fn () callconv(.c) void,
    parent: ?*const fn () callconv(.c) void,
    child: ?*const fn () callconv(.c) void,
) c_int;

fn watchForks() void {
    // Fails for lack of memory only; a fork in another thread's call could then stop the child,
    // as it could in most libraries.
    _ = pthread_atfork(beforeFork, afterForkInParent, afterForkInChild);
}

fn beforeFork() callconv(.c) void {
    instances.beforeFork();
}

fn afterForkInParent() callconv(.c) void {
    instances.afterFork(false);
}

fn afterForkInChild() callconv(.c) void {
    instances.afterFork(true);
}

fn fail(err: Error) void {
    @branchHint(.cold);
    if (err == error.System) last_errno = std.c._errno().*;
    last_error = .of(err);
}

fn failCode(err: Error) i32 {
    fail(err);
    return @intFromEnum(last_error);
}

// ---- opening and closing
// -------------------------------------------------------------------------

const Options = struct { rule: Rule, max_keys: u32, when_full: limiter_.WhenFull };

fn options(
    algorithm: u32,
    max_requests: u32,
    window_ms: u64,
    max_keys: u32,
    when_full: u32,
) Error!Options {
    if (max_keys == 0 or max_keys > shared_file.max_keys_limit) return error.Options;
    if (when_full > @intFromEnum(limiter_.WhenFull.allow)) return error.Options;
    return .{
        .rule = try ruleOf(algorithm, max_requests, window_ms),
        .max_keys = max_keys,
        .when_full = @enumFromInt(when_full),
    };
}

fn ruleOf(algorithm: u32, limit: u32, window_ms: u64) Error!Rule {
    if (algorithm > @intFromEnum(rule_.Algorithm.sliding_window_floor)) return error.Options;
    return Rule.init(@enumFromInt(algorithm), limit, window_ms);
}

fn open(chosen: Options, path: ?[:0]const u8) Error!u32 {
    fork_watch.call();
    instances.mutex.lock();
    defer instances.mutex.unlock();
    const instance, const handle = try instances.reserve();
    var seed: key_hash.Seed = undefined;
    std.crypto.random.bytes(&seed);
    const limiter = &instance.limiter;
    if (path) |file| {
        const boot_id = clock.bootId() catch return error.NoBootId;
        instance.shared = @as(shared_file.SharedFile, undefined);
        errdefer instance.shared = null;
        const shared = &instance.shared.?;
        try shared.open(&limiter.table, handle, file, chosen.max_keys, seed, boot_id);
    } else {
        limiter.table.openPrivate(handle, std.heap.c_allocator, seed, chosen.max_keys);
    }
    limiter.init(chosen.rule, chosen.when_full, path != null);
    Instances.publish(instance, handle);
    return handle;
}

pub export fn ratelimit_create(
    algorithm: u32,
    max_requests: u32,
    window_ms: u64,
    max_keys: u32,
    when_full: u32,
) u32 {
    const chosen = options(algorithm, max_requests, window_ms, max_keys, when_full) catch |err| {
        fail(err);
        return 0;
    };
    return open(chosen, null) catch |err| {
        fail(err);
        return 0;
    };
}

pub export fn ratelimit_open_shared(
    path: ?[*:0]const u8,
    algorithm: u32,
    max_requests: u32,
    window_ms: u64,
    max_keys: u32,
    when_full: u32,
) u32 {
    const file = path orelse {
        fail(error.NullPointer);
        return 0;
    };
    const chosen = options(algorithm, max_requests, window_ms, max_keys, when_full) catch |err| {
        fail(err);
        return 0;
    };
    return open(chosen, std.mem.span(file)) catch |err| {
        fail(err);
        return 0;
    };
}

pub export fn ratelimit_close(handle: u32) bool {
    if (instances.close(handle)) return true;
    fail(error.NoLimiter);
    return false;
}

// ---- the process-wide limiter
// --------------------------------------------------------------------

pub export fn ratelimit_init(max_requests: u32, window_ms: u64) bool {
    const handle = ratelimit_create(0, max_requests, window_ms, default_max_keys, 0);
    if (handle == 0) return false;
    const before = process_handle.swap(handle, .acq_rel);
    if (before != 0) _ = instances.close(before);
    return true;
}

pub export fn ratelimit_destroy() void {
    const before = process_handle.swap(0, .acq_rel);
    if (before != 0) _ = instances.close(before);
}

/// `ratelimit_init` in another thread may close the limiter between these two lines; the answer is
/// then a refusal with `no_limiter`, as before init.
fn processHandle() u32 {
    return process_handle.load(.acquire);
}

pub export fn ratelimit_check(key: ?[*:0]const u8) bool {
    const text = key orelse return refuse(error.NullPointer);
    const bytes = boundedSpan(text) catch |err| return refuse(err);
    return ratelimit_check_key(processHandle(), bytes.ptr, @intCast(bytes.len), 1);
}

pub export fn ratelimit_reset(key: ?[*:0]const u8) void {
    const text = key orelse return fail(error.NullPointer);
    const bytes = boundedSpan(text) catch |err| return fail(err);
    _ = ratelimit_reset_key(processHandle(), bytes.ptr, @intCast(bytes.len));
}

pub export fn ratelimit_cleanup() u32 {
    return ratelimit_sweep(processHandle());
}

pub export fn ratelimit_get_remaining(key: ?[*:0]const u8) u32 {
    var decision: Decision = .{};
    const text = key orelse {
        fail(error.NullPointer);
        return 0;
    };
    const bytes = boundedSpan(text) catch |err| {
        fail(err);
        return 0;
    };
    _ = ratelimit_peek(processHandle(), bytes.ptr, @intCast(bytes.len), 1, &decision);
    return decision.remaining;
}

pub export fn ratelimit_count() u32 {
    return ratelimit_key_count(processHandle());
}

/// Reads no further than a key may reach.
fn boundedSpan(text: [*:0]const u8) Error![]const u8 {
    for (0..key_hash.max_key_bytes + 1) |len| {
        if (text[len] == 0) return text[0..len];
    }
    return error.KeyTooLong;
}

fn refuse(err: Error) bool {
    fail(err);
    return false;
}

// ---- one key
// -------------------------------------------------------------------------------------

fn find(handle: u32) Error!*Instance {
    return instances.find(handle) orelse error.NoLimiter;
}

inline fn keyOf(key: ?[*]const u8, len: u32) Error![]const u8 {
    if (len == 0) return "";
    return (key orelse return error.NullPointer)[0..len];
}

pub export fn ratelimit_check_key(handle: u32, key: ?[*]const u8, key_bytes: u32, cost: u32) bool {
    const instance = instances.find(handle) orelse return refuse(error.NoLimiter);
    const bytes = keyOf(key, key_bytes) catch |err| return refuse(err);
    const now_ms = clock.forWindow(instance.limiter.windowMs());
    const allowed = instance.limiter.check(handle, bytes, cost, now_ms) catch |err|
        return refuse(err);
    // False for a reason would otherwise look like an earlier call's error.
    if (!allowed) last_error = .ok;
    return allowed;
}

/// The two arguments that differ between calls: each one more costs a caller in Python a tenth.
pub export fn ratelimit_check_text(handle: u32, key: ?[*:0]const u8) bool {
    const text = key orelse return refuse(error.NullPointer);
    const bytes = boundedSpan(text) catch |err| return refuse(err);
    return ratelimit_check_key(handle, bytes.ptr, @intCast(bytes.len), 1);
}

pub export fn ratelimit_hit(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    decision: ?*Decision,
) i32 {
    return ratelimit_hit_at(handle, key, key_bytes, cost, clock.preciseMs(), decision);
}

pub export fn ratelimit_peek(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    decision: ?*Decision,
) i32 {
    return ratelimit_peek_at(handle, key, key_bytes, cost, clock.preciseMs(), decision);
}

pub export fn ratelimit_hit_at(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    now_ms: u64,
    decision: ?*Decision,
) i32 {
    const out = decision orelse return failCode(error.NullPointer);
    out.* = .{};
    const instance = find(handle) catch |err| return failCode(err);
    const bytes = keyOf(key, key_bytes) catch |err| return failCode(err);
    out.* = instance.limiter.hit(handle, bytes, cost, now_ms) catch |err| return failCode(err);
    return 0;
}

pub export fn ratelimit_peek_at(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    now_ms: u64,
    decision: ?*Decision,
) i32 {
    const out = decision orelse return failCode(error.NullPointer);
    out.* = .{};
    const instance = find(handle) catch |err| return failCode(err);
    const bytes = keyOf(key, key_bytes) catch |err| return failCode(err);
    out.* = instance.limiter.peek(handle, bytes, cost, now_ms) catch |err| return failCode(err);
    return 0;
}

pub export fn ratelimit_refund(handle: u32, key: ?[*]const u8, key_bytes: u32, cost: u32) bool {
    return ratelimit_refund_at(handle, key, key_bytes, cost, rule_.never_ms);
}

pub export fn ratelimit_refund_at(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    until_ms: u64,
) bool {
    const instance = find(handle) catch |err| return refuse(err);
    const bytes = keyOf(key, key_bytes) catch |err| return refuse(err);
    instance.limiter.refund(handle, bytes, cost, until_ms) catch |err| return refuse(err);
    return true;
}

pub export fn ratelimit_reset_key(handle: u32, key: ?[*]const u8, key_bytes: u32) bool {
    const instance = find(handle) catch |err| return refuse(err);
    const bytes = keyOf(key, key_bytes) catch |err| return refuse(err);
    instance.limiter.reset(handle, bytes, clock.coarseMs()) catch |err| return refuse(err);
    return true;
}

// ---- many keys
// -----------------------------------------------------------------------------------

pub export fn ratelimit_check_many(
    handle: u32,
    keys: ?[*]const u8,
    keys_bytes: u64,
    lengths: ?[*]const u32,
    count: u32,
    cost: u32,
    allowed: ?[*]u8,
) i32 {
    const instance = find(handle) catch |err| return failCode(err);
    if (count == 0) return 0;
    if (count > std.math.maxInt(i32)) return failCode(error.BatchShape);
    const verdicts = (allowed orelse return failCode(error.NullPointer))[0..count];
    @memset(verdicts, 0);
    const size = std.math.cast(usize, keys_bytes) orelse return failCode(error.BatchShape);
    const bytes = if (size == 0) "" else (keys orelse return failCode(error.NullPointer))[0..size];
    const passed = checkBatch(&instance.limiter, handle, bytes, lengths, cost, verdicts);
    return @intCast(passed catch |err| {
        @memset(verdicts, 0);
        return failCode(err);
    });
}

fn checkBatch(
    limiter: *limiter_.Limiter,
    handle: u32,
    bytes: []const u8,
    lengths: ?[*]const u32,
    cost: u32,
    verdicts: []u8,
) Error!u32 {
    const now_ms = clock.forWindow(limiter.windowMs());
    if (lengths) |first| {
        var keys: batch.Measured = .{ .bytes = bytes, .lengths = first[0..verdicts.len] };
        var total: u64 = 0;
        for (keys.lengths) |len| total += len;
        if (total != bytes.len) return error.BatchShape;
        return batch.check(limiter, handle, &keys, cost, now_ms, verdicts);
    }
    if (batch.Separated.count(bytes) != verdicts.len) return error.BatchShape;
    var keys: batch.Separated = .{ .bytes = bytes };
    return batch.check(limiter, handle, &keys, cost, now_ms, verdicts);
}

// ---- the whole table
// -----------------------------------------------------------------------------

pub export fn ratelimit_sweep(handle: u32) u32 {
    const instance = find(handle) catch |err| {
        fail(err);
        return 0;
    };
    return instance.limiter.table.cleanup(handle, clock.preciseMs()) catch |err| {
        fail(err);
        return 0;
    };
}

pub export fn ratelimit_clear(handle: u32) bool {
    const instance = find(handle) catch |err| return refuse(err);
    instance.limiter.table.clear(handle) catch |err| return refuse(err);
    return true;
}

pub export fn ratelimit_key_count(handle: u32) u32 {
    const instance = find(handle) catch |err| {
        fail(err);
        return 0;
    };
    return instance.limiter.table.count(handle) catch |err| {
        fail(err);
        return 0;
    };
}

pub export fn ratelimit_bytes(handle: u32) u64 {
    const instance = find(handle) catch |err| {
        fail(err);
        return 0;
    };
    const slots = instance.limiter.table.slotBytes(handle) catch |err| {
        fail(err);
        return 0;
    };
    return slots + @sizeOf(Instance);
}

// ---- a rule with the call
// ------------------------------------------------------------------------

pub export fn ratelimit_hit_rule(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    algorithm: u32,
    max_requests: u32,
    window_ms: u64,
    decision: ?*Decision,
) i32 {
    const out = decision orelse return failCode(error.NullPointer);
    out.* = .{};
    const rule = ruleOf(algorithm, max_requests, window_ms) catch |err| return failCode(err);
    const instance = find(handle) catch |err| return failCode(err);
    const bytes = keyOf(key, key_bytes) catch |err| return failCode(err);
    const now_ms = clock.preciseMs();
    out.* = instance.limiter.hitRule(rule, handle, bytes, cost, now_ms) catch |err|
        return failCode(err);
    return 0;
}

pub export fn ratelimit_peek_rule(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    algorithm: u32,
    max_requests: u32,
    window_ms: u64,
    decision: ?*Decision,
) i32 {
    const out = decision orelse return failCode(error.NullPointer);
    out.* = .{};
    const rule = ruleOf(algorithm, max_requests, window_ms) catch |err| return failCode(err);
    const instance = find(handle) catch |err| return failCode(err);
    const bytes = keyOf(key, key_bytes) catch |err| return failCode(err);
    const now_ms = clock.preciseMs();
    out.* = instance.limiter.peekRule(rule, handle, bytes, cost, now_ms) catch |err|
        return failCode(err);
    return 0;
}

pub export fn ratelimit_read_window(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    window_ms: u64,
    counts: ?*sliding_window.Counts,
) i32 {
    const out = counts orelse return failCode(error.NullPointer);
    out.* = .{ .previous = 0, .current = 0, .previous_left_ms = 0, .current_left_ms = 0 };
    const rule = ruleOf(3, 1, window_ms) catch |err| return failCode(err);
    const instance = find(handle) catch |err| return failCode(err);
    const bytes = keyOf(key, key_bytes) catch |err| return failCode(err);
    const now_ms = clock.preciseMs();
    out.* = instance.limiter.windowCounts(rule.window_ms, handle, bytes, now_ms) catch |err|
        return failCode(err);
    return 0;
}

pub export fn ratelimit_hit_log(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    cost: u32,
    max_requests: u32,
    window_ms: u64,
) bool {
    const rule = ruleOf(0, max_requests, window_ms) catch |err| return refuse(err);
    const instance = find(handle) catch |err| return refuse(err);
    const bytes = keyOf(key, key_bytes) catch |err| return refuse(err);
    const now_ms = clock.preciseMs();
    const allowed = instance.limiter.logHit(rule, handle, bytes, cost, now_ms) catch |err|
        return refuse(err);
    if (!allowed) last_error = .ok;
    return allowed;
}

pub export fn ratelimit_read_log(
    handle: u32,
    key: ?[*]const u8,
    key_bytes: u32,
    max_requests: u32,
    window_ms: u64,
    content: ?*moving_window.Log.Content,
) i32 {
    const out = content orelse return failCode(error.NullPointer);
    out.* = .{};
    const rule = ruleOf(0, max_requests, window_ms) catch |err| return failCode(err);
    const instance = find(handle) catch |err| return failCode(err);
    const bytes = keyOf(key, key_bytes) catch |err| return failCode(err);
    out.* = instance.limiter.logRead(rule, handle, bytes, clock.preciseMs()) catch |err|
        return failCode(err);
    return 0;
}

// ---- errors
// --------------------------------------------------------------------------------------

pub export fn ratelimit_last_error() i32 {
    const code = last_error;
    last_error = .ok;
    return @intFromEnum(code);
}

pub export fn ratelimit_last_errno() i32 {
    return last_errno;
}

pub export fn ratelimit_error_name(code: i32) [*:0]const u8 {
    inline for (@typeInfo(Code).@"enum".fields) |field| {
        if (field.value == code) return field.name;
    }
    return "unknown";
}

pub export fn ratelimit_version() [*:0]const u8 {
    return config.version;
}

test {
    _ = @import("batch.zig");
    _ = @import("lock.zig");
    _ = @import("key_hash.zig");
    _ = @import("clock.zig");
    _ = @import("instances.zig");
    _ = @import("limiter_test.zig");
    _ = @import("shared_file_test.zig");
    _ = @import("lib_test.zig");
}
