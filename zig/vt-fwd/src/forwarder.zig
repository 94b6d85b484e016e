//! The session itself: one loop between the user's terminal, the child's pty, the recording and
//! the clients. Nothing in it waits for anything but `poll`.

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const cli = @import("cli.zig");
const child_watch = @import("child_watch.zig");
const clock = @import("clock.zig");
const control = @import("control.zig");
const detach = @import("detach.zig");
const git = @import("git.zig");
const ipc = @import("ipc.zig");
const pty = @import("pty.zig");
const raw_mode = @import("raw_mode.zig");
const session = @import("session.zig");
const signals = @import("signals.zig");
const spawn = @import("spawn.zig");
const title_filter = @import("title_filter.zig");
const Ending = @import("ending.zig").Ending;
const InputQueue = @import("input_queue.zig").InputQueue;
const Log = @import("log.zig").Log;
const OuterOutput = @import("outer_output.zig").OuterOutput;
const OuterTitle = @import("outer_title.zig").OuterTitle;
const Typing = @import("typing.zig").Typing;
const Upkeep = @import("upkeep.zig").Upkeep;

/// A pty that hung up while the child lives is tried again after this time, then less often.
const first_reopen_us = 10 * std.time.us_per_ms;
const last_reopen_us = 640 * std.time.us_per_ms;

/// No descriptors were left for a client: the next attempt.
const accept_again_us = 100 * std.time.us_per_ms;

const read_bytes = 64 * 1024;

const stdin = 0;
const stdout = 1;

/// What a session needs to know of its surroundings.
pub const Start = struct {
    options: *const cli.Options,
    log: *Log,
    session: *session.Session,
    directory: *session.Directory,
    /// The session.json that says "starting".
    staged: session.Temporary,
    recording: posix.fd_t,
    listener: posix.fd_t,
    place: Place,
    title: OuterTitle,
    /// The environment that git is asked in; null not to ask.
    git_environment: ?[]const [*:0]const u8,
    size: asciicast.Size,
    command: spawn.Command,
    /// Somebody waits to hear that the session runs.
    ready: ?detach.Ready = null,
};

/// Where the loop runs.
pub const Place = union(enum) {
    /// In a process of its own, between the user's terminal and the child's. Signals are read
    /// from this descriptor; they were installed before anything was made on disk.
    process: posix.fd_t,
    /// In a thread of somebody else's process, whose terminal, signals and working directory are
    /// not ours. Requests (`request_end`, or the number of a signal for the child) come as bytes
    /// from this descriptor.
    thread: posix.fd_t,
};

/// Ask the child to end, as a signal to the process would.
pub const request_end: u8 = 0;
/// The same because the host itself ends.
pub const request_hang_up: u8 = 255;

pub const Forwarder = struct {
    options: *const cli.Options,
    log: *Log,
    place: Place,

    recorder: asciicast.Recorder,
    filter: title_filter.TitleFilter,
    outer: OuterOutput,
    title: OuterTitle,
    server: ipc.Server,
    accept_at_us: ?u64,
    /// Whose queue is written next: 0 is the keyboard, then the clients.
    next_source: usize,
    upkeep: Upkeep,

    master: posix.fd_t,
    master_state: MasterState,
    reopen_us: u64,
    child: posix.pid_t,
    /// The child's pid may be another process's by now.
    child_gone: bool,
    /// Tells of the child's end where SIGCHLD does not; -1 otherwise.
    child_fd: posix.fd_t,
    /// When to look whether the child has ended, where nothing tells.
    look_at_us: ?u64,
    ending: Ending,

    stdin_open: bool,
    keyboard: InputQueue,
    typing: Typing,
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
        while (!f.finished()) {
            var fds: PollFds = undefined;
            f.wait(&fds);
            f.act(&fds);
        }
        return f.finalise();
    }

    /// The command runs when this returns. After an error nothing does, and what `start` names is
    /// still the caller's.
    pub fn begin(f: *Forwarder, start: Start) !void {
        f.options = start.options;
        f.log = start.log;
        f.place = start.place;
        f.filter = .{};
        f.outer = if (f.hasTerminal()) .init(stdout) else .{ .kind = .gone, .fd = -1 };
        f.title = start.title;
        f.server.init(start.listener);
        f.accept_at_us = null;
        f.next_source = 0;
        f.upkeep.init(start.session, start.directory, start.log);
        f.master_state = .open;
        f.reopen_us = first_reopen_us;
        f.child_gone = false;
        f.child_fd = -1;
        f.look_at_us = null;
        f.ending = .{};
        f.stdin_open = f.hasTerminal();
        f.keyboard.start = 0;
        f.keyboard.end = 0;
        f.keyboard.carry = .{};
        f.recording_warned = false;

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
        const environment = start.git_environment orelse return;
        if (!git.isInside(start.session.cwd)) return;
        f.upkeep.askGit(clock.monotonicUs(), start.command.directory, environment);
    }

    fn hasTerminal(f: *const Forwarder) bool {
        return f.place == .process;
    }

    fn launch(f: *Forwarder, start: Start) !void {
        const pair: pty.Pty = try .open(start.size);
        errdefer pair.close();
        if (f.hasTerminal()) raw_mode.enter(stdin);
        errdefer if (f.hasTerminal()) raw_mode.restore();
        f.master = pair.master;
        f.typing = .{
            .master = pair.master,
            .recorder = &f.recorder,
            .record = start.options.record_input,
        };
        f.title.begin(&start.session.name);
        f.showTitle(); // before anything of the child's
        f.child = try spawn.spawn(.{ .terminal = pair.slave }, start.command);
        posix.close(pair.slave);
        if (!f.hasTerminal()) f.watchChild();
        // From here on the child runs beside us.
        f.upkeep.started(clock.monotonicUs(), f.child, start.staged);
        if (start.ready) |starter| starter.tell(start.session.id);
        f.followRename(); // before anybody watched
        f.log.open();
        f.log.print(.info, "session {s} started, process {d}: {s}", .{
            start.session.id, f.child, start.session.command[0],
        });
    }

    fn watchChild(f: *Forwarder) void {
        if (child_watch.open(f.child)) |fd| {
            f.child_fd = fd;
        } else f.look_at_us = clock.monotonicUs();
    }

    // --- one turn of the loop ---

    const Slot = enum { signals, requests, child, master, keyboard, outer, listener, git };
    const slot_count = std.meta.fields(Slot).len;
    pub const PollFds = [slot_count + ipc.max_clients]posix.pollfd;

    /// Until there is something to do. It changes nothing that another thread may look at.
    pub fn wait(f: *Forwarder, fds: *PollFds) void {
        f.interests(fds);
        const used = fds[0 .. slot_count + f.server.highest()];
        const milliseconds = if (f.recorder.pending()) 0 else f.timeout();
        const result = posix.system.poll(used.ptr, @intCast(used.len), milliseconds);
        switch (posix.errno(result)) {
            .SUCCESS => return,
            .INTR => {},
            // No memory, or a limit set below the number of descriptors: another time, perhaps.
            else => posix.nanosleep(0, 10 * std.time.ns_per_ms),
        }
        for (fds) |*it| it.revents = 0;
    }

    /// Does what `wait` has found.
    pub fn act(f: *Forwarder, fds: *const PollFds) void {
        const idle = for (fds) |it| {
            if (it.revents != 0) break false;
        } else true;
        // Readers of the recording see everything before we sleep.
        if (idle) f.recorder.flush();
        const now = clock.monotonicUs();
        if (ready(fds, .signals)) f.onSignals(now);
        if (ready(fds, .requests)) f.onRequests(now);
        if (ready(fds, .child)) f.onChild(now);
        if (ready(fds, .outer)) f.onOuterReady(now);
        const master = fds[@intFromEnum(Slot.master)].revents;
        if (master & ~@as(i16, posix.POLL.OUT) != 0) f.onOutput(now);
        if (master & posix.POLL.OUT != 0) f.writeQueued(now);
        if (ready(fds, .keyboard)) f.onKeyboard(now);
        if (ready(fds, .listener)) f.onConnect(now);
        if (ready(fds, .git)) f.upkeep.onGit(now);
        for (fds[slot_count..], 0..) |it, index| {
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
        const child = if (f.ending.exit_code == null) f.child_fd else -1;
        set(fds, .signals, if (f.place == .process) f.place.process else -1, in);
        set(fds, .requests, if (f.place == .thread) f.place.thread else -1, in);
        set(fds, .child, child, in);
        set(fds, .master, if (master) f.master else -1, events);
        set(fds, .keyboard, if (keyboard) stdin else -1, in);
        set(fds, .outer, if (f.outer.pending.len > 0) f.outer.fd else -1, out);
        set(fds, .listener, if (accepting) f.server.listener else -1, in);
        set(fds, .git, f.upkeep.gitFd(), in);
        for (fds[slot_count..], &f.server.clients) |*it, slot| {
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
            f.upkeep.deadline(f.recorder.clear_offset),
            f.recorder.deadline() orelse never,
            f.accept_at_us orelse never,
            f.look_at_us orelse never,
            if (f.master_state == .suspended) f.master_state.suspended else never,
            f.ending.deadline(f.outer.pending.len > 0) orelse never,
        });
        const left = at -| clock.monotonicUs();
        return @intCast(left / std.time.us_per_ms + 1); // at most until the next look at the name
    }

    fn tick(f: *Forwarder, now: u64) void {
        f.recorder.tick(now);
        if (f.ending.killIsDue(now)) f.signalChild(posix.SIG.KILL);
        if (f.ending.givesUpOuter(now)) f.outer.abandon();
        if (f.accept_at_us) |at| if (now >= at) {
            f.accept_at_us = null;
        };
        if (f.look_at_us) |at| if (now >= at) f.onChild(now);
        if (f.master_state == .suspended and now >= f.master_state.suspended) {
            f.master_state = .open;
        }
        f.tickDrain(now);
        if (f.upkeep.watch.tick(now)) f.followRename();
        f.upkeep.saveName();
        f.upkeep.tickGit(now);
        if (f.upkeep.clearIsDue(now, f.recorder.clear_offset)) {
            f.recorder.flush(); // the offset must not be beyond the end of the file
            f.upkeep.saveClear(now, f.recorder.clear_offset);
        }
        f.showTitle();
        f.warnOfRecording();
    }

    /// After the child's end: decides that nothing more will come.
    fn tickDrain(f: *Forwarder, now: u64) void {
        if (f.outer.pending.len > 0 or !f.ending.isQuiet(now)) return;
        // On a busy machine the time may have passed without us: look once more.
        const before = f.ending.quiet_since_us;
        f.onOutput(now);
        if (f.ending.quiet_since_us == before or f.ending.drainIsOver(now)) {
            f.master_state = .ended;
        }
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
        if (f.outer.pending.len == 0) f.ending.outerIsFree(now);
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
            if (f.ending.exit_code == null) f.suspendMaster(now) else f.master_state = .ended;
        }
    }

    /// No process has the terminal open, and poll would say so without end.
    fn suspendMaster(f: *Forwarder, now: u64) void {
        f.master_state = .{ .suspended = now + f.reopen_us };
        f.reopen_us = @min(f.reopen_us * 2, last_reopen_us);
    }

    fn show(f: *Forwarder, now: u64, bytes: []const u8) void {
        f.ending.outputCame(now);
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
        if (f.ending.exit_code != null) return false; // nobody will read it
        if (!f.keyboard.isEmpty()) return true;
        for (&f.server.clients) |slot| {
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
                        f.ending.requested = true;
                    },
                    posix.SIG.KILL => f.ending.requested = true,
                    else => {},
                }
            },
            .update_title => |name| {
                f.upkeep.session.name = name;
                f.upkeep.name_changed = true;
                f.title.renamed(&name);
            },
        }
    }

    /// Somebody may have changed the name in session.json.
    fn followRename(f: *Forwarder) void {
        if (f.upkeep.nameWasChanged()) f.title.renamed(&f.upkeep.session.name);
    }

    // --- signals, sizes, the end ---

    fn onSignals(f: *Forwarder, now: u64) void {
        const arrived = signals.drain(f.place.process);
        if (arrived.isSet(posix.SIG.CONT)) raw_mode.enter(stdin); // a shell had the terminal
        if (arrived.isSet(posix.SIG.WINCH) or arrived.isSet(posix.SIG.CONT)) {
            f.followOuterSize(now);
        }
        if (arrived.isSet(posix.SIG.CHLD)) f.onChild(now);
        for ([_]u8{ posix.SIG.INT, posix.SIG.QUIT, posix.SIG.TERM, posix.SIG.HUP }) |signal| {
            if (arrived.isSet(signal)) f.askToEnd(now, signal);
        }
    }

    fn onRequests(f: *Forwarder, now: u64) void {
        var bytes: [16]u8 = undefined;
        const n = posix.read(f.place.thread, &bytes) catch 0; // then it comes again
        for (bytes[0..n]) |byte| switch (byte) {
            request_end => f.askToEnd(now, posix.SIG.TERM),
            request_hang_up => f.askToEnd(now, posix.SIG.HUP),
            1...posix.NSIG - 1 => |signal| f.obey(now, .{ .kill = signal }),
            else => {}, // no other is asked for
        };
    }

    /// The child may have ended.
    fn onChild(f: *Forwarder, now: u64) void {
        if (f.ending.exit_code != null) return;
        const exit = spawn.exited(f.child) orelse {
            if (f.look_at_us != null) f.look_at_us = now + child_watch.look_every_us;
            return;
        };
        f.look_at_us = null;
        f.child_gone = exit.gone;
        f.ending.childEnded(now, exit.code);
        if (f.master_state == .suspended) f.master_state = .open;
    }

    fn followOuterSize(f: *Forwarder, now: u64) void {
        if (!f.hasTerminal()) return;
        const size = pty.getSize(stdout) orelse return;
        if (!size.eql(f.recorder.size)) f.resize(now, size);
    }

    fn resize(f: *Forwarder, now: u64, size: asciicast.Size) void {
        pty.setSize(f.master, size);
        f.recorder.resize(now, size);
    }

    /// Passes the signal on; the second one, or a child that stays, is the end of patience.
    fn askToEnd(f: *Forwarder, now: u64, signal: u8) void {
        if (!f.ending.ask(now)) return f.signalChild(posix.SIG.KILL);
        f.log.print(.info, "signal {d}: asking the command to end", .{signal});
        f.signalChild(signal);
        f.signalChild(posix.SIG.CONT);
    }

    /// To the child's process group. The zombie keeps its pid from being used again.
    fn signalChild(f: *Forwarder, signal: u8) void {
        if (f.child_gone) return;
        // A child that has not got to setsid yet leads no group. One that is gone needs no signal.
        posix.kill(-f.child, signal) catch posix.kill(f.child, signal) catch {};
    }

    pub fn finished(f: *const Forwarder) bool {
        const drained = f.outer.pending.len == 0 and f.master_state == .ended;
        return f.ending.exit_code != null and drained;
    }

    /// In an order that readers can rely on: no output is missing, session.json says "exited"
    /// while the pid still answers, the exit line is the last, then the socket goes.
    pub fn finalise(f: *Forwarder) u8 {
        const now = clock.monotonicUs();
        const code = f.ending.exit_code.?;
        const id = f.upkeep.session.id;
        if (f.options.title_mode != .none) {
            const held = f.filter.flush(&f.filtered);
            f.outer.send(f.filtered[0..held]);
            f.recorder.output(now, f.filtered[0..held]);
        }
        f.recorder.endOutput(now);
        closeOnce(&f.master); // and session.json has a descriptor to be written with
        f.recorder.flush();
        f.upkeep.ended(code, f.recorder.clear_offset);
        f.recorder.exit(code, id);
        if (!f.child_gone) _ = spawn.reap(f.child);
        closeOnce(&f.child_fd);
        f.upkeep.directory.unlinkSocket();
        f.server.deinit();
        raw_mode.restore();
        f.warnOfRecording();
        f.log.print(.info, "session {s} ended with {d}", .{ id, code });
        return code;
    }

    /// In the child of a host that forked: the session is its parent's, and nothing of it may stay
    /// open here. The files are as they were.
    pub fn closeAll(f: *Forwarder) void {
        closeOnce(&f.master);
        closeOnce(&f.child_fd);
        if (f.upkeep.gitFd() >= 0) posix.close(f.upkeep.gitFd());
        f.server.deinit();
    }
};

fn closeOnce(fd: *posix.fd_t) void {
    if (fd.* >= 0) posix.close(fd.*);
    fd.* = -1;
}
