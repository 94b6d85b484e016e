//! A rate limiter: one rule, a table of keys, and what to do when the table is full. Safe to use
//! from several threads. The time is a parameter, in milliseconds of a clock that does not step;
//! where it steps back all the same, nothing is granted and a key's window is held still until the
//! clock catches up.
const std = @import("std");
const key_hash = @import("key_hash.zig");
const Fingerprint = key_hash.Fingerprint;
const racy = @import("racy.zig");
const rule_ = @import("rule.zig");
const Rule = rule_.Rule;
const Entry = rule_.Entry;
const Decision = rule_.Decision;
const Log = @import("moving_window.zig").Log;
const sliding_window = @import("sliding_window.zig");
const Table = @import("table.zig").Table;

pub const max_key_bytes = key_hash.max_key_bytes;

/// What happens to a key that is not in the table when the table is full of live entries. An entry
/// in the table is never given up for another.
pub const WhenFull = enum(u8) {
    /// The request is refused.
    deny = 0,
    /// All such keys share one count under the same rule, be it the limiter's or the caller's.
    overflow = 1,
    /// The request passes uncounted: the one policy under which a flood opens the limiter.
    allow = 2,
};

pub const Error = error{ Closed, KeyTooLong, ZeroCost };

pub const Limiter = struct {
    table: Table = .{},
    rule: Rule = undefined,
    when_full: WhenFull = .deny,
    /// Of this limiter's keys; where limiters share a table, each rule has its own.
    salt: Fingerprint = .{ .lo = 0, .hi = 0 },
    /// Each rule's shared count is derived from it.
    overflow: Fingerprint = undefined,
    /// Of keys whose rule comes with the call, by algorithm, and last that of logs.
    rule_salts: [rule_salt_count]Fingerprint = undefined,

    const rule_salt_count = 5;
    const log_salt = rule_salt_count - 1;

    /// To be called once the table is open. `shared`: other rules may use the same table.
    pub fn init(limiter: *Limiter, rule: Rule, when_full: WhenFull, shared: bool) void {
        const hasher = &limiter.table.hasher;
        var salt: Fingerprint = .{ .lo = 0, .hi = 0 };
        if (shared) {
            var name: [64]u8 = undefined;
            salt = hasher.salt(std.fmt.bufPrint(&name, "rule {t} {d} {d}", .{
                rule.algorithm, rule.limit, rule.window_ms,
            }) catch unreachable); // 18 + 21 + 10 + 20 bytes are the most.
        }
        racy.store(&limiter.rule, rule);
        racy.store(&limiter.when_full, when_full);
        racy.store(&limiter.salt, salt);
        racy.store(&limiter.overflow, hasher.salt("overflow").salted(salt));
        for (&limiter.rule_salts, 0..) |*rule_salt, i|
            racy.store(rule_salt, hasher.salt(&.{ 's', 'a', 'l', 't', @intCast(i) }));
    }

    pub inline fn windowMs(limiter: *const Limiter) u64 {
        return racy.load(&limiter.rule.window_ms);
    }

    /// Whether a request of `cost` passes; if so it is counted.
    pub inline fn check(
        limiter: *Limiter,
        epoch: u32,
        key: []const u8,
        cost: u32,
        now_ms: u64,
    ) Error!bool {
        const fp = try limiter.fingerprint(key, cost);
        return limiter.checkPrint(epoch, fp, cost, now_ms);
    }

    inline fn checkPrint(
        limiter: *Limiter,
        epoch: u32,
        fp: Fingerprint,
        cost: u32,
        now_ms: u64,
    ) Error!bool {
        const place = try limiter.table.acquire(epoch, fp, now_ms);
        const slot = place.shard.find(fp) orelse {
            limiter.table.release(place);
            const rule = racy.load(&limiter.rule);
            const decision = try limiter.hitPrint(rule, epoch, fp, cost, now_ms);
            return decision.allowed != 0;
        };
        defer limiter.table.release(place);
        const after = limiter.rule.take(slot.entry, now_ms, cost) orelse return false;
        place.shard.update(slot, after);
        return true;
    }

    /// As `check`, with the state after it.
    pub fn hit(
        limiter: *Limiter,
        epoch: u32,
        key: []const u8,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        const fp = try limiter.fingerprint(key, cost);
        return limiter.hitPrint(racy.load(&limiter.rule), epoch, fp, cost, now_ms);
    }

    /// `check` for keys whose fingerprints are known: 1 for each that passes, else 0. Returns how
    /// many pass. Keys of one shard that follow each other are checked under one lock.
    pub fn checkPrints(
        limiter: *Limiter,
        epoch: u32,
        prints: []const Fingerprint,
        cost: u32,
        now_ms: u64,
        verdicts: []u8,
    ) Error!u32 {
        var passed: u32 = 0;
        var held: ?*Table.Place = null;
        defer if (held) |place| limiter.table.release(place);
        for (prints, verdicts) |fp, *verdict| {
            const place = limiter.table.placeOf(fp);
            if (held != place) {
                if (held) |other| limiter.table.release(other);
                held = null;
                held = try limiter.table.acquire(epoch, fp, now_ms);
            }
            verdict.* = 0;
            if (place.shard.find(fp)) |slot| {
                const after = limiter.rule.take(slot.entry, now_ms, cost) orelse continue;
                place.shard.update(slot, after);
                verdict.* = 1;
            } else {
                limiter.table.release(place);
                held = null;
                const rule = racy.load(&limiter.rule);
                const decision = try limiter.hitPrint(rule, epoch, fp, cost, now_ms);
                verdict.* = @intFromBool(decision.allowed != 0);
            }
            passed += verdict.*;
        }
        return passed;
    }

    /// As `hit`, counting nothing: would a request of `cost` pass?
    pub fn peek(
        limiter: *Limiter,
        epoch: u32,
        key: []const u8,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        const fp = try limiter.fingerprint(key, cost);
        return limiter.peekPrint(racy.load(&limiter.rule), epoch, fp, cost, now_ms);
    }

    /// As `hit` under a rule of the caller's; keys of different algorithms do not meet.
    pub fn hitRule(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        key: []const u8,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        const fp = try limiter.rulePrint(@intFromEnum(rule.algorithm), key, cost);
        return limiter.hitPrint(rule, epoch, fp, cost, now_ms);
    }

    pub fn peekRule(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        key: []const u8,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        const fp = try limiter.rulePrint(@intFromEnum(rule.algorithm), key, cost);
        return limiter.peekPrint(rule, epoch, fp, cost, now_ms);
    }

    /// The two counters of a `sliding_window_floor` key.
    pub fn windowCounts(
        limiter: *Limiter,
        window_ms: u64,
        epoch: u32,
        key: []const u8,
        now_ms: u64,
    ) Error!sliding_window.Counts {
        const algorithm: rule_.Algorithm = .sliding_window_floor;
        const fp = try limiter.rulePrint(@intFromEnum(algorithm), key, 1);
        const place = try limiter.table.acquire(epoch, fp, now_ms);
        defer limiter.table.release(place);
        const entry = if (place.shard.find(fp)) |slot| slot.entry else Entry.none;
        const rule: Rule = .{ .algorithm = algorithm, .limit = 1, .window_ms = window_ms };
        return sliding_window.counts(rule, entry, now_ms);
    }

    /// Counts in the exact log of a key; see moving_window.zig.
    pub fn logHit(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        key: []const u8,
        cost: u32,
        now_ms: u64,
    ) Error!bool {
        const fp = try limiter.rulePrint(log_salt, key, cost);
        const log = try limiter.openLog(rule, epoch, fp, now_ms);
        defer limiter.table.release(log.place);
        return log.take(cost) catch |err| switch (err) {
            error.Full => racy.load(&limiter.when_full) == .allow,
        };
    }

    pub fn logRead(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        key: []const u8,
        now_ms: u64,
    ) Error!Log.Content {
        const fp = try limiter.rulePrint(log_salt, key, 1);
        const log = try limiter.openLog(rule, epoch, fp, now_ms);
        defer limiter.table.release(log.place);
        return log.read();
    }

    fn openLog(limiter: *Limiter, rule: Rule, epoch: u32, fp: Fingerprint, now_ms: u64) Error!Log {
        return .{
            .table = &limiter.table,
            .place = try limiter.table.acquire(epoch, fp, now_ms),
            .fp = fp,
            .limit = rule.limit,
            .window_ms = rule.window_ms,
            .now_ms = now_ms,
        };
    }

    /// Takes back a request that passed, as if it had not been made; see `Rule.giveBack`.
    pub fn refund(
        limiter: *Limiter,
        epoch: u32,
        key: []const u8,
        cost: u32,
        until_ms: u64,
    ) Error!void {
        const fp = try limiter.fingerprint(key, cost);
        // The time makes no difference, and at 0 nobody's entry is dead.
        const place = try limiter.table.acquire(epoch, fp, 0);
        defer limiter.table.release(place);
        const slot = place.shard.find(fp) orelse return;
        place.shard.update(slot, limiter.rule.giveBack(slot.entry, until_ms, cost));
    }

    /// Forgets the key, under every rule.
    pub fn reset(limiter: *Limiter, epoch: u32, key: []const u8, now_ms: u64) Error!void {
        const fp = try limiter.fingerprint(key, 1);
        try limiter.forget(epoch, fp, now_ms);
        for (0..rule_salt_count) |i|
            try limiter.forget(epoch, try limiter.rulePrint(i, key, 1), now_ms);
    }

    fn forget(limiter: *Limiter, epoch: u32, fp: Fingerprint, now_ms: u64) Error!void {
        const place = try limiter.table.acquire(epoch, fp, now_ms);
        defer limiter.table.release(place);
        if (place.shard.find(fp)) |slot| place.shard.erase(slot);
    }

    fn peekPrint(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        fp: Fingerprint,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        const place = try limiter.table.acquire(epoch, fp, now_ms);
        defer limiter.table.release(place);
        const entry = if (place.shard.find(fp)) |slot| slot.entry else Entry.none;
        return rule.describe(entry, now_ms, cost);
    }

    fn hitPrint(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        fp: Fingerprint,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        return limiter.hitStored(rule, epoch, fp, cost, now_ms, false) catch |err| switch (err) {
            error.Closed => error.Closed,
            error.Full => limiter.hitFull(rule, epoch, fp, cost, now_ms),
        };
    }

    fn hitFull(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        fp: Fingerprint,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        @branchHint(.cold);
        if (try limiter.table.sweepElsewhere(epoch, now_ms)) {
            const second = limiter.hitStored(rule, epoch, fp, cost, now_ms, false);
            return second catch |err| switch (err) {
                error.Closed => error.Closed,
                error.Full => limiter.hitByPolicy(rule, epoch, fp, cost, now_ms),
            };
        }
        return limiter.hitByPolicy(rule, epoch, fp, cost, now_ms);
    }

    fn hitStored(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        fp: Fingerprint,
        cost: u32,
        now_ms: u64,
        over_quota: bool,
    ) error{ Closed, Full }!Decision {
        const place = try limiter.table.acquire(epoch, fp, now_ms);
        defer limiter.table.release(place);
        const slot = place.shard.find(fp);
        const entry = if (slot) |found| found.entry else Entry.none;
        const after = rule.take(entry, now_ms, cost) orelse
            return rule.describe(entry, now_ms, cost);
        if (slot) |found| {
            place.shard.update(found, after);
        } else {
            try place.shard.insert(fp, after, now_ms, over_quota);
        }
        var decision = rule.describe(after, now_ms, 1);
        decision.allowed = 1;
        decision.retry_after_ms = 0;
        return decision;
    }

    fn hitByPolicy(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        fp: Fingerprint,
        cost: u32,
        now_ms: u64,
    ) Error!Decision {
        var decision: Decision = switch (racy.load(&limiter.when_full)) {
            .deny => .{
                .limit = rule.limit,
                .retry_after_ms = try limiter.placeFreeIn(rule, epoch, fp, now_ms),
                .reset_after_ms = rule.window_ms,
            },
            .overflow => overflow: {
                const shared = limiter.overflowPrint(rule);
                const hit_shared = limiter.hitStored(rule, epoch, shared, cost, now_ms, true);
                break :overflow hit_shared catch |err| switch (err) {
                    error.Closed => return error.Closed,
                    // Not even room for the one shared entry: refuse.
                    error.Full => .{ .limit = rule.limit, .retry_after_ms = rule.window_ms },
                };
            },
            .allow => .{ .allowed = 1, .limit = rule.limit, .remaining = rule.limit },
        };
        decision.table_full = 1;
        return decision;
    }

    /// In that time one of the places this key may take is free for it, or, where nobody is in
    /// them, some other entry has expired.
    fn placeFreeIn(
        limiter: *Limiter,
        rule: Rule,
        epoch: u32,
        fp: Fingerprint,
        now_ms: u64,
    ) Error!u64 {
        const place = try limiter.table.acquire(epoch, fp, now_ms);
        defer limiter.table.release(place);
        const free_ms = place.shard.freeAt(fp) orelse return rule.window_ms;
        return @max(1, free_ms -| now_ms);
    }

    pub inline fn fingerprint(limiter: *Limiter, key: []const u8, cost: u32) Error!Fingerprint {
        if (key.len > max_key_bytes) return error.KeyTooLong;
        if (cost == 0) return error.ZeroCost;
        return limiter.table.hasher.hash(key).salted(racy.load(&limiter.salt));
    }

    /// Entries of other windows and algorithms are no counts of this rule.
    fn overflowPrint(limiter: *Limiter, rule: Rule) Fingerprint {
        const hasher = &limiter.table.hasher;
        const kind = @as(u64, @intFromEnum(rule.algorithm)) << 32 | rule.limit;
        const of_kind = hasher.derive(racy.load(&limiter.overflow), kind, 0);
        return hasher.derive(of_kind, rule.window_ms, 0);
    }

    fn rulePrint(limiter: *Limiter, salt: usize, key: []const u8, cost: u32) Error!Fingerprint {
        if (key.len > max_key_bytes) return error.KeyTooLong;
        if (cost == 0) return error.ZeroCost;
        return limiter.table.hasher.hash(key).salted(racy.load(&limiter.rule_salts[salt]));
    }
};
