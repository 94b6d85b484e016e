//! The server: what its threads share, how it starts and how it stops.

const std = @import("std");
const posix = std.posix;
const libssh = @import("libssh.zig");
const algorithms = @import("algorithms.zig");
const config_module = @import("config.zig");
const decisions_module = @import("decisions.zig");
const host_key = @import("host_key.zig");
const Config = config_module.Config;
const Decisions = decisions_module.Decisions;
const Events = @import("events.zig").Events;
const KeyTable = @import("key_table.zig").KeyTable;
const Limits = @import("limits.zig").Limits;
const networks = @import("networks.zig");
const Network = networks.Network;
const Loop = @import("loop.zig").Loop;
const Pushes = @import("pushes.zig").Pushes;
const monotonicMs = @import("loop.zig").monotonicMs;

/// Oldest libssh that is let run: CVE-2023-2283 and CVE-2023-48795 are fixed in it. Later fixes
/// are for the distribution to bring.
pub const libssh_floor = .{ .major = 0, .minor = 10, .patch = 6 };

/// Connections waiting to be accepted.
const backlog = 512;

/// In the threads of a server: a callback runs in one, and must not wait for the server's end.
pub threadlocal var in_server_thread = false;

var next_connection_id: std.atomic.Value(u64) = .init(1);

pub const StartError = error{ OutOfMemory, StartFailed };

pub const Options = struct {
    allocator: std.mem.Allocator,
    /// See config.zig.
    config_json: []const u8,
    port: u16,
    host_key_path: [:0]const u8,
    table: *KeyTable,
    events: *Events,
    pushes: *Pushes,
    callbacks: *const decisions_module.Callbacks,
};

pub const Server = struct {
    allocator: std.mem.Allocator,
    arena: std.heap.ArenaAllocator,
    config: Config,
    table: *KeyTable,
    events: *Events,
    pushes: *Pushes,
    decisions: Decisions,
    limits: Limits,
    /// Absolute, without symbolic links.
    root: [:0]const u8,
    root_fd: posix.fd_t,
    git: [:0]const u8,
    /// Who must begin with a PROXY header.
    proxies: []const Network,
    listener_fd: posix.fd_t,
    port: u16,
    loops: []*Loop,
    callback_threads: []std.Thread,
    /// 0 while serving; then when to end what still runs, in monotonic milliseconds.
    stop_at_ms: std.atomic.Value(u64) = .init(0),

    /// On StartFailed nothing is left running and `reason` says why and what to do. Otherwise
    /// `events.tell` follows.
    pub fn start(options: Options, reason: *std.Io.Writer) StartError!*Server {
        try checkLibssh(reason);
        const allocator = options.allocator;
        var arena: std.heap.ArenaAllocator = .init(allocator);
        const config = readConfig(&arena, options.config_json, reason) catch |err| {
            arena.deinit();
            return err;
        };
        const server = allocator.create(Server) catch {
            arena.deinit();
            return error.OutOfMemory;
        };
        server.* = .{
            .allocator = allocator,
            .arena = arena,
            .config = config,
            .table = options.table,
            .events = options.events,
            .pushes = options.pushes,
            .decisions = .{
                .allocator = allocator,
                .callbacks = options.callbacks,
                .counters = &options.events.counters,
                .pending_max = config.max_pending_decisions,
            },
            .limits = .init(allocator, &config),
            .root = "",
            .root_fd = -1,
            .git = "",
            .proxies = &.{},
            .listener_fd = -1,
            .port = 0,
            .loops = &.{},
            .callback_threads = &.{},
        };
        options.events.capacity.store(config.event_queue, .monotonic);
        errdefer server.destroy();
        try server.openRoot(reason);
        try server.findGit(reason);
        try server.readProxies(reason);
        try server.makeLoops(options.host_key_path, reason);
        try server.listen(options.port, reason);
        options.events.capacity.store(config.event_queue, .monotonic);
        options.pushes.capacity.store(config.push_queue, .monotonic);
        try server.startThreads(reason);
        _ = server.events.add(.info, "listening", .{}, .{
            .port = server.port,
            .address = @as([]const u8, server.config.bind_address),
        });
        return server;
    }

    fn readConfig(
        arena: *std.heap.ArenaAllocator,
        json: []const u8,
        reason: *std.Io.Writer,
    ) StartError!Config {
        return config_module.parse(arena.allocator(), json, reason) catch |err| switch (err) {
            error.OutOfMemory => error.OutOfMemory,
            error.BadConfig => error.StartFailed,
        };
    }

    fn checkLibssh(reason: *std.Io.Writer) StartError!void {
        const floor = libssh_floor;
        const number = floor.major << 16 | floor.minor << 8 | floor.patch;
        if (libssh.ssh_version(number) == null) {
            const found = libssh.ssh_version(0) orelse "unknown";
            return fail(reason, "libssh {s} is too old: at least {d}.{d}.{d} is needed " ++
                "(apt-get install libssh-4 | brew upgrade libssh)", .{
                found, floor.major, floor.minor, floor.patch,
            });
        }
        if (libssh.ssh_init() != libssh.OK) return fail(reason, "libssh cannot start", .{});
    }

    fn openRoot(server: *Server, reason: *std.Io.Writer) StartError!void {
        const path = server.config.repositories;
        var buffer: [std.fs.max_path_bytes]u8 = undefined;
        const real = std.fs.cwd().realpath(path, &buffer) catch |err| {
            return fail(reason, "the repositories' root {s} cannot be used: {t}; create the " ++
                "directory or change \"repositories\"", .{ path, err });
        };
        server.root = try server.arena.allocator().dupeZ(u8, real);
        const flags: posix.O = .{ .DIRECTORY = true, .CLOEXEC = true };
        server.root_fd = posix.open(server.root, flags, 0) catch |err| {
            return fail(reason, "the repositories' root {s} cannot be opened: {t}", .{ path, err });
        };
    }

    fn findGit(server: *Server, reason: *std.Io.Writer) StartError!void {
        const name = server.config.git;
        if (std.mem.indexOfScalar(u8, name, '/') != null) {
            if (isExecutable(name) and name[0] == '/') {
                server.git = name;
                return;
            }
            return fail(reason, "\"git\": {s} is not the absolute path of an executable", .{name});
        }
        const path = posix.getenv("PATH") orelse "/usr/local/bin:/usr/bin:/bin";
        var directories = std.mem.tokenizeScalar(u8, path, ':');
        while (directories.next()) |directory| {
            if (directory[0] != '/') continue;
            const candidate = try std.fs.path.joinZ(
                server.arena.allocator(),
                &.{ directory, name },
            );
            if (!isExecutable(candidate)) continue;
            server.git = candidate;
            return;
        }
        return fail(reason, "{s} was not found in PATH: install git (apt-get install git | " ++
            "brew install git) or give its path as \"git\"", .{name});
    }

    fn readProxies(server: *Server, reason: *std.Io.Writer) StartError!void {
        const texts = server.config.proxy_protocol_from;
        const proxies = try server.arena.allocator().alloc(Network, texts.len);
        for (proxies, texts) |*proxy, text| {
            proxy.* = Network.parse(text) catch return fail(reason, "bad network {s}", .{text});
        }
        server.proxies = proxies;
    }

    fn isExecutable(path: [:0]const u8) bool {
        const stat = std.fs.cwd().statFile(path) catch return false;
        if (stat.kind != .file) return false;
        posix.accessZ(path, posix.X_OK) catch return false;
        return true;
    }

    fn makeLoops(
        server: *Server,
        host_key_path: [:0]const u8,
        reason: *std.Io.Writer,
    ) StartError!void {
        const arena = server.arena.allocator();
        var keys: std.ArrayListUnmanaged(*libssh.Key) = .empty;
        defer for (keys.items) |key| libssh.ssh_key_free(key);
        try keys.ensureTotalCapacity(arena, 1 + server.config.host_keys.len);
        for (0..1 + server.config.host_keys.len) |i| {
            const path = if (i == 0) host_key_path else server.config.host_keys[i - 1];
            const key = host_key.load(server.allocator, path, i == 0, reason) catch |err| {
                return switch (err) {
                    error.OutOfMemory => error.OutOfMemory,
                    error.BadHostKey => error.StartFailed,
                };
            };
            keys.appendAssumeCapacity(key);
        }
        const count = if (server.config.threads > 0)
            server.config.threads
        else
            @min(4, std.Thread.getCpuCount() catch 1);
        const loops = try arena.alloc(*Loop, count);
        for (loops) |*loop| {
            var refused: algorithms.Refused = .{};
            loop.* = Loop.init(server, keys.items, &refused) catch |err| return switch (err) {
                error.OutOfMemory => error.OutOfMemory,
                error.NoPoller => fail(reason, "out of file descriptors: raise ulimit -n", .{}),
                error.AlgorithmRefused => fail(
                    reason,
                    "\"{s}\": libssh {s} does not have the algorithm \"{f}\"; take it out of the " ++
                        "list",
                    .{
                        refused.key,
                        libssh.ssh_version(0) orelse "",
                        std.zig.fmtString(refused.algorithm),
                    },
                ),
                error.BadHostKey => fail(reason, "libssh does not take a host key: RSA needs at " ++
                    "least {d} bits, DSA is not supported", .{server.config.rsa_min_bits}),
            };
            server.loops = loops[0 .. server.loops.len + 1];
        }
    }

    const port_in_use = "port {d} on {s} is in use by another program: stop it or choose " ++
        "another port (0 picks a free one)";

    fn listen(server: *Server, port: u16, reason: *std.Io.Writer) StartError!void {
        const text = server.config.bind_address;
        const address = std.net.Address.parseIp(text, port) catch {
            return fail(reason, "\"bind_address\": {s} is not a numeric IP address", .{text});
        };
        const flags = posix.SOCK.STREAM | posix.SOCK.CLOEXEC | posix.SOCK.NONBLOCK;
        server.listener_fd = posix.socket(address.any.family, flags, 0) catch |err| {
            return fail(reason, "cannot make a socket for {s}: {t}", .{ text, err });
        };
        const on = std.mem.toBytes(@as(c_int, 1));
        const reuse = posix.SO.REUSEADDR;
        posix.setsockopt(server.listener_fd, posix.SOL.SOCKET, reuse, &on) catch |err| {
            return fail(reason, "cannot set up a socket for {s}: {t}", .{ text, err });
        };
        posix.bind(server.listener_fd, &address.any, address.getOsSockLen()) catch |err| {
            return switch (err) {
                error.AddressInUse => fail(reason, port_in_use, .{ port, text }),
                error.AccessDenied => fail(reason, "no permission for port {d}: take one above " ++
                    "1023, or grant CAP_NET_BIND_SERVICE", .{port}),
                else => fail(reason, "cannot bind {s} port {d}: {t}", .{ text, port, err }),
            };
        };
        posix.listen(server.listener_fd, backlog) catch |err| switch (err) {
            error.AddressInUse => return fail(reason, port_in_use, .{ port, text }),
            else => return fail(reason, "cannot listen on {s} port {d}: {t}", .{ text, port, err }),
        };
        var bound: std.net.Address = undefined;
        var len: posix.socklen_t = @sizeOf(std.net.Address);
        posix.getsockname(server.listener_fd, &bound.any, &len) catch |err| {
            return fail(reason, "cannot tell the port: {t}", .{err});
        };
        server.port = bound.getPort();
    }

    fn startThreads(server: *Server, reason: *std.Io.Writer) StartError!void {
        const count = server.config.callback_threads;
        const threads = try server.arena.allocator().alloc(std.Thread, count);
        errdefer server.joinThreads();
        for (threads) |*thread| {
            thread.* = std.Thread.spawn(
                .{ .stack_size = 1024 * 1024 },
                runCallbacks,
                .{server},
            ) catch |err| return fail(reason, "cannot start a thread: {t}", .{err});
            server.callback_threads = threads[0 .. server.callback_threads.len + 1];
        }
        for (server.loops) |loop| {
            loop.start() catch |err| return fail(reason, "cannot start a thread: {t}", .{err});
        }
    }

    fn runCallbacks(server: *Server) void {
        in_server_thread = true;
        server.decisions.runCallbacks();
    }

    /// Begins to stop; `finish` ends it.
    pub fn beginStop(server: *Server) void {
        const drain_ms = @as(u64, server.config.drain_timeout_s) * 1000;
        const before = server.stop_at_ms.cmpxchgStrong(
            0,
            monotonicMs() + drain_ms,
            .acq_rel,
            .acquire,
        );
        if (before != null) return;
        // The kernel refuses newcomers from now on; where this fails, as on macOS, it does so when
        // the socket closes.
        posix.shutdown(server.listener_fd, .both) catch {};
        for (server.loops) |loop| loop.waker.wake();
    }

    /// After `beginStop`: whether `finish` has nothing to wait for but callbacks.
    pub fn isDrained(server: *const Server) bool {
        for (server.loops) |loop| {
            if (!loop.is_done.load(.acquire)) return false;
        }
        return true;
    }

    /// Stops and waits for everything to end. `events.tell` follows.
    pub fn finish(server: *Server) void {
        server.joinThreads();
        _ = server.events.add(.info, "stopped", .{}, .{});
    }

    fn joinThreads(server: *Server) void {
        server.beginStop();
        for (server.loops) |loop| {
            if (loop.thread) |thread| thread.join();
            loop.thread = null;
        }
        server.decisions.shutdown();
        for (server.callback_threads) |thread| thread.join();
        server.callback_threads = &.{};
    }

    /// After `finish`.
    pub fn destroy(server: *Server) void {
        if (server.listener_fd >= 0) posix.close(server.listener_fd);
        if (server.root_fd >= 0) posix.close(server.root_fd);
        for (server.loops) |loop| loop.deinit();
        server.decisions.deinit();
        server.limits.deinit();
        server.arena.deinit();
        server.allocator.destroy(server);
    }

    // ------------------------------------------------------------ asked by the loops

    pub fn isStopping(server: *const Server) bool {
        return server.stop_at_ms.load(.acquire) != 0;
    }

    /// Time to end what still runs.
    pub fn isKilling(server: *const Server, now_ms: u64) bool {
        const stop_at_ms = server.stop_at_ms.load(.acquire);
        return stop_at_ms != 0 and now_ms >= stop_at_ms;
    }

    pub fn isProxy(server: *const Server, peer: std.net.Address) bool {
        return networks.contain(server.proxies, peer);
    }

    pub fn nextConnectionId(_: *const Server) u64 {
        return next_connection_id.fetchAdd(1, .monotonic);
    }

    /// Who decides about keys that are not in the table; null: nobody, they are refused.
    pub fn authenticateRoute(server: *const Server) ?decisions_module.Route {
        const has_callback = server.decisions.callbacks.canAuthenticate();
        return route(server.config.authenticate, has_callback);
    }

    /// Who decides about repositories for principals without rules; null: the default access.
    pub fn authorizeRoute(server: *const Server) ?decisions_module.Route {
        const has_callback = server.decisions.callbacks.authorize.load(.acquire) != null;
        return route(server.config.authorize, has_callback);
    }

    fn route(decider: config_module.Decider, has_callback: bool) ?decisions_module.Route {
        return switch (decider) {
            .auto => if (has_callback) .callback else null,
            .keys => null,
            .callback => .callback, // without one it answers no
            .queue => .queue,
        };
    }
};

fn fail(reason: *std.Io.Writer, comptime format: []const u8, args: anytype) error{StartFailed} {
    reason.print(format, args) catch {}; // a cut reason is still a reason
    return error.StartFailed;
}
