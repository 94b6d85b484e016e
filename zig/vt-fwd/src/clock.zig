//! The two clocks. Only the executable reads them; the parts that are tested take the time.

const std = @import("std");
const posix = std.posix;

/// Microseconds that never go back.
pub fn monotonicUs() u64 {
    return in(.MONOTONIC, std.time.ns_per_us);
}

/// Milliseconds since 1970.
pub fn epochMs() u64 {
    return in(.REALTIME, std.time.ns_per_ms);
}

fn in(clock: posix.clockid_t, unit_ns: u64) u64 {
    const now = posix.clock_gettime(clock) catch return 0; // both clocks exist everywhere
    const seconds: u64 = @intCast(@max(0, now.sec));
    const nanoseconds: u64 = @intCast(now.nsec);
    return (seconds * std.time.ns_per_s + nanoseconds) / unit_ns;
}
