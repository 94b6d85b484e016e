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
const server_module = @import("server.zig");
const version = @import("version.zig").version;
const Server = server_module.Server;

const allocator = std.heap.c_allocator;
const record_max = events_module.record_max;

/// What outlives a server.
const State = struct {
    events: events_module.Events = .init(allocator),
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
    state.control.lock();
    defer state.control.unlock();
    const server = acquire() orelse return;
    release();
    server.finish(); // only `stop` frees it, and that is us
    {
        state.mutex.lock();
        defer state.mutex.unlock();
        state.server = null;
        while (state.users > 0) state.unused.wait(&state.mutex);
    }
    server.destroy();
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
            error.UnknownId => fail("no such question, or it was answered or given up already", .{}),
            error.BadPrincipal => fail("a principal is 1 to {d} bytes of UTF-8 without control " ++
                "characters", .{key_table.principal_max}),
        }
        return false;
    };
    return true;
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
    }, &writer) catch unreachable; // 17 integers are shorter than a record
    out[writer.end] = 0;
    return @intCast(writer.end);
}
