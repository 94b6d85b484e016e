//! What session.json says about the git repository that a session runs in. Git is slow in large
//! repositories, so it runs beside the session, in a process of its own that sends back one
//! `Info`; a session that ends earlier goes without.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const spawn = @import("spawn.zig");

/// Each git command may take this long.
const timeout_ms = 5000;
const max_output_bytes = 8192;
const max_branch_bytes = 256;

/// Plain memory: it crosses a pipe as it is.
pub const Info = struct {
    repo_buffer: [posix.PATH_MAX]u8 = undefined,
    /// 0 outside a repository.
    repo_len: usize = 0,
    branch_buffer: [max_branch_bytes]u8 = undefined,
    branch_len: usize = 0,
    main_buffer: [posix.PATH_MAX]u8 = undefined,
    main_len: usize = 0,
    /// Null without an upstream.
    ahead: ?u32 = null,
    behind: ?u32 = null,
    changes: bool = false,
    worktree: bool = false,

    pub fn repo(info: *const Info) []const u8 {
        return info.repo_buffer[0..info.repo_len];
    }

    /// Empty when HEAD is detached.
    pub fn branch(info: *const Info) []const u8 {
        return info.branch_buffer[0..info.branch_len];
    }

    /// The repository itself, or the one that a worktree belongs to.
    pub fn main(info: *const Info) []const u8 {
        return info.main_buffer[0..info.main_len];
    }

    fn set(buffer: []u8, len: *usize, text: []const u8) void {
        len.* = @min(text.len, buffer.len);
        @memcpy(buffer[0..len.*], text[0..len.*]);
    }
};

/// A process that finds out.
pub const Job = struct {
    pid: posix.pid_t,
    /// Where the `Info` comes from.
    fd: posix.fd_t,
    info: Info,
    received: usize,

    /// True when `info` is whole or will never be: then call `finish`.
    pub fn receive(job: *Job) bool {
        const bytes = std.mem.asBytes(&job.info);
        const n = posix.read(job.fd, bytes[job.received..]) catch |err| {
            return err != error.WouldBlock;
        };
        job.received += n;
        return n == 0 or job.received == bytes.len;
    }

    /// Ends the process and gives what it found.
    pub fn finish(job: *Job) ?*const Info {
        posix.close(job.fd);
        // Its own group: the git that it runs, too. It may have ended by itself.
        posix.kill(-job.pid, posix.SIG.KILL) catch posix.kill(job.pid, posix.SIG.KILL) catch {};
        spawn.reap(job.pid);
        const whole = job.received == @sizeOf(Info) and job.info.repo_len > 0;
        return if (whole) &job.info else null;
    }
};

/// Whether `cwd` or a folder above it has a `.git`.
pub fn isInside(cwd: []const u8) bool {
    var folder = cwd;
    var buffer: [posix.PATH_MAX]u8 = undefined;
    while (true) {
        const place = if (std.mem.eql(u8, folder, "/")) "" else folder;
        const path = std.fmt.bufPrintZ(&buffer, "{s}/.git", .{place}) catch return false;
        if (posix.faccessatZ(posix.AT.FDCWD, path, posix.F_OK, 0)) return true else |_| {}
        folder = std.fs.path.dirname(folder) orelse return false;
    }
}

/// Starts finding out about `cwd`, this process's own directory.
pub fn start(job: *Job, cwd: []const u8, inherited: []const [*:0]const u8) !void {
    const ends = try posix.pipe2(.{ .CLOEXEC = true, .NONBLOCK = true });
    errdefer for (ends) |fd| posix.close(fd);
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const envp = try environment(arena.allocator(), inherited);
    const pid = try posix.fork();
    if (pid == 0) {
        enterOwnProcess(ends[1]) catch spawn.exitChild(1);
        const info = collect(cwd, envp);
        var rest: []const u8 = std.mem.asBytes(&info);
        while (rest.len > 0) rest = rest[posix.write(1, rest) catch spawn.exitChild(1) ..];
        spawn.exitChild(0);
    }
    posix.close(ends[1]);
    job.pid = pid;
    job.fd = ends[0];
    job.received = 0;
}

/// Away from the terminal and from everything the forwarder has open: above all the pty, which
/// must hang up when the forwarder is killed. Only the pipe stays, as standard output.
fn enterOwnProcess(pipe: posix.fd_t) !void {
    spawn.resetSignals();
    try posix.setpgid(0, 0);
    const null_fd = try posix.openZ("/dev/null", .{ .ACCMODE = .RDWR }, 0);
    try posix.dup2(null_fd, 0);
    try posix.dup2(null_fd, 2);
    try posix.dup2(pipe, 1);
    // Blocking now: the reader may be busy.
    const flags = try posix.fcntl(1, posix.F.GETFL, 0);
    const nonblock: u32 = @bitCast(posix.O{ .NONBLOCK = true });
    _ = try posix.fcntl(1, posix.F.SETFL, flags & ~@as(usize, nonblock));
    // The forwarder has opened a handful of files, and these came first.
    for (3..64) |fd| _ = posix.system.close(@intCast(fd));
}

fn environment(
    arena: std.mem.Allocator,
    inherited: []const [*:0]const u8,
) std.mem.Allocator.Error![:null]?[*:0]const u8 {
    var list: std.ArrayList(?[*:0]const u8) = .empty;
    for (inherited) |entry| try list.append(arena, entry);
    // Ask nobody, and leave the index alone.
    try list.append(arena, "GIT_TERMINAL_PROMPT=0");
    try list.append(arena, "GIT_OPTIONAL_LOCKS=0");
    return list.toOwnedSliceSentinel(arena, null);
}

/// Runs git up to four times.
fn collect(cwd: []const u8, envp: [:null]const ?[*:0]const u8) Info {
    var info: Info = .{};
    var buffer: [max_output_bytes]u8 = undefined;
    const repo = line(run(&.{ "rev-parse", "--show-toplevel" }, envp, &buffer)) orelse return info;
    if (repo.len == 0) return info;
    Info.set(&info.repo_buffer, &info.repo_len, repo);
    const branch = line(run(&.{ "branch", "--show-current" }, envp, &buffer)) orelse "";
    Info.set(&info.branch_buffer, &info.branch_len, branch);
    const counts = run(
        &.{ "rev-list", "--left-right", "--count", "HEAD...@{upstream}" },
        envp,
        &buffer,
    );
    if (line(counts)) |text| {
        var words = std.mem.tokenizeAny(u8, text, " \t");
        info.ahead = std.fmt.parseInt(u32, words.next() orelse "", 10) catch null;
        info.behind = std.fmt.parseInt(u32, words.next() orelse "", 10) catch null;
    }
    const difference = run(&.{ "diff-index", "--quiet", "HEAD", "--" }, envp, &buffer);
    info.changes = difference.code != 0;
    const main = mainOfWorktree(cwd, &buffer);
    info.worktree = main != null;
    Info.set(&info.main_buffer, &info.main_len, main orelse info.repo());
    return info;
}

/// `.git` of a worktree is a file that says where its part of the main repository is.
fn mainOfWorktree(cwd: []const u8, buffer: *[max_output_bytes]u8) ?[]const u8 {
    var path_buffer: [posix.PATH_MAX]u8 = undefined;
    const path = std.fmt.bufPrintZ(&path_buffer, "{s}/.git", .{cwd}) catch return null;
    const flags: posix.O = .{ .CLOEXEC = true, .NONBLOCK = true };
    const fd = posix.openZ(path, flags, 0) catch return null;
    defer posix.close(fd);
    const n = posix.read(fd, buffer) catch return null; // a directory, in most cases
    return parseWorktree(buffer[0..n]);
}

fn parseWorktree(text: []const u8) ?[]const u8 {
    const prefix = "gitdir: ";
    if (!std.mem.startsWith(u8, text, prefix)) return null;
    const target = std.mem.sliceTo(text[prefix.len..], '\n');
    const end = std.mem.indexOf(u8, target, "/.git/worktrees/") orelse return null;
    return target[0..end];
}

const Outcome = struct {
    /// 255 when git did not end in time, or could not be run.
    code: u8,
    output: []const u8,
};

/// The first line of a command that succeeded.
fn line(outcome: Outcome) ?[]const u8 {
    if (outcome.code != 0) return null;
    return std.mem.sliceTo(outcome.output, '\n');
}

fn run(
    words: []const [*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
    buffer: *[max_output_bytes]u8,
) Outcome {
    const failed: Outcome = .{ .code = 255, .output = "" };
    // A repository's own configuration must not choose a program to run here.
    const first = [_]?[*:0]const u8{ "git", "-c", "core.fsmonitor=false" };
    var argv: [first.len + 8:null]?[*:0]const u8 = @splat(null);
    argv[0..first.len].* = first;
    for (words, argv[first.len..][0..words.len]) |word, *slot| slot.* = word;
    const ends = posix.pipe2(.{ .CLOEXEC = true }) catch return failed;
    defer posix.close(ends[0]);
    const pid = posix.fork() catch {
        posix.close(ends[1]);
        return failed;
    };
    if (pid == 0) {
        posix.dup2(ends[1], 1) catch spawn.exitChild(255);
        _ = spawn.exec("git", &argv, envp);
        spawn.exitChild(255);
    }
    posix.close(ends[1]);
    var len: usize = 0;
    const in_time = while (true) {
        var fds = [_]posix.pollfd{.{ .fd = ends[0], .events = posix.POLL.IN, .revents = 0 }};
        if ((posix.poll(&fds, timeout_ms) catch 0) == 0) break false;
        const n = posix.read(ends[0], buffer[len..]) catch break false;
        if (n == 0) break true;
        len += n;
        if (len == buffer.len) break false; // no answer of ours is that long
    };
    if (!in_time) posix.kill(pid, posix.SIG.KILL) catch {}; // it ended meanwhile
    const status = posix.waitpid(pid, 0).status;
    if (!in_time or !posix.W.IFEXITED(status)) return failed;
    return .{ .code = posix.W.EXITSTATUS(status), .output = buffer[0..len] };
}

const testing = std.testing;

test "a worktree names its main repository" {
    const text = "gitdir: /home/x/repo/.git/worktrees/fix\n";
    try testing.expectEqualStrings("/home/x/repo", parseWorktree(text).?);
    try testing.expectEqual(null, parseWorktree("gitdir: ../.git/modules/sub\n"));
    try testing.expectEqual(null, parseWorktree(""));
}

test "a .git is looked for upwards" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    try tmp.dir.makePath("a/b");
    var buffer: [posix.PATH_MAX]u8 = undefined;
    const inner = try tmp.dir.realpath("a/b", &buffer);
    try tmp.dir.makePath("a/.git");
    try testing.expect(isInside(inner));
    try testing.expect(!isInside("/proc"));
    try testing.expect(!isInside("/"));
}
