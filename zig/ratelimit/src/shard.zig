//! One of a table's shards: open addressing over buckets of eight slots. A key may stand in either
//! of two buckets and nowhere else, so that every operation looks at 16 slots at most, however an
//! attacker chooses keys, and a slot is freed by one store: nothing is ever moved to close a gap.
//!
//! A private shard grows: a larger array is allocated and each following call moves two buckets
//! into it. A shard in a mapped file has a fixed size.
//!
//! All functions expect the shard's lock to be held. In a mapped file nothing but the shard's place
//! and size is sure: whatever numbers stand in it, the arithmetic holds.
const std = @import("std");
const Lock = @import("lock.zig").Lock;
const Entry = @import("rule.zig").Entry;
const Fingerprint = @import("key_hash.zig").Fingerprint;

pub const Slot = extern struct {
    /// 0: empty.
    lo: u64,
    hi: u64,
    entry: Entry,

    inline fn holds(slot: *const Slot, fp: Fingerprint) bool {
        return slot.lo == fp.lo and slot.hi == fp.hi;
    }

    inline fn isFree(slot: *const Slot, now_ms: u64) bool {
        return slot.lo == 0 or slot.entry.isDead(now_ms);
    }
};

pub const slots_per_bucket = 8;
const never = std.math.maxInt(u64);
pub const Bucket = [slots_per_bucket]Slot;

comptime {
    std.debug.assert(@sizeOf(Slot) == 32);
    std.debug.assert(@sizeOf(Head) == 64);
}

/// What processes share of a shard beside its slots; inside the file for a shared table.
pub const Head = extern struct {
    lock: Lock = .{},
    /// Slots that are not empty, dead ones included until they are swept.
    used: u32 = 0,
    sweep_bucket: u32 = 0,
    /// A change of an entry that one store cannot do is written here first; whoever takes the lock
    /// over from a killed process carries it out. 0: none, else the slot's index + 1.
    journal_slot: u32 = 0,
    journal_entry: Entry = .none,
    reserved: [32]u8 = @splat(0),
};

/// Entries in all shards of a table, and how many there may be.
pub const Quota = struct {
    total: *std.atomic.Value(u32),
    max: u32,

    fn take(quota: Quota) bool {
        if (!quota.hasRoom()) return false;
        if (quota.total.fetchAdd(1, .monotonic) < quota.max) return true;
        quota.give();
        return false;
    }

    pub fn hasRoom(quota: Quota) bool {
        return quota.total.load(.monotonic) < quota.max;
    }

    fn takeBeyond(quota: Quota) void {
        _ = quota.total.fetchAdd(1, .monotonic);
    }

    /// Never below 0: a recount may have missed an entry, and a total that wraps would be full for
    /// ever.
    fn give(quota: Quota) void {
        var total = quota.total.load(.monotonic);
        while (total > 0)
            total = quota.total.cmpxchgWeak(total, total - 1, .monotonic, .monotonic) orelse return;
    }
};

pub const PutError = error{Full};

pub const Shard = struct {
    head: *Head,
    buckets: []Bucket,
    /// The array before the last growth, until its entries have moved; buckets below `drained`
    /// have.
    draining: []Bucket = &.{},
    drained: usize = 0,
    quota: Quota,
    /// Null: the shard cannot grow.
    allocator: ?std.mem.Allocator,
    /// Spreads the shards' sizes, so that they do not all grow at the same moment.
    growth_percent: u8 = 150,

    const first_buckets = 2;
    const max_load_percent = 80;
    const buckets_moved_per_call = 2;
    const buckets_swept_per_insert = 1;
    const buckets_swept_when_full = 2;

    pub inline fn find(shard: *Shard, fp: Fingerprint) ?*Slot {
        if (findIn(shard.buckets, fp)) |slot| return slot;
        if (shard.draining.len == 0) return null;
        return findIn(shard.draining, fp);
    }

    /// Stores the state of a key that `find` found.
    pub inline fn update(shard: *Shard, slot: *Slot, entry: Entry) void {
        if (slot.entry.expires_ms == entry.expires_ms or shard.allocator != null) {
            slot.entry.expires_ms = entry.expires_ms;
            store(&slot.entry.counts, entry.counts);
            return;
        }
        shard.updateJournaled(slot, entry);
    }

    fn updateJournaled(shard: *Shard, slot: *Slot, entry: Entry) void {
        const head = shard.head;
        const slots: [*]Slot = @ptrCast(shard.buckets.ptr);
        head.journal_entry = entry;
        store(&head.journal_slot, @as(u32, @intCast(slot - slots)) + 1);
        store(&slot.entry.expires_ms, entry.expires_ms);
        store(&slot.entry.counts, entry.counts);
        store(&head.journal_slot, 0);
    }

    /// Stores a key that `find` did not find. A slot whose entry is dead is used before an empty
    /// one. With `over_quota` the entry may be one more than the maximum.
    pub fn insert(
        shard: *Shard,
        fp: Fingerprint,
        entry: Entry,
        now_ms: u64,
        over_quota: bool,
    ) PutError!void {
        shard.sweep(now_ms, buckets_swept_per_insert);
        shard.growIfLoaded();
        var slot = shard.freeSlot(fp, now_ms) orelse shard.makeRoom(fp, now_ms) orelse grown: {
            if (!shard.grow()) return error.Full;
            break :grown shard.freeSlot(fp, now_ms).?;
        };
        if (slot.lo == 0 and !shard.quota.take()) {
            shard.sweep(now_ms, buckets_swept_when_full);
            slot = shard.freeSlot(fp, now_ms) orelse return error.Full;
            if (slot.lo == 0 and !shard.quota.take()) {
                if (!over_quota) return error.Full;
                shard.quota.takeBeyond();
            }
        }
        if (slot.lo == 0) shard.head.used +|= 1;
        // Killed between these, the slot is empty or dead, never another key's with this state.
        store(&slot.lo, 0);
        store(&slot.hi, fp.hi);
        store(&slot.entry.counts, entry.counts);
        store(&slot.entry.expires_ms, entry.expires_ms);
        store(&slot.lo, fp.lo);
    }

    pub fn erase(shard: *Shard, slot: *Slot) void {
        store(&slot.lo, 0);
        shard.head.used -|= 1;
        shard.quota.give();
    }

    /// When the first of the slots that `fp` may use comes free of its entry; null when none has
    /// one.
    pub fn freeAt(shard: *Shard, fp: Fingerprint) ?u64 {
        if (shard.buckets.len == 0) return null;
        var earliest: ?u64 = null;
        for (candidates(shard.buckets, fp)) |bucket| for (bucket) |*slot| {
            if (slot.lo != 0) earliest = @min(earliest orelse never, slot.entry.expires_ms);
        };
        return earliest;
    }

    /// Looks at the next `count` buckets, in turn, and empties slots whose entries are dead.
    pub fn sweep(shard: *Shard, now_ms: u64, count: usize) void {
        const len = shard.buckets.len;
        if (len == 0) return;
        for (0..@min(count, len)) |_| {
            const index = shard.head.sweep_bucket % len;
            shard.head.sweep_bucket = @intCast((index + 1) % len);
            _ = shard.sweepBucket(&shard.buckets[index], now_ms);
        }
    }

    pub fn sweepBucket(shard: *Shard, bucket: *Bucket, now_ms: u64) u32 {
        var swept: u32 = 0;
        for (bucket) |*slot| {
            if (slot.lo == 0 or !slot.entry.isDead(now_ms)) continue;
            shard.erase(slot);
            swept += 1;
        }
        return swept;
    }

    /// Moves some entries out of the array that growth left behind. Returns how many were dead.
    pub fn drain(shard: *Shard, now_ms: u64) u32 {
        var dead: u32 = 0;
        for (0..buckets_moved_per_call) |_| {
            if (shard.drained == shard.draining.len) {
                shard.finishDrain();
                break;
            }
            const bucket = &shard.draining[shard.drained];
            dead += shard.sweepBucket(bucket, now_ms);
            for (bucket) |*slot| {
                if (slot.lo == 0) continue;
                const fp: Fingerprint = .{ .lo = slot.lo, .hi = slot.hi };
                // With both places taken by the living the entry stays where `find` finds it.
                const target = shard.freeSlot(fp, now_ms) orelse
                    shard.makeRoom(fp, now_ms) orelse return dead;
                if (target.lo != 0) shard.erase(target);
                target.* = slot.*;
                slot.lo = 0;
            }
            shard.drained += 1;
        }
        return dead;
    }

    fn finishDrain(shard: *Shard) void {
        if (shard.draining.len > 0) shard.allocator.?.free(shard.draining);
        shard.draining = &.{};
        shard.drained = 0;
    }

    inline fn growIfLoaded(shard: *Shard) void {
        const used: u64 = shard.head.used;
        if (used * 100 >= shard.slotCount() * max_load_percent) _ = shard.grow();
    }

    /// False where there is no memory, or no leave, to grow.
    fn grow(shard: *Shard) bool {
        const larger = @max(first_buckets, shard.buckets.len * shard.growth_percent / 100 + 1);
        return shard.resize(larger);
    }

    fn resize(shard: *Shard, bucket_count: usize) bool {
        const allocator = shard.allocator orelse return false;
        if (shard.draining.len > 0) return false;
        const buckets = allocator.alloc(Bucket, bucket_count) catch return false;
        @memset(std.mem.sliceAsBytes(buckets), 0);
        shard.draining = shard.buckets;
        shard.drained = 0;
        shard.buckets = buckets;
        shard.head.sweep_bucket = 0;
        if (shard.draining.len == 0) shard.finishDrain();
        return true;
    }

    /// Gives memory back after a flood, when most of it holds nothing.
    pub fn shrink(shard: *Shard) void {
        const used: u64 = shard.head.used;
        const needed: usize = @intCast(used * 2 / slots_per_bucket + first_buckets);
        if (needed * 4 < shard.buckets.len) _ = shard.resize(needed);
    }

    pub fn clear(shard: *Shard) void {
        for (shard.buckets) |*bucket| for (bucket) |*slot| {
            if (slot.lo != 0) shard.erase(slot);
        };
        for (shard.draining) |*bucket| for (bucket) |*slot| {
            if (slot.lo != 0) shard.erase(slot);
        };
    }

    pub fn deinit(shard: *Shard) void {
        const allocator = shard.allocator orelse return;
        if (shard.draining.len > 0) allocator.free(shard.draining);
        if (shard.buckets.len > 0) allocator.free(shard.buckets);
        shard.buckets = &.{};
        shard.draining = &.{};
    }

    /// Makes whole what a killed process left: its journaled change is done, the count is taken
    /// anew.
    pub fn recover(shard: *Shard) void {
        const head = shard.head;
        // Read once: what is in a file may change under whoever looks at it.
        const journal_slot = @atomicLoad(u32, &head.journal_slot, .monotonic);
        if (journal_slot != 0 and journal_slot <= shard.slotCount()) {
            const slots: [*]Slot = @ptrCast(shard.buckets.ptr);
            slots[journal_slot - 1].entry = head.journal_entry;
        }
        store(&head.journal_slot, 0);
        var used: u32 = 0;
        for (shard.buckets) |*bucket| for (bucket) |*slot| {
            if (slot.lo == 0) continue;
            // Killed while it moved a slot: it is in both places, and `find` would not see this
            // one.
            if (shard.find(.{ .lo = slot.lo, .hi = slot.hi }) != slot) store(&slot.lo, 0);
            used += @intFromBool(slot.lo != 0);
        };
        head.used = used;
    }

    pub fn slotCount(shard: *const Shard) usize {
        return shard.buckets.len * slots_per_bucket;
    }

    /// Where both buckets of a key are full, one of the entries there can often go to its own other
    /// bucket. Without this, tables would be full at three quarters of their slots.
    fn makeRoom(shard: *Shard, fp: Fingerprint, now_ms: u64) ?*Slot {
        @branchHint(.unlikely);
        if (shard.buckets.len == 0) return null;
        for (candidates(shard.buckets, fp)) |bucket| for (bucket) |*slot| {
            for (candidates(shard.buckets, .{ .lo = slot.lo, .hi = slot.hi })) |other| {
                if (other == bucket) continue;
                for (other) |*target| {
                    if (!target.isFree(now_ms)) continue;
                    if (target.lo != 0) shard.erase(target);
                    target.hi = slot.hi;
                    target.entry = slot.entry;
                    store(&target.lo, slot.lo);
                    store(&slot.lo, 0);
                    return slot;
                }
            }
        };
        return null;
    }

    /// The emptier of the key's two buckets provides the slot.
    fn freeSlot(shard: *Shard, fp: Fingerprint, now_ms: u64) ?*Slot {
        if (shard.buckets.len == 0) return null;
        var best: ?*Slot = null;
        var best_free: u32 = 0;
        for (candidates(shard.buckets, fp)) |bucket| {
            var free: u32 = 0;
            var first: ?*Slot = null;
            for (bucket) |*slot| {
                if (!slot.isFree(now_ms)) continue;
                free += 1;
                if (first == null or (slot.lo != 0 and first.?.lo == 0)) first = slot;
            }
            if (free > best_free) {
                best_free = free;
                best = first;
            }
        }
        return best;
    }
};

inline fn findIn(buckets: []Bucket, fp: Fingerprint) ?*Slot {
    if (buckets.len == 0) return null;
    const pair = candidates(buckets, fp);
    @prefetch(pair[1], .{});
    for (pair) |bucket| for (bucket) |*slot| {
        if (slot.holds(fp)) return slot;
    };
    return null;
}

inline fn candidates(buckets: []Bucket, fp: Fingerprint) [2]*Bucket {
    return .{
        &buckets[scale(@truncate(fp.lo), buckets.len)],
        &buckets[scale(@truncate(fp.lo >> 32), buckets.len)],
    };
}

/// Maps 32 even bits onto 0 to `len` - 1 without a division.
inline fn scale(bits: u32, len: usize) usize {
    return @intCast((@as(u64, bits) * @as(u64, len)) >> 32);
}

/// A store that neither compiler nor processor may reorder with the ones before it: a process can
/// be killed between any two.
inline fn store(pointer: anytype, value: @TypeOf(pointer.*)) void {
    @atomicStore(@TypeOf(pointer.*), pointer, value, .release);
}
