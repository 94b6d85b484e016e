//! The C ABI of include/vt_fwd.h and nothing else: checks pointers and lengths, finds objects by
//! handle, turns errors into codes and sentences. What the functions mean stands in the header.

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const clock = @import("clock.zig");
const control_dir = @import("control_dir.zig");
const forwarder = @import("forwarder.zig");
const frames = @import("frames.zig");
const hosted = @import("hosted.zig");
const session = @import("session.zig");
const session_files = @import("session_files.zig");
const session_view = @import("session_view.zig");
const spawn = @import("spawn.zig");
const start_config = @import("start_config.zig");
const Cast = @import("cast.zig").Cast;
const Decoder = @import("decoder.zig").Decoder;
const Handles = @import("handles.zig").Handles;
const TitleFilter = @import("title_filter.zig").TitleFilter;
const max_held = @import("title_filter.zig").max_held;
const version = @import("config").version;

const allocator = std.heap.c_allocator;

/// enum vt_fwd_error of the header; a test compares the two.
pub const Code = enum(i32) {
    ok = 0,
    null_pointer = -1,
    no_handle = -2,
    too_long = -3,
    argument = -4,
    buffer_too_small = -5,
    out_of_memory = -6,
    too_many_handles = -7,
    system = -8,
    config = -20,
    session_is_running = -21,
    working_directory = -22,
    host_exits = -23,
    timeout = -24,
    oversized = -40,
    json = -41,
    no_session = -42,

    fn sentence(code: Code) []const u8 {
        return switch (code) {
            .ok => "",
            .null_pointer => "a pointer is null that must not be",
            .no_handle => "this handle was closed, made up, or is the parent process's",
            .too_long => "this is longer than the header allows",
            .argument => "an argument is out of range",
            .buffer_too_small => "the result does not fit: see vt_fwd_needed",
            .out_of_memory => "out of memory",
            .too_many_handles => "4096 of these are open: close some",
            .system => "the system refused",
            .config => "the configuration was refused",
            .session_is_running => "a session with this id is running: choose another id",
            .working_directory => "the working directory is not there, or not to be entered",
            .host_exits => "this process is exiting: no session is started any more",
            .timeout => "the session still runs",
            .oversized => "a frame announces an absurd length: close the connection",
            .json => "this is not one JSON object",
            .no_session => "there is no session.json that can be read",
        };
    }
};

var sessions: hosted.Sessions = .{
    .allocator = allocator,
    .version = version,
    .handles = .{ .allocator = allocator },
};
var decoders: Handles(Decoder) = .{ .allocator = allocator };
var casts: Handles(*Cast) = .{ .allocator = allocator };
var filters: Handles(TitleFilter) = .{ .allocator = allocator };

// ---- errors -------------------------------------------------------------------------------------

threadlocal var last_error: Code = .ok;
threadlocal var last_needed: u64 = 0;
threadlocal var last_message: [512]u8 = @splat(0);

fn fail(code: Code) i32 {
    return failWith(code, "{s}", .{code.sentence()});
}

fn failWith(code: Code, comptime format: []const u8, arguments: anytype) i32 {
    last_error = code;
    var writer: std.Io.Writer = .fixed(last_message[0 .. last_message.len - 1]);
    writer.print(format, arguments) catch {}; // a cut reason is still a reason
    last_message[writer.end] = 0;
    return @intFromEnum(code);
}

fn failHandle(code: Code) u32 {
    _ = fail(code);
    return 0;
}

fn failBool(code: Code) bool {
    _ = fail(code);
    return false;
}

fn needs(bytes: u64) i32 {
    last_needed = bytes;
    return fail(.buffer_too_small);
}

fn created(result: error{ OutOfMemory, TooManyObjects }!u32) u32 {
    return result catch |err| failHandle(switch (err) {
        error.OutOfMemory => .out_of_memory,
        error.TooManyObjects => .too_many_handles,
    });
}

pub export fn vt_fwd_last_error() i32 {
    defer last_error = .ok;
    return @intFromEnum(last_error);
}

pub export fn vt_fwd_last_message() [*:0]const u8 {
    return @ptrCast(&last_message);
}

pub export fn vt_fwd_needed() u64 {
    return last_needed;
}

pub export fn vt_fwd_error_name(code: i32) [*:0]const u8 {
    inline for (@typeInfo(Code).@"enum".fields) |field| {
        if (field.value == code) return field.name;
    }
    return "unknown";
}

pub export fn vt_fwd_version() [*:0]const u8 {
    return version;
}

// ---- what the caller hands over -----------------------------------------------------------------

fn input(pointer: ?[*]const u8, len: usize) error{ NullPointer, TooLong }![]const u8 {
    if (len == 0) return "";
    if (len > std.math.maxInt(isize)) return error.TooLong;
    return (pointer orelse return error.NullPointer)[0..len];
}

/// Room that cannot be real is as good as none.
fn room(pointer: ?[*]u8, len: usize) []u8 {
    const first = pointer orelse return &.{};
    return first[0..@min(len, std.math.maxInt(isize))];
}

fn refused(err: error{ NullPointer, TooLong }) i32 {
    return fail(switch (err) {
        error.NullPointer => .null_pointer,
        error.TooLong => .too_long,
    });
}

fn give(result: []const u8, out: []u8) i64 {
    if (result.len > out.len) return needs(result.len);
    @memcpy(out[0..result.len], result);
    return @intCast(result.len);
}

// ---- the process around us ----------------------------------------------------------------------

var process_watch = std.once(watchProcess);

const libc = struct {
    const Hook = *const fn () callconv(.c) void;
    extern "c" fn pthread_atfork(prepare: ?Hook, parent: ?Hook, child: ?Hook) c_int;
    extern "c" fn atexit(hook: Hook) c_int;
    const Image = extern struct {
        file: ?[*:0]const u8,
        base: ?*anyopaque,
        symbol: ?[*:0]const u8,
        address: ?*anyopaque,
    };
    extern "c" fn dladdr(address: *const anyopaque, image: *Image) c_int;
};

fn watchProcess() void {
    // These fail for lack of memory only; the process then ends, or forks, as if killed.
    _ = libc.pthread_atfork(beforeFork, afterForkInParent, afterForkInChild);
    _ = libc.atexit(beforeExit);
    stayLoaded();
}

/// For a host that unloads the library: threads run in it, and the hooks above stay.
fn stayLoaded() void {
    var image: libc.Image = undefined;
    if (libc.dladdr(&watchProcess, &image) == 0) return; // in an executable, which stays
    const file = image.file orelse return;
    _ = std.c.dlopen(file, .{ .LAZY = true, .NOLOAD = true, .NODELETE = true });
}

fn beforeExit() callconv(.c) void {
    sessions.beforeExit();
}

// The three of them leave our own forks alone.

fn beforeFork() callconv(.c) void {
    if (spawn.forking) return;
    sessions.beforeFork();
    decoders.lockAll();
    casts.lockAll();
    filters.lockAll();
}

fn afterForkInParent() callconv(.c) void {
    if (spawn.forking) return;
    filters.unlockAll();
    casts.unlockAll();
    decoders.unlockAll();
    sessions.afterForkInParent();
}

fn afterForkInChild() callconv(.c) void {
    if (spawn.forking) return;
    filters.dropAll(forgetFilter);
    casts.dropAll(Cast.abandon);
    decoders.dropAll(Decoder.forget);
    sessions.afterForkInChild();
}

fn forgetFilter(_: TitleFilter) void {}

// ---- sessions -----------------------------------------------------------------------------------

pub export fn vt_fwd_start(config: ?[*]const u8, config_len: usize) u32 {
    process_watch.call();
    const text = input(config, config_len) catch |err| {
        _ = refused(err);
        return 0;
    };
    var problem: start_config.Problem = .{};
    return sessions.start(text, &problem) catch |err| {
        const code: Code = switch (err) {
            error.OutOfMemory => .out_of_memory,
            error.InvalidConfig => {
                // The key lies in memory that is gone; its beginning was kept.
                _ = failWith(.config, "{s}{s}{s}", .{
                    if (problem.key().len > 0) problem.key() else "the configuration",
                    " ",
                    problem.cause,
                });
                return 0;
            },
            error.TooManyObjects => .too_many_handles,
            error.SessionIsRunning => .session_is_running,
            error.WorkingDirectory => .working_directory,
            error.HostExits => .host_exits,
            else => {
                const why = session_files.explain(err);
                _ = failWith(.system, "the session cannot be started: {s}", .{why});
                return 0;
            },
        };
        return failHandle(code);
    };
}

pub export fn vt_fwd_session_id(handle: u32, out: ?[*]u8, out_cap: usize) i64 {
    const slot = sessions.handles.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    return give(slot.value.id(), room(out, out_cap));
}

pub export fn vt_fwd_session_pid(handle: u32) i32 {
    const slot = sessions.handles.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    return slot.value.pid;
}

pub export fn vt_fwd_wait(handle: u32, timeout_ms: i64) i32 {
    const timeout_ns: ?u64 = if (timeout_ms < 0)
        null
    else
        @as(u64, @intCast(timeout_ms)) *| std.time.ns_per_ms;
    const code = sessions.wait(handle, timeout_ns) catch return fail(.no_handle);
    return code orelse fail(.timeout);
}

pub export fn vt_fwd_stop(handle: u32) i32 {
    return ask(handle, forwarder.request_end);
}

pub export fn vt_fwd_kill(handle: u32, signal: u32) i32 {
    if (signal < 1 or signal >= posix.NSIG) return fail(.argument);
    return ask(handle, @intCast(signal));
}

fn ask(handle: u32, request: u8) i32 {
    _ = sessions.request(handle, request) catch return fail(.no_handle);
    return 0;
}

pub export fn vt_fwd_close(handle: u32) bool {
    _ = sessions.handles.remove(handle) orelse return failBool(.no_handle);
    return true;
}

pub export fn vt_fwd_running() u32 {
    sessions.mutex.lock();
    defer sessions.mutex.unlock();
    return @intCast(sessions.count);
}

pub export fn vt_fwd_shutdown() void {
    sessions.beforeExit();
}

// ---- frames -------------------------------------------------------------------------------------

pub export fn vt_fwd_frame_encode(
    kind: u32,
    payload: ?[*]const u8,
    payload_len: usize,
    out: ?[*]u8,
    out_cap: usize,
) i64 {
    const bytes = input(payload, payload_len) catch |err| return refused(err);
    if (kind > std.math.maxInt(u8)) return fail(.argument);
    const its: frames.Kind = @enumFromInt(kind);
    const longest: usize = if (its == .input) frames.max_input_bytes else frames.max_payload_bytes;
    if (bytes.len > longest) return fail(.too_long);
    const target = room(out, out_cap);
    const len = frames.header_bytes + bytes.len;
    if (target.len < len) return needs(len);
    frames.writeHeader(target[0..frames.header_bytes], its, bytes.len);
    @memcpy(target[frames.header_bytes..len], bytes);
    return @intCast(len);
}

pub export fn vt_fwd_decoder_create() u32 {
    process_watch.call();
    return created(decoders.create(.{ .parser = .{ .gpa = allocator } }));
}

pub export fn vt_fwd_decoder_destroy(handle: u32) bool {
    var decoder = decoders.remove(handle) orelse return failBool(.no_handle);
    decoder.parser.deinit();
    return true;
}

/// vt_fwd_frame of the header.
pub const Frame = extern struct {
    type: u32 = 0,
    last: u32 = 0,
    used: u64 = 0,
    payload: u64 = 0,
};

pub export fn vt_fwd_decoder_next(
    handle: u32,
    bytes: ?[*]const u8,
    len: usize,
    out: ?[*]u8,
    out_cap: usize,
    frame: ?*Frame,
) i32 {
    const result = frame orelse return fail(.null_pointer);
    result.* = .{};
    const given = input(bytes, len) catch |err| return refused(err);
    const slot = decoders.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    const step = slot.value.next(given, room(out, out_cap));
    result.used = step.used;
    switch (step.event) {
        .none => {},
        .input => |it| {
            result.type = @intFromEnum(frames.Kind.input);
            result.payload = it.len;
            result.last = @intFromBool(it.last);
        },
        .control => |length| {
            result.type = @intFromEnum(frames.Kind.control);
            result.payload = length;
            result.last = 1;
        },
        .heartbeat => {
            result.type = @intFromEnum(frames.Kind.heartbeat);
            result.last = 1;
        },
        .too_small => |length| return needs(length),
        .oversized => return fail(.oversized),
    }
    return 0;
}

// ---- recordings ---------------------------------------------------------------------------------

pub export fn vt_fwd_cast_create(
    path: ?[*:0]const u8,
    cols: u32,
    rows: u32,
    timestamp: i64,
    command: ?[*:0]const u8,
    title: ?[*:0]const u8,
    max_bytes: u64,
) u32 {
    process_watch.call();
    const name = path orelse return failHandle(.null_pointer);
    const size = sizeOf(cols, rows) orelse return failHandle(.argument);
    const cast = Cast.create(std.mem.span(name), size, max_bytes, .{
        .size = size,
        .timestamp = timestamp,
        .command = if (command) |text| &.{std.mem.span(text)} else &.{},
        .title = if (title) |text| std.mem.span(text) else "",
    }) catch |err| {
        _ = failWith(.system, "{s}: {s}", .{ name, session_files.explain(err) });
        return 0;
    };
    const handle = created(casts.create(cast));
    if (handle == 0) cast.abandon();
    return handle;
}

fn sizeOf(cols: u32, rows: u32) ?asciicast.Size {
    const size: asciicast.Size = .{
        .cols = std.math.cast(u16, cols) orelse return null,
        .rows = std.math.cast(u16, rows) orelse return null,
    };
    return if (size.cols > 0 and size.rows > 0) size else null;
}

/// Whether the recording is as it should be.
fn recorded(cast: *const Cast) i32 {
    const failure = cast.recorder.file.failure orelse return 0;
    return failWith(.system, "the recording has stopped: {s}", .{session_files.explain(failure)});
}

pub export fn vt_fwd_cast_output(handle: u32, time_us: u64, bytes: ?[*]const u8, len: usize) i32 {
    const text = input(bytes, len) catch |err| return refused(err);
    const slot = casts.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    slot.value.output(time_us, text);
    return recorded(slot.value);
}

pub export fn vt_fwd_cast_input(handle: u32, time_us: u64, bytes: ?[*]const u8, len: usize) i32 {
    const text = input(bytes, len) catch |err| return refused(err);
    const slot = casts.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    slot.value.input(time_us, text);
    return recorded(slot.value);
}

pub export fn vt_fwd_cast_resize(handle: u32, time_us: u64, cols: u32, rows: u32) i32 {
    const size = sizeOf(cols, rows) orelse return fail(.argument);
    const slot = casts.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    slot.value.resize(time_us, size);
    return recorded(slot.value);
}

pub export fn vt_fwd_cast_marker(handle: u32, time_us: u64, label: ?[*:0]const u8) i32 {
    const text = label orelse return fail(.null_pointer);
    const slot = casts.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    slot.value.marker(time_us, std.mem.span(text));
    return recorded(slot.value);
}

pub export fn vt_fwd_cast_clear_offset(handle: u32) i64 {
    const slot = casts.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    return @intCast(slot.value.recorder.clear_offset);
}

pub export fn vt_fwd_cast_end(handle: u32, time_us: u64, code: u32, id: ?[*:0]const u8) i32 {
    const cast = casts.remove(handle) orelse return fail(.no_handle);
    defer cast.abandon();
    const name = if (id) |text| std.mem.span(text) else "";
    const fits = code <= std.math.maxInt(u8) and (id == null or control_dir.isValidId(name));
    cast.end(time_us, if (id != null and fits) .{ .code = @intCast(code), .id = name } else null);
    return if (fits) recorded(cast) else fail(.argument);
}

// ---- window titles ------------------------------------------------------------------------------

pub export fn vt_fwd_filter_create() u32 {
    process_watch.call();
    return created(filters.create(.{}));
}

pub export fn vt_fwd_filter_destroy(handle: u32) bool {
    _ = filters.remove(handle) orelse return failBool(.no_handle);
    return true;
}

pub export fn vt_fwd_filter_write(
    handle: u32,
    bytes: ?[*]const u8,
    len: usize,
    out: ?[*]u8,
    out_cap: usize,
) i64 {
    const text = input(bytes, len) catch |err| return refused(err);
    const target = room(out, out_cap);
    const slot = filters.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    if (target.len < text.len + max_held) return needs(text.len + max_held);
    return @intCast(slot.value.filter(target, text));
}

pub export fn vt_fwd_filter_end(handle: u32, out: ?[*]u8, out_cap: usize) i64 {
    const target = room(out, out_cap);
    const slot = filters.acquire(handle) orelse return fail(.no_handle);
    defer slot.release();
    if (target.len < max_held) return needs(max_held);
    return @intCast(slot.value.flush(target));
}

// ---- session.json -------------------------------------------------------------------------------

pub export fn vt_fwd_session_parse(
    id: ?[*:0]const u8,
    json: ?[*]const u8,
    json_len: usize,
    out: ?[*]u8,
    out_cap: usize,
) i64 {
    const name = std.mem.span(id orelse return fail(.null_pointer));
    const text = input(json, json_len) catch |err| return refused(err);
    if (text.len > session.max_json_bytes) return fail(.too_long);
    var arena: std.heap.ArenaAllocator = .init(allocator);
    defer arena.deinit();
    return view(session_view.normalise(arena.allocator(), name, text, null), out, out_cap);
}

pub export fn vt_fwd_session_read(path: ?[*:0]const u8, out: ?[*]u8, out_cap: usize) i64 {
    const folder = std.mem.span(path orelse return fail(.null_pointer));
    var arena: std.heap.ArenaAllocator = .init(allocator);
    defer arena.deinit();
    const directory = session.Directory.existing(folder) orelse return fail(.no_session);
    defer directory.close();
    const text = directory.readJson(arena.allocator()) orelse return fail(.no_session);
    const id = std.fs.path.basename(folder);
    return view(session_view.normalise(arena.allocator(), id, text, isAlive), out, out_cap);
}

fn view(result: session_view.Error![]const u8, out: ?[*]u8, out_cap: usize) i64 {
    const text = result catch |err| return fail(switch (err) {
        error.InvalidJson => .json,
        error.OutOfMemory => .out_of_memory,
    });
    return give(text, room(out, out_cap));
}

fn isAlive(pid: i64) bool {
    return session.isAlive(std.math.cast(posix.pid_t, pid) orelse return false);
}

test "a command may be started by fork where the hooks of a host's fork would wait for ever" {
    process_watch.call();
    // As in `vt_fwd_start`, on a system that has no other way.
    sessions.mutex.lock();
    defer sessions.mutex.unlock();
    const nothing = try std.fs.openFileAbsolute("/dev/null", .{ .mode = .write_only });
    defer nothing.close();
    const pid = try spawn.spawnByFork(.{ .output = nothing.handle }, .{
        .argv = &[_:null]?[*:0]const u8{ "/bin/sh", "-c", "exit 7" },
        .envp = &[_:null]?[*:0]const u8{},
    });
    try std.testing.expectEqual(7, posix.W.EXITSTATUS(spawn.reap(pid).?));
}

test {
    std.testing.refAllDecls(@This());
    _ = @import("lib_test.zig");
}
