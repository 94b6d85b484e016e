//! A frame parser for callers with a buffer of their own: typed text in pieces that fit it, a
//! control message whole, again and again until there is room for it.

const std = @import("std");
const frames = @import("frames.zig");

pub const Step = struct {
    used: usize,
    event: Event,
};

pub const Event = union(enum) {
    none,
    input: struct { len: usize, last: bool },
    /// Bytes written to `out`.
    control: usize,
    heartbeat,
    /// The control message needs this much room.
    too_small: usize,
    oversized,
};

pub const Decoder = struct {
    parser: frames.Parser,
    /// A message that waits for room; it lies in the parser.
    waiting: ?usize = null,
    over: bool = false,

    pub fn next(decoder: *Decoder, bytes: []const u8, out: []u8) Step {
        if (decoder.over) return .{ .used = 0, .event = .oversized };
        if (decoder.waiting != null) return .{ .used = 0, .event = decoder.deliver(out) };
        const step = decoder.parser.next(bytes, out.len);
        const event: Event = switch (step.event) {
            .none => .none,
            .heartbeat => .heartbeat,
            .input => |it| input: {
                @memcpy(out[0..it.bytes.len], it.bytes);
                break :input .{ .input = .{ .len = it.bytes.len, .last = it.last } };
            },
            .control => |text| control: {
                decoder.waiting = text.len;
                break :control decoder.deliver(out);
            },
            .oversized => over: {
                decoder.over = true;
                break :over .oversized;
            },
        };
        return .{ .used = step.used, .event = event };
    }

    fn deliver(decoder: *Decoder, out: []u8) Event {
        const length = decoder.waiting.?;
        if (out.len < length) return .{ .too_small = length };
        decoder.waiting = null;
        // There was memory for it, or it would not wait.
        @memcpy(out[0..length], decoder.parser.message().?);
        return .{ .control = length };
    }

    pub fn forget(decoder: Decoder) void {
        var it = decoder;
        it.parser.deinit();
    }
};

const testing = std.testing;

test "text comes in pieces, a message whole and when there is room, a length beyond ends it all" {
    var decoder: Decoder = .{ .parser = .{ .gpa = testing.allocator } };
    defer decoder.parser.deinit();
    const text = "\x01\x00\x00\x00\x03abc\x02\x00\x00\x00\x04{\"\"}\x04\x00\x00\x00\x00";
    var out: [4]u8 = undefined;
    var step = decoder.next(text, out[0..2]);
    try testing.expectEqual(false, step.event.input.last);
    try testing.expectEqualStrings("ab", out[0..step.event.input.len]);
    var rest: []const u8 = text[step.used..];
    step = decoder.next(rest, out[0..3]);
    try testing.expectEqual(true, step.event.input.last);
    rest = rest[step.used..];
    step = decoder.next(rest, out[0..3]);
    try testing.expectEqual(4, step.event.too_small);
    rest = rest[step.used..];
    step = decoder.next(rest, &out);
    try testing.expectEqual(0, step.used);
    try testing.expectEqualStrings("{\"\"}", out[0..step.event.control]);
    try testing.expectEqual(.heartbeat, decoder.next(rest, &out).event);
    try testing.expectEqual(.oversized, decoder.next("\x02\xff\xff\xff\xff", &out).event);
    try testing.expectEqual(.oversized, decoder.next("", &out).event);
}
