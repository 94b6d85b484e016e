//! Git's framing, read from a stream that comes in any pieces: four hexadecimal digits of length,
//! then as many bytes, the four included (gitprotocol-common(5), pkt-line).

const std = @import("std");

/// Longest payload that git takes, LARGE_PACKET_MAX and its reader's slack.
pub const payload_max = 65519;

pub const Packet = union(enum) {
    data: []const u8,
    /// "0000", "0001" and "0002".
    flush,
    delimiter,
    response_end,

    /// As git reads text: without one line feed at its end.
    pub fn chomp(text: []const u8) []const u8 {
        return if (std.mem.endsWith(u8, text, "\n")) text[0 .. text.len - 1] else text;
    }
};

pub const Error = error{ Malformed, OutOfMemory };

pub const Reader = struct {
    head: [4]u8 = undefined,
    head_len: usize = 0,
    /// Of the payload; known once the head is whole.
    wanted: usize = 0,
    payload: std.ArrayListUnmanaged(u8) = .empty,

    pub fn deinit(reader: *Reader, allocator: std.mem.Allocator) void {
        reader.payload.deinit(allocator);
    }

    /// The next packet of the stream, of which `bytes` is what comes next: what is used is cut off
    /// from it. null: all of it is used and more is needed. Data is valid until the next call.
    pub fn next(
        reader: *Reader,
        allocator: std.mem.Allocator,
        bytes: *[]const u8,
    ) Error!?Packet {
        if (reader.head_len < reader.head.len) {
            const part = take(bytes, reader.head.len - reader.head_len);
            @memcpy(reader.head[reader.head_len..][0..part.len], part);
            reader.head_len += part.len;
            if (reader.head_len < reader.head.len) return null;
            reader.payload.clearRetainingCapacity();
            const len = try parseLength(&reader.head);
            if (len < 4) {
                reader.head_len = 0;
                return switch (len) {
                    0 => .flush,
                    1 => .delimiter,
                    2 => .response_end,
                    else => error.Malformed,
                };
            }
            reader.wanted = len - 4;
            if (reader.wanted > payload_max) return error.Malformed;
        }
        const part = take(bytes, reader.wanted - reader.payload.items.len);
        try reader.payload.appendSlice(allocator, part);
        if (reader.payload.items.len < reader.wanted) return null;
        reader.head_len = 0;
        return .{ .data = reader.payload.items };
    }

    fn take(bytes: *[]const u8, count: usize) []const u8 {
        const part = bytes.*[0..@min(count, bytes.len)];
        bytes.* = bytes.*[part.len..];
        return part;
    }
};

fn parseLength(head: *const [4]u8) error{Malformed}!usize {
    var len: usize = 0;
    for (head) |digit| {
        len = len * 16 + (std.fmt.charToDigit(digit, 16) catch return error.Malformed);
    }
    return len;
}

const testing = std.testing;

fn expectPackets(expected: []const u8, stream: []const u8, step: usize) !void {
    var reader: Reader = .{};
    defer reader.deinit(testing.allocator);
    var out: std.ArrayListUnmanaged(u8) = .empty;
    defer out.deinit(testing.allocator);
    var start: usize = 0;
    while (start < stream.len) : (start += step) {
        var bytes = stream[start..@min(start + step, stream.len)];
        while (try reader.next(testing.allocator, &bytes)) |packet| {
            try out.print(testing.allocator, "{s}|", .{switch (packet) {
                .data => |text| text,
                else => |other| @tagName(other),
            }});
        }
        try testing.expectEqual(0, bytes.len);
    }
    try testing.expectEqualStrings(expected, out.items);
}

test "packets come out whole, however the stream is cut" {
    const stream = "0006a\n0000000bhello\x00!0001000200040005xFfff";
    for (1..stream.len + 1) |step| {
        try expectPackets("a\n|flush|hello\x00!|delimiter|response_end||x|", stream[0..39], step);
    }
}

test "a length that git would not take is malformed" {
    for ([_][]const u8{ "000g", "-001", " 000", "0003", "fff4", "ffff", "PACK" }) |head| {
        var reader: Reader = .{};
        defer reader.deinit(testing.allocator);
        var bytes = head;
        try testing.expectError(error.Malformed, reader.next(testing.allocator, &bytes));
    }
}
