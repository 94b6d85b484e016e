//! Readiness of file descriptors: epoll on Linux, kqueue elsewhere. Level-triggered.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const linux = std.os.linux;

const use_epoll = builtin.os.tag == .linux;

pub const Interest = packed struct(u3) {
    read: bool = false,
    write: bool = false,
    /// Several pollers watch it: on Linux not all of them are woken. Not to be changed later.
    exclusive: bool = false,

    pub const none: Interest = .{};
};

pub const Ready = struct { token: u64 };

pub const Poller = struct {
    fd: posix.fd_t,

    pub const events_max = 128;

    pub fn init() !Poller {
        if (use_epoll) return .{ .fd = try posix.epoll_create1(linux.EPOLL.CLOEXEC) };
        const fd = try posix.kqueue();
        _ = try posix.fcntl(fd, posix.F.SETFD, posix.FD_CLOEXEC);
        return .{ .fd = fd };
    }

    pub fn deinit(poller: *Poller) void {
        posix.close(poller.fd);
    }

    /// Waits until something is ready or `timeout_ms` is over (null: for ever) and returns the
    /// tokens. One token may come twice. A hang-up or error counts as ready.
    pub fn wait(poller: *Poller, buffer: *[events_max]Ready, timeout_ms: ?u31) []Ready {
        return if (use_epoll) waitEpoll(poller, buffer, timeout_ms) else waitKqueue(
            poller,
            buffer,
            timeout_ms,
        );
    }

    fn waitEpoll(poller: *Poller, buffer: *[events_max]Ready, timeout_ms: ?u31) []Ready {
        var events: [events_max]linux.epoll_event = undefined;
        const count = posix.epoll_wait(poller.fd, &events, if (timeout_ms) |ms| ms else -1);
        for (buffer[0..count], events[0..count]) |*ready, event| {
            ready.* = .{ .token = event.data.u64 };
        }
        return buffer[0..count];
    }

    fn waitKqueue(poller: *Poller, buffer: *[events_max]Ready, timeout_ms: ?u31) []Ready {
        var events: [events_max]posix.Kevent = undefined;
        var timeout: posix.timespec = undefined;
        if (timeout_ms) |ms| timeout = .{
            .sec = ms / 1000,
            .nsec = @as(isize, ms % 1000) * std.time.ns_per_ms,
        };
        const timeout_ptr: ?*const posix.timespec = if (timeout_ms == null) null else &timeout;
        // Only programming errors and a signal can fail here; the loop simply comes again.
        const count = posix.kevent(poller.fd, &.{}, &events, timeout_ptr) catch 0;
        for (buffer[0..count], events[0..count]) |*ready, event| {
            ready.* = .{ .token = @intCast(event.udata) };
        }
        return buffer[0..count];
    }

    fn change(poller: *Poller, fd: posix.fd_t, token: u64, old: Interest, new: Interest) !void {
        if (use_epoll) return changeEpoll(poller, fd, token, old, new);
        try changeFilter(poller, fd, token, std.c.EVFILT.READ, old.read, new.read);
        try changeFilter(poller, fd, token, std.c.EVFILT.WRITE, old.write, new.write);
    }

    fn changeEpoll(
        poller: *Poller,
        fd: posix.fd_t,
        token: u64,
        old: Interest,
        new: Interest,
    ) !void {
        // Without interest the descriptor leaves: epoll would report its hang-up for ever.
        const op: u32 = if (new == Interest.none)
            linux.EPOLL.CTL_DEL
        else if (old == Interest.none) linux.EPOLL.CTL_ADD else linux.EPOLL.CTL_MOD;
        var event: linux.epoll_event = .{ .events = 0, .data = .{ .u64 = token } };
        if (new.read) event.events |= linux.EPOLL.IN;
        if (new.write) event.events |= linux.EPOLL.OUT;
        if (new.exclusive) event.events |= linux.EPOLL.EXCLUSIVE;
        try posix.epoll_ctl(poller.fd, op, fd, &event);
    }

    fn changeFilter(
        poller: *Poller,
        fd: posix.fd_t,
        token: u64,
        filter: i16,
        old: bool,
        new: bool,
    ) !void {
        if (old == new) return;
        const events = [1]posix.Kevent{.{
            .ident = @intCast(fd),
            .filter = filter,
            .flags = if (new) std.c.EV.ADD else std.c.EV.DELETE,
            .fflags = 0,
            .data = 0,
            .udata = @intCast(token),
        }};
        _ = try posix.kevent(poller.fd, &events, &.{}, null);
    }

    /// kqueue only: one event when the child ends. Linux has pidfds for it.
    pub fn watchExit(poller: *Poller, pid: posix.pid_t, token: u64) !void {
        comptime std.debug.assert(!use_epoll);
        const events = [1]posix.Kevent{.{
            .ident = @intCast(pid),
            .filter = std.c.EVFILT.PROC,
            .flags = std.c.EV.ADD | std.c.EV.ONESHOT,
            .fflags = std.c.NOTE.EXIT,
            .data = 0,
            .udata = @intCast(token),
        }};
        _ = try posix.kevent(poller.fd, &events, &.{}, null);
    }
};

/// One descriptor in a poller. Remembers what is asked for, so that asking again costs nothing.
pub const Watch = struct {
    fd: posix.fd_t,
    token: u64,
    interest: Interest = .none,

    pub fn set(watch: *Watch, poller: *Poller, interest: Interest) !void {
        if (watch.interest == interest) return;
        try poller.change(watch.fd, watch.token, watch.interest, interest);
        watch.interest = interest;
    }

    /// Takes the descriptor out and closes it.
    pub fn close(watch: *Watch, poller: *Poller) void {
        posix.close(watch.release(poller));
    }

    /// Takes the descriptor out and hands it over.
    pub fn release(watch: *Watch, poller: *Poller) posix.fd_t {
        // It can only fail when it is not registered, which is what is wanted.
        watch.set(poller, .none) catch {};
        defer watch.fd = -1;
        return watch.fd;
    }
};

/// Ends a `wait` of another thread.
pub const Waker = struct {
    read_fd: posix.fd_t,
    write_fd: posix.fd_t,

    pub fn init() !Waker {
        const fds = try posix.pipe2(.{ .CLOEXEC = true, .NONBLOCK = true });
        return .{ .read_fd = fds[0], .write_fd = fds[1] };
    }

    pub fn deinit(waker: *Waker) void {
        posix.close(waker.read_fd);
        posix.close(waker.write_fd);
    }

    pub fn wake(waker: *const Waker) void {
        // A full pipe wakes as well as one byte more.
        _ = posix.write(waker.write_fd, "w") catch {};
    }

    pub fn drain(waker: *const Waker) void {
        var buffer: [64]u8 = undefined;
        while (true) {
            const count = posix.read(waker.read_fd, &buffer) catch return; // WouldBlock: empty
            if (count < buffer.len) return;
        }
    }
};

const testing = std.testing;

test "a descriptor is reported while it is ready and asked for" {
    var poller = try Poller.init();
    defer poller.deinit();
    var waker = try Waker.init();
    defer waker.deinit();
    var watch: Watch = .{ .fd = try posix.dup(waker.read_fd), .token = 42 };
    defer watch.close(&poller);
    var buffer: [Poller.events_max]Ready = undefined;
    try watch.set(&poller, .{ .read = true });
    try testing.expectEqual(0, poller.wait(&buffer, 0).len);
    waker.wake();
    try testing.expectEqual(42, poller.wait(&buffer, null)[0].token);
    try testing.expectEqual(1, poller.wait(&buffer, 0).len);
    try watch.set(&poller, .none);
    try testing.expectEqual(0, poller.wait(&buffer, 0).len);
    try watch.set(&poller, .{ .read = true });
    waker.drain();
    try testing.expectEqual(0, poller.wait(&buffer, 0).len);
}
