//! Raw mode of the terminal that the user sits at, and the way back, which is taken on every way
//! out: a normal end, a signal, a panic. That is why what to restore is global.

const std = @import("std");
const posix = std.posix;

var saved: ?posix.termios = null;
var saved_fd: posix.fd_t = -1;

/// Puts the terminal `fd` into raw mode as cfmakeraw(3) does. Again after a stop, when a shell has
/// set it otherwise. Nothing happens when it is no terminal.
pub fn enter(fd: posix.fd_t) void {
    const current = posix.tcgetattr(fd) catch return;
    if (saved == null) {
        saved = current;
        saved_fd = fd;
    }
    var raw = current;
    raw.iflag.IGNBRK = false;
    raw.iflag.BRKINT = false;
    raw.iflag.PARMRK = false;
    raw.iflag.ISTRIP = false;
    raw.iflag.INLCR = false;
    raw.iflag.IGNCR = false;
    raw.iflag.ICRNL = false;
    raw.iflag.IXON = false;
    raw.oflag.OPOST = false;
    raw.lflag.ECHO = false;
    raw.lflag.ECHONL = false;
    raw.lflag.ICANON = false;
    raw.lflag.ISIG = false;
    raw.lflag.IEXTEN = false;
    raw.cflag.CSIZE = .CS8;
    raw.cflag.PARENB = false;
    raw.cc[@intFromEnum(posix.V.MIN)] = 1;
    raw.cc[@intFromEnum(posix.V.TIME)] = 0;
    // When the terminal went away there is nothing to set.
    posix.tcsetattr(fd, .NOW, raw) catch {};
}

/// The terminal is raw: a line must end in "\r\n".
pub fn active() bool {
    return saved != null;
}

/// Safe at any time, in a signal handler too, and twice.
pub fn restore() void {
    const original = saved orelse return;
    saved = null;
    // From the background it must not stop this process, which is ending.
    var mask = posix.sigemptyset();
    posix.sigaddset(&mask, posix.SIG.TTOU);
    posix.sigprocmask(posix.SIG.BLOCK, &mask, null);
    posix.tcsetattr(saved_fd, .NOW, original) catch {}; // gone, then
    posix.sigprocmask(posix.SIG.UNBLOCK, &mask, null);
}

test "raw mode is entered and left as it was" {
    const pty: @import("pty.zig").Pty = try .open(.{ .cols = 80, .rows = 24 });
    defer posix.close(pty.master);
    defer posix.close(pty.slave);
    const before = try posix.tcgetattr(pty.slave);
    enter(pty.slave);
    try std.testing.expect(active());
    const raw = try posix.tcgetattr(pty.slave);
    try std.testing.expect(!raw.lflag.ICANON and !raw.lflag.ECHO and !raw.oflag.OPOST);
    enter(pty.slave);
    restore();
    restore();
    try std.testing.expect(!active());
    try std.testing.expectEqualDeep(before, try posix.tcgetattr(pty.slave));
}
