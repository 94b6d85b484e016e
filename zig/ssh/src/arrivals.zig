//! Connections from load balancers, until the PROXY header has said whose they are: one loop's.
//! libssh gets the socket only then, with not a byte missing that is the client's.

const std = @import("std");
const posix = std.posix;
const limits = @import("limits.zig");
const proxy_protocol = @import("proxy_protocol.zig");
const Loop = @import("loop.zig").Loop;
const Token = @import("loop.zig").Token;
const Watch = @import("poller.zig").Watch;

const Arrival = struct {
    watch: Watch,
    proxy: std.net.Address,
    accepted_ms: u64,
    len: usize = 0,
    buffer: [proxy_protocol.v2_max]u8 = undefined,
};

pub const Arrivals = struct {
    slots: std.ArrayListUnmanaged(Slot) = .empty,
    free: std.ArrayListUnmanaged(u24) = .empty,
    live: usize = 0,

    const Slot = struct { generation: u24, arrival: ?*Arrival };

    pub fn deinit(arrivals: *Arrivals, allocator: std.mem.Allocator) void {
        std.debug.assert(arrivals.live == 0);
        arrivals.slots.deinit(allocator);
        arrivals.free.deinit(allocator);
    }

    /// Takes over `fd`, which is counted in the limits without a source.
    pub fn add(arrivals: *Arrivals, loop: *Loop, fd: posix.fd_t, proxy: std.net.Address) void {
        arrivals.tryAdd(loop, fd, proxy) catch |err| {
            posix.close(fd);
            loop.server.limits.leave(null, false);
            loop.refuse(.warning, proxy, @errorName(err));
        };
    }

    fn tryAdd(arrivals: *Arrivals, loop: *Loop, fd: posix.fd_t, proxy: std.net.Address) !void {
        const allocator = loop.server.allocator;
        const index = try arrivals.freeIndex(allocator);
        const slot = &arrivals.slots.items[index];
        const arrival = try allocator.create(Arrival);
        errdefer allocator.destroy(arrival);
        const token: Token = .{
            .index = index,
            .generation = slot.generation,
            .number = 0,
            .kind = .arrival,
        };
        arrival.* = .{
            .watch = .{ .fd = fd, .token = @bitCast(token) },
            .proxy = proxy,
            .accepted_ms = loop.now_ms,
        };
        try arrival.watch.set(&loop.poller, .{ .read = true });
        slot.arrival = arrival;
        _ = arrivals.free.pop();
        arrivals.live += 1;
    }

    /// The last one of `free`.
    fn freeIndex(arrivals: *Arrivals, allocator: std.mem.Allocator) !u24 {
        if (arrivals.free.getLastOrNull()) |index| return index;
        const index = arrivals.slots.items.len;
        if (index > std.math.maxInt(u24)) return error.TooMany;
        try arrivals.free.ensureTotalCapacity(allocator, index + 1);
        try arrivals.slots.append(allocator, .{ .generation = 0, .arrival = null });
        arrivals.free.appendAssumeCapacity(@intCast(index));
        return @intCast(index);
    }

    /// Something has come, or the proxy has hung up.
    pub fn read(arrivals: *Arrivals, loop: *Loop, token: Token) void {
        const slot = &arrivals.slots.items[token.index];
        if (slot.generation != token.generation) return;
        const arrival = slot.arrival orelse return;
        const header = readHeader(arrival) catch |err| return switch (err) {
            // A load balancer that only asks whether the port is open.
            error.Closed => arrivals.refuse(loop, token.index, .debug, "proxy_closed"),
            error.Missing => arrivals.refuse(loop, token.index, .warning, "proxy_missing"),
            error.Malformed => arrivals.refuse(loop, token.index, .warning, "proxy_malformed"),
        };
        if (header) |it| arrivals.finish(loop, token.index, it);
    }

    /// Takes from the socket what belongs to the header and not a byte more; null: there is more
    /// to come.
    fn readHeader(
        arrival: *Arrival,
    ) (proxy_protocol.Error || error{Closed})!?proxy_protocol.Header {
        const room = arrival.buffer[arrival.len..];
        const seen = receive(arrival.watch.fd, room, posix.MSG.PEEK) catch |err| switch (err) {
            error.WouldBlock => return null,
            error.Closed => return error.Closed,
        };
        const result = try proxy_protocol.parse(arrival.buffer[0 .. arrival.len + seen]);
        const count = switch (result) {
            .more => seen,
            .header => |header| header.len - arrival.len,
        };
        // What has been seen is there.
        const taken = receive(arrival.watch.fd, room[0..count], 0) catch return error.Closed;
        if (taken != count) return error.Closed;
        arrival.len += count;
        return switch (result) {
            .more => null,
            .header => |header| header,
        };
    }

    fn receive(fd: posix.fd_t, buffer: []u8, flags: u32) error{ WouldBlock, Closed }!usize {
        const count = posix.recv(fd, buffer, flags) catch |err| switch (err) {
            error.WouldBlock => return error.WouldBlock,
            else => return error.Closed,
        };
        return if (count == 0) error.Closed else count;
    }

    fn finish(
        arrivals: *Arrivals,
        loop: *Loop,
        index: u24,
        header: proxy_protocol.Header,
    ) void {
        const arrival = arrivals.slots.items[index].arrival.?;
        const proxy = arrival.proxy;
        const client = header.source orelse proxy;
        const from = limits.source(client);
        if (loop.server.limits.identify(from)) |refusal| {
            arrivals.close(loop, index);
            return loop.refuse(.warning, client, @tagName(refusal));
        }
        const accepted_ms = arrival.accepted_ms;
        const fd = arrivals.release(loop, index);
        loop.connect(.{ .fd = fd, .client = client, .proxy = proxy, .accepted_ms = accepted_ms });
    }

    fn refuse(
        arrivals: *Arrivals,
        loop: *Loop,
        index: u24,
        level: @import("events.zig").Level,
        reason: []const u8,
    ) void {
        const proxy = arrivals.slots.items[index].arrival.?.proxy;
        arrivals.close(loop, index);
        loop.refuse(level, proxy, reason);
    }

    fn close(arrivals: *Arrivals, loop: *Loop, index: u24) void {
        posix.close(arrivals.release(loop, index));
        loop.server.limits.leave(null, false);
    }

    /// Gives back the slot; the socket is the caller's again.
    fn release(arrivals: *Arrivals, loop: *Loop, index: u24) posix.fd_t {
        const slot = &arrivals.slots.items[index];
        const arrival = slot.arrival.?;
        const fd = arrival.watch.fd;
        // It can only fail when it is not registered, which is what is wanted.
        arrival.watch.set(&loop.poller, .none) catch {};
        loop.server.allocator.destroy(arrival);
        slot.* = .{ .generation = slot.generation +% 1, .arrival = null };
        arrivals.free.appendAssumeCapacity(index);
        arrivals.live -= 1;
        return fd;
    }

    /// Called a few times a second.
    pub fn checkTimers(arrivals: *Arrivals, loop: *Loop) void {
        if (arrivals.live == 0) return;
        const grace_ms = @as(u64, loop.server.config.login_grace_s) * 1000;
        const stopping = loop.server.isStopping();
        for (arrivals.slots.items, 0..) |slot, index| {
            const arrival = slot.arrival orelse continue;
            if (stopping) {
                arrivals.close(loop, @intCast(index));
            } else if (loop.now_ms - arrival.accepted_ms >= grace_ms) {
                arrivals.refuse(loop, @intCast(index), .warning, "proxy_timeout");
            }
        }
    }
};
