//! The pseudoterminal: opened, sized, and asked how it is set. On Linux through /dev/ptmx, which
//! needs no libc; on macOS through openpty(3).

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const Size = @import("asciicast.zig").Size;

const is_linux = builtin.os.tag == .linux;

const request = if (is_linux) struct {
    const get_size = posix.T.IOCGWINSZ;
    const set_size = posix.T.IOCSWINSZ;
    const set_controlling = posix.T.IOCSCTTY;
} else struct { // <sys/ttycom.h>
    const get_size = 0x40087468;
    const set_size = 0x80087467;
    const set_controlling = 0x20007461;
};

extern "c" fn openpty(
    master: *c_int,
    slave: *c_int,
    name: ?[*]u8,
    termios: ?*const anyopaque,
    size: ?*const anyopaque,
) c_int;

pub const Pty = struct {
    /// Ours: non-blocking, not inherited by programs.
    master: posix.fd_t,
    /// The child's; closed here once the child has it.
    slave: posix.fd_t,

    pub fn open(size: Size) !Pty {
        const pty: Pty = if (is_linux) try openLinux() else try openLibc();
        errdefer pty.close();
        // The line editor of the tty erases whole characters.
        if (posix.tcgetattr(pty.slave)) |attributes| {
            var utf8 = attributes;
            utf8.iflag.IUTF8 = true;
            posix.tcsetattr(pty.slave, .NOW, utf8) catch {}; // only erasing would be less pretty
        } else |_| {}
        setSize(pty.master, size);
        return pty;
    }

    pub fn close(pty: Pty) void {
        posix.close(pty.master);
        posix.close(pty.slave);
    }
};

fn openLinux() !Pty {
    const flags: posix.O = .{ .ACCMODE = .RDWR, .NOCTTY = true, .CLOEXEC = true };
    var master_flags = flags;
    master_flags.NONBLOCK = true;
    const master = try posix.openZ("/dev/ptmx", master_flags, 0);
    errdefer posix.close(master);
    var unlock: c_int = 0;
    if (ioctl(master, posix.T.IOCSPTLCK, @intFromPtr(&unlock)) != .SUCCESS) return error.NoPty;
    // TIOCGPTPEER opens the slave wherever devpts is mounted (Linux 4.13).
    const slave_flags: u32 = @bitCast(flags);
    const peer = std.os.linux.ioctl(master, posix.T.IOCGPTPEER, slave_flags);
    if (std.os.linux.E.init(peer) == .SUCCESS) {
        return .{ .master = master, .slave = @intCast(peer) };
    }
    var number: c_uint = 0;
    if (ioctl(master, posix.T.IOCGPTN, @intFromPtr(&number)) != .SUCCESS) return error.NoPty;
    var path_buffer: [32]u8 = undefined;
    const path = std.fmt.bufPrintZ(&path_buffer, "/dev/pts/{d}", .{number}) catch
        unreachable; // ten digits fit
    return .{ .master = master, .slave = try posix.openZ(path, flags, 0) };
}

fn openLibc() !Pty {
    var pty: Pty = undefined;
    if (openpty(&pty.master, &pty.slave, null, null, null) != 0) return error.NoPty;
    errdefer pty.close();
    for ([_]posix.fd_t{ pty.master, pty.slave }) |fd| {
        _ = try posix.fcntl(fd, posix.F.SETFD, posix.FD_CLOEXEC);
    }
    const nonblock: u32 = @bitCast(posix.O{ .NONBLOCK = true });
    _ = try posix.fcntl(pty.master, posix.F.SETFL, nonblock);
    return pty;
}

/// Makes `slave` the controlling terminal of this process, which leads a session.
pub fn makeControlling(slave: posix.fd_t) !void {
    if (ioctl(slave, request.set_controlling, 0) != .SUCCESS) return error.NotControlling;
}

/// The kernel tells the foreground programs with SIGWINCH when this changes anything.
pub fn setSize(fd: posix.fd_t, size: Size) void {
    const wanted: posix.winsize = .{ .col = size.cols, .row = size.rows, .xpixel = 0, .ypixel = 0 };
    _ = ioctl(fd, request.set_size, @intFromPtr(&wanted)); // it cannot fail on an open pty
}

/// Null when `fd` is not a terminal, or one that does not know its size.
pub fn getSize(fd: posix.fd_t) ?Size {
    var size: posix.winsize = undefined;
    if (ioctl(fd, request.get_size, @intFromPtr(&size)) != .SUCCESS) return null;
    if (size.col == 0 or size.row == 0) return null;
    return .{ .cols = size.col, .rows = size.row };
}

/// Whole lines are read and not shown: what is typed now is a password.
pub fn asksForPassword(master: posix.fd_t) bool {
    const attributes = posix.tcgetattr(master) catch return false;
    return attributes.lflag.ICANON and !attributes.lflag.ECHO;
}

fn ioctl(fd: posix.fd_t, number: u32, argument: usize) posix.E {
    if (is_linux) return std.os.linux.E.init(std.os.linux.ioctl(fd, number, argument));
    return posix.errno(std.c.ioctl(fd, @bitCast(number), argument));
}

const testing = std.testing;

test "a pty has the size it was given, passes bytes, and knows a password prompt" {
    const pty: Pty = try .open(.{ .cols = 101, .rows = 37 });
    defer pty.close();
    try testing.expect(getSize(pty.slave).?.eql(.{ .cols = 101, .rows = 37 }));
    setSize(pty.master, .{ .cols = 1, .rows = 65535 });
    try testing.expect(getSize(pty.slave).?.eql(.{ .cols = 1, .rows = 65535 }));
    setSize(pty.master, .{ .cols = 0, .rows = 0 });
    try testing.expectEqual(null, getSize(pty.slave));

    var attributes = try posix.tcgetattr(pty.slave);
    try testing.expect(attributes.iflag.IUTF8);
    try testing.expect(!asksForPassword(pty.master));
    attributes.lflag.ECHO = false;
    try posix.tcsetattr(pty.slave, .NOW, attributes);
    try testing.expect(asksForPassword(pty.master));
    attributes.lflag.ICANON = false; // as a line editor does
    try posix.tcsetattr(pty.slave, .NOW, attributes);
    try testing.expect(!asksForPassword(pty.master));

    _ = try posix.write(pty.slave, "a\n");
    var buffer: [8]u8 = undefined;
    try testing.expectEqualStrings("a\r\n", buffer[0..try posix.read(pty.master, &buffer)]);
    try testing.expectError(error.WouldBlock, posix.read(pty.master, &buffer));
}
