//! A session's directory and its `session.json`. Everything in it is reached through a descriptor
//! of the directory: when somebody removes the directory, writes fail quietly, and nothing of it
//! is ever made again, nor another session's files touched.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const json_object = @import("json_object.zig");
const session_json = @import("session_json.zig");
const Size = @import("asciicast.zig").Size;
const Name = @import("title.zig").Name;
const GitInfo = @import("git.zig").Info;

/// A `session.json` larger than this is not read.
pub const max_json_bytes = 1024 * 1024;

/// An id that is in use is refused after this time.
const lock_attempts = 20;
const lock_pause_ns = 5 * std.time.ns_per_ms;

/// A session that is starting has its session.json in this time.
const json_attempts = 200;
const json_pause_ns = 5 * std.time.ns_per_ms;

const file_mode = 0o600;
const dir_mode = 0o700;

/// What session.json says about this session.
pub const Session = struct {
    id: []const u8,
    name: Name,
    command: []const [:0]const u8,
    cwd: []const u8,
    started_at: [24]u8,
    status: session_json.Status = .starting,
    pid: ?posix.pid_t = null,
    exit_code: ?u8 = null,
    /// Null when nested and unknown: then the web page is not held to it.
    initial_size: ?Size,
    clear_offset: u64 = 0,
    version: []const u8,
    nested: bool,
    git: GitInfo = .{},

    const Fields = [24]session_json.Field;

    fn fields(s: *const Session, out: *Fields) []const session_json.Field {
        const cols: ?i64 = if (s.initial_size) |size| size.cols else null;
        const rows: ?i64 = if (s.initial_size) |size| size.rows else null;
        const first = [_]session_json.Field{
            .{ .key = "id", .value = .{ .string = s.id } },
            .{ .key = "name", .value = .{ .string = s.name.slice() } },
            .{ .key = "command", .value = .{ .strings = s.command } },
            .{ .key = "workingDir", .value = .{ .string = s.cwd } },
            .{ .key = "startedAt", .value = .{ .string = &s.started_at } },
            .{ .key = "initialCols", .value = optional(cols) },
            .{ .key = "initialRows", .value = optional(rows) },
            .{ .key = "version", .value = .{ .string = s.version } },
            .{ .key = "attachedViaVT", .value = .{ .boolean = s.nested } },
        };
        out[0..first.len].* = first;
        const state = s.stateFields();
        out[first.len..][0..state.len].* = state;
        const git = s.gitFields();
        out[first.len + state.len ..][0..git.len].* = git;
        return out[0 .. first.len + state.len + git.len];
    }

    pub fn stateFields(s: *const Session) [4]session_json.Field {
        return .{
            .{ .key = "status", .value = .{ .string = @tagName(s.status) } },
            .{ .key = "pid", .value = optional(s.pid) },
            .{ .key = "exitCode", .value = optional(s.exit_code) },
            .{ .key = "lastClearOffset", .value = .{ .integer = @intCast(s.clear_offset) } },
        };
    }

    pub fn nameFields(s: *const Session) [1]session_json.Field {
        return .{.{ .key = "name", .value = .{ .string = s.name.slice() } }};
    }

    pub fn gitFields(s: *const Session) [7]session_json.Field {
        const git = &s.git;
        const none: session_json.Value = .absent;
        const known = git.repo_len > 0;
        return .{
            .{ .key = "gitRepoPath", .value = if (known) .{ .string = git.repo() } else none },
            .{ .key = "gitBranch", .value = if (known) .{ .string = git.branch() } else none },
            .{ .key = "gitAheadCount", .value = optional(git.ahead) },
            .{ .key = "gitBehindCount", .value = optional(git.behind) },
            .{ .key = "gitHasChanges", .value = if (known) .{ .boolean = git.changes } else none },
            .{ .key = "gitIsWorktree", .value = if (known) .{ .boolean = git.worktree } else none },
            .{ .key = "gitMainRepoPath", .value = if (known) .{ .string = git.main() } else none },
        };
    }

    fn optional(number: anytype) session_json.Value {
        return if (number) |n| .{ .integer = n } else .absent;
    }
};

pub const Directory = struct {
    fd: posix.fd_t,
    /// Counts temporary files.
    temporaries: u32 = 0,

    /// Makes `path` and its parents, or takes it over when the session there has ended;
    /// error.SessionIsRunning when it has not.
    pub fn open(path: [:0]const u8) !Directory {
        makeParents(path);
        var reused = false;
        posix.mkdirZ(path, dir_mode) catch |err| switch (err) {
            error.PathAlreadyExists => reused = true,
            else => return err,
        };
        const flags: posix.O = .{ .DIRECTORY = true, .CLOEXEC = true, .NOFOLLOW = true };
        const fd = try posix.openZ(path, flags, 0);
        errdefer posix.close(fd);
        const directory: Directory = .{ .fd = fd };
        if (!directory.lock()) return error.SessionIsRunning;
        if (directory.hasLiveSession()) return error.SessionIsRunning;
        // The umask may have taken more than it should, or an old directory be open to others.
        try posix.fchmod(fd, dir_mode);
        if (reused) directory.sweep();
        return directory;
    }

    /// The lock ends with the forwarder, even when it is killed; then a child of it that has not
    /// got to its exec yet holds it for a moment longer.
    fn lock(directory: Directory) bool {
        for (0..lock_attempts) |_| {
            posix.flock(directory.fd, posix.LOCK.EX | posix.LOCK.NB) catch |err| switch (err) {
                error.WouldBlock => {
                    if (directory.hasLiveSession()) return false; // it will not end that soon
                    posix.nanosleep(0, lock_pause_ns);
                    continue;
                },
                else => {}, // a file system without locks: session.json alone decides
            };
            return true;
        }
        return false;
    }

    /// Whether a forwarder of ours runs a session here, or is about to.
    fn isLocked(directory: Directory) bool {
        posix.flock(directory.fd, posix.LOCK.SH | posix.LOCK.NB) catch |err| {
            return err == error.WouldBlock;
        };
        posix.flock(directory.fd, posix.LOCK.UN) catch {}; // closed soon, which unlocks it too
        return false;
    }

    /// A session that is there, whoever runs it; null when there is none.
    pub fn existing(path: [:0]const u8) ?Directory {
        const flags: posix.O = .{ .DIRECTORY = true, .CLOEXEC = true, .NOFOLLOW = true };
        return .{ .fd = posix.openZ(path, flags, 0) catch return null };
    }

    pub fn close(directory: Directory) void {
        posix.close(directory.fd);
    }

    /// Another program's session: ours would hold the lock.
    fn hasLiveSession(directory: Directory) bool {
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        const text = directory.readJson(arena.allocator()) orelse return false;
        const status = (json_object.find(text, "status") catch return false) orelse return false;
        const value = status.string() orelse return false;
        if (!std.mem.eql(u8, value, "running") and !std.mem.eql(u8, value, "starting")) {
            return false;
        }
        const pid = (json_object.find(text, "pid") catch return false) orelse return false;
        const number = std.math.cast(posix.pid_t, pid.integer() orelse return false) orelse
            return false;
        return isAlive(number);
    }

    /// The FIFO that readers expect to find, and that nobody writes to; error.StdinIsNotAFifo when
    /// something else has its name.
    pub fn makeFifo(directory: Directory, path: [:0]const u8) !void {
        switch (mkfifo(directory.fd, path)) {
            .SUCCESS => {},
            .EXIST => {
                const flags = posix.AT.SYMLINK_NOFOLLOW;
                const stat = try posix.fstatat(directory.fd, "stdin", flags);
                if (!posix.S.ISFIFO(stat.mode)) return error.StdinIsNotAFifo;
            },
            .ACCES => return error.AccessDenied,
            .NOSPC, .DQUOT => return error.NoSpaceLeft,
            else => return error.NoFifos,
        }
        try posix.fchmodat(directory.fd, "stdin", file_mode, 0);
    }

    /// The recording, empty. Non-blocking, should somebody have put a FIFO there.
    pub fn createRecording(directory: Directory) !posix.fd_t {
        const fd = try posix.openat(directory.fd, "stdout", .{
            .ACCMODE = .WRONLY,
            .CREAT = true,
            .TRUNC = true,
            .APPEND = true,
            .NOFOLLOW = true,
            .NONBLOCK = true,
            .CLOEXEC = true,
        }, file_mode);
        errdefer posix.close(fd);
        try posix.fchmod(fd, file_mode);
        return fd;
    }

    /// Removes what a forwarder that was killed left half written.
    fn sweep(directory: Directory) void {
        const dir: std.fs.Dir = .{ .fd = directory.fd };
        var entries = dir.iterate();
        while (entries.next() catch return) |entry| {
            const owner = ownerOfTemporary(entry.name) orelse continue;
            // One that renames the session at this moment is alive.
            if (owner != ownPid() and isAlive(owner)) continue;
            dir.deleteFile(entry.name) catch {}; // it only takes space
        }
    }

    /// Writes the first session.json under a name that nobody reads: whatever can fail does so
    /// before the command runs. `publish` makes it visible.
    pub fn stage(directory: *Directory, session: *const Session) !Temporary {
        const flags = posix.AT.SYMLINK_NOFOLLOW;
        if (posix.fstatat(directory.fd, "session.json", flags)) |stat| {
            if (posix.S.ISDIR(stat.mode)) return error.IsDir; // nothing else withstands rename
        } else |_| {}
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        return directory.writeTemporary(try createText(arena.allocator(), session));
    }

    pub fn publish(directory: Directory, temporary: Temporary) !void {
        errdefer directory.discard(temporary);
        try posix.renameatZ(directory.fd, temporary.name(), directory.fd, "session.json");
    }

    /// Takes an earlier session's file away: ext4 writes to the disk before it replaces a file, and
    /// what is published next must not stand for so long.
    pub fn unlinkJson(directory: Directory) void {
        posix.unlinkatZ(directory.fd, "session.json", 0) catch {}; // there is none, mostly
    }

    pub fn discard(directory: Directory, temporary: Temporary) void {
        posix.unlinkatZ(directory.fd, temporary.name(), 0) catch {}; // published, or gone with all
    }

    /// Sets `fields` in session.json and keeps what others wrote there. A file that is not JSON, or
    /// was removed, is written anew; a directory that was removed is left alone.
    pub fn update(
        directory: *Directory,
        session: *const Session,
        fields: []const session_json.Field,
    ) !void {
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        const gpa = arena.allocator();
        const text = if (directory.readJson(gpa)) |old|
            session_json.update(gpa, old, fields) catch |err| switch (err) {
                error.InvalidJson => try createText(gpa, session),
                error.OutOfMemory => return err,
            }
        else
            try createText(gpa, session);
        directory.replaceJson(text) catch |err| switch (err) {
            error.FileNotFound => {}, // the directory is gone
            // Better written in place than not at all: the file has blocks already.
            error.NoSpaceLeft, error.DiskQuota => try directory.overwriteJson(text),
            else => return err,
        };
    }

    /// For a full disk. A reader may see half of it for a moment, and skips the session then.
    fn overwriteJson(directory: Directory, text: []const u8) !void {
        const flags: posix.O = .{ .ACCMODE = .WRONLY, .NOFOLLOW = true, .CLOEXEC = true };
        const fd = try posix.openat(directory.fd, "session.json", flags, 0);
        defer posix.close(fd);
        var rest = text;
        while (rest.len > 0) rest = rest[try posix.write(fd, rest)..];
        try posix.ftruncate(fd, text.len);
    }

    /// Renames a session that is not ours, which must have a valid session.json.
    pub fn rename(directory: *Directory, name: *const Name) !void {
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        const old = try directory.awaitJson(arena.allocator());
        const fields = [_]session_json.Field{
            .{ .key = "name", .value = .{ .string = name.slice() } },
        };
        try directory.replaceJson(try session_json.update(arena.allocator(), old, &fields));
    }

    /// A command that renames its own session first thing may be faster than its forwarder.
    fn awaitJson(directory: Directory, gpa: std.mem.Allocator) error{NoSession}![]u8 {
        for (0..json_attempts) |_| {
            const locked = directory.isLocked(); // asked first: it may be the last moment
            if (directory.readJson(gpa)) |text| return text;
            if (!locked) break;
            posix.nanosleep(0, json_pause_ns);
        }
        return error.NoSession;
    }

    /// The session's name as somebody may have changed it, safe to show.
    pub fn readName(directory: Directory) ?Name {
        var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena.deinit();
        const text = directory.readJson(arena.allocator()) orelse return null;
        const name = (json_object.find(text, "name") catch return null) orelse return null;
        return .fromJson(name.string() orelse return null);
    }

    pub fn readJson(directory: Directory, gpa: std.mem.Allocator) ?[]u8 {
        const flags: posix.O = .{ .CLOEXEC = true, .NONBLOCK = true };
        const fd = posix.openat(directory.fd, "session.json", flags, 0) catch return null;
        defer posix.close(fd);
        const stat = posix.fstat(fd) catch return null;
        if (!posix.S.ISREG(stat.mode) or stat.size < 0) return null;
        if (stat.size > max_json_bytes) return null;
        const text = gpa.alloc(u8, @intCast(stat.size)) catch return null;
        var len: usize = 0;
        while (len < text.len) {
            const n = posix.read(fd, text[len..]) catch return null;
            if (n == 0) break;
            len += n;
        }
        return text[0..len];
    }

    /// A reader sees the old file or the new one, never half of one.
    fn replaceJson(directory: *Directory, text: []const u8) !void {
        try directory.publish(try directory.writeTemporary(text));
    }

    fn writeTemporary(directory: *Directory, text: []const u8) !Temporary {
        directory.temporaries += 1;
        const temporary: Temporary = .init(directory.temporaries);
        const fd = try posix.openatZ(directory.fd, temporary.name(), .{
            .ACCMODE = .WRONLY,
            .CREAT = true,
            .EXCL = true,
            .CLOEXEC = true,
        }, file_mode);
        errdefer directory.discard(temporary);
        defer posix.close(fd);
        try posix.fchmod(fd, file_mode);
        var rest = text;
        while (rest.len > 0) rest = rest[try posix.write(fd, rest)..];
        return temporary;
    }

    pub fn unlinkSocket(directory: Directory) void {
        posix.unlinkatZ(directory.fd, "ipc.sock", 0) catch {}; // gone already, or never made
    }
};

/// A file on its way to be session.json. Our own pid is in its name: the server has its own.
pub const Temporary = struct {
    buffer: [64]u8,
    len: usize,

    fn init(number: u32) Temporary {
        var temporary: Temporary = undefined;
        const text = std.fmt.bufPrintZ(&temporary.buffer, "{s}{d}.{d}{s}", .{
            temporary_start, ownPid(), number, temporary_end,
        }) catch unreachable; // 64 bytes hold both numbers
        temporary.len = text.len;
        return temporary;
    }

    fn name(temporary: *const Temporary) [:0]const u8 {
        return temporary.buffer[0..temporary.len :0];
    }
};

const temporary_start = ".session.json.";
const temporary_end = ".tmp";

/// The pid in the name of a temporary file of ours.
fn ownerOfTemporary(name: []const u8) ?posix.pid_t {
    if (!std.mem.startsWith(u8, name, temporary_start)) return null;
    if (!std.mem.endsWith(u8, name, temporary_end)) return null;
    var numbers = std.mem.splitScalar(u8, name[temporary_start.len..], '.');
    return std.fmt.parseInt(posix.pid_t, numbers.first(), 10) catch null;
}

/// Also when it is not ours to signal.
pub fn isAlive(pid: posix.pid_t) bool {
    if (pid <= 0) return false;
    posix.kill(pid, 0) catch |err| return err == error.PermissionDenied;
    return true;
}

fn createText(gpa: std.mem.Allocator, session: *const Session) ![]u8 {
    var fields: Session.Fields = undefined;
    return session_json.create(gpa, session.fields(&fields));
}

/// Private to the user where they are new; those that are there stay as they are.
fn makeParents(path: [:0]const u8) void {
    var buffer: [posix.PATH_MAX]u8 = undefined;
    for (path, 0..) |c, i| {
        if (c != '/' or i == 0 or i >= buffer.len) continue;
        @memcpy(buffer[0..i], path[0..i]);
        buffer[i] = 0;
        // Whatever is wrong shows when the directory itself is made.
        posix.mkdirZ(buffer[0..i :0], dir_mode) catch {};
    }
}

fn mkfifo(dir: posix.fd_t, path: [:0]const u8) posix.E {
    if (builtin.os.tag == .linux) {
        const linux = std.os.linux;
        return linux.E.init(linux.mknodat(dir, "stdin", posix.S.IFIFO | file_mode, 0));
    }
    return posix.errno(darwin.mkfifo(path, file_mode));
}

const darwin = struct {
    extern "c" fn mkfifo(path: [*:0]const u8, mode: posix.mode_t) c_int;
    extern "c" fn getpid() posix.pid_t;
};

pub fn ownPid() posix.pid_t {
    return if (builtin.os.tag == .linux) std.os.linux.getpid() else darwin.getpid();
}

/// The end of the year 9999.
const last_iso_ms = 253_402_300_799_999;

/// `2026-01-31T12:34:56.789Z`, as JavaScript writes it.
pub fn isoTime(clock_ms: u64) [24]u8 {
    const epoch_ms = @min(clock_ms, last_iso_ms); // a clock may be set to anything
    const seconds: std.time.epoch.EpochSeconds = .{ .secs = epoch_ms / 1000 };
    const year = seconds.getEpochDay().calculateYearDay();
    const month = year.calculateMonthDay();
    const day = seconds.getDaySeconds();
    var text: [24]u8 = undefined;
    _ = std.fmt.bufPrint(&text, "{d:0>4}-{d:0>2}-{d:0>2}T{d:0>2}:{d:0>2}:{d:0>2}.{d:0>3}Z", .{
        year.year,             month.month.numeric(),    month.day_index + 1,
        day.getHoursIntoDay(), day.getMinutesIntoHour(), day.getSecondsIntoMinute(),
        epoch_ms % 1000,
    }) catch unreachable; // exactly 24 bytes until the last millisecond of 9999
    return text;
}

const testing = std.testing;

test "times are written as JavaScript does" {
    try testing.expectEqualStrings("1970-01-01T00:00:00.000Z", &isoTime(0));
    try testing.expectEqualStrings("2024-02-29T23:59:59.334Z", &isoTime(1709251199334));
    try testing.expectEqualStrings("9999-12-31T23:59:59.999Z", &isoTime(std.math.maxInt(u64)));
}

fn testPath(tmp: *testing.TmpDir, buffer: *[posix.PATH_MAX]u8, name: []const u8) ![:0]u8 {
    var real: [posix.PATH_MAX]u8 = undefined;
    return std.fmt.bufPrintZ(buffer, "{s}/{s}", .{ try tmp.dir.realpath(".", &real), name });
}

fn testSession() Session {
    return .{
        .id = "t1",
        .name = .fromBytes("sh (/tmp)"),
        .command = &.{"sh"},
        .cwd = "/tmp",
        .started_at = isoTime(0),
        .initial_size = .{ .cols = 80, .rows = 24 },
        .version = "0",
        .nested = false,
    };
}

test "a session's directory is private, whatever the umask, and updates keep foreign members" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [posix.PATH_MAX]u8 = undefined;
    const path = try testPath(&tmp, &buffer, "a/b/t1");
    var directory: Directory = try .open(path);
    defer directory.close();
    try testing.expectEqual(0o700, (try posix.fstat(directory.fd)).mode & 0o777);
    try testing.expectError(error.SessionIsRunning, Directory.open(path));

    var session = testSession();
    try directory.publish(try directory.stage(&session));
    const dir: std.fs.Dir = .{ .fd = directory.fd };
    try testing.expectEqual(0o600, (try dir.statFile("session.json")).mode & 0o777);
    try dir.writeFile(.{ .sub_path = "session.json", .data = 
        \\{"name":"re\u0007named","x":[1],"lastClearOffset":9,"status":"starting"}
    });
    session.status = .running;
    session.pid = 4711;
    try directory.update(&session, session.stateFields()[0..3]);
    const text = try dir.readFileAlloc(testing.allocator, "session.json", 4096);
    defer testing.allocator.free(text);
    try testing.expectEqualStrings(
        \\{
        \\  "name": "re\u0007named",
        \\  "x": [1],
        \\  "lastClearOffset": 9,
        \\  "status": "running",
        \\  "pid": 4711
        \\}
        \\
    , text);
    try testing.expectEqualStrings("renamed", directory.readName().?.slice());
}

test "a session.json that is not JSON is written anew, a directory that is gone is left" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [posix.PATH_MAX]u8 = undefined;
    var directory: Directory = try .open(try testPath(&tmp, &buffer, "t1"));
    defer directory.close();
    const dir: std.fs.Dir = .{ .fd = directory.fd };
    try dir.writeFile(.{ .sub_path = "session.json", .data = "{broken" });
    const session = testSession();
    try directory.update(&session, &session.stateFields());
    const text = try dir.readFileAlloc(testing.allocator, "session.json", 4096);
    defer testing.allocator.free(text);
    const parsed = try std.json.parseFromSlice(std.json.Value, testing.allocator, text, .{});
    defer parsed.deinit();
    try testing.expectEqualStrings("t1", parsed.value.object.get("id").?.string);
    try testing.expectEqual(0, parsed.value.object.get("lastClearOffset").?.integer);
    try testing.expectEqual(null, parsed.value.object.get("pid"));

    try tmp.dir.deleteTree("t1");
    try directory.update(&session, &session.stateFields());
    try testing.expectError(error.FileNotFound, tmp.dir.statFile("t1"));
    try testing.expectEqual(null, directory.readName());
}

test "what a killed forwarder left half written goes, what a live one writes stays" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    try tmp.dir.makePath("t1");
    const names = [_]struct { []const u8, bool }{
        .{ ".session.json.2147483646.3.tmp", false },
        .{ ".session.json.1.3.tmp", true },
        .{ ".session.json.x.3.tmp", true },
        .{ "session.json.tmp", true },
        .{ "activity.json", true },
    };
    var path: [64]u8 = undefined;
    for (names) |name| {
        const file = try std.fmt.bufPrint(&path, "t1/{s}", .{name[0]});
        try tmp.dir.writeFile(.{ .sub_path = file, .data = "" });
    }
    var buffer: [posix.PATH_MAX]u8 = undefined;
    const directory: Directory = try .open(try testPath(&tmp, &buffer, "t1"));
    defer directory.close();
    const dir: std.fs.Dir = .{ .fd = directory.fd };
    for (names) |name| {
        const found = if (dir.statFile(name[0])) |_| true else |_| false;
        try testing.expectEqual(name[1], found);
    }
}

test "a session that is starting is waited for, and a directory that nobody runs is not" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [posix.PATH_MAX]u8 = undefined;
    const path = try testPath(&tmp, &buffer, "t1");
    var directory: Directory = try .open(path);
    var other = Directory.existing(path).?;
    defer other.close();
    try testing.expect(other.isLocked());
    var session = testSession();
    try directory.publish(try directory.stage(&session));
    const name: Name = .fromBytes("new");
    try other.rename(&name);
    try testing.expectEqualStrings("new", other.readName().?.slice());
    directory.unlinkJson();
    directory.close();
    try testing.expect(!other.isLocked());
    try testing.expectError(error.NoSession, other.rename(&name));
}

test "an id is refused while a session.json there names a live process" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [posix.PATH_MAX]u8 = undefined;
    const path = try testPath(&tmp, &buffer, "t1");
    const cases = [_]struct { []const u8, bool }{
        .{ "{\"status\":\"running\",\"pid\":1}", true },
        .{ "{\"status\":\"starting\",\"pid\":1}", true },
        .{ "{\"status\":\"exited\",\"pid\":1}", false },
        .{ "{\"status\":\"running\",\"pid\":2147483646}", false },
        .{ "{\"status\":\"running\",\"pid\":-1}", false },
        .{ "{\"status\":\"running\",\"pid\":99999999999}", false },
        .{ "{\"status\":\"running\"}", false },
        .{ "junk", false },
    };
    for (cases) |case| {
        tmp.dir.makeDir("t1") catch {}; // it is there from the second case on
        try tmp.dir.writeFile(.{ .sub_path = "t1/session.json", .data = case[0] });
        if (Directory.open(path)) |directory| {
            directory.close();
            try testing.expect(!case[1]);
        } else |err| {
            try testing.expectEqual(error.SessionIsRunning, err);
            try testing.expect(case[1]);
        }
    }
}

test "the FIFO is made once and kept; anything else in its place is refused" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [posix.PATH_MAX]u8 = undefined;
    const directory: Directory = try .open(try testPath(&tmp, &buffer, "t1"));
    defer directory.close();
    var fifo_buffer: [posix.PATH_MAX]u8 = undefined;
    const fifo = try testPath(&tmp, &fifo_buffer, "t1/stdin");
    try directory.makeFifo(fifo);
    try directory.makeFifo(fifo);
    const stat = try posix.fstatat(directory.fd, "stdin", 0);
    try testing.expectEqual(posix.S.IFIFO | 0o600, stat.mode);
    const dir: std.fs.Dir = .{ .fd = directory.fd };
    try dir.deleteFile("stdin");
    try dir.writeFile(.{ .sub_path = "stdin", .data = "" });
    try testing.expectError(error.StdinIsNotAFifo, directory.makeFifo(fifo));
}
