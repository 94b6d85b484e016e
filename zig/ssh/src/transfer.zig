//! The bytes of one channel, both ways between the client and git, with bounded memory. What git
//! does not take piles up here to a limit, then in libssh, whose window then closes; what the
//! client does not take stays in git's pipes.

const std = @import("std");
const posix = std.posix;
const libssh = @import("libssh.zig");
const old_libssh = @import("old_libssh.zig");
const process = @import("process.zig");
const Connection = @import("connection.zig").Connection;
const Counters = @import("events.zig").Counters;
const Fifo = @import("fifo.zig").Fifo;
const Output = @import("orphans.zig").Output;
const Push = @import("push.zig").Push;
const Watch = @import("poller.zig").Watch;

/// Beyond this the client's data stays in libssh: bytes.
const to_git_high = 256 * 1024;
/// libssh's window is 1.28 MB (0.10) or 2 MB (0.12), 4 MB when widened, and it hands on what
/// overruns it. Whoever does that has this many bytes until the connection ends.
const unread_max = 8 * 1024 * 1024;
/// Reads from git in one turn, until others get theirs.
const reads_per_turn = 4;
const out_chunk = 64 * 1024;

pub const Transfer = struct {
    connection: *Connection,
    channel: *libssh.Channel,

    stdin: ?Watch = null,
    stdout: ?Watch = null,
    stderr: ?Watch = null,
    to_git: Fifo = .{},
    /// The poller has reported one of the pipes since they were last read.
    is_ready: bool = false,
    /// libssh holds data that did not fit `to_git`.
    has_unread: bool = false,
    /// The client will send no more.
    client_eof: bool = false,
    /// Bytes for the client that libssh did not take; owned, `rest_start` are sent already.
    rest: []u8 = &.{},
    rest_start: usize = 0,
    rest_is_stderr: bool = false,
    /// Reads along with a push, where the host wants to know what it updates; owned.
    push: ?*Push = null,

    bytes_in: u64 = 0,
    bytes_out: u64 = 0,
    /// Next time to widen the window: a push that got so far is a long one.
    widen_at: u64 = 256 * 1024,

    pub fn deinit(transfer: *Transfer) void {
        const counters = transfer.connection.counters();
        Counters.add(&counters.bytes_in_total, transfer.bytes_in);
        Counters.add(&counters.bytes_out_total, transfer.bytes_out);
        transfer.closePipes();
        transfer.to_git.deinit(transfer.connection.allocator());
        transfer.connection.allocator().free(transfer.rest);
    }

    /// git has been started. `token` comes out of the poller when there is something to do.
    pub fn attach(transfer: *Transfer, pipes: process.Pipes, token: u64) void {
        transfer.stdin = .{ .fd = pipes.stdin, .token = token };
        transfer.stdout = .{ .fd = pipes.stdout, .token = token };
        transfer.stderr = .{ .fd = pipes.stderr, .token = token };
    }

    pub fn closePipes(transfer: *Transfer) void {
        const poller = &transfer.connection.loop.poller;
        inline for (.{ &transfer.stdin, &transfer.stdout, &transfer.stderr }) |slot| {
            if (slot.*) |*watch| watch.close(poller);
            slot.* = null;
        }
    }

    /// The client has gone. Closes git's input and hands out what is left of its output.
    pub fn takeOutput(transfer: *Transfer) Output {
        const poller = &transfer.connection.loop.poller;
        var output: Output = .{ .pipes = .{ null, null }, .push = transfer.push };
        transfer.push = null;
        inline for (&output.pipes, .{ &transfer.stdout, &transfer.stderr }) |*pipe, slot| {
            if (slot.*) |*watch| pipe.* = watch.release(poller);
            slot.* = null;
        }
        transfer.closePipes();
        return output;
    }

    /// Nothing of git's goes to the client any more.
    pub fn forgetOutput(transfer: *Transfer) void {
        transfer.push = null;
        transfer.closePipes();
        transfer.connection.allocator().free(transfer.rest);
        transfer.rest = &.{};
    }

    /// git has ended and nobody reads what it said last: only its push does.
    pub fn finishPush(transfer: *Transfer) void {
        const push = transfer.push orelse return;
        transfer.push = null;
        const buffer = transfer.connection.loop.buffer;
        if (transfer.stdout) |watch| {
            while (true) {
                const count = posix.read(watch.fd, buffer) catch break; // WouldBlock: no more
                if (count == 0) break;
                push.afterRead(buffer[0..count]);
            }
        }
        push.finish();
    }

    /// git has closed both its outputs, and all of it has been handed to libssh.
    pub fn isOutputDone(transfer: *const Transfer) bool {
        return transfer.stdout == null and transfer.stderr == null and transfer.rest.len == 0;
    }

    /// A message of the server's own, on stderr. Only when nothing else is on its way.
    pub fn say(transfer: *Transfer, text: []const u8) void {
        std.debug.assert(transfer.rest.len == 0);
        // Without memory the client learns only the exit status.
        transfer.rest = transfer.connection.allocator().dupe(u8, text) catch &.{};
        transfer.rest_start = 0;
        transfer.rest_is_stderr = true;
    }

    /// From libssh, inside its callback: `bytes` is all it holds of the channel. Returns how many
    /// were taken: all, or none and libssh keeps them.
    pub fn receive(transfer: *Transfer, bytes: []const u8) usize {
        if (bytes.len > unread_max) transfer.connection.end(.window, null);
        if (transfer.has_unread or transfer.to_git.len() >= to_git_high) {
            transfer.has_unread = true;
            return 0;
        }
        transfer.bytes_in += bytes.len;
        const taken = if (transfer.to_git.len() == 0) transfer.writeToGit(bytes) else 0;
        transfer.to_git.append(transfer.connection.allocator(), bytes[taken..]) catch {
            transfer.connection.end(.resources, "out of memory");
        };
        return bytes.len;
    }

    /// How many of `bytes` git took. Closes its input when it wants no more.
    fn writeToGit(transfer: *Transfer, bytes: []const u8) usize {
        const watch = if (transfer.stdin) |*watch| watch else return 0;
        if (transfer.push) |push| {
            if (!push.beforeWrite(bytes)) return 0; // the channel ends
        }
        const count = posix.write(watch.fd, bytes) catch |err| switch (err) {
            error.WouldBlock => 0,
            else => { // BrokenPipe: git has what it needs
                transfer.closeStdin();
                return bytes.len;
            },
        };
        if (transfer.push) |push| push.afterWrite(count);
        return count;
    }

    fn closeStdin(transfer: *Transfer) void {
        if (transfer.stdin) |*watch| watch.close(&transfer.connection.loop.poller);
        transfer.stdin = null;
        transfer.to_git.discard(transfer.connection.allocator(), transfer.to_git.len());
    }

    /// From the client to git.
    pub fn pumpIn(transfer: *Transfer) void {
        const allocator = transfer.connection.allocator();
        while (transfer.to_git.len() > 0) {
            const taken = transfer.writeToGit(transfer.to_git.readable());
            if (transfer.stdin == null) break;
            transfer.to_git.discard(allocator, taken);
            if (transfer.to_git.len() > 0) return; // git is busy
            if (transfer.has_unread) transfer.takeUnread();
        }
        if (transfer.has_unread) transfer.takeUnread();
        if (transfer.bytes_in >= transfer.widen_at) transfer.widenWindow();
        const all_taken = transfer.to_git.len() == 0 and !transfer.has_unread;
        if (transfer.client_eof and all_taken) transfer.closeStdin();
    }

    /// Takes all that libssh has kept, at once: reading a part of it would open the window again
    /// and again while the rest piles up.
    fn takeUnread(transfer: *Transfer) void {
        // From 0.12 on, this reads the socket too. Until all is taken, `receive` leaves what comes.
        const waiting = libssh.ssh_channel_poll(transfer.channel, 0);
        defer transfer.has_unread = false;
        if (waiting <= 0) return; // an error shows up as the end of the session
        const count: usize = @intCast(waiting);
        const room = transfer.to_git.reserve(transfer.connection.allocator(), count) catch {
            return transfer.connection.end(.resources, "out of memory");
        };
        const len: u32 = @intCast(count);
        // The one read that leaves the socket alone when something is there: `room`, `count` hold.
        const got = libssh.ssh_channel_read_timeout(transfer.channel, room.ptr, len, 0, 0);
        std.debug.assert(got <= waiting);
        if (got <= 0) return;
        transfer.bytes_in += @intCast(got);
        transfer.connection.activity = true;
        if (transfer.stdin != null) transfer.to_git.commit(@intCast(got));
    }

    /// For a long push; git keeps up, or `to_git` would not be empty.
    fn widenWindow(transfer: *Transfer) void {
        if (transfer.to_git.len() > 0 or transfer.has_unread) return;
        if (transfer.client_eof or transfer.stdin == null or old_libssh.isFixed()) return;
        transfer.widen_at = transfer.bytes_in + old_libssh.wide_window / 4;
        const buffer = transfer.connection.loop.wideBuffer() orelse return; // slower without
        const arrived = old_libssh.widen(transfer.channel, buffer);
        transfer.bytes_in += arrived.len;
        transfer.to_git.append(transfer.connection.allocator(), arrived) catch {
            transfer.connection.end(.resources, "out of memory");
        };
    }

    /// From git to the client.
    pub fn pumpOut(transfer: *Transfer) void {
        if (!transfer.sendRest()) return;
        var turns: usize = 0;
        while (turns < reads_per_turn) : (turns += 1) {
            const stdout_moved = transfer.pumpStream(&transfer.stdout, false);
            const stderr_moved = transfer.pumpStream(&transfer.stderr, true);
            if (!stdout_moved and !stderr_moved) {
                transfer.is_ready = false;
                return;
            }
        }
        transfer.connection.activity = true;
    }

    fn pumpStream(transfer: *Transfer, slot: *?Watch, is_stderr: bool) bool {
        const watch = if (slot.*) |*watch| watch else return false;
        // The poller would have told.
        if (watch.interest.read and !transfer.is_ready) return false;
        const room = transfer.roomToClient();
        if (room == 0) return false;
        const buffer = transfer.connection.loop.buffer[0..@min(room, out_chunk)];
        const count = posix.read(watch.fd, buffer) catch |err| switch (err) {
            error.WouldBlock => return false,
            else => 0,
        };
        if (count == 0) {
            watch.close(&transfer.connection.loop.poller);
            slot.* = null;
            return false;
        }
        if (!is_stderr) if (transfer.push) |push| push.afterRead(buffer[0..count]);
        transfer.send(buffer[0..count], is_stderr);
        return true;
    }

    /// Bytes that may go to the client now. libssh's own buffer must be empty: it has no limit.
    fn roomToClient(transfer: *Transfer) u32 {
        if (transfer.rest.len > 0) return 0;
        if (transfer.connection.isWritePending()) return 0;
        if (libssh.ssh_channel_is_open(transfer.channel) == 0) return 0;
        return libssh.ssh_channel_window_size(transfer.channel);
    }

    fn send(transfer: *Transfer, bytes: []const u8, is_stderr: bool) void {
        const sent = transfer.writeToClient(bytes, is_stderr);
        if (sent == bytes.len) return;
        // A key exchange has begun, or the window is smaller than it was: keep the rest.
        transfer.rest = transfer.connection.allocator().dupe(u8, bytes[sent..]) catch {
            return transfer.connection.end(.resources, "out of memory");
        };
        transfer.rest_start = 0;
        transfer.rest_is_stderr = is_stderr;
    }

    fn writeToClient(transfer: *Transfer, bytes: []const u8, is_stderr: bool) usize {
        const len: u32 = @intCast(bytes.len);
        const result = if (is_stderr)
            libssh.ssh_channel_write_stderr(transfer.channel, bytes.ptr, len)
        else
            libssh.ssh_channel_write(transfer.channel, bytes.ptr, len);
        if (result < 0) {
            // The client has closed the channel, or is gone: nobody to keep the bytes for.
            const session = transfer.connection.session;
            if (libssh.ssh_is_connected(session) == 0) transfer.connection.end(.client, null);
            return bytes.len;
        }
        transfer.bytes_out += @intCast(result);
        return @intCast(result);
    }

    /// true: nothing is left over.
    fn sendRest(transfer: *Transfer) bool {
        if (transfer.rest.len == 0) return true;
        if (transfer.connection.isWritePending()) return false;
        if (libssh.ssh_channel_is_open(transfer.channel) == 0) return false;
        const window = libssh.ssh_channel_window_size(transfer.channel);
        if (window == 0) return false;
        const bytes = transfer.rest[transfer.rest_start..];
        const part = bytes[0..@min(bytes.len, window)];
        const sent = transfer.writeToClient(part, transfer.rest_is_stderr);
        transfer.rest_start += sent;
        if (transfer.rest_start < transfer.rest.len) return false;
        transfer.connection.allocator().free(transfer.rest);
        transfer.rest = &.{};
        return true;
    }

    /// Asks for readiness only where something would be done: a hang-up is reported for ever.
    pub fn updateInterest(transfer: *Transfer) void {
        const poller = &transfer.connection.loop.poller;
        const readable = transfer.roomToClient() > 0;
        const results = .{
            if (transfer.stdin) |*it| it.set(poller, .{ .write = transfer.to_git.len() > 0 }),
            if (transfer.stdout) |*it| it.set(poller, .{ .read = readable }),
            if (transfer.stderr) |*it| it.set(poller, .{ .read = readable }),
        };
        inline for (results) |result| {
            result catch transfer.connection.end(.resources, "cannot watch git's pipes");
        }
    }
};
