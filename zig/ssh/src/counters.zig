//! Gauges and totals, shared by all threads without locks.

const std = @import("std");
const reasons = @import("reasons.zig");
const Service = @import("git_command.zig").Service;

const Value = std.atomic.Value(u64);

/// One total for each member of an enum.
fn By(comptime E: type) type {
    return struct {
        values: std.EnumArray(E, Value) = .initFill(.init(0)),

        pub fn add(by: *@This(), key: E) void {
            Counters.add(by.values.getPtr(key), 1);
        }
    };
}

/// How long commands of one service took: a histogram as Prometheus has them.
pub const Durations = struct {
    /// Upper bounds of the buckets, in milliseconds. Commands that took longer are in `count` only.
    pub const bounds_ms = [_]u64{
        10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 1_800_000,
    };

    count: Value = .init(0),
    sum_ms: Value = .init(0),
    /// Not yet cumulative.
    buckets: [bounds_ms.len]Value = @splat(.init(0)),

    pub fn add(durations: *Durations, duration_ms: u64) void {
        // The count first, and read last: it is never less than a bucket.
        Counters.add(&durations.count, 1);
        Counters.add(&durations.sum_ms, duration_ms);
        for (&durations.buckets, bounds_ms) |*bucket, bound_ms| {
            if (duration_ms <= bound_ms) return Counters.add(bucket, 1);
        }
    }

    pub fn jsonStringify(durations: *const Durations, json: anytype) !void {
        try json.beginObject();
        try json.objectField("le_ms");
        try json.beginObject();
        var below: u64 = 0;
        inline for (&durations.buckets, bounds_ms) |*bucket, bound_ms| {
            below += bucket.load(.monotonic);
            try json.objectField(std.fmt.comptimePrint("{d}", .{bound_ms}));
            try json.write(below);
        }
        try json.endObject();
        try json.objectField("sum_ms");
        try json.write(durations.sum_ms.load(.monotonic));
        try json.objectField("count");
        try json.write(durations.count.load(.monotonic));
        try json.endObject();
    }
};

pub const Counters = struct {
    connections: Value = .init(0),
    authenticated: Value = .init(0),
    gits_running: Value = .init(0),
    accepted_total: Value = .init(0),
    refused_total: Value = .init(0),
    authenticated_total: Value = .init(0),
    auth_failed_total: Value = .init(0),
    commands_total: Value = .init(0),
    commands_refused_total: Value = .init(0),
    gits_failed_total: Value = .init(0),
    bytes_in_total: Value = .init(0),
    bytes_out_total: Value = .init(0),
    pushes_total: Value = .init(0),
    pushes_lost_total: Value = .init(0),
    decisions_total: Value = .init(0),
    decisions_timeout_total: Value = .init(0),
    events_dropped_total: Value = .init(0),
    refused_by_reason: By(reasons.Refusal) = .{},
    auth_failed_by_reason: By(reasons.AuthFailure) = .{},
    commands_refused_by_reason: By(reasons.CommandRefusal) = .{},
    disconnected_by_reason: By(reasons.End) = .{},
    commands_by_service: By(Service) = .{},
    durations_by_service: std.EnumArray(Service, Durations) = .initFill(.{}),

    pub fn add(value: *Value, amount: u64) void {
        _ = value.fetchAdd(amount, .monotonic);
    }

    pub fn sub(value: *Value, amount: u64) void {
        _ = value.fetchSub(amount, .monotonic);
    }

    pub fn refused(counters: *Counters, reason: reasons.Refusal) void {
        add(&counters.refused_total, 1);
        counters.refused_by_reason.add(reason);
    }

    pub fn authFailed(counters: *Counters, reason: reasons.AuthFailure) void {
        add(&counters.auth_failed_total, 1);
        counters.auth_failed_by_reason.add(reason);
    }

    pub fn commandRefused(counters: *Counters, reason: reasons.CommandRefusal) void {
        add(&counters.commands_refused_total, 1);
        counters.commands_refused_by_reason.add(reason);
    }

    pub fn commandStarted(counters: *Counters, service: Service) void {
        add(&counters.commands_total, 1);
        add(&counters.gits_running, 1);
        counters.commands_by_service.add(service);
    }

    /// One JSON object. `extra` is a struct of more integers.
    pub fn write(counters: *const Counters, extra: anytype, out: *std.Io.Writer) !void {
        var json: std.json.Stringify = .{ .writer = out };
        try json.beginObject();
        inline for (@typeInfo(@TypeOf(extra)).@"struct".fields) |field| {
            try json.objectField(field.name);
            try json.write(@field(extra, field.name));
        }
        inline for (@typeInfo(Counters).@"struct".fields) |field| {
            const value = &@field(counters, field.name);
            try json.objectField(field.name);
            switch (field.type) {
                Value => try json.write(value.load(.monotonic)),
                std.EnumArray(Service, Durations) => try writeEach(value, &json),
                else => try writeEach(&value.values, &json),
            }
        }
        try json.endObject();
    }

    fn writeEach(array: anytype, json: *std.json.Stringify) !void {
        const Key = @TypeOf(array.*).Key;
        try json.beginObject();
        inline for (comptime std.enums.values(Key)) |key| {
            try json.objectField(if (Key == Service) key.name() else @tagName(key));
            const value = array.getPtrConst(key);
            try json.write(if (@TypeOf(value.*) == Value) value.load(.monotonic) else value);
        }
        try json.endObject();
    }
};

const testing = std.testing;

test "totals come with their reasons and services, durations cumulative" {
    var counters: Counters = .{};
    counters.authFailed(.denied);
    counters.authFailed(.denied);
    counters.refused(.proxy_missing);
    counters.commandRefused(.not_found);
    counters.commandStarted(.receive_pack);
    counters.disconnected_by_reason.add(.idle);
    const durations = counters.durations_by_service.getPtr(.receive_pack);
    for ([_]u64{ 0, 10, 11, 300, 1_800_000, 1_800_001 }) |duration_ms| durations.add(duration_ms);
    var buffer: [32 * 1024]u8 = undefined;
    var writer = std.Io.Writer.fixed(&buffer);
    try counters.write(.{ .keys = 7 }, &writer);
    const parsed = try std.json.parseFromSlice(
        std.json.Value,
        testing.allocator,
        writer.buffered(),
        .{},
    );
    defer parsed.deinit();
    const root = parsed.value.object;
    try testing.expectEqual(7, root.get("keys").?.integer);
    try testing.expectEqual(2, root.get("auth_failed_total").?.integer);
    const failed = root.get("auth_failed_by_reason").?.object;
    try testing.expectEqual(2, failed.get("denied").?.integer);
    try testing.expectEqual(0, failed.get("timeout").?.integer);
    const services = root.get("commands_by_service").?.object;
    try testing.expectEqual(1, services.get("receive-pack").?.integer);
    const took = root.get("durations_by_service").?.object.get("receive-pack").?.object;
    try testing.expectEqual(6, took.get("count").?.integer);
    try testing.expectEqual(3_600_322, took.get("sum_ms").?.integer);
    const below = took.get("le_ms").?.object;
    try testing.expectEqual(2, below.get("10").?.integer);
    try testing.expectEqual(3, below.get("250").?.integer);
    try testing.expectEqual(4, below.get("500").?.integer);
    try testing.expectEqual(5, below.get("1800000").?.integer);
}
