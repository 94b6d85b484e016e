//! Starts the command: a session of its own on the pty, the inherited environment with two
//! variables changed, all signals as a fresh program expects them.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const pty = @import("pty.zig");

const is_linux = builtin.os.tag == .linux;
const linux = std.os.linux;

/// On Linux the system calls themselves, also beside a libc: a child that borrows its parent's
/// memory keeps out of what libc has there.
const system = if (is_linux) linux else std.c;

fn errnoOf(result: anytype) posix.E {
    return if (is_linux) linux.E.init(result) else posix.errno(result);
}

/// What a shell answers for a command that is not there, and for one that cannot be run.
const exit_not_found: u8 = 127;
const exit_not_runnable: u8 = 126;

const default_path = "/usr/local/bin:/bin:/usr/bin";

/// Set for the session, not handed on.
const replaced_variables = [_][]const u8{
    "TERM", "VIBETUNNEL_SESSION_ID", "VIBETUNNEL_FWD_STARTED_FILE",
};

/// The words of a command as exec wants them.
pub fn arguments(
    arena: std.mem.Allocator,
    words: []const [:0]const u8,
) std.mem.Allocator.Error![:null]?[*:0]const u8 {
    const argv = try arena.allocSentinel(?[*:0]const u8, words.len, null);
    for (argv, words) |*pointer, word| pointer.* = word.ptr;
    return argv;
}

/// The child's environment: `inherited` to the byte, `TERM` and `VIBETUNNEL_SESSION_ID` set.
pub fn environment(
    arena: std.mem.Allocator,
    inherited: []const [*:0]const u8,
    id: []const u8,
) std.mem.Allocator.Error![:null]?[*:0]const u8 {
    var list: std.ArrayList(?[*:0]const u8) = .empty;
    try list.ensureTotalCapacityPrecise(arena, inherited.len + 3);
    for (inherited) |entry| {
        const text = std.mem.span(entry);
        for (replaced_variables) |name| {
            if (isVariable(text, name)) break;
        } else list.appendAssumeCapacity(entry);
    }
    list.appendAssumeCapacity("TERM=xterm-256color");
    const session = try std.fmt.allocPrintSentinel(arena, "VIBETUNNEL_SESSION_ID={s}", .{id}, 0);
    list.appendAssumeCapacity(session);
    return list.toOwnedSliceSentinel(arena, null);
}

fn isVariable(entry: []const u8, name: []const u8) bool {
    return std.mem.startsWith(u8, entry, name) and entry.len > name.len and entry[name.len] == '=';
}

/// What to run, and how its process differs from ours.
pub const Command = struct {
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
    /// The directory to start in; null for our own.
    directory: ?[*:0]const u8 = null,
    /// Hands on nothing that is open here: a library's host has opened much that is not ours.
    close_others: bool = false,
};

/// What a command reads and writes.
pub const Stdio = union(enum) {
    /// A pty's slave: its terminal, and it leads a session there.
    terminal: posix.fd_t,
    /// Where standard output goes; it reads nothing, and leads a process group.
    output: posix.fd_t,
};

pub const Error = error{SystemResources};

/// Starts the command. What goes wrong in the child is said on its terminal, where the
/// user looks and the recording sees it; its exit status is then 127 or 126. Returns its pid.
///
/// On Linux the child borrows our memory until it execs, as vfork's does: a large host is not
/// copied, and no other thread's lock is copied held. Up to its exec it makes system calls only.
pub fn spawn(stdio: Stdio, command: Command) Error!posix.pid_t {
    if (!is_linux) return spawnByFork(stdio, command);
    const plan: Plan = .{ .stdio = stdio, .command = command };
    const allocator = std.heap.page_allocator;
    const stack = allocator.alignedAlloc(u8, .fromByteUnits(16), child_stack_bytes) catch
        return error.SystemResources;
    defer allocator.free(stack);
    // No handler of ours may run in the child.
    var before: linux.sigset_t = undefined;
    _ = linux.sigprocmask(linux.SIG.BLOCK, &@as(linux.sigset_t, @splat(~@as(c_ulong, 0))), &before);
    defer _ = linux.sigprocmask(linux.SIG.SETMASK, &before, null);
    const flags = linux.CLONE.VM | linux.CLONE.VFORK | linux.SIG.CHLD;
    const top = @intFromPtr(stack.ptr) + stack.len;
    const pid = linux.clone(Plan.runBorrowed, top, flags, @intFromPtr(&plan), null, 0, null);
    return if (linux.E.init(pid) == .SUCCESS) @intCast(pid) else error.SystemResources;
}

/// This thread forks to start a command: what `pthread_atfork` has registered for a host's forks is
/// not for this one. The thread may hold what the hooks lock, and its child only execs.
pub threadlocal var forking = false;

/// The same with libc's fork, for systems where that is the only one.
pub fn spawnByFork(stdio: Stdio, command: Command) Error!posix.pid_t {
    const plan: Plan = .{ .stdio = stdio, .command = command };
    var before: posix.sigset_t = undefined;
    posix.sigprocmask(posix.SIG.BLOCK, &posix.sigfillset(), &before);
    defer posix.sigprocmask(posix.SIG.SETMASK, &before, null);
    forking = true;
    defer forking = false;
    const pid = posix.fork() catch return error.SystemResources;
    if (pid == 0) plan.run();
    return pid;
}

/// Two paths of PATH_MAX bytes, and as much again for a debug build's frames.
const child_stack_bytes = 64 * 1024;

/// The child between its birth and its exec.
const Plan = struct {
    stdio: Stdio,
    command: Command,

    fn runBorrowed(argument: usize) callconv(.c) u8 {
        @as(*const Plan, @ptrFromInt(argument)).run();
    }

    fn run(plan: *const Plan) noreturn {
        switch (plan.stdio) {
            .terminal => |slave| plan.takeTerminal(slave),
            .output => |fd| plan.takeOutput(fd),
        }
        const argv = plan.command.argv;
        const name = std.mem.span(argv[0].?);
        if (plan.command.directory) |directory| {
            const entered = errnoOf(system.chdir(directory));
            if (entered != .SUCCESS) fail(exit_not_runnable, name, "cannot enter the directory");
        }
        if (plan.command.close_others) closeOthers();
        resetSignals();
        const code, const why = reason(exec(name, argv, plan.command.envp));
        fail(code, name, why);
    }

    fn takeTerminal(_: *const Plan, given: posix.fd_t) void {
        _ = system.setsid(); // a fresh child leads no group, so it cannot fail
        const slave = beyondStandard(given);
        pty.makeControlling(slave) catch exitChild(exit_not_runnable);
        for (0..3) |fd| redirect(slave, @intCast(fd));
    }

    fn takeOutput(_: *const Plan, given: posix.fd_t) void {
        _ = system.setpgid(0, 0); // nor can this
        const output = beyondStandard(given);
        const flags: posix.O = .{ .ACCMODE = .RDWR };
        const nothing = system.open("/dev/null", flags, @as(posix.mode_t, 0));
        if (errnoOf(nothing) != .SUCCESS) exitChild(exit_not_runnable);
        redirect(@intCast(nothing), 0);
        redirect(@intCast(nothing), 2);
        redirect(output, 1);
    }

    /// Where the parent has none of the first three open, what is handed on may be one of them.
    fn beyondStandard(fd: posix.fd_t) posix.fd_t {
        if (fd > 2) return fd;
        const copy = system.fcntl(fd, dupfd_cloexec, @as(usize, 3));
        if (errnoOf(copy) != .SUCCESS) exitChild(exit_not_runnable);
        return @intCast(copy);
    }

    const dupfd_cloexec = if (is_linux) 1030 else 67; // <fcntl.h>

    fn redirect(from: posix.fd_t, to: posix.fd_t) void {
        if (errnoOf(system.dup2(from, to)) != .SUCCESS) exitChild(exit_not_runnable);
    }

    fn reason(err: posix.E) struct { u8, []const u8 } {
        return switch (err) {
            .NOENT, .NOTDIR => .{ exit_not_found, "command not found" },
            .ACCES, .PERM => .{ exit_not_runnable, "permission denied" },
            .NOEXEC => .{ exit_not_runnable, "not a program this system can run" },
            .ISDIR => .{ exit_not_runnable, "is a directory" },
            .@"2BIG" => .{ exit_not_runnable, "arguments and environment are too long" },
            .NAMETOOLONG => .{ exit_not_found, "the name is too long" },
            .TXTBSY => .{ exit_not_runnable, "the file is being written" },
            else => .{ exit_not_runnable, "cannot be run" },
        };
    }

    fn fail(code: u8, name: []const u8, why: []const u8) noreturn {
        for ([_][]const u8{ "vibetunnel-fwd: ", name, ": ", why, "\n" }) |piece| {
            // Nobody else could be told.
            if (errnoOf(system.write(2, piece.ptr, piece.len)) != .SUCCESS) break;
        }
        exitChild(code);
    }
};

/// All but standard input, output and error.
fn closeOthers() void {
    const first = 3;
    if (is_linux) { // Linux 5.9
        const last = std.math.maxInt(u32);
        if (linux.E.init(linux.syscall3(.close_range, first, last, 0)) == .SUCCESS) return;
    }
    const limit = posix.getrlimit(.NOFILE) catch return;
    for (first..@intCast(@min(limit.cur, most_descriptors))) |fd| _ = system.close(@intCast(fd));
}

/// What is open beyond this on a system without close_range stays open.
const most_descriptors = 65536;

/// Every disposition and the mask, which exec would otherwise hand on where they ignore.
pub fn resetSignals() void {
    const Action = if (is_linux) linux.Sigaction else posix.Sigaction;
    const none = if (is_linux) linux.sigemptyset() else posix.sigemptyset();
    const default: Action = .{
        .handler = .{ .handler = posix.SIG.DFL },
        .mask = none,
        .flags = 0,
    };
    for (1..posix.NSIG) |signal| {
        if (signal == posix.SIG.KILL or signal == posix.SIG.STOP) continue;
        _ = system.sigaction(@intCast(signal), &default, null); // some do not exist
    }
    _ = system.sigprocmask(posix.SIG.SETMASK, &none, null); // a valid mask is not refused
}

/// Tries `name`, or each place on PATH. Returns why nothing was run.
pub fn exec(
    name: []const u8,
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
) posix.E {
    if (name.len == 0) return .NOENT;
    if (std.mem.indexOfScalar(u8, name, '/') != null) {
        return errnoOf(system.execve(argv[0].?, argv.ptr, envp.ptr));
    }
    var path: []const u8 = default_path;
    for (envp) |entry| {
        const text = std.mem.span(entry.?);
        if (isVariable(text, "PATH")) path = text["PATH=".len..];
    }
    var denied = false;
    var candidate_buffer: [posix.PATH_MAX]u8 = undefined;
    var places = std.mem.splitScalar(u8, path, ':');
    while (places.next()) |place| {
        const folder = if (place.len == 0) "." else place; // as POSIX has it
        const candidate = std.fmt.bufPrintZ(&candidate_buffer, "{s}/{s}", .{ folder, name }) catch
            continue; // too long to exist
        switch (errnoOf(system.execve(candidate, argv.ptr, envp.ptr))) {
            .NOENT, .NOTDIR, .NAMETOOLONG, .LOOP => {},
            .ACCES => denied = true,
            else => |reason| return reason,
        }
    }
    return if (denied) .ACCES else .NOENT;
}

/// The exit code of a child whose end another part of this process has taken: only a library's host
/// can do that, by waiting for any child or by ignoring SIGCHLD.
pub const exit_unknown: u8 = 255;

/// How a child ended.
pub const Exit = struct {
    /// 128 + n when signal n ended it.
    code: u8,
    /// No zombie keeps its pid any more: the number may be another process's, which must get no
    /// signals and not be waited for.
    gone: bool,
};

/// How the child ended; null while it lives. It stays a zombie, which still answers kill(pid, 0),
/// until `reap`, unless it is `gone`.
pub fn exited(pid: posix.pid_t) ?Exit {
    const lost: Exit = .{ .code = exit_unknown, .gone = true };
    var info = std.mem.zeroes(posix.siginfo_t);
    if (is_linux) {
        const flags = linux.W.EXITED | linux.W.NOHANG | linux.W.NOWAIT;
        const result = linux.waitid(.PID, pid, &info, flags);
        if (linux.E.init(result) == .CHILD) return lost;
        if (info.signo == 0) return null;
        const status = info.fields.common.second.sigchld.status;
        return .{ .code = decode(info.code, status), .gone = false };
    }
    const flags = darwin.WEXITED | darwin.WNOHANG | darwin.WNOWAIT;
    const result = darwin.waitid(darwin.P_PID, @intCast(pid), &info, flags);
    if (posix.errno(result) == .CHILD) return lost;
    if (info.signo == 0) return null;
    if (info.code == CLD_EXITED) {
        return .{ .code = decode(info.code, info.status), .gone = false };
    }
    // macOS does not say here which signal it was: that takes the zombie away.
    const status = reap(pid) orelse return lost;
    return .{ .code = 128 | @as(u8, @intCast(posix.W.TERMSIG(status))), .gone = true };
}

const CLD_EXITED = 1;

const darwin = struct { // <sys/wait.h>
    const P_PID = 1;
    const WNOHANG = 1;
    const WEXITED = 4;
    const WNOWAIT = 0x20;
    extern "c" fn waitid(kind: c_int, id: c_uint, info: *posix.siginfo_t, flags: c_int) c_int;
};

fn decode(code: i32, status: i32) u8 {
    const low: u8 = @truncate(@as(u32, @bitCast(status)));
    return if (code == CLD_EXITED) low else 128 | (low & 0x7f);
}

/// Takes the zombie away, and gives its status; null when somebody else has taken it.
pub fn reap(pid: posix.pid_t) ?u32 {
    var status: if (is_linux) u32 else c_int = undefined;
    while (true) switch (errnoOf(system.waitpid(pid, &status, 0))) {
        .SUCCESS => return @bitCast(status),
        .INTR => {},
        else => return null,
    };
}

/// Without running what the parent registered for its own exit.
pub fn exitChild(code: u8) noreturn {
    if (is_linux) linux.exit_group(code);
    std.c._exit(code);
}

const testing = std.testing;

test "the environment keeps all but the session's own variables" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const inherited = [_][*:0]const u8{
        "A=\xff",   "TERM=dumb", "TERMINAL=x",                  "VIBETUNNEL_FWD_STARTED_FILE=/f",
        "NOEQUALS", "PATH=/bin", "VIBETUNNEL_SESSION_ID=outer",
    };
    const envp = try environment(arena.allocator(), &inherited, "fwd_1");
    const expected = [_][]const u8{
        "A=\xff",              "TERMINAL=x",                  "NOEQUALS", "PATH=/bin",
        "TERM=xterm-256color", "VIBETUNNEL_SESSION_ID=fwd_1",
    };
    try testing.expectEqual(expected.len, envp.len);
    for (expected, envp) |text, entry| try testing.expectEqualStrings(text, std.mem.span(entry.?));
}

const Start = fn (Stdio, Command) Error!posix.pid_t;

fn exitCodeOf(
    start: Start,
    argv: [:null]const ?[*:0]const u8,
    output: []u8,
) !struct { u8, []u8 } {
    const pair: pty.Pty = try .open(.{ .cols = 80, .rows = 24 });
    defer posix.close(pair.master);
    const pid = try start(.{ .terminal = pair.slave }, .{
        .argv = argv,
        .envp = &[_:null]?[*:0]const u8{"PATH=/nowhere:/bin:/etc"},
    });
    posix.close(pair.slave);
    const status = posix.waitpid(pid, 0).status;
    var len: usize = 0;
    var fds = [_]posix.pollfd{.{ .fd = pair.master, .events = posix.POLL.IN, .revents = 0 }};
    while (len < output.len and try posix.poll(&fds, 5000) > 0) {
        const n = posix.read(pair.master, output[len..]) catch break; // EIO: that was all
        if (n == 0) break; // macOS says it so
        len += n;
    }
    return .{ posix.W.EXITSTATUS(status), output[0..len] };
}

test "the exit code is known before the zombie is reaped" {
    const cases = .{ .{ "exit 7", 7 }, .{ "kill -TERM $$", 143 }, .{ "kill -9 $$", 137 } };
    inline for (cases) |case| {
        const pair: pty.Pty = try .open(.{ .cols = 80, .rows = 24 });
        defer posix.close(pair.master);
        const argv = [_:null]?[*:0]const u8{ "/bin/sh", "-c", "read x; " ++ case[0] };
        const pid = try spawn(.{ .terminal = pair.slave }, .{
            .argv = &argv,
            .envp = &[_:null]?[*:0]const u8{},
        });
        posix.close(pair.slave);
        try testing.expectEqual(null, exited(pid));
        _ = try posix.write(pair.master, "\n");
        const exit = while (true) {
            if (exited(pid)) |exit| break exit;
            std.Thread.sleep(std.time.ns_per_ms);
        };
        try testing.expectEqual(case[1], exit.code);
        try testing.expectEqual(!is_linux and case[1] > 128, exit.gone);
        if (!exit.gone) {
            try posix.kill(pid, 0);
            try testing.expect(reap(pid) != null);
        }
        try testing.expectError(error.ProcessNotFound, posix.kill(pid, 0));
        try testing.expectEqual(Exit{ .code = exit_unknown, .gone = true }, exited(pid).?);
        try testing.expectEqual(null, reap(pid));
    }
}

test "a command runs on the pty; one that cannot says why and exits 127 or 126" {
    const cases = .{
        .{ "true", 0, "" },
        .{ "no-such-command", 127, "vibetunnel-fwd: no-such-command: command not found\r\n" },
        .{ "/no/such", 127, "vibetunnel-fwd: /no/such: command not found\r\n" },
        .{ "/etc/passwd", 126, "vibetunnel-fwd: /etc/passwd: permission denied\r\n" },
        .{ "fstab", 126, "vibetunnel-fwd: fstab: permission denied\r\n" },
        .{ "", 127, "vibetunnel-fwd: : command not found\r\n" },
    };
    inline for (cases) |case| {
        inline for (.{ spawn, spawnByFork }) |start| {
            var buffer: [256]u8 = undefined;
            const argv = [_:null]?[*:0]const u8{case[0]};
            const code, const output = try exitCodeOf(start, &argv, &buffer);
            try testing.expectEqual(case[1], code);
            try testing.expectEqualStrings(case[2], output);
        }
    }
}
