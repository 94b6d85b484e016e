//! Authentication of one connection by public key. The identity comes only from the message whose
//! signature libssh has verified: nothing of what a client merely offered is kept.

const std = @import("std");
const libssh = @import("libssh.zig");
const events = @import("events.zig");
const decisions = @import("decisions.zig");
const key_table = @import("key_table.zig");
const public_key = @import("public_key.zig");
const reasons = @import("reasons.zig");
const Connection = @import("connection.zig").Connection;
const Counters = events.Counters;

/// Offers of a key without a signature that are answered. Together with the tries they bound
/// what a stranger can make the server do.
const offers_max = 100;
/// Messages that are answered before other connections get their turn.
const messages_per_round = 32;

pub const Authentication = struct {
    /// A verified key whose owner waits for the host's decision.
    pending: ?Pending = null,
    /// The last message of the client that can carry a refusal: libssh drops requests it cannot
    /// read, or whose signature is wrong, without an answer, and we answer in its place.
    last: ?*libssh.Message = null,
    /// Requests that libssh has read and not handed out: they are still in its queue, or swallowed.
    held: u32 = 0,
    tries: u32 = 0,
    offers: u32 = 0,

    const Pending = struct {
        decision: decisions.Pending,
        message: *libssh.Message,
        key: public_key.PublicKey,
    };

    pub fn isPending(authentication: *const Authentication) bool {
        return authentication.pending != null;
    }
};

/// Counts the authentication requests that libssh has read in this thread, by its log.
threadlocal var requests_read: u32 = 0;

/// For ssh_set_log_callback, in each loop thread. The level is above "no log" only while a
/// connection authenticates.
pub fn onLog(
    _: c_int,
    function: [*:0]const u8,
    text: [*:0]const u8,
    _: ?*anyopaque,
) callconv(.c) void {
    if (!std.mem.eql(u8, std.mem.span(function), "ssh_packet_userauth_request")) return;
    if (std.mem.indexOf(u8, std.mem.span(text), "Auth request for service") != null) {
        requests_read += 1;
    }
}

/// Reads from the socket and answers what came, until there is no more, a decision is awaited or
/// others get their turn.
pub fn readMessages(connection: *Connection) void {
    const authentication = &connection.authentication;
    requests_read = 0;
    _ = libssh.ssh_set_log_level(libssh.LOG_PACKET);
    defer _ = libssh.ssh_set_log_level(libssh.LOG_NOLOG);
    const polled = libssh.ssh_event_dopoll(connection.event, 0);
    const is_queue_empty = answerQueued(connection);
    if (connection.state == .open) return; // what is left comes through callbacks now
    if (connection.endIfLost(polled)) return;
    if (!is_queue_empty) return;
    while (authentication.held > 0 and connection.ending == null) : (authentication.held -= 1) {
        refuseUnread(connection);
    }
}

/// true: libssh has handed out all that it will.
fn answerQueued(connection: *Connection) bool {
    const authentication = &connection.authentication;
    var handed_out: u32 = 0;
    defer authentication.held = (authentication.held + requests_read) -| handed_out;
    for (0..messages_per_round) |_| {
        if (authentication.isPending()) return false;
        // Reads the socket once more when nothing is queued: never blocks, but may never end.
        const message = libssh.ssh_message_get(connection.session) orelse return true;
        if (libssh.ssh_message_type(message) == libssh.REQUEST_AUTH) handed_out += 1;
        answer(connection, message);
        connection.checkCaps();
        if (connection.state != .auth or connection.ending != null) return false;
    }
    connection.activity = true;
    return false;
}

/// What touched.c says, in a libssh that was built with it.
const not_touched_text = "security key was not touched";

/// Answers a request that libssh has swallowed: an unreadable key, or a wrong signature.
fn refuseUnread(connection: *Connection) void {
    const detail = connection.sessionError();
    const reason: reasons.AuthFailure = if (std.mem.eql(u8, detail orelse "", not_touched_text))
        .not_touched
    else
        .bad_signature;
    connection.counters().authFailed(reason);
    var buffer: [events.printable_max]u8 = undefined;
    connection.emit(.warning, "auth_failed", .{
        .reason = @as([]const u8, @tagName(reason)),
        .detail = if (detail) |text| @as(?[]const u8, events.printable(text, &buffer)) else null,
    });
    countTry(connection);
    if (connection.ending != null) return;
    if (connection.authentication.last) |last| {
        reply(connection, libssh.ssh_message_reply_default(last));
    } else {
        // The very first request: there is no message to answer with. Most clients ask for the
        // methods first.
        connection.end(.protocol, "unreadable key or wrong signature");
    }
}

/// Takes over `message`.
fn answer(connection: *Connection, message: *libssh.Message) void {
    const authentication = &connection.authentication;
    switch (libssh.ssh_message_type(message)) {
        libssh.REQUEST_SERVICE => {
            defer libssh.ssh_message_free(message);
            const service = libssh.ssh_message_service_service(message);
            if (service == null or !std.mem.eql(u8, std.mem.span(service.?), "ssh-userauth")) {
                return connection.end(.protocol, "unknown service");
            }
            reply(connection, libssh.ssh_message_service_reply_success(message));
        },
        libssh.REQUEST_AUTH => {
            const keep = answerRequest(connection, message);
            if (!keep) {
                if (authentication.last) |last| libssh.ssh_message_free(last);
                authentication.last = message;
            }
        },
        else => {
            defer libssh.ssh_message_free(message);
            countTry(connection);
            reply(connection, libssh.ssh_message_reply_default(message));
        },
    }
}

/// true: the message is kept until the decision.
fn answerRequest(connection: *Connection, message: *libssh.Message) bool {
    const user = std.mem.span(libssh.ssh_message_auth_user(message) orelse "");
    const method = libssh.ssh_message_subtype(message);
    if (method == libssh.AUTH_METHOD_NONE) {
        connection.authentication.offers += 1;
        refuse(connection, message, null, null);
        return false;
    }
    if (!std.mem.eql(u8, user, connection.loop.server.config.user)) {
        refuse(connection, message, .wrong_user, null);
        return false;
    }
    if (method != libssh.AUTH_METHOD_PUBLICKEY) {
        refuse(connection, message, .method, null);
        return false;
    }
    const rsa_min_bits = connection.loop.server.config.rsa_min_bits;
    const key = readKey(message, rsa_min_bits) catch |err| {
        refuse(connection, message, if (err == error.TooWeak) .weak_key else .key_type, null);
        return false;
    };
    return switch (libssh.ssh_message_auth_publickey_state(message)) {
        libssh.PUBLICKEY_STATE_NONE => offer(connection, message),
        libssh.PUBLICKEY_STATE_VALID => decide(connection, message, &key),
        else => {
            refuse(connection, message, .bad_signature, &key);
            return false;
        },
    };
}

fn readKey(message: *libssh.Message, rsa_min_bits: u32) public_key.Error!public_key.PublicKey {
    const ssh_key = libssh.ssh_message_auth_pubkey(message) orelse return error.Malformed;
    const name = libssh.ssh_key_type_to_char(libssh.ssh_key_type(ssh_key)) orelse "";
    // libssh exports a certificate as the key inside it.
    if (std.mem.indexOf(u8, std.mem.span(name), "-cert-") != null) return error.UnsupportedType;
    var text: ?[*:0]u8 = null;
    if (libssh.ssh_pki_export_pubkey_base64(ssh_key, &text) != libssh.OK) return error.Malformed;
    defer libssh.ssh_string_free_char(text.?);
    return public_key.PublicKey.fromBase64(std.mem.span(text.?), rsa_min_bits);
}

/// Every acceptable key may sign: nobody learns without one which keys are known here.
fn offer(connection: *Connection, message: *libssh.Message) bool {
    connection.authentication.offers += 1;
    if (connection.authentication.offers > offers_max) {
        connection.end(.max_auth_tries, null);
    } else {
        reply(connection, libssh.ssh_message_auth_reply_pk_ok_simple(message));
    }
    return false;
}

/// The client has proved that it owns `key`.
fn decide(
    connection: *Connection,
    message: *libssh.Message,
    key: *const public_key.PublicKey,
) bool {
    const server = connection.loop.server;
    if (server.table.lookup(key)) |principal| {
        grant(connection, message, key, principal, true);
        return false;
    }
    const route = server.authenticateRoute() orelse {
        refuse(connection, message, .unknown_key, key);
        return false;
    };
    const id = server.decisions.ask(route, .{
        .kind = .{ .authenticate = .{ .user = server.config.user, .key = key } },
        .fingerprint = public_key.fingerprint(&key.digest()),
        .address = connection.address(),
        .connection = connection.id,
    }, connection.loop.mailbox(), connection.token(.authenticate, 0)) catch {
        refuse(connection, message, .queue_full, key);
        return false;
    };
    connection.authentication.pending = .{
        .decision = .{
            .id = id,
            .deadline_ms = connection.loop.now_ms + server.config.decision_timeout_ms,
        },
        .message = message,
        .key = key.*,
    };
    return true;
}

/// The host's answer. `serve` follows.
pub fn decided(connection: *Connection, decision: decisions.Answer) void {
    const pending = if (connection.authentication.pending) |*it| it else return;
    if (pending.decision.id != decision.id) return;
    if (decision.allow) {
        if (decision.principal) |principal| {
            grant(connection, pending.message, &pending.key, principal, false);
        }
    } else {
        refuse(connection, pending.message, .denied, &pending.key);
    }
    forgetPending(connection);
}

pub fn checkTimers(connection: *Connection) void {
    const pending = if (connection.authentication.pending) |*it| it else return;
    if (!pending.decision.isOver(&connection.loop.server.decisions, connection.loop.now_ms)) return;
    Counters.add(&connection.counters().decisions_timeout_total, 1);
    refuse(connection, pending.message, .timeout, &pending.key);
    forgetPending(connection);
}

fn forgetPending(connection: *Connection) void {
    const authentication = &connection.authentication;
    if (authentication.last) |last| libssh.ssh_message_free(last);
    authentication.last = authentication.pending.?.message;
    authentication.pending = null;
    connection.activity = true;
    connection.socket_ready = true; // the client may have written meanwhile
}

/// `key` is the one whose signature was verified in `message`: the only source of an identity.
fn grant(
    connection: *Connection,
    message: *libssh.Message,
    key: *const public_key.PublicKey,
    principal: key_table.Principal,
    from_table: bool,
) void {
    const valid = libssh.ssh_message_auth_publickey_state(message) == libssh.PUBLICKEY_STATE_VALID;
    std.debug.assert(valid);
    connection.principal = principal;
    connection.key_digest = key.digest();
    connection.fingerprint = public_key.fingerprint(&connection.key_digest);
    connection.from_table = from_table;
    reply(connection, libssh.ssh_message_auth_reply_success(message, 0));
    if (connection.ending != null) return;
    connection.loop.server.limits.authenticated(connection.source);
    connection.open();
    Counters.add(&connection.counters().authenticated, 1);
    Counters.add(&connection.counters().authenticated_total, 1);
    connection.emit(.info, "authenticated", .{
        .user = @as([]const u8, connection.loop.server.config.user),
        .principal = connection.principalText(),
        .fingerprint = @as([]const u8, &connection.fingerprint),
        .key_type = key.type_name,
    });
}

/// `reason` null: the question "which methods are there", which is no failure.
fn refuse(
    connection: *Connection,
    message: *libssh.Message,
    reason: ?reasons.AuthFailure,
    key: ?*const public_key.PublicKey,
) void {
    if (reason) |text| {
        var buffer: [events.printable_max]u8 = undefined;
        const user = std.mem.span(libssh.ssh_message_auth_user(message) orelse "");
        noteFailure(connection, text, events.printable(user, &buffer), key);
        countTry(connection);
    } else if (connection.authentication.offers > offers_max) {
        connection.end(.max_auth_tries, null);
    }
    if (connection.ending == null) reply(connection, libssh.ssh_message_reply_default(message));
}

fn noteFailure(
    connection: *Connection,
    reason: reasons.AuthFailure,
    user: ?[]const u8,
    key: ?*const public_key.PublicKey,
) void {
    connection.counters().authFailed(reason);
    var fingerprint: public_key.Fingerprint = undefined;
    if (key) |it| fingerprint = public_key.fingerprint(&it.digest());
    connection.emit(.warning, "auth_failed", .{
        .reason = @as([]const u8, @tagName(reason)),
        .user = user,
        .fingerprint = if (key != null) @as(?[]const u8, &fingerprint) else null,
        .key_type = if (key) |it| @as(?[]const u8, it.type_name) else null,
    });
}

fn countTry(connection: *Connection) void {
    connection.authentication.tries += 1;
    if (connection.authentication.tries >= connection.loop.server.config.max_auth_tries) {
        connection.end(.max_auth_tries, null);
    }
}

fn reply(connection: *Connection, result: c_int) void {
    connection.activity = true;
    if (result == libssh.ERROR) connection.end(.client, connection.sessionError());
}

/// Cancels what is awaited and frees what is kept.
pub fn deinit(connection: *Connection) void {
    const authentication = &connection.authentication;
    if (authentication.pending) |pending| {
        _ = connection.loop.server.decisions.cancel(pending.decision.id);
        libssh.ssh_message_free(pending.message);
    }
    if (authentication.last) |last| libssh.ssh_message_free(last);
    authentication.* = .{};
}
