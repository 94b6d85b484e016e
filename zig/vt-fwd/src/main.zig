//! `vibetunnel-fwd`: reads what was asked for, prepares the session, runs it.

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const cli = @import("cli.zig");
const clock = @import("clock.zig");
const control_dir = @import("control_dir.zig");
const pty = @import("pty.zig");
const raw_mode = @import("raw_mode.zig");
const session = @import("session.zig");
const spawn = @import("spawn.zig");
const title = @import("title.zig");
const Forwarder = @import("forwarder.zig").Forwarder;
const Log = @import("log.zig").Log;

/// Also the `version` that session.json carries.
pub const version = "0.1.0";

const exit_startup: u8 = 1;

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
    return start(allocator, &options, &log) catch |err| switch (err) {
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
    return std.fmt.allocPrintSentinel(allocator, "{s}/.vibetunnel/log.txt", .{home}, 0) catch null;
}

fn start(
    allocator: std.mem.Allocator,
    options: *const cli.Options,
    log: *Log,
) error{OutOfMemory}!u8 {
    const home = posix.getenv("HOME") orelse "";
    const root = try control_dir.root(allocator, posix.getenv("VIBETUNNEL_CONTROL_DIR"), home);
    var id_buffer: [control_dir.max_id_bytes]u8 = undefined;
    const now_ms = clock.epochMs();
    const id = options.session_id orelse
        control_dir.defaultId(&id_buffer, @intCast(now_ms), session.ownPid());
    const path = try std.fmt.allocPrintSentinel(allocator, "{s}/{s}", .{ root, id }, 0);
    const socket = try std.fmt.allocPrintSentinel(allocator, "{s}/ipc.sock", .{path}, 0);
    if (socket.len > control_dir.max_socket_path_bytes) {
        log.print(.@"error", "the socket path {s} has {d} bytes, the system allows {d}: " ++
            "use a shorter VIBETUNNEL_CONTROL_DIR or session id", .{
            socket, socket.len, control_dir.max_socket_path_bytes,
        });
        return exit_startup;
    }

    var cwd_buffer: [posix.PATH_MAX]u8 = undefined;
    const cwd = posix.getcwd(&cwd_buffer) catch "/"; // removed, or not ours to know
    const nested = posix.getenv("VIBETUNNEL_SESSION_ID") != null;
    const size, const size_is_known = initialSize(nested);
    var it: session.Session = .{
        .id = id,
        .name = title.defaultName(.{ .argv0 = options.command[0], .cwd = cwd, .home = home }),
        .command = options.command,
        .cwd = cwd,
        .started_at = session.isoTime(now_ms),
        .initial_size = if (size_is_known) size else null,
        .version = version,
        .nested = nested,
    };
    const argv = try allocator.allocSentinel(?[*:0]const u8, options.command.len, null);
    for (argv, options.command) |*pointer, word| pointer.* = word.ptr;
    const envp = try spawn.environment(allocator, @ptrCast(std.os.environ), id);

    var directory = session.Directory.open(path) catch |err| {
        log.print(.@"error", "cannot use {s}: {s}", .{ path, explain(err) });
        return exit_startup;
    };
    const fifo = try std.fmt.allocPrintSentinel(allocator, "{s}/stdin", .{path}, 0);
    const recording = prepare(&directory, &it, fifo) catch |err| {
        log.print(.@"error", "cannot start in {s}: {s}", .{ path, explain(err) });
        return exit_startup;
    };
    return forwarder.run(.{
        .options = options,
        .log = log,
        .session = &it,
        .directory = &directory,
        .recording = recording,
        .size = size,
        .argv = argv,
        .envp = envp,
    }) catch |err| {
        log.print(.@"error", "cannot start {s}: {s}", .{ options.command[0], @errorName(err) });
        it.status = .exited;
        it.exit_code = 126;
        directory.update(&it, &it.stateFields()) catch {}; // the error was said already
        directory.unlinkSocket();
        return 126;
    };
}

fn prepare(
    directory: *session.Directory,
    it: *const session.Session,
    fifo: [:0]const u8,
) !posix.fd_t {
    try directory.makeFifo(fifo);
    try directory.create(it);
    return directory.createRecording();
}

fn explain(err: anyerror) []const u8 {
    return switch (err) {
        error.SessionIsRunning => "a session with this id is running: choose another id",
        error.StdinIsNotAFifo => "its file 'stdin' is no FIFO: remove it",
        error.CannotCreateDirectory => "the directory cannot be made or is not yours",
        error.CannotCreateFile => "its files cannot be made",
        error.NoSpaceLeft => "no space left on the device",
        error.AccessDenied => "permission denied",
        else => @errorName(err),
    };
}

/// The size to start with, and whether it is the terminal's own.
fn initialSize(nested: bool) struct { asciicast.Size, bool } {
    if (pty.getSize(1)) |size| return .{ size, true };
    if (!nested) return .{ default_size, true };
    if (posix.isatty(1)) {
        // VibeTunnel's app sets the size of a new terminal a moment after starting us.
        posix.nanosleep(0, 100 * std.time.ns_per_ms);
        if (pty.getSize(1)) |size| return .{ size, true };
    }
    return .{ nested_size, false };
}

test {
    std.testing.refAllDecls(@This());
}
