//! The limiter as a whole: against plain models, at its edges, in floods, from several threads.
const std = @import("std");
const testing = std.testing;
const rule_ = @import("rule.zig");
const Rule = rule_.Rule;
const Algorithm = rule_.Algorithm;
const Limiter = @import("limiter.zig").Limiter;
const WhenFull = @import("limiter.zig").WhenFull;

const epoch = 7;

fn open(rule: Rule, max_keys: u32, when_full: WhenFull) !*Limiter {
    const limiter = try testing.allocator.create(Limiter);
    limiter.* = .{};
    limiter.table.openPrivate(epoch, testing.allocator, @splat(3), max_keys);
    limiter.init(rule, when_full, false);
    return limiter;
}

fn close(limiter: *Limiter) void {
    limiter.table.close();
    testing.allocator.destroy(limiter);
}

/// The sliding window in rational numbers over `window_ms`, with nothing but additions.
const Model = struct {
    limit: i64,
    window: i64,
    start: ?i64 = null,
    previous: i64 = 0,
    current: i64 = 0,

    fn at(model: Model, now: i64) Model {
        var moved = model;
        const start = model.start orelse return .{
            .limit = model.limit,
            .window = model.window,
            .start = now,
        };
        if (now >= start + 2 * model.window) {
            moved = .{ .limit = model.limit, .window = model.window, .start = now };
        } else if (now >= start + model.window) {
            moved.start = start + model.window;
            moved.previous = model.current;
            moved.current = 0;
        }
        return moved;
    }

    fn passes(model: Model, now: i64, cost: i64) bool {
        const state = model.at(now);
        const gone = @max(0, now - state.start.?);
        const used = state.previous * (state.window - gone) + state.current * state.window;
        return used + cost * state.window <= state.limit * state.window;
    }

    fn hit(model: *Model, now: i64, cost: i64) bool {
        if (!model.passes(now, cost)) return false;
        model.* = model.at(now);
        model.current += cost;
        return true;
    }
};

test "the sliding window agrees with its model over random schedules" {
    var prng = std.Random.DefaultPrng.init(20);
    const random = prng.random();
    for (0..400) |_| {
        const limit = random.intRangeAtMost(u32, 0, 9);
        const window = random.intRangeAtMost(u32, 1, 60);
        const limiter = try open(try Rule.init(.sliding_window, limit, window), 8, .deny);
        defer close(limiter);
        var model: Model = .{ .limit = limit, .window = window };
        var now: i64 = 1000;
        for (0..100) |_| {
            now += random.intRangeAtMost(i64, -2, 20);
            const cost = random.intRangeAtMost(u32, 1, 3);
            const passed = try limiter.hit(epoch, "key", cost, @intCast(now));
            try testing.expectEqual(model.hit(now, cost), passed.allowed == 1);
            if (passed.allowed == 1 or passed.retry_after_ms == rule_.never_ms) continue;
            const wait: i64 = @intCast(passed.retry_after_ms);
            try testing.expect(model.passes(now + wait, cost));
            try testing.expect(!model.passes(now + wait - 1, cost));
        }
    }
}

test "every algorithm says honestly when to come again" {
    var prng = std.Random.DefaultPrng.init(21);
    const random = prng.random();
    for (std.enums.values(Algorithm)) |algorithm| for (0..200) |_| {
        const limit = random.intRangeAtMost(u32, 1, 9);
        const rule = try Rule.init(algorithm, limit, random.intRangeAtMost(u64, 1, 90));
        var entry: rule_.Entry = .none;
        var now: u64 = 500;
        for (0..80) |_| {
            now += random.uintLessThan(u64, 25);
            const cost = random.intRangeAtMost(u32, 1, rule.limit);
            const said = rule.describe(entry, now, cost);
            const taken = rule.take(entry, now, cost);
            try testing.expectEqual(taken != null, said.allowed == 1);
            if (taken) |after| {
                entry = after;
                continue;
            }
            try testing.expect(rule.take(entry, now + said.retry_after_ms - 1, cost) == null);
            try testing.expect(rule.take(entry, now + said.retry_after_ms, cost) != null);
        }
    };
}

test "what is given back leaves the limit as it was" {
    for (std.enums.values(Algorithm)) |algorithm| {
        const rule = try Rule.init(algorithm, 7, 1000);
        const first = rule.take(.none, 100, 3).?;
        const second = rule.take(first, 150, 4).?;
        const returned = rule.giveBack(second, second.expires_ms, 4);
        try testing.expectEqual(
            rule.describe(first, 160, 1).remaining,
            rule.describe(returned, 160, 1).remaining,
        );
        const nothing = rule.giveBack(second, rule_.never_ms, 99);
        try testing.expectEqual(7, rule.describe(nothing, 160, 1).remaining);
    }
}

test "what is given back late comes from nobody else's window" {
    const fixed = try Rule.init(.fixed_window, 7, 1000);
    const early = fixed.take(.none, 100, 3).?;
    const next = fixed.take(early, 1100, 5).?;
    try testing.expectEqual(next, fixed.giveBack(next, early.expires_ms, 3));

    const sliding = try Rule.init(.sliding_window, 9, 1000);
    const first = sliding.take(.none, 100, 3).?;
    const second = sliding.take(first, 1100, 4).?;
    const expected: rule_.Entry.Counts = .{ .a = 0, .b = 4 };
    try testing.expectEqual(expected, sliding.giveBack(second, first.expires_ms, 3).counts);
    const third = sliding.take(second, 2100, 2).?;
    try testing.expectEqual(third, sliding.giveBack(third, first.expires_ms, 3));
    const much_later = sliding.take(third, 9000, 2).?;
    try testing.expectEqual(much_later, sliding.giveBack(much_later, third.expires_ms, 2));

    // One request in 100 ms drains.
    const bucket = try Rule.init(.gcra, 10, 1000);
    const drained = bucket.take(.none, 100, 2).?;
    const after = bucket.take(drained, 400, 5).?;
    try testing.expectEqual(after, bucket.giveBack(after, drained.expires_ms, 2));
    const half = bucket.take(drained, 250, 5).?;
    const without = bucket.take(.none, 250, 5).?;
    try testing.expectEqual(without, bucket.giveBack(half, drained.expires_ms, 2));
}

test "extremes of every number are answered" {
    const extremes = [_]u64{ 0, 1, 2, std.math.maxInt(u32), 1 << 60, std.math.maxInt(u64) };
    for (std.enums.values(Algorithm)) |algorithm| for (extremes) |limit| for (extremes) |window| {
        if (window == 0) {
            try testing.expectError(error.ZeroWindow, Rule.init(algorithm, 1, 0));
            continue;
        }
        const rule = try Rule.init(algorithm, @truncate(limit), window);
        for (extremes) |now| for (extremes) |later| for (extremes[1..]) |cost| {
            if (@as(u32, @truncate(cost)) == 0) continue;
            const entry = rule.take(.none, now, @truncate(cost)) orelse continue;
            _ = rule.take(entry, later, @truncate(cost));
            _ = rule.giveBack(entry, later, @truncate(cost));
            _ = rule.giveBack(entry, rule_.never_ms, @truncate(cost));
            const said = rule.describe(entry, later, @truncate(cost));
            try testing.expect(said.remaining <= rule.limit);
        };
    };
}

test "growing keeps every key's count, and no key is found under another's name" {
    const limiter = try open(try Rule.init(.fixed_window, 1000, 1 << 40), 40_000, .deny);
    defer close(limiter);
    var buffer: [16]u8 = undefined;
    for (0..40_000) |i| {
        const key = try std.fmt.bufPrint(&buffer, "k{d}", .{i});
        const cost: u32 = @intCast(i % 900 + 1);
        try testing.expect(try limiter.check(epoch, key, cost, 5));
    }
    for (0..40_000) |i| {
        const key = try std.fmt.bufPrint(&buffer, "k{d}", .{i});
        const said = try limiter.peek(epoch, key, 1, 6);
        try testing.expectEqual(1000 - (i % 900 + 1), said.remaining);
    }
    try testing.expectEqual(40_000, try limiter.table.count(epoch));
    try testing.expect(!try limiter.check(epoch, "one more", 1, 6));
    const bytes = try limiter.table.slotBytes(epoch);
    try testing.expect(bytes <= 64 * 40_000);
    try testing.expectEqual(40_000, try limiter.table.cleanup(epoch, 1 << 50));
    try testing.expectEqual(0, try limiter.table.count(epoch));
    try testing.expect(try limiter.table.slotBytes(epoch) < bytes / 8);
}

test "a key at its limit stays refused while others flood the table" {
    const limiter = try open(try Rule.init(.sliding_window, 3, 1000), 500, .deny);
    defer close(limiter);
    for (0..3) |_| try testing.expect(try limiter.check(epoch, "victim", 1, 0));
    var buffer: [16]u8 = undefined;
    for (0..50_000) |i| {
        const key = try std.fmt.bufPrint(&buffer, "{d}", .{i});
        _ = try limiter.check(epoch, key, 1, i / 100);
        if (i % 50 == 0) try testing.expect(!try limiter.check(epoch, "victim", 1, i / 100));
        try testing.expect(limiter.table.total.load(.monotonic) <= 500);
    }
}

test "in a full table each rule has an overflow of its own" {
    const rule = try Rule.init(.fixed_window, 1, 1000);
    const limiter = try open(rule, 50, .overflow);
    defer close(limiter);
    var buffer: [16]u8 = undefined;
    for (0..50) |i| {
        const key = try std.fmt.bufPrint(&buffer, "{d}", .{i});
        _ = try limiter.hitRule(try Rule.init(.gcra, 1, 1 << 40), epoch, key, 1, 0);
    }
    const hour = try Rule.init(.fixed_window, 5, 3_600_000);
    const moment = try Rule.init(.fixed_window, 5, 300);
    const more = try Rule.init(.fixed_window, 6, 3_600_000);
    const other = try Rule.init(.sliding_window, 5, 3_600_000);
    for (0..8) |i| {
        const now_ms = i * 400;
        try testing.expect((try limiter.hitRule(moment, epoch, "x", 1, now_ms)).allowed == 1);
        const hourly = try limiter.hitRule(hour, epoch, "x", 1, now_ms);
        try testing.expectEqual(@intFromBool(i < 5), hourly.allowed);
        const of_six = try limiter.hitRule(more, epoch, "x", 1, now_ms);
        try testing.expectEqual(@intFromBool(i < 6), of_six.allowed);
        const sliding = try limiter.hitRule(other, epoch, "x", 1, now_ms);
        try testing.expectEqual(@intFromBool(i < 5), sliding.allowed);
    }
}

test "no key is the overflow's" {
    const limiter = try open(try Rule.init(.fixed_window, 1, 1000), 1, .overflow);
    defer close(limiter);
    try testing.expect(try limiter.check(epoch, "overflow", 1, 0));
    try testing.expect(try limiter.check(epoch, "newcomer", 1, 0));
    try testing.expect(!try limiter.check(epoch, "another", 1, 0));
    try limiter.reset(epoch, "overflow", 0);
    try testing.expect(!try limiter.check(epoch, "another", 1, 0));
}

test "keys that expire make room, without a pause to look for them" {
    const limiter = try open(try Rule.init(.fixed_window, 1, 10), 300, .deny);
    defer close(limiter);
    var buffer: [16]u8 = undefined;
    var refused: u32 = 0;
    for (0..30_000) |i| {
        const key = try std.fmt.bufPrint(&buffer, "{d}", .{i});
        // 20 new keys a millisecond: 200 are alive.
        if (!try limiter.check(epoch, key, 1, i / 20)) refused += 1;
    }
    try testing.expectEqual(0, refused);
}

test "no memory is a refusal of new keys, not of known ones" {
    var failing = testing.FailingAllocator.init(testing.allocator, .{ .fail_index = 3 });
    const limiter = try testing.allocator.create(Limiter);
    defer testing.allocator.destroy(limiter);
    limiter.* = .{};
    limiter.table.openPrivate(epoch, failing.allocator(), @splat(3), 1000);
    limiter.init(try Rule.init(.fixed_window, 100, 1000), .deny, false);
    defer limiter.table.close();
    var passed: u32 = 0;
    var buffer: [16]u8 = undefined;
    for (0..200) |i| {
        const key = try std.fmt.bufPrint(&buffer, "{d}", .{i});
        passed += @intFromBool(try limiter.check(epoch, key, 1, 1));
    }
    try testing.expect(passed > 0 and passed < 200);
    var again: u32 = 0;
    for (0..200) |i| {
        const key = try std.fmt.bufPrint(&buffer, "{d}", .{i});
        again += @intFromBool(try limiter.check(epoch, key, 1, 2));
    }
    try testing.expectEqual(passed, again);
}

test "the exact log counts what is inside the window, and only that" {
    const rule = try Rule.init(.sliding_window, 5, 100);
    const limiter = try open(rule, 200, .deny);
    defer close(limiter);
    var times: std.ArrayList(u64) = .empty;
    defer times.deinit(testing.allocator);
    var prng = std.Random.DefaultPrng.init(22);
    var now: u64 = 1000;
    for (0..3000) |_| {
        now += prng.random().uintLessThan(u64, 40);
        const cost = prng.random().intRangeAtMost(u32, 1, 3);
        while (times.items.len > 0 and times.items[0] + 100 <= now) _ = times.orderedRemove(0);
        const expected = times.items.len + cost <= 5;
        const content = try limiter.logRead(rule, epoch, "key", now);
        try testing.expectEqual(times.items.len, content.used);
        if (times.items.len > 0) try testing.expectEqual(now - times.items[0], content.age_ms);
        try testing.expectEqual(expected, try limiter.logHit(rule, epoch, "key", cost, now));
        if (expected) try times.appendNTimes(testing.allocator, now, cost);
        if (prng.random().uintLessThan(u32, 200) == 0) {
            try limiter.reset(epoch, "key", now);
            times.clearRetainingCapacity();
        }
    }
}

test "threads on one key and on their own never pass more than the limit" {
    const Work = struct {
        limiter: *Limiter,
        name: []const u8,
        shared: u32 = 0,
        own: u32 = 0,

        fn run(work: *@This()) void {
            for (0..2000) |i| {
                // Closed never happens here; it would show in the sums.
                const one = work.limiter.check(epoch, "one", 1, 10) catch false;
                const own = work.limiter.check(epoch, work.name, 1, 10) catch false;
                work.shared += @intFromBool(one);
                work.own += @intFromBool(own);
                if (i % 100 == 0) {
                    work.limiter.reset(epoch, "other", 10) catch {}; // as above
                    _ = work.limiter.table.cleanup(epoch, 10) catch 0;
                    _ = work.limiter.peek(epoch, "one", 1, 10) catch rule_.Decision{};
                }
            }
        }
    };
    const limiter = try open(try Rule.init(.fixed_window, 2500, 1000), 100, .deny);
    defer close(limiter);
    const names = [_][]const u8{ "a", "b", "c", "d", "e", "f", "g", "h" };
    var work: [names.len]Work = undefined;
    var threads: [names.len]std.Thread = undefined;
    for (&work, &threads, names) |*each, *thread, name| {
        each.* = .{ .limiter = limiter, .name = name };
        thread.* = try std.Thread.spawn(.{}, Work.run, .{each});
    }
    for (threads) |thread| thread.join();
    var passed: u32 = 0;
    for (work) |each| {
        passed += each.shared;
        try testing.expectEqual(2000, each.own);
    }
    try testing.expectEqual(2500, passed);
}

test "after closing, and before opening, every call is refused" {
    const limiter = try open(try Rule.init(.fixed_window, 5, 1000), 10, .allow);
    defer close(limiter);
    try testing.expectError(error.Closed, limiter.check(epoch + 1, "key", 1, 1));
    limiter.table.close();
    try testing.expectError(error.Closed, limiter.check(epoch, "key", 1, 1));
    try testing.expectError(error.Closed, limiter.hit(epoch, "key", 1, 1));
    try testing.expectError(error.Closed, limiter.reset(epoch, "key", 1));
    try testing.expectError(error.Closed, limiter.table.cleanup(epoch, 1));
}

test "a total that a recount left too low does not wrap when entries go" {
    const limiter = try open(try Rule.init(.fixed_window, 5, 1000), 10, .deny);
    defer close(limiter);
    const table = &limiter.table;
    for ([_][]const u8{ "a", "b", "c" }) |key|
        try testing.expect(try limiter.check(epoch, key, 1, 1));
    // As a recount stores it that looked at the shards before all three came.
    table.total.store(1, .monotonic);
    try table.clear(epoch);
    try testing.expectEqual(0, try table.count(epoch));
    try testing.expect(try limiter.check(epoch, "a", 1, 1));
    table.total.store(0, .monotonic);
    try testing.expectEqual(1, try table.cleanup(epoch, 5000));
    try testing.expectEqual(0, try table.count(epoch));
}
