//! The file of a recording: lines collected in memory and written to disk whole, several in one
//! write(2) under load. A reader that looks at any moment sees whole lines, and so does one that
//! looks after the disk filled up.

const std = @import("std");
const posix = std.posix;

/// Room for lines; one line is at most `max_line_bytes`.
const buffer_bytes = 192 * 1024;
pub const max_line_bytes = 112 * 1024;

pub const CastFile = struct {
    fd: posix.fd_t,
    buffer: [buffer_bytes]u8,
    /// Bytes of whole lines in `buffer`.
    buffered: usize,
    /// Bytes of whole lines on disk.
    written: u64,
    /// Why the recording ended early.
    failure: ?posix.WriteError,

    /// In place: the buffer is large, and untouched pages of it cost nothing.
    pub fn init(file: *CastFile, fd: posix.fd_t) void {
        file.fd = fd;
        file.buffered = 0;
        file.written = 0;
        file.failure = null;
    }

    /// Where the next line begins in the file.
    pub fn offset(file: *const CastFile) u64 {
        return file.written + file.buffered;
    }

    /// Room for one line. `commit` makes it part of the file.
    pub fn line(file: *CastFile) *[max_line_bytes]u8 {
        if (buffer_bytes - file.buffered < max_line_bytes) file.flush();
        return file.buffer[file.buffered..][0..max_line_bytes];
    }

    /// Takes the first `len` bytes of `line`, which end with a newline.
    pub fn commit(file: *CastFile, len: usize) void {
        std.debug.assert(len > 0 and len <= max_line_bytes);
        std.debug.assert(file.buffer[file.buffered + len - 1] == '\n');
        file.buffered += len;
    }

    /// Writes what is buffered. After a failure the file is cut back to its last whole line and
    /// everything further is dropped, except that `retry` allows another attempt.
    pub fn flush(file: *CastFile) void {
        const bytes = file.buffer[0..file.buffered];
        file.buffered = 0;
        if (bytes.len == 0 or file.failure != null) return;
        var done: usize = 0;
        while (done < bytes.len) {
            done += posix.write(file.fd, bytes[done..]) catch |err| {
                file.failure = err;
                break;
            };
        }
        if (done == bytes.len) {
            file.written += done;
            return;
        }
        const whole = if (std.mem.lastIndexOfScalar(u8, bytes[0..done], '\n')) |i| i + 1 else 0;
        file.written += whole;
        // When cutting fails too, the server skips the broken line: nothing better can be done.
        posix.ftruncate(file.fd, file.written) catch {};
    }

    /// Forgets a failure: the last line is worth another attempt.
    pub fn retry(file: *CastFile) void {
        file.failure = null;
    }
};

const testing = std.testing;

fn addLine(file: *CastFile, text: []const u8) void {
    const room = file.line();
    @memcpy(room[0..text.len], text);
    file.commit(text.len);
}

test "lines reach the disk on flush, and the offset counts both" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    const disk = try tmp.dir.createFile("cast", .{ .read = true });
    defer disk.close();
    const file = try testing.allocator.create(CastFile);
    defer testing.allocator.destroy(file);
    file.init(disk.handle);
    addLine(file, "one\n");
    addLine(file, "two\n");
    try testing.expectEqual(8, file.offset());
    try testing.expectEqual(0, try disk.getEndPos());
    file.flush();
    try testing.expectEqual(8, try disk.getEndPos());
    try testing.expectEqual(8, file.offset());
}

test "a full buffer flushes by itself" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    const disk = try tmp.dir.createFile("cast", .{ .read = true });
    defer disk.close();
    const file = try testing.allocator.create(CastFile);
    defer testing.allocator.destroy(file);
    file.init(disk.handle);
    const text = "x" ** 9999 ++ "\n";
    for (0..100) |_| addLine(file, text);
    file.flush();
    try testing.expectEqual(100 * text.len, try disk.getEndPos());
    try testing.expectEqual(null, file.failure);
}

test "a disk that is full ends the recording, and is tried again only on request" {
    const full = std.fs.openFileAbsolute("/dev/full", .{ .mode = .write_only }) catch
        return error.SkipZigTest; // only Linux has it
    defer full.close();
    const file = try testing.allocator.create(CastFile);
    defer testing.allocator.destroy(file);
    file.init(full.handle);
    addLine(file, "lost\n");
    file.flush();
    try testing.expectEqual(error.NoSpaceLeft, file.failure.?);
    try testing.expectEqual(0, file.offset());
    addLine(file, "dropped\n");
    file.flush();
    try testing.expectEqual(0, file.offset());
    file.retry();
    try testing.expectEqual(null, file.failure);
}
