//! Sessions inside somebody else's process, one thread each. Of what belongs to the whole process
//! (signal handlers, working directory, umask, environment, SIGCHLD) nothing is changed. A host
//! that exits ends its sessions first; a child that the host forks has none of them.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const cli = @import("cli.zig");
const clock = @import("clock.zig");
const control_dir = @import("control_dir.zig");
const forwarder_ = @import("forwarder.zig");
const pages = @import("pages.zig");
const session_ = @import("session.zig");
const session_files = @import("session_files.zig");
const spawn = @import("spawn.zig");
const start_config = @import("start_config.zig");
const title = @import("title.zig");
const Forwarder = forwarder_.Forwarder;
const Handles = @import("handles.zig").Handles;
const Log = @import("log.zig").Log;

/// The loop needs a few pages, and the rest is never touched; a debug build copies structs of some
/// 400 kB to the stack, several in one call.
const stack_bytes = if (builtin.mode == .Debug) 16 * 1024 * 1024 else 512 * 1024;

/// How long a host that exits waits for its sessions: once after SIGHUP, once after SIGKILL.
const exit_patience_ns = std.time.ns_per_s;

/// What is known of a session by its handle, also after its end.
pub const Outcome = struct {
    id_buffer: [control_dir.max_id_bytes]u8,
    id_len: usize,
    pid: posix.pid_t,
    /// Null while it runs.
    exit_code: ?u8 = null,
    /// Where requests go while it runs.
    requests: posix.fd_t,

    /// For whoever guesses a handle while its session starts.
    const unborn: Outcome = .{
        .id_buffer = undefined,
        .id_len = 0,
        .pid = 0,
        .exit_code = spawn.exit_unknown,
        .requests = -1,
    };

    pub fn id(outcome: *const Outcome) []const u8 {
        return outcome.id_buffer[0..outcome.id_len];
    }
};

pub const Sessions = struct {
    allocator: std.mem.Allocator,
    version: []const u8,
    /// Held while a session starts or ends, so that a fork sees all of its descriptors or none.
    mutex: std.Thread.Mutex = .{},
    /// A session has ended.
    ended: std.Thread.Condition = .{},
    live: std.DoublyLinkedList = .{},
    count: usize = 0,
    /// The host exits: nothing is started any more.
    closing: bool = false,
    handles: Handles(Outcome),

    pub fn start(
        self: *Sessions,
        config: []const u8,
        problem: *start_config.Problem,
    ) !u32 {
        const run = try pages.create(Run);
        errdefer pages.destroy(run);
        run.arena = .init(self.allocator);
        errdefer run.arena.deinit();
        run.sessions = self;
        run.turn = .{};
        try run.configure(config, self.version, problem);
        self.mutex.lock();
        defer self.mutex.unlock();
        if (self.closing) return error.HostExits;
        run.handle = try self.handles.create(.unborn);
        errdefer _ = self.handles.remove(run.handle);
        try run.open();
        errdefer run.close();
        // Another thread that guessed the handle may have closed it: the session goes on without.
        if (self.handles.acquire(run.handle)) |slot| {
            slot.value = run.outcome();
            slot.release();
        }
        try run.startThread();
        self.live.append(&run.node);
        self.count += 1;
        return run.handle;
    }

    /// The exit code, or null when the session still runs after `timeout_ns` (null: wait on).
    pub fn wait(self: *Sessions, handle: u32, timeout_ns: ?u64) error{NoHandle}!?u8 {
        const slot = self.handles.acquire(handle) orelse return error.NoHandle;
        defer slot.release();
        var timer = std.time.Timer.start() catch null; // then a spurious wake waits anew
        while (true) {
            if (slot.handle != handle) return error.NoHandle;
            if (slot.value.exit_code) |code| return code;
            const total = timeout_ns orelse {
                slot.changed.wait(&slot.mutex);
                continue;
            };
            const left = total -| (if (timer) |*it| it.read() else 0);
            if (left == 0) return null;
            slot.changed.timedWait(&slot.mutex, left) catch {}; // the time is looked at above
        }
    }

    /// False when the session has ended.
    pub fn request(self: *Sessions, handle: u32, byte: u8) error{NoHandle}!bool {
        const slot = self.handles.acquire(handle) orelse return error.NoHandle;
        defer slot.release();
        if (slot.value.exit_code != null) return false;
        send(slot.value.requests, byte);
        return true;
    }

    fn send(fd: posix.fd_t, byte: u8) void {
        // A full pipe holds more requests than anybody has patience for.
        _ = posix.write(fd, &.{byte}) catch {};
    }

    fn report(self: *Sessions, handle: u32, code: u8) void {
        const slot = self.handles.acquire(handle) orelse return; // nobody is interested
        defer slot.release();
        slot.value.exit_code = code;
        slot.changed.broadcast();
    }

    // ---- the host's exit and fork ---------------------------------------------------------------

    /// Ends all sessions as a terminal that goes away does.
    pub fn beforeExit(self: *Sessions) void {
        self.mutex.lock();
        defer self.mutex.unlock();
        self.closing = true;
        for ([_]u8{ forwarder_.request_hang_up, posix.SIG.KILL }) |byte| {
            var node = self.live.first;
            while (node) |it| : (node = it.next) {
                const run: *Run = @fieldParentPtr("node", it);
                send(run.request_write, byte);
            }
            self.waitUntilNoneIsLive();
        }
    }

    fn waitUntilNoneIsLive(self: *Sessions) void {
        var timer = std.time.Timer.start() catch return;
        while (self.live.first != null) {
            const left = exit_patience_ns -| timer.read();
            if (left == 0) return;
            self.ended.timedWait(&self.mutex, left) catch {}; // the time is looked at above
        }
    }

    pub fn beforeFork(self: *Sessions) void {
        self.mutex.lock();
        var node = self.live.first;
        while (node) |it| : (node = it.next) {
            const run: *Run = @fieldParentPtr("node", it);
            run.turn.lock();
        }
        self.handles.lockAll();
    }

    pub fn afterForkInParent(self: *Sessions) void {
        self.handles.unlockAll();
        var node = self.live.first;
        while (node) |it| : (node = it.next) {
            const run: *Run = @fieldParentPtr("node", it);
            run.turn.unlock();
        }
        self.mutex.unlock();
    }

    /// The sessions are the parent's: what is open here would keep their ends from being seen.
    pub fn afterForkInChild(self: *Sessions) void {
        self.handles.dropAll(forget);
        while (self.live.popFirst()) |node| {
            const run: *Run = @fieldParentPtr("node", node);
            run.forwarder.closeAll();
            run.close();
            run.free();
        }
        self.count = 0;
        self.mutex = .{};
        self.ended = .{};
    }

    fn forget(_: Outcome) void {}
};

/// A session that runs, and all that is its own.
const Run = struct {
    forwarder: Forwarder,
    sessions: *Sessions,
    arena: std.heap.ArenaAllocator,
    node: std.DoublyLinkedList.Node,
    /// Held by the thread except while it waits.
    turn: std.Thread.Mutex,
    handle: u32,

    options: cli.Options,
    log: Log,
    session: session_.Session,
    directory: session_.Directory,
    paths: session_files.Paths,
    size: asciicast.Size,
    command: spawn.Command,
    environment: []const [*:0]const u8,
    git: bool,
    id_buffer: [control_dir.max_id_bytes]u8,
    request_read: posix.fd_t,
    request_write: posix.fd_t,

    /// All that needs no descriptor.
    fn configure(
        run: *Run,
        text: []const u8,
        version: []const u8,
        problem: *start_config.Problem,
    ) !void {
        const arena = run.arena.allocator();
        const config = try start_config.parse(arena, text, problem);
        const now_ms = clock.epochMs();
        const id = config.id orelse defaultId(&run.id_buffer, now_ms);
        const home = getenv("HOME");
        const chosen = config.control_dir orelse getenv("VIBETUNNEL_CONTROL_DIR");
        run.paths = try .init(arena, chosen, home, id);
        if (!run.paths.fits()) {
            problem.set("control_dir", "and id make a socket path of over 103 bytes, to which " ++
                "nobody could connect");
            return error.InvalidConfig;
        }
        const cwd = try absolute(arena, config.cwd);
        run.options = .{
            .title_mode = config.title_mode,
            .record_input = config.record_input,
            .max_cast_bytes = config.max_cast_bytes,
        };
        run.log = .{ .level = .silent, .path = null };
        run.size = config.size;
        run.git = config.git;
        run.session = .{
            .id = id,
            .name = if (config.name) |name| .fromBytes(name) else title.defaultName(.{
                .argv0 = config.argv[0],
                .cwd = cwd,
                .home = home orelse "",
            }),
            .command = config.argv,
            .cwd = cwd,
            .started_at = session_.isoTime(now_ms),
            .initial_size = config.size,
            .version = version,
            .nested = getenv("VIBETUNNEL_SESSION_ID") != null,
        };
        run.environment = config.env orelse try ownEnvironment(arena);
        run.command = .{
            .argv = try spawn.arguments(arena, config.argv),
            .envp = try spawn.environment(arena, run.environment, id),
            .directory = cwd,
            .close_others = true,
        };
    }

    /// Below our own directory when it is relative.
    fn absolute(arena: std.mem.Allocator, given: ?[]const u8) ![:0]const u8 {
        const path = given orelse "";
        if (path.len > 0 and path[0] == '/') return arena.dupeZ(u8, path);
        var buffer: [posix.PATH_MAX]u8 = undefined;
        // Where it is gone, or not to be known, a command that deletes things must not be in "/".
        const own = posix.getcwd(&buffer) catch return error.WorkingDirectory;
        if (path.len == 0) return arena.dupeZ(u8, own);
        return std.fmt.allocPrintSentinel(arena, "{s}/{s}", .{ own, path }, 0);
    }

    /// Two that start in one millisecond, in one process too, differ.
    fn defaultId(buffer: *[control_dir.max_id_bytes]u8, now_ms: u64) []const u8 {
        const Counter = struct {
            var next: std.atomic.Value(u32) = .init(1);
        };
        return std.fmt.bufPrint(buffer, "fwd_{d}_{d}_{d}", .{
            now_ms, session_.ownPid(), Counter.next.fetchAdd(1, .monotonic),
        }) catch unreachable; // 4 + 20 + 1 + 11 + 1 + 10 characters at most
    }

    /// Of the host, until it changes its environment.
    fn getenv(name: [*:0]const u8) ?[]const u8 {
        return std.mem.span(std.c.getenv(name) orelse return null);
    }

    /// A copy: the host may change its own at any time.
    fn ownEnvironment(arena: std.mem.Allocator) ![]const [*:0]const u8 {
        var list: std.ArrayList([*:0]const u8) = .empty;
        if (@intFromPtr(std.c.environ) == 0) return &.{}; // after clearenv(3)
        var entry = std.c.environ;
        while (entry[0]) |text| : (entry += 1) {
            try list.append(arena, try arena.dupeZ(u8, std.mem.span(text)));
        }
        return list.toOwnedSlice(arena);
    }

    /// Makes the session's files and starts its command.
    fn open(run: *Run) !void {
        const flags: posix.O = .{ .DIRECTORY = true, .CLOEXEC = true };
        const cwd = posix.openZ(run.command.directory.?, flags, 0) catch
            return error.WorkingDirectory;
        posix.close(cwd);
        const ends = try posix.pipe2(.{ .CLOEXEC = true, .NONBLOCK = true });
        run.request_read, run.request_write = ends;
        errdefer for (ends) |fd| posix.close(fd);
        run.directory = try .open(run.paths.directory);
        errdefer run.directory.close();
        run.begin() catch |err| {
            session_files.abandon(&run.directory, &run.session, 1);
            return err;
        };
    }

    fn begin(run: *Run) !void {
        const paths = &run.paths;
        const prepared = try session_files.prepare(&run.directory, &run.session, paths);
        errdefer {
            prepared.close(); // descriptors may be what is missing
            run.directory.discard(prepared.staged);
        }
        try run.forwarder.begin(.{
            .options = &run.options,
            .log = &run.log,
            .session = &run.session,
            .directory = &run.directory,
            .staged = prepared.staged,
            .recording = prepared.recording,
            .listener = prepared.listener,
            .place = .{ .thread = run.request_read },
            .title = .{
                .mode = run.options.title_mode,
                .context = .{ .argv0 = "", .cwd = "", .home = "" },
                .silent = true,
            },
            .git_environment = if (run.git) run.environment else null,
            .size = run.size,
            .command = run.command,
        });
    }

    fn outcome(run: *const Run) Outcome {
        var it: Outcome = .{
            .id_buffer = undefined,
            .id_len = run.session.id.len,
            .pid = run.forwarder.child,
            .requests = run.request_write,
        };
        @memcpy(it.id_buffer[0..it.id_len], run.session.id);
        return it;
    }

    fn startThread(run: *Run) !void {
        // The host's handlers run on the host's threads. What a fault of ours raises stays open.
        var mask = posix.sigfillset();
        for ([_]u8{
            posix.SIG.SEGV, posix.SIG.BUS, posix.SIG.ILL,  posix.SIG.FPE,
            posix.SIG.TRAP, posix.SIG.SYS, posix.SIG.ABRT,
        }) |signal| posix.sigdelset(&mask, signal);
        var before: posix.sigset_t = undefined;
        posix.sigprocmask(posix.SIG.SETMASK, &mask, &before);
        defer posix.sigprocmask(posix.SIG.SETMASK, &before, null);
        const thread = std.Thread.spawn(.{ .stack_size = stack_bytes }, work, .{run}) catch {
            // The command runs already: it is ended here and now.
            Sessions.send(run.request_write, posix.SIG.KILL);
            _ = run.loop();
            return error.SystemResources;
        };
        thread.detach();
    }

    fn work(run: *Run) void {
        const code = run.loop();
        const sessions = run.sessions;
        sessions.mutex.lock();
        defer sessions.mutex.unlock();
        sessions.live.remove(&run.node);
        sessions.count -= 1;
        // First the files, whose lock keeps a session from being removed or its id from being used
        // again: whoever waits may do both. Requests come until the end is reported.
        run.closeFiles();
        sessions.report(run.handle, code);
        run.closeRequests();
        run.free();
        sessions.ended.broadcast();
    }

    fn loop(run: *Run) u8 {
        const f = &run.forwarder;
        while (true) {
            {
                run.turn.lock();
                defer run.turn.unlock();
                if (f.finished()) return f.finalise();
            }
            var fds: Forwarder.PollFds = undefined;
            f.wait(&fds);
            run.turn.lock();
            defer run.turn.unlock();
            f.act(&fds);
        }
    }

    /// What the forwarder does not close itself.
    fn close(run: *Run) void {
        run.closeRequests();
        run.closeFiles();
    }

    fn closeRequests(run: *Run) void {
        posix.close(run.request_read);
        posix.close(run.request_write);
    }

    fn closeFiles(run: *Run) void {
        posix.close(run.forwarder.recorder.file.fd);
        run.directory.close();
    }

    fn free(run: *Run) void {
        run.arena.deinit();
        pages.destroy(run);
    }
};
