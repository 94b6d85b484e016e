//! The two fcntl and setsockopt calls that std leaves out.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;

/// A duplicate, at least `lowest`, that no child inherits.
pub fn duplicate(fd: posix.fd_t, lowest: posix.fd_t) posix.FcntlError!posix.fd_t {
    const F_DUPFD_CLOEXEC = if (builtin.os.tag == .linux) 1030 else 67;
    return @intCast(try posix.fcntl(fd, F_DUPFD_CLOEXEC, @intCast(lowest)));
}

/// Small writes leave at once.
pub fn noDelay(fd: posix.fd_t) void {
    setTcpFlag(fd, posix.TCP.NODELAY);
}

/// The next segment is acknowledged at once: OpenSSH's client waits for it (Nagle) before it
/// sends its next small packet, up to 40 ms. Linux forgets the flag, so set it after each read.
pub fn quickAck(fd: posix.fd_t) void {
    if (builtin.os.tag == .linux) setTcpFlag(fd, std.os.linux.TCP.QUICKACK);
}

fn setTcpFlag(fd: posix.fd_t, flag: u32) void {
    const on: c_int = 1;
    // Only makes things faster; fails when the peer has just gone. On macOS with EINVAL, which
    // std's own function takes for a bug.
    _ = std.c.setsockopt(fd, posix.IPPROTO.TCP, flag, &on, @sizeOf(c_int));
}

test "a descriptor without such flags is left as it is" {
    const fds = try posix.pipe();
    for (fds) |fd| {
        noDelay(fd);
        quickAck(fd);
        posix.close(fd);
    }
}
