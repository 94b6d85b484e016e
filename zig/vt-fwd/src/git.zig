//! What session.json says about the git repository that a session runs in. Git is slow in large
//! repositories, so it runs beside the session, one command after the other, and the session's loop
//! hears of each answer; a session that ends earlier goes without.

const std = @import("std");
const posix = std.posix;
const spawn = @import("spawn.zig");

/// Each git command may take this long.
const give_up_after_us = 5 * std.time.us_per_s;
/// A git that has closed its output ends at once, or is looked after.
const look_every_us = 5 * std.time.us_per_ms;
const max_answer_bytes = 8192;
const max_branch_bytes = 256;

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

/// The commands, in order, whose answers make an `Info`.
const Question = enum {
    repo,
    branch,
    counts,
    changes,

    fn words(question: Question) []const [*:0]const u8 {
        return switch (question) {
            .repo => &.{ "rev-parse", "--show-toplevel" },
            .branch => &.{ "branch", "--show-current" },
            .counts => &.{ "rev-list", "--left-right", "--count", "HEAD...@{upstream}" },
            .changes => &.{ "diff-index", "--quiet", "HEAD", "--" },
        };
    }
};

/// One git after the other.
pub const Query = struct {
    cwd: []const u8,
    /// As `spawn.Command` has it.
    directory: ?[*:0]const u8,
    inherited: []const [*:0]const u8,

    question: Question,
    pid: posix.pid_t,
    /// Where the answer comes from; -1 when it is complete and git has not ended yet.
    fd: posix.fd_t,
    answer: [max_answer_bytes]u8,
    len: usize,
    /// When git is given up, and when to look whether it has ended.
    give_up_us: u64,
    look_us: u64,
    info: Info,

    pub fn start(
        q: *Query,
        now: u64,
        cwd: []const u8,
        directory: ?[*:0]const u8,
        inherited: []const [*:0]const u8,
    ) !void {
        q.cwd = cwd;
        q.directory = directory;
        q.inherited = inherited;
        q.info = .{};
        try q.ask(now, .repo);
    }

    fn ask(q: *Query, now: u64, question: Question) !void {
        const ends = try posix.pipe2(.{ .CLOEXEC = true, .NONBLOCK = true });
        errdefer posix.close(ends[0]);
        defer posix.close(ends[1]);
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        // A repository's own configuration must not choose a program to run here.
        const first = [_]?[*:0]const u8{ "git", "-c", "core.fsmonitor=false" };
        var argv: [first.len + 8:null]?[*:0]const u8 = @splat(null);
        argv[0..first.len].* = first;
        const words = question.words();
        for (words, argv[first.len..][0..words.len]) |word, *slot| slot.* = word;
        q.pid = try spawn.spawn(.{ .output = ends[1] }, .{
            .argv = &argv,
            .envp = try environment(arena.allocator(), q.inherited),
            .directory = q.directory,
            .close_others = true,
        });
        q.question = question;
        q.fd = ends[0];
        q.len = 0;
        q.give_up_us = now + give_up_after_us;
        q.look_us = q.give_up_us;
    }

    /// There is something to read. True when all is known that will be: then `finish`.
    pub fn onReadable(q: *Query, now: u64) bool {
        const n = posix.read(q.fd, q.answer[q.len..]) catch |err| {
            if (err == error.WouldBlock) return false;
            return q.giveUp(now);
        };
        q.len += n;
        if (q.len == q.answer.len) return q.giveUp(now); // no answer of ours is that long
        if (n > 0) return false;
        posix.close(q.fd);
        q.fd = -1;
        q.look_us = now;
        return q.tick(now);
    }

    /// The same when it was time to look.
    pub fn tick(q: *Query, now: u64) bool {
        if (now >= q.give_up_us) return q.giveUp(now);
        if (now < q.look_us) return false;
        const exit = spawn.exited(q.pid) orelse {
            q.look_us = now + look_every_us;
            return false;
        };
        if (!exit.gone) _ = spawn.reap(q.pid);
        return q.learn(now, exit.code);
    }

    fn giveUp(q: *Query, now: u64) bool {
        q.end();
        return q.learn(now, 255);
    }

    /// Takes the answer, and asks the next question. True after the last one.
    fn learn(q: *Query, now: u64, code: u8) bool {
        const text = if (code == 0) std.mem.sliceTo(q.answer[0..q.len], '\n') else "";
        const info = &q.info;
        switch (q.question) {
            .repo => {
                if (text.len == 0) return true;
                Info.set(&info.repo_buffer, &info.repo_len, text);
            },
            .branch => Info.set(&info.branch_buffer, &info.branch_len, text),
            .counts => {
                var words = std.mem.tokenizeAny(u8, text, " \t");
                info.ahead = std.fmt.parseInt(u32, words.next() orelse "", 10) catch null;
                info.behind = std.fmt.parseInt(u32, words.next() orelse "", 10) catch null;
            },
            .changes => {
                info.changes = code != 0;
                q.learnMain();
                return true;
            },
        }
        q.ask(now, @enumFromInt(@intFromEnum(q.question) + 1)) catch {
            info.repo_len = 0; // half of it would mislead
            return true;
        };
        return false;
    }

    fn learnMain(q: *Query) void {
        const info = &q.info;
        const main = mainOfWorktree(q.cwd, &q.answer);
        info.worktree = main != null;
        Info.set(&info.main_buffer, &info.main_len, main orelse info.repo());
    }

    /// What was found: null outside a repository.
    pub fn found(q: *const Query) ?*const Info {
        return if (q.info.repo_len > 0) &q.info else null;
    }

    /// Ends the git that runs.
    pub fn end(q: *Query) void {
        if (q.fd >= 0) posix.close(q.fd);
        q.fd = -1;
        // Its own group: what it runs, too. It may have ended by itself.
        posix.kill(-q.pid, posix.SIG.KILL) catch posix.kill(q.pid, posix.SIG.KILL) catch {};
        _ = spawn.reap(q.pid);
    }

    /// When `tick` has something to do.
    pub fn deadline(q: *const Query) u64 {
        return @min(q.give_up_us, q.look_us);
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

/// `.git` of a worktree is a file that says where its part of the main repository is.
fn mainOfWorktree(cwd: []const u8, buffer: *[max_answer_bytes]u8) ?[]const u8 {
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
