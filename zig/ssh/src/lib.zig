//! The C ABI and nothing else: null checks, the one server of the process, error texts. Each
//! export is described in include/plue_ssh.h.

const std = @import("std");
const libssh = @import("libssh.zig");
const config_module = @import("config.zig");
const decisions_module = @import("decisions.zig");
const events_module = @import("events.zig");
const key_table = @import("key_table.zig");
const keys_json = @import("keys_json.zig");
const public_key = @import("public_key.zig");
const pushes_module = @import("pushes.zig");
const server_module = @import("server.zig");
const version = @import("build_options").version;
const Server = server_module.Server;

const allocator = std.heap.c_allocator;
const record_max = events_module.record_max;

/// What outlives a server.
const State = struct {
    events: events_module.Events = .init(allocator),
    pushes: pushes_module.Pushes = .init(allocator),
    table: key_table.KeyTable = .init(allocator),
    callbacks: decisions_module.Callbacks = .{},

    /// Held while starting and stopping, never taken by a thread of the server.
    control: std.Thread.Mutex = .{},
    /// Guards what follows, for moments.
    mutex: std.Thread.Mutex = .{},
    config_json: ?[]u8 = null,
    server: ?*Server = null,
    /// Calls that use `server` right now; `stop` waits for them.
    users: u32 = 0,
    unused: std.Thread.Condition = .{},
};

var state: State = .{};

threadlocal var last_error: [1024]u8 = @splat(0);

fn fail(comptime format: []const u8, args: anytype) void {
    var writer = errorWriter();
    writer.print(format, args) catch {}; // a cut reason is still a reason
    endError(&writer);
}

fn errorWriter() std.Io.Writer {
    return .fixed(last_error[0 .. last_error.len - 1]);
}

fn endError(writer: *const std.Io.Writer) void {
    last_error[writer.end] = 0;
}

fn failMemory() void {
    fail("out of memory", .{});
}

/// The running server, held until `release`.
fn acquire() ?*Server {
    state.mutex.lock();
    defer state.mutex.unlock();
    if (state.server != null) state.users += 1;
    return state.server;
}

fn release() void {
    state.mutex.lock();
    defer state.mutex.unlock();
    state.users -= 1;
    if (state.users == 0) state.unused.broadcast();
}

fn span(text: ?[*:0]const u8, comptime name: []const u8) ?[:0]const u8 {
    if (text) |it| return std.mem.span(it);
    fail(name ++ " is NULL", .{});
    return null;
}

fn recordBuffer(buffer: ?[*]u8, capacity: u32) ?*[record_max]u8 {
    const out = buffer orelse {
        fail("the buffer is NULL", .{});
        return null;
    };
    if (capacity < record_max) {
        fail("the buffer has {d} bytes, PLUE_SSH_RECORD_MAX ({d}) are needed", .{
            capacity, record_max,
        });
        return null;
    }
    return out[0..record_max];
}

// ---------------------------------------------------------------- the server

export fn ssh_server_start(port: u16, host_key_path: ?[*:0]const u8) bool {
    const path = span(host_key_path, "host_key_path") orelse return false;
    if (server_module.in_server_thread) {
        fail("a server cannot be started from inside a callback", .{});
        return false;
    }
    if (!startServer(port, path)) return false;
    // With no lock held: the host may stop the server from there.
    state.events.tell();
    return true;
}

fn startServer(port: u16, path: [:0]const u8) bool {
    state.control.lock();
    defer state.control.unlock();
    if (acquire() != null) {
        release();
        fail("a server is running in this process already: stop it first", .{});
        return false;
    }
    const json = copyConfig() orelse return false;
    defer allocator.free(json);
    var writer = errorWriter();
    const server = Server.start(.{
        .allocator = allocator,
        .config_json = json,
        .port = port,
        .host_key_path = path,
        .table = &state.table,
        .events = &state.events,
        .pushes = &state.pushes,
        .callbacks = &state.callbacks,
    }, &writer) catch |err| {
        switch (err) {
            error.OutOfMemory => failMemory(),
            error.StartFailed => endError(&writer),
        }
        return false;
    };
    state.mutex.lock();
    defer state.mutex.unlock();
    state.server = server;
    return true;
}

fn copyConfig() ?[]u8 {
    state.mutex.lock();
    defer state.mutex.unlock();
    const json = state.config_json orelse {
        fail("not configured: call plue_ssh_configure with \"repositories\" first", .{});
        return null;
    };
    return allocator.dupe(u8, json) catch {
        failMemory();
        return null;
    };
}

export fn ssh_server_stop() void {
    if (server_module.in_server_thread) {
        // Waiting for itself would never end.
        const server = acquire() orelse return;
        defer release();
        return server.beginStop();
    }
    if (stopServer()) state.events.tell(); // with no lock held, as above
}

/// false: none runs.
fn stopServer() bool {
    state.control.lock();
    defer state.control.unlock();
    const server = acquire() orelse return false;
    release();
    server.finish(); // only `stop` frees it, and that is us
    {
        state.mutex.lock();
        defer state.mutex.unlock();
        state.server = null;
        while (state.users > 0) state.unused.wait(&state.mutex);
    }
    server.destroy();
    return true;
}

export fn plue_ssh_server_drain() bool {
    const server = acquire() orelse return true;
    defer release();
    server.beginStop();
    return server.isDrained();
}

export fn ssh_set_auth_callback(cb: ?decisions_module.AuthCallback) void {
    state.callbacks.auth.store(cb, .release);
}

export fn ssh_get_connection_count() u32 {
    return @intCast(state.events.counters.authenticated.load(.monotonic));
}

export fn plue_ssh_port() u16 {
    const server = acquire() orelse return 0;
    defer release();
    return server.port;
}

export fn plue_ssh_last_error() [*:0]const u8 {
    return @ptrCast(&last_error);
}

export fn plue_ssh_version() [*:0]const u8 {
    return version;
}

export fn plue_ssh_libssh_version() [*:0]const u8 {
    return libssh.ssh_version(0) orelse "unknown";
}

// ---------------------------------------------------------------- configuration

export fn plue_ssh_configure(json: ?[*:0]const u8) bool {
    const text = span(json, "json") orelse return false;
    var arena: std.heap.ArenaAllocator = .init(allocator);
    defer arena.deinit();
    var writer = errorWriter();
    _ = config_module.parse(arena.allocator(), text, &writer) catch |err| {
        switch (err) {
            error.OutOfMemory => failMemory(),
            error.BadConfig => endError(&writer),
        }
        return false;
    };
    const copy = allocator.dupe(u8, text) catch {
        failMemory();
        return false;
    };
    state.mutex.lock();
    defer state.mutex.unlock();
    if (state.config_json) |old| allocator.free(old);
    state.config_json = copy;
    return true;
}

// ---------------------------------------------------------------- key table

fn parseKey(line: [:0]const u8) ?public_key.PublicKey {
    return public_key.PublicKey.fromLine(line, 0) catch |err| {
        fail("{s}", .{keys_json.describe(err)});
        return null;
    };
}

export fn plue_ssh_keys_add(
    principal: ?[*:0]const u8,
    key_line: ?[*:0]const u8,
    rules: ?[*:0]const u8,
) bool {
    const name = key_table.Principal.init(span(principal, "principal") orelse return false) catch {
        fail("a principal is 1 to {d} bytes of UTF-8 without control characters", .{
            key_table.principal_max,
        });
        return false;
    };
    const key = parseKey(span(key_line, "key_line") orelse return false) orelse return false;
    const rule_text: ?[]const u8 = if (rules) |text| std.mem.span(text) else null;
    state.table.add(&name, &key, rule_text) catch |err| {
        switch (err) {
            error.OutOfMemory => failMemory(),
            error.OtherPrincipal => fail("the key belongs to another principal already", .{}),
            error.BadRule => fail("{s}", .{keys_json.bad_rule}),
            error.TableFull => fail("the table is full ({d} keys)", .{key_table.keys_max}),
        }
        return false;
    };
    return true;
}

export fn plue_ssh_keys_remove(key_line: ?[*:0]const u8) bool {
    const key = parseKey(span(key_line, "key_line") orelse return false) orelse return false;
    if (state.table.remove(&key)) return true;
    fail("the key is not in the table", .{});
    return false;
}

export fn plue_ssh_keys_replace(json: ?[*:0]const u8) bool {
    const text = span(json, "json") orelse return false;
    var draft = state.table.startDraft();
    defer draft.deinit();
    var writer = errorWriter();
    keys_json.parse(allocator, &draft, text, &writer) catch |err| {
        switch (err) {
            error.OutOfMemory => failMemory(),
            error.BadKeys => endError(&writer),
        }
        return false;
    };
    state.table.replace(&draft);
    return true;
}

export fn plue_ssh_keys_clear() void {
    state.table.clear();
}

export fn plue_ssh_keys_count() u32 {
    return state.table.count();
}

// ---------------------------------------------------------------- callbacks and queue

export fn plue_ssh_set_authenticate_callback(cb: ?decisions_module.AuthenticateCallback) void {
    state.callbacks.authenticate.store(cb, .release);
}

export fn plue_ssh_set_authorize_callback(cb: ?decisions_module.AuthorizeCallback) void {
    state.callbacks.authorize.store(cb, .release);
}

export fn plue_ssh_set_decision_notify(notify: ?events_module.Notify) void {
    state.callbacks.notify.store(notify, .release);
}

export fn plue_ssh_decision_next(json: ?[*]u8, capacity: u32) u32 {
    const out = recordBuffer(json, capacity) orelse return 0;
    out[0] = 0;
    const server = acquire() orelse return 0;
    defer release();
    const id, _ = server.decisions.next(out) orelse return 0;
    return id;
}

export fn plue_ssh_decision_reply(id: u32, allow: bool, principal: ?[*:0]const u8) bool {
    const server = acquire() orelse {
        fail("no server runs", .{});
        return false;
    };
    defer release();
    const name: []const u8 = if (principal) |text| std.mem.span(text) else "";
    server.decisions.reply(id, allow, name) catch |err| {
        switch (err) {
            error.UnknownId => fail("no such question, or it is answered or given up", .{}),
            error.BadPrincipal => fail("a principal is 1 to {d} bytes of UTF-8 without control " ++
                "characters", .{key_table.principal_max}),
        }
        return false;
    };
    return true;
}

// ---------------------------------------------------------------- pushes

export fn plue_ssh_set_push_notify(notify: ?events_module.Notify) void {
    state.pushes.notify.store(notify, .release);
}

export fn plue_ssh_push_next(json: ?[*]u8, capacity: u32) u32 {
    const out: []u8 = if (json) |it| it[0..capacity] else &.{};
    if (out.len > 0) out[0] = 0;
    return @intCast(state.pushes.next(out));
}

export fn plue_ssh_push_done(id: u32) bool {
    if (state.pushes.done(id)) return true;
    fail("{d} is not the oldest push, or it is done already", .{id});
    return false;
}

// ---------------------------------------------------------------- events and counters

export fn plue_ssh_event_next(json: ?[*]u8, capacity: u32) u32 {
    const out = recordBuffer(json, capacity) orelse return 0;
    out[0] = 0;
    const record = state.events.next(out) orelse return 0;
    return @intCast(record.len);
}

export fn plue_ssh_set_event_notify(notify: ?events_module.Notify) void {
    state.events.notify.store(notify, .release);
}

export fn plue_ssh_counters(json: ?[*]u8, capacity: u32) u32 {
    const out = recordBuffer(json, capacity) orelse return 0;
    var pending: u32 = 0;
    if (acquire()) |server| {
        defer release();
        pending = server.decisions.pendingCount();
    }
    var writer = std.Io.Writer.fixed(out[0 .. out.len - 1]);
    state.events.counters.write(.{
        .decisions_pending = pending,
        .keys = state.table.count(),
        .pushes_waiting = state.pushes.count(),
    }, &writer) catch unreachable; // some 120 integers are shorter than a record
    out[writer.end] = 0;
    return @intCast(writer.end);
}

const testing = std.testing;

test "every export is what the header says" {
    const header = @cImport(@cInclude("plue_ssh.h"));
    inline for (.{
        .{ "ssh_server_start", ssh_server_start },
        .{ "ssh_server_stop", ssh_server_stop },
        .{ "plue_ssh_server_drain", plue_ssh_server_drain },
        .{ "ssh_set_auth_callback", ssh_set_auth_callback },
        .{ "ssh_get_connection_count", ssh_get_connection_count },
        .{ "plue_ssh_port", plue_ssh_port },
        .{ "plue_ssh_last_error", plue_ssh_last_error },
        .{ "plue_ssh_version", plue_ssh_version },
        .{ "plue_ssh_libssh_version", plue_ssh_libssh_version },
        .{ "plue_ssh_configure", plue_ssh_configure },
        .{ "plue_ssh_keys_add", plue_ssh_keys_add },
        .{ "plue_ssh_keys_remove", plue_ssh_keys_remove },
        .{ "plue_ssh_keys_replace", plue_ssh_keys_replace },
        .{ "plue_ssh_keys_clear", plue_ssh_keys_clear },
        .{ "plue_ssh_keys_count", plue_ssh_keys_count },
        .{ "plue_ssh_set_authenticate_callback", plue_ssh_set_authenticate_callback },
        .{ "plue_ssh_set_authorize_callback", plue_ssh_set_authorize_callback },
        .{ "plue_ssh_set_decision_notify", plue_ssh_set_decision_notify },
        .{ "plue_ssh_decision_next", plue_ssh_decision_next },
        .{ "plue_ssh_decision_reply", plue_ssh_decision_reply },
        .{ "plue_ssh_set_push_notify", plue_ssh_set_push_notify },
        .{ "plue_ssh_push_next", plue_ssh_push_next },
        .{ "plue_ssh_push_done", plue_ssh_push_done },
        .{ "plue_ssh_event_next", plue_ssh_event_next },
        .{ "plue_ssh_set_event_notify", plue_ssh_set_event_notify },
        .{ "plue_ssh_counters", plue_ssh_counters },
    }) |pair| {
        const theirs = @typeInfo(@TypeOf(@field(header, pair[0]))).@"fn";
        const ours = @typeInfo(@TypeOf(pair[1])).@"fn";
        try testing.expect(sameKind(theirs.return_type.?, ours.return_type.?));
        try testing.expectEqual(theirs.params.len, ours.params.len);
        inline for (theirs.params, ours.params) |a, b| {
            try testing.expect(sameKind(a.type.?, b.type.?));
        }
    }
    try testing.expectEqual(record_max, header.PLUE_SSH_RECORD_MAX);
    try testing.expectEqual(key_table.principal_max, header.PLUE_SSH_PRINCIPAL_MAX);
}

/// Integers of one size and sign, or two pointers: a function to a function, bytes to bytes.
fn sameKind(comptime A: type, comptime B: type) bool {
    if (A == B) return true;
    return isPointer(A) and isPointer(B) and pointsToFunction(A) == pointsToFunction(B);
}

fn pointee(comptime T: type) type {
    return switch (@typeInfo(T)) {
        .optional => |it| pointee(it.child),
        .pointer => |it| it.child,
        else => void,
    };
}

fn isPointer(comptime T: type) bool {
    return pointee(T) != void;
}

fn pointsToFunction(comptime T: type) bool {
    return @typeInfo(pointee(T)) == .@"fn";
}

fn expectError(expected: []const u8) !void {
    try testing.expectEqualStrings(expected, std.mem.span(plue_ssh_last_error()));
}

test "NULL and nonsense are errors with a reason, never a crash" {
    try testing.expect(!ssh_server_start(0, null));
    try expectError("host_key_path is NULL");
    try testing.expect(!plue_ssh_configure(null));
    try expectError("json is NULL");
    try testing.expect(!plue_ssh_configure("{\"colour\": 1}"));
    try expectError("unknown key \"colour\"");
    try testing.expect(!ssh_server_start(0, "/nonexistent"));
    try expectError("not configured: call plue_ssh_configure with \"repositories\" first");
    try testing.expect(!plue_ssh_keys_add(null, null, null));
    try expectError("principal is NULL");
    try testing.expect(!plue_ssh_keys_add("alice", "ssh-ed25519 AAAA", null));
    try testing.expect(!plue_ssh_keys_add("alice", public_key.test_line, "all *"));
    try testing.expect(!plue_ssh_keys_remove(null));
    try testing.expect(!plue_ssh_keys_remove(public_key.test_line));
    try expectError("the key is not in the table");
    try testing.expect(!plue_ssh_keys_replace(null));
    try testing.expect(!plue_ssh_decision_reply(0, true, null));
    try expectError("no server runs");
    var small: [10]u8 = undefined;
    try testing.expectEqual(0, plue_ssh_event_next(&small, small.len));
    try expectError("the buffer has 10 bytes, PLUE_SSH_RECORD_MAX (32768) are needed");
    try testing.expectEqual(0, plue_ssh_decision_next(null, record_max));
    try testing.expectEqual(0, plue_ssh_counters(null, record_max));
    try testing.expect(plue_ssh_server_drain());
    try testing.expectEqual(0, plue_ssh_push_next(null, 0));
    try testing.expectEqual(0, plue_ssh_push_next(&small, small.len));
    try testing.expect(!plue_ssh_push_done(1));
    try expectError("1 is not the oldest push, or it is done already");
    ssh_server_stop();
    ssh_server_stop();
    try testing.expectEqual(0, plue_ssh_port());
    try testing.expectEqual(0, ssh_get_connection_count());
}

/// An empty folder, configured as that of the repositories.
const TestFolder = struct {
    tmp: testing.TmpDir,
    key_buffer: [std.fs.max_path_bytes]u8,

    /// Where the host key goes.
    fn configure(folder: *TestFolder) ![:0]const u8 {
        folder.tmp = testing.tmpDir(.{});
        errdefer folder.tmp.cleanup();
        var root_buffer: [std.fs.max_path_bytes]u8 = undefined;
        const root = try folder.tmp.dir.realpath(".", &root_buffer);
        var buffer: [2 * std.fs.max_path_bytes]u8 = undefined;
        const config = try std.fmt.bufPrintZ(&buffer, "{{\"repositories\": \"{s}\"}}", .{root});
        try testing.expect(plue_ssh_configure(config));
        return std.fmt.bufPrintZ(&folder.key_buffer, "{s}/host_key", .{root});
    }

    fn cleanup(folder: *TestFolder) void {
        allocator.free(state.config_json.?);
        state.config_json = null;
        folder.tmp.cleanup();
    }
};

test "a server starts, says where, refuses a second start, stops, and starts again" {
    var folder: TestFolder = undefined;
    const key = try folder.configure();
    defer folder.cleanup();
    for (0..2) |_| {
        try testing.expect(ssh_server_start(0, key));
        const port = plue_ssh_port();
        try testing.expect(port != 0);
        try testing.expect(!ssh_server_start(0, key));
        try expectError("a server is running in this process already: stop it first");
        const stream = try std.net.tcpConnectToHost(testing.allocator, "127.0.0.1", port);
        defer stream.close();
        var banner: [13]u8 = undefined;
        try testing.expectEqual(banner.len, try stream.readAtLeast(&banner, banner.len));
        try testing.expectEqualStrings("SSH-2.0-plue", banner[0..12]);
        ssh_server_stop();
        try testing.expectEqual(0, plue_ssh_port());
    }
    try testing.expect(ssh_server_start(0, key));
    while (!plue_ssh_server_drain()) std.Thread.sleep(std.time.ns_per_ms);
    ssh_server_stop();
    try testing.expect(ssh_server_start(0, key));
    defer ssh_server_stop();
    var record: [record_max]u8 = undefined;
    try testing.expect(plue_ssh_counters(&record, record_max) > 0);
    const text = std.mem.sliceTo(&record, 0);
    const counters = try std.json.parseFromSlice(std.json.Value, testing.allocator, text, .{});
    defer counters.deinit();
    try testing.expectEqual(2, counters.value.object.get("accepted_total").?.integer);
    try testing.expectEqual(0, counters.value.object.get("connections").?.integer);
}

test "a host that is told may stop the server" {
    const host = struct {
        var told: u32 = 0;

        fn notify() callconv(.c) void {
            told += 1;
            ssh_server_stop();
        }
    };
    var folder: TestFolder = undefined;
    const key = try folder.configure();
    defer folder.cleanup();
    plue_ssh_set_event_notify(host.notify);
    defer plue_ssh_set_event_notify(null);
    try testing.expect(ssh_server_start(0, key));
    try testing.expectEqual(0, plue_ssh_port());
    try testing.expectEqual(2, host.told); // that it listens, and that it has stopped
}

test "a start that fails leaves nothing running and names the cure" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var root_buffer: [std.fs.max_path_bytes]u8 = undefined;
    const root = try tmp.dir.realpath(".", &root_buffer);
    var key_buffer: [std.fs.max_path_bytes]u8 = undefined;
    const key = try std.fmt.bufPrintZ(&key_buffer, "{s}/host_key", .{root});
    defer {
        allocator.free(state.config_json.?);
        state.config_json = null;
    }
    const before = try std.posix.dup(0);
    std.posix.close(before);
    inline for (.{
        .{ "\"repositories\": \"/dev/null/none\"", "create the directory" },
        .{ "\"repositories\": \"/\", \"git\": \"no-such-git\"", "install git" },
        .{ "\"repositories\": \"/\", \"git\": \"/dev/null\"", "absolute path of an executable" },
        .{ "\"repositories\": \"/\", \"ciphers\": \"rot13\"", "have the algorithm \"rot13\"" },
        .{ "\"repositories\": \"/\", \"bind_address\": \"localhost\"", "numeric IP address" },
        .{ "\"repositories\": \"/\", \"bind_address\": \"192.0.2.1\"", "cannot bind" },
        .{ "\"repositories\": \"/\", \"host_keys\": [\"/no\"]", "cannot open the host key" },
    }) |case| {
        try testing.expect(plue_ssh_configure("{" ++ case[0] ++ "}"));
        try testing.expect(!ssh_server_start(0, key));
        const text = std.mem.span(plue_ssh_last_error());
        errdefer std.debug.print("{s}\n", .{text});
        try testing.expect(std.mem.indexOf(u8, text, case[1]) != null);
        try testing.expectEqual(0, plue_ssh_port());
    }
    try testing.expect(plue_ssh_configure("{\"repositories\": \"/\"}"));
    const taken = try std.net.Address.parseIp("127.0.0.1", 0);
    var listener = try taken.listen(.{});
    defer listener.deinit();
    try testing.expect(!ssh_server_start(listener.listen_address.getPort(), key));
    const text = std.mem.span(plue_ssh_last_error());
    try testing.expect(std.mem.indexOf(u8, text, "in use by another program") != null);
    listener.deinit();
    const after = try std.posix.dup(0);
    std.posix.close(after);
    listener = try taken.listen(.{});
    try testing.expectEqual(before, after);
}
