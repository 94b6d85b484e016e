//! Records a terminal session as asciinema v2. It knows the format and what VibeTunnel's reader
//! asks of it: characters and escape sequences whole within one event, an event that ends where
//! the screen was cleared, and the exit line last. The clock is a parameter.

const std = @import("std");
const posix = std.posix;
const json_text = @import("json_text.zig");
const utf8 = @import("utf8.zig");
const cast_file = @import("cast_file.zig");
const Scanner = @import("scanner.zig").Scanner;

pub const Size = struct {
    cols: u16,
    rows: u16,

    pub fn eql(a: Size, b: Size) bool {
        return a.cols == b.cols and a.rows == b.rows;
    }
};

/// An unfinished escape sequence longer or older than this is recorded as it is.
const max_held_bytes = 4096;
pub const max_held_us = 50_000;

/// Output is recorded in events of at most this many bytes, so that a line has a bound.
const max_event_bytes = 12 * 1024;

comptime {
    const longest = json_text.capacity(max_held_bytes + max_event_bytes);
    std.debug.assert(longest + 256 <= cast_file.max_line_bytes);
}

pub const Header = struct {
    size: Size,
    /// Seconds since 1970.
    timestamp: i64,
    /// The command, its words joined by spaces.
    command: []const [:0]const u8,
    title: []const u8,
};

pub const Recorder = struct {
    file: cast_file.CastFile,
    header_size: Size,
    size: Size,
    /// The clock when recording began, and the time of the last event after that.
    start_us: u64,
    last_us: u64,
    scanner: Scanner,
    /// The beginning of an unfinished escape sequence, and since when it waits.
    held: [max_held_bytes]u8,
    held_len: usize,
    held_since_us: u64,
    /// The unfinished sequence was too long to hold: its rest is recorded as it comes.
    pass: bool,
    carry: utf8.Carry,
    /// Where a viewer may start, in bytes from the beginning of the file, and the same of what was
    /// on disk at the last flush.
    clear_offset: u64,
    clear_on_disk: u64,
    /// The size after which nothing but the end is recorded. 0: no limit.
    max_bytes: u64,
    capped: bool,

    pub fn init(r: *Recorder, fd: posix.fd_t, now_us: u64, size: Size, max_bytes: u64) void {
        r.file.init(fd);
        r.header_size = size;
        r.size = size;
        r.start_us = now_us;
        r.last_us = 0;
        r.scanner = .{};
        r.held_len = 0;
        r.held_since_us = 0;
        r.pass = false;
        r.carry = .{};
        r.clear_offset = 0;
        r.clear_on_disk = 0;
        r.max_bytes = max_bytes;
        r.capped = false;
    }

    /// The first line. Words that do not fit are left out at the end.
    pub fn writeHeader(r: *Recorder, it: Header) void {
        var line: Line = .begin(r);
        line.print(
            \\{{"version":2,"width":{d},"height":{d},"timestamp":{d},"command":"
        , .{ it.size.cols, it.size.rows, it.timestamp });
        var carry: utf8.Carry = .{};
        var left: usize = max_event_bytes;
        for (it.command, 0..) |word, i| {
            if (left <= 1) break;
            if (i > 0) {
                line.raw(" ");
                left -= 1;
            }
            const n = @min(word.len, left);
            line.text(word[0..n], &carry);
            line.flushText(&carry);
            left -= n;
        }
        line.raw("\",\"title\":\"");
        line.text(it.title[0..@min(it.title.len, max_held_bytes)], &carry);
        line.flushText(&carry);
        line.raw("\"}\n");
        line.commit();
    }

    /// What the terminal shows.
    pub fn output(r: *Recorder, now_us: u64, bytes: []const u8) void {
        var rest = bytes;
        while (rest.len > 0) {
            const step = r.scanner.next(rest[0..@min(rest.len, max_event_bytes)]);
            const done = step.stable > 0 or r.scanner.betweenSequences();
            if (done) {
                r.outputEvent(now_us, rest[0..step.stable]);
                r.pass = false;
            }
            r.hold(now_us, rest[step.stable..step.len]);
            if (step.prune) r.cleared(now_us);
            rest = rest[step.len..];
        }
    }

    /// Keeps the beginning of a sequence for the next event, within limits.
    fn hold(r: *Recorder, now_us: u64, bytes: []const u8) void {
        if (bytes.len == 0) return;
        if (r.pass or r.held_len + bytes.len > max_held_bytes) {
            r.outputEvent(now_us, bytes);
            r.pass = true;
            return;
        }
        if (r.held_len == 0) r.held_since_us = now_us;
        @memcpy(r.held[r.held_len..][0..bytes.len], bytes);
        r.held_len += bytes.len;
    }

    /// The moment at which `tick` has something to do.
    pub fn deadline(r: *const Recorder) ?u64 {
        // A host gives any times.
        return if (r.held_len > 0) r.held_since_us +| max_held_us else null;
    }

    /// Records a sequence that has waited too long for its end.
    pub fn tick(r: *Recorder, now_us: u64) void {
        const at = r.deadline() orelse return;
        if (now_us < at) return;
        r.outputEvent(now_us, "");
        r.pass = true;
    }

    fn outputEvent(r: *Recorder, now_us: u64, bytes: []const u8) void {
        var line: Line = .begin(r);
        line.print("[{f},\"o\",\"", .{r.time(now_us)});
        const empty = line.len;
        line.text(r.held[0..r.held_len], &r.carry);
        line.text(bytes, &r.carry);
        r.held_len = 0;
        if (line.len == empty) return; // all of it is the beginning of a character
        line.raw("\"]\n");
        r.commitEvent(line);
    }

    /// What somebody typed. `carry` holds the character that the last piece of the same input cut.
    pub fn input(r: *Recorder, now_us: u64, bytes: []const u8, carry: *utf8.Carry) void {
        var rest = bytes;
        while (rest.len > 0) {
            const n = @min(rest.len, max_event_bytes);
            r.inputEvent(now_us, rest[0..n], carry, false);
            rest = rest[n..];
        }
    }

    /// Nothing will complete the character in `carry`.
    pub fn endInput(r: *Recorder, now_us: u64, carry: *utf8.Carry) void {
        if (carry.len > 0) r.inputEvent(now_us, "", carry, true);
    }

    fn inputEvent(
        r: *Recorder,
        now_us: u64,
        bytes: []const u8,
        carry: *utf8.Carry,
        end: bool,
    ) void {
        var line: Line = .begin(r);
        line.print("[{f},\"i\",\"", .{r.time(now_us)});
        const empty = line.len;
        line.text(bytes, carry);
        if (end) line.flushText(carry);
        if (line.len == empty) return;
        line.raw("\"]\n");
        r.commitEvent(line);
    }

    pub fn resize(r: *Recorder, now_us: u64, size: Size) void {
        r.size = size;
        var line: Line = .begin(r);
        line.print("[{f},\"r\",\"{d}x{d}\"]\n", .{ r.time(now_us), size.cols, size.rows });
        r.commitEvent(line);
    }

    /// A place in the recording that players can jump to.
    pub fn marker(r: *Recorder, now_us: u64, label: []const u8) void {
        var line: Line = .begin(r);
        var carry: utf8.Carry = .{};
        line.print("[{f},\"m\",\"", .{r.time(now_us)});
        line.text(label[0..@min(label.len, max_held_bytes)], &carry);
        line.flushText(&carry);
        line.raw("\"]\n");
        r.commitEvent(line);
    }

    /// A viewer may start after the line just written. It will not see earlier resizes: repeat.
    fn cleared(r: *Recorder, now_us: u64) void {
        if (r.capped or r.file.failure != null) return;
        r.clear_offset = r.file.offset();
        if (!r.size.eql(r.header_size)) r.resize(now_us, r.size);
    }

    /// What is still held when the output has ended.
    pub fn endOutput(r: *Recorder, now_us: u64) void {
        if (r.held_len > 0) r.outputEvent(now_us, "");
        if (r.carry.len == 0) return;
        var line: Line = .begin(r);
        line.print("[{f},\"o\",\"", .{r.time(now_us)});
        line.flushText(&r.carry);
        line.raw("\"]\n");
        r.commitEvent(line);
    }

    /// The last line, on disk when this returns. Tried even when the disk was full before.
    pub fn exit(r: *Recorder, code: u8, id: []const u8) void {
        r.flush();
        const failure = r.file.failure;
        r.file.retry();
        var line: Line = .begin(r);
        line.print("[\"exit\",{d},\"{s}\"]\n", .{ code, id });
        line.commit();
        r.file.flush();
        r.file.failure = failure orelse r.file.failure;
    }

    /// Puts all events on disk.
    pub fn flush(r: *Recorder) void {
        r.file.flush();
        // A full disk has cut the file before it: nobody could start there.
        if (r.clear_offset > r.file.written) r.clear_offset = r.clear_on_disk;
        r.clear_on_disk = r.clear_offset;
    }

    pub fn pending(r: *const Recorder) bool {
        return r.file.buffered > 0;
    }

    /// Counts a finished event, unless the limit is reached: then one marker is the last.
    fn commitEvent(r: *Recorder, line: Line) void {
        if (r.capped) return;
        if (r.max_bytes == 0 or r.file.offset() + line.len <= r.max_bytes) return line.commit();
        r.capped = true;
        var last: Line = .begin(r);
        last.print("[{f},\"m\",\"recording stopped: VIBETUNNEL_MAX_CAST_BYTES={d}\"]\n", .{
            Time{ .us = r.last_us }, r.max_bytes,
        });
        last.commit();
    }

    /// Never earlier than the event before.
    fn time(r: *Recorder, now_us: u64) Time {
        r.last_us = @max(r.last_us, now_us -| r.start_us);
        return .{ .us = r.last_us };
    }
};

const Time = struct {
    us: u64,

    pub fn format(t: Time, w: *std.Io.Writer) std.Io.Writer.Error!void {
        try w.print("{d}.{d:0>6}", .{ t.us / std.time.us_per_s, t.us % std.time.us_per_s });
    }
};

/// One line in the making, in the file's own buffer.
const Line = struct {
    file: *cast_file.CastFile,
    bytes: *[cast_file.max_line_bytes]u8,
    len: usize,

    fn begin(r: *Recorder) Line {
        return .{ .file = &r.file, .bytes = r.file.line(), .len = 0 };
    }

    fn print(line: *Line, comptime fmt: []const u8, args: anytype) void {
        const printed = std.fmt.bufPrint(line.bytes[line.len..], fmt, args) catch
            unreachable; // `max_event_bytes` leaves room, see the comptime check above
        line.len += printed.len;
    }

    fn raw(line: *Line, bytes: []const u8) void {
        @memcpy(line.bytes[line.len..][0..bytes.len], bytes);
        line.len += bytes.len;
    }

    fn text(line: *Line, bytes: []const u8, carry: *utf8.Carry) void {
        line.len += json_text.encode(line.bytes[line.len..], bytes, carry);
    }

    fn flushText(line: *Line, carry: *utf8.Carry) void {
        line.len += json_text.flush(line.bytes[line.len..], carry);
    }

    fn commit(line: Line) void {
        line.file.commit(line.len);
    }
};

const testing = std.testing;

/// A recording in a temporary file, and its lines.
const Fixture = struct {
    tmp: testing.TmpDir,
    disk: std.fs.File,
    r: *Recorder,

    fn init(max_bytes: u64) !Fixture {
        var tmp = testing.tmpDir(.{});
        errdefer tmp.cleanup();
        const disk = try tmp.dir.createFile("cast", .{ .read = true });
        const r = try testing.allocator.create(Recorder);
        r.init(disk.handle, 1000, .{ .cols = 80, .rows = 24 }, max_bytes);
        return .{ .tmp = tmp, .disk = disk, .r = r };
    }

    fn deinit(f: *Fixture) void {
        testing.allocator.destroy(f.r);
        f.disk.close();
        f.tmp.cleanup();
    }

    fn expectLines(f: *Fixture, expected: []const u8) !void {
        f.r.flush();
        const text = try f.contents();
        defer testing.allocator.free(text);
        try testing.expectEqualStrings(expected, text);
    }

    fn contents(f: *Fixture) ![]u8 {
        return f.tmp.dir.readFileAlloc(testing.allocator, "cast", 1 << 24);
    }
};

test "a recording has a header, timed events and the exit line last" {
    var f: Fixture = try .init(0);
    defer f.deinit();
    f.r.writeHeader(.{
        .size = .{ .cols = 80, .rows = 24 },
        .timestamp = 1700000000,
        .command = &.{ "sh", "-c", "echo \"\xff\"" },
        .title = "a\"b",
    });
    f.r.output(2_501_000, "hi\r\n");
    f.r.output(2_500_000, "never earlier");
    f.r.resize(3_001_000, .{ .cols = 100, .rows = 40 });
    var carry: utf8.Carry = .{};
    f.r.input(3_001_007, "x\n", &carry);
    f.r.endOutput(4_001_000);
    f.r.exit(7, "fwd_1");
    try f.expectLines(
        \\{"version":2,"width":80,"height":24,"timestamp":1700000000,
    ++
        \\"command":"sh -c echo \"�\"","title":"a\"b"}
        \\[2.500000,"o","hi\r\n"]
        \\[2.500000,"o","never earlier"]
        \\[3.000000,"r","100x40"]
        \\[3.000007,"i","x\n"]
        \\["exit",7,"fwd_1"]
        \\
    );
}

test "characters and sequences split across reads come whole" {
    var f: Fixture = try .init(0);
    defer f.deinit();
    for ([_][]const u8{ "a\xe2", "\x82", "\xac\x1b[3", "1mred\x1b]0;t\xc3", "\xa9\x07z" }) |piece| {
        f.r.output(1000, piece);
    }
    try f.expectLines(
        \\[0.000000,"o","a"]
        \\[0.000000,"o","€"]
        \\[0.000000,"o","\u001b[31mred"]
        \\[0.000000,"o","\u001b]0;té\u0007z"]
        \\
    );
}

test "an event ends after a prune sequence, and the size follows the cut" {
    var f: Fixture = try .init(0);
    defer f.deinit();
    f.r.output(1000, "x\x1b[2Jafter");
    f.r.flush();
    try testing.expectEqual("[0.000000,\"o\",\"x\\u001b[2J\"]\n".len, f.r.clear_offset);
    f.r.resize(1000, .{ .cols = 90, .rows = 30 });
    f.r.output(1000, "\x1b");
    f.r.output(1000, "cz");
    try f.expectLines(
        \\[0.000000,"o","x\u001b[2J"]
        \\[0.000000,"o","after"]
        \\[0.000000,"r","90x30"]
        \\[0.000000,"o","\u001bc"]
        \\[0.000000,"r","90x30"]
        \\[0.000000,"o","z"]
        \\
    );
}

test "a clear that a full disk has cut off is not where a viewer may start" {
    const full = std.fs.openFileAbsolute("/dev/full", .{ .mode = .write_only }) catch
        return error.SkipZigTest; // only Linux has it
    defer full.close();
    var f: Fixture = try .init(0);
    defer f.deinit();
    f.r.output(1000, "x\x1b[2J");
    f.r.flush();
    const first = f.r.clear_offset;
    try testing.expectEqual(first, try f.disk.getEndPos());
    f.r.output(1000, "y\x1b[2J");
    f.r.file.fd = full.handle;
    f.r.flush();
    try testing.expectEqual(first, f.r.clear_offset);
    f.r.output(1000, "z\x1b[2J");
    f.r.exit(0, "id");
    try testing.expectEqual(first, f.r.clear_offset);
}

test "a sequence is held for 50 ms and 4 KiB, then recorded as it is" {
    var f: Fixture = try .init(0);
    defer f.deinit();
    f.r.output(1000, "\x1b]");
    try testing.expectEqual(51_000, f.r.deadline().?);
    f.r.tick(50_999);
    f.r.tick(51_000);
    try testing.expectEqual(null, f.r.deadline());
    f.r.output(52_000, "0;late");
    f.r.output(53_000, "\x07x");
    try f.expectLines(
        \\[0.050000,"o","\u001b]"]
        \\[0.051000,"o","0;late"]
        \\[0.052000,"o","\u0007x"]
        \\
    );
    f.r.output(53_000, "\x1bP" ++ "s" ** 5000);
    try testing.expectEqual(null, f.r.deadline());
    f.r.output(53_000, "s" ** 5000 ++ "\x1b\\");
    f.r.flush();
    const text = try f.contents();
    defer testing.allocator.free(text);
    try testing.expectEqual(10_000, std.mem.count(u8, text, "s"));
}

test "the end flushes what is held, half a character as U+FFFD" {
    var f: Fixture = try .init(0);
    defer f.deinit();
    f.r.output(1000, "\xf0\x9f");
    f.r.endOutput(1000);
    f.r.output(1000, "\x1b[1");
    f.r.endOutput(1000);
    try f.expectLines(
        \\[0.000000,"o","��"]
        \\[0.000000,"o","\u001b[1"]
        \\
    );
}

test "input keeps a character whole over pieces and gives it up at the end" {
    var f: Fixture = try .init(0);
    defer f.deinit();
    var carry: utf8.Carry = .{};
    f.r.input(1000, "\xc3", &carry);
    f.r.input(1000, "\xa9\xc3", &carry);
    f.r.endInput(1000, &carry);
    f.r.endInput(1000, &carry);
    try f.expectLines(
        \\[0.000000,"i","é"]
        \\[0.000000,"i","�"]
        \\
    );
}

test "a capped recording ends with a marker, then only the exit line" {
    var f: Fixture = try .init(60);
    defer f.deinit();
    f.r.output(1000, "1234567890");
    f.r.output(1000, "1234567890");
    f.r.output(1000, "1234567890");
    f.r.output(1000, "x");
    f.r.exit(0, "id");
    try f.expectLines(
        \\[0.000000,"o","1234567890"]
        \\[0.000000,"o","1234567890"]
        \\[0.000000,"m","recording stopped: VIBETUNNEL_MAX_CAST_BYTES=60"]
        \\["exit",0,"id"]
        \\
    );
}

test "whatever the split, the output decodes to the same text" {
    var prng = std.Random.DefaultPrng.init(11);
    const random = prng.random();
    var source: [30_000]u8 = undefined;
    for (&source) |*byte| byte.* = switch (random.int(u3)) {
        0 => random.int(u8),
        1 => "\x1b[]\\2JHc;\x07"[random.uintLessThan(usize, 10)],
        2 => "\xe2\x82\xac"[random.uintLessThan(usize, 3)],
        else => 'a' + random.uintLessThan(u8, 26),
    };
    var expected: [json_text.capacity(source.len)]u8 = undefined;
    var carry: utf8.Carry = .{};
    var len = json_text.encode(&expected, &source, &carry);
    len += json_text.flush(expected[len..], &carry);
    var f: Fixture = try .init(0);
    defer f.deinit();
    var rest: []const u8 = &source;
    while (rest.len > 0) {
        const n = @min(rest.len, random.uintAtMost(usize, if (random.boolean()) 3 else 20_000));
        f.r.output(1000, rest[0..n]);
        rest = rest[n..];
    }
    f.r.endOutput(1000);
    f.r.flush();
    const text = try f.contents();
    defer testing.allocator.free(text);
    var joined: std.ArrayList(u8) = .empty;
    defer joined.deinit(testing.allocator);
    var lines = std.mem.tokenizeScalar(u8, text, '\n');
    while (lines.next()) |line| {
        const start = std.mem.indexOf(u8, line, "\"o\",\"").? + 5;
        try joined.appendSlice(testing.allocator, line[start .. line.len - 2]);
    }
    try testing.expectEqualStrings(expected[0..len], joined.items);
}
