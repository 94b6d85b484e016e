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
    reader.skipSpace();
    if (reader.peek() != '{') return error.Json;
    try reader.object(visitor);
    reader.skipSpace();
    if (reader.at != text.len) return error.Json;
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

const Reader = struct {
    text: []const u8,
    at: usize = 0,
    depth_left: u32,
    ascii: bool = true,

    inline fn peek(r: *const Reader) u8 {
        // NUL is legal nowhere in JSON, so the end looks like any other illegal byte.
        return if (r.at < r.text.len) r.text[r.at] else 0;
    }

    inline fn skipSpace(r: *Reader) void {
        while (true) switch (r.peek()) {
            ' ', '\t', '\n', '\r' => r.at += 1,
            else => return,
        };
    }

    fn value(r: *Reader) Error!void {
        switch (r.peek()) {
            '"' => try r.string(),
            '-', '0'...'9' => try r.number(),
            '{' => try r.object(NoVisitor{}),
            '[' => try r.array(),
            't' => try r.word("true"),
            'f' => try r.word("false"),
            'n' => try r.word("null"),
            else => return error.Json,
        }
    }

    fn object(r: *Reader, visitor: anytype) Error!void {
        assert(r.peek() == '{');
        if (r.depth_left == 0) return error.TooDeep;
        r.depth_left -= 1;
        defer r.depth_left += 1;

        r.at += 1;
        r.skipSpace();
        if (r.peek() == '}') {
            r.at += 1;
            return;
        }
        while (true) {
            if (r.peek() != '"') return error.Json;
            const name_start = r.at + 1;
            try r.string();
            const name = r.text[name_start .. r.at - 1];
            r.skipSpace();
            if (r.peek() != ':') return error.Json;
            r.at += 1;
            r.skipSpace();
            const value_start = r.at;
            try r.value();
            visitor.member(.{ .name = name, .value = r.text[value_start..r.at] });
            if (try r.closes('}')) return;
        }
    }

    fn array(r: *Reader) Error!void {
        assert(r.peek() == '[');
        if (r.depth_left == 0) return error.TooDeep;
        r.depth_left -= 1;
        defer r.depth_left += 1;

        r.at += 1;
        r.skipSpace();
        if (r.peek() == ']') {
            r.at += 1;
            return;
        }
        while (true) {
            try r.value();
            if (try r.closes(']')) return;
        }
    }

    /// After an element: true at the closing bracket, false at a comma, which it skips.
    inline fn closes(r: *Reader, bracket: u8) Error!bool {
        r.skipSpace();
        const next = r.peek();
        if (next != bracket and next != ',') return error.Json;
        r.at += 1;
        if (next == bracket) return true;
        r.skipSpace();
        return false;
    }

    fn word(r: *Reader, comptime expected: []const u8) Error!void {
        if (!std.mem.startsWith(u8, r.text[r.at..], expected)) return error.Json;
        r.at += expected.len;
    }

    fn number(r: *Reader) Error!void {
        if (r.peek() == '-') r.at += 1;
        if (r.peek() == '0') {
            r.at += 1; // nothing but a fraction or an exponent may follow
        } else {
            try r.digits();
        }
        if (r.peek() == '.') {
            r.at += 1;
            try r.digits();
        }
        if (r.peek() == 'e' or r.peek() == 'E') {
            r.at += 1;
            if (r.peek() == '+' or r.peek() == '-') r.at += 1;
            try r.digits();
        }
    }

    fn digits(r: *Reader) Error!void {
        const start = r.at;
        while (r.at < r.text.len and std.ascii.isDigit(r.text[r.at])) r.at += 1;
        if (r.at == start) return error.Json;
    }

    fn string(r: *Reader) Error!void {
        assert(r.peek() == '"');
        r.at += 1;
        while (true) {
            r.skipPlain();
            switch (r.peek()) {
                '"' => {
                    r.at += 1;
                    return;
                },
                '\\' => try r.escape(),
                else => return error.Json, // a control character, or the end
            }
        }
    }

    /// Goes to the next quotation mark, backslash or control character, or to the end.
    inline fn skipPlain(r: *Reader) void {
        while (r.text.len - r.at >= chunk_bytes) {
            const chunk: Chunk = r.text[r.at..][0..chunk_bytes].*;
            const stops = mask(chunk == @as(Chunk, @splat('"'))) |
                mask(chunk == @as(Chunk, @splat('\\'))) |
                mask(chunk < @as(Chunk, @splat(0x20)));
            const high = mask(chunk >= @as(Chunk, @splat(0x80)));
            if (high != 0) r.ascii = false;
            r.at += @ctz(stops);
            if (stops != 0) return;
        }
        while (r.at < r.text.len) : (r.at += 1) switch (r.text[r.at]) {
            '"', '\\', 0...0x1f => return,
            0x80...0xff => r.ascii = false,
            else => {},
        };
    }

    inline fn mask(lanes: @Vector(chunk_bytes, bool)) ChunkMask {
        return @bitCast(lanes);
    }

    fn escape(r: *Reader) Error!void {
        assert(r.peek() == '\\');
        r.at += 1;
        switch (r.peek()) {
            '"', '\\', '/', 'b', 'f', 'n', 'r', 't' => r.at += 1,
            'u' => {
                r.at += 1;
                for (0..4) |_| {
                    if (!std.ascii.isHex(r.peek())) return error.Json;
                    r.at += 1;
                }
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
