//! `vibetunnel-fwd`: reads what was asked for, prepares the session, runs it.

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const cli = @import("cli.zig");
const clock = @import("clock.zig");
const control_dir = @import("control_dir.zig");
const control = @import("control.zig");
const detach = @import("detach.zig");
const frames = @import("frames.zig");
const ipc = @import("ipc.zig");
const pty = @import("pty.zig");
const raw_mode = @import("raw_mode.zig");
const session = @import("session.zig");
const session_files = @import("session_files.zig");
const signals = @import("signals.zig");
const spawn = @import("spawn.zig");
const title = @import("title.zig");
const Forwarder = @import("forwarder.zig").Forwarder;
const Log = @import("log.zig").Log;
const explain = session_files.explain;

/// Also the `version` that session.json carries.
pub const version = @import("config").version;

const exit_startup: u8 = 1;
const exit_not_runnable: u8 = 126;

/// What a session has when nobody knows better: without a terminal, and nested without one.
const default_size: asciicast.Size = .{ .cols = 120, .rows = 40 };
const nested_size: asciicast.Size = .{ .cols = 80, .rows = 24 };

pub const std_options: std.Options = .{ .enable_segfault_handler = false };

/// Gives the terminal back before saying what happened.
pub const panic = std.debug.FullPanic(struct {
    fn panic(message: []const u8, _: ?usize) noreturn {
        raw_mode.restore();
        for ([_][]const u8{ "vibetunnel-fwd: internal error: ", message, "\n" }) |piece| {
            _ = posix.write(2, piece) catch break; // nobody else to tell
        }
        posix.abort();
    }
}.panic);

/// Large, and mostly never touched: it costs the pages that are used.
var forwarder: Forwarder = undefined;

pub fn main() u8 {
    openStandardStreams();
    createStartedFile();
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    const allocator = arena.allocator();
    const args = allocator.alloc([:0]const u8, std.os.argv.len) catch return outOfMemory();
    for (args, std.os.argv) |*arg, raw| arg.* = std.mem.span(raw);
    const options = switch (cli.parse(args[@min(1, args.len)..], .{
        .title_mode = posix.getenv("VIBETUNNEL_TITLE_MODE"),
        .log_level = posix.getenv("VIBETUNNEL_LOG_LEVEL"),
        .debug = posix.getenv("VIBETUNNEL_DEBUG"),
        .record_input = posix.getenv("VIBETUNNEL_RECORD_INPUT"),
        .max_cast_bytes = posix.getenv("VIBETUNNEL_MAX_CAST_BYTES"),
    })) {
        .run => |options| options,
        .help => return say(1, &.{cli.usage}, 0),
        .version => return say(1, &.{ "vibetunnel-fwd ", version, "\n" }, 0),
        .invalid => |it| return say(
            2,
            &.{ "vibetunnel-fwd: ", it.word, ": ", it.message(), "\n" },
            exit_startup,
        ),
    };
    var log: Log = .{ .level = options.level, .path = logPath(allocator, &options) };
    const code = if (options.update_title) |text|
        updateTitle(allocator, &options, &log, text)
    else
        start(allocator, &options, &log);
    return code catch |err| switch (err) {
        error.OutOfMemory => outOfMemory(),
    };
}

fn outOfMemory() u8 {
    return say(2, &.{"vibetunnel-fwd: out of memory\n"}, exit_startup);
}

fn say(fd: posix.fd_t, pieces: []const []const u8, code: u8) u8 {
    for (pieces) |piece| _ = posix.write(fd, piece) catch return exit_startup;
    return code;
}

/// A program may be started without any of them; files opened later must not take their place.
fn openStandardStreams() void {
    while (true) {
        const fd = posix.openZ("/dev/null", .{ .ACCMODE = .RDWR }, 0) catch return;
        if (fd > 2) return posix.close(fd);
    }
}

/// Tells the `vt` wrapper that this program could be started at all.
fn createStartedFile() void {
    const path = posix.getenv("VIBETUNNEL_FWD_STARTED_FILE") orelse return;
    const flags: posix.O = .{ .ACCMODE = .WRONLY, .CREAT = true, .EXCL = true, .CLOEXEC = true };
    const fd = posix.openZ(path, flags, 0o600) catch return; // only the wrapper's fallback is lost
    posix.close(fd);
}

fn logPath(allocator: std.mem.Allocator, options: *const cli.Options) ?[:0]const u8 {
    if (options.log_file) |path| return path;
    const home = posix.getenv("HOME") orelse return null;
    const folder = std.fmt.allocPrintSentinel(allocator, "{s}/.vibetunnel", .{home}, 0) catch
        return null;
    posix.mkdirZ(folder, 0o700) catch {}; // it is there, or the log goes without a file
    return std.fmt.allocPrintSentinel(allocator, "{s}/.vibetunnel/log.txt", .{home}, 0) catch null;
}

fn pathsOf(allocator: std.mem.Allocator, id: []const u8) error{OutOfMemory}!session_files.Paths {
    const chosen = posix.getenv("VIBETUNNEL_CONTROL_DIR");
    return .init(allocator, chosen, posix.getenv("HOME"), id);
}

/// How long a forwarder that is told of a new name may take to say that it has it.
const patience_ms = 300;

/// Renames a session: on disk first, which is what counts; its forwarder is told if it listens.
fn updateTitle(
    allocator: std.mem.Allocator,
    options: *const cli.Options,
    log: *Log,
    text: []const u8,
) error{OutOfMemory}!u8 {
    const id = options.session_id.?; // the command line was refused without it
    const paths = try pathsOf(allocator, id);
    const name: title.Name = .fromBytes(text);
    var directory = session.Directory.existing(paths.directory) orelse {
        log.print(.@"error", "there is no session {s}", .{id});
        return exit_startup;
    };
    directory.rename(&name) catch |err| {
        log.print(.@"error", "cannot rename session {s}: {s}", .{ id, explain(err) });
        return exit_startup;
    };
    const fd = ipc.connect(paths.socket) orelse return 0;
    defer posix.close(fd);
    var message: [frames.header_bytes + control.max_update_title_bytes]u8 = undefined;
    const payload = control.updateTitle(message[frames.header_bytes..], &name);
    frames.writeHeader(message[0..frames.header_bytes], .control, payload.len);
    const frame = message[0 .. frames.header_bytes + payload.len];
    // The name is on disk, where the forwarder looks too.
    _ = posix.sendto(fd, frame, posix.MSG.DONTWAIT, null, 0) catch return 0;
    // It hangs up when it has stored the name: a rename that follows is not undone by this one.
    posix.shutdown(fd, .send) catch return 0;
    var fds = [_]posix.pollfd{.{ .fd = fd, .events = posix.POLL.IN, .revents = 0 }};
    _ = posix.poll(&fds, patience_ms) catch 0;
    return 0;
}

fn start(
    allocator: std.mem.Allocator,
    options: *const cli.Options,
    log: *Log,
) error{OutOfMemory}!u8 {
    // As long as our own terminal is there to be asked.
    const initial: InitialSize = .of(options);
    const ready = if (options.detach) switch (detach.detach() catch |err| {
        log.print(.@"error", "cannot detach: {s}", .{explain(err)});
        return exit_startup;
    }) {
        .starter => |code| return code,
        .session => |ready| ready,
    } else null;
    return runSession(allocator, options, log, initial, ready);
}

fn runSession(
    allocator: std.mem.Allocator,
    options: *const cli.Options,
    log: *Log,
    initial: InitialSize,
    ready: ?detach.Ready,
) error{OutOfMemory}!u8 {
    var id_buffer: [control_dir.max_id_bytes]u8 = undefined;
    const now_ms = clock.epochMs();
    const id = options.session_id orelse
        control_dir.defaultId(&id_buffer, @intCast(now_ms), session.ownPid());
    const paths = try pathsOf(allocator, id);
    if (!paths.fits()) return refusePath(log, paths.socket);
    var cwd_buffer: [posix.PATH_MAX]u8 = undefined;
    const cwd = posix.getcwd(&cwd_buffer) catch "/"; // removed, or not ours to know
    const context: title.Context = .{
        .argv0 = options.command[0],
        .cwd = cwd,
        .home = posix.getenv("HOME") orelse "",
    };
    var it: session.Session = .{
        .id = id,
        .name = if (options.name) |name| .fromBytes(name) else title.defaultName(context),
        .command = options.command,
        .cwd = cwd,
        .started_at = session.isoTime(now_ms),
        .initial_size = if (initial.known) initial.size else null,
        .version = version,
        .nested = isNested(),
    };
    const inherited: []const [*:0]const u8 = @ptrCast(std.os.environ);
    const argv = try spawn.arguments(allocator, options.command);
    const envp = try spawn.environment(allocator, inherited, id);
    // From here on a signal finds somebody who ends the session in good order.
    const signal_fd = signals.install() catch |err| {
        log.print(.@"error", "cannot wait for signals: {s}", .{@errorName(err)});
        return exit_startup;
    };
    var directory = session.Directory.open(paths.directory) catch |err| {
        log.print(.@"error", "cannot use {s}: {s}", .{ paths.directory, explain(err) });
        return exit_startup;
    };
    const prepared = session_files.prepare(&directory, &it, &paths) catch |err| {
        session_files.abandon(&directory, &it, exit_startup);
        log.print(.@"error", "cannot start in {s}: {s}", .{ paths.directory, explain(err) });
        return exit_startup;
    };
    return forwarder.run(.{
        .options = options,
        .log = log,
        .session = &it,
        .directory = &directory,
        .staged = prepared.staged,
        .recording = prepared.recording,
        .listener = prepared.listener,
        .place = .{ .process = signal_fd },
        .title = .{ .mode = options.title_mode, .context = context, .silent = !posix.isatty(1) },
        .git_environment = inherited,
        .size = initial.size,
        .command = .{ .argv = argv, .envp = envp },
        .ready = ready,
    }) catch |err| {
        prepared.close(); // descriptors may be what is missing
        directory.discard(prepared.staged);
        session_files.abandon(&directory, &it, exit_not_runnable);
        log.print(.@"error", "cannot start {s}: {s}", .{ options.command[0], explain(err) });
        return exit_not_runnable;
    };
}

fn refusePath(log: *Log, socket: []const u8) u8 {
    log.print(.@"error", "the socket path {s} has {d} bytes, the system allows {d}: " ++
        "use a shorter VIBETUNNEL_CONTROL_DIR or session id", .{
        socket, socket.len, control_dir.max_socket_path_bytes,
    });
    return exit_startup;
}

/// The size to start with, and whether somebody chose it.
const InitialSize = struct {
    size: asciicast.Size,
    known: bool = true,

    fn of(options: *const cli.Options) InitialSize {
        if (options.size) |size| return .{ .size = size };
        if (pty.getSize(1)) |size| return .{ .size = size };
        if (!isNested()) return .{ .size = default_size };
        if (posix.isatty(1)) {
            // VibeTunnel's app sets the size of a new terminal a moment after starting us.
            posix.nanosleep(0, 100 * std.time.ns_per_ms);
            if (pty.getSize(1)) |size| return .{ .size = size };
        }
        return .{ .size = nested_size, .known = false };
    }
};

/// Whether we were started in another session.
fn isNested() bool {
    return posix.getenv("VIBETUNNEL_SESSION_ID") != null;
}

test {
    std.testing.refAllDecls(@This());
}
