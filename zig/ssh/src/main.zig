//! The command line: serves the repositories of one directory until it is told to stop.

const std = @import("std");
const posix = std.posix;
const libssh = @import("libssh.zig");
const decisions = @import("decisions.zig");
const events_module = @import("events.zig");
const key_table = @import("key_table.zig");
const keys_json = @import("keys_json.zig");
const version = @import("build_options").version;
const Server = @import("server.zig").Server;
const Pushes = @import("pushes.zig").Pushes;
const Waker = @import("poller.zig").Waker;

const help =
    \\plue-ssh: a Git server over SSH
    \\
    \\Usage:
    \\  plue-ssh serve --config FILE --keys FILE [--port N] [--host-key FILE]
    \\  plue-ssh --version | --help
    \\
    \\Options:
    \\  --config FILE    JSON object; at least {"repositories": "/srv/git"}. All keys, with their
    \\                   defaults and units, are listed in plue_ssh.h at plue_ssh_configure.
    \\  --keys FILE      JSON array of who may do what; read again on SIGHUP:
    \\                     [{"principal": "alice", "keys": ["ssh-ed25519 AAAA..."],
    \\                       "rules": ["write alice/*", "read *"]}]
    \\  --port N         Port, 2222 by default; 0 picks a free one.
    \\  --host-key FILE  Private host key, generated when missing; plue_ssh_host_key by default.
    \\
    \\Events go to standard output, one JSON object a line; with "push_queue" also what was pushed.
    \\SIGINT and SIGTERM let running gits finish (see "drain_timeout_s") and end the server with
    \\status 0; a second one ends it at once.
    \\
    \\  git clone ssh://git@localhost:2222/alice/repo.git
    \\
;

const Arguments = struct {
    config: ?[]const u8 = null,
    keys: ?[]const u8 = null,
    port: u16 = 2222,
    host_key: [:0]const u8 = "plue_ssh_host_key",
};

/// Longest configuration or key file, in bytes.
const file_max = 256 * 1024 * 1024;

pub fn main() u8 {
    const args = std.process.argsAlloc(std.heap.c_allocator) catch {
        return complain("out of memory", .{});
    };
    defer std.process.argsFree(std.heap.c_allocator, args);
    if (args.len < 2) return usage("a command is missing", .{});
    const command = args[1];
    if (isAny(command, &.{ "--help", "-h", "help" })) return print("{s}", .{help});
    if (isAny(command, &.{ "--version", "-V" })) {
        return print("plue-ssh {s} (libssh {s})\n", .{ version, libssh.ssh_version(0) orelse "?" });
    }
    if (!isAny(command, &.{"serve"})) return usage("unknown command '{s}'", .{command});
    var arguments: Arguments = .{};
    var i: usize = 2;
    while (i < args.len) : (i += 2) {
        if (isAny(args[i], &.{ "--help", "-h" })) return print("{s}", .{help});
        if (i + 1 == args.len) return usage("'{s}' needs a value", .{args[i]});
        const value = args[i + 1];
        if (isAny(args[i], &.{"--config"})) {
            arguments.config = value;
        } else if (isAny(args[i], &.{"--keys"})) {
            arguments.keys = value;
        } else if (isAny(args[i], &.{"--host-key"})) {
            arguments.host_key = value;
        } else if (isAny(args[i], &.{"--port"})) {
            arguments.port = std.fmt.parseInt(u16, value, 10) catch {
                return usage("'{s}' is no port", .{value});
            };
        } else return usage("unknown option '{s}'", .{args[i]});
    }
    return serve(&arguments);
}

fn isAny(text: []const u8, names: []const []const u8) bool {
    for (names) |name| if (std.mem.eql(u8, text, name)) return true;
    return false;
}

fn print(comptime format: []const u8, args: anytype) u8 {
    var buffer: [4096]u8 = undefined;
    var writer = std.fs.File.stdout().writerStreaming(&buffer);
    writer.interface.print(format, args) catch return 1;
    writer.interface.flush() catch return 1;
    return 0;
}

fn complain(comptime format: []const u8, args: anytype) u8 {
    std.debug.print("plue-ssh: " ++ format ++ "\n", args);
    return 1;
}

fn usage(comptime format: []const u8, args: anytype) u8 {
    std.debug.print("plue-ssh: " ++ format ++ "; see plue-ssh --help\n", args);
    return 2;
}

/// What signal handlers and event notices reach.
var waker: Waker = undefined;
var stop_signals: std.atomic.Value(u32) = .init(0);
var reload: std.atomic.Value(bool) = .init(false);

fn onSignal(signal: i32) callconv(.c) void {
    if (signal == posix.SIG.HUP) {
        reload.store(true, .release);
    } else if (stop_signals.fetchAdd(1, .acq_rel) > 0) posix.exit(1);
    waker.wake();
}

fn onEvent() callconv(.c) void {
    waker.wake();
}

fn serve(arguments: *const Arguments) u8 {
    const allocator = std.heap.c_allocator;
    const config_path = arguments.config orelse return usage("--config is missing", .{});
    const keys_path = arguments.keys orelse return usage("--keys is missing", .{});
    const config = std.fs.cwd().readFileAlloc(allocator, config_path, file_max) catch |err| {
        return complain("cannot read {s}: {t}", .{ config_path, err });
    };
    defer allocator.free(config);
    raiseDescriptorLimit();

    var events: events_module.Events = .init(allocator);
    defer events.deinit();
    var table: key_table.KeyTable = .init(allocator);
    defer table.deinit();
    if (!loadKeys(allocator, &table, keys_path)) return 1;
    waker = Waker.init() catch |err| return complain("cannot start: {t}", .{err});
    defer waker.deinit();
    handleSignals();

    const callbacks: decisions.Callbacks = .{};
    events.notify.store(onEvent, .release);
    var pushes: Pushes = .init(allocator);
    defer pushes.deinit();
    pushes.notify.store(onEvent, .release);
    var reason_buffer: [1024]u8 = undefined;
    var reason = std.Io.Writer.fixed(&reason_buffer);
    const server = Server.start(.{
        .allocator = allocator,
        .config_json = config,
        .port = arguments.port,
        .host_key_path = arguments.host_key,
        .table = &table,
        .events = &events,
        .pushes = &pushes,
        .callbacks = &callbacks,
    }, &reason) catch |err| return switch (err) {
        error.OutOfMemory => complain("out of memory", .{}),
        error.StartFailed => complain("{s}", .{reason.buffered()}),
    };
    defer server.destroy();
    events.tell();
    while (stop_signals.load(.acquire) == 0) {
        var fds = [1]posix.pollfd{.{ .fd = waker.read_fd, .events = posix.POLL.IN, .revents = 0 }};
        _ = posix.poll(&fds, -1) catch {}; // on any error: look what there is, and come again
        waker.drain();
        if (reload.swap(false, .acq_rel)) _ = loadKeys(allocator, &table, keys_path);
        logEvents(&events);
        logPushes(allocator, &pushes);
    }
    server.finish();
    logEvents(&events);
    logPushes(allocator, &pushes);
    return 0;
}

/// A connection takes two descriptors, a running git four more.
fn raiseDescriptorLimit() void {
    // On failure the limit stays as it is.
    var limit = posix.getrlimit(.NOFILE) catch return;
    limit.cur = limit.max;
    posix.setrlimit(.NOFILE, limit) catch return;
}

fn handleSignals() void {
    const action: posix.Sigaction = .{
        .handler = .{ .handler = onSignal },
        .mask = posix.sigemptyset(),
        .flags = posix.SA.RESTART,
    };
    for ([_]u8{ posix.SIG.INT, posix.SIG.TERM, posix.SIG.HUP }) |signal| {
        posix.sigaction(signal, &action, null);
    }
}

/// false, with a complaint: the table stays as it was.
fn loadKeys(allocator: std.mem.Allocator, table: *key_table.KeyTable, path: []const u8) bool {
    const json = std.fs.cwd().readFileAlloc(allocator, path, file_max) catch |err| {
        return complain("cannot read {s}: {t}", .{ path, err }) == 0;
    };
    defer allocator.free(json);
    var draft = table.startDraft();
    defer draft.deinit();
    var buffer: [512]u8 = undefined;
    var reason = std.Io.Writer.fixed(&buffer);
    keys_json.parse(allocator, &draft, json, &reason) catch |err| return switch (err) {
        error.OutOfMemory => complain("out of memory", .{}) == 0,
        error.BadKeys => complain("{s}: {s}", .{ path, reason.buffered() }) == 0,
    };
    table.replace(&draft);
    return true;
}

fn logEvents(events: *events_module.Events) void {
    var record: [events_module.record_max]u8 = undefined;
    while (events.next(&record)) |text| _ = print("{s}\n", .{text});
}

/// Only when the configuration asks for them with "push_queue".
fn logPushes(allocator: std.mem.Allocator, pushes: *Pushes) void {
    while (true) {
        const len = pushes.next(&.{});
        if (len == 0) return;
        // Without memory now it stays the oldest, and the next event tries again.
        const json = allocator.alloc(u8, len + 1) catch return;
        defer allocator.free(json);
        if (pushes.next(json) != len) continue;
        _ = print("{s}\n", .{json[0..len]});
        const start = "{\"id\":".len;
        const end = std.mem.indexOfScalarPos(u8, json, start, ',').?; // `put` wrote it
        const id = std.fmt.parseInt(u32, json[start..end], 10) catch unreachable; // as above
        _ = pushes.done(id);
    }
}
