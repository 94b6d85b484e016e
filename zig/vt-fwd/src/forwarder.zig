//! The session itself: one loop between the user's terminal, the child's pty, the recording and
//! the clients. Nothing in it waits for anything but `poll`.

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const cli = @import("cli.zig");
const clock = @import("clock.zig");
const control = @import("control.zig");
const detach = @import("detach.zig");
const git = @import("git.zig");
const ipc = @import("ipc.zig");
const pty = @import("pty.zig");
const raw_mode = @import("raw_mode.zig");
const session = @import("session.zig");
const session_json = @import("session_json.zig");
const signals = @import("signals.zig");
const spawn = @import("spawn.zig");
const title_filter = @import("title_filter.zig");
const InputQueue = @import("input_queue.zig").InputQueue;
const Log = @import("log.zig").Log;
const OuterOutput = @import("outer_output.zig").OuterOutput;
const OuterTitle = @import("outer_title.zig").OuterTitle;
const Typing = @import("typing.zig").Typing;
const Watch = @import("watch.zig").Watch;

/// A child that was asked to end and did not is killed after this time.
const kill_after_us = 3 * std.time.us_per_s;

/// Whoever asked for the end does not wait longer than this for a terminal that takes nothing.
const abandon_after_us = 2 * std.time.us_per_s;

/// How long output may keep coming after the child's end, where another process holds the pty.
const drain_us = 2 * std.time.us_per_s;

/// The pty has nothing more to give when it was quiet this long after the child's end.
const drain_quiet_us = 100 * std.time.us_per_ms;

/// A pty that hung up while the child lives is tried again after this time, then less often.
const first_reopen_us = 10 * std.time.us_per_ms;
const last_reopen_us = 640 * std.time.us_per_ms;

/// session.json follows the recording's clears at most this often.
const save_every_us = std.time.us_per_s;

/// No descriptors were left for a client: the next attempt.
const accept_again_us = 100 * std.time.us_per_ms;

const read_bytes = 64 * 1024;

const stdin = 0;
const stdout = 1;

/// What `run` needs to know of its surroundings.
pub const Start = struct {
    options: *const cli.Options,
    log: *Log,
    session: *session.Session,
    directory: *session.Directory,
    /// The session.json that says "starting".
    staged: session.Temporary,
    recording: posix.fd_t,
    listener: posix.fd_t,
    /// Where `signals` are read; installed before anything was made on disk.
    signal_fd: posix.fd_t,
    title: OuterTitle,
    /// Our own environment.
    inherited: []const [*:0]const u8,
    size: asciicast.Size,
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
    /// Somebody waits to hear that the session runs.
    ready: ?detach.Ready = null,
};

pub const Forwarder = struct {
    options: *const cli.Options,
    log: *Log,
    session: *session.Session,
    directory: *session.Directory,

    recorder: asciicast.Recorder,
    filter: title_filter.TitleFilter,
    outer: OuterOutput,
    title: OuterTitle,
    server: ipc.Server,
    accept_at_us: ?u64,
    /// Whose queue is written next: 0 is the keyboard, then the clients.
    next_source: usize,
    watch: Watch,
    git_job: ?*git.Job,
    git_storage: git.Job,
    signal_fd: posix.fd_t,

    master: posix.fd_t,
    master_state: MasterState,
    reopen_us: u64,
    child: posix.pid_t,
    /// Known once the child is a zombie.
    exit_code: ?u8,
    exited_us: u64,
    /// Since when the pty is drained after the child's end, and since when it was quiet. Time in
    /// which our own terminal took nothing does not count.
    drain_since_us: u64,
    quiet_since_us: u64,

    stdin_open: bool,
    keyboard: InputQueue,
    typing: Typing,

    /// Somebody asked for the end: when to stop asking nicely.
    kill_at_us: ?u64,
    end_requested: bool,
    /// A signal to us asked before.
    signalled: bool,
    /// A client renamed the session, and session.json does not know yet.
    name_changed: bool,
    saved_clear_offset: u64,
    saved_us: u64,
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
        f.title = start.title;
        f.server.init(start.listener);
        f.accept_at_us = null;
        f.next_source = 0;
        f.git_job = null;
        f.master_state = .open;
        f.reopen_us = first_reopen_us;
        f.exit_code = null;
        f.stdin_open = true;
        f.keyboard.start = 0;
        f.keyboard.end = 0;
        f.keyboard.carry = .{};
        f.kill_at_us = null;
        f.end_requested = false;
        f.signalled = false;
        f.name_changed = false;
        f.saved_clear_offset = 0;
        f.saved_us = 0;
        f.recording_warned = false;
        f.signal_fd = start.signal_fd;

        const now = clock.monotonicUs();
        f.recorder.init(start.recording, now, start.size, start.options.max_cast_bytes);
        f.recorder.writeHeader(.{
            .size = start.size,
            .timestamp = @intCast(clock.epochMs() / 1000),
            .command = start.session.command,
            .title = start.session.name.slice(),
        });
        f.recorder.flush();

        try f.launch(start);
        if (git.isInside(start.session.cwd)) f.startGit(start);
    }

    fn launch(f: *Forwarder, start: Start) !void {
        const pair: pty.Pty = try .open(start.size);
        errdefer pair.close();
        raw_mode.enter(stdin);
        errdefer raw_mode.restore();
        f.master = pair.master;
        f.typing = .{
            .master = pair.master,
            .recorder = &f.recorder,
            .record = start.options.record_input,
        };
        f.title.begin(&f.session.name);
        f.showTitle(); // before anything of the child's
        f.child = try spawn.spawn(pair.slave, start.argv, start.envp);
        posix.close(pair.slave);
        f.session.status = .running;
        f.session.pid = f.child;
        f.announce(start.staged) catch |err| if (err != error.FileNotFound) {
            f.log.print(.@"error", "cannot write session.json: {s}", .{@errorName(err)});
        };
        if (start.ready) |starter| starter.tell(f.session.id);
        // From here on the child runs beside us.
        f.watch = .init(f.directory.fd, clock.monotonicUs());
        f.followRename(); // before anybody watched
        f.log.open();
        f.log.print(.info, "session {s} started, process {d}: {s}", .{
            f.session.id, f.child, f.session.command[0],
        });
    }

    /// Makes session.json say "starting", and at once "running": should we be killed in between,
    /// a server believes the first for ever.
    fn announce(f: *Forwarder, staged: session.Temporary) !void {
        const running = f.directory.stage(f.session) catch |err| {
            try f.directory.publish(staged);
            return err;
        };
        errdefer f.directory.discard(running);
        f.directory.unlinkJson();
        try f.directory.publish(staged);
        try f.directory.publish(running);
    }

    fn startGit(f: *Forwarder, start: Start) void {
        git.start(&f.git_storage, start.session.cwd, start.inherited) catch |err| {
            f.log.print(.warn, "cannot look for git: {s}", .{@errorName(err)});
            return;
        };
        f.git_job = &f.git_storage;
    }

    fn saveSession(f: *Forwarder, fields: []const session_json.Field) void {
        f.directory.update(f.session, fields) catch |err| {
            f.log.print(.@"error", "cannot write session.json: {s}", .{@errorName(err)});
        };
    }

    // --- one turn of the loop ---

    const Slot = enum { signals, master, keyboard, outer, listener, git };
    const slot_count = std.meta.fields(Slot).len;
    const PollFds = [slot_count + ipc.max_clients]posix.pollfd;

    fn turn(f: *Forwarder) void {
        var fds: PollFds = undefined;
        f.interests(&fds);
        // Readers of the recording see everything before we sleep.
        const used = fds[0 .. slot_count + f.server.highest()];
        const n = posix.poll(used, if (f.recorder.pending()) 0 else f.timeout()) catch 0;
        if (n == 0) f.recorder.flush();
        const now = clock.monotonicUs();
        if (ready(&fds, .signals)) f.onSignals(now);
        if (ready(&fds, .outer)) f.onOuterReady(now);
        const master = fds[@intFromEnum(Slot.master)].revents;
        if (master & ~@as(i16, posix.POLL.OUT) != 0) f.onOutput(now);
        if (master & posix.POLL.OUT != 0) f.writeQueued(now);
        if (ready(&fds, .keyboard)) f.onKeyboard(now);
        if (ready(&fds, .listener)) f.onConnect(now);
        if (ready(&fds, .git)) f.onGit();
        for (used[slot_count..], 0..) |it, index| {
            if (it.revents != 0) f.onClient(now, index);
        }
        f.tick(now);
    }

    fn ready(fds: *const PollFds, slot: Slot) bool {
        return fds[@intFromEnum(slot)].revents != 0;
    }

    fn interests(f: *Forwarder, fds: *PollFds) void {
        const in = posix.POLL.IN;
        const out = posix.POLL.OUT;
        var events: i16 = 0;
        // A terminal that does not keep up makes the child wait, as it would without us.
        if (f.outer.pending.len == 0) events |= in;
        if (f.inputWaits()) events |= out;
        const master = f.master_state == .open and events != 0;
        const keyboard = f.stdin_open and f.keyboard.isEmpty();
        const accepting = f.accept_at_us == null and !f.server.isFull();
        set(fds, .signals, f.signal_fd, in);
        set(fds, .master, if (master) f.master else -1, events);
        set(fds, .keyboard, if (keyboard) stdin else -1, in);
        set(fds, .outer, if (f.outer.pending.len > 0) f.outer.fd else -1, out);
        set(fds, .listener, if (accepting) f.server.listener else -1, in);
        set(fds, .git, if (f.git_job) |job| job.fd else -1, in);
        for (fds[slot_count..], f.server.clients) |*it, slot| {
            const fd = if (slot) |client| (if (client.wantsMore()) client.fd else -1) else -1;
            it.* = .{ .fd = fd, .events = in, .revents = 0 };
        }
    }

    fn set(fds: *PollFds, slot: Slot, fd: posix.fd_t, events: i16) void {
        fds[@intFromEnum(slot)] = .{ .fd = fd, .events = events, .revents = 0 };
    }

    /// Milliseconds until `tick` has something to do.
    fn timeout(f: *Forwarder) i32 {
        const never = std.math.maxInt(u64);
        const at = std.mem.min(u64, &.{
            f.watch.next_us,
            f.recorder.deadline() orelse never,
            f.kill_at_us orelse never,
            f.accept_at_us orelse never,
            if (f.master_state == .suspended) f.master_state.suspended else never,
            if (f.clearIsUnsaved()) f.saved_us + save_every_us else never,
            f.drainDeadline() orelse never,
        });
        const left = at -| clock.monotonicUs();
        return @intCast(left / std.time.us_per_ms + 1); // at most until the next look at the name
    }

    /// When the child has ended: the end of waiting for its output, or for the terminal.
    fn drainDeadline(f: *const Forwarder) ?u64 {
        if (f.exit_code == null) return null;
        if (f.outer.pending.len == 0) {
            return @min(f.quiet_since_us + drain_quiet_us, f.drain_since_us + drain_us);
        }
        return if (f.end_requested) f.exited_us + abandon_after_us else null;
    }

    fn tick(f: *Forwarder, now: u64) void {
        f.recorder.tick(now);
        if (f.kill_at_us) |at| if (now >= at) {
            f.kill_at_us = null;
            if (f.exit_code == null) f.signalChild(posix.SIG.KILL);
        };
        if (f.exit_code != null and f.end_requested and now >= f.exited_us + abandon_after_us) {
            f.outer.abandon();
        }
        if (f.accept_at_us) |at| if (now >= at) {
            f.accept_at_us = null;
        };
        if (f.master_state == .suspended and now >= f.master_state.suspended) {
            f.master_state = .open;
        }
        f.tickDrain(now);
        if (f.watch.tick(now)) f.followRename();
        if (f.name_changed) {
            f.name_changed = false;
            f.saveSession(&f.session.nameFields());
        }
        if (f.clearIsUnsaved() and now >= f.saved_us + save_every_us) f.saveClear(now);
        f.showTitle();
        f.warnOfRecording();
    }

    /// After the child's end: decides that nothing more will come.
    fn tickDrain(f: *Forwarder, now: u64) void {
        if (f.exit_code == null or f.outer.pending.len > 0) return;
        if (now < f.drainDeadline().?) return;
        // On a busy machine the time may have passed without us: look once more.
        const before = f.quiet_since_us;
        f.onOutput(now);
        if (f.quiet_since_us == before or now >= f.drain_since_us + drain_us) {
            f.master_state = .ended;
        }
    }

    fn clearIsUnsaved(f: *const Forwarder) bool {
        return f.recorder.clear_offset != f.saved_clear_offset;
    }

    fn saveClear(f: *Forwarder, now: u64) void {
        f.recorder.flush(); // the offset must not be beyond the end of the file
        f.saved_us = now;
        f.saved_clear_offset = f.recorder.clear_offset;
        f.session.clear_offset = f.recorder.clear_offset;
        f.saveSession(f.session.stateFields()[3..4]);
    }

    /// Between two sequences of the program, never within one.
    fn showTitle(f: *Forwarder) void {
        if (!f.title.waits() or f.outer.pending.len > 0) return;
        if (!f.recorder.scanner.betweenSequences() or f.recorder.carry.len > 0) return;
        f.outer.send(f.title.take());
    }

    fn warnOfRecording(f: *Forwarder) void {
        const failure = f.recorder.file.failure orelse return;
        if (f.recording_warned) return;
        f.recording_warned = true;
        f.log.print(.@"error", "recording stopped, the session goes on: {s}", .{
            @errorName(failure),
        });
    }

    // --- the child's output ---

    fn onOuterReady(f: *Forwarder, now: u64) void {
        f.outer.proceed();
        if (f.outer.pending.len > 0) return;
        f.drain_since_us = now;
        f.quiet_since_us = now;
    }

    fn onOutput(f: *Forwarder, now: u64) void {
        if (f.outer.pending.len > 0) { // its bytes are in our buffer: this is a hang-up
            f.suspendMaster(now);
            return;
        }
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
        if (len > 0) {
            f.reopen_us = first_reopen_us;
            f.show(now, f.read_buffer[0..len]);
        } else if (hung_up) {
            if (f.exit_code == null) f.suspendMaster(now) else f.master_state = .ended;
        }
    }

    /// No process has the terminal open, and poll would say so without end.
    fn suspendMaster(f: *Forwarder, now: u64) void {
        f.master_state = .{ .suspended = now + f.reopen_us };
        f.reopen_us = @min(f.reopen_us * 2, last_reopen_us);
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
            f.typing.end(now, &f.keyboard);
            f.log.print(.verbose, "standard input ended", .{});
            return;
        }
        f.typing.put(now, bytes[0..n], &f.keyboard);
    }

    fn inputWaits(f: *const Forwarder) bool {
        if (f.exit_code != null) return false; // nobody will read it
        if (!f.keyboard.isEmpty()) return true;
        for (f.server.clients) |slot| {
            if (slot) |client| if (!client.queue.isEmpty()) return true;
        }
        return false;
    }

    /// Every source gets its turn, so that a long paste does not shut out a Ctrl-C.
    fn writeQueued(f: *Forwarder, now: u64) void {
        const sources = 1 + ipc.max_clients;
        for (0..sources) |_| {
            const source = f.next_source;
            const queue = if (source == 0) &f.keyboard else queue: {
                const client = f.server.clients[source - 1];
                break :queue if (client) |it| &it.queue else null;
            };
            f.next_source = (source + 1) % sources;
            const waiting = queue orelse continue;
            if (waiting.isEmpty()) continue;
            f.typing.proceed(now, waiting);
            const full = !waiting.isEmpty();
            if (source > 0) f.serve(now, source - 1);
            if (full) return;
        }
    }

    // --- clients ---

    fn onConnect(f: *Forwarder, now: u64) void {
        f.server.acceptAll() catch |err| {
            f.accept_at_us = now + accept_again_us;
            f.log.print(.warn, "a client has to wait: {s}", .{@errorName(err)});
        };
        f.log.print(.debug, "clients: up to number {d}", .{f.server.highest()});
    }

    fn onClient(f: *Forwarder, now: u64, index: usize) void {
        const client = f.server.clients[index] orelse return;
        if (!client.wantsMore()) return;
        client.receive();
        f.serve(now, index);
    }

    /// Does what the client has asked for so far, as long as there is room for what it types.
    fn serve(f: *Forwarder, now: u64, index: usize) void {
        const client = f.server.clients[index] orelse return;
        while (true) {
            const step = client.parser.next(client.unparsed(), client.queue.room());
            client.consume(step.used);
            switch (step.event) {
                .none => break,
                .input => |input| {
                    f.typing.put(now, input.bytes, &client.queue);
                    // A character that the frame cut stays cut.
                    if (input.last) f.typing.end(now, &client.queue);
                },
                .control => |text| if (control.parse(text)) |command| f.obey(now, command),
                .heartbeat => client.answerHeartbeat(now),
                .oversized => {
                    f.log.print(.warn, "client {d} sent an absurd length: closed", .{index + 1});
                    return f.server.close(index);
                },
            }
        }
        const done = client.unparsed().len == 0 and client.queue.isEmpty();
        if (!client.ended or !done) return;
        f.log.print(.debug, "client {d} left", .{index + 1});
        f.server.close(index);
    }

    fn obey(f: *Forwarder, now: u64, command: control.Command) void {
        f.log.print(.verbose, "a client asks for {s}", .{@tagName(command)});
        switch (command) {
            .resize => |size| f.resize(now, size),
            .reset_size => f.followOuterSize(now),
            .kill => |signal| {
                f.signalChild(signal);
                switch (signal) {
                    // A stopped child could not end.
                    posix.SIG.TERM, posix.SIG.HUP, posix.SIG.INT => {
                        f.signalChild(posix.SIG.CONT);
                        f.end_requested = true;
                    },
                    posix.SIG.KILL => f.end_requested = true,
                    else => {},
                }
            },
            .update_title => |name| {
                f.session.name = name;
                f.name_changed = true;
                f.title.renamed(&name);
            },
        }
    }

    /// Somebody may have changed the name in session.json.
    fn followRename(f: *Forwarder) void {
        if (f.name_changed) return; // ours is newer
        const name = f.directory.readName() orelse return;
        if (name.eql(&f.session.name)) return;
        f.session.name = name;
        f.title.renamed(&name);
        f.log.print(.info, "session {s} was renamed: {s}", .{ f.session.id, name.slice() });
    }

    fn onGit(f: *Forwarder) void {
        const job = f.git_job orelse return;
        if (!job.receive()) return;
        f.git_job = null;
        const info = job.finish() orelse return;
        f.session.git = info.*;
        f.saveSession(&f.session.gitFields());
    }

    // --- signals, sizes, the end ---

    fn onSignals(f: *Forwarder, now: u64) void {
        const arrived = signals.drain(f.signal_fd);
        if (arrived.isSet(posix.SIG.CONT)) raw_mode.enter(stdin); // a shell had the terminal
        if (arrived.isSet(posix.SIG.WINCH) or arrived.isSet(posix.SIG.CONT)) {
            f.followOuterSize(now);
        }
        if (arrived.isSet(posix.SIG.CHLD) and f.exit_code == null) {
            f.exit_code = spawn.exitCode(f.child);
            f.exited_us = now;
            f.drain_since_us = now;
            f.quiet_since_us = now;
            if (f.exit_code != null and f.master_state == .suspended) f.master_state = .open;
        }
        for ([_]u8{ posix.SIG.INT, posix.SIG.QUIT, posix.SIG.TERM, posix.SIG.HUP }) |signal| {
            if (arrived.isSet(signal)) f.askToEnd(now, signal);
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
        if (f.signalled) return f.signalChild(posix.SIG.KILL);
        f.signalled = true;
        f.log.print(.info, "signal {d}: asking the command to end", .{signal});
        f.end_requested = true;
        f.kill_at_us = now + kill_after_us;
        f.signalChild(signal);
        f.signalChild(posix.SIG.CONT);
    }

    /// To the child's process group. The zombie keeps its pid from being used again.
    fn signalChild(f: *Forwarder, signal: u8) void {
        // A child that has not got to setsid yet leads no group. One that is gone needs no signal.
        posix.kill(-f.child, signal) catch posix.kill(f.child, signal) catch {};
    }

    fn finished(f: *const Forwarder) bool {
        return f.exit_code != null and f.outer.pending.len == 0 and f.master_state == .ended;
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
        posix.close(f.master); // and session.json has a descriptor to be written with
        if (f.git_job) |job| _ = job.finish();
        if (f.name_changed) f.saveSession(&f.session.nameFields());
        f.session.status = .exited;
        f.session.exit_code = f.exit_code;
        f.session.clear_offset = f.recorder.clear_offset;
        f.recorder.flush();
        // The server may have moved an offset that we did not.
        const state = f.session.stateFields();
        f.saveSession(if (f.clearIsUnsaved()) state[0..4] else state[0..3]);
        f.recorder.exit(f.exit_code.?, f.session.id);
        spawn.reap(f.child);
        f.directory.unlinkSocket();
        f.server.deinit();
        raw_mode.restore();
        f.warnOfRecording();
        f.log.print(.info, "session {s} ended with {d}", .{ f.session.id, f.exit_code.? });
    }
};
