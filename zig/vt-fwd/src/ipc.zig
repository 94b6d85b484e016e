//! The session's socket and who is connected to it. Only the owner and root are served. Nothing
//! here waits: a client that does not read its answers does not get them.

const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const frames = @import("frames.zig");
const InputQueue = @import("input_queue.zig").InputQueue;

pub const max_clients = 32;
/// A burst of clients waits here until the loop comes round.
const backlog = 128;
const read_bytes = 4096;
const mode = 0o600;

/// Heartbeats answered in any second. VibeTunnel's own client echoes every answer: without a
/// limit the two would never stop.
const max_heartbeats = 5;
const heartbeat_window_us = std.time.us_per_s;

const is_linux = builtin.os.tag == .linux;

pub const Client = struct {
    fd: posix.fd_t,
    parser: frames.Parser,
    /// Received and not yet parsed: not empty only while `queue` is full.
    buffer: [read_bytes]u8,
    start: usize,
    end: usize,
    /// Typed text on its way to the child.
    queue: InputQueue,
    /// The client will send nothing more.
    ended: bool,
    heartbeats: u32,
    window_start_us: u64,

    /// In place, as only the fields that matter are touched.
    fn init(client: *Client, fd: posix.fd_t) void {
        client.fd = fd;
        client.parser.gpa = std.heap.page_allocator;
        client.parser.header_len = 0;
        client.parser.large = null;
        client.start = 0;
        client.end = 0;
        client.queue.start = 0;
        client.queue.end = 0;
        client.queue.carry = .{};
        client.ended = false;
        client.heartbeats = 0;
        client.window_start_us = 0;
    }

    pub fn unparsed(client: *const Client) []const u8 {
        return client.buffer[client.start..client.end];
    }

    pub fn consume(client: *Client, n: usize) void {
        client.start += n;
    }

    /// It may be read from: all that came before is parsed.
    pub fn wantsMore(client: *const Client) bool {
        return !client.ended and client.start == client.end;
    }

    /// Reads once.
    pub fn receive(client: *Client) void {
        std.debug.assert(client.wantsMore());
        client.start = 0;
        client.end = posix.read(client.fd, &client.buffer) catch |err| switch (err) {
            error.WouldBlock => {
                client.end = 0;
                return;
            },
            else => 0, // as gone as one that closed
        };
        if (client.end == 0) client.ended = true;
    }

    /// Answers a heartbeat, unless there were too many or the client does not read.
    pub fn answerHeartbeat(client: *Client, now_us: u64) void {
        if (now_us -| client.window_start_us >= heartbeat_window_us) {
            client.window_start_us = now_us;
            client.heartbeats = 0;
        }
        if (client.heartbeats == max_heartbeats) return;
        client.heartbeats += 1;
        const flags = posix.MSG.DONTWAIT | no_signal;
        const sent = posix.sendto(client.fd, &frames.heartbeat, flags, null, 0) catch return;
        // Half an answer would garble the next: such a client is beyond help.
        if (sent < frames.heartbeat.len) client.ended = true;
    }
};

pub const Server = struct {
    /// -1 when there is none.
    listener: posix.fd_t,
    clients: [max_clients]?*Client,
    storage: [max_clients]Client,

    pub fn init(server: *Server, listener: posix.fd_t) void {
        server.listener = listener;
        server.clients = @splat(null);
    }

    pub fn isFull(server: *const Server) bool {
        return std.mem.indexOfScalar(?*Client, &server.clients, null) == null;
    }

    /// All clients are below this index.
    pub fn highest(server: *const Server) usize {
        var index: usize = max_clients;
        while (index > 0 and server.clients[index - 1] == null) index -= 1;
        return index;
    }

    pub const AcceptError = error{
        /// The system has no more descriptors: try again later.
        OutOfDescriptors,
    };

    /// Takes all who wait, as far as there is room.
    pub fn acceptAll(server: *Server) AcceptError!void {
        for (&server.clients, &server.storage) |*slot, *client| {
            if (slot.* != null) continue;
            const flags = posix.SOCK.CLOEXEC | posix.SOCK.NONBLOCK;
            const fd = posix.accept(server.listener, null, null, flags) catch |err| switch (err) {
                error.WouldBlock, error.ConnectionAborted => return,
                else => return error.OutOfDescriptors,
            };
            if (!isOurs(fd) or !noSignals(fd)) {
                posix.close(fd);
                continue;
            }
            client.init(fd);
            slot.* = client;
        }
    }

    pub fn close(server: *Server, index: usize) void {
        const client = server.clients[index] orelse return;
        client.parser.deinit();
        posix.close(client.fd);
        server.clients[index] = null;
    }

    pub fn deinit(server: *Server) void {
        for (0..max_clients) |index| server.close(index);
        if (server.listener >= 0) posix.close(server.listener);
        server.listener = -1;
    }
};

/// Listens at `path`, where a forwarder that was killed may have left its socket. The file is
/// never open to others, not even for a moment.
pub fn listen(path: [:0]const u8) !posix.fd_t {
    const address: std.net.Address = try .initUnix(path);
    const kind = posix.SOCK.STREAM | posix.SOCK.CLOEXEC | posix.SOCK.NONBLOCK;
    const fd = try posix.socket(posix.AF.UNIX, kind, 0);
    errdefer posix.close(fd);
    posix.unlinkZ(path) catch |err| switch (err) {
        error.FileNotFound => {},
        else => return err,
    };
    // The umask belongs to the process, which may have other threads. On Linux the socket's own
    // mode is the file's; elsewhere its directory, which is private, keeps others out until chmod.
    if (is_linux) try posix.fchmod(fd, mode);
    try posix.bind(fd, &address.any, address.getOsSockLen());
    try posix.fchmodat(posix.AT.FDCWD, path, mode, 0);
    try posix.listen(fd, backlog);
    return fd;
}

/// Connected to `path`, for sending only; null when nobody listens there.
pub fn connect(path: [:0]const u8) ?posix.fd_t {
    const address = std.net.Address.initUnix(path) catch return null;
    const kind = posix.SOCK.STREAM | posix.SOCK.CLOEXEC | posix.SOCK.NONBLOCK;
    const fd = posix.socket(posix.AF.UNIX, kind, 0) catch return null;
    posix.connect(fd, &address.any, address.getOsSockLen()) catch {
        posix.close(fd);
        return null;
    };
    return fd;
}

/// The other end is a process of our own user, or of root.
fn isOurs(fd: posix.fd_t) bool {
    const uid = peerUid(fd) orelse return false;
    return uid == 0 or uid == effectiveUid();
}

fn peerUid(fd: posix.fd_t) ?posix.uid_t {
    if (is_linux) {
        var credentials: extern struct { pid: i32, uid: u32, gid: u32 } = undefined;
        const bytes = std.mem.asBytes(&credentials);
        posix.getsockopt(fd, posix.SOL.SOCKET, posix.SO.PEERCRED, bytes) catch return null;
        return credentials.uid;
    }
    var uid: posix.uid_t = undefined;
    var gid: posix.gid_t = undefined;
    return if (darwin.getpeereid(fd, &uid, &gid) == 0) uid else null;
}

fn effectiveUid() posix.uid_t {
    return if (is_linux) std.os.linux.geteuid() else std.c.geteuid();
}

/// A client that has gone is an error of the call, not a signal to whoever loaded this library.
const no_signal = if (is_linux) posix.MSG.NOSIGNAL else 0;

fn noSignals(fd: posix.fd_t) bool {
    if (is_linux) return true;
    const on: c_int = 1;
    // Not posix.setsockopt, for which EINVAL cannot be: it is what macOS says of a client that has
    // gone meanwhile.
    return std.c.setsockopt(fd, posix.SOL.SOCKET, posix.SO.NOSIGPIPE, &on, @sizeOf(c_int)) == 0;
}

const darwin = struct {
    extern "c" fn getpeereid(fd: c_int, uid: *posix.uid_t, gid: *posix.gid_t) c_int;
};

const testing = std.testing;

const Fixture = struct {
    tmp: testing.TmpDir,
    path_buffer: [posix.PATH_MAX]u8,
    path: [:0]const u8,
    server: *Server,

    fn init(f: *Fixture) !void {
        f.tmp = testing.tmpDir(.{});
        var real: [posix.PATH_MAX]u8 = undefined;
        const root = try f.tmp.dir.realpath(".", &real);
        f.path = try std.fmt.bufPrintZ(&f.path_buffer, "{s}/s", .{root});
        f.server = try testing.allocator.create(Server);
        f.server.init(try listen(f.path));
    }

    fn deinit(f: *Fixture) void {
        f.server.deinit();
        testing.allocator.destroy(f.server);
        f.tmp.cleanup();
    }
};

fn umask(mask: u32) u32 {
    if (is_linux) return @intCast(std.os.linux.syscall1(.umask, mask));
    return std.c.umask(@intCast(mask));
}

test "the socket is private whatever the umask, and a stale one is replaced" {
    var f: Fixture = undefined;
    try f.init();
    defer f.deinit();
    for ([_]u32{ 0, 0o777 }) |mask| {
        const before = umask(mask);
        defer _ = umask(before);
        const second = try listen(f.path);
        defer posix.close(second);
        try testing.expectEqual(0o600, (try f.tmp.dir.statFile("s")).mode & 0o777);
    }
}

test "several clients are accepted, their bytes and their end are seen" {
    var f: Fixture = undefined;
    try f.init();
    defer f.deinit();
    const a = connect(f.path).?;
    const b = connect(f.path).?;
    defer posix.close(b);
    try f.server.acceptAll();
    const client = f.server.clients[0].?;
    try testing.expect(f.server.clients[1] != null and f.server.clients[2] == null);
    client.receive();
    try testing.expect(client.wantsMore());
    _ = try posix.write(a, "xyz");
    client.receive();
    try testing.expectEqualStrings("xyz", client.unparsed());
    client.consume(3);
    posix.close(a);
    client.receive();
    try testing.expect(client.ended);
    f.server.close(0);
    try testing.expectEqual(null, f.server.clients[0]);
}

test "heartbeats are answered five times a second" {
    var f: Fixture = undefined;
    try f.init();
    defer f.deinit();
    const fd = connect(f.path).?;
    defer posix.close(fd);
    try f.server.acceptAll();
    const client = f.server.clients[0].?;
    var buffer: [256]u8 = undefined;
    for (0..20) |i| client.answerHeartbeat(5_000_000 + i);
    const answers = buffer[0..try posix.read(fd, &buffer)];
    try testing.expectEqualStrings(&(frames.heartbeat ** 5), answers);
    client.answerHeartbeat(6_000_000);
    try testing.expectEqual(5, try posix.read(fd, &buffer));
}

test "a client that reads nothing blocks nobody" {
    var f: Fixture = undefined;
    try f.init();
    defer f.deinit();
    const fd = connect(f.path).?;
    defer posix.close(fd);
    try f.server.acceptAll();
    for (0..200_000) |i| f.server.clients[0].?.answerHeartbeat((i + 1) * heartbeat_window_us);
}
