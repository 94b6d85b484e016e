//! What must hold for any bytes from a socket, a program, a session.json or a host, for the fuzzer
//! (`./dev fuzz`).

const std = @import("std");
const posix = std.posix;
const asciicast = @import("asciicast.zig");
const control = @import("control.zig");
const frames = @import("frames.zig");
const json_object = @import("json_object.zig");
const session_json = @import("session_json.zig");
const session_view = @import("session_view.zig");
const start_config = @import("start_config.zig");
const title_filter = @import("title_filter.zig");
const utf8 = @import("utf8.zig");
const Decoder = @import("decoder.zig").Decoder;
const Name = @import("title.zig").Name;
const Scanner = @import("scanner.zig").Scanner;

const Allocator = std.mem.Allocator;
const Bytes = std.ArrayList(u8);

/// Each takes any bytes and returns an error when something is not as it must be.
pub const targets = struct {
    /// What a client sends to a session's socket.
    pub fn frame_stream(gpa: Allocator, bytes: []const u8) !void {
        var expected: Bytes = .empty;
        defer expected.deinit(gpa);
        try modelTranscript(gpa, &expected, bytes);
        for ([_]bool{ false, true }) |in_pieces| {
            var ours: Bytes = .empty;
            defer ours.deinit(gpa);
            try parserTranscript(gpa, &ours, bytes, in_pieces);
            if (!std.mem.eql(u8, ours.items, expected.items)) return error.Parser;
        }
        var ours: Bytes = .empty;
        defer ours.deinit(gpa);
        try decoderTranscript(gpa, &ours, bytes);
        if (!std.mem.eql(u8, ours.items, expected.items)) return error.Decoder;
    }

    /// A message that the server sends, and the names in it.
    pub fn control_message(_: Allocator, text: []const u8) !void {
        const name: Name = .fromJson(text);
        try checkName(&name);
        const same: Name = .fromBytes(text);
        try checkName(&same);
        switch (control.parse(text) orelse return) {
            .resize => |size| if (size.cols == 0 or size.rows == 0) return error.Size,
            .kill => |signal| if (signal == 0 or signal > 64) return error.Signal,
            .reset_size => {},
            .update_title => |title| try checkName(&title),
        }
    }

    /// A program's output without its titles.
    pub fn titles(gpa: Allocator, bytes: []const u8) !void {
        if (bytes.len > 4096) return; // longer titles are given up on purpose
        var whole: Bytes = .empty;
        defer whole.deinit(gpa);
        var cut: Bytes = .empty;
        defer cut.deinit(gpa);
        try filterTitles(gpa, &whole, bytes, false);
        try filterTitles(gpa, &cut, bytes, true);
        if (!std.mem.eql(u8, whole.items, cut.items)) return error.DependsOnPieces;
        if (whole.items.len > bytes.len) return error.Longer;
        var before: Terminal = .{};
        defer before.deinit(gpa);
        try before.show(gpa, bytes);
        var after: Terminal = .{};
        defer after.deinit(gpa);
        try after.show(gpa, whole.items);
        if (after.titles > 0) return error.TitleLeft;
        if (!std.mem.eql(u8, before.shown.items, after.shown.items)) return error.ShowsOther;
        for ([_][]const u8{ "\x1b]0;", "\x1b]1;", "\x1b]2;" }) |start| {
            if (std.mem.indexOf(u8, bytes, start) != null) break;
        } else if (!std.mem.eql(u8, whole.items, bytes)) return error.Changed;
    }

    /// Where sequences end, and where the screen was cleared.
    pub fn scan(gpa: Allocator, bytes: []const u8) !void {
        var terminal: Terminal = .{};
        defer terminal.deinit(gpa);
        try terminal.show(gpa, bytes);
        for ([_]bool{ false, true }) |in_pieces| {
            var scanner: Scanner = .{};
            var prunes: std.ArrayList(usize) = .empty;
            defer prunes.deinit(gpa);
            var stable: usize = 0;
            var at: usize = 0;
            var pieces: Pieces = .init(bytes, in_pieces);
            while (pieces.next()) |piece| {
                var rest = piece;
                while (rest.len > 0) {
                    const step = scanner.next(rest);
                    if (step.len == 0 or step.stable > step.len) return error.Step;
                    if (step.stable > 0) stable = at + step.stable;
                    at += step.len;
                    if (step.prune) try prunes.append(gpa, at);
                    rest = rest[step.len..];
                }
            }
            if (scanner.betweenSequences() != (terminal.state == .ground)) return error.Between;
            if (scanner.betweenSequences() and stable != bytes.len) return error.Stable;
            if (!std.mem.eql(usize, prunes.items, terminal.prunes.items)) return error.Prunes;
        }
    }

    /// A recording of output, input, sizes and markers.
    pub fn recorder(gpa: Allocator, bytes: []const u8) !void {
        if (bytes.len > 8192) return; // the pieces of longer ones add nothing
        var expected: Bytes = .empty;
        defer expected.deinit(gpa);
        try modelText(gpa, &expected, bytes);
        var whole: Recording = .{};
        defer whole.deinit(gpa);
        try whole.record(gpa, bytes, false, 0);
        var cut: Recording = .{};
        defer cut.deinit(gpa);
        try cut.record(gpa, bytes, true, 0);
        if (!std.mem.eql(u8, whole.output.items, expected.items)) return error.Output;
        if (!std.mem.eql(u8, cut.output.items, expected.items)) return error.OutputInPieces;
        if (!std.mem.eql(u8, cut.input.items, expected.items)) return error.Input;
        if (whole.after_clear != cut.after_clear) return error.ClearOffset;
        var capped: Recording = .{};
        defer capped.deinit(gpa);
        const limit = 64 + bytes.len / 2;
        try capped.record(gpa, bytes, true, limit);
        if (!std.mem.startsWith(u8, expected.items, capped.output.items)) return error.Capped;
        if (capped.size > @max(limit, capped.header_size) + 200) return error.OverTheLimit;
    }

    /// The file of a session, which others write too.
    pub fn session_file(gpa: Allocator, text: []const u8) !void {
        var arena_state: std.heap.ArenaAllocator = .init(gpa);
        defer arena_state.deinit();
        const arena = arena_state.allocator();
        const expected = try modelObject(arena, text);
        const updated = session_json.update(gpa, text, &new_fields) catch |err| switch (err) {
            error.OutOfMemory => return err,
            error.InvalidJson => {
                // One bit for each level of nesting.
                if (expected != null and std.mem.count(u8, text, "[") +
                    std.mem.count(u8, text, "{") <= 4096) return error.Refused;
                return;
            },
        };
        defer gpa.free(updated);
        try checkUpdated(arena, expected orelse return error.Accepted, updated);
        const again = try session_json.update(gpa, updated, &new_fields);
        defer gpa.free(again);
        if (!std.mem.eql(u8, updated, again)) return error.NotStable;

        const view = try session_view.normalise(arena, "id", text, &isAlive);
        const seen = try modelObject(arena, view) orelse return error.View;
        if (seen.count() != 20) return error.ViewMembers;
        if (!std.mem.eql(u8, seen.get("id").?.string, "id")) return error.ViewId;
        const status = seen.get("status").?;
        if (status == .string and std.mem.eql(u8, status.string, "running")) {
            const pid = seen.get("pid").?;
            if (pid == .number_string and !std.mem.eql(u8, pid.number_string, "1")) {
                return error.ViewDead;
            }
        }
    }

    /// What a host asks of a session.
    pub fn config(gpa: Allocator, text: []const u8) !void {
        var arena_state: std.heap.ArenaAllocator = .init(gpa);
        defer arena_state.deinit();
        const arena = arena_state.allocator();
        var problem: start_config.Problem = .{};
        const read = start_config.parse(arena, text, &problem) catch |err| switch (err) {
            error.OutOfMemory => return err,
            error.InvalidConfig => {
                if (problem.cause.len == 0) return error.NoCause;
                for (problem.key()) |byte| if (std.ascii.isControl(byte)) return error.Key;
                return;
            },
        };
        if (read.argv.len == 0 or read.size.cols == 0 or read.size.rows == 0) return error.Config;
        const tree = try modelObject(arena, text) orelse return error.Accepted;
        const words = tree.get("argv").?.array.items;
        if (words.len != read.argv.len) return error.Argv;
        for (words, read.argv) |word, ours| {
            if (!std.mem.eql(u8, word.string, ours)) return error.Argv;
            if (std.mem.indexOfScalar(u8, ours, 0) != null) return error.Nul; // C would cut it
        }
        for (read.env orelse return) |entry| {
            const line = std.mem.span(entry);
            const equals = std.mem.indexOfScalar(u8, line, '=') orelse return error.Env;
            const value = tree.get("env").?.object.get(line[0..equals]) orelse return error.Env;
            if (!std.mem.eql(u8, value.string, line[equals + 1 ..])) return error.Env;
        }
    }
};

/// Bytes as they might arrive: in pieces of any size, the same ones for the same bytes.
const Pieces = struct {
    rest: []const u8,
    prng: ?std.Random.DefaultPrng,

    fn init(bytes: []const u8, cut: bool) Pieces {
        return .{
            .rest = bytes,
            .prng = if (cut) .init(std.hash.Wyhash.hash(0, bytes)) else null,
        };
    }

    fn next(pieces: *Pieces) ?[]const u8 {
        if (pieces.rest.len == 0) return null;
        var len = pieces.rest.len;
        if (pieces.prng) |*prng| {
            const most = @min(len, @as(usize, 1) << prng.random().int(u3));
            len = prng.random().intRangeAtMost(usize, 1, most);
        }
        const piece = pieces.rest[0..len];
        pieces.rest = pieces.rest[len..];
        return piece;
    }
};

// ---------------------------------------------------------------- frames

/// Events as text: typed bytes with '|' at the end of their frame, <a message>, '!' for a
/// heartbeat, '#' for a length beyond the limits.
fn modelTranscript(gpa: Allocator, out: *Bytes, bytes: []const u8) !void {
    var rest = bytes;
    while (rest.len >= frames.header_bytes) {
        const kind = rest[0];
        const len = std.mem.readInt(u32, rest[1..5], .big);
        const limit: u32 = if (kind == 1) frames.max_input_bytes else frames.max_payload_bytes;
        if (len > limit) return out.append(gpa, '#');
        const payload = rest[frames.header_bytes..@min(rest.len, frames.header_bytes + len)];
        const is_whole = payload.len == len;
        if (kind == 1) try out.appendSlice(gpa, payload);
        if (kind == 1 and is_whole and len > 0) try out.append(gpa, '|');
        if (kind == 2 and is_whole) try out.print(gpa, "<{s}>", .{payload});
        if (kind == 4 and is_whole) try out.append(gpa, '!');
        if (!is_whole) return;
        rest = rest[frames.header_bytes + len ..];
    }
}

fn parserTranscript(gpa: Allocator, out: *Bytes, bytes: []const u8, in_pieces: bool) !void {
    var parser: frames.Parser = .{ .gpa = gpa };
    defer parser.deinit();
    var pieces: Pieces = .init(bytes, in_pieces);
    while (pieces.next()) |piece| {
        var rest = piece;
        while (true) {
            const room: usize = if (in_pieces) 3 else bytes.len;
            const step = parser.next(rest, room);
            if (step.used > rest.len) return error.PastTheEnd;
            rest = rest[step.used..];
            switch (step.event) {
                .none => break,
                .input => |input| {
                    if (input.bytes.len == 0 or input.bytes.len > room) return error.Room;
                    try out.appendSlice(gpa, input.bytes);
                    if (input.last) try out.append(gpa, '|');
                },
                .control => |text| try out.print(gpa, "<{s}>", .{text}),
                .heartbeat => try out.append(gpa, '!'),
                .oversized => return out.append(gpa, '#'),
            }
        }
        if (rest.len > 0) return error.NotUsed;
    }
}

fn decoderTranscript(gpa: Allocator, out: *Bytes, bytes: []const u8) !void {
    var decoder: Decoder = .{ .parser = .{ .gpa = gpa } };
    defer decoder.forget();
    var room: [7]u8 = undefined;
    var pieces: Pieces = .init(bytes, true);
    while (pieces.next()) |piece| {
        var rest = piece;
        while (true) {
            const step = decoder.next(rest, &room);
            if (step.used > rest.len) return error.PastTheEnd;
            rest = rest[step.used..];
            switch (step.event) {
                .none => break,
                .input => |input| {
                    try out.appendSlice(gpa, room[0..input.len]);
                    if (input.last) try out.append(gpa, '|');
                },
                .control => |len| try out.print(gpa, "<{s}>", .{room[0..len]}),
                .too_small => |needed| {
                    const large = try gpa.alloc(u8, needed);
                    defer gpa.free(large);
                    const again = decoder.next(rest, large);
                    if (again.used != 0 or again.event.control != needed) return error.TooSmall;
                    try out.print(gpa, "<{s}>", .{large});
                },
                .heartbeat => try out.append(gpa, '!'),
                .oversized => return out.append(gpa, '#'),
            }
        }
    }
}

fn checkName(name: *const Name) !void {
    const text = name.slice();
    const characters = std.unicode.utf8CountCodepoints(text) catch return error.NameUtf8;
    if (characters > @import("title.zig").max_characters) return error.NameLength;
    var view: std.unicode.Utf8Iterator = .{ .bytes = text, .i = 0 };
    while (view.nextCodepoint()) |c| {
        if (c < 0x20 or (c >= 0x7f and c < 0xa0)) return error.NameControl;
    }
    const again: Name = .fromBytes(text);
    if (!again.eql(name)) return error.NameNotStable;
    var buffer: [control.max_update_title_bytes]u8 = undefined;
    const message = control.updateTitle(&buffer, name);
    const read = control.parse(message) orelse return error.UpdateTitle;
    if (!read.update_title.eql(name)) return error.UpdateTitle;
}

// ---------------------------------------------------------------- terminal output

fn filterTitles(gpa: Allocator, out: *Bytes, bytes: []const u8, in_pieces: bool) !void {
    var filter: title_filter.TitleFilter = .{};
    var pieces: Pieces = .init(bytes, in_pieces);
    while (pieces.next()) |piece| {
        // The exact room, so that a write beyond it is caught.
        const room = try out.addManyAsSlice(gpa, piece.len + title_filter.max_held);
        const n = filter.filter(room, piece);
        out.items.len -= room.len - n;
    }
    const room = try out.addManyAsSlice(gpa, title_filter.max_held);
    out.items.len -= room.len - filter.flush(room);
}

/// What a terminal makes of a program's output: the text and finished sequences that it obeys,
/// in a form of their own. A sequence that another one, CAN or SUB interrupts counts for nothing;
/// a string that an escape interrupts has ended (vt100.net's parser of DEC terminals).
const Terminal = struct {
    state: State = .ground,
    shown: Bytes = .empty,
    /// The sequence so far, without its ESC.
    sequence: Bytes = .empty,
    /// Sequences that set a title, in the form that programs write.
    titles: usize = 0,
    /// Offsets behind sequences that clear the screen.
    prunes: std.ArrayList(usize) = .empty,
    after_home: bool = false,

    const State = enum { ground, escape, intermediate, csi, osc, string, string_escape };

    fn deinit(t: *Terminal, gpa: Allocator) void {
        t.shown.deinit(gpa);
        t.sequence.deinit(gpa);
        t.prunes.deinit(gpa);
    }

    fn show(t: *Terminal, gpa: Allocator, bytes: []const u8) !void {
        for (bytes, 1..) |byte, at| if (try t.put(gpa, byte)) try t.prunes.append(gpa, at);
    }

    /// True when the byte ends a sequence that clears.
    fn put(t: *Terminal, gpa: Allocator, byte: u8) !bool {
        if (t.state == .ground and byte != 0x1b) {
            t.after_home = false;
            try t.shown.append(gpa, byte);
            return false;
        }
        if (t.state == .string_escape and byte != '\\') {
            try t.finish(gpa);
            t.state = .escape;
        }
        if (byte == 0x1b) {
            if (t.state == .osc or t.state == .string) {
                t.state = .string_escape;
                return false;
            }
            t.state = .escape;
            t.sequence.clearRetainingCapacity();
            return false;
        }
        if (byte == 0x18 or byte == 0x1a) {
            t.sequence.clearRetainingCapacity();
            t.state = .ground;
            t.after_home = false;
            return false;
        }
        switch (t.state) {
            .ground => unreachable, // dealt with above
            .string_escape => { // "ESC \"
                try t.finish(gpa);
                t.after_home = false;
                return false;
            },
            .escape, .intermediate, .csi => if (byte < 0x20) {
                // Obeyed in between; and no program writes a title in this way.
                try t.shown.append(gpa, byte);
                try t.sequence.append(gpa, byte);
                return false;
            },
            .osc, .string => {},
        }
        try t.sequence.append(gpa, byte);
        switch (t.state) {
            .escape => switch (byte) {
                '[' => t.state = .csi,
                ']' => t.state = .osc,
                'P', 'X', '^', '_' => t.state = .string,
                0x20...0x2f => t.state = .intermediate,
                else => return t.end(gpa, byte == 'c'),
            },
            .intermediate => if (byte > 0x2f) return t.end(gpa, false),
            .csi => if (byte >= 0x80) {
                return t.end(gpa, false);
            } else if (byte >= 0x40 and byte != 0x7f) {
                return t.end(gpa, t.clears());
            },
            .osc => if (byte == 0x07) {
                t.sequence.items.len -= 1;
                return t.end(gpa, false);
            },
            .string => {},
            .ground, .string_escape => unreachable, // dealt with above
        }
        return false;
    }

    fn clears(t: *const Terminal) bool {
        const clearing = [_][]const u8{ "[2J", "[3J", "[?1049h", "[?1049l", "[?47h", "[?47l" };
        for (clearing) |text| if (t.isCsi(text)) return true;
        return t.after_home and t.isCsi("[J");
    }

    fn isCsi(t: *const Terminal, text: []const u8) bool {
        const start = std.mem.indexOfScalar(u8, t.sequence.items, '[') orelse return false;
        return t.state == .csi and std.mem.eql(u8, t.sequence.items[start..], text);
    }

    fn end(t: *Terminal, gpa: Allocator, clear: bool) !bool {
        t.after_home = t.isCsi("[H");
        try t.finish(gpa);
        return clear;
    }

    fn finish(t: *Terminal, gpa: Allocator) !void {
        t.state = .ground;
        defer t.sequence.clearRetainingCapacity();
        const text = t.sequence.items;
        if (std.mem.eql(u8, text, "\\")) return; // the end of a string that is none
        for ([_][]const u8{ "]0;", "]1;", "]2;" }) |start| {
            if (!std.mem.startsWith(u8, text, start)) continue;
            t.titles += 1;
            return;
        }
        try t.shown.print(gpa, "\x1b{s}\x1b", .{text});
    }
};

// ---------------------------------------------------------------- recordings

/// Text as it is, and U+FFFD for every byte that is not UTF-8.
fn modelText(gpa: Allocator, out: *Bytes, bytes: []const u8) !void {
    var i: usize = 0;
    while (i < bytes.len) {
        const len = std.unicode.utf8ByteSequenceLength(bytes[i]) catch 1;
        const character = bytes[i..@min(bytes.len, i + len)];
        if (character.len == len and std.unicode.utf8ValidateSlice(character)) {
            try out.appendSlice(gpa, character);
            i += len;
        } else {
            try out.appendSlice(gpa, "\u{fffd}");
            i += 1;
        }
    }
}

/// One for all runs: it is large.
var the_recorder: asciicast.Recorder = undefined;
var the_file: ?posix.fd_t = null;

const Recording = struct {
    output: Bytes = .empty,
    input: Bytes = .empty,
    /// How much output comes after the place where a viewer may start.
    after_clear: usize = 0,
    size: u64 = 0,
    header_size: u64 = 0,

    fn deinit(recording: *Recording, gpa: Allocator) void {
        recording.output.deinit(gpa);
        recording.input.deinit(gpa);
    }

    fn record(
        recording: *Recording,
        gpa: Allocator,
        bytes: []const u8,
        in_pieces: bool,
        max_bytes: u64,
    ) !void {
        const fd = the_file orelse try posix.memfd_create("cast", 0);
        the_file = fd;
        try posix.ftruncate(fd, 0);
        try posix.lseek_SET(fd, 0);
        const r = &the_recorder;
        r.init(fd, 1000, .{ .cols = 80, .rows = 24 }, max_bytes);
        const word = try gpa.dupeZ(u8, bytes);
        defer gpa.free(word);
        r.writeHeader(.{
            .size = .{ .cols = 80, .rows = 24 },
            .timestamp = 1,
            .command = &.{ word, "x" },
            .title = bytes,
        });
        recording.header_size = r.file.offset();

        var now_us: u64 = 1000;
        var carry: utf8.Carry = .{};
        var pieces: Pieces = .init(bytes, in_pieces);
        while (pieces.next()) |piece| {
            r.output(now_us, piece);
            if (!in_pieces) continue;
            r.input(now_us, piece, &carry);
            switch (piece[0] % 8) {
                0 => r.resize(now_us, .{ .cols = 1 + @as(u16, piece[0]), .rows = 2 }),
                1 => r.marker(now_us, piece),
                2, 3 => {
                    now_us += 30_000;
                    r.tick(now_us);
                },
                4 => r.flush(),
                else => {},
            }
        }
        r.endInput(now_us, &carry);
        r.endOutput(now_us);
        r.exit(7, "id");
        if (r.file.failure != null) return error.NotWritten;
        try recording.read(gpa, fd, r.clear_offset);
    }

    fn read(recording: *Recording, gpa: Allocator, fd: posix.fd_t, clear_offset: u64) !void {
        const file: std.fs.File = .{ .handle = fd };
        recording.size = try file.getEndPos();
        const text = try gpa.alloc(u8, recording.size);
        defer gpa.free(text);
        if (try file.preadAll(text, 0) != text.len) return error.Short;
        if (text.len == 0 or text[text.len - 1] != '\n') return error.LastLine;
        var offset: u64 = 0;
        var before_clear: usize = 0;
        var last_time: f64 = 0;
        var arena: std.heap.ArenaAllocator = .init(gpa);
        defer arena.deinit();
        var lines = std.mem.splitScalar(u8, text[0 .. text.len - 1], '\n');
        while (lines.next()) |line| {
            if (offset == clear_offset) before_clear = recording.output.items.len;
            if (offset < clear_offset and offset + line.len + 1 > clear_offset) {
                return error.ClearWithinALine;
            }
            _ = arena.reset(.retain_capacity);
            const value = try std.json.parseFromSliceLeaky(
                std.json.Value,
                arena.allocator(),
                line,
                .{},
            );
            try recording.readLine(gpa, value, offset, lines.peek() == null, &last_time);
            offset += line.len + 1;
        }
        recording.after_clear = recording.output.items.len - before_clear;
    }

    fn readLine(
        recording: *Recording,
        gpa: Allocator,
        line: std.json.Value,
        offset: u64,
        is_last: bool,
        last_time: *f64,
    ) !void {
        if ((line == .object) != (offset == 0)) return error.Header;
        if (line == .object) return;
        const event = line.array.items;
        if (event.len != 3) return error.Event;
        if ((event[0] == .string) != is_last) return error.ExitLine;
        if (is_last) return;
        const time = event[0].float;
        if (time < last_time.*) return error.TimeRunsBack;
        last_time.* = time;
        switch (event[1].string[0]) {
            'o' => try recording.output.appendSlice(gpa, event[2].string),
            'i' => try recording.input.appendSlice(gpa, event[2].string),
            'r', 'm' => {},
            else => return error.Code,
        }
    }
};

// ---------------------------------------------------------------- JSON

const new_fields = [_]session_json.Field{
    .{ .key = "status", .value = .{ .string = "exited" } },
    .{ .key = "exitCode", .value = .{ .integer = -3 } },
    .{ .key = "name", .value = .{ .string = "a\"\xff\n" } },
    .{ .key = "command", .value = .{ .strings = &.{ "sh", "\\" } } },
    .{ .key = "attachedViaVT", .value = .{ .boolean = true } },
    .{ .key = "gitRepoPath", .value = .absent },
};

fn isAlive(pid: i64) bool {
    return pid == 1;
}

fn modelObject(arena: Allocator, text: []const u8) !?std.json.ObjectMap {
    const tree = std.json.parseFromSliceLeaky(std.json.Value, arena, text, .{
        .parse_numbers = false,
        .duplicate_field_behavior = .use_last,
    }) catch |err| return if (err == error.OutOfMemory) error.OutOfMemory else null;
    return if (tree == .object) tree.object else null;
}

/// What we set is there, and all else is as it was.
fn checkUpdated(arena: Allocator, old: std.json.ObjectMap, text: []const u8) !void {
    const updated = try modelObject(arena, text) orelse return error.UpdatedIsNoJson;
    var expected: usize = 0;
    var members = old.iterator();
    while (members.next()) |member| {
        const name = member.key_ptr.*;
        if (isOurs(name)) continue;
        expected += 1;
        const kept = updated.get(name) orelse return error.Lost;
        const before = try std.json.Stringify.valueAlloc(arena, member.value_ptr.*, .{});
        const after = try std.json.Stringify.valueAlloc(arena, kept, .{});
        if (!std.mem.eql(u8, before, after)) return error.ForeignValue;
    }
    if (updated.count() != expected + new_fields.len - 1) return error.Count;
    if (!std.mem.eql(u8, updated.get("status").?.string, "exited")) return error.Status;
    if (!std.mem.eql(u8, updated.get("name").?.string, "a\"\u{fffd}\n")) return error.Name;
    if (!std.mem.eql(u8, updated.get("exitCode").?.number_string, "-3")) return error.ExitCode;
    if (updated.get("command").?.array.items.len != 2) return error.Command;
    if (updated.get("gitRepoPath") != null) return error.NotRemoved;
    const found = try json_object.find(text, "exitCode") orelse return error.Find;
    if (found.integer() != -3) return error.Find;
    var count: usize = 0;
    var each: json_object.Members = undefined;
    try each.init(text);
    while (try each.next()) |member| {
        for (new_fields) |field| count += @intFromBool(member.hasKey(field.key));
    }
    if (count != new_fields.len - 1) return error.OurKeyTwice;
}

fn isOurs(name: []const u8) bool {
    return for (new_fields) |field| {
        if (std.mem.eql(u8, field.key, name)) break true;
    } else false;
}
