//! `--detach`: the session runs in a process of its own, away from this terminal. The process that
//! was started waits until the session runs and prints its id, or ends with the session's code.

const std = @import("std");
const posix = std.posix;

pub const Role = union(enum) {
    /// The process that was started: its work is done, this is its exit code.
    starter: u8,
    /// The session's own process.
    session: Ready,
};

/// The end of a pipe that the starter waits at.
pub const Ready = struct {
    pipe: posix.fd_t,

    /// The session runs. Nobody reads our messages from here on.
    pub fn tell(ready: Ready, id: []const u8) void {
        for ([_][]const u8{ id, "\n" }) |piece| {
            _ = posix.write(ready.pipe, piece) catch {}; // the starter was killed: nobody waits
        }
        posix.close(ready.pipe);
        redirect(2);
    }
};

/// Both processes return from here. The caller has opened nothing that only one of them may have.
pub fn detach() !Role {
    const read, const write = try posix.pipe2(.{ .CLOEXEC = true });
    const child = try posix.fork();
    if (child != 0) {
        posix.close(write);
        return .{ .starter = wait(read, child) };
    }
    posix.close(read);
    _ = posix.system.setsid(); // cannot fail: a child of fork leads no process group
    redirect(0);
    redirect(1);
    return .{ .session = .{ .pipe = write } };
}

fn redirect(fd: posix.fd_t) void {
    // Without /dev/null the old descriptor stays, which disturbs nobody but its reader.
    const flags: posix.O = .{ .ACCMODE = .RDWR, .CLOEXEC = true };
    const nothing = posix.openZ("/dev/null", flags, 0) catch return;
    defer posix.close(nothing);
    posix.dup2(nothing, fd) catch {}; // see above
}

fn wait(pipe: posix.fd_t, child: posix.pid_t) u8 {
    var running = false;
    var buffer: [256]u8 = undefined;
    while (true) {
        const n = posix.read(pipe, &buffer) catch 0;
        if (n == 0) break;
        running = true;
        _ = posix.write(1, buffer[0..n]) catch {}; // the session runs, whoever reads its id
    }
    if (running) return 0;
    const status = posix.waitpid(child, 0).status;
    return if (posix.W.IFEXITED(status)) posix.W.EXITSTATUS(status) else 1;
}
