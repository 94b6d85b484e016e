//! Notices that somebody rewrote session.json, by looking at the file twice a second: the same on
//! every system, and it leaves nothing to tear down. (Closing an inotify instance waits for the
//! kernel's next quiet period, which made the end of every session 7 to 15 ms slower.)

const std = @import("std");
const posix = std.posix;

const every_us = 500 * std.time.us_per_ms;

pub const Watch = struct {
    directory: posix.fd_t,
    /// When to look next.
    next_us: u64,
    seen: State,

    /// A file replaced by rename(2) is another inode; one written in place has another time.
    const State = struct {
        inode: posix.ino_t = 0,
        seconds: i64 = 0,
        nanoseconds: i64 = 0,

        fn of(directory: posix.fd_t) State {
            const stat = posix.fstatat(directory, "session.json", 0) catch return .{};
            const time = stat.mtime();
            return .{ .inode = stat.ino, .seconds = time.sec, .nanoseconds = time.nsec };
        }
    };

    pub fn init(directory: posix.fd_t, now_us: u64) Watch {
        return .{ .directory = directory, .next_us = now_us + every_us, .seen = .of(directory) };
    }

    /// True when it was time to look and there is something new.
    pub fn tick(watch: *Watch, now_us: u64) bool {
        if (now_us < watch.next_us) return false;
        watch.next_us = now_us + every_us;
        const state: State = .of(watch.directory);
        defer watch.seen = state;
        return !std.meta.eql(watch.seen, state);
    }
};

const testing = std.testing;

test "a session.json that is made, replaced or gone is noticed, twice a second at most" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var watch: Watch = .init(tmp.dir.fd, 0);
    try testing.expect(!watch.tick(every_us));
    try tmp.dir.writeFile(.{ .sub_path = "session.json", .data = "{}" });
    try testing.expect(!watch.tick(every_us + 1));
    try testing.expect(watch.tick(2 * every_us));
    try testing.expect(!watch.tick(3 * every_us));
    try tmp.dir.writeFile(.{ .sub_path = "other", .data = "{}" });
    try testing.expect(!watch.tick(4 * every_us));
    try tmp.dir.rename("other", "session.json");
    try testing.expect(watch.tick(5 * every_us));
    try tmp.dir.deleteFile("session.json");
    try testing.expect(watch.tick(6 * every_us));
    try testing.expect(!watch.tick(7 * every_us));
}
