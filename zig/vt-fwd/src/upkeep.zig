//! Keeps session.json true while the session runs: that it runs, what it is called, where a viewer
//! may start, which git repository it is in, and that it ended. What others write there is read.

const std = @import("std");
const posix = std.posix;
const git = @import("git.zig");
const session = @import("session.zig");
const session_json = @import("session_json.zig");
const Log = @import("log.zig").Log;
const Watch = @import("watch.zig").Watch;

/// session.json follows the recording's clears at most this often.
const save_every_us = std.time.us_per_s;

pub const Upkeep = struct {
    session: *session.Session,
    directory: *session.Directory,
    log: *Log,
    watch: Watch,
    /// A client renamed the session, and session.json does not know yet.
    name_changed: bool,
    saved_clear_offset: u64,
    saved_us: u64,
    git: git.Query,
    asks_git: bool,

    /// In place: `git` is large, and untouched pages of it cost nothing.
    pub fn init(
        u: *Upkeep,
        it: *session.Session,
        directory: *session.Directory,
        log: *Log,
    ) void {
        u.session = it;
        u.directory = directory;
        u.log = log;
        u.name_changed = false;
        u.saved_clear_offset = 0;
        u.saved_us = 0;
        u.asks_git = false;
    }

    /// The command runs as process `child`; `staged` is the session.json that says "starting".
    pub fn started(
        u: *Upkeep,
        now: u64,
        child: posix.pid_t,
        staged: session.Temporary,
    ) void {
        u.session.status = .running;
        u.session.pid = child;
        u.announce(staged) catch |err| if (err != error.FileNotFound) u.complain(err);
        u.watch = .init(u.directory.fd, now);
    }

    /// Makes session.json say "starting", and at once "running": should we be killed in between,
    /// a server believes the first for ever.
    fn announce(u: *Upkeep, staged: session.Temporary) !void {
        const running = u.directory.stage(u.session) catch |err| {
            try u.directory.publish(staged);
            return err;
        };
        errdefer u.directory.discard(running);
        u.directory.unlinkJson();
        try u.directory.publish(staged);
        try u.directory.publish(running);
    }

    /// Finds out what git says of the session's directory, as `spawn.Command` has it.
    pub fn askGit(
        u: *Upkeep,
        now: u64,
        directory: ?[*:0]const u8,
        inherited: []const [*:0]const u8,
    ) void {
        u.git.start(now, u.session.cwd, directory, inherited) catch |err| {
            u.log.print(.warn, "cannot ask git: {s}", .{@errorName(err)});
            return;
        };
        u.asks_git = true;
    }

    /// Where git's answer comes from, or -1.
    pub fn gitFd(u: *const Upkeep) posix.fd_t {
        return if (u.asks_git) u.git.fd else -1;
    }

    pub fn onGit(u: *Upkeep, now: u64) void {
        if (u.git.onReadable(now)) u.takeGit();
    }

    pub fn tickGit(u: *Upkeep, now: u64) void {
        if (u.asks_git and u.git.tick(now)) u.takeGit();
    }

    fn takeGit(u: *Upkeep) void {
        u.asks_git = false;
        const info = u.git.found() orelse return;
        u.session.git = info.*;
        u.save(&u.session.gitFields());
    }

    /// Somebody may have changed the name in session.json. True when somebody did.
    pub fn nameWasChanged(u: *Upkeep) bool {
        if (u.name_changed) return false; // ours is newer
        const name = u.directory.readName() orelse return false;
        if (name.eql(&u.session.name)) return false;
        u.session.name = name;
        u.log.print(.info, "session {s} was renamed: {s}", .{ u.session.id, name.slice() });
        return true;
    }

    /// The moment at which the next `tick` has something to do.
    pub fn deadline(u: *const Upkeep, clear_offset: u64) u64 {
        const never = std.math.maxInt(u64);
        const save_us = if (u.isUnsaved(clear_offset)) u.saved_us + save_every_us else never;
        const git_us = if (u.asks_git) u.git.deadline() else never;
        return @min(u.watch.next_us, save_us, git_us);
    }

    pub fn saveName(u: *Upkeep) void {
        if (!u.name_changed) return;
        u.name_changed = false;
        u.save(&u.session.nameFields());
    }

    pub fn clearIsDue(u: *const Upkeep, now: u64, clear_offset: u64) bool {
        return u.isUnsaved(clear_offset) and now >= u.saved_us + save_every_us;
    }

    /// `clear_offset` must not be beyond the end of the recording on disk.
    pub fn saveClear(u: *Upkeep, now: u64, clear_offset: u64) void {
        u.saved_us = now;
        u.saved_clear_offset = clear_offset;
        u.session.clear_offset = clear_offset;
        u.save(u.session.stateFields()[3..4]);
    }

    fn isUnsaved(u: *const Upkeep, clear_offset: u64) bool {
        return clear_offset != u.saved_clear_offset;
    }

    /// The last word.
    pub fn ended(u: *Upkeep, code: u8, clear_offset: u64) void {
        if (u.asks_git) u.git.end();
        u.asks_git = false;
        u.saveName();
        u.session.status = .exited;
        u.session.exit_code = code;
        u.session.clear_offset = clear_offset;
        // The server may have moved an offset that we did not.
        const state = u.session.stateFields();
        u.save(if (u.isUnsaved(clear_offset)) state[0..4] else state[0..3]);
    }

    fn save(u: *Upkeep, fields: []const session_json.Field) void {
        u.directory.update(u.session, fields) catch |err| u.complain(err);
    }

    fn complain(u: *Upkeep, err: anyerror) void {
        u.log.print(.@"error", "cannot write session.json: {s}", .{@errorName(err)});
    }
};
