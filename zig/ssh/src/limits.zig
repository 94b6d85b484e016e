//! Who may still come in: caps on connections, all in all, before authentication, and from one
//! address. Shared by the event loops.

const std = @import("std");
const networks = @import("networks.zig");
const Config = @import("config.zig").Config;
const Refusal = @import("reasons.zig").Refusal;

/// An IPv4 address, or the /64 of an IPv6 one: what one person controls.
pub const Source = [8]u8;

pub fn source(peer: std.net.Address) Source {
    const address = networks.unmapped(peer);
    return switch (address.any.family) {
        std.posix.AF.INET => @as([4]u8, @bitCast(address.in.sa.addr)) ++ [4]u8{ 4, 0, 0, 0 },
        std.posix.AF.INET6 => address.in6.sa.addr[0..8].*,
        else => @splat(0),
    };
}

pub const Limits = struct {
    allocator: std.mem.Allocator,
    max_connections: u32,
    max_unauthenticated: u32,
    max_unauthenticated_per_ip: u32,

    mutex: std.Thread.Mutex = .{},
    connections: u32 = 0,
    unauthenticated: u32 = 0,
    sources: std.AutoHashMapUnmanaged(Source, u32) = .empty,

    pub fn init(allocator: std.mem.Allocator, config: *const Config) Limits {
        return .{
            .allocator = allocator,
            .max_connections = config.max_connections,
            .max_unauthenticated = config.max_unauthenticated,
            .max_unauthenticated_per_ip = config.max_unauthenticated_per_ip,
        };
    }

    pub fn deinit(limits: *Limits) void {
        limits.sources.deinit(limits.allocator);
    }

    /// Counts a new connection in, or says why not. `from` null: `identify` follows.
    pub fn admit(limits: *Limits, from: ?Source) ?Refusal {
        limits.mutex.lock();
        defer limits.mutex.unlock();
        if (limits.connections >= limits.max_connections) return .max_connections;
        if (limits.unauthenticated >= limits.max_unauthenticated) return .max_unauthenticated;
        if (from) |it| if (limits.enter(it)) |refusal| return refusal;
        limits.unauthenticated += 1;
        limits.connections += 1;
        return null;
    }

    /// Whose an admitted connection is, now that it is known; or why it must leave, still unnamed.
    pub fn identify(limits: *Limits, from: Source) ?Refusal {
        limits.mutex.lock();
        defer limits.mutex.unlock();
        return limits.enter(from);
    }

    fn enter(limits: *Limits, from: Source) ?Refusal {
        const slot = limits.sources.getOrPutValue(limits.allocator, from, 0) catch {
            return .resources;
        };
        if (slot.value_ptr.* >= limits.max_unauthenticated_per_ip) {
            return .max_unauthenticated_per_ip;
        }
        slot.value_ptr.* += 1;
        return null;
    }

    pub fn authenticated(limits: *Limits, from: Source) void {
        limits.mutex.lock();
        defer limits.mutex.unlock();
        limits.leaveUnauthenticated(from);
    }

    /// `from` null: it was never identified.
    pub fn leave(limits: *Limits, from: ?Source, was_authenticated: bool) void {
        limits.mutex.lock();
        defer limits.mutex.unlock();
        if (!was_authenticated) limits.leaveUnauthenticated(from);
        limits.connections -= 1;
    }

    fn leaveUnauthenticated(limits: *Limits, from: ?Source) void {
        limits.unauthenticated -= 1;
        const source_of = from orelse return;
        const count = limits.sources.getPtr(source_of).?; // `enter` put it there
        count.* -= 1;
        if (count.* == 0) _ = limits.sources.remove(source_of);
    }
};

const testing = std.testing;

fn testSource(text: []const u8) !Source {
    return source(try std.net.Address.parseIp(text, 0));
}

test "caps hold before and after authentication" {
    var limits: Limits = .init(testing.allocator, &.{
        .max_connections = 5,
        .max_unauthenticated = 3,
        .max_unauthenticated_per_ip = 2,
    });
    defer limits.deinit();
    const a = try testSource("10.0.0.1");
    const b = try testSource("10.0.0.2");
    try testing.expectEqual(null, limits.admit(a));
    try testing.expectEqual(null, limits.admit(a));
    try testing.expectEqual(.max_unauthenticated_per_ip, limits.admit(a).?);
    try testing.expectEqual(null, limits.admit(b));
    try testing.expectEqual(.max_unauthenticated, limits.admit(b).?);
    limits.authenticated(a);
    limits.authenticated(a);
    try testing.expectEqual(null, limits.admit(a));
    limits.authenticated(a);
    try testing.expectEqual(null, limits.admit(a));
    try testing.expectEqual(.max_connections, limits.admit(b).?);
    limits.leave(a, true);
    limits.leave(a, true);
    limits.leave(a, true);
    limits.leave(a, false);
    limits.leave(b, false);
    try testing.expectEqual(0, limits.connections);
    try testing.expectEqual(0, limits.unauthenticated);
    try testing.expectEqual(0, limits.sources.count());
}

test "a connection without a source counts, and gets its source later" {
    var limits: Limits = .init(testing.allocator, &.{
        .max_unauthenticated = 2,
        .max_unauthenticated_per_ip = 1,
    });
    defer limits.deinit();
    const a = try testSource("10.0.0.1");
    try testing.expectEqual(null, limits.admit(null));
    try testing.expectEqual(null, limits.admit(null));
    try testing.expectEqual(.max_unauthenticated, limits.admit(null).?);
    try testing.expectEqual(null, limits.identify(a));
    try testing.expectEqual(.max_unauthenticated_per_ip, limits.identify(a).?);
    limits.leave(null, false);
    limits.authenticated(a);
    limits.leave(a, true);
    try testing.expectEqual(0, limits.connections);
    try testing.expectEqual(0, limits.unauthenticated);
    try testing.expectEqual(0, limits.sources.count());
}

test "an IPv6 network counts as one source, a mapped IPv4 address as itself" {
    try testing.expectEqual(try testSource("2001:db8::1"), try testSource("2001:db8::2:3"));
    try testing.expectEqual(try testSource("10.0.0.1"), try testSource("::ffff:10.0.0.1"));
    try testing.expect(!std.meta.eql(try testSource("10.0.0.1"), try testSource("10.0.0.2")));
}
