//! The frames of a session's socket: a type, a big-endian length, a payload. They arrive split
//! anywhere and several at once. Typed text is passed on as it comes, whatever its length; a
//! control message is collected whole; everything else is skipped.

const std = @import("std");

/// Typed text longer than this is no paste of the web page, which sends at most 10 MB.
pub const max_input_bytes = 16 * 1024 * 1024;
/// The longest payload of every other frame.
pub const max_payload_bytes = 1024 * 1024;
/// Control messages up to this length need no allocation; real ones have some fifty bytes.
const inline_bytes = 1024;

pub const header_bytes = 5;

pub const Kind = enum(u8) {
    input = 1,
    control = 2,
    heartbeat = 4,
    /// Status updates, errors, and what later versions may send.
    _,
};

/// The answer to a heartbeat, which is the same frame.
pub const heartbeat = [header_bytes]u8{ @intFromEnum(Kind.heartbeat), 0, 0, 0, 0 };

pub fn writeHeader(out: *[header_bytes]u8, kind: Kind, length: usize) void {
    out[0] = @intFromEnum(kind);
    std.mem.writeInt(u32, out[1..5], @intCast(length), .big);
}

pub const Event = union(enum) {
    /// Nothing further can be said about these bytes.
    none,
    input: Input,
    /// The whole payload. It is valid until the next call.
    control: []const u8,
    heartbeat,
    /// The length is absurd: what follows cannot be trusted, the connection is over.
    oversized,

    pub const Input = struct {
        bytes: []const u8,
        /// The frame ends with these bytes.
        last: bool,
    };
};

pub const Step = struct {
    /// How many bytes were used up.
    used: usize,
    event: Event,
};

pub const Parser = struct {
    gpa: std.mem.Allocator,
    header: [header_bytes]u8 = undefined,
    header_len: usize = 0,
    /// What is missing of the payload; meaningful when the header is whole.
    missing: usize = 0,
    /// The control message so far.
    inline_buffer: [inline_bytes]u8 = undefined,
    large: ?[]u8 = null,
    collected: usize = 0,

    pub fn deinit(parser: *Parser) void {
        parser.release();
    }

    /// Looks at `bytes` up to the next event. Of typed text at most `input_room` bytes are taken.
    pub fn next(parser: *Parser, bytes: []const u8, input_room: usize) Step {
        var used: usize = 0;
        while (true) {
            if (parser.header_len < header_bytes) {
                if (parser.header_len == 0) parser.release();
                const n = @min(header_bytes - parser.header_len, bytes.len - used);
                @memcpy(parser.header[parser.header_len..][0..n], bytes[used..][0..n]);
                parser.header_len += n;
                used += n;
                if (parser.header_len < header_bytes) return .{ .used = used, .event = .none };
                if (!parser.begin()) return .{ .used = used, .event = .oversized };
            }
            const available = bytes[used..@min(bytes.len, used + parser.missing)];
            const step = parser.payload(available, input_room);
            used += step.used;
            if (step.event != .none) return .{ .used = used, .event = step.event };
            if (parser.header_len > 0) return .{ .used = used, .event = .none };
        }
    }

    fn kind(parser: *const Parser) Kind {
        return @enumFromInt(parser.header[0]);
    }

    /// The header is whole. False when its length is beyond the limit.
    fn begin(parser: *Parser) bool {
        const length = std.mem.readInt(u32, parser.header[1..5], .big);
        const limit: u32 = if (parser.kind() == .input) max_input_bytes else max_payload_bytes;
        if (length > limit) return false;
        parser.missing = length;
        parser.collected = 0;
        if (parser.kind() == .control and length > inline_bytes) {
            parser.large = parser.gpa.alloc(u8, length) catch null; // then it is skipped
        }
        return true;
    }

    fn payload(parser: *Parser, available: []const u8, input_room: usize) Step {
        switch (parser.kind()) {
            .input => {
                const n = @min(available.len, input_room);
                parser.missing -= n;
                const last = parser.missing == 0;
                if (last) parser.header_len = 0;
                if (n == 0) return .{ .used = 0, .event = .none };
                return .{ .used = n, .event = .{ .input = .{
                    .bytes = available[0..n],
                    .last = last,
                } } };
            },
            .control => parser.collect(available),
            .heartbeat, _ => {},
        }
        parser.missing -= available.len;
        if (parser.missing > 0) return .{ .used = available.len, .event = .none };
        parser.header_len = 0;
        return .{ .used = available.len, .event = switch (parser.kind()) {
            .control => if (parser.message()) |whole| .{ .control = whole } else .none,
            .heartbeat => .heartbeat,
            .input, _ => .none,
        } };
    }

    fn collect(parser: *Parser, bytes: []const u8) void {
        const length = parser.collected + parser.missing;
        if (parser.large == null and length > inline_bytes) return; // skipped
        const target = parser.large orelse parser.inline_buffer[0..length];
        @memcpy(target[parser.collected..][0..bytes.len], bytes);
        parser.collected += bytes.len;
    }

    /// The control message, unless there was no memory for it.
    pub fn message(parser: *Parser) ?[]const u8 {
        if (parser.large) |large| return large;
        const length = std.mem.readInt(u32, parser.header[1..5], .big);
        return if (length > inline_bytes) null else parser.inline_buffer[0..length];
    }

    fn release(parser: *Parser) void {
        if (parser.large) |large| parser.gpa.free(large);
        parser.large = null;
    }
};

const testing = std.testing;

/// What `pieces` say, as text.
fn transcript(out: *std.ArrayList(u8), pieces: []const []const u8, room: usize) !void {
    var parser: Parser = .{ .gpa = testing.allocator };
    defer parser.deinit();
    for (pieces) |piece| {
        var rest = piece;
        while (true) {
            const step = parser.next(rest, room);
            try testing.expect(step.used <= rest.len);
            rest = rest[step.used..];
            switch (step.event) {
                .none => break,
                .input => |input| {
                    try testing.expect(input.bytes.len > 0 and input.bytes.len <= room);
                    try out.appendSlice(testing.allocator, input.bytes);
                    if (input.last) try out.append(testing.allocator, '|');
                },
                .control => |text| try out.print(testing.allocator, "<{s}>", .{text}),
                .heartbeat => try out.append(testing.allocator, '!'),
                .oversized => return out.append(testing.allocator, '#'),
            }
        }
        try testing.expectEqual(0, rest.len);
    }
}

fn expectTranscript(expected: []const u8, pieces: []const []const u8) !void {
    var out: std.ArrayList(u8) = .empty;
    defer out.deinit(testing.allocator);
    try transcript(&out, pieces, 1 << 20);
    try testing.expectEqualStrings(expected, out.items);
}

fn frame(comptime kind: u8, comptime payload: []const u8) []const u8 {
    var length: [4]u8 = undefined;
    std.mem.writeInt(u32, &length, payload.len, .big);
    const bytes = [_]u8{kind} ++ length ++ payload[0..payload.len].*;
    return &bytes;
}

test "frames are understood however they are split" {
    const text = comptime frame(2, "{\"a\":1}") ++ frame(1, "hi") ++ frame(4, "") ++
        frame(3, "status") ++ frame(0xff, "?") ++ frame(1, "") ++ frame(2, "") ++
        frame(4, "ignored") ++ frame(5, "") ++ frame(0, "x");
    var joined: std.ArrayList(u8) = .empty;
    defer joined.deinit(testing.allocator);
    const expected = "<{\"a\":1}>hi|!<>!";
    for (0..text.len + 1) |i| {
        for (i..text.len + 1) |j| {
            joined.clearRetainingCapacity();
            try transcript(&joined, &.{ text[0..i], text[i..j], text[j..] }, 1 << 20);
            // A split within typed text is no end of the frame.
            try testing.expectEqualStrings(expected, joined.items);
        }
    }
}

test "one byte at a time" {
    const text = comptime frame(4, "") ++ frame(1, "abc") ++ frame(2, "{}");
    var pieces: [text.len][]const u8 = undefined;
    for (&pieces, 0..) |*piece, i| piece.* = text[i..][0..1];
    try expectTranscript("!abc|<{}>", &pieces);
}

test "typed text is taken as far as there is room" {
    var parser: Parser = .{ .gpa = testing.allocator };
    const text = comptime frame(1, "abcdef") ++ frame(4, "");
    const first = parser.next(text, 4);
    try testing.expectEqualStrings("abcd", first.event.input.bytes);
    try testing.expect(!first.event.input.last);
    const full = parser.next(text[first.used..], 0);
    try testing.expectEqual(Step{ .used = 0, .event = .none }, full);
    const second = parser.next(text[first.used..], 4);
    try testing.expectEqualStrings("ef", second.event.input.bytes);
    try testing.expect(second.event.input.last);
    try testing.expectEqual(.heartbeat, parser.next(text[first.used + second.used ..], 0).event);
}

test "lengths beyond the limits end the connection, lengths at them do not" {
    const cases = [_]struct { [5]u8, bool }{
        .{ .{ 2, 0x00, 0x10, 0x00, 0x00 }, false },
        .{ .{ 2, 0x00, 0x10, 0x00, 0x01 }, true },
        .{ .{ 4, 0x00, 0x10, 0x00, 0x01 }, true },
        .{ .{ 9, 0x00, 0x10, 0x00, 0x01 }, true },
        .{ .{ 1, 0x01, 0x00, 0x00, 0x00 }, false },
        .{ .{ 1, 0x01, 0x00, 0x00, 0x01 }, true },
        .{ .{ 0xff, 0xff, 0xff, 0xff, 0xff }, true },
    };
    for (cases) |case| {
        var parser: Parser = .{ .gpa = testing.allocator };
        defer parser.deinit();
        try testing.expectEqual(case[1], parser.next(&case[0], 1).event == .oversized);
    }
}

test "a long control message is collected, and skipped when there is no memory" {
    const text = comptime frame(2, "x" ** 5000) ++ frame(4, "");
    try expectTranscript("<" ++ "x" ** 5000 ++ ">!", &.{ text[0..7], text[7..3000], text[3000..] });
    var parser: Parser = .{ .gpa = testing.failing_allocator };
    const step = parser.next(text, 1);
    try testing.expectEqual(.heartbeat, step.event);
    try testing.expectEqual(text.len, step.used);
}

test "random bytes never crash it nor move it past the end" {
    var prng = std.Random.DefaultPrng.init(5);
    const random = prng.random();
    for (0..500) |_| {
        var bytes: [300]u8 = undefined;
        random.bytes(&bytes);
        for (0..40) |_| bytes[random.uintLessThan(usize, bytes.len)] = random.int(u2);
        var out: std.ArrayList(u8) = .empty;
        defer out.deinit(testing.allocator);
        const cut = random.uintAtMost(usize, bytes.len);
        try transcript(&out, &.{ bytes[0..cut], bytes[cut..] }, 7000);
    }
}
