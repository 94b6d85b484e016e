//! The C ABI as C sees it: the header's constants and layouts, null, closed and made up included.

const std = @import("std");
const testing = std.testing;
const lib = @import("lib.zig");
const header = @cImport(@cInclude("vt_fwd.h"));

test "the header's errors are the library's" {
    inline for (@typeInfo(lib.Code).@"enum".fields) |field| {
        const name = comptime if (field.value == 0) "VT_FWD_OK" else name: {
            var upper: [field.name.len]u8 = undefined;
            break :name "VT_FWD_ERROR_" ++ std.ascii.upperString(&upper, field.name);
        };
        try testing.expectEqual(field.value, @field(header, name));
        const shown = std.mem.span(lib.vt_fwd_error_name(field.value));
        try testing.expectEqualStrings(field.name, shown);
    }
    try testing.expectEqualStrings("unknown", std.mem.span(lib.vt_fwd_error_name(77)));
}

test "the header's limits and layouts are the library's" {
    const frames = @import("frames.zig");
    const pairs = .{
        .{ @import("handles.zig").max_objects, header.VT_FWD_MAX_HANDLES },
        .{ @import("control_dir.zig").max_id_bytes, header.VT_FWD_MAX_ID_BYTES },
        .{ frames.max_input_bytes, header.VT_FWD_MAX_INPUT_BYTES },
        .{ frames.max_payload_bytes, header.VT_FWD_MAX_PAYLOAD_BYTES },
        .{ frames.header_bytes, header.VT_FWD_FRAME_HEADER_BYTES },
        .{ @import("title_filter.zig").max_held, header.VT_FWD_MAX_HELD_BYTES },
        .{ @import("session.zig").max_json_bytes, header.VT_FWD_MAX_SESSION_BYTES },
        .{ @import("start_config.zig").max_bytes, header.VT_FWD_MAX_CONFIG_BYTES },
        .{ @intFromEnum(frames.Kind.input), header.VT_FWD_FRAME_INPUT },
        .{ @intFromEnum(frames.Kind.control), header.VT_FWD_FRAME_CONTROL },
        .{ @intFromEnum(frames.Kind.heartbeat), header.VT_FWD_FRAME_HEARTBEAT },
        .{ @import("cast.zig").now, header.VT_FWD_NOW },
        .{ @sizeOf(lib.Frame), @sizeOf(header.vt_fwd_frame) },
    };
    inline for (pairs) |pair| try testing.expectEqual(pair[1], pair[0]);
    inline for (@typeInfo(lib.Frame).@"struct".fields) |field| {
        const offset = @offsetOf(header.vt_fwd_frame, field.name);
        try testing.expectEqual(offset, @offsetOf(lib.Frame, field.name));
    }
}

test "null and handles that are none are errors everywhere" {
    var out: [8]u8 = undefined;
    var frame: lib.Frame = undefined;
    const no_handle = @intFromEnum(lib.Code.no_handle);
    for ([_]u32{ 0, 1, 4096, std.math.maxInt(u32) }) |handle| {
        const codes = [_]i64{
            lib.vt_fwd_session_id(handle, &out, out.len),
            lib.vt_fwd_session_pid(handle),
            lib.vt_fwd_wait(handle, -1),
            lib.vt_fwd_stop(handle),
            lib.vt_fwd_kill(handle, 15),
            lib.vt_fwd_decoder_next(handle, "x", 1, &out, out.len, &frame),
            lib.vt_fwd_cast_output(handle, 0, "x", 1),
            lib.vt_fwd_cast_input(handle, 0, "x", 1),
            lib.vt_fwd_cast_resize(handle, 0, 1, 1),
            lib.vt_fwd_cast_marker(handle, 0, "x"),
            lib.vt_fwd_cast_clear_offset(handle),
            lib.vt_fwd_cast_end(handle, 0, 0, null),
            lib.vt_fwd_filter_write(handle, "x", 1, &out, out.len),
            lib.vt_fwd_filter_end(handle, &out, out.len),
        };
        for (codes) |code| try testing.expectEqual(no_handle, code);
        try testing.expect(!lib.vt_fwd_close(handle));
        try testing.expect(!lib.vt_fwd_decoder_destroy(handle));
        try testing.expect(!lib.vt_fwd_filter_destroy(handle));
        try testing.expectEqual(no_handle, lib.vt_fwd_last_error());
        try testing.expectEqual(0, lib.vt_fwd_last_error());
    }
    const null_pointer = @intFromEnum(lib.Code.null_pointer);
    try testing.expectEqual(0, lib.vt_fwd_start(null, 5));
    try testing.expectEqual(null_pointer, lib.vt_fwd_last_error());
    try testing.expectEqual(0, lib.vt_fwd_cast_create(null, 80, 24, 0, null, null, 0));
    try testing.expectEqual(null_pointer, lib.vt_fwd_last_error());
    try testing.expectEqual(null_pointer, lib.vt_fwd_frame_encode(1, null, 1, &out, out.len));
    try testing.expectEqual(null_pointer, lib.vt_fwd_session_parse(null, "{}", 2, &out, 8));
    try testing.expectEqual(null_pointer, lib.vt_fwd_session_parse("a", null, 2, &out, 8));
    try testing.expectEqual(null_pointer, lib.vt_fwd_session_read(null, &out, out.len));
    try testing.expectEqual(null_pointer, lib.vt_fwd_decoder_next(0, "x", 1, &out, 8, null));
    const too_long = @intFromEnum(lib.Code.too_long);
    const huge = std.math.maxInt(usize);
    try testing.expectEqual(too_long, lib.vt_fwd_frame_encode(1, &out, huge, &out, out.len));
    try testing.expectEqual(too_long, lib.vt_fwd_session_parse("a", &out, huge, &out, 8));
    try testing.expectEqual(0, lib.vt_fwd_start(&out, huge));
    try testing.expectEqual(too_long, lib.vt_fwd_last_error());
}

test "a buffer that is too small is told how large it should be, and nothing changes" {
    var out: [64]u8 = undefined;
    const too_small = @intFromEnum(lib.Code.buffer_too_small);
    try testing.expectEqual(too_small, lib.vt_fwd_frame_encode(1, "abc", 3, &out, 7));
    try testing.expectEqual(8, lib.vt_fwd_needed());
    try testing.expectEqual(too_small, lib.vt_fwd_frame_encode(1, "abc", 3, null, 64));
    try testing.expectEqual(8, lib.vt_fwd_frame_encode(1, "abc", 3, &out, 8));
    try testing.expectEqualStrings("\x01\x00\x00\x00\x03abc", out[0..8]);
    const filter = lib.vt_fwd_filter_create();
    try testing.expectEqual(too_small, lib.vt_fwd_filter_write(filter, "a\x1b", 2, &out, 4));
    try testing.expectEqual(5, lib.vt_fwd_needed());
    try testing.expectEqual(1, lib.vt_fwd_filter_write(filter, "a\x1b", 2, &out, 5));
    try testing.expectEqual(too_small, lib.vt_fwd_filter_end(filter, &out, 2));
    try testing.expectEqual(1, lib.vt_fwd_filter_end(filter, &out, 3));
    try testing.expect(lib.vt_fwd_filter_destroy(filter));
    try testing.expectEqual(too_small, lib.vt_fwd_session_parse("a", "{}", 2, &out, out.len));
    const needed = lib.vt_fwd_needed();
    const large = try testing.allocator.alloc(u8, needed);
    defer testing.allocator.free(large);
    const len = lib.vt_fwd_session_parse("a", "{}", 2, large.ptr, large.len);
    try testing.expectEqual(@as(i64, @intCast(needed)), len);
}

/// Sessions of one thread, each to its end, and a handle that nobody holds any more.
const Worker = struct {
    number: usize,
    folder: []const u8,
    failed: bool = true,

    fn work(worker: *Worker) void {
        worker.run() catch return;
        worker.failed = false;
    }

    fn run(worker: *Worker) !void {
        for (0..4) |round| {
            const script = if (round % 2 == 0) "seq 500; exit 3" else "read x";
            var buffer: [512]u8 = undefined;
            const config = try std.fmt.bufPrint(&buffer,
                \\{{"argv":["/bin/sh","-c","{s}"],"control_dir":"{s}","id":"{d}-{d}","git":false}}
            , .{ script, worker.folder, worker.number, round });
            const session = lib.vt_fwd_start(config.ptr, config.len);
            try testing.expect(session != 0);
            try testing.expect(lib.vt_fwd_session_pid(session) > 0);
            if (round % 2 == 1) try testing.expectEqual(0, lib.vt_fwd_kill(session, 9));
            const expected: i32 = if (round % 2 == 0) 3 else 137;
            try testing.expectEqual(expected, lib.vt_fwd_wait(session, 20_000));
            try testing.expect(lib.vt_fwd_close(session));
        }
    }
};

/// Not testing.tmpDir: a socket's path must be short.
const Folder = struct {
    buffer: [64]u8,
    path: []const u8,

    fn init(folder: *Folder) !void {
        const pid = std.c.getpid();
        folder.path = try std.fmt.bufPrint(&folder.buffer, "/tmp/vt-test.{d}", .{pid});
        try std.fs.makeDirAbsolute(folder.path);
    }

    fn deinit(folder: *Folder) void {
        std.fs.deleteTreeAbsolute(folder.path) catch {}; // then /tmp has a folder more
    }
};

test "threads start sessions and see their ends" {
    var folder: Folder = undefined;
    try folder.init();
    defer folder.deinit();
    var workers: [4]Worker = undefined;
    var threads: [4]std.Thread = undefined;
    for (&workers, &threads, 0..) |*worker, *thread, number| {
        worker.* = .{ .number = number, .folder = folder.path };
        thread.* = try std.Thread.spawn(.{}, Worker.work, .{worker});
    }
    for (threads) |thread| thread.join();
    for (workers) |worker| try testing.expect(!worker.failed);
    try testing.expectEqual(0, lib.vt_fwd_running());
}

/// Closes a handle that is not there yet, as soon as it is.
const Guesser = struct {
    handle: u32,
    stop: std.atomic.Value(bool) = .init(false),
    closed: bool = false,

    fn work(guesser: *Guesser) void {
        while (!guesser.closed and !guesser.stop.load(.acquire)) {
            guesser.closed = lib.vt_fwd_close(guesser.handle);
        }
    }
};

test "a handle that is guessed and closed while its session starts hurts nobody" {
    var folder: Folder = undefined;
    try folder.init();
    defer folder.deinit();
    var buffer: [512]u8 = undefined;
    const config = try std.fmt.bufPrint(&buffer,
        \\{{"argv":["true"],"control_dir":"{s}","git":false}}
    , .{folder.path});
    var next: u32 = 0;
    for (0..5) |_| {
        // The next use of the same slot, once one is known.
        var guesser: Guesser = .{ .handle = next };
        const thread = try std.Thread.spawn(.{}, Guesser.work, .{&guesser});
        const session = lib.vt_fwd_start(config.ptr, config.len);
        try testing.expect(session != 0);
        guesser.stop.store(true, .release);
        thread.join();
        if (next != 0) try testing.expectEqual(next, session);
        next = session + 4096;
        if (!guesser.closed) try testing.expect(lib.vt_fwd_close(session));
        while (lib.vt_fwd_running() > 0) std.Thread.sleep(std.time.ns_per_ms);
    }
}

test "an event of a recording may have any time" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const folder = try tmp.dir.realpath(".", &buffer);
    const path = try std.fmt.allocPrintSentinel(testing.allocator, "{s}/cast", .{folder}, 0);
    defer testing.allocator.free(path);
    const last = std.math.maxInt(u64) - 1; // beyond it is VT_FWD_NOW
    for ([_]u64{ 0, 1, last / 2, last - 50_000, last }) |time| {
        const cast = lib.vt_fwd_cast_create(path, 80, 24, std.math.minInt(i64), null, null, last);
        try testing.expect(cast != 0);
        for ([_][]const u8{ "\x1b", "[2J\xc3", "\x1b]0;" }) |piece| {
            try testing.expectEqual(0, lib.vt_fwd_cast_output(cast, time, piece.ptr, piece.len));
            try testing.expectEqual(0, lib.vt_fwd_cast_input(cast, time, piece.ptr, piece.len));
            try testing.expectEqual(0, lib.vt_fwd_cast_resize(cast, time, 80, 24));
            try testing.expectEqual(0, lib.vt_fwd_cast_marker(cast, time, "x"));
        }
        try testing.expectEqual(0, lib.vt_fwd_cast_end(cast, time, 0, "id"));
        const text = try tmp.dir.readFileAlloc(testing.allocator, "cast", 1 << 16);
        defer testing.allocator.free(text);
        try testing.expect(std.mem.endsWith(u8, text, "[\"exit\",0,\"id\"]\n"));
    }
}
