//! Bytes on their way from a channel to git's standard input. Grows as needed; whoever fills it
//! keeps it bounded.

const std = @import("std");

pub const Fifo = struct {
    bytes: std.ArrayListUnmanaged(u8) = .empty,
    /// How much of `bytes` has been taken already.
    start: usize = 0,

    /// Memory kept when empty: as much as a push fills and empties again and again.
    const keep_max = 512 * 1024;

    pub fn deinit(fifo: *Fifo, allocator: std.mem.Allocator) void {
        fifo.bytes.deinit(allocator);
    }

    pub fn len(fifo: *const Fifo) usize {
        return fifo.bytes.items.len - fifo.start;
    }

    pub fn readable(fifo: *const Fifo) []const u8 {
        return fifo.bytes.items[fifo.start..];
    }

    pub fn append(fifo: *Fifo, allocator: std.mem.Allocator, data: []const u8) !void {
        @memcpy(try fifo.reserve(allocator, data.len), data);
        fifo.commit(data.len);
    }

    /// `count` bytes of room behind the content; `commit` makes them part of it.
    pub fn reserve(fifo: *Fifo, allocator: std.mem.Allocator, count: usize) ![]u8 {
        if (fifo.start > 0 and fifo.bytes.unusedCapacitySlice().len < count) {
            const rest = fifo.len();
            std.mem.copyForwards(u8, fifo.bytes.items[0..rest], fifo.readable());
            fifo.bytes.items.len = rest;
            fifo.start = 0;
        }
        try fifo.bytes.ensureUnusedCapacity(allocator, count);
        return fifo.bytes.unusedCapacitySlice()[0..count];
    }

    pub fn commit(fifo: *Fifo, count: usize) void {
        fifo.bytes.items.len += count;
    }

    pub fn discard(fifo: *Fifo, allocator: std.mem.Allocator, count: usize) void {
        std.debug.assert(count <= fifo.len());
        fifo.start += count;
        if (fifo.len() > 0) return;
        fifo.start = 0;
        if (fifo.bytes.capacity > keep_max) {
            fifo.bytes.clearAndFree(allocator);
        } else {
            fifo.bytes.clearRetainingCapacity();
        }
    }
};

const testing = std.testing;

test "bytes come out in the order they went in" {
    var fifo: Fifo = .{};
    defer fifo.deinit(testing.allocator);
    var prng = std.Random.DefaultPrng.init(3);
    var written: u64 = 0;
    var read: u64 = 0;
    for (0..5000) |_| {
        var data: [300]u8 = undefined;
        const count = prng.random().uintAtMost(usize, data.len);
        for (data[0..count]) |*byte| {
            byte.* = @truncate(written *% 31);
            written += 1;
        }
        try fifo.append(testing.allocator, data[0..count]);
        const take = prng.random().uintAtMost(usize, fifo.len());
        for (fifo.readable()[0..take]) |byte| {
            try testing.expectEqual(@as(u8, @truncate(read *% 31)), byte);
            read += 1;
        }
        fifo.discard(testing.allocator, take);
        try testing.expectEqual(written - read, fifo.len());
    }
}

test "an emptied fifo gives its memory back" {
    var fifo: Fifo = .{};
    defer fifo.deinit(testing.allocator);
    const big = try testing.allocator.alloc(u8, 1 << 20);
    defer testing.allocator.free(big);
    try fifo.append(testing.allocator, big);
    fifo.discard(testing.allocator, big.len);
    try testing.expectEqual(0, fifo.bytes.capacity);
}
