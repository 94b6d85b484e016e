//! Tells of a child's end through a descriptor, for a library that must leave SIGCHLD to its host:
//! a pidfd on Linux, a kqueue on macOS.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;

/// How often to look where the system has no such descriptor (before Linux 5.3).
pub const look_every_us = 20 * std.time.us_per_ms;

/// Readable once the child has ended; null where the system has none.
pub fn open(child: posix.pid_t) ?posix.fd_t {
    if (builtin.os.tag == .linux) {
        const linux = std.os.linux;
        const fd = linux.pidfd_open(child, 0); // close-on-exec by itself
        return if (linux.E.init(fd) == .SUCCESS) @intCast(fd) else null;
    }
    return openQueue(child) catch null;
}

fn openQueue(child: posix.pid_t) !posix.fd_t {
    const queue = try posix.kqueue();
    errdefer posix.close(queue);
    const change: posix.Kevent = .{
        .ident = @intCast(child),
        .filter = std.c.EVFILT.PROC,
        .flags = std.c.EV.ADD | std.c.EV.ONESHOT,
        .fflags = std.c.NOTE.EXIT,
        .data = 0,
        .udata = 0,
    };
    _ = try posix.kevent(queue, &.{change}, &.{}, null);
    return queue;
}

test "the end of a child is seen" {
    const spawn = @import("spawn.zig");
    const pty = @import("pty.zig");
    const pair: pty.Pty = try .open(.{ .cols = 80, .rows = 24 });
    defer posix.close(pair.master);
    const argv = [_:null]?[*:0]const u8{ "/bin/sh", "-c", "read x" };
    const pid = try spawn.spawn(.{ .terminal = pair.slave }, .{
        .argv = &argv,
        .envp = &[_:null]?[*:0]const u8{},
    });
    posix.close(pair.slave);
    const fd = open(pid) orelse return error.SkipZigTest; // an old kernel
    defer posix.close(fd);
    var fds = [_]posix.pollfd{.{ .fd = fd, .events = posix.POLL.IN, .revents = 0 }};
    try std.testing.expectEqual(0, try posix.poll(&fds, 0));
    _ = try posix.write(pair.master, "\n");
    try std.testing.expectEqual(1, try posix.poll(&fds, 5000));
    _ = spawn.reap(pid);
}
