//! Our own standard output, written without ever blocking the loop: a terminal stopped with
//! Ctrl-S or a slow pipe must not keep a signal or a kill from being served.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;

pub const OuterOutput = struct {
    kind: Kind,
    fd: posix.fd_t,
    /// Accepted by `send`, not yet by the system. The bytes belong to the caller.
    pending: []const u8 = "",

    const Kind = enum {
        /// Nobody reads any more, or nobody ever did.
        gone,
        socket,
        /// Non-blocking where the system let us; a regular file never waits long.
        plain,
    };

    /// O_NONBLOCK set on `fd` itself would hit all who share it, our parent's shell first. So a
    /// terminal or pipe is opened a second time, by itself.
    pub fn init(fd: posix.fd_t) OuterOutput {
        const stat = posix.fstat(fd) catch return .{ .kind = .gone, .fd = fd };
        if (posix.S.ISSOCK(stat.mode)) return .{ .kind = .socket, .fd = fd };
        if (posix.S.ISREG(stat.mode)) return .{ .kind = .plain, .fd = fd };
        return .{ .kind = .plain, .fd = reopen(fd) catch fd };
    }

    /// Takes `bytes`, which must stay until `pending` is empty again.
    pub fn send(self: *OuterOutput, bytes: []const u8) void {
        std.debug.assert(self.pending.len == 0);
        self.pending = bytes;
        self.proceed();
    }

    /// Writes what the system takes now.
    pub fn proceed(self: *OuterOutput) void {
        while (self.pending.len > 0) {
            const n = switch (self.kind) {
                .gone => return self.abandon(),
                .socket => posix.sendto(self.fd, self.pending, posix.MSG.DONTWAIT, null, 0),
                .plain => posix.write(self.fd, self.pending),
            } catch |err| {
                // A reader that went, a disk that is full: the session goes on without.
                if (err != error.WouldBlock) self.abandon();
                return;
            };
            self.pending = self.pending[n..];
        }
    }

    pub fn abandon(self: *OuterOutput) void {
        self.kind = .gone;
        self.pending = "";
    }
};

fn reopen(fd: posix.fd_t) !posix.fd_t {
    const flags: posix.O = .{
        .ACCMODE = .WRONLY,
        .NONBLOCK = true,
        .NOCTTY = true,
        .CLOEXEC = true,
    };
    if (builtin.os.tag == .linux) {
        var buffer: [32]u8 = undefined;
        const path = std.fmt.bufPrintZ(&buffer, "/proc/self/fd/{d}", .{fd}) catch
            unreachable; // ten digits fit
        return posix.openZ(path, flags, 0);
    }
    return posix.openZ(darwin.ttyname(fd) orelse return error.NotATerminal, flags, 0);
}

const darwin = struct {
    extern "c" fn ttyname(fd: c_int) ?[*:0]const u8;
};

const testing = std.testing;

test "a full pipe keeps the rest pending, and a closed one is given up" {
    const ends = try posix.pipe2(.{ .CLOEXEC = true });
    defer posix.close(ends[1]);
    var output: OuterOutput = .init(ends[1]);
    defer posix.close(output.fd);
    try testing.expect(output.fd != ends[1]); // our own, non-blocking
    const bytes = "x" ** 200_000;
    output.send(bytes);
    try testing.expect(output.pending.len > 0 and output.pending.len < bytes.len);
    var buffer: [4096]u8 = undefined;
    var total: usize = 0;
    while (total < bytes.len) {
        total += try posix.read(ends[0], &buffer);
        output.proceed();
    }
    try testing.expectEqual(bytes.len, total);
    try testing.expectEqual(0, output.pending.len);
    posix.close(ends[0]);
    var old: posix.Sigaction = undefined;
    posix.sigaction(posix.SIG.PIPE, &.{
        .handler = .{ .handler = posix.SIG.IGN },
        .mask = posix.sigemptyset(),
        .flags = 0,
    }, &old);
    defer posix.sigaction(posix.SIG.PIPE, &old, null);
    output.send("y");
    try testing.expectEqual(.gone, output.kind);
    output.send("z");
    try testing.expectEqual(0, output.pending.len);
}
