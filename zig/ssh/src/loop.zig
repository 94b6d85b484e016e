//! One event-loop thread: its connections, the gits that outlive theirs, and the mailbox through
//! which other threads hand it decisions.

const std = @import("std");
const posix = std.posix;
const libssh = @import("libssh.zig");
const auth = @import("auth.zig");
const algorithms = @import("algorithms.zig");
const arrivals_module = @import("arrivals.zig");
const decisions = @import("decisions.zig");
const descriptor = @import("descriptor.zig");
const limits = @import("limits.zig");
const networks = @import("networks.zig");
const old_libssh = @import("old_libssh.zig");
const orphans_module = @import("orphans.zig");
const poller_module = @import("poller.zig");
const reasons = @import("reasons.zig");
const events = @import("events.zig");
const Connection = @import("connection.zig").Connection;
const server_module = @import("server.zig");
const Server = server_module.Server;
const Counters = events.Counters;

/// How often deadlines are looked at.
const tick_ms = 250;
/// Connections taken from the listener in one go; the other loops get theirs.
const accepts_per_turn = 4;
/// Pause of the listener when the process is out of descriptors.
const accept_pause_ms = 200;
const connections_max = 1 << 20;

/// What a poller or a decision refers to. Generation-tagged: what comes late finds nobody.
pub const Token = packed struct(u64) {
    index: u24,
    generation: u24,
    number: u12,
    kind: Kind,

    pub const Kind = enum(u4) {
        listener,
        waker,
        arrival,
        socket,
        pipe,
        authenticate,
        authorize,
        orphan,
    };
};

pub const Loop = struct {
    server: *Server,
    poller: poller_module.Poller,
    waker: poller_module.Waker,
    waker_watch: poller_module.Watch,
    listener_watch: ?poller_module.Watch = null,
    bind: *libssh.Bind,
    thread: ?std.Thread = null,
    /// The thread has come to its end.
    is_done: std.atomic.Value(bool) = .init(false),
    now_ms: u64,
    next_tick_ms: u64 = 0,
    accept_again_ms: u64 = 0,

    slots: std.ArrayListUnmanaged(Slot) = .empty,
    free: std.ArrayListUnmanaged(u24) = .empty,
    live: usize = 0,
    arrivals: arrivals_module.Arrivals = .{},
    /// Connections to serve before the next wait, by index.
    queued: std.ArrayListUnmanaged(u24) = .empty,
    orphans: orphans_module.Orphans = .{},
    /// For bytes on their way from git to a channel.
    buffer: []u8,
    /// See `wideBuffer`.
    wide_buffer: []u8 = &.{},

    mutex: std.Thread.Mutex = .{},
    answers: std.ArrayListUnmanaged(decisions.Answer) = .empty,
    /// The ones that `deliverAnswers` works on; empty otherwise.
    delivering: std.ArrayListUnmanaged(decisions.Answer) = .empty,

    const Slot = struct { generation: u24, connection: ?*Connection };

    pub const InitError = error{ OutOfMemory, NoPoller, AlgorithmRefused, BadHostKey };

    /// On AlgorithmRefused `refused` says which.
    pub fn init(
        server: *Server,
        host_keys: []const *libssh.Key,
        refused: *algorithms.Refused,
    ) InitError!*Loop {
        const allocator = server.allocator;
        const loop = try allocator.create(Loop);
        errdefer allocator.destroy(loop);
        const buffer = try allocator.alloc(u8, 64 * 1024);
        errdefer allocator.free(buffer);
        var poller = poller_module.Poller.init() catch return error.NoPoller;
        errdefer poller.deinit();
        var waker = poller_module.Waker.init() catch return error.NoPoller;
        errdefer waker.deinit();
        const bind = libssh.ssh_bind_new() orelse return error.OutOfMemory;
        errdefer libssh.ssh_bind_free(bind);
        try configureBind(bind, server, host_keys, refused);
        loop.* = .{
            .server = server,
            .poller = poller,
            .waker = waker,
            .waker_watch = .{ .fd = waker.read_fd, .token = loopToken(.waker) },
            .bind = bind,
            .buffer = buffer,
            .now_ms = monotonicMs(),
        };
        loop.waker_watch.set(&loop.poller, .{ .read = true }) catch return error.NoPoller;
        return loop;
    }

    /// Each loop has its own: libssh fills and reads it without locks.
    fn configureBind(
        bind: *libssh.Bind,
        server: *Server,
        host_keys: []const *libssh.Key,
        refused: *algorithms.Refused,
    ) InitError!void {
        const no_files = false;
        var result = libssh.ssh_bind_options_set(bind, .process_config, &no_files);
        if (result != libssh.OK) return error.OutOfMemory;
        const banner: [*:0]const u8 = "plue";
        result = libssh.ssh_bind_options_set(bind, .banner, banner);
        if (result != libssh.OK) return error.OutOfMemory;
        const bits: c_int = @intCast(server.config.rsa_min_bits);
        result = libssh.ssh_bind_options_set(bind, .rsa_min_size, &bits);
        if (result != libssh.OK) return error.OutOfMemory;
        try algorithms.apply(bind, &server.config, refused);
        for (host_keys) |key| {
            const copy = libssh.ssh_key_dup(key) orelse return error.OutOfMemory;
            // Taken over when accepted: one key of each type.
            if (libssh.ssh_bind_options_set(bind, .import_key, copy) != libssh.OK) {
                libssh.ssh_key_free(copy);
                return error.BadHostKey;
            }
        }
    }

    pub fn deinit(loop: *Loop) void {
        const allocator = loop.server.allocator;
        std.debug.assert(loop.live == 0);
        libssh.ssh_bind_free(loop.bind);
        loop.waker.deinit();
        loop.poller.deinit();
        loop.arrivals.deinit(allocator);
        loop.slots.deinit(allocator);
        loop.free.deinit(allocator);
        loop.queued.deinit(allocator);
        loop.orphans.deinit(allocator);
        loop.answers.deinit(allocator);
        loop.delivering.deinit(allocator);
        allocator.free(loop.buffer);
        allocator.free(loop.wide_buffer);
        allocator.destroy(loop);
    }

    pub fn start(loop: *Loop) !void {
        loop.thread = try std.Thread.spawn(.{ .stack_size = 1024 * 1024 }, run, .{loop});
    }

    pub fn loopToken(kind: Token.Kind) u64 {
        return @bitCast(Token{ .index = 0, .generation = 0, .number = 0, .kind = kind });
    }

    // ------------------------------------------------------------ the thread

    fn run(loop: *Loop) void {
        defer loop.is_done.store(true, .release);
        server_module.in_server_thread = true;
        blockSignals();
        // Both are thread-local in libssh.
        _ = libssh.ssh_set_log_callback(auth.onLog);
        _ = libssh.ssh_set_log_level(libssh.LOG_NOLOG);
        loop.watchListener();
        while (true) {
            loop.now_ms = monotonicMs();
            if (loop.now_ms >= loop.next_tick_ms) loop.tick();
            if (loop.server.isStopping() and loop.isEmpty()) return;
            var ready: [poller_module.Poller.events_max]poller_module.Ready = undefined;
            const batch = loop.poller.wait(&ready, loop.timeout());
            loop.now_ms = monotonicMs();
            for (batch) |it| loop.dispatch(@bitCast(it.token));
            loop.deliverAnswers();
            loop.serveQueued();
        }
    }

    /// Signals are the host's business, and a pipe that git has closed must not end the host.
    fn blockSignals() void {
        var all = posix.sigfillset();
        // A fault in this thread must stay deadly.
        const SIG = posix.SIG;
        for ([_]u8{ SIG.SEGV, SIG.BUS, SIG.FPE, SIG.ILL, SIG.ABRT, SIG.TRAP }) |signal| {
            posix.sigdelset(&all, signal);
        }
        posix.sigprocmask(posix.SIG.BLOCK, &all, null);
    }

    fn timeout(loop: *Loop) ?u31 {
        if (loop.queued.items.len > 0) return 0;
        if (loop.isEmpty() and loop.accept_again_ms == 0) return null;
        return @intCast(@min(loop.next_tick_ms -| loop.now_ms, tick_ms));
    }

    fn isEmpty(loop: *const Loop) bool {
        return loop.live == 0 and loop.arrivals.live == 0 and loop.orphans.list.items.len == 0;
    }

    fn dispatch(loop: *Loop, token: Token) void {
        switch (token.kind) {
            .listener => loop.acceptSome(),
            .waker => {
                loop.waker.drain();
                if (loop.server.isStopping()) loop.next_tick_ms = 0;
            },
            .arrival => loop.arrivals.read(loop, token),
            .socket => if (loop.find(token)) |connection| {
                connection.socket_ready = true;
                loop.queue(connection);
            },
            .pipe => if (loop.find(token)) |connection| {
                if (connection.channelAt(token.number)) |channel| channel.transfer.is_ready = true;
                loop.queue(connection);
            },
            .orphan => loop.orphans.attend(loop),
            .authenticate, .authorize => unreachable, // never given to the poller
        }
    }

    fn find(loop: *Loop, token: Token) ?*Connection {
        if (token.index >= loop.slots.items.len) return null;
        const slot = loop.slots.items[token.index];
        return if (slot.generation == token.generation) slot.connection else null;
    }

    pub fn queue(loop: *Loop, connection: *Connection) void {
        if (connection.is_queued) return;
        connection.is_queued = true;
        loop.queued.appendAssumeCapacity(connection.index); // reserveSlot made room
    }

    fn serveQueued(loop: *Loop) void {
        // Whoever queues itself again comes after the next wait.
        const count = loop.queued.items.len;
        for (0..count) |i| {
            const connection = loop.slots.items[loop.queued.items[i]].connection orelse continue;
            connection.is_queued = false;
            _ = connection.serve();
        }
        loop.queued.replaceRangeAssumeCapacity(0, count, &.{});
    }

    fn tick(loop: *Loop) void {
        loop.next_tick_ms = loop.now_ms + tick_ms;
        loop.watchListener();
        loop.arrivals.checkTimers(loop);
        const killing = loop.server.isKilling(loop.now_ms);
        for (loop.slots.items) |slot| {
            const connection = slot.connection orelse continue;
            if (killing) connection.end(.stopping, null);
            connection.checkTimers();
            if (connection.ending != null or connection.activity) loop.queue(connection);
        }
        loop.orphans.attend(loop);
        loop.serveQueued();
    }

    // ------------------------------------------------------------ listener

    fn watchListener(loop: *Loop) void {
        const wanted = !loop.server.isStopping() and loop.now_ms >= loop.accept_again_ms;
        if (wanted and loop.listener_watch == null) {
            loop.accept_again_ms = 0;
            loop.listener_watch = .{ .fd = loop.server.listener_fd, .token = loopToken(.listener) };
            // Without memory now, the next tick tries again.
            loop.listener_watch.?.set(&loop.poller, .{ .read = true, .exclusive = true }) catch {
                loop.listener_watch = null;
                loop.accept_again_ms = loop.now_ms + accept_pause_ms;
            };
        } else if (!wanted) loop.unwatchListener();
    }

    fn unwatchListener(loop: *Loop) void {
        // It can only fail when it is not registered, which is what is wanted.
        if (loop.listener_watch) |*watch| watch.set(&loop.poller, .none) catch {};
        loop.listener_watch = null;
    }

    fn acceptSome(loop: *Loop) void {
        if (loop.server.isStopping()) return loop.unwatchListener();
        for (0..accepts_per_turn) |_| {
            var peer: std.net.Address = undefined;
            var len: posix.socklen_t = @sizeOf(std.net.Address);
            const flags = posix.SOCK.CLOEXEC | posix.SOCK.NONBLOCK;
            const fd = posix.accept(loop.server.listener_fd, &peer.any, &len, flags) catch |err| {
                return switch (err) {
                    // SocketNotListening: the server has begun to stop.
                    error.WouldBlock, error.ConnectionAborted, error.SocketNotListening => {},
                    else => loop.pauseAccepting(@errorName(err)),
                };
            };
            // macOS: the peer has gone already, and nobody knows who it was.
            if (len == 0) posix.close(fd) else loop.welcome(fd, peer);
        }
    }

    fn pauseAccepting(loop: *Loop, detail: []const u8) void {
        loop.server.events.emit(.@"error", "error", .{ .detail = detail });
        loop.accept_again_ms = loop.now_ms + accept_pause_ms;
        loop.unwatchListener();
    }

    fn welcome(loop: *Loop, fd: posix.fd_t, peer: std.net.Address) void {
        const server = loop.server;
        const is_proxy = server.isProxy(peer);
        const from = if (is_proxy) null else limits.source(peer);
        if (server.limits.admit(from)) |refusal| {
            posix.close(fd);
            return loop.refuse(.warning, peer, @tagName(refusal));
        }
        if (is_proxy) return loop.arrivals.add(loop, fd, peer);
        loop.connect(.{ .fd = fd, .client = peer, .proxy = null, .accepted_ms = loop.now_ms });
    }

    pub const Newcomer = struct {
        fd: posix.fd_t,
        client: std.net.Address,
        /// The load balancer in between.
        proxy: ?std.net.Address,
        accepted_ms: u64,
    };

    /// Takes over the socket of somebody who is counted in the limits.
    pub fn connect(loop: *Loop, newcomer: Newcomer) void {
        const server = loop.server;
        const connection = Connection.create(loop, newcomer) catch |err| {
            server.limits.leave(limits.source(newcomer.client), false);
            return loop.refuse(.warning, newcomer.client, @errorName(err));
        };
        Counters.add(&server.events.counters.accepted_total, 1);
        Counters.add(&server.events.counters.connections, 1);
        var buffer: [address_max]u8 = undefined;
        connection.emit(.debug, "accepted", .{
            .proxy = if (newcomer.proxy) |it| @as(?[]const u8, addressText(it, &buffer)) else null,
        });
        loop.queue(connection);
    }

    pub fn refuse(
        loop: *Loop,
        level: events.Level,
        peer: std.net.Address,
        reason: []const u8,
    ) void {
        const known = std.meta.stringToEnum(reasons.Refusal, reason);
        loop.server.events.counters.refused(known orelse .resources);
        var buffer: [address_max]u8 = undefined;
        loop.server.events.emit(level, "refused", .{
            .address = addressText(peer, &buffer),
            .reason = reason,
        });
    }

    // ------------------------------------------------------------ slots

    pub const ReservedSlot = struct { index: u24, generation: u24 };

    /// A place for a connection, to be filled or left as it is. Makes room for everything that
    /// must not fail later.
    pub fn reserveSlot(loop: *Loop) error{ OutOfMemory, TooMany }!ReservedSlot {
        const allocator = loop.server.allocator;
        if (loop.free.items.len == 0) {
            const index = loop.slots.items.len;
            if (index >= connections_max) return error.TooMany;
            try loop.free.ensureTotalCapacity(allocator, index + 1);
            // A connection can be queued once while the list is worked off and once more.
            try loop.queued.ensureTotalCapacity(allocator, 2 * (index + 1));
            try loop.slots.append(allocator, .{ .generation = 0, .connection = null });
            loop.free.appendAssumeCapacity(@intCast(index));
        }
        const index = loop.free.items[loop.free.items.len - 1];
        return .{ .index = index, .generation = loop.slots.items[index].generation };
    }

    pub fn fillSlot(loop: *Loop, index: u24, connection: *Connection) void {
        const popped = loop.free.pop().?;
        std.debug.assert(popped == index);
        loop.slots.items[index].connection = connection;
        loop.live += 1;
    }

    pub fn releaseSlot(loop: *Loop, index: u24) void {
        const slot = &loop.slots.items[index];
        slot.connection = null;
        slot.generation +%= 1;
        loop.free.appendAssumeCapacity(index);
        loop.live -= 1;
    }

    /// Room for a whole wide window; hardly ever touched, so it takes no memory.
    pub fn wideBuffer(loop: *Loop) ?[]u8 {
        if (loop.wide_buffer.len == 0) {
            loop.wide_buffer = loop.server.allocator.alloc(u8, old_libssh.wide_window) catch {
                return null;
            };
        }
        return loop.wide_buffer;
    }

    // ------------------------------------------------------------ decisions

    pub fn mailbox(loop: *Loop) decisions.Mailbox {
        return .{ .context = loop, .deliver = deliver };
    }

    /// On the thread that answers.
    fn deliver(context: *anyopaque, answer: decisions.Answer) void {
        const loop: *Loop = @ptrCast(@alignCast(context));
        {
            loop.mutex.lock();
            defer loop.mutex.unlock();
            // Lost for want of memory: soon after the deadline the asker takes it for a no.
            loop.answers.append(loop.server.allocator, answer) catch return;
        }
        loop.waker.wake();
    }

    fn deliverAnswers(loop: *Loop) void {
        {
            loop.mutex.lock();
            defer loop.mutex.unlock();
            std.mem.swap(@TypeOf(loop.answers), &loop.answers, &loop.delivering);
        }
        defer loop.delivering.clearRetainingCapacity();
        for (loop.delivering.items) |answer| {
            const token: Token = @bitCast(answer.token);
            const connection = loop.find(token) orelse continue;
            switch (token.kind) {
                .authenticate => auth.decided(connection, answer),
                .authorize => if (connection.channelAt(token.number)) |channel| {
                    channel.decided(answer.id, answer.allow);
                },
                else => unreachable, // never asked with
            }
            loop.queue(connection);
        }
    }
};

/// Longest text of an address, with room to spare.
pub const address_max = 80;

/// An address without its port.
pub fn addressText(peer: std.net.Address, buffer: *[address_max]u8) []const u8 {
    var writer = std.Io.Writer.fixed(buffer);
    networks.unmapped(peer).format(&writer) catch {}; // longer than any address
    const text = writer.buffered();
    const end = std.mem.lastIndexOfScalar(u8, text, ':') orelse text.len; // the port
    return std.mem.trim(u8, text[0..end], "[]");
}

pub fn monotonicMs() u64 {
    const time = posix.clock_gettime(.MONOTONIC) catch unreachable; // every system has it
    return @as(u64, @intCast(time.sec)) * 1000 + @as(u64, @intCast(time.nsec)) / 1_000_000;
}
