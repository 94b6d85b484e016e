//! One counter per key. The window opens with the key's first request, not on the clock's minute,
//! so that clients do not all come back in the same second.
//! Entry: `expires_ms` is the window's end, `a` the count.
const rule_ = @import("rule.zig");
const Rule = rule_.Rule;
const Entry = rule_.Entry;
const Decision = rule_.Decision;

pub inline fn take(rule: Rule, entry: Entry, now_ms: u64, cost: u32) ?Entry {
    if (entry.isDead(now_ms)) return .{
        .expires_ms = now_ms +| rule.window_ms,
        .counts = .of(cost, 0),
    };
    const count = entry.counts.a;
    if (count > rule.limit - cost) return null;
    return .{ .expires_ms = entry.expires_ms, .counts = .of(count + cost, 0) };
}

/// Takes back what `take` counted in the window that ended at `until_ms`, if it is this one: the
/// next ends a window later at least.
pub fn giveBack(rule: Rule, entry: Entry, until_ms: u64, cost: u32) Entry {
    if (entry.expires_ms -| until_ms >= rule.window_ms) return entry;
    return .{ .expires_ms = entry.expires_ms, .counts = .{ .a = entry.counts.a -| cost } };
}

pub fn describe(rule: Rule, entry: Entry, now_ms: u64, cost: u32) Decision {
    if (entry.isDead(now_ms)) return .{ .limit = rule.limit, .remaining = rule.limit };
    const remaining = rule.limit -| entry.counts.a;
    const left_ms = entry.expires_ms - now_ms;
    return .{
        .limit = rule.limit,
        .remaining = remaining,
        .retry_after_ms = if (cost <= remaining) 0 else left_ms,
        .reset_after_ms = left_ms,
    };
}
