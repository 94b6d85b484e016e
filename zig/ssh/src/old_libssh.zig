//! What libssh before 0.12.2 gets wrong, or does slower than it could, and a distribution may or
//! may not have mended under the same version number. Nothing here is needed from 0.12.2 on.

const std = @import("std");
const libssh = @import("libssh.zig");

/// The first release with all fixes of July 2026.
pub fn isFixed() bool {
    return libssh.ssh_version(0 << 16 | 12 << 8 | 2) != null;
}

/// Smallest maximum packet size that a channel is served with. RFC 4254 has no lower bound; real
/// clients ask for 16 KB and more.
const packet_min = 256;

/// False for a channel whose client asked for packets so small that libssh would write empty ones
/// for ever (CVE-2026-59843). There is no function that tells the size: it is read from libssh's
/// own structure, whose head has been the same from 0.8 to 0.11, and only where the values that
/// can be checked are right.
pub fn isPacketSizeUsable(session: *libssh.Session, channel: *libssh.Channel) bool {
    if (isFixed()) return true;
    const head: *const ChannelHead = @ptrCast(@alignCast(channel));
    const known = head.session == session and
        head.remote_window == libssh.ssh_channel_window_size(channel) and
        head.local_eof == 0 and (head.remote_eof == 0 or head.remote_eof == 1);
    return !known or head.remote_maxpacket >= packet_min;
}

/// The window that a channel in the middle of a push gets, in bytes. libssh 0.10 alone gives
/// 1.28 MB, which is 7.5 MB/s at a round trip of 170 ms; OpenSSH's sshd gives 2 MB.
pub const wide_window = 4 * 1024 * 1024;

/// Lets the client send `wide_window` bytes from now on. To be called when libssh holds nothing
/// of the channel. Should something have arrived meanwhile that nobody took, it is returned: a
/// part of `buffer`, which has `wide_window` bytes.
pub fn widen(channel: *libssh.Channel, buffer: []u8) []const u8 {
    std.debug.assert(buffer.len == wide_window);
    // A read of more than the window allows makes libssh 0.10 widen it; later ones do not.
    const got = libssh.ssh_channel_read_timeout(channel, buffer.ptr, wide_window, 0, 0);
    return if (got > 0) buffer[0..@intCast(got)] else &.{};
}

/// libssh/src/channels.h, struct ssh_channel_struct.
const ChannelHead = extern struct {
    session: *libssh.Session,
    local_channel: u32,
    local_window: u32,
    local_eof: c_int,
    local_maxpacket: u32,
    remote_channel: u32,
    remote_window: u32,
    remote_eof: c_int,
    remote_maxpacket: u32,
};
