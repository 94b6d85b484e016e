//! Notices of pushes for the host, which takes them one after the other and says when it is done
//! with one. Nothing is dropped: while too many wait, no push is let in.

const std = @import("std");
const Notify = @import("events.zig").Notify;

/// Most bytes of notices that wait; a push that comes then is refused as when the queue is full.
pub const bytes_max = 64 * 1024 * 1024;

pub const Id = u32;

pub const Pushes = struct {
    allocator: std.mem.Allocator,
    notify: std.atomic.Value(?Notify) = .init(null),
    /// So many notices may wait, and those of pushes that run already; 0: nobody wants any.
    capacity: std.atomic.Value(u32) = .init(0),

    mutex: std.Thread.Mutex = .{},
    notices: std.ArrayListUnmanaged(Notice) = .empty,
    /// How many of `notices` are done.
    done_count: usize = 0,
    /// Pushes that run and will have a notice, or not.
    reserved: usize = 0,
    bytes: usize = 0,
    next_id: Id = 1,

    /// The JSON is owned.
    const Notice = struct { id: Id, json: []u8 };

    pub fn init(allocator: std.mem.Allocator) Pushes {
        return .{ .allocator = allocator };
    }

    pub fn deinit(pushes: *Pushes) void {
        for (pushes.waiting()) |notice| pushes.allocator.free(notice.json);
        pushes.notices.deinit(pushes.allocator);
    }

    fn waiting(pushes: *const Pushes) []const Notice {
        return pushes.notices.items[pushes.done_count..];
    }

    pub fn isWanted(pushes: *const Pushes) bool {
        return pushes.capacity.load(.monotonic) > 0;
    }

    /// Room for one notice; `put` or `release` follows. false: too many wait. Running pushes do not
    /// count: whoever only begins some must not keep others out.
    pub fn reserve(pushes: *Pushes) bool {
        pushes.mutex.lock();
        defer pushes.mutex.unlock();
        const count_max = pushes.capacity.load(.monotonic);
        if (pushes.waiting().len >= count_max or pushes.bytes >= bytes_max) return false;
        // So that `put` cannot fail.
        const room = pushes.notices.items.len + pushes.reserved + 1;
        pushes.notices.ensureTotalCapacity(pushes.allocator, room) catch return false;
        pushes.reserved += 1;
        return true;
    }

    /// Gives room back that was not needed.
    pub fn release(pushes: *Pushes) void {
        pushes.mutex.lock();
        defer pushes.mutex.unlock();
        pushes.reserved -= 1;
    }

    /// A notice for which there is room: a JSON object without its "{" and "id", which come here.
    /// Takes over nothing.
    pub fn put(pushes: *Pushes, members: []const u8) error{OutOfMemory}!void {
        {
            pushes.mutex.lock();
            defer pushes.mutex.unlock();
            const id = pushes.next_id;
            const format = "{{\"id\":{d},{s}";
            const json = try std.fmt.allocPrint(pushes.allocator, format, .{ id, members });
            pushes.reserved -= 1;
            pushes.compact();
            pushes.notices.appendAssumeCapacity(.{ .id = id, .json = json });
            pushes.bytes += json.len;
            pushes.next_id = if (id == std.math.maxInt(Id)) 1 else id + 1;
        }
        if (pushes.notify.load(.acquire)) |notify| notify();
    }

    fn compact(pushes: *Pushes) void {
        if (pushes.done_count < pushes.notices.items.len and pushes.done_count < 1024) return;
        pushes.notices.replaceRangeAssumeCapacity(0, pushes.done_count, &.{});
        pushes.done_count = 0;
    }

    /// The length of the oldest notice that is not done, 0 when there is none. It is copied to
    /// `out`, with a NUL, if it fits; it stays the oldest until it is done.
    pub fn next(pushes: *Pushes, out: []u8) usize {
        pushes.mutex.lock();
        defer pushes.mutex.unlock();
        if (pushes.waiting().len == 0) return 0;
        const json = pushes.waiting()[0].json;
        if (json.len < out.len) {
            @memcpy(out[0..json.len], json);
            out[json.len] = 0;
        }
        return json.len;
    }

    /// The host needs the oldest notice no more. false: it is another one.
    pub fn done(pushes: *Pushes, id: Id) bool {
        pushes.mutex.lock();
        defer pushes.mutex.unlock();
        if (pushes.waiting().len == 0) return false;
        const oldest = pushes.waiting()[0];
        if (oldest.id != id) return false;
        pushes.allocator.free(oldest.json);
        pushes.bytes -= oldest.json.len;
        pushes.done_count += 1;
        return true;
    }

    pub fn count(pushes: *Pushes) u32 {
        pushes.mutex.lock();
        defer pushes.mutex.unlock();
        return @intCast(pushes.waiting().len);
    }
};

const testing = std.testing;

test "a notice comes again until it is done, and then the next one" {
    var pushes: Pushes = .init(testing.allocator);
    defer pushes.deinit();
    pushes.capacity.store(2, .monotonic);
    var out: [64]u8 = undefined;
    try testing.expectEqual(0, pushes.next(&out));
    try testing.expect(!pushes.done(1));
    try testing.expect(pushes.reserve() and pushes.reserve());
    try pushes.put("\"a\":1}");
    try pushes.put("\"b\":2}");
    for (0..2) |_| {
        const len = pushes.next(&out);
        try testing.expectEqualStrings("{\"id\":1,\"a\":1}", out[0..len :0]);
    }
    try testing.expectEqual(14, pushes.next(out[0..14])); // no room for its NUL
    try testing.expectEqual(14, pushes.next(&.{}));
    try testing.expect(!pushes.done(2));
    try testing.expect(pushes.done(1));
    try testing.expect(!pushes.done(1));
    const len = pushes.next(&out);
    try testing.expectEqualStrings("{\"id\":2,\"b\":2}", out[0..len :0]);
    try testing.expectEqual(1, pushes.count());
}

test "while too many wait there is no room, except for pushes that run already" {
    var pushes: Pushes = .init(testing.allocator);
    defer pushes.deinit();
    try testing.expect(!pushes.isWanted() and !pushes.reserve());
    pushes.capacity.store(2, .monotonic);
    for (0..4) |_| try testing.expect(pushes.reserve());
    pushes.release();
    for (0..3) |_| try pushes.put("}");
    try testing.expectEqual(3, pushes.count());
    try testing.expect(!pushes.reserve());
    try testing.expect(pushes.done(1));
    try testing.expect(!pushes.reserve());
    try testing.expect(pushes.done(2));
    try testing.expect(pushes.reserve());
    pushes.release();
    try testing.expectEqual(0, pushes.reserved);
}

test "too many bytes are as many notices too many" {
    var pushes: Pushes = .init(testing.allocator);
    defer pushes.deinit();
    pushes.capacity.store(10, .monotonic);
    const long = try testing.allocator.alloc(u8, bytes_max);
    defer testing.allocator.free(long);
    @memset(long, ' ');
    try testing.expect(pushes.reserve());
    try pushes.put(long);
    try testing.expect(!pushes.reserve());
    try testing.expect(pushes.done(1));
    try testing.expect(pushes.reserve());
    pushes.release();
}

test "the queue goes round for ever" {
    var pushes: Pushes = .init(testing.allocator);
    defer pushes.deinit();
    pushes.capacity.store(3, .monotonic);
    pushes.next_id = std.math.maxInt(Id) - 2000;
    var prng = std.Random.DefaultPrng.init(8);
    var oldest = pushes.next_id;
    for (0..5000) |_| {
        if (prng.random().boolean() and pushes.reserve()) try pushes.put("}");
        if (prng.random().boolean() and pushes.done(oldest)) {
            oldest = if (oldest == std.math.maxInt(Id)) 1 else oldest + 1;
        }
        try testing.expect(pushes.count() <= 3);
        try testing.expect(pushes.notices.capacity < 10_000);
    }
}
