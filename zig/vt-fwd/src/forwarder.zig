//! The session itself: one loop between the user's terminal, the child's pty, the recording and
//! the clients. Nothing in it waits for anything but `poll`.

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const cli = @import("cli.zig");
const clock = @import("clock.zig");
const pty = @import("pty.zig");
const raw_mode = @import("raw_mode.zig");
const session = @import("session.zig");
const signals = @import("signals.zig");
const spawn = @import("spawn.zig");
const title_filter = @import("title_filter.zig");
const InputQueue = @import("input_queue.zig").InputQueue;
const Log = @import("log.zig").Log;
const OuterOutput = @import("outer_output.zig").OuterOutput;

/// A child that was asked to end and did not is killed after this time.
const kill_after_us = 3 * std.time.us_per_s;

/// How long output may keep coming after the child's end, where another process holds the pty.
const drain_us = 2 * std.time.us_per_s;

/// The pty has nothing more to give when it was quiet this long after the child's end.
const drain_quiet_us = 100 * std.time.us_per_ms;

/// A pty that hung up while the child lives is tried again after this time.
const reopen_us = 20 * std.time.us_per_ms;

const read_bytes = 64 * 1024;

const stdin = 0;
const stdout = 1;

/// What `run` needs to know of its surroundings.
pub const Start = struct {
    options: *const cli.Options,
    log: *Log,
    session: *session.Session,
    directory: *session.Directory,
    recording: posix.fd_t,
    size: asciicast.Size,
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
};

pub const Forwarder = struct {
    options: *const cli.Options,
    log: *Log,
    session: *session.Session,
    directory: *session.Directory,

    recorder: asciicast.Recorder,
    filter: title_filter.TitleFilter,
    outer: OuterOutput,
    signal_fd: posix.fd_t,

    master: posix.fd_t,
    master_state: MasterState,
    child: posix.pid_t,
    /// Known once the child is a zombie.
    exit_code: ?u8,
    /// When the child's end was noticed, and the last output since.
    exited_us: u64,
    quiet_since_us: u64,

    stdin_open: bool,
    keyboard: InputQueue,

    /// Somebody asked for the end: when to stop asking nicely.
    kill_at_us: ?u64,
    recording_warned: bool,

    read_buffer: [read_bytes]u8,
    filtered: [read_bytes + title_filter.max_held]u8,

    const MasterState = union(enum) {
        open,
        /// Hung up while the child lives: tried again at this time.
        suspended: u64,
        ended,
    };

    /// Runs the session to its end and returns the exit code. The terminal is as it was before.
    pub fn run(f: *Forwarder, start: Start) !u8 {
        try f.begin(start);
        defer raw_mode.restore();
        while (!f.finished()) f.turn();
        f.finalise();
        return f.exit_code.?;
    }

    fn begin(f: *Forwarder, start: Start) !void {
        f.options = start.options;
        f.log = start.log;
        f.session = start.session;
        f.directory = start.directory;
        f.filter = .{};
        f.outer = .init(stdout);
        f.master_state = .open;
        f.exit_code = null;
        f.stdin_open = true;
        f.keyboard.start = 0;
        f.keyboard.end = 0;
        f.keyboard.carry = .{};
        f.kill_at_us = null;
        f.recording_warned = false;
        f.signal_fd = try signals.install();

        const now = clock.monotonicUs();
        f.recorder.init(start.recording, now, start.size, start.options.max_cast_bytes);
        f.recorder.writeHeader(.{
            .size = start.size,
            .timestamp = @intCast(clock.epochMs() / 1000),
            .command = start.session.command,
            .title = start.session.name.slice(),
        });
        f.recorder.flush();

        const pair: pty.Pty = try .open(start.size);
        raw_mode.enter(stdin);
        errdefer raw_mode.restore();
        f.master = pair.master;
        f.child = try spawn.spawn(pair.slave, start.argv, start.envp);
        posix.close(pair.slave);
        f.session.status = .running;
        f.session.pid = f.child;
        f.saveSession(f.session.stateFields()[0..2]);
    }

    fn saveSession(f: *Forwarder, fields: anytype) void {
        f.directory.update(f.session, fields) catch |err| {
            f.log.print(.@"error", "cannot write session.json: {s}", .{@errorName(err)});
        };
    }

    // --- one turn of the loop ---

    const Slot = enum { signals, master, keyboard, outer };

    fn turn(f: *Forwarder) void {
        var fds: [std.meta.fields(Slot).len]posix.pollfd = undefined;
        f.watch(&fds);
        // Readers of the recording see everything before we sleep.
        const n = posix.poll(&fds, if (f.recorder.pending()) 0 else f.timeout()) catch 0;
        if (n == 0) f.recorder.flush();
        const now = clock.monotonicUs();
        if (fds[@intFromEnum(Slot.signals)].revents != 0) f.onSignals(now);
        if (fds[@intFromEnum(Slot.outer)].revents != 0) f.outer.proceed();
        const master = fds[@intFromEnum(Slot.master)].revents;
        if (master & (posix.POLL.IN | posix.POLL.HUP | posix.POLL.ERR) != 0) f.onOutput(now);
        if (master & posix.POLL.OUT != 0) f.writeQueued(now);
        if (fds[@intFromEnum(Slot.keyboard)].revents != 0) f.onKeyboard(now);
        f.tick(now);
    }

    fn watch(f: *Forwarder, fds: []posix.pollfd) void {
        const in = posix.POLL.IN;
        const out = posix.POLL.OUT;
        var events: i16 = 0;
        // A terminal that does not keep up makes the child wait, as it would without us.
        if (f.outer.pending.len == 0) events |= in;
        if (!f.keyboard.isEmpty()) events |= out;
        const reading = f.stdin_open and f.keyboard.isEmpty();
        set(fds, .signals, f.signal_fd, in);
        set(fds, .master, if (f.master_state == .open and events != 0) f.master else -1, events);
        set(fds, .keyboard, if (reading) stdin else -1, in);
        set(fds, .outer, if (f.outer.pending.len > 0) f.outer.fd else -1, out);
    }

    fn set(fds: []posix.pollfd, slot: Slot, fd: posix.fd_t, events: i16) void {
        fds[@intFromEnum(slot)] = .{ .fd = fd, .events = events, .revents = 0 };
    }

    /// Milliseconds until `tick` has something to do; -1 for never.
    fn timeout(f: *Forwarder) i32 {
        var at: u64 = std.math.maxInt(u64);
        if (f.recorder.deadline()) |us| at = @min(at, us);
        if (f.kill_at_us) |us| at = @min(at, us);
        if (f.master_state == .suspended) at = @min(at, f.master_state.suspended);
        if (f.exit_code != null) at = @min(at, f.quiet_since_us + drain_quiet_us);
        if (at == std.math.maxInt(u64)) return -1;
        const left = at -| clock.monotonicUs();
        return @intCast(@min(std.math.divCeil(u64, left, 1000) catch unreachable, 60_000));
    }

    fn tick(f: *Forwarder, now: u64) void {
        f.recorder.tick(now);
        if (f.kill_at_us) |at| if (now >= at) {
            f.kill_at_us = now + kill_after_us;
            if (f.exit_code == null) f.signalChild(posix.SIG.KILL);
            // Whoever asked for the end does not wait for a terminal that takes nothing.
            if (f.exit_code != null) f.outer.abandon();
        };
        if (f.master_state == .suspended and now >= f.master_state.suspended) {
            f.master_state = .open;
        }
        if (f.recorder.file.failure) |failure| if (!f.recording_warned) {
            f.recording_warned = true;
            f.log.print(.@"error", "recording stopped, the session goes on: {s}", .{
                @errorName(failure),
            });
        };
    }

    // --- the child's output ---

    fn onOutput(f: *Forwarder, now: u64) void {
        if (f.outer.pending.len > 0) return; // its bytes are in our buffer
        var len: usize = 0;
        const hung_up = while (len < f.read_buffer.len) {
            const room = f.read_buffer[len..];
            const result = posix.system.read(f.master, room.ptr, room.len);
            switch (posix.errno(result)) {
                .SUCCESS => if (result == 0) break true else {
                    len += @intCast(result);
                },
                .INTR => {},
                .AGAIN => break false,
                else => break true, // EIO: no process has the terminal open
            }
        } else false;
        if (len > 0) f.show(now, f.read_buffer[0..len]);
        if (hung_up and len == 0) {
            f.master_state = if (f.exit_code != null) .ended else .{ .suspended = now + reopen_us };
        }
    }

    fn show(f: *Forwarder, now: u64, bytes: []const u8) void {
        f.quiet_since_us = now;
        const visible = if (f.options.title_mode == .none)
            bytes
        else
            f.filtered[0..f.filter.filter(&f.filtered, bytes)];
        f.outer.send(visible);
        f.recorder.output(now, visible);
    }

    // --- input to the child ---

    fn onKeyboard(f: *Forwarder, now: u64) void {
        var bytes: [4096]u8 = undefined;
        const n = posix.read(stdin, &bytes) catch |err| switch (err) {
            error.WouldBlock => return,
            else => 0,
        };
        if (n == 0) {
            // Input may still come from clients; the child is not told.
            f.stdin_open = false;
            f.recorder.endInput(now, &f.keyboard.carry);
            return;
        }
        f.typeInput(now, &f.keyboard, bytes[0..n]);
    }

    /// Hands `bytes` to the child; what it does not take now waits in the queue.
    fn typeInput(f: *Forwarder, now: u64, queue: *InputQueue, bytes: []const u8) void {
        const taken = if (queue.isEmpty()) f.writeMaster(now, bytes, queue) else 0;
        queue.push(bytes[taken..]);
    }

    fn writeQueued(f: *Forwarder, now: u64) void {
        f.keyboard.consume(f.writeMaster(now, f.keyboard.slice(), &f.keyboard));
    }

    fn writeMaster(f: *Forwarder, now: u64, bytes: []const u8, queue: *InputQueue) usize {
        if (f.master_state == .ended) return bytes.len;
        // The prompt may appear, or end, while the bytes are on their way.
        var secret = pty.asksForPassword(f.master);
        const n = posix.write(f.master, bytes) catch |err| switch (err) {
            error.WouldBlock => 0,
            else => return if (f.exit_code != null) bytes.len else 0,
        };
        secret = secret or pty.asksForPassword(f.master);
        if (n > 0 and f.options.record_input and !secret) {
            f.recorder.input(now, bytes[0..n], &queue.carry);
        }
        return n;
    }

    // --- signals, sizes, the end ---

    fn onSignals(f: *Forwarder, now: u64) void {
        const set_ = signals.drain(f.signal_fd);
        if (set_.isSet(posix.SIG.CONT)) raw_mode.enter(stdin); // a shell had the terminal
        if (set_.isSet(posix.SIG.WINCH) or set_.isSet(posix.SIG.CONT)) f.followOuterSize(now);
        if (set_.isSet(posix.SIG.CHLD) and f.exit_code == null) {
            f.exit_code = spawn.exitCode(f.child);
            f.exited_us = now;
            f.quiet_since_us = now;
            if (f.exit_code != null and f.master_state == .suspended) f.master_state = .open;
        }
        for ([_]u8{ posix.SIG.INT, posix.SIG.QUIT, posix.SIG.TERM, posix.SIG.HUP }) |signal| {
            if (set_.isSet(signal)) f.askToEnd(now, signal);
        }
    }

    fn followOuterSize(f: *Forwarder, now: u64) void {
        const size = pty.getSize(stdout) orelse return;
        if (!size.eql(f.recorder.size)) f.resize(now, size);
    }

    fn resize(f: *Forwarder, now: u64, size: asciicast.Size) void {
        pty.setSize(f.master, size);
        f.recorder.resize(now, size);
    }

    /// Passes the signal on; the second one, or a child that stays, is the end of patience.
    fn askToEnd(f: *Forwarder, now: u64, signal: u8) void {
        if (f.kill_at_us != null) return f.signalChild(posix.SIG.KILL);
        f.kill_at_us = now + kill_after_us;
        f.signalChild(signal);
        f.signalChild(posix.SIG.CONT);
    }

    /// To the child's process group. The zombie keeps its pid from being used again.
    fn signalChild(f: *Forwarder, signal: u8) void {
        // A child that has not got to setsid yet leads no group.
        posix.kill(-f.child, signal) catch posix.kill(f.child, signal) catch {};
    }

    fn finished(f: *Forwarder) bool {
        if (f.exit_code == null) return false;
        if (f.outer.pending.len > 0) return false;
        if (f.master_state == .ended) return true;
        const now = clock.monotonicUs();
        return now >= f.quiet_since_us + drain_quiet_us or now >= f.exited_us + drain_us;
    }

    /// In an order that readers can rely on: no output is missing, session.json says "exited"
    /// while the pid still answers, the exit line is the last, then the socket goes.
    fn finalise(f: *Forwarder) void {
        const now = clock.monotonicUs();
        if (f.options.title_mode != .none) {
            const held = f.filter.flush(&f.filtered);
            f.outer.send(f.filtered[0..held]);
            f.recorder.output(now, f.filtered[0..held]);
        }
        f.recorder.endOutput(now);
        f.recorder.flush();
        f.session.status = .exited;
        f.session.exit_code = f.exit_code;
        f.session.clear_offset = f.recorder.clear_offset;
        const fields = f.session.stateFields();
        f.saveSession(&fields);
        f.recorder.exit(f.exit_code.?, f.session.id);
        spawn.reap(f.child);
        f.directory.unlinkSocket();
    }
};
