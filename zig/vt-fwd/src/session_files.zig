//! What a session has on disk before its command runs: where it is, how it is made, and how it is
//! left when the command could not be started.

const std = @import("std");
const posix = std.posix;
const control_dir = @import("control_dir.zig");
const ipc = @import("ipc.zig");
const session = @import("session.zig");

/// Where a session's things are.
pub const Paths = struct {
    directory: [:0]const u8,
    fifo: [:0]const u8,
    socket: [:0]const u8,

    /// `chosen` and `home` are the environment's, as `control_dir.root` has them.
    pub fn init(
        allocator: std.mem.Allocator,
        chosen: ?[]const u8,
        home: ?[]const u8,
        id: []const u8,
    ) error{OutOfMemory}!Paths {
        const root = try control_dir.root(allocator, chosen, home);
        const args = .{ root, id };
        return .{
            .directory = try std.fmt.allocPrintSentinel(allocator, "{s}/{s}", args, 0),
            .fifo = try std.fmt.allocPrintSentinel(allocator, "{s}/{s}/stdin", args, 0),
            .socket = try std.fmt.allocPrintSentinel(allocator, "{s}/{s}/ipc.sock", args, 0),
        };
    }

    /// A socket that nobody can connect to is no session: asked before anything is made.
    pub fn fits(paths: *const Paths) bool {
        return paths.socket.len <= control_dir.max_socket_path_bytes;
    }
};

pub const Prepared = struct {
    staged: session.Temporary,
    recording: posix.fd_t,
    listener: posix.fd_t,

    pub fn close(prepared: Prepared) void {
        posix.close(prepared.recording);
        posix.close(prepared.listener);
    }
};

/// All that a reader expects to find. The socket is there before the session says "running".
pub fn prepare(
    directory: *session.Directory,
    it: *const session.Session,
    paths: *const Paths,
) !Prepared {
    try directory.makeFifo(paths.fifo);
    const staged = try directory.stage(it);
    errdefer directory.discard(staged);
    const recording = try directory.createRecording();
    errdefer posix.close(recording);
    const listener = try ipc.listen(paths.socket);
    return .{ .staged = staged, .recording = recording, .listener = listener };
}

/// A session that could not be started does not stay "starting".
pub fn abandon(directory: *session.Directory, it: *session.Session, code: u8) void {
    it.status = .exited;
    it.exit_code = code;
    const fields = it.stateFields();
    directory.update(it, fields[0..3]) catch {}; // what went wrong is said by the caller
    directory.unlinkSocket();
}

/// The cause of an error and its cure, in a few words.
pub fn explain(err: anyerror) []const u8 {
    return switch (err) {
        error.SessionIsRunning => "a session with this id is running: choose another id",
        error.StdinIsNotAFifo => "its file 'stdin' is no FIFO: remove it",
        error.NoFifos => "the file system has no FIFOs: choose another VIBETUNNEL_CONTROL_DIR",
        error.NotAFile => "it is no regular file",
        error.SystemResources => "the system has no more processes, threads or memory for this",
        error.IsDir => "its session.json is a directory: remove it",
        error.NoSession => "it has no session.json",
        error.InvalidJson => "its session.json is not JSON",
        error.NoSpaceLeft, error.DiskQuota => "no space left on the device",
        error.ReadOnlyFileSystem => "the file system is read-only",
        error.AccessDenied, error.PermissionDenied => "permission denied",
        error.FileNotFound => "a part of the path does not exist",
        error.NotDir => "a part of the path is not a directory",
        error.SymLinkLoop => "it is a symbolic link",
        error.NameTooLong => "the path is too long",
        error.ProcessFdQuotaExceeded => "too many open files: raise 'ulimit -n'",
        else => @errorName(err),
    };
}
