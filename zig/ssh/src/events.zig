//! What happened, as JSON lines in a bounded queue for the host to log. Emitting never waits for
//! the host: a full queue drops and counts.

const std = @import("std");
pub const Counters = @import("counters.zig").Counters;

pub const Level = enum { debug, info, warning, @"error" };

/// Longest record, with its final NUL.
pub const record_max = 32 * 1024;

pub const Notify = *const fn () callconv(.c) void;

pub const Events = struct {
    allocator: std.mem.Allocator,
    counters: Counters = .{},
    capacity: std.atomic.Value(u32) = .init(1024),
    notify: std.atomic.Value(?Notify) = .init(null),
    mutex: std.Thread.Mutex = .{},
    records: std.ArrayListUnmanaged([]u8) = .empty,
    /// How many of `records` have been taken.
    taken: usize = 0,

    pub fn init(allocator: std.mem.Allocator) Events {
        return .{ .allocator = allocator };
    }

    pub fn deinit(events: *Events) void {
        for (events.records.items[events.taken..]) |record| events.allocator.free(record);
        events.records.deinit(events.allocator);
    }

    /// `fields` is a struct; optional fields that are null are left out. Strings from a peer go
    /// through `printable` first.
    pub fn emit(events: *Events, level: Level, event: []const u8, fields: anytype) void {
        events.emitWith(level, event, .{}, fields);
    }

    /// `common` comes first.
    pub fn emitWith(
        events: *Events,
        level: Level,
        event: []const u8,
        common: anytype,
        fields: anytype,
    ) void {
        if (events.add(level, event, common, fields)) events.tell();
    }

    /// Emits without telling the host, which may call back: `tell` follows where no lock is held.
    /// false: dropped and counted.
    pub fn add(
        events: *Events,
        level: Level,
        event: []const u8,
        common: anytype,
        fields: anytype,
    ) bool {
        const stored = !events.isFull() and stored: {
            var buffer: [record_max]u8 = undefined;
            var writer = std.Io.Writer.fixed(buffer[0 .. buffer.len - 1]);
            // What does not fit is not stored.
            format(&writer, level, event, common, fields) catch break :stored false;
            break :stored events.push(writer.buffered());
        };
        if (!stored) Counters.add(&events.counters.events_dropped_total, 1);
        return stored;
    }

    pub fn tell(events: *const Events) void {
        if (events.notify.load(.acquire)) |notify| notify();
    }

    fn format(
        writer: *std.Io.Writer,
        level: Level,
        event: []const u8,
        common: anytype,
        fields: anytype,
    ) std.Io.Writer.Error!void {
        const time_us = std.time.microTimestamp();
        var json: std.json.Stringify = .{ .writer = writer };
        try json.beginObject();
        try json.objectField("time");
        try json.print("{d}.{d:0>6}", .{
            @divFloor(time_us, std.time.us_per_s),
            @as(u64, @intCast(@mod(time_us, std.time.us_per_s))),
        });
        try json.objectField("level");
        try json.write(@tagName(level));
        try json.objectField("event");
        try json.write(event);
        try writeFields(&json, common);
        try writeFields(&json, fields);
        try json.endObject();
    }

    fn writeFields(json: *std.json.Stringify, fields: anytype) std.Io.Writer.Error!void {
        inline for (@typeInfo(@TypeOf(fields)).@"struct".fields) |field| {
            const value = @field(fields, field.name);
            const absent = @typeInfo(field.type) == .optional and value == null;
            if (!absent) {
                try json.objectField(field.name);
                try json.write(value);
            }
        }
    }

    fn isFull(events: *Events) bool {
        events.mutex.lock();
        defer events.mutex.unlock();
        return events.records.items.len - events.taken >= events.capacity.load(.monotonic);
    }

    fn push(events: *Events, text: []const u8) bool {
        const record = events.allocator.dupe(u8, text) catch return false;
        events.mutex.lock();
        defer events.mutex.unlock();
        if (events.taken > 0 and events.taken == events.records.items.len) {
            events.records.clearRetainingCapacity();
            events.taken = 0;
        } else if (events.taken > 1024) {
            events.records.replaceRangeAssumeCapacity(0, events.taken, &.{});
            events.taken = 0;
        }
        events.records.append(events.allocator, record) catch {
            events.allocator.free(record);
            return false;
        };
        return true;
    }

    /// The oldest record, copied to `out`; null when there is none.
    pub fn next(events: *Events, out: *[record_max]u8) ?[:0]const u8 {
        events.mutex.lock();
        defer events.mutex.unlock();
        if (events.taken == events.records.items.len) return null;
        const record = events.records.items[events.taken];
        events.taken += 1;
        defer events.allocator.free(record);
        @memcpy(out[0..record.len], record);
        out[record.len] = 0;
        return out[0..record.len :0];
    }
};

/// A peer's string made fit for a log: cut, and without control characters or broken UTF-8.
pub fn printable(text: []const u8, buffer: *[printable_max]u8) []const u8 {
    const cut = text[0..@min(text.len, printable_max)];
    const is_utf8 = std.unicode.utf8ValidateSlice(cut);
    for (buffer[0..cut.len], cut) |*to, from| {
        const bad = from < 0x20 or from == 0x7f or (from >= 0x80 and !is_utf8);
        to.* = if (bad) '?' else from;
    }
    return buffer[0..cut.len];
}

pub const printable_max = 512;

const testing = std.testing;

test "events come out in order as JSON, and what does not fit is counted" {
    var events: Events = .init(testing.allocator);
    defer events.deinit();
    events.capacity.store(2, .monotonic);
    events.emit(.info, "accepted", .{ .connection = 7, .reason = @as(?[]const u8, null) });
    events.emit(.warning, "refused", .{ .reason = "a \"b\"" });
    events.emit(.info, "lost", .{});
    try testing.expectEqual(1, events.counters.events_dropped_total.load(.monotonic));
    var out: [record_max]u8 = undefined;
    const first = events.next(&out).?;
    try testing.expect(std.mem.endsWith(
        u8,
        first,
        ",\"level\":\"info\",\"event\":\"accepted\",\"connection\":7}",
    ));
    const Any = struct { time: f64, level: []const u8, event: []const u8, reason: []const u8 };
    const second = try std.json.parseFromSlice(Any, testing.allocator, events.next(&out).?, .{});
    defer second.deinit();
    try testing.expectEqualStrings("a \"b\"", second.value.reason);
    try testing.expect(second.value.time > 1.7e9);
    try testing.expectEqual(null, events.next(&out));
}

test "the queue goes round for ever" {
    var events: Events = .init(testing.allocator);
    defer events.deinit();
    var out: [record_max]u8 = undefined;
    events.emit(.info, "first", .{});
    for (0..5000) |_| {
        events.emit(.info, "more", .{});
        try testing.expect(events.next(&out) != null);
    }
    try testing.expect(events.next(&out) != null);
    try testing.expectEqual(null, events.next(&out));
}

test "a record that is too long is dropped, not cut" {
    var events: Events = .init(testing.allocator);
    defer events.deinit();
    const long: [record_max]u8 = @splat('x');
    events.emit(.info, "long", .{ .detail = @as([]const u8, &long) });
    var out: [record_max]u8 = undefined;
    try testing.expectEqual(null, events.next(&out));
    try testing.expectEqual(1, events.counters.events_dropped_total.load(.monotonic));
}

test "a peer's text is cut and cleaned" {
    var buffer: [printable_max]u8 = undefined;
    try testing.expectEqualStrings("a?b?", printable("a\x1bb\n", &buffer));
    try testing.expectEqualStrings("grün", printable("grün", &buffer));
    try testing.expectEqualStrings("a??", printable("a\xff\xfe", &buffer));
    try testing.expectEqual(printable_max, printable(&@as([2000]u8, @splat('y')), &buffer).len);
}
