//! A recording that a host writes itself: a file, its events, an end. The rules of the format are
//! the recorder's.

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const clock = @import("clock.zig");
const pages = @import("pages.zig");
const utf8 = @import("utf8.zig");

/// As an event's time: the clock's.
pub const now = std.math.maxInt(u64);

pub const Cast = struct {
    recorder: asciicast.Recorder,
    fd: posix.fd_t,
    carry: utf8.Carry,

    pub const Exit = struct { code: u8, id: []const u8 };

    pub fn create(
        path: [:0]const u8,
        size: asciicast.Size,
        max_bytes: u64,
        header: asciicast.Header,
    ) !*Cast {
        const fd = try posix.openZ(path, .{
            .ACCMODE = .WRONLY,
            .CREAT = true,
            .TRUNC = true,
            .APPEND = true,
            .NONBLOCK = true, // a FIFO without a reader is no place to wait at
            .CLOEXEC = true,
        }, 0o600);
        errdefer posix.close(fd);
        const stat = try posix.fstat(fd);
        if (!posix.S.ISREG(stat.mode)) return error.NotAFile;
        const cast = try pages.create(Cast);
        cast.fd = fd;
        cast.carry = .{};
        cast.recorder.init(fd, clock.monotonicUs(), size, max_bytes);
        cast.recorder.writeHeader(header);
        cast.recorder.flush();
        return cast;
    }

    /// Closes it as it is.
    pub fn abandon(cast: *Cast) void {
        posix.close(cast.fd);
        pages.destroy(cast);
    }

    pub fn output(cast: *Cast, time_us: u64, bytes: []const u8) void {
        cast.recorder.output(cast.moment(time_us), bytes);
        cast.recorder.flush();
    }

    pub fn input(cast: *Cast, time_us: u64, bytes: []const u8) void {
        cast.recorder.input(cast.moment(time_us), bytes, &cast.carry);
        cast.recorder.flush();
    }

    pub fn resize(cast: *Cast, time_us: u64, size: asciicast.Size) void {
        cast.recorder.resize(cast.moment(time_us), size);
        cast.recorder.flush();
    }

    pub fn marker(cast: *Cast, time_us: u64, label: []const u8) void {
        cast.recorder.marker(cast.moment(time_us), label);
        cast.recorder.flush();
    }

    pub fn end(cast: *Cast, time_us: u64, exit: ?Exit) void {
        const at = cast.moment(time_us);
        cast.recorder.endInput(at, &cast.carry);
        cast.recorder.endOutput(at);
        if (exit) |it| cast.recorder.exit(it.code, it.id) else cast.recorder.flush();
    }

    /// On the recorder's clock, where what has waited too long is recorded first.
    fn moment(cast: *Cast, time_us: u64) u64 {
        const at = if (time_us == now) clock.monotonicUs() else cast.recorder.start_us +| time_us;
        cast.recorder.tick(at);
        return at;
    }
};
