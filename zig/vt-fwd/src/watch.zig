//! Notices that somebody rewrote session.json: through inotify on Linux, which costs nothing
//! while nothing happens; by looking twice a second where there is none.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;

const poll_us = 500 * std.time.us_per_ms;

const is_linux = builtin.os.tag == .linux;
const IN = std.os.linux.IN;

pub const Watch = struct {
    directory: posix.fd_t,
    /// Readable when something changed; -1 when it must be looked for.
    fd: posix.fd_t,
    /// When to look, without inotify.
    next_us: ?u64,
    modified: i128,

    pub fn init(directory: posix.fd_t, path: [:0]const u8, now_us: u64) Watch {
        var watch: Watch = .{ .directory = directory, .fd = -1, .next_us = null, .modified = 0 };
        if (is_linux) watch.fd = inotify(path) catch -1; // a user has a limited number of them
        if (watch.fd < 0) {
            watch.next_us = now_us + poll_us;
            watch.modified = watch.modificationTime();
        }
        return watch;
    }

    pub fn deinit(watch: *Watch) void {
        if (watch.fd >= 0) posix.close(watch.fd);
        watch.fd = -1;
    }

    /// Call it when `fd` is readable. True when session.json was replaced or rewritten.
    pub fn drain(watch: *Watch) bool {
        if (!is_linux) return false;
        var changed = false;
        var buffer: [4096]u8 align(@alignOf(std.os.linux.inotify_event)) = undefined;
        while (true) {
            const n = posix.read(watch.fd, &buffer) catch return changed;
            var at: usize = 0;
            while (at < n) {
                const event: *std.os.linux.inotify_event = @ptrCast(@alignCast(&buffer[at]));
                if (event.getName()) |name| {
                    if (std.mem.eql(u8, name, "session.json")) changed = true;
                }
                at += @sizeOf(std.os.linux.inotify_event) + event.len;
            }
        }
    }

    /// Without inotify: true when it is time to look and there is something new.
    pub fn tick(watch: *Watch, now_us: u64) bool {
        const at = watch.next_us orelse return false;
        if (now_us < at) return false;
        watch.next_us = now_us + poll_us;
        const before = watch.modified;
        watch.modified = watch.modificationTime();
        return watch.modified != before;
    }

    fn modificationTime(watch: *const Watch) i128 {
        const stat = posix.fstatat(watch.directory, "session.json", 0) catch return 0;
        const time = stat.mtime();
        return @as(i128, time.sec) * std.time.ns_per_s + time.nsec;
    }
};

fn inotify(path: [:0]const u8) !posix.fd_t {
    const fd = try posix.inotify_init1(IN.CLOEXEC | IN.NONBLOCK);
    errdefer posix.close(fd);
    _ = try posix.inotify_add_watchZ(fd, path, IN.MOVED_TO | IN.CLOSE_WRITE | IN.ONLYDIR);
    return fd;
}

const testing = std.testing;

test "a replaced session.json is noticed, other files are not" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [posix.PATH_MAX]u8 = undefined;
    const real = try tmp.dir.realpath(".", &buffer);
    buffer[real.len] = 0;
    var watch: Watch = .init(tmp.dir.fd, buffer[0..real.len :0], 0);
    defer watch.deinit();
    if (watch.fd < 0) return error.SkipZigTest;
    try testing.expect(!watch.drain());
    try tmp.dir.writeFile(.{ .sub_path = "session.json.tmp", .data = "{}" });
    try testing.expect(!watch.drain());
    try tmp.dir.rename("session.json.tmp", "session.json");
    try testing.expect(watch.drain());
    try testing.expect(!watch.drain());
    try tmp.dir.writeFile(.{ .sub_path = "session.json", .data = "{ }" });
    try testing.expect(watch.drain());
}

test "without inotify the time of the file is looked at twice a second" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var watch: Watch = .init(tmp.dir.fd, "/no/such/directory", 0);
    try testing.expectEqual(-1, watch.fd);
    try testing.expect(!watch.tick(poll_us));
    try tmp.dir.writeFile(.{ .sub_path = "session.json", .data = "{}" });
    try testing.expect(!watch.tick(poll_us + 1));
    try testing.expect(watch.tick(2 * poll_us));
    try testing.expect(!watch.tick(3 * poll_us));
}
