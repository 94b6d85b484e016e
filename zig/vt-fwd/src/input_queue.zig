//! Bytes on their way to the child, which may not be reading: a bounded queue for each source, so
//! that one that floods makes only itself wait.

const std = @import("std");
const utf8 = @import("utf8.zig");

pub const capacity = 8192;

pub const InputQueue = struct {
    bytes: [capacity]u8 = undefined,
    start: usize = 0,
    end: usize = 0,
    /// A character that the recording of this source has not seen the end of.
    carry: utf8.Carry = .{},

    pub fn isEmpty(queue: *const InputQueue) bool {
        return queue.start == queue.end;
    }

    pub fn room(queue: *const InputQueue) usize {
        return capacity - (queue.end - queue.start);
    }

    pub fn push(queue: *InputQueue, bytes: []const u8) void {
        std.debug.assert(bytes.len <= queue.room());
        if (capacity - queue.end < bytes.len) {
            const waiting = queue.slice();
            std.mem.copyForwards(u8, queue.bytes[0..waiting.len], waiting);
            queue.end = waiting.len;
            queue.start = 0;
        }
        @memcpy(queue.bytes[queue.end..][0..bytes.len], bytes);
        queue.end += bytes.len;
    }

    pub fn slice(queue: *const InputQueue) []const u8 {
        return queue.bytes[queue.start..queue.end];
    }

    pub fn consume(queue: *InputQueue, n: usize) void {
        std.debug.assert(n <= queue.end - queue.start);
        queue.start += n;
        if (queue.start == queue.end) {
            queue.start = 0;
            queue.end = 0;
        }
    }
};

test "bytes come out in order, however they are pushed and consumed" {
    var prng = std.Random.DefaultPrng.init(3);
    const random = prng.random();
    var queue: InputQueue = .{};
    var pushed: u8 = 0;
    var consumed: u8 = 0;
    for (0..5000) |_| {
        var bytes: [capacity]u8 = undefined;
        const n = random.uintAtMost(usize, queue.room());
        for (bytes[0..n]) |*byte| {
            byte.* = pushed;
            pushed +%= 1;
        }
        queue.push(bytes[0..n]);
        const take = random.uintAtMost(usize, queue.slice().len);
        for (queue.slice()[0..take]) |byte| {
            try std.testing.expectEqual(consumed, byte);
            consumed +%= 1;
        }
        queue.consume(take);
    }
}
