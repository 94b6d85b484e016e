//! Signals become readable bytes on a pipe, so that the one loop waits for them as for the rest.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const raw_mode = @import("raw_mode.zig");

/// What the loop acts on.
const handled = [_]u8{
    posix.SIG.CHLD, posix.SIG.WINCH, posix.SIG.CONT, posix.SIG.TERM,
    posix.SIG.INT,  posix.SIG.HUP,   posix.SIG.QUIT,
};

/// A viewer that went away, or a recording that may not grow, is an error of write(2) and no
/// reason to end.
const ignored = [_]u8{ posix.SIG.PIPE, posix.SIG.XFSZ };

/// What would end this process and leave the terminal raw.
const fatal = [_]u8{
    posix.SIG.SEGV, posix.SIG.BUS,  posix.SIG.ILL,    posix.SIG.FPE,  posix.SIG.ABRT,
    posix.SIG.TRAP, posix.SIG.SYS,  posix.SIG.USR1,   posix.SIG.USR2, posix.SIG.ALRM,
    posix.SIG.PROF, posix.SIG.XCPU, posix.SIG.VTALRM,
};

pub const Set = std.bit_set.IntegerBitSet(65);

var pipe_write: posix.fd_t = -1;

/// Installs the handlers and returns the end of the pipe to wait for.
pub fn install() posix.PipeError!posix.fd_t {
    const ends = try posix.pipe2(.{ .CLOEXEC = true, .NONBLOCK = true });
    pipe_write = ends[1];
    const notify: posix.Sigaction = .{
        .handler = .{ .handler = onSignal },
        .mask = posix.sigemptyset(),
        .flags = posix.SA.RESTART,
    };
    for (handled) |signal| if (!ignoredByParent(signal)) posix.sigaction(signal, &notify, null);
    const die: posix.Sigaction = .{
        .handler = .{ .handler = onFatal },
        .mask = posix.sigemptyset(),
        .flags = posix.SA.RESETHAND,
    };
    for (fatal) |signal| posix.sigaction(signal, &die, null);
    const ignore: posix.Sigaction = .{
        .handler = .{ .handler = posix.SIG.IGN },
        .mask = posix.sigemptyset(),
        .flags = 0,
    };
    for (ignored) |signal| posix.sigaction(signal, &ignore, null);
    // A parent that blocks signals would leave us without our child's end.
    posix.sigprocmask(posix.SIG.SETMASK, &posix.sigemptyset(), null);
    return ends[0];
}

/// `nohup`, and a shell that puts a job in the background, say so by ignoring these for us.
fn ignoredByParent(signal: u8) bool {
    switch (signal) {
        posix.SIG.HUP, posix.SIG.INT, posix.SIG.QUIT => {},
        else => return false,
    }
    var current: posix.Sigaction = undefined;
    posix.sigaction(signal, null, &current);
    return current.handler.handler == posix.SIG.IGN;
}

/// Gives the terminal back; then the signal, which has its default effect again, does the rest.
fn onFatal(signal: c_int) callconv(.c) void {
    raw_mode.restore();
    posix.raise(@intCast(signal)) catch {}; // then the faulting instruction raises it again
}

fn onSignal(signal: c_int) callconv(.c) void {
    const byte = [_]u8{@intCast(signal)};
    // A full pipe already wakes the loop. errno is the interrupted code's own.
    if (builtin.os.tag == .linux) {
        _ = std.os.linux.write(pipe_write, &byte, 1);
    } else {
        const errno = std.c._errno().*;
        _ = std.c.write(pipe_write, &byte, 1);
        std.c._errno().* = errno;
    }
}

/// The signals that arrived since the last call, each once.
pub fn drain(fd: posix.fd_t) Set {
    var set: Set = .initEmpty();
    var bytes: [64]u8 = undefined;
    while (true) {
        const n = posix.read(fd, &bytes) catch return set; // WouldBlock: that was all
        for (bytes[0..n]) |signal| set.set(signal);
        if (n < bytes.len) return set;
    }
}

test "signals arrive through the pipe, each once" {
    const fd = try install();
    defer @import("spawn.zig").resetSignals();
    defer posix.close(fd);
    for ([_]u8{ posix.SIG.WINCH, posix.SIG.WINCH, posix.SIG.TERM }) |s| try posix.raise(s);
    const set = drain(fd);
    try std.testing.expectEqual(2, set.count());
    try std.testing.expect(set.isSet(posix.SIG.WINCH) and set.isSet(posix.SIG.TERM));
    try std.testing.expectEqual(0, drain(fd).count());
    posix.close(pipe_write);
}
