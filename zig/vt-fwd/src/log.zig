//! Messages to the user and to the log file. The file is opened when the first message comes.

const std = @import("std");
const posix = std.posix;
const raw_mode = @import("raw_mode.zig");

pub const Level = enum {
    silent,
    @"error",
    warn,
    info,
    verbose,
    debug,

    /// Any case; null when it is no level.
    pub fn parse(text: []const u8) ?Level {
        inline for (std.meta.fields(Level)) |field| {
            if (std.ascii.eqlIgnoreCase(text, field.name)) return @enumFromInt(field.value);
        }
        return null;
    }
};

const max_message_bytes = 1024;

pub const Log = struct {
    level: Level,
    /// Null when there is no place for it.
    path: ?[:0]const u8,
    fd: ?posix.fd_t = null,

    /// Opens the file, private to the user whatever the umask.
    pub fn open(log: *Log) void {
        const path = log.path orelse return;
        if (log.fd != null) return;
        const flags: posix.O = .{
            .ACCMODE = .WRONLY,
            .CREAT = true,
            .APPEND = true,
            .CLOEXEC = true,
            .NONBLOCK = true, // a FIFO without a reader is no place to wait at
            .NOCTTY = true,
        };
        const fd = posix.openZ(path, flags, 0o600) catch {
            log.path = null; // a log that cannot be written must not end the session
            return;
        };
        // /dev/null and its like, and a FIFO, are more than ours.
        const regular = if (posix.fstat(fd)) |stat| posix.S.ISREG(stat.mode) else |_| false;
        // The mode of a file of another user is that user's affair.
        if (regular) posix.fchmod(fd, 0o600) catch {};
        log.fd = fd;
    }

    pub fn print(log: *Log, level: Level, comptime fmt: []const u8, args: anytype) void {
        if (@intFromEnum(level) > @intFromEnum(log.level)) return;
        var buffer: [max_message_bytes + 32]u8 = undefined;
        var writer: std.Io.Writer = .fixed(buffer[0 .. buffer.len - 2]);
        var tag_buffer: [16]u8 = undefined;
        const tag = std.fmt.bufPrint(&tag_buffer, "[{s}] ", .{@tagName(level)}) catch
            unreachable; // the longest level has seven letters
        for (tag) |*c| c.* = std.ascii.toUpper(c.*);
        writer.writeAll(tag) catch unreachable; // the buffer is longer than a tag
        writer.print(fmt, args) catch {}; // what does not fit is cut
        var len = writer.end;
        log.open();
        buffer[len] = '\n';
        if (log.fd) |fd| writeAll(fd, buffer[tag.len .. len + 1]);
        if (raw_mode.active()) {
            buffer[len..][0..2].* = "\r\n".*;
            len += 1;
        }
        writeAll(2, buffer[0 .. len + 1]);
    }
};

fn writeAll(fd: posix.fd_t, bytes: []const u8) void {
    var rest = bytes;
    while (rest.len > 0) {
        rest = rest[posix.write(fd, rest) catch return ..]; // nobody is left to tell
    }
}

test "levels are known in any case" {
    try std.testing.expectEqual(.@"error", Level.parse("ERROR").?);
    try std.testing.expectEqual(.verbose, Level.parse("Verbose").?);
    try std.testing.expectEqual(null, Level.parse("loud"));
    try std.testing.expectEqual(null, Level.parse(""));
}

test "messages go to the file without the level, up to a bound" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    var real: [posix.PATH_MAX]u8 = undefined;
    var path_buffer: [posix.PATH_MAX]u8 = undefined;
    const root = try tmp.dir.realpath(".", &real);
    const path = try std.fmt.bufPrintZ(&path_buffer, "{s}/log\xff.txt", .{root});
    const err = try posix.dup(2);
    defer posix.close(err);
    const quiet = try std.fs.openFileAbsolute("/dev/null", .{ .mode = .write_only });
    defer quiet.close();
    try posix.dup2(quiet.handle, 2);
    defer posix.dup2(err, 2) catch {}; // then later tests are silent, and still fail
    var log: Log = .{ .level = .info, .path = path };
    log.print(.info, "hello {s}", .{"x"});
    log.print(.debug, "not this", .{});
    log.print(.@"error", "{s}", .{"y" ** 5000});
    posix.close(log.fd.?);
    var buffer: [8192]u8 = undefined;
    const text = try tmp.dir.readFile("log\xff.txt", &buffer);
    try std.testing.expect(std.mem.startsWith(u8, text, "hello x\nyyyy"));
    try std.testing.expect(text.len < 1100 and text[text.len - 1] == '\n');
    try std.testing.expectEqual(0o600, (try tmp.dir.statFile("log\xff.txt")).mode & 0o777);
}
