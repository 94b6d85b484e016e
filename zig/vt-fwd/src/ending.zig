//! How a session ends: whoever asked for it waits only so long, and the child's last output is
//! waited for, but not for ever. It knows times, and nothing of processes or terminals.

const std = @import("std");

/// A child that was asked to end and did not is killed after this time.
const kill_after_us = 3 * std.time.us_per_s;

/// Whoever asked for the end does not wait longer than this for a terminal that takes nothing.
const abandon_after_us = 2 * std.time.us_per_s;

/// How long output may keep coming after the child's end, where another process holds the pty.
const drain_us = 2 * std.time.us_per_s;

/// The pty has nothing more to give when it was quiet this long after the child's end.
const drain_quiet_us = 100 * std.time.us_per_ms;

pub const Ending = struct {
    /// Known once the child is a zombie.
    exit_code: ?u8 = null,
    exited_us: u64 = 0,
    /// Since when the pty is drained after the child's end, and since when it was quiet. Time in
    /// which our own terminal took nothing does not count.
    drain_since_us: u64 = 0,
    quiet_since_us: u64 = 0,
    /// Somebody asked for the end: when to stop asking nicely.
    kill_at_us: ?u64 = null,
    requested: bool = false,
    /// A signal to us asked before.
    asked: bool = false,

    /// A signal to us, or our caller, asks for the end. False when that is the second time: the
    /// end of patience.
    pub fn ask(ending: *Ending, now: u64) bool {
        if (ending.asked) return false;
        ending.asked = true;
        ending.requested = true;
        ending.kill_at_us = now + kill_after_us;
        return true;
    }

    /// True once, when a child that was asked to end is still there.
    pub fn killIsDue(ending: *Ending, now: u64) bool {
        const at = ending.kill_at_us orelse return false;
        if (now < at) return false;
        ending.kill_at_us = null;
        return ending.exit_code == null;
    }

    pub fn childEnded(ending: *Ending, now: u64, code: u8) void {
        ending.exit_code = code;
        ending.exited_us = now;
        ending.outerIsFree(now);
    }

    /// Our own terminal has taken all there was.
    pub fn outerIsFree(ending: *Ending, now: u64) void {
        ending.drain_since_us = now;
        ending.quiet_since_us = now;
    }

    pub fn outputCame(ending: *Ending, now: u64) void {
        ending.quiet_since_us = now;
    }

    /// Whoever asked for the end has waited long enough for our terminal.
    pub fn givesUpOuter(ending: *const Ending, now: u64) bool {
        return ending.exit_code != null and ending.requested and
            now >= ending.exited_us + abandon_after_us;
    }

    /// Nothing more will come, if nothing came at a last look.
    pub fn isQuiet(ending: *const Ending, now: u64) bool {
        return ending.exit_code != null and now >= ending.drainDeadline();
    }

    /// Whatever may still come is not waited for.
    pub fn drainIsOver(ending: *const Ending, now: u64) bool {
        return now >= ending.drain_since_us + drain_us;
    }

    fn drainDeadline(ending: *const Ending) u64 {
        return @min(ending.quiet_since_us + drain_quiet_us, ending.drain_since_us + drain_us);
    }

    /// The moment at which there is something to decide; `outer_waits` for our own terminal.
    pub fn deadline(ending: *const Ending, outer_waits: bool) ?u64 {
        if (ending.exit_code == null) return ending.kill_at_us;
        if (!outer_waits) return ending.drainDeadline();
        return if (ending.requested) ending.exited_us + abandon_after_us else null;
    }
};

const testing = std.testing;
const s = std.time.us_per_s;

test "a child that was asked to end is killed after three seconds, once" {
    var ending: Ending = .{};
    try testing.expectEqual(null, ending.deadline(false));
    try testing.expect(ending.ask(1 * s));
    try testing.expect(!ending.ask(2 * s));
    try testing.expectEqual(4 * s, ending.deadline(false).?);
    try testing.expect(!ending.killIsDue(4 * s - 1));
    try testing.expect(ending.killIsDue(4 * s));
    try testing.expect(!ending.killIsDue(5 * s));
}

test "a child that has ended is not killed" {
    var ending: Ending = .{};
    try testing.expect(ending.ask(1 * s));
    ending.childEnded(2 * s, 0);
    try testing.expect(!ending.killIsDue(9 * s));
}

test "the end is quiet for a tenth of a second, or noisy for two" {
    var ending: Ending = .{};
    try testing.expect(!ending.isQuiet(9 * s));
    ending.childEnded(1 * s, 0);
    try testing.expect(!ending.isQuiet(1 * s + drain_quiet_us - 1));
    try testing.expect(ending.isQuiet(1 * s + drain_quiet_us));
    ending.outputCame(3 * s - 10);
    try testing.expect(!ending.isQuiet(3 * s - 1));
    try testing.expect(!ending.drainIsOver(3 * s - 1));
    try testing.expect(ending.isQuiet(3 * s));
    try testing.expect(ending.drainIsOver(3 * s));
}

test "a terminal that takes nothing is waited for, unless somebody asked for the end" {
    var ending: Ending = .{};
    ending.childEnded(1 * s, 0);
    try testing.expectEqual(null, ending.deadline(true));
    try testing.expect(!ending.givesUpOuter(60 * s));
    try testing.expect(ending.ask(60 * s));
    try testing.expect(ending.givesUpOuter(60 * s));
}
