//! The exact log of a key's requests (the Python library limits calls it a moving window), kept as
//! entries of the table: one per call that passed, so that it is bounded, swept and shared like all
//! else. The log's head, under the key's fingerprint, counts the calls so far; call number `i`
//! stands under a fingerprint derived from the key's and `i`, in the same shard, with the cost of
//! all calls before it (`a`, modulo 2^32) and its own (`b`). Whatever has left the window is dead
//! by itself.
const std = @import("std");
const rule_ = @import("rule.zig");
const Entry = rule_.Entry;
const table_ = @import("table.zig");
const Table = table_.Table;
const Fingerprint = @import("key_hash.zig").Fingerprint;

pub const Log = struct {
    table: *Table,
    place: *Table.Place,
    fp: Fingerprint,
    limit: u32,
    window_ms: u64,
    now_ms: u64,

    pub const Content = extern struct {
        /// Cost of the calls inside the window.
        used: u32 = 0,
        reserved: u32 = 0,
        /// Since the oldest of them.
        age_ms: u64 = 0,
    };

    /// The shard of `log.fp` is locked, for this and for `take`.
    pub fn read(log: Log) Content {
        const calls = log.callCount();
        if (calls == 0) return .{};
        const newest = log.call(calls - 1) orelse return .{};
        // Missing only where somebody writes to the file without the lock.
        const first = log.call(log.oldest(calls)) orelse newest;
        return .{
            .used = newest.counts.a +% newest.counts.b -% first.counts.a,
            .age_ms = log.now_ms -| (first.expires_ms -| log.window_ms),
        };
    }

    pub fn take(log: Log, cost: u32) error{Full}!bool {
        const used = log.read().used;
        if (used > log.limit or cost > log.limit - used) return false;
        const calls = log.callCount();
        const before = if (calls == 0) 0 else total: {
            const newest = log.call(calls - 1) orelse break :total 0;
            break :total newest.counts.a +% newest.counts.b;
        };
        const expires_ms = log.now_ms +| log.window_ms;
        try log.put(log.callPrint(calls), .{
            .expires_ms = expires_ms,
            .counts = .{ .a = before, .b = cost },
        });
        // The head comes last: until it counts the call, the call is not there.
        try log.put(log.fp, .{ .expires_ms = expires_ms, .counts = @bitCast(calls +| 1) });
        return true;
    }

    fn put(log: Log, fp: Fingerprint, entry: Entry) error{Full}!void {
        const shard = &log.place.shard;
        if (shard.find(fp)) |slot| return shard.update(slot, entry);
        return shard.insert(fp, entry, log.now_ms, false);
    }

    fn callCount(log: Log) u64 {
        const slot = log.place.shard.find(log.fp) orelse return 0;
        return if (slot.entry.isDead(log.now_ms)) 0 else @bitCast(slot.entry.counts);
    }

    fn callPrint(log: Log, index: u64) Fingerprint {
        return log.table.hasher.derive(log.fp, index, table_.shard_bits);
    }

    fn call(log: Log, index: u64) ?Entry {
        const slot = log.place.shard.find(log.callPrint(index)) orelse return null;
        return if (slot.entry.isDead(log.now_ms)) null else slot.entry;
    }

    /// The oldest call inside the window, the newest being inside. Every call costs 1 or more, so
    /// it is one of the last `limit`; the search halves them.
    fn oldest(log: Log, calls: u64) u64 {
        var low = calls - @min(calls, @max(log.limit, 1));
        var high = calls - 1;
        while (low < high) {
            const middle = low + (high - low) / 2;
            if (log.call(middle) == null) low = middle + 1 else high = middle;
        }
        return high;
    }
};
