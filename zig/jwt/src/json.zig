//! Reads one JSON object (RFC 8259) without allocating: checks every byte of it, strictly, and
//! shows the members of the outermost object to the caller as raw text. Builds no tree.

const std = @import("std");
const assert = std.debug.assert;

pub const Error = error{ Json, TooDeep };

/// A member of the outermost object, as it stands in the text.
pub const Member = struct {
    /// Between the quotation marks, escapes undecoded.
    name: []const u8,
    /// A string's quotation marks are part of it.
    value: []const u8,
};

/// Reads `text`, which must be exactly one object, white space around it allowed, in valid UTF-8,
/// with at most `max_depth` objects and arrays inside each other. Calls `visitor.member(Member)`
/// for every member of the outermost object; what it saw only counts if no error follows.
pub fn readObject(text: []const u8, max_depth: u32, visitor: anytype) Error!void {
    assert(max_depth > 0);
    var reader: Reader = .{ .text = text, .depth_left = max_depth };
    const start = reader.skipSpace(0);
    if (reader.peek(start) != '{') return error.Json;
    const end = reader.skipSpace(try reader.object(start, visitor));
    if (end != text.len) return error.Json;
    // Outside of strings nothing but ASCII gets this far, so the text can be checked as a whole.
    if (!reader.ascii and !std.unicode.utf8ValidateSlice(text)) return error.Json;
}

/// The characters of a raw name or string if they are ASCII and fit the buffer, escapes decoded;
/// null otherwise. For comparison with names that are short and ASCII: "\u0065xp" is "exp".
pub fn shortText(buffer: []u8, raw: []const u8) ?[]const u8 {
    if (std.mem.indexOfScalar(u8, raw, '\\') == null) return raw;
    var len: usize = 0;
    var i: usize = 0;
    while (i < raw.len) : (len += 1) {
        if (len == buffer.len) return null;
        if (raw[i] != '\\') {
            buffer[len] = raw[i];
            i += 1;
        } else if (raw[i + 1] != 'u') {
            buffer[len] = switch (raw[i + 1]) {
                'b' => 8,
                'f' => 12,
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                else => |same| same,
            };
            i += 2;
        } else {
            const code = std.fmt.parseInt(u16, raw[i + 2 ..][0..4], 16) catch return null;
            if (code >= 0x80) return null;
            buffer[len] = @intCast(code);
            i += 6;
        }
    }
    return buffer[0..len];
}

/// The raw characters between the quotation marks, or null if the value is not a string.
pub fn stringBody(value: []const u8) ?[]const u8 {
    if (value.len < 2 or value[0] != '"') return null;
    return value[1 .. value.len - 1];
}

pub fn isNumber(value: []const u8) bool {
    return value.len > 0 and (value[0] == '-' or std.ascii.isDigit(value[0]));
}

const NoVisitor = struct {
    fn member(_: NoVisitor, _: Member) void {}
};

const chunk_bytes = 16;
const Chunk = @Vector(chunk_bytes, u8);
const ChunkMask = std.meta.Int(.unsigned, chunk_bytes);

/// Each function takes the place where something begins and returns the place behind its end. What
/// every member needs is inlined, so that the place stays in a register.
const Reader = struct {
    text: []const u8,
    depth_left: u32,
    ascii: bool = true,

    inline fn peek(r: *const Reader, at: usize) u8 {
        // NUL is legal nowhere in JSON, so the end looks like any other illegal byte.
        return if (at < r.text.len) r.text[at] else 0;
    }

    inline fn skipSpace(r: *const Reader, start: usize) usize {
        var at = start;
        while (true) switch (r.peek(at)) {
            ' ', '\t', '\n', '\r' => at += 1,
            else => return at,
        };
    }

    inline fn value(r: *Reader, at: usize) Error!usize {
        return switch (r.peek(at)) {
            '"' => r.string(at),
            '-', '0'...'9' => r.number(at),
            '{' => r.object(at, NoVisitor{}),
            '[' => r.array(at),
            't' => r.word(at, "true"),
            'f' => r.word(at, "false"),
            'n' => r.word(at, "null"),
            else => error.Json,
        };
    }

    fn object(r: *Reader, start: usize, visitor: anytype) Error!usize {
        assert(r.peek(start) == '{');
        if (r.depth_left == 0) return error.TooDeep;
        r.depth_left -= 1;
        defer r.depth_left += 1;

        var at = r.skipSpace(start + 1);
        if (r.peek(at) == '}') return at + 1;
        while (true) {
            if (r.peek(at) != '"') return error.Json;
            const name_start = at + 1;
            at = try r.string(at);
            const name = r.text[name_start .. at - 1];
            at = r.skipSpace(at);
            if (r.peek(at) != ':') return error.Json;
            at = r.skipSpace(at + 1);
            const value_start = at;
            at = try r.value(at);
            visitor.member(.{ .name = name, .value = r.text[value_start..at] });
            at = r.skipSpace(at);
            switch (r.peek(at)) {
                '}' => return at + 1,
                ',' => at = r.skipSpace(at + 1),
                else => return error.Json,
            }
        }
    }

    fn array(r: *Reader, start: usize) Error!usize {
        assert(r.peek(start) == '[');
        if (r.depth_left == 0) return error.TooDeep;
        r.depth_left -= 1;
        defer r.depth_left += 1;

        var at = r.skipSpace(start + 1);
        if (r.peek(at) == ']') return at + 1;
        while (true) {
            at = r.skipSpace(try r.value(at));
            switch (r.peek(at)) {
                ']' => return at + 1,
                ',' => at = r.skipSpace(at + 1),
                else => return error.Json,
            }
        }
    }

    inline fn word(r: *const Reader, at: usize, comptime expected: []const u8) Error!usize {
        if (!std.mem.startsWith(u8, r.text[at..], expected)) return error.Json;
        return at + expected.len;
    }

    inline fn number(r: *const Reader, start: usize) Error!usize {
        var at = start;
        if (r.peek(at) == '-') at += 1;
        if (r.peek(at) == '0') {
            at += 1; // nothing but a fraction or an exponent may follow
        } else {
            at = try r.digits(at);
        }
        if (r.peek(at) == '.') at = try r.digits(at + 1);
        if (r.peek(at) == 'e' or r.peek(at) == 'E') {
            at += 1;
            if (r.peek(at) == '+' or r.peek(at) == '-') at += 1;
            at = try r.digits(at);
        }
        return at;
    }

    inline fn digits(r: *const Reader, start: usize) Error!usize {
        var at = start;
        while (std.ascii.isDigit(r.peek(at))) at += 1;
        return if (at == start) error.Json else at;
    }

    inline fn string(r: *Reader, start: usize) Error!usize {
        assert(r.peek(start) == '"');
        var at = start + 1;
        while (true) {
            at = r.skipPlain(at);
            switch (r.peek(at)) {
                '"' => return at + 1,
                '\\' => at = try r.escape(at),
                else => return error.Json, // a control character, or the end
            }
        }
    }

    /// The next quotation mark, backslash or control character, or the end.
    inline fn skipPlain(r: *Reader, start: usize) usize {
        var at = start;
        while (r.text.len - at >= chunk_bytes) {
            const chunk: Chunk = r.text[at..][0..chunk_bytes].*;
            const stops = mask(chunk == @as(Chunk, @splat('"'))) |
                mask(chunk == @as(Chunk, @splat('\\'))) |
                mask(chunk < @as(Chunk, @splat(0x20)));
            // What lies behind the stop may count too: then the text is checked for nothing.
            if (mask(chunk >= @as(Chunk, @splat(0x80))) != 0) r.ascii = false;
            if (stops != 0) return at + @ctz(stops);
            at += chunk_bytes;
        }
        while (at < r.text.len) : (at += 1) switch (r.text[at]) {
            '"', '\\', 0...0x1f => return at,
            0x80...0xff => r.ascii = false,
            else => {},
        };
        return at;
    }

    inline fn mask(lanes: @Vector(chunk_bytes, bool)) ChunkMask {
        return @bitCast(lanes);
    }

    fn escape(r: *const Reader, start: usize) Error!usize {
        assert(r.peek(start) == '\\');
        switch (r.peek(start + 1)) {
            '"', '\\', '/', 'b', 'f', 'n', 'r', 't' => return start + 2,
            'u' => {
                for (start + 2..start + 6) |at| {
                    if (!std.ascii.isHex(r.peek(at))) return error.Json;
                }
                return start + 6;
            },
            else => return error.Json,
        }
    }
};

const testing = std.testing;

fn accepts(text: []const u8) bool {
    readObject(text, 8, NoVisitor{}) catch return false;
    return true;
}

test "whole objects are accepted" {
    for ([_][]const u8{
        "{}",
        " \t\r\n{ } \n",
        "{\"a\":1}",
        "{ \"a\" : [ ] , \"b\" : [ 1 , { } ] }",
        "{\"\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\uD83D\\uDE00\"}",
        "{\"n\":[0,-0,10,-1.5,1e9,1E+9,1e-9,0.25,0e0,123456789012345678901234567890]}",
        "{\"w\":[true,false,null]}",
        "{\"ä\":\"日本語 and text that is longer than one chunk, 😀\"}",
        "{\"same\":1,\"same\":2}",
    }) |text| {
        errdefer std.debug.print("text: {s}\n", .{text});
        try testing.expect(accepts(text));
    }
}

test "everything else is refused" {
    for ([_][]const u8{
        "",
        " ",
        "1",
        "\"a\"",
        "null",
        "[]",
        "{",
        "}",
        "{}}",
        "{}{}",
        "{} x",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":1e+}",
        "{\"a\":0x10}",
        "{\"a\":1_0}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":-Infinity}",
        "{\"a\":True}",
        "{\"a\":nul}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":[}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\x00\"}",
        "{\"a\":\"\\x41\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"",
        "{\"a\":\"\\",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xc0\xaf\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"\xf5\x80\x80\x80\"}",
        "\xef\xbb\xbf{}",
        "{\"a\":1}\x00",
        "{\"a\":/**/1}",
        "{\"a\":1}//",
        "{\"\xe4\":1}",
        "{\"long enough for a whole chunk of text\xe4\":1}",
        "{\"a\":\"0123456789abcdef\x1f0123456789abcdef\"}",
    }) |text| {
        errdefer std.debug.print("text: {s}\n", .{text});
        try testing.expect(!accepts(text));
    }
}

test "an object cut at any byte is refused" {
    const whole = "{\"a\":[1.5e3,{\"b\":\"x\\u0041y\"},true,null]," ++
        "\"ä\":\"text longer than 16\"}";
    try testing.expect(accepts(whole));
    for (0..whole.len) |len| try testing.expect(!accepts(whole[0..len]));
}

test "every control character is refused inside a string at every place" {
    for (0..0x20) |control| for (0..40) |place| {
        var text = ("{\"" ++ "a" ** 40 ++ "\":0}").*;
        text[2 + place] = @intCast(control);
        try testing.expect(!accepts(&text));
    };
}

test "nesting is bounded" {
    try readObject("{\"a\":[[{\"b\":[]}]]}", 5, NoVisitor{});
    try testing.expectError(error.TooDeep, readObject("{\"a\":[[{\"b\":[]}]]}", 4, NoVisitor{}));
    const deep = "{\"a\":" ++ "[" ** 100_000;
    try testing.expectError(error.TooDeep, readObject(deep, 128, NoVisitor{}));
}

test "members of the outermost object are shown, and no others" {
    const Collect = struct {
        text: std.ArrayList(u8) = .empty,

        fn member(collect: *@This(), m: Member) void {
            collect.text.print(testing.allocator, "{s}={s};", .{ m.name, m.value }) catch
                @panic("out of memory in a test");
        }
    };
    var collect: Collect = .{};
    defer collect.text.deinit(testing.allocator);
    const text = " { \"a\" : {\"x\":1} , \"b\\n\":[ 2 ],\"c\":\"s\" , \"d\":-1.5 } ";
    try readObject(text, 8, &collect);
    try testing.expectEqualStrings("a={\"x\":1};b\\n=[ 2 ];c=\"s\";d=-1.5;", collect.text.items);
}

test "escapes in short names are decoded, long and foreign ones are not of interest" {
    var buffer: [8]u8 = undefined;
    try testing.expectEqualStrings("exp", shortText(&buffer, "exp").?);
    try testing.expectEqualStrings("exp", shortText(&buffer, "\\u0065\\u0078\\u0070").?);
    try testing.expectEqualStrings("a/\"\\\n\t", shortText(&buffer, "a\\/\\\"\\\\\\n\\t").?);
    try testing.expectEqual(null, shortText(&buffer, "\\u00e4"));
    try testing.expectEqual(null, shortText(&buffer, "\\nlonger than eight"));
}
