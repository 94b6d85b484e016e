//! A lock of one word for critical sections of well under a microsecond. Not a general mutex: no
//! queue and no fairness; whoever waits spins, yields, then sleeps. The word names its owner. In a
//! file shared by processes an owner may be killed while it holds the lock; those who wait then ask
//! `isOwnerAlive` and take it over.
const std = @import("std");
const builtin = @import("builtin");

pub const Lock = extern struct {
    owner: std.atomic.Value(u32) = .init(unlocked),

    pub const unlocked: u32 = 0;

    pub const Acquired = enum {
        free,
        /// The owner died inside the critical section: what it was writing must be made whole.
        from_the_dead,
    };

    const spins = 64;
    const yields = 64;
    const sleep_ns = 50 * std.time.ns_per_us;

    /// `me` is not 0. `liveness` is null where the owner cannot die without its waiters, or has
    /// `isOwnerAlive(owner: u32) bool`.
    pub inline fn acquire(lock: *Lock, me: u32, liveness: anytype) Acquired {
        std.debug.assert(me != unlocked);
        if (lock.owner.cmpxchgWeak(unlocked, me, .acquire, .monotonic) == null) return .free;
        return lock.acquireSlow(me, liveness);
    }

    fn acquireSlow(lock: *Lock, me: u32, liveness: anytype) Acquired {
        @branchHint(.cold);
        var round: u32 = 0;
        while (true) : (round +%= 1) {
            const owner = lock.owner.load(.monotonic);
            if (owner == unlocked) {
                if (lock.owner.cmpxchgWeak(unlocked, me, .acquire, .monotonic) == null)
                    return .free;
                continue;
            }
            if (round < spins) {
                std.atomic.spinLoopHint();
            } else if (round < spins + yields) {
                std.Thread.yield() catch std.atomic.spinLoopHint();
            } else {
                // A system call, at most once for each sleep.
                const can_die = @TypeOf(liveness) != @TypeOf(null);
                const is_dead = can_die and !liveness.isOwnerAlive(owner);
                if (!is_dead) {
                    std.Thread.sleep(sleep_ns);
                } else if (lock.owner.cmpxchgStrong(owner, me, .acquire, .monotonic) == null) {
                    return .from_the_dead;
                }
            }
        }
    }

    pub inline fn release(lock: *Lock) void {
        lock.owner.store(unlocked, .release);
    }
};

const testing = std.testing;

test "two threads never hold the lock together" {
    const Counter = struct {
        lock: Lock = .{},
        value: u64 = 0,

        fn run(counter: *@This()) void {
            for (0..20_000) |_| {
                _ = counter.lock.acquire(1, null);
                defer counter.lock.release();
                counter.value += 1;
            }
        }
    };
    if (builtin.single_threaded) return error.SkipZigTest;
    var counter: Counter = .{};
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{}, Counter.run, .{&counter});
    for (threads) |thread| thread.join();
    try testing.expectEqual(4 * 20_000, counter.value);
}

test "a dead owner's lock is taken over, a living one's is not" {
    const Registry = struct {
        dead: u32,
        pub fn isOwnerAlive(registry: @This(), owner: u32) bool {
            return owner != registry.dead;
        }
    };
    var lock: Lock = .{};
    try testing.expectEqual(.free, lock.acquire(3, Registry{ .dead = 0 }));
    try testing.expectEqual(.from_the_dead, lock.acquire(4, Registry{ .dead = 3 }));
    lock.release();
    try testing.expectEqual(.free, lock.acquire(5, null));
}
