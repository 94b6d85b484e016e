//! The sliding-window counter: the window before this one counts for as much of it as a window that
//! ends now would still cover. With `f` the part of the window gone by, the estimate is `previous *
//! (1 - f) + current`, and a request passes when estimate + cost <= limit. Compared without a
//! division, in units of requests times milliseconds, hence exact.
//! Entry: `expires_ms` is two windows after the current one's start, `a` the count of the window
//! before, `b` that of the current one.
const rule_ = @import("rule.zig");
const Rule = rule_.Rule;
const Entry = rule_.Entry;
const Decision = rule_.Decision;

const State = struct {
    start_ms: u64,
    elapsed_ms: u64,
    previous: u32,
    current: u32,

    inline fn at(rule: Rule, entry: Entry, now_ms: u64) State {
        if (entry.isDead(now_ms))
            return .{ .start_ms = now_ms, .elapsed_ms = 0, .previous = 0, .current = 0 };
        const start_ms = entry.expires_ms -| 2 * rule.window_ms;
        // A clock that stepped back before the start is held still at it.
        const elapsed_ms = now_ms -| start_ms;
        if (elapsed_ms < rule.window_ms) return .{
            .start_ms = start_ms,
            .elapsed_ms = elapsed_ms,
            .previous = entry.counts.a,
            .current = entry.counts.b,
        };
        return .{
            .start_ms = start_ms + rule.window_ms,
            .elapsed_ms = elapsed_ms - rule.window_ms,
            .previous = entry.counts.b,
            .current = 0,
        };
    }

    inline fn used(state: State, rule: Rule) u128 {
        const left_ms = rule.window_ms -| state.elapsed_ms;
        return wide(state.previous) * left_ms + wide(state.current) * rule.window_ms;
    }
};

inline fn wide(value: u64) u128 {
    return value;
}

/// The limit in requests times milliseconds; a little more where the estimate is rounded down.
inline fn allowance(rule: Rule) u128 {
    const rounding_ms = if (rule.algorithm == .sliding_window_floor) rule.window_ms - 1 else 0;
    return wide(rule.limit) * rule.window_ms + rounding_ms;
}

pub inline fn take(rule: Rule, entry: Entry, now_ms: u64, cost: u32) ?Entry {
    const state = State.at(rule, entry, now_ms);
    if (state.used(rule) + wide(cost) * rule.window_ms > allowance(rule)) return null;
    return .{
        .expires_ms = state.start_ms +| 2 * rule.window_ms,
        .counts = .of(state.previous, state.current + cost),
    };
}

/// Takes back what `take` counted in the window of which nothing weighs from `until_ms` on: from
/// that window's count, which is one of the two here, or is gone.
pub fn giveBack(rule: Rule, entry: Entry, until_ms: u64, cost: u32) Entry {
    const windows_since = (entry.expires_ms -| until_ms) / rule.window_ms;
    const counted = entry.counts;
    return .{ .expires_ms = entry.expires_ms, .counts = switch (windows_since) {
        0 => .{ .a = counted.a, .b = counted.b -| cost },
        1 => .{ .a = counted.a -| cost, .b = counted.b },
        else => counted,
    } };
}

pub fn describe(rule: Rule, entry: Entry, now_ms: u64, cost: u32) Decision {
    const state = State.at(rule, entry, now_ms);
    const free = allowance(rule) -| state.used(rule);
    const fits = wide(cost) * rule.window_ms <= free;
    return .{
        .limit = rule.limit,
        .remaining = @intCast(@min(free / rule.window_ms, rule.limit)),
        .retry_after_ms = if (fits) 0 else retryAt(rule, state, cost) -| now_ms,
        .reset_after_ms = resetAt(rule, state) -| now_ms,
    };
}

/// The first millisecond at which a request of `cost`, refused now, passes.
fn retryAt(rule: Rule, state: State, cost: u32) u64 {
    const allowed = allowance(rule);
    const needed_now = (wide(state.current) + cost) * rule.window_ms;
    if (needed_now <= allowed)
        return state.start_ms +| fadedAfter(rule, state.previous, allowed - needed_now);
    const needed_next = wide(cost) * rule.window_ms;
    const wait_ms = fadedAfter(rule, state.current, allowed -| needed_next);
    return state.start_ms +| rule.window_ms +| wait_ms;
}

/// How far into a window the count of the one before weighs no more than `budget`.
fn fadedAfter(rule: Rule, count: u32, budget: u128) u64 {
    if (count == 0) return 0;
    const left_ms = @min(budget / count, rule.window_ms);
    return rule.window_ms - @as(u64, @intCast(left_ms));
}

fn resetAt(rule: Rule, state: State) u64 {
    if (state.current > 0) return state.start_ms +| 2 * rule.window_ms;
    if (state.previous > 0) return state.start_ms +| rule.window_ms;
    return 0;
}

/// The two counters as they stand, and when each stops counting. Laid out as
/// `ratelimit_window_counts` in plue_ratelimit.h.
pub const Counts = extern struct {
    previous: u32,
    current: u32,
    previous_left_ms: u64,
    current_left_ms: u64,
};

pub fn counts(rule: Rule, entry: Entry, now_ms: u64) Counts {
    const state = State.at(rule, entry, now_ms);
    const left_ms = rule.window_ms -| state.elapsed_ms;
    return .{
        .previous = state.previous,
        .current = state.current,
        .previous_left_ms = if (state.previous == 0) 0 else left_ms,
        .current_left_ms = if (state.current == 0) 0 else left_ms +| rule.window_ms,
    };
}
