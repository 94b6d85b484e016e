//! Git's processes, started from inside somebody else's process: posix_spawn with clean signals,
//! an own process group and no inherited descriptors; no fork, no signal handlers, and only own
//! children are ever waited for.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const descriptor = @import("descriptor.zig");
const linux = std.os.linux;

const use_pidfd = builtin.os.tag == .linux;

pub const Exit = union(enum) {
    status: u8,
    signal: u8,
    /// The host ignores SIGCHLD or waits for everybody's children: nobody knows.
    unknown,
};

pub const Process = struct {
    pid: posix.pid_t,
    /// Readable once the process has ended; -1 where there is no pidfd.
    pidfd: posix.fd_t,
    /// Set by `poll`; from then on the pid may be somebody else's.
    exit: ?Exit = null,

    /// Reaps the process if it has ended.
    pub fn poll(process: *Process) ?Exit {
        if (process.exit == null) process.exit = waitNow(process.pid);
        return process.exit;
    }

    /// Signals the whole process group, as long as its number is certainly ours.
    pub fn signalGroup(process: *Process, signal: u8) void {
        if (process.exit != null) return;
        // It may have ended a moment ago: then there is nobody to signal.
        posix.kill(-process.pid, signal) catch {};
    }

    pub fn close(process: *Process) void {
        if (process.pidfd >= 0) posix.close(process.pidfd);
        process.pidfd = -1;
    }
};

/// The parent's ends of the child's standard streams, non-blocking; `stdin` is a socket.
pub const Pipes = struct { stdin: posix.fd_t, stdout: posix.fd_t, stderr: posix.fd_t };

pub const Spawned = struct { process: Process, pipes: Pipes };

pub const SpawnError = error{SpawnFailed};

/// `argv[0]` is the absolute path of the executable.
pub fn spawn(
    argv: [*:null]const ?[*:0]const u8,
    envp: [*:null]const ?[*:0]const u8,
) SpawnError!Spawned {
    const stdin = makePipe(.write) catch return error.SpawnFailed;
    errdefer posix.close(stdin.ours);
    defer posix.close(stdin.theirs);
    const stdout = makePipe(.read) catch return error.SpawnFailed;
    errdefer posix.close(stdout.ours);
    defer posix.close(stdout.theirs);
    const stderr = makePipe(.read) catch return error.SpawnFailed;
    errdefer posix.close(stderr.ours);
    defer posix.close(stderr.theirs);

    const pid = try spawnWith(argv, envp, .{ stdin.theirs, stdout.theirs, stderr.theirs });
    var process: Process = .{ .pid = pid, .pidfd = -1 };
    if (use_pidfd) {
        // Linux before 5.3 has none, nor does an emulator of it; then somebody polls.
        const result = linux.pidfd_open(pid, 0);
        if (linux.E.init(result) == .SUCCESS) process.pidfd = @intCast(result);
    }
    return .{
        .process = process,
        .pipes = .{ .stdin = stdin.ours, .stdout = stdout.ours, .stderr = stderr.ours },
    };
}

fn spawnWith(
    argv: [*:null]const ?[*:0]const u8,
    envp: [*:null]const ?[*:0]const u8,
    streams: [3]posix.fd_t,
) SpawnError!posix.pid_t {
    var actions: c.Opaque = undefined;
    if (c.posix_spawn_file_actions_init(&actions) != 0) return error.SpawnFailed;
    defer _ = c.posix_spawn_file_actions_destroy(&actions);
    for (streams, 0..) |fd, target| {
        const result = c.posix_spawn_file_actions_adddup2(&actions, fd, @intCast(target));
        if (result != 0) return error.SpawnFailed;
    }
    // Where the C library can: away from a directory that may vanish, and no descriptor that the
    // host forgot to mark close-on-exec.
    if (c.addchdir_np) |addchdir| {
        if (addchdir(&actions, "/") != 0) return error.SpawnFailed;
    }
    if (c.addclosefrom_np) |addclosefrom| {
        if (addclosefrom(&actions, 3) != 0) return error.SpawnFailed;
    }

    var attributes: c.Opaque = undefined;
    if (c.posix_spawnattr_init(&attributes) != 0) return error.SpawnFailed;
    defer _ = c.posix_spawnattr_destroy(&attributes);
    var none: c.SignalSet = undefined;
    var all: c.SignalSet = undefined;
    if (c.sigemptyset(&none) != 0 or c.sigfillset(&all) != 0) return error.SpawnFailed;
    if (c.posix_spawnattr_setsigmask(&attributes, &none) != 0) return error.SpawnFailed;
    if (c.posix_spawnattr_setsigdefault(&attributes, &all) != 0) return error.SpawnFailed;
    if (c.posix_spawnattr_setpgroup(&attributes, 0) != 0) return error.SpawnFailed;
    if (c.posix_spawnattr_setflags(&attributes, c.flags) != 0) return error.SpawnFailed;

    var pid: posix.pid_t = undefined;
    const result = c.posix_spawn(&pid, argv[0].?, &actions, &attributes, argv, envp);
    return if (result == 0) pid else error.SpawnFailed;
}

/// Bytes that wait in the kernel for git.
const socket_size = 128 * 1024;

const Pipe = struct { ours: posix.fd_t, theirs: posix.fd_t };

/// `direction` is what we do with our end. Both ends are above the standard streams, so that
/// dup2 in the child neither overwrites one nor leaves one close-on-exec.
///
/// What we write goes through a socket: a full pipe is reported writable for every 4 KB that git
/// takes from it, a socket only once most of it is empty. What we read comes through a pipe, which
/// is faster.
fn makePipe(direction: enum { read, write }) !Pipe {
    const fds = switch (direction) {
        .read => try posix.pipe2(.{ .CLOEXEC = true }),
        .write => try socketPair(),
    };
    var ends = [2]posix.fd_t{ fds[0], fds[1] };
    errdefer for (ends) |fd| posix.close(fd);
    for (&ends) |*fd| {
        if (fd.* > 2) continue;
        const above: posix.fd_t = try descriptor.duplicate(fd.*, 3);
        posix.close(fd.*);
        fd.* = above;
    }
    const pipe: Pipe = switch (direction) {
        .read => .{ .ours = ends[0], .theirs = ends[1] },
        .write => .{ .ours = ends[1], .theirs = ends[0] },
    };
    // Only our end: the flag is the end's own, git must keep blocking on the other one.
    const flags = try posix.fcntl(pipe.ours, posix.F.GETFL, 0);
    const nonblocking = @as(u32, @bitCast(posix.O{ .NONBLOCK = true }));
    _ = try posix.fcntl(pipe.ours, posix.F.SETFL, flags | nonblocking);
    return pipe;
}

fn socketPair() ![2]posix.fd_t {
    var fds: [2]posix.fd_t = undefined;
    const kind = posix.SOCK.STREAM | if (builtin.os.tag.isDarwin()) 0 else posix.SOCK.CLOEXEC;
    if (std.c.socketpair(posix.AF.UNIX, kind, 0, &fds) != 0) return error.SocketPair;
    errdefer for (fds) |fd| posix.close(fd);
    if (builtin.os.tag.isDarwin()) for (fds) |fd| {
        _ = try posix.fcntl(fd, posix.F.SETFD, posix.FD_CLOEXEC);
    };
    const size = std.mem.toBytes(@as(c_int, socket_size));
    try posix.setsockopt(fds[1], posix.SOL.SOCKET, posix.SO.SNDBUF, &size);
    return fds;
}

fn waitNow(pid: posix.pid_t) ?Exit {
    var status: c_int = 0;
    while (true) {
        const result = std.c.waitpid(pid, &status, posix.W.NOHANG);
        if (result == pid) break;
        if (result == 0) return null;
        switch (posix.errno(result)) {
            .INTR => continue,
            else => return .unknown,
        }
    }
    const bits: u32 = @bitCast(status);
    if (posix.W.IFEXITED(bits)) return .{ .status = posix.W.EXITSTATUS(bits) };
    return .{ .signal = @intCast(posix.W.TERMSIG(bits)) };
}

/// <spawn.h>, which std does not declare for Linux.
const c = struct {
    /// Larger than every C library's posix_spawnattr_t (336 bytes in glibc and musl).
    const Opaque = extern struct { bytes: [1024]u8 align(16) };
    const SignalSet = extern struct { bytes: [128]u8 align(16) };

    const setpgroup = 0x02;
    const setsigdef = 0x04;
    const setsigmask = 0x08;
    /// macOS only: closes everything that is not named in a file action.
    const cloexec_default = 0x4000;
    const flags: c_short = setpgroup | setsigdef | setsigmask |
        (if (builtin.os.tag.isDarwin()) cloexec_default else 0);

    const addchdir_np = optional(
        ?*const fn (*Opaque, [*:0]const u8) callconv(.c) c_int,
        "posix_spawn_file_actions_addchdir_np",
    );
    const addclosefrom_np = if (use_pidfd) optional(
        ?*const fn (*Opaque, c_int) callconv(.c) c_int,
        "posix_spawn_file_actions_addclosefrom_np",
    ) else null_closefrom;
    const null_closefrom: ?*const fn (*Opaque, c_int) callconv(.c) c_int = null;

    /// A function that older C libraries lack.
    fn optional(comptime T: type, comptime name: []const u8) T {
        return @extern(T, .{ .name = name, .linkage = .weak });
    }

    extern "c" fn posix_spawn(
        pid: *posix.pid_t,
        path: [*:0]const u8,
        actions: *const Opaque,
        attributes: *const Opaque,
        argv: [*:null]const ?[*:0]const u8,
        envp: [*:null]const ?[*:0]const u8,
    ) c_int;
    extern "c" fn posix_spawn_file_actions_init(actions: *Opaque) c_int;
    extern "c" fn posix_spawn_file_actions_destroy(actions: *Opaque) c_int;
    extern "c" fn posix_spawn_file_actions_adddup2(actions: *Opaque, fd: c_int, new: c_int) c_int;
    extern "c" fn posix_spawnattr_init(attributes: *Opaque) c_int;
    extern "c" fn posix_spawnattr_destroy(attributes: *Opaque) c_int;
    extern "c" fn posix_spawnattr_setflags(attributes: *Opaque, flags: c_short) c_int;
    extern "c" fn posix_spawnattr_setpgroup(attributes: *Opaque, group: posix.pid_t) c_int;
    extern "c" fn posix_spawnattr_setsigmask(attributes: *Opaque, set: *const SignalSet) c_int;
    extern "c" fn posix_spawnattr_setsigdefault(attributes: *Opaque, set: *const SignalSet) c_int;
    extern "c" fn sigemptyset(set: *SignalSet) c_int;
    extern "c" fn sigfillset(set: *SignalSet) c_int;
};

const testing = std.testing;

fn run(script: [:0]const u8, input: []const u8, output: []u8) !struct { []u8, Exit } {
    const argv = [_:null]?[*:0]const u8{ "/bin/sh", "-c", script };
    const envp = [_:null]?[*:0]const u8{"PATH=/usr/bin:/bin"};
    var spawned = try spawn(&argv, &envp);
    defer spawned.process.close();
    defer posix.close(spawned.pipes.stderr);
    _ = try posix.write(spawned.pipes.stdin, input);
    posix.close(spawned.pipes.stdin);
    defer posix.close(spawned.pipes.stdout);
    var len: usize = 0;
    while (true) {
        const fd = spawned.pipes.stdout;
        var fds = [1]posix.pollfd{.{ .fd = fd, .events = posix.POLL.IN, .revents = 0 }};
        _ = try posix.poll(&fds, 5000);
        const count = try posix.read(spawned.pipes.stdout, output[len..]);
        if (count == 0) break;
        len += count;
    }
    while (true) {
        if (spawned.process.poll()) |exit| return .{ output[0..len], exit };
        std.Thread.sleep(std.time.ns_per_ms);
    }
}

test "a child gets its input, gives its output and its exit status" {
    var buffer: [1000]u8 = undefined;
    const text, const exit = try run("cat; exit 7", "hello", &buffer);
    try testing.expectEqualStrings("hello", text);
    try testing.expectEqual(Exit{ .status = 7 }, exit);
}

test "a child has its own group, three descriptors, default signals and the environment given" {
    var buffer: [4000]u8 = undefined;
    const fd = try posix.open("/dev/null", .{}, 0); // not close-on-exec, as of a careless host
    defer posix.close(fd);
    const text, _ = try run(
        "ls /proc/self/fd | tr '\\n' ' '; env | grep -c LD_PRELOAD; " ++
            "grep -E 'Sig(Blk|Ign)' /proc/$$/status | cut -f2 | tr '\\n' ' '; " ++
            "cut -d' ' -f1,5 /proc/$$/stat",
        "",
        &buffer,
    );
    if (builtin.os.tag != .linux) return error.SkipZigTest;
    var lines = std.mem.tokenizeAny(u8, text, "\n");
    try testing.expectEqualStrings("0 1 2 3 0", lines.next().?); // 3 is what ls reads
    var words = std.mem.tokenizeScalar(u8, lines.next().?, ' ');
    try testing.expectEqual(0, try std.fmt.parseInt(u64, words.next().?, 16)); // blocked
    // Ignored: nothing but the two signals that glibc keeps for itself.
    const ignored = try std.fmt.parseInt(u64, words.next().?, 16);
    try testing.expectEqual(0, ignored & ~@as(u64, 0x1_8000_0000));
    try testing.expectEqualStrings(words.next().?, words.next().?); // pid = process group
}

test "a signal to the group ends a child and its children" {
    const argv = [_:null]?[*:0]const u8{ "/bin/sh", "-c", "sleep 100 | sleep 100" };
    const envp = [_:null]?[*:0]const u8{"PATH=/usr/bin:/bin"};
    var spawned = try spawn(&argv, &envp);
    defer spawned.process.close();
    inline for (.{ "stdin", "stdout", "stderr" }) |name| posix.close(@field(spawned.pipes, name));
    try testing.expectEqual(null, spawned.process.poll());
    spawned.process.signalGroup(posix.SIG.TERM);
    while (spawned.process.poll() == null) std.Thread.sleep(std.time.ns_per_ms);
    try testing.expectEqual(Exit{ .signal = posix.SIG.TERM }, spawned.process.exit.?);
    spawned.process.signalGroup(posix.SIG.KILL); // reaped: must not signal a stranger
}

test "a program that is not there is an error and leaves nothing behind" {
    const argv = [_:null]?[*:0]const u8{"/nonexistent/git"};
    const envp = [_:null]?[*:0]const u8{};
    const before = try posix.dup(0);
    posix.close(before);
    try testing.expectError(error.SpawnFailed, spawn(&argv, &envp));
    const after = try posix.dup(0);
    posix.close(after);
    try testing.expectEqual(before, after);
}
