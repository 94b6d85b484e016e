//! The generic cell rate algorithm (ITU-T I.371): a token bucket told by one time, the theoretical
//! arrival time (TAT) at which the bucket will be full again. A burst of `limit` passes at once,
//! then one request per window/limit. Times are in milliseconds times `limit`, so that nothing is
//! rounded.
//! Entry: `expires_ms` is the TAT rounded up to a millisecond, `a` what was added, in 1/limit ms,
//! `b` how long before `expires_ms` the last request came.
const std = @import("std");
const rule_ = @import("rule.zig");
const Rule = rule_.Rule;
const Entry = rule_.Entry;
const Decision = rule_.Decision;

inline fn wide(value: u64) u128 {
    return value;
}

/// How far the TAT lies ahead of now, in milliseconds times `limit`.
inline fn debt(rule: Rule, entry: Entry, now_ms: u64) u128 {
    if (entry.isDead(now_ms)) return 0;
    return wide(entry.expires_ms - now_ms) * rule.limit -| entry.counts.a;
}

pub inline fn take(rule: Rule, entry: Entry, now_ms: u64, cost: u32) ?Entry {
    const after = debt(rule, entry, now_ms) + wide(cost) * rule.window_ms;
    if (after > wide(rule.limit) * rule.window_ms) return null;
    return entryOf(rule, now_ms, after);
}

/// Takes back what `take` counted when it set the TAT to `until_ms`: no more than had not
/// drained when the last request came, which may have found the bucket full without it.
pub fn giveBack(rule: Rule, entry: Entry, until_ms: u64, cost: u32) Entry {
    if (rule.limit == 0) return entry;
    const last_ms = entry.expires_ms -| entry.counts.b;
    const undrained = wide(until_ms -| last_ms) * rule.limit;
    const tat = wide(entry.expires_ms) * rule.limit -| entry.counts.a;
    const owed = tat -| @min(wide(cost) * rule.window_ms, undrained);
    const expires_ms = divideUp(owed, rule.limit);
    const b = @as(u64, entry.counts.b) -| (entry.expires_ms - expires_ms);
    return .{
        .expires_ms = expires_ms,
        .counts = .of(@intCast(wide(expires_ms) * rule.limit - owed), @intCast(b)),
    };
}

inline fn entryOf(rule: Rule, now_ms: u64, owed: u128) Entry {
    const ahead_ms = divideUp(owed, rule.limit);
    return .{
        .expires_ms = now_ms +| ahead_ms,
        .counts = .of(
            @intCast(wide(ahead_ms) * rule.limit - owed),
            @intCast(@min(ahead_ms, std.math.maxInt(u32))),
        ),
    };
}

pub fn describe(rule: Rule, entry: Entry, now_ms: u64, cost: u32) Decision {
    const owed = debt(rule, entry, now_ms);
    const bucket = wide(rule.limit) * rule.window_ms;
    const wanted = owed + wide(cost) * rule.window_ms;
    return .{
        .limit = rule.limit,
        .remaining = @intCast((bucket -| owed) / rule.window_ms),
        .retry_after_ms = if (rule.limit == 0) 0 else divideUp(wanted -| bucket, rule.limit),
        .reset_after_ms = if (rule.limit == 0) 0 else divideUp(owed, rule.limit),
    };
}

/// Of two divisions of different price, the cheap one where the numbers allow it.
inline fn divideUp(numerator: u128, denominator: u32) u64 {
    if (std.math.cast(u64, numerator)) |small|
        return small / denominator + @intFromBool(small % denominator != 0);
    const quotient = numerator / denominator + @intFromBool(numerator % denominator != 0);
    return std.math.cast(u64, quotient) orelse rule_.never_ms;
}
