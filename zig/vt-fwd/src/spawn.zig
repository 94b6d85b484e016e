//! Starts the command: a session of its own on the pty, the inherited environment with two
//! variables changed, all signals as a fresh program expects them.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const pty = @import("pty.zig");

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

/// Forks and execs. What goes wrong in the child is said on its terminal, where the user looks
/// and the recording sees it; its exit status is then 127 or 126. Returns the child's pid.
pub fn spawn(
    slave: posix.fd_t,
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
) posix.ForkError!posix.pid_t {
    // No handler of ours may run in the child.
    var before: posix.sigset_t = undefined;
    posix.sigprocmask(posix.SIG.BLOCK, &posix.sigfillset(), &before);
    defer posix.sigprocmask(posix.SIG.SETMASK, &before, null);
    const pid = try posix.fork();
    if (pid == 0) runChild(slave, argv, envp);
    return pid;
}

fn runChild(
    slave: posix.fd_t,
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
) noreturn {
    _ = posix.system.setsid(); // a fresh child leads no group, so it cannot fail
    pty.makeControlling(slave) catch exitChild(exit_not_runnable);
    for (0..3) |fd| posix.dup2(slave, @intCast(fd)) catch exitChild(exit_not_runnable);
    resetSignals();
    const name = std.mem.span(argv[0].?);
    const code: u8, const why: []const u8 = switch (exec(name, argv, envp)) {
        .NOENT, .NOTDIR => .{ exit_not_found, "command not found" },
        .ACCES, .PERM => .{ exit_not_runnable, "permission denied" },
        .NOEXEC => .{ exit_not_runnable, "not a program this system can run" },
        .ISDIR => .{ exit_not_runnable, "is a directory" },
        .@"2BIG" => .{ exit_not_runnable, "arguments and environment are too long" },
        .NAMETOOLONG => .{ exit_not_found, "the name is too long" },
        .TXTBSY => .{ exit_not_runnable, "the file is being written" },
        else => .{ exit_not_runnable, "cannot be run" },
    };
    for ([_][]const u8{ "vibetunnel-fwd: ", name, ": ", why, "\n" }) |piece| {
        _ = posix.write(2, piece) catch break; // nobody else to tell
    }
    exitChild(code);
}

/// Every disposition and the mask, which exec would otherwise hand on where they ignore.
pub fn resetSignals() void {
    const default: posix.Sigaction = .{
        .handler = .{ .handler = posix.SIG.DFL },
        .mask = posix.sigemptyset(),
        .flags = 0,
    };
    const count = if (builtin.os.tag == .linux) 65 else 32;
    for (1..count) |signal| {
        if (signal == posix.SIG.KILL or signal == posix.SIG.STOP) continue;
        _ = posix.system.sigaction(@intCast(signal), &default, null); // some do not exist
    }
    posix.sigprocmask(posix.SIG.SETMASK, &posix.sigemptyset(), null);
}

/// Tries `name`, or each place on PATH. Returns why nothing was run.
pub fn exec(
    name: []const u8,
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
) posix.E {
    if (name.len == 0) return .NOENT;
    if (std.mem.indexOfScalar(u8, name, '/') != null) {
        return posix.errno(posix.system.execve(argv[0].?, argv.ptr, envp.ptr));
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
        switch (posix.errno(posix.system.execve(candidate, argv.ptr, envp.ptr))) {
            .NOENT, .NOTDIR, .NAMETOOLONG, .LOOP => {},
            .ACCES => denied = true,
            else => |reason| return reason,
        }
    }
    return if (denied) .ACCES else .NOENT;
}

/// The child's exit code, 128 + n when signal n ended it; null while it lives. The child stays a
/// zombie, which still answers kill(pid, 0), until `reap`.
pub fn exitCode(pid: posix.pid_t) ?u8 {
    var info = std.mem.zeroes(posix.siginfo_t);
    if (builtin.os.tag == .linux) {
        const flags = std.os.linux.W.EXITED | std.os.linux.W.NOHANG | std.os.linux.W.NOWAIT;
        _ = std.os.linux.waitid(.PID, pid, &info, flags);
        if (info.signo == 0) return null;
        return decode(info.code, info.fields.common.second.sigchld.status);
    }
    const flags = darwin.WEXITED | darwin.WNOHANG | darwin.WNOWAIT;
    _ = darwin.waitid(darwin.P_PID, @intCast(pid), &info, flags);
    if (info.signo == 0) return null;
    if (info.code == CLD_EXITED) return decode(info.code, info.status);
    // macOS does not say here which signal it was: that takes the zombie away.
    return 128 | @as(u8, @intCast(posix.W.TERMSIG(posix.waitpid(pid, 0).status)));
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

/// Takes the zombie away, if it is still there.
pub fn reap(pid: posix.pid_t) void {
    var status: if (builtin.os.tag == .linux) u32 else c_int = undefined;
    while (posix.errno(posix.system.waitpid(pid, &status, 0)) == .INTR) {}
}

/// Without running what the parent registered for its own exit.
pub fn exitChild(code: u8) noreturn {
    if (builtin.os.tag == .linux) std.os.linux.exit_group(code);
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

fn exitCodeOf(argv: [:null]const ?[*:0]const u8, output: []u8) !struct { u8, []u8 } {
    const pair: pty.Pty = try .open(.{ .cols = 80, .rows = 24 });
    defer posix.close(pair.master);
    const pid = try spawn(pair.slave, argv, &[_:null]?[*:0]const u8{"PATH=/nowhere:/bin:/etc"});
    posix.close(pair.slave);
    const status = posix.waitpid(pid, 0).status;
    const n = posix.read(pair.master, output) catch 0;
    return .{ posix.W.EXITSTATUS(status), output[0..n] };
}

test "the exit code is known before the zombie is reaped" {
    const cases = .{ .{ "exit 7", 7 }, .{ "kill -TERM $$", 143 }, .{ "kill -9 $$", 137 } };
    inline for (cases) |case| {
        const pair: pty.Pty = try .open(.{ .cols = 80, .rows = 24 });
        defer posix.close(pair.master);
        const argv = [_:null]?[*:0]const u8{ "/bin/sh", "-c", "read x; " ++ case[0] };
        const pid = try spawn(pair.slave, &argv, &[_:null]?[*:0]const u8{});
        posix.close(pair.slave);
        try testing.expectEqual(null, exitCode(pid));
        _ = try posix.write(pair.master, "\n");
        const code = while (true) {
            if (exitCode(pid)) |code| break code;
            std.Thread.sleep(std.time.ns_per_ms);
        };
        try testing.expectEqual(case[1], code);
        try posix.kill(pid, 0);
        reap(pid);
        try testing.expectError(error.ProcessNotFound, posix.kill(pid, 0));
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
        var buffer: [256]u8 = undefined;
        const code, const output = try exitCodeOf(&[_:null]?[*:0]const u8{case[0]}, &buffer);
        try testing.expectEqual(case[1], code);
        try testing.expectEqualStrings(case[2], output);
    }
}
