//! Entries of all keys of one limiter, in 64 shards with a lock each. The same code serves a
//! private table in this process's memory and one in a mapped file (shared_file.zig).
//!
//! Closing is safe beside running calls: a `Table`'s own memory is reused but never returned, so
//! that a call that comes late finds a lock to take, and then an `epoch` that is not its own.
const std = @import("std");
const Allocator = std.mem.Allocator;
const key_hash = @import("key_hash.zig");
const Fingerprint = key_hash.Fingerprint;
const Lock = @import("lock.zig").Lock;
const shard_ = @import("shard.zig");
const Shard = shard_.Shard;
const Head = shard_.Head;

pub const shard_bits = 6;
pub const shard_count = 1 << shard_bits;

/// How a shared table asks whether the owner of a lock still lives; see shared_file.zig.
pub const Sharing = struct {
    context: *anyopaque,
    isAlive: *const fn (context: *anyopaque, owner: u32) bool,
    me: u32,

    pub fn isOwnerAlive(sharing: *const Sharing, owner: u32) bool {
        return owner == sharing.me or sharing.isAlive(sharing.context, owner);
    }
};

pub const Closed = error{Closed};

pub const Table = struct {
    places: [shard_count]Place = @splat(.{}),
    hasher: key_hash.Hasher = undefined,
    total: std.atomic.Value(u32) = .init(0),
    max_keys: u32 = 0,
    sharing: ?Sharing = null,
    sweep_shard: std.atomic.Value(u32) = .init(0),

    /// A shard with what belongs to this process alone.
    pub const Place = struct {
        /// Among the threads of this process; the lock of a shared shard's head comes after it.
        lock: Lock align(std.atomic.cache_line) = .{},
        /// Whom the shard serves; 0 while the table is closed.
        epoch: u32 = 0,
        shard: Shard = undefined,
        own_head: Head = .{},
    };

    /// A table that grows in this process's memory. `epoch` is not 0.
    pub fn openPrivate(
        table: *Table,
        epoch: u32,
        allocator: Allocator,
        seed: key_hash.Seed,
        max_keys: u32,
    ) void {
        std.debug.assert(epoch != 0);
        table.hasher.init(seed);
        table.total.store(0, .monotonic);
        table.max_keys = max_keys;
        table.sharing = null;
        for (&table.places, 0..) |*place, i| {
            _ = place.lock.acquire(1, null);
            defer place.lock.release();
            place.own_head = .{};
            place.shard = .{
                .head = &place.own_head,
                .buckets = &.{},
                .quota = .{ .total = &table.total, .max = max_keys },
                .allocator = allocator,
                .growth_percent = @intCast(130 + 40 * i / shard_count),
            };
            place.epoch = epoch;
        }
    }

    /// Frees what a private table holds. From then on calls get `error.Closed`.
    pub fn close(table: *Table) void {
        for (&table.places) |*place| {
            _ = place.lock.acquire(1, null);
            defer place.lock.release();
            if (place.epoch == 0) continue;
            place.epoch = 0;
            place.shard.deinit();
        }
    }

    pub inline fn placeOf(table: *Table, fp: Fingerprint) *Place {
        return &table.places[fp.hi >> (64 - shard_bits)];
    }

    /// The shard of `fp`, locked, with growth moved on a little; `release` it.
    pub inline fn acquire(table: *Table, epoch: u32, fp: Fingerprint, now_ms: u64) Closed!*Place {
        const place = table.placeOf(fp);
        try table.acquirePlace(place, epoch);
        if (place.shard.draining.len > 0) _ = place.shard.drain(now_ms);
        return place;
    }

    inline fn acquirePlace(table: *Table, place: *Place, epoch: u32) Closed!void {
        _ = place.lock.acquire(1, null);
        if (place.epoch != epoch) {
            place.lock.release();
            return error.Closed;
        }
        if (table.sharing) |*sharing| switch (place.shard.head.lock.acquire(sharing.me, sharing)) {
            .free => {},
            .from_the_dead => table.recover(place),
        };
    }

    pub inline fn release(table: *Table, place: *Place) void {
        if (table.sharing != null) place.shard.head.lock.release();
        place.lock.release();
    }

    fn recover(table: *Table, place: *Place) void {
        @branchHint(.cold);
        place.shard.recover();
        table.recount();
    }

    /// Sets the total to the shards' sum. Others may be counting: what they add or take meanwhile
    /// is off by as much, until the next recount.
    pub fn recount(table: *Table) void {
        var total: u32 = 0;
        for (&table.places) |*place| total +|= @atomicLoad(u32, &place.shard.head.used, .monotonic);
        table.places[0].shard.quota.total.store(total, .monotonic);
    }

    pub fn count(table: *Table, epoch: u32) Closed!u32 {
        const place = &table.places[0];
        _ = place.lock.acquire(1, null);
        defer place.lock.release();
        if (place.epoch != epoch) return error.Closed;
        return place.shard.quota.total.load(.monotonic);
    }

    /// Removes every dead entry and returns their number. Locks are held for one chunk at a time.
    pub fn cleanup(table: *Table, epoch: u32, now_ms: u64) Closed!u32 {
        const buckets_per_chunk = 128;
        var removed: u32 = 0;
        for (&table.places) |*place| {
            var next: usize = 0;
            var shrunk = false;
            while (true) : (next += buckets_per_chunk) {
                try table.acquirePlace(place, epoch);
                defer table.release(place);
                const shard = &place.shard;
                const drained_before = shard.drained;
                for (0..buckets_per_chunk) |_| removed += shard.drain(now_ms);
                if (next >= shard.buckets.len) {
                    const stuck = shrunk and shard.drained == drained_before;
                    if (!shrunk) shard.shrink();
                    shrunk = true;
                    if (shard.draining.len == 0 or stuck) break else continue;
                }
                const end = @min(next + buckets_per_chunk, shard.buckets.len);
                for (shard.buckets[next..end]) |*bucket|
                    removed += shard.sweepBucket(bucket, now_ms);
            }
        }
        return removed;
    }

    /// Looks for dead entries in a few shards, others each time. For a table that seems to be full:
    /// an insert sweeps only its own shard. True when there is room now.
    pub fn sweepElsewhere(table: *Table, epoch: u32, now_ms: u64) Closed!bool {
        const shards_per_call = 4;
        const buckets_per_shard = 2;
        for (0..shards_per_call) |_| {
            const next = table.sweep_shard.fetchAdd(1, .monotonic) % shard_count;
            const place = &table.places[next];
            try table.acquirePlace(place, epoch);
            defer table.release(place);
            place.shard.sweep(now_ms, buckets_per_shard);
            if (place.shard.quota.hasRoom()) return true;
        }
        return false;
    }

    /// Forgets every key.
    pub fn clear(table: *Table, epoch: u32) Closed!void {
        for (&table.places) |*place| {
            try table.acquirePlace(place, epoch);
            defer table.release(place);
            place.shard.clear();
        }
    }

    /// Bytes allocated for slots.
    pub fn slotBytes(table: *Table, epoch: u32) Closed!u64 {
        var bytes: u64 = 0;
        for (&table.places) |*place| {
            try table.acquirePlace(place, epoch);
            defer table.release(place);
            const shard = &place.shard;
            bytes += (shard.buckets.len + shard.draining.len) * @sizeOf(shard_.Bucket);
        }
        return bytes;
    }

    /// Held across fork(), so that the child gets no half-written shard and no lock of a thread
    /// that it does not have.
    pub fn lockAll(table: *Table) void {
        for (&table.places) |*place| _ = place.lock.acquire(1, null);
    }

    pub fn unlockAll(table: *Table) void {
        for (&table.places) |*place| place.lock.release();
    }
};
