//! What a limit is, what a key's state is, and what a check answers. The arithmetic of each
//! algorithm stands in a file of its own; all of it is pure: no clock, no table, no allocation.
const std = @import("std");
const fixed_window = @import("fixed_window.zig");
const sliding_window = @import("sliding_window.zig");
const gcra = @import("gcra.zig");

/// Windows are cut to this (36 million years), so that sums of times cannot overflow.
pub const max_window_ms: u64 = 1 << 60;
/// `retry_after_ms` when no wait would help: the cost exceeds the limit.
pub const never_ms: u64 = std.math.maxInt(u64);

pub const Algorithm = enum(u8) {
    /// Two counters, the older weighted by how much of it is still inside the window.
    sliding_window = 0,
    /// Generic cell rate algorithm: a token bucket of `limit` tokens, refilled evenly.
    gcra = 1,
    /// One counter that starts with a key's first request.
    fixed_window = 2,
    /// `sliding_window` with the estimate rounded down, as the Python library limits counts.
    sliding_window_floor = 3,
};

pub const Rule = struct {
    algorithm: Algorithm = .sliding_window,
    /// Requests per window; 0 refuses all.
    limit: u32,
    /// More than 0.
    window_ms: u64,

    pub fn init(algorithm: Algorithm, limit: u32, window_ms: u64) error{ZeroWindow}!Rule {
        if (window_ms == 0) return error.ZeroWindow;
        const capped_ms = @min(window_ms, max_window_ms);
        return .{ .algorithm = algorithm, .limit = limit, .window_ms = capped_ms };
    }

    /// The state after a request of `cost` at `now_ms`, or null when it is refused. A refusal
    /// changes nothing: it is not counted.
    pub inline fn take(rule: Rule, entry: Entry, now_ms: u64, cost: u32) ?Entry {
        std.debug.assert(cost > 0);
        if (cost > rule.limit) return null;
        return switch (rule.algorithm) {
            .sliding_window,
            .sliding_window_floor,
            => sliding_window.take(rule, entry, now_ms, cost),
            .gcra => gcra.take(rule, entry, now_ms, cost),
            .fixed_window => fixed_window.take(rule, entry, now_ms, cost),
        };
    }

    /// The state without a request of `cost` that passed before. `until_ms` is the `expires_ms`
    /// that it left behind, or less than a window earlier; `never_ms` for one that came just now.
    /// No more is given back than was counted in what still counts.
    pub fn giveBack(rule: Rule, entry: Entry, until_ms: u64, cost: u32) Entry {
        return switch (rule.algorithm) {
            .sliding_window,
            .sliding_window_floor,
            => sliding_window.giveBack(rule, entry, until_ms, cost),
            .gcra => gcra.giveBack(rule, entry, until_ms, cost),
            .fixed_window => fixed_window.giveBack(rule, entry, until_ms, cost),
        };
    }

    /// What a caller may know about `entry` at `now_ms`: `allowed` says whether `take` would pass.
    pub fn describe(rule: Rule, entry: Entry, now_ms: u64, cost: u32) Decision {
        std.debug.assert(cost > 0);
        var decision = switch (rule.algorithm) {
            .sliding_window,
            .sliding_window_floor,
            => sliding_window.describe(rule, entry, now_ms, cost),
            .gcra => gcra.describe(rule, entry, now_ms, cost),
            .fixed_window => fixed_window.describe(rule, entry, now_ms, cost),
        };
        if (cost > rule.limit) decision.retry_after_ms = never_ms;
        decision.allowed = @intFromBool(decision.retry_after_ms == 0);
        return decision;
    }
};

/// The state of one key, the same 16 bytes for every algorithm. It says by itself when it is dead,
/// so that a table can be swept without knowing the rules of its entries.
pub const Entry = extern struct {
    /// From this time on the entry says nothing that its absence would not say.
    expires_ms: u64,
    counts: Counts,

    /// One aligned word: a store of it cannot be torn by a kill.
    pub const Counts = packed struct(u64) {
        a: u32 = 0,
        b: u32 = 0,

        /// Made as one word: written as two halves and then read as one, as a literal is, it
        /// costs the processor a third of a check.
        pub inline fn of(a: u32, b: u32) Counts {
            return @bitCast(@as(u64, b) << 32 | a);
        }
    };

    pub const none: Entry = .{ .expires_ms = 0, .counts = .{} };

    pub inline fn isDead(entry: Entry, now_ms: u64) bool {
        return now_ms >= entry.expires_ms;
    }
};

/// Laid out as `ratelimit_decision` in plue_ratelimit.h.
pub const Decision = extern struct {
    allowed: u32 = 0,
    limit: u32 = 0,
    remaining: u32 = 0,
    /// 1 when the table was full and the key unknown; the answer is then the policy's, not the
    /// key's.
    table_full: u32 = 0,
    /// 0 when allowed; the same request passes at that time, and not a millisecond earlier, if
    /// nothing else is counted until then.
    retry_after_ms: u64 = 0,
    /// Until the whole limit is available again.
    reset_after_ms: u64 = 0,
};
