//! One SSH channel: a command is asked for, decided upon, and run; transfer.zig carries its bytes.
//! All of it runs on the connection's loop thread. libssh's callbacks only note what happened;
//! the work is done by `pump`, outside of libssh.

const std = @import("std");
const posix = std.posix;
const libssh = @import("libssh.zig");
const git_command = @import("git_command.zig");
const git_process = @import("git_process.zig");
const repository = @import("repository.zig");
const decisions = @import("decisions.zig");
const process_module = @import("process.zig");
const events = @import("events.zig");
const old_libssh = @import("old_libssh.zig");
const reasons = @import("reasons.zig");
const Transfer = @import("transfer.zig").Transfer;
const Connection = @import("connection.zig").Connection;
const Child = @import("child.zig").Child;
const Output = @import("orphans.zig").Output;
const Push = @import("push.zig").Push;
const Counters = events.Counters;

const denied_text = "plue: repository not found or access denied\n";

pub const Channel = struct {
    connection: *Connection,
    /// Index in the connection's table of channels.
    number: u12,
    ssh: *libssh.Channel,
    callbacks: libssh.ChannelCallbacks,
    state: State = .idle,

    /// What the client asked for, until it is run. Owned.
    command: ?[]u8 = null,
    protocol_buffer: [git_process.protocol_max]u8 = undefined,
    protocol_len: usize = 0,

    service: git_command.Service = .upload_pack,
    /// Canonical name; owned.
    name: ?[]u8 = null,
    decision: ?decisions.Pending = null,

    child: ?Child = null,
    transfer: Transfer,
    exit: process_module.Exit = .{ .status = 0 },

    is_checked: bool = false,
    remote_closed: bool = false,

    started_ms: u64 = 0,
    /// Not 0: SIGKILL then.
    kill_at_ms: u64 = 0,

    const State = enum {
        /// Open, nothing asked for.
        idle,
        /// A command came; `pump` will look at it.
        requested,
        shell_requested,
        deciding,
        running,
        /// Only `rest` is still to be sent, then exit status, EOF and close.
        ending,
        /// Closed by us; waiting for the client's close.
        closed,
    };

    pub fn create(connection: *Connection, number: u12, ssh: *libssh.Channel) !*Channel {
        const channel = try connection.allocator().create(Channel);
        errdefer connection.allocator().destroy(channel);
        channel.* = .{
            .connection = connection,
            .number = number,
            .ssh = ssh,
            .transfer = .{ .connection = connection, .channel = ssh },
            .callbacks = .{
                .userdata = channel,
                .data = onData,
                .eof = onEof,
                .close = onClose,
                .shell_request = onShell,
                .exec_request = onExec,
                .env_request = onEnv,
            },
        };
        const result = libssh.ssh_add_channel_callbacks(ssh, &channel.callbacks);
        if (result != libssh.OK) return error.OutOfMemory;
        return channel;
    }

    /// Lets go of everything but the SSH channel, which goes with its session or was freed. A git
    /// that still runs is told to end.
    pub fn destroy(channel: *Channel) void {
        const allocator = channel.connection.allocator();
        const server = channel.connection.loop.server;
        if (channel.decision) |pending| _ = server.decisions.cancel(pending.id);
        if (channel.child != null) channel.abandonChild();
        channel.transfer.deinit();
        if (channel.command) |text| allocator.free(text);
        if (channel.name) |text| allocator.free(text);
        allocator.destroy(channel);
    }

    /// A connection whose git is at work is never idle.
    pub fn isBusy(channel: *const Channel) bool {
        return channel.state == .running;
    }

    /// The client is still to learn how its command ended. It has when it closes the channel too:
    /// before, what was sent may be in buffers that go with the connection.
    pub fn isOwing(channel: *const Channel) bool {
        return switch (channel.state) {
            .running, .ending, .closed => true,
            .idle, .requested, .shell_requested, .deciding => false,
        };
    }

    // ------------------------------------------------------------ what libssh calls

    fn from(userdata: ?*anyopaque) *Channel {
        return @ptrCast(@alignCast(userdata.?));
    }

    fn onData(
        _: *libssh.Session,
        _: *libssh.Channel,
        data: ?[*]u8,
        len: u32,
        is_stderr: c_int,
        userdata: ?*anyopaque,
    ) callconv(.c) c_int {
        const channel = from(userdata);
        channel.connection.activity = true;
        const bytes = (data orelse return 0)[0..len];
        const is_wanted = is_stderr == 0 and channel.wantsInput();
        return @intCast(if (is_wanted) channel.transfer.receive(bytes) else len);
    }

    /// Input is kept until git has closed its standard input or there will be no git.
    fn wantsInput(channel: *const Channel) bool {
        return switch (channel.state) {
            .idle, .requested, .deciding => true,
            .running => channel.transfer.stdin != null,
            .shell_requested, .ending, .closed => false,
        };
    }

    fn onEof(_: *libssh.Session, _: *libssh.Channel, userdata: ?*anyopaque) callconv(.c) void {
        const channel = from(userdata);
        channel.transfer.client_eof = true;
        channel.connection.activity = true;
    }

    fn onClose(_: *libssh.Session, _: *libssh.Channel, userdata: ?*anyopaque) callconv(.c) void {
        const channel = from(userdata);
        channel.transfer.client_eof = true;
        channel.remote_closed = true;
        channel.connection.activity = true;
    }

    fn onShell(_: *libssh.Session, _: *libssh.Channel, userdata: ?*anyopaque) callconv(.c) c_int {
        const channel = from(userdata);
        channel.connection.activity = true;
        if (channel.state != .idle) return 1;
        channel.state = .shell_requested;
        return 0;
    }

    fn onExec(
        _: *libssh.Session,
        _: *libssh.Channel,
        text: ?[*:0]const u8,
        userdata: ?*anyopaque,
    ) callconv(.c) c_int {
        const channel = from(userdata);
        channel.connection.activity = true;
        if (channel.state != .idle) return 1; // one command for each channel
        const command = std.mem.span(text orelse return 1);
        if (command.len > git_command.command_max) return 1;
        channel.command = channel.connection.allocator().dupe(u8, command) catch return 1;
        channel.state = .requested;
        return 0;
    }

    fn onEnv(
        _: *libssh.Session,
        _: *libssh.Channel,
        name: ?[*:0]const u8,
        value: ?[*:0]const u8,
        userdata: ?*anyopaque,
    ) callconv(.c) c_int {
        const channel = from(userdata);
        const text = std.mem.span(value orelse return 1);
        if (!std.mem.eql(u8, std.mem.span(name orelse return 1), "GIT_PROTOCOL")) return 1;
        if (channel.state != .idle or !git_process.isGitProtocol(text)) return 1;
        @memcpy(channel.protocol_buffer[0..text.len], text);
        channel.protocol_len = text.len;
        return 0;
    }

    // ------------------------------------------------------------ from request to process

    /// Does whatever can be done now. false: the channel is over and may be destroyed.
    pub fn pump(channel: *Channel) bool {
        if (!channel.is_checked) channel.checkPacketSize();
        if (channel.connection.ending != null) return true;
        switch (channel.state) {
            .requested => channel.examine(),
            .shell_requested => channel.greet(),
            .idle, .deciding, .running, .ending, .closed => {},
        }
        if (channel.remote_closed) {
            channel.finishAfterClose();
            return false;
        }
        switch (channel.state) {
            .running => {
                channel.transfer.pumpIn();
                channel.transfer.pumpOut();
                channel.checkExit();
                channel.checkPush();
            },
            .ending => channel.transfer.pumpOut(),
            .idle, .requested, .shell_requested, .deciding, .closed => {},
        }
        if (channel.state == .ending and channel.transfer.isOutputDone()) channel.sendEnd();
        channel.transfer.updateInterest();
        return true;
    }

    fn checkPacketSize(channel: *Channel) void {
        channel.is_checked = true;
        if (old_libssh.isPacketSizeUsable(channel.connection.session, channel.ssh)) return;
        channel.connection.end(.protocol, "maximum packet size too small");
    }

    fn greet(channel: *Channel) void {
        var buffer: [512]u8 = undefined;
        const text = std.fmt.bufPrint(
            &buffer,
            "Hi {s}! You've successfully authenticated, " ++
                "but plue does not provide shell access.\r\n",
            .{channel.connection.principal.slice()},
        ) catch unreachable; // a principal has at most 255 bytes
        channel.connection.noteRefusedRequest("shell");
        channel.endWith(text, 1);
    }

    fn examine(channel: *Channel) void {
        const connection = channel.connection;
        const server = connection.loop.server;
        const allocator = connection.allocator();
        const command = channel.command.?;
        channel.command = null;
        defer allocator.free(command);
        connection.has_executed = true;

        var path_buffer: [git_command.command_max]u8 = undefined;
        const parsed = git_command.parse(command, &path_buffer) catch |err| switch (err) {
            error.UnknownService => return channel.refuse(
                .service,
                "plue: only git's upload-pack and receive-pack are served here\n",
            ),
            error.Malformed => return channel.refuse(.syntax, "plue: malformed git command\n"),
        };
        channel.service = parsed.service;
        if (parsed.service == .upload_archive and !server.config.archive) {
            return channel.refuse(.not_allowed, "plue: git archive is not enabled here\n");
        }
        const name = repository.canonicalName(parsed.path) catch {
            return channel.refuse(.path, denied_text);
        };
        channel.name = allocator.dupe(u8, name) catch return channel.refuse(.spawn, failed_text);
        if (server.isStopping()) return channel.refuse(.stopping, stopping_text);
        channel.authorize();
    }

    fn authorize(channel: *Channel) void {
        const connection = channel.connection;
        const server = connection.loop.server;
        const write = channel.service.writes();
        if (connection.from_table) {
            const principal = connection.principal.slice();
            const digest = &connection.key_digest;
            switch (server.table.authorize(digest, principal, channel.name.?, write)) {
                .allowed => return channel.start(),
                .denied, .no_such_key => return channel.refuse(.denied, denied_text),
                .no_rules => {},
            }
        }
        const route = server.authorizeRoute() orelse {
            const allowed = switch (server.config.default_access) {
                .none => false,
                .read => !write,
                .write => true,
            };
            return if (allowed) channel.start() else channel.refuse(.denied, denied_text);
        };
        const id = server.decisions.ask(route, .{
            .kind = .{ .authorize = .{
                .principal = connection.principal.slice(),
                .repository = channel.name.?,
                .write = write,
            } },
            .fingerprint = connection.fingerprint,
            .address = connection.address(),
            .connection = connection.id,
        }, connection.loop.mailbox(), connection.token(.authorize, channel.number)) catch {
            return channel.refuse(.queue_full, denied_text);
        };
        channel.state = .deciding;
        channel.decision = .{
            .id = id,
            .deadline_ms = connection.loop.now_ms + server.config.decision_timeout_ms,
        };
    }

    pub fn decided(channel: *Channel, id: decisions.Id, allow: bool) void {
        const pending = channel.decision orelse return;
        if (pending.id != id or channel.state != .deciding) return;
        channel.decision = null;
        if (!allow) return channel.refuse(.denied, denied_text);
        if (channel.connection.loop.server.isStopping()) {
            return channel.refuse(.stopping, stopping_text);
        }
        channel.start();
    }

    /// Deadlines; `pump` follows.
    pub fn checkTimers(channel: *Channel, now_ms: u64) void {
        const server = channel.connection.loop.server;
        if (channel.decision) |pending| {
            if (pending.isOver(&server.decisions, now_ms)) {
                channel.decision = null;
                Counters.add(&channel.connection.counters().decisions_timeout_total, 1);
                channel.refuse(.timeout, denied_text);
            }
        }
        const child = if (channel.child) |*child| child else return;
        // Nobody tells of its end where there are no pidfds.
        if (child.exit_watch == null) channel.connection.activity = true;
        if (channel.kill_at_ms != 0 and now_ms >= channel.kill_at_ms) {
            child.process.signalGroup(posix.SIG.KILL);
        } else if (channel.kill_at_ms == 0 and server.config.git_timeout_s > 0) {
            const limit_ms = @as(u64, server.config.git_timeout_s) * 1000;
            if (now_ms - channel.started_ms >= limit_ms) channel.terminate();
        }
    }

    /// Tells git to end; SIGKILL follows after the grace.
    pub fn terminate(channel: *Channel) void {
        const child = if (channel.child) |*child| child else return;
        if (channel.kill_at_ms != 0) return;
        child.process.signalGroup(posix.SIG.TERM);
        const grace_ms = @as(u64, channel.connection.loop.server.config.kill_grace_s) * 1000;
        channel.kill_at_ms = channel.connection.loop.now_ms + @max(grace_ms, 1);
    }

    const failed_text = "plue: the server could not start git, try again later\n";
    const busy_text = "plue: too many pushes wait to be processed, try again later\n";
    const stopping_text = "plue: the server is shutting down, try again later\n";

    fn start(channel: *Channel) void {
        const connection = channel.connection;
        const server = connection.loop.server;
        var dir_buffer: [2 * repository.path_max]u8 = undefined;
        const git_dir = repository.find(
            server.root,
            server.root_fd,
            channel.name.?,
            &dir_buffer,
        ) catch return channel.refuse(.not_found, denied_text);
        var arena: std.heap.ArenaAllocator = .init(connection.allocator());
        defer arena.deinit();
        const vectors = git_process.vectors(arena.allocator(), &server.config, server.git, .{
            .service = channel.service,
            .git_dir = git_dir,
            .repository = channel.name.?,
            .principal = connection.principal.slice(),
            .address = connection.address(),
            .protocol = channel.protocol_buffer[0..channel.protocol_len],
        }) catch return channel.refuse(.spawn, failed_text);
        const push = channel.watchPush(git_dir) catch return channel.refuse(.spawn, failed_text);
        if (push == null and channel.noticesPush()) return channel.refuse(.queue_full, busy_text);
        const spawned = process_module.spawn(vectors.argv.ptr, vectors.envp.ptr) catch {
            if (push) |it| it.finish();
            return channel.refuse(.spawn, failed_text);
        };
        channel.transfer.push = push;
        const token = connection.token(.pipe, channel.number);
        channel.transfer.attach(spawned.pipes, token);
        channel.child = .{ .process = spawned.process };
        channel.state = .running;
        channel.started_ms = connection.loop.now_ms;
        connection.counters().commandStarted(channel.service);
        connection.emit(.info, "command", .{
            .principal = connection.principalText(),
            .repository = @as([]const u8, channel.name.?),
            .service = @as([]const u8, channel.service.name()),
            .write = channel.service.writes(),
            .channel = channel.number,
        });
        connection.activity = true;
    }

    fn noticesPush(channel: *const Channel) bool {
        return channel.service == .receive_pack and
            channel.connection.loop.server.pushes.isWanted();
    }

    /// Where the host wants notices of pushes; null also when there is no room for one more.
    fn watchPush(channel: *const Channel, git_dir: []const u8) error{OutOfMemory}!?*Push {
        if (!channel.noticesPush()) return null;
        const connection = channel.connection;
        const server = connection.loop.server;
        return Push.create(server.allocator, server.events, server.pushes, .{
            .repository = channel.name.?,
            .path = git_dir,
            .principal = connection.principal.slice(),
            .fingerprint = &connection.fingerprint,
            .address = connection.address(),
            .connection = connection.id,
        });
    }

    /// Ends a push whose command list cannot be followed. The list has not ended for git, which
    /// has changed nothing.
    fn checkPush(channel: *Channel) void {
        const push = channel.transfer.push orelse return;
        const fault = push.fault orelse return;
        channel.transfer.forgetOutput();
        channel.releaseChild(null);
        push.finish();
        switch (fault) {
            error.OutOfMemory => channel.refuse(.resources, failed_text),
            error.Malformed => channel.refuse(.syntax, "plue: malformed list of references\n"),
            error.TooLong => channel.refuse(
                .too_many_references,
                "plue: too many references in one push, push them in parts\n",
            ),
        }
    }

    fn refuse(channel: *Channel, reason: reasons.CommandRefusal, text: []const u8) void {
        const connection = channel.connection;
        connection.counters().commandRefused(reason);
        connection.emit(.warning, "command_refused", .{
            .reason = @as([]const u8, @tagName(reason)),
            .principal = connection.principalText(),
            .repository = if (channel.name) |name| @as(?[]const u8, name) else null,
        });
        channel.endWith(text, 128);
    }

    fn endWith(channel: *Channel, text: []const u8, status: u8) void {
        channel.exit = .{ .status = status };
        channel.state = .ending;
        channel.connection.activity = true;
        channel.transfer.say(text);
    }

    // ------------------------------------------------------------ the end

    fn checkExit(channel: *Channel) void {
        if (!channel.transfer.isOutputDone()) return; // git, or what it left behind, still writes
        const child = if (channel.child) |*child| child else return;
        const connection = channel.connection;
        channel.exit = child.process.poll() orelse {
            if (child.exit_watch != null) return;
            return child.watch(&connection.loop.poller, connection.token(.pipe, channel.number));
        };
        channel.noteFinished();
        channel.state = .ending;
    }

    /// The client closed the channel first: whatever runs is of no use to it any more.
    fn finishAfterClose(channel: *Channel) void {
        if (channel.child) |*child| {
            if (child.process.poll()) |exit| channel.exit = exit;
            if (child.process.exit != null) channel.noteFinished();
        }
        _ = libssh.ssh_remove_channel_callbacks(channel.ssh, &channel.callbacks);
        // While the socket takes no more, ssh_channel_free ends between EOF and CLOSE, and a client
        // with other channels waits for the second. Sent before, EOF is not in its way.
        _ = libssh.ssh_channel_send_eof(channel.ssh);
        libssh.ssh_channel_free(channel.ssh);
    }

    fn noteFinished(channel: *Channel) void {
        const connection = channel.connection;
        channel.child.?.close(&connection.loop.poller);
        channel.child = null;
        channel.transfer.finishPush();
        channel.transfer.closePipes();
        connection.last_work_ms = connection.loop.now_ms;
        Counters.sub(&connection.counters().gits_running, 1);
        const failed = switch (channel.exit) {
            .status => |status| status != 0,
            .signal => true,
            .unknown => false,
        };
        if (failed) Counters.add(&connection.counters().gits_failed_total, 1);
        const durations = connection.counters().durations_by_service.getPtr(channel.service);
        durations.add(connection.loop.now_ms - channel.started_ms);
        const exit_status: ?u8 = switch (channel.exit) {
            .status => |status| status,
            .signal, .unknown => null,
        };
        const signal: ?u8 = switch (channel.exit) {
            .signal => |number| number,
            .status, .unknown => null,
        };
        const level: events.Level = if (failed) .warning else .info;
        channel.emitEnd(level, "finished", exit_status, signal);
    }

    /// The client has gone while its git was at work.
    fn abandonChild(channel: *Channel) void {
        const is_push = channel.service == .receive_pack;
        channel.releaseChild(if (is_push) channel.transfer.takeOutput() else null);
        channel.emitEnd(.warning, "abandoned", null, null);
    }

    fn releaseChild(channel: *Channel, output: ?Output) void {
        const connection = channel.connection;
        connection.loop.orphans.adopt(connection.loop, channel.child.?, output);
        channel.child = null;
        Counters.sub(&connection.counters().gits_running, 1);
    }

    fn emitEnd(
        channel: *Channel,
        level: events.Level,
        event: []const u8,
        exit_status: ?u8,
        signal: ?u8,
    ) void {
        const connection = channel.connection;
        connection.emit(level, event, .{
            .principal = connection.principalText(),
            .repository = @as([]const u8, channel.name.?),
            .service = @as([]const u8, channel.service.name()),
            .exit_status = exit_status,
            .signal = signal,
            .duration_ms = connection.loop.now_ms - channel.started_ms,
            .bytes_in = channel.transfer.bytes_in,
            .bytes_out = channel.transfer.bytes_out,
        });
    }

    /// Data and stderr have gone; now exit status, EOF, close (RFC 4254, section 6.10).
    fn sendEnd(channel: *Channel) void {
        if (libssh.ssh_channel_is_open(channel.ssh) == 0) return;
        _ = switch (channel.exit) {
            .status => |status| libssh.ssh_channel_request_send_exit_status(channel.ssh, status),
            .signal => |signal| libssh.ssh_channel_request_send_exit_signal(
                channel.ssh,
                signalName(signal),
                0,
                "git was ended by the server",
                "",
            ),
            // Somebody else in this process reaped git; it said all it had to say.
            .unknown => libssh.ssh_channel_request_send_exit_status(channel.ssh, 0),
        };
        // A failure of these means that the session is lost, which its loop notices.
        _ = libssh.ssh_channel_send_eof(channel.ssh);
        _ = libssh.ssh_channel_close(channel.ssh);
        channel.state = .closed;
        channel.connection.activity = true;
    }
};

/// RFC 4254, section 6.10: names without "SIG".
fn signalName(signal: u8) [*:0]const u8 {
    return switch (signal) {
        posix.SIG.ABRT => "ABRT",
        posix.SIG.ALRM => "ALRM",
        posix.SIG.FPE => "FPE",
        posix.SIG.HUP => "HUP",
        posix.SIG.ILL => "ILL",
        posix.SIG.INT => "INT",
        posix.SIG.KILL => "KILL",
        posix.SIG.PIPE => "PIPE",
        posix.SIG.QUIT => "QUIT",
        posix.SIG.SEGV => "SEGV",
        else => "TERM",
    };
}
