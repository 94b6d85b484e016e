//! One client: key exchange, authentication (auth.zig), then its channels. Lives on one loop
//! thread. libssh's session has an event of its own: one shared by many sessions is slow and, when
//! a session ends, postpones the others.

const std = @import("std");
const posix = std.posix;
const libssh = @import("libssh.zig");
const auth = @import("auth.zig");
const descriptor = @import("descriptor.zig");
const events = @import("events.zig");
const limits = @import("limits.zig");
const public_key = @import("public_key.zig");
const reasons = @import("reasons.zig");
const key_table = @import("key_table.zig");
const Channel = @import("channel.zig").Channel;
const Loop = @import("loop.zig").Loop;
const Token = @import("loop.zig").Token;
const address_max = @import("loop.zig").address_max;
const addressText = @import("loop.zig").addressText;
const Watch = @import("poller.zig").Watch;
const Counters = events.Counters;

/// What a client may send before it is authenticated, in packets and bytes. OpenSSH with six RSA
/// keys needs a tenth of it.
const pre_auth_packets_max = 300;
const pre_auth_bytes_max = 512 * 1024;
/// Times a connection is served before the others get their turn.
const rounds_max = 4;
/// Reads from the socket in one round; libssh 0.10 takes 4 KB at a time.
const reads_per_round = 32;
/// Answers of libssh's own that may wait for a client to read them: libssh keeps them without a
/// limit, for a client that asks on and on without reading. Real ones have a few on their way.
const unread_answers_max = 10_000;
/// While a key exchange that the server began waits for the client, they wait where nobody can see
/// them. A probe, a keepalive after so many packets of the client, tells: then it waits as well.
const packets_per_probe = 4096;
const probes_held_max = 4;

const EndReason = reasons.End;

pub const Connection = struct {
    loop: *Loop,
    index: u24,
    generation: u24,
    /// Unique in the process.
    id: u64,
    session: *libssh.Session,
    event: *libssh.Event,
    /// A duplicate of the session's socket: libssh closes its own, and a just started child may
    /// keep that alive in epoll for a moment, which would then report a freed connection.
    watch: Watch,
    source: limits.Source,
    address_buffer: [address_max]u8 = undefined,
    address_len: usize = 0,

    state: State = .kex,
    event_has_session: bool = false,
    socket_ready: bool = true,
    /// A libssh callback or a pump did something: look again.
    activity: bool = false,
    is_queued: bool = false,
    ending: ?EndReason = null,
    end_detail: ?[]const u8 = null,

    authentication: auth.Authentication = .{},
    principal: key_table.Principal = .{},
    fingerprint: public_key.Fingerprint = undefined,
    key_digest: public_key.Digest = undefined,
    from_table: bool = false,

    server_callbacks: libssh.ServerCallbacks = .{},
    /// Holes are free numbers.
    channels: std.ArrayListUnmanaged(?*Channel) = .empty,
    has_executed: bool = false,

    socket_counter: libssh.Counter = .{},
    packet_counter: libssh.Counter = .{},
    /// Packets that libssh wrote while it read, since all it had was last sent.
    unread_answers: u64 = 0,
    /// The client's packets at the last probe, and how many probes have not left libssh.
    probed_packets: u64 = 0,
    probes_held: u32 = 0,
    accepted_ms: u64,
    authenticated_ms: u64 = 0,
    /// When the last git ended.
    last_work_ms: u64 = 0,
    last_heard_ms: u64,
    last_heard_bytes: u64 = 0,
    keepalives_missed: u32 = 0,
    last_keepalive_ms: u64 = 0,

    const State = enum { kex, auth, open };

    /// Takes over `fd`, in failure too. The caller has counted the connection in `limits`.
    pub fn create(loop: *Loop, newcomer: Loop.Newcomer) !*Connection {
        const fd = newcomer.fd;
        var owned_fd: ?posix.fd_t = fd;
        errdefer if (owned_fd) |it| posix.close(it);
        descriptor.noDelay(fd);
        const connection = try loop.server.allocator.create(Connection);
        errdefer loop.server.allocator.destroy(connection);
        const session = libssh.ssh_new() orelse return error.OutOfMemory;
        errdefer libssh.ssh_free(session);
        const event = libssh.ssh_event_new() orelse return error.OutOfMemory;
        errdefer libssh.ssh_event_free(event);
        const watched_fd = try descriptor.duplicate(fd, 3);
        errdefer posix.close(watched_fd);
        try configure(session, loop);
        // From here on the socket belongs to the session, even if this fails.
        owned_fd = null;
        if (libssh.ssh_bind_accept_fd(loop.bind, session, fd) != libssh.OK) {
            return error.SessionRefused;
        }
        libssh.ssh_set_blocking(session, 0);
        const slot = try loop.reserveSlot();
        connection.* = .{
            .loop = loop,
            .index = slot.index,
            .generation = slot.generation,
            .id = loop.server.nextConnectionId(),
            .session = session,
            .event = event,
            .watch = .{ .fd = watched_fd, .token = undefined },
            .source = limits.source(newcomer.client),
            .accepted_ms = newcomer.accepted_ms,
            .last_heard_ms = loop.now_ms,
        };
        connection.watch.token = connection.token(.socket, 0);
        connection.setAddress(newcomer.client);
        libssh.ssh_set_counters(
            session,
            &connection.socket_counter,
            &connection.packet_counter,
        );
        libssh.ssh_set_auth_methods(session, libssh.AUTH_METHOD_PUBLICKEY);
        loop.fillSlot(slot.index, connection);
        return connection;
    }

    fn configure(session: *libssh.Session, loop: *Loop) !void {
        const config = &loop.server.config;
        const none: [*:0]const u8 = "none";
        for ([_]c_int{ libssh.OPTIONS_COMPRESSION_C_S, libssh.OPTIONS_COMPRESSION_S_C }) |option| {
            if (libssh.ssh_options_set(session, option, none) != 0) return error.SessionRefused;
        }
        if (config.rekey_bytes > 0) {
            const bytes: u64 = config.rekey_bytes;
            const result = libssh.ssh_options_set(session, libssh.OPTIONS_REKEY_DATA, &bytes);
            if (result != 0) return error.SessionRefused;
        }
        if (config.rekey_s > 0) {
            const seconds: u32 = config.rekey_s;
            const result = libssh.ssh_options_set(session, libssh.OPTIONS_REKEY_TIME, &seconds);
            if (result != 0) return error.SessionRefused;
        }
    }

    fn setAddress(connection: *Connection, peer: std.net.Address) void {
        var buffer: [address_max]u8 = undefined;
        const text = addressText(peer, &buffer);
        @memcpy(connection.address_buffer[0..text.len], text);
        connection.address_len = text.len;
    }

    pub fn address(connection: *const Connection) []const u8 {
        return connection.address_buffer[0..connection.address_len];
    }

    pub fn allocator(connection: *const Connection) std.mem.Allocator {
        return connection.loop.server.allocator;
    }

    pub fn counters(connection: *const Connection) *Counters {
        return &connection.loop.server.events.counters;
    }

    pub fn token(connection: *const Connection, kind: Token.Kind, number: u12) u64 {
        return @bitCast(Token{
            .index = connection.index,
            .generation = connection.generation,
            .number = number,
            .kind = kind,
        });
    }

    pub fn emit(
        connection: *const Connection,
        level: events.Level,
        event: []const u8,
        fields: anytype,
    ) void {
        const Common = struct { connection: u64, address: []const u8 };
        const common: Common = .{ .connection = connection.id, .address = connection.address() };
        connection.loop.server.events.emitWith(level, event, common, fields);
    }

    pub fn principalText(connection: *const Connection) ?[]const u8 {
        return if (connection.state == .open) connection.principal.slice() else null;
    }

    /// The connection will end after this round. The first reason counts.
    pub fn end(connection: *Connection, reason: EndReason, detail: ?[]const u8) void {
        if (connection.ending != null) return;
        connection.ending = reason;
        connection.end_detail = detail;
    }

    /// libssh wants to be called when the socket takes bytes, to send some or to know that it may.
    pub fn isWritePending(connection: *const Connection) bool {
        return libssh.ssh_get_poll_flags(connection.session) & libssh.WRITE_PENDING != 0;
    }

    /// libssh has bytes that the socket has not taken.
    fn hasUnsent(connection: *const Connection) bool {
        return libssh.ssh_get_status(connection.session) & libssh.WRITE_PENDING != 0;
    }

    // ------------------------------------------------------------ work

    /// Does all that can be done without waiting. false: the connection has ended and is gone.
    pub fn serve(connection: *Connection) bool {
        var rounds: usize = 0;
        while (rounds < rounds_max) : (rounds += 1) {
            connection.activity = false;
            connection.advance();
            if (connection.ending == null and connection.state == .open) connection.pumpChannels();
            if (connection.ending == null) connection.checkCaps();
            if (connection.ending != null) {
                connection.destroy();
                return false;
            }
            if (!connection.activity) break;
        } else connection.loop.queue(connection);
        const is_pending = connection.authentication.isPending();
        connection.watch.set(&connection.loop.poller, .{
            .read = !is_pending,
            // libssh is not called while a decision is awaited, but to send what there is.
            .write = if (is_pending) connection.hasUnsent() else connection.isWritePending(),
        }) catch {
            connection.end(.resources, "cannot watch the socket");
            connection.loop.queue(connection);
        };
        return true;
    }

    fn advance(connection: *Connection) void {
        if (connection.socket_ready) descriptor.quickAck(connection.watch.fd);
        switch (connection.state) {
            .kex => connection.exchangeKeys(),
            .auth => {
                if (connection.authentication.isPending() and !connection.hasUnsent()) return;
                auth.readMessages(connection);
            },
            .open => if (connection.socket_ready) connection.readSocket(),
        }
    }

    fn exchangeKeys(connection: *Connection) void {
        const session = connection.session;
        const result = libssh.ssh_handle_key_exchange(session);
        if (!connection.event_has_session) {
            // The session has a poll handle only after the first call above.
            const added = libssh.ssh_event_add_session(connection.event, session);
            connection.event_has_session = added == libssh.OK;
            if (added != libssh.OK) return connection.end(.resources, "ssh_event_add_session");
        }
        switch (result) {
            libssh.OK => {
                connection.state = .auth;
                connection.activity = true;
            },
            libssh.AGAIN => {},
            else => connection.end(
                if (connection.packet_counter.in_packets == 0) .protocol else .kex,
                connection.sessionError(),
            ),
        }
    }

    fn readSocket(connection: *Connection) void {
        for (0..reads_per_round) |_| {
            const sent = connection.packet_counter.out_packets;
            const result = libssh.ssh_event_dopoll(connection.event, 0);
            if (connection.endIfLost(result)) return;
            connection.checkAnswers(connection.packet_counter.out_packets - sent);
            if (connection.ending != null) return;
            if (result == libssh.AGAIN) {
                connection.socket_ready = false;
                return;
            }
        }
        connection.activity = true; // there may be more
    }

    /// After a read during which libssh wrote `count` packets.
    fn checkAnswers(connection: *Connection, count: u64) void {
        connection.unread_answers += count;
        if (!connection.hasUnsent()) connection.unread_answers = 0;
        if (connection.unread_answers > unread_answers_max) {
            return connection.end(.protocol, "answers are not read");
        }
        const counter = &connection.packet_counter;
        if (counter.in_packets - connection.probed_packets < packets_per_probe) return;
        connection.probed_packets = counter.in_packets;
        const sent = counter.out_packets;
        // Held back in a key exchange, like every answer; ended by the socket where it fails.
        _ = libssh.ssh_send_keepalive(connection.session);
        connection.probes_held = if (counter.out_packets == sent) connection.probes_held + 1 else 0;
        if (connection.probes_held > probes_held_max) {
            connection.end(.protocol, "the key exchange is not answered");
        }
    }

    /// After a poll of the session with this result: true when the session is over.
    pub fn endIfLost(connection: *Connection, polled: c_int) bool {
        const session = connection.session;
        if (polled == libssh.ERROR or libssh.ssh_is_connected(session) == 0) {
            connection.end(.client, connection.sessionError());
        } else if (libssh.ssh_get_status(session) & libssh.CLOSED_ERROR != 0) {
            // A packet that is not allowed now: libssh keeps the socket but reads no more.
            connection.end(.protocol, connection.sessionError());
        } else return false;
        return true;
    }

    pub fn sessionError(connection: *Connection) ?[]const u8 {
        const text = std.mem.span(libssh.ssh_get_error(connection.session));
        return if (text.len == 0) null else text;
    }

    fn pumpChannels(connection: *Connection) void {
        // By index: libssh reads while a channel is pumped, and the client may open more of them,
        // which moves the list.
        var number: usize = 0;
        while (number < connection.channels.items.len) : (number += 1) {
            const channel = connection.channels.items[number] orelse continue;
            if (channel.pump()) continue;
            channel.destroy();
            connection.channels.items[number] = null;
            connection.activity = true;
        }
    }

    /// Ends a client that has sent too much for one that is not authenticated.
    pub fn checkCaps(connection: *Connection) void {
        if (connection.state == .open) return;
        const too_much = connection.packet_counter.in_packets > pre_auth_packets_max or
            connection.socket_counter.in_bytes > pre_auth_bytes_max;
        if (too_much) connection.end(.pre_auth_limit, null);
    }

    // ------------------------------------------------------------ channels

    /// The client is in: from now on libssh hands out channels through callbacks.
    pub fn open(connection: *Connection) void {
        connection.state = .open;
        connection.activity = true;
        connection.authenticated_ms = connection.loop.now_ms;
        connection.last_work_ms = connection.loop.now_ms;
        connection.server_callbacks = .{
            .userdata = connection,
            .channel_open_request_session = onChannelOpen,
        };
        libssh.ssh_set_message_callback(connection.session, onOtherRequest, connection);
        const result = libssh.ssh_set_server_callbacks(
            connection.session,
            &connection.server_callbacks,
        );
        if (result != libssh.OK) connection.end(.resources, "ssh_set_server_callbacks");
    }

    fn onChannelOpen(_: *libssh.Session, userdata: ?*anyopaque) callconv(.c) ?*libssh.Channel {
        const connection: *Connection = @ptrCast(@alignCast(userdata.?));
        connection.activity = true;
        return connection.openChannel() catch |err| {
            connection.noteRefusedRequest(switch (err) {
                error.Stopping => "session (stopping)",
                error.TooManyChannels => "session (max_channels)",
                error.OutOfMemory => "session (memory)",
            });
            return null;
        };
    }

    fn openChannel(connection: *Connection) !*libssh.Channel {
        if (connection.loop.server.isStopping()) return error.Stopping;
        const number = connection.freeNumber() orelse {
            if (connection.channels.items.len >= connection.loop.server.config.max_channels) {
                return error.TooManyChannels;
            }
            try connection.channels.append(connection.allocator(), null);
            return connection.openChannel();
        };
        const ssh = libssh.ssh_channel_new(connection.session) orelse return error.OutOfMemory;
        errdefer libssh.ssh_channel_free(ssh);
        connection.channels.items[number] = try Channel.create(connection, number, ssh);
        return ssh;
    }

    fn freeNumber(connection: *const Connection) ?u12 {
        for (connection.channels.items, 0..) |slot, number| {
            if (slot == null) return @intCast(number);
        }
        return null;
    }

    /// Everything that has no callback: pty, X11, agent, forwarding, subsystems. 1 lets libssh
    /// refuse it.
    fn onOtherRequest(
        _: *libssh.Session,
        message: *libssh.Message,
        userdata: ?*anyopaque,
    ) callconv(.c) c_int {
        const connection: *Connection = @ptrCast(@alignCast(userdata.?));
        const subtype = libssh.ssh_message_subtype(message);
        connection.noteRefusedRequest(switch (libssh.ssh_message_type(message)) {
            libssh.REQUEST_CHANNEL => switch (subtype) {
                1 => "pty-req",
                5 => "subsystem",
                7 => "x11-req",
                else => "channel request",
            },
            libssh.REQUEST_CHANNEL_OPEN => switch (subtype) {
                2 => "direct-tcpip",
                3 => "forwarded-tcpip",
                4 => "x11",
                5 => "auth-agent",
                else => "channel open",
            },
            libssh.REQUEST_GLOBAL => return 1, // such as keepalive@openssh.com, or forwarding
            else => "other",
        });
        return 1;
    }

    pub fn noteRefusedRequest(connection: *Connection, request: []const u8) void {
        connection.emit(.info, "request_refused", .{
            .request = request,
            .principal = connection.principalText(),
        });
    }

    pub fn channelAt(connection: *Connection, number: u12) ?*Channel {
        if (number >= connection.channels.items.len) return null;
        return connection.channels.items[number];
    }

    pub fn isBusy(connection: *const Connection) bool {
        for (connection.channels.items) |slot| {
            if (slot) |channel| if (channel.isBusy()) return true;
        }
        return false;
    }

    fn isOwing(connection: *const Connection) bool {
        for (connection.channels.items) |slot| {
            if (slot) |channel| if (channel.isOwing()) return true;
        }
        return false;
    }

    // ------------------------------------------------------------ time

    /// Called a few times a second; `serve` follows when something is to be done.
    pub fn checkTimers(connection: *Connection) void {
        const config = &connection.loop.server.config;
        const now_ms = connection.loop.now_ms;
        if (connection.loop.server.isStopping() and !connection.isOwing()) {
            return connection.end(.stopping, null);
        }
        if (connection.state != .open) {
            if (now_ms - connection.accepted_ms >= @as(u64, config.login_grace_s) * 1000) {
                return connection.end(.login_grace, null);
            }
            return auth.checkTimers(connection);
        }
        for (connection.channels.items) |slot| {
            if (slot) |channel| channel.checkTimers(now_ms);
        }
        connection.checkKeepalive(now_ms);
        if (connection.isBusy()) return;
        if (!connection.has_executed) {
            const over = isOver(connection.authenticated_ms, config.exec_grace_s, now_ms);
            if (over) return connection.end(.exec_grace, null);
        }
        const idle = isOver(connection.last_work_ms, config.idle_timeout_s, now_ms);
        if (idle) connection.end(.idle, null);
    }

    fn isOver(since_ms: u64, limit_s: u32, now_ms: u64) bool {
        return limit_s > 0 and now_ms - since_ms >= @as(u64, limit_s) * 1000;
    }

    fn checkKeepalive(connection: *Connection, now_ms: u64) void {
        const config = &connection.loop.server.config;
        if (connection.socket_counter.in_bytes != connection.last_heard_bytes) {
            connection.last_heard_bytes = connection.socket_counter.in_bytes;
            connection.last_heard_ms = now_ms;
            connection.keepalives_missed = 0;
        }
        const since_ms = @max(connection.last_heard_ms, connection.last_keepalive_ms);
        if (!isOver(since_ms, config.keepalive_s, now_ms)) return;
        if (connection.keepalives_missed >= config.keepalive_count) {
            return connection.end(.keepalive, null);
        }
        connection.keepalives_missed += 1;
        connection.last_keepalive_ms = now_ms;
        // A failure means that the session is lost, which the socket will tell.
        _ = libssh.ssh_send_keepalive(connection.session);
        connection.activity = true;
    }

    // ------------------------------------------------------------ the end

    /// Ends everything and frees `connection`.
    pub fn destroy(connection: *Connection) void {
        const loop = connection.loop;
        const session = connection.session;
        const reason = connection.ending orelse .stopping;
        connection.noteEnd(reason);
        auth.deinit(connection);
        for (connection.channels.items) |slot| {
            const channel = slot orelse continue;
            _ = libssh.ssh_remove_channel_callbacks(channel.ssh, &channel.callbacks);
            channel.destroy();
        }
        connection.channels.deinit(connection.allocator());
        connection.watch.close(&loop.poller);
        if (reason != .client) {
            _ = libssh.ssh_session_set_disconnect_message(session, farewell(reason));
            libssh.ssh_disconnect(session);
        }
        if (connection.event_has_session) {
            _ = libssh.ssh_event_remove_session(connection.event, session);
        }
        libssh.ssh_event_free(connection.event);
        libssh.ssh_free(session);
        loop.server.limits.leave(connection.source, connection.state == .open);
        Counters.sub(&connection.counters().connections, 1);
        if (connection.state == .open) Counters.sub(&connection.counters().authenticated, 1);
        loop.releaseSlot(connection.index);
        loop.server.allocator.destroy(connection);
    }

    fn noteEnd(connection: *Connection, reason: EndReason) void {
        var buffer: [events.printable_max]u8 = undefined;
        const detail = if (connection.end_detail) |text| events.printable(text, &buffer) else null;
        const level: events.Level = switch (reason) {
            .client, .stopping, .idle, .exec_grace => .info,
            else => .warning,
        };
        connection.counters().disconnected_by_reason.add(reason);
        connection.emit(level, "disconnected", .{
            .reason = @as([]const u8, @tagName(reason)),
            .principal = connection.principalText(),
            .detail = detail,
            .duration_ms = connection.loop.now_ms - connection.accepted_ms,
        });
    }

    fn farewell(reason: EndReason) [*:0]const u8 {
        return switch (reason) {
            .max_auth_tries => "Too many authentication failures",
            .login_grace => "Login took too long",
            .exec_grace, .idle => "Idle for too long",
            .keepalive => "No answer to keepalives",
            .stopping => "The server is shutting down",
            .resources => "The server is out of resources",
            .pre_auth_limit, .protocol, .window => "Protocol error",
            .client, .kex => "Bye",
        };
    }
};
