//! A process together with the notice of its end in an event loop.

const std = @import("std");
const builtin = @import("builtin");
const poller_module = @import("poller.zig");
const Process = @import("process.zig").Process;

pub const Child = struct {
    process: Process,
    exit_watch: ?poller_module.Watch = null,

    /// `token` comes out of the poller when the process ends. Where that cannot be had, the loop's
    /// tick finds out.
    pub fn watch(child: *Child, poller: *poller_module.Poller, token: u64) void {
        if (builtin.os.tag == .linux) {
            if (child.process.pidfd < 0) return;
            var exit_watch: poller_module.Watch = .{ .fd = child.process.pidfd, .token = token };
            exit_watch.set(poller, .{ .read = true }) catch return;
            child.exit_watch = exit_watch;
        } else {
            poller.watchExit(child.process.pid, token) catch return;
        }
    }

    /// Once the process has ended.
    pub fn close(child: *Child, poller: *poller_module.Poller) void {
        child.stopWatching(poller);
        child.process.close();
    }

    pub fn stopWatching(child: *Child, poller: *poller_module.Poller) void {
        // It can only fail when it is not registered, which is what is wanted.
        if (child.exit_watch) |*it| it.set(poller, .none) catch {};
        child.exit_watch = null;
    }
};
