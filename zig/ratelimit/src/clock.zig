//! Milliseconds of a clock that never steps, and what the host can say of its last start. The core
//! takes time as a parameter; lib.zig and main.zig get it here.
const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;

/// Windows at least this long are measured with the coarse clock, which lags by up to 4 ms and
/// costs a fifth.
pub const coarse_from_window_ms = 1000;

pub fn preciseMs() u64 {
    return read(.MONOTONIC);
}

pub inline fn coarseMs() u64 {
    return read(if (builtin.os.tag == .linux) .MONOTONIC_COARSE else .MONOTONIC);
}

pub inline fn forWindow(window_ms: u64) u64 {
    return if (window_ms >= coarse_from_window_ms) coarseMs() else preciseMs();
}

inline fn read(id: posix.clockid_t) u64 {
    // Fails only for a clock the system does not know; these two exist wherever this builds.
    const now = posix.clock_gettime(id) catch unreachable;
    return @as(u64, @intCast(now.sec)) * 1000 + @as(u64, @intCast(now.nsec)) / std.time.ns_per_ms;
}

pub const boot_id_bytes = 36;

/// Differs after every start of the host: times of the clock above mean nothing across one.
pub fn bootId() error{Unknown}![boot_id_bytes]u8 {
    var id: [boot_id_bytes]u8 = @splat(0);
    if (builtin.os.tag == .macos) {
        var buffer: [64]u8 = undefined;
        var len: usize = buffer.len;
        posix.sysctlbynameZ("kern.bootsessionuuid", &buffer, &len, null, 0) catch
            return error.Unknown;
        if (len < boot_id_bytes) return error.Unknown;
        id = buffer[0..boot_id_bytes].*;
    } else {
        const file = std.fs.openFileAbsoluteZ("/proc/sys/kernel/random/boot_id", .{}) catch
            return error.Unknown;
        defer file.close();
        const read_bytes = file.readAll(&id) catch return error.Unknown;
        if (read_bytes != boot_id_bytes) return error.Unknown;
    }
    return id;
}

test "the coarse clock lags behind the precise one by little" {
    const coarse = coarseMs();
    const precise = preciseMs();
    try std.testing.expect(coarse <= precise and precise - coarse < 1000);
}

test "the host has one boot id" {
    try std.testing.expectEqual(try bootId(), try bootId());
}
