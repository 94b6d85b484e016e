//! Gits whose client has left, until they have ended: one loop's. A push that has arrived whole is
//! let finish, and its answer is still read: what it updates is noticed although nobody waits.

const std = @import("std");
const posix = std.posix;
const Child = @import("child.zig").Child;
const Loop = @import("loop.zig").Loop;
const Push = @import("push.zig").Push;
const Watch = @import("poller.zig").Watch;

/// Reads of one git's output in one turn.
const reads_per_turn = 64;

/// The output of a push, which is read to its end so that git can write it.
pub const Output = struct {
    /// Standard output and standard error; null once they have ended.
    pipes: [2]?posix.fd_t,
    push: ?*Push,
};

const Orphan = struct {
    child: Child,
    pipes: [2]?Watch = .{ null, null },
    push: ?*Push,
    term_at_ms: u64,
    kill_at_ms: u64,
    last_signal: u8 = 0,

    fn signal(orphan: *Orphan, number: u8) void {
        if (orphan.last_signal == number) return;
        orphan.last_signal = number;
        orphan.child.process.signalGroup(number);
    }

    fn drain(orphan: *Orphan, loop: *Loop) void {
        read(&orphan.pipes[0], loop, orphan.push);
        read(&orphan.pipes[1], loop, null);
    }

    fn read(slot: *?Watch, loop: *Loop, push: ?*Push) void {
        const watch = if (slot.*) |*watch| watch else return;
        for (0..reads_per_turn) |_| {
            const count = posix.read(watch.fd, loop.buffer) catch |err| switch (err) {
                error.WouldBlock => return,
                else => 0,
            };
            if (count == 0) {
                watch.close(&loop.poller);
                slot.* = null;
                return;
            }
            if (push) |it| it.afterRead(loop.buffer[0..count]);
        }
    }

    /// It has ended.
    fn finish(orphan: *Orphan, loop: *Loop) void {
        orphan.drain(loop);
        orphan.child.close(&loop.poller);
        for (&orphan.pipes) |*slot| {
            if (slot.*) |*watch| watch.close(&loop.poller);
        }
        if (orphan.push) |push| push.finish();
    }
};

pub const Orphans = struct {
    list: std.ArrayListUnmanaged(Orphan) = .empty,

    pub fn deinit(orphans: *Orphans, allocator: std.mem.Allocator) void {
        std.debug.assert(orphans.list.items.len == 0);
        orphans.list.deinit(allocator);
    }

    /// Takes over a git whose client has left, to be reaped: told to end, killed after the grace.
    ///
    /// With `output` it is a push, which has time to end by itself after the end of its input:
    /// receive-pack then removes a half push, while a signal, SIGPIPE too, lets it remove files
    /// that its unpacker still writes; and a whole one it finishes.
    pub fn adopt(orphans: *Orphans, loop: *Loop, child: Child, output: ?Output) void {
        const config = &loop.server.config;
        const push_grace_ms = @as(u64, config.push_grace_s) * 1000;
        const term_at_ms = loop.now_ms + if (output == null) 0 else push_grace_ms;
        var orphan: Orphan = .{
            .child = child,
            .push = if (output) |it| it.push else null,
            .term_at_ms = term_at_ms,
            .kill_at_ms = term_at_ms + @as(u64, config.kill_grace_s) * 1000,
        };
        const token = Loop.loopToken(.orphan);
        if (output) |it| for (&orphan.pipes, it.pipes) |*slot, pipe| {
            if (pipe) |fd| slot.* = .{ .fd = fd, .token = token };
        };
        orphan.child.stopWatching(&loop.poller);
        if (orphan.child.process.poll() != null) return orphan.finish(loop);
        if (output == null) orphan.signal(posix.SIG.TERM);
        orphans.list.ensureUnusedCapacity(loop.server.allocator, 1) catch {
            // No memory even for this: end it at once and wait for it.
            orphan.signal(posix.SIG.KILL);
            while (orphan.child.process.poll() == null) std.Thread.sleep(std.time.ns_per_ms);
            return orphan.finish(loop);
        };
        orphan.child.watch(&loop.poller, token);
        for (&orphan.pipes) |*slot| {
            // Without memory for it the tick reads.
            if (slot.*) |*watch| watch.set(&loop.poller, .{ .read = true }) catch {};
        }
        orphans.list.appendAssumeCapacity(orphan);
    }

    /// Something has happened to one of them, or time has passed.
    pub fn attend(orphans: *Orphans, loop: *Loop) void {
        const stopping = loop.server.isKilling(loop.now_ms);
        var i: usize = 0;
        while (i < orphans.list.items.len) {
            const orphan = &orphans.list.items[i];
            if (orphan.child.process.poll() != null) {
                orphan.finish(loop);
                _ = orphans.list.swapRemove(i);
                continue;
            }
            orphan.drain(loop);
            if (stopping and orphan.last_signal == 0) {
                const grace_ms = @as(u64, loop.server.config.kill_grace_s) * 1000;
                orphan.term_at_ms = loop.now_ms;
                orphan.kill_at_ms = loop.now_ms + grace_ms;
            }
            if (loop.now_ms >= orphan.kill_at_ms) {
                orphan.signal(posix.SIG.KILL);
            } else if (loop.now_ms >= orphan.term_at_ms) {
                orphan.signal(posix.SIG.TERM);
            }
            i += 1;
        }
    }
};
