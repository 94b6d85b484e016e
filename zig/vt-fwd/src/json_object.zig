//! Reads the members of one JSON object without building a tree: each member's key and the text
//! of its value as it stands. The text is checked as it is read; whoever acts on it reads to the
//! end first. Input is hostile: up to a megabyte, nested as deep as it likes.

const std = @import("std");
const utf8 = @import("utf8.zig");

pub const Error = error{
    /// Not one JSON object, or nested too deep.
    InvalidJson,
};

pub const Member = struct {
    /// Still escaped, without the quotes.
    key: []const u8,
    /// The value as it stands in the text, without white space around it.
    value: []const u8,

    /// Compares with a key of plain ASCII. An escape in the text's key is resolved.
    pub fn hasKey(member: Member, key: []const u8) bool {
        var text: StringReader = .{ .rest = member.key };
        for (key) |expected| {
            const c = text.next() orelse return false;
            if (c != expected) return false;
        }
        return text.next() == null;
    }

    /// The inside of the value when it is a string, still escaped.
    pub fn string(member: Member) ?[]const u8 {
        if (member.value[0] != '"') return null;
        return member.value[1 .. member.value.len - 1];
    }

    /// The value when it is an integer written without fraction or exponent.
    pub fn integer(member: Member) ?i64 {
        return std.fmt.parseInt(i64, member.value, 10) catch null;
    }
};

/// Members one after the other. It points into itself once `init` is done: do not copy it.
pub const Members = struct {
    text: []const u8,
    /// One bit per level of nesting.
    nesting: [512]u8,
    fba: std.heap.FixedBufferAllocator,
    scanner: std.json.Scanner,

    pub fn init(members: *Members, text: []const u8) Error!void {
        members.text = text;
        members.fba = .init(&members.nesting);
        members.scanner = .initCompleteInput(members.fba.allocator(), text);
        const first = members.scanner.next() catch return error.InvalidJson;
        if (first != .object_begin) return error.InvalidJson;
    }

    /// The next member, or null after the last one, when nothing but white space follows.
    pub fn next(members: *Members) Error!?Member {
        return members.read() catch return error.InvalidJson;
    }

    fn read(members: *Members) !?Member {
        const scanner = &members.scanner;
        if (try scanner.peekNextTokenType() == .object_end) {
            _ = try scanner.next();
            if (try scanner.next() != .end_of_document) return error.InvalidJson;
            return null;
        }
        const key = try members.readValue();
        const value = try members.readValue();
        return .{ .key = key[1 .. key.len - 1], .value = value };
    }

    fn readValue(members: *Members) ![]const u8 {
        // Skips white space, ',' and ':'. A bracket of the other kind only skipValue would meet,
        // and take for our mistake.
        switch (try members.scanner.peekNextTokenType()) {
            .object_end, .array_end, .end_of_document => return error.InvalidJson,
            else => {},
        }
        const start = members.scanner.cursor;
        try members.scanner.skipValue();
        const value = members.text[start..members.scanner.cursor];
        // A number is only known to end at the byte after it.
        return std.mem.trimRight(u8, value, " \t\r\n");
    }
};

/// The value of `key` in the object `text`; the last one when it is there twice. Null when it is
/// not there. The whole text is checked.
pub fn find(text: []const u8, key: []const u8) Error!?Member {
    var members: Members = undefined;
    try members.init(text);
    var found: ?Member = null;
    while (try members.next()) |member| {
        if (member.hasKey(key)) found = member;
    }
    return found;
}

/// Resolves the escapes of a checked JSON string and gives its code points one by one. Half a
/// surrogate pair and malformed UTF-8 come as U+FFFD.
pub const StringReader = struct {
    /// The inside of a JSON string, still escaped.
    rest: []const u8,

    const replacement = 0xfffd;

    pub fn next(reader: *StringReader) ?u21 {
        const rest = reader.rest;
        if (rest.len == 0) return null;
        if (rest[0] != '\\') {
            switch (utf8.classify(rest[0..@min(4, rest.len)])) {
                .whole => |n| {
                    reader.rest = rest[n..];
                    return switch (n) {
                        1 => rest[0],
                        2 => std.unicode.utf8Decode2(rest[0..2].*) catch replacement,
                        3 => std.unicode.utf8Decode3(rest[0..3].*) catch replacement,
                        else => std.unicode.utf8Decode4(rest[0..4].*) catch replacement,
                    };
                },
                .cut, .malformed => {
                    reader.rest = rest[1..];
                    return replacement;
                },
            }
        }
        if (rest.len < 2) {
            reader.rest = "";
            return replacement;
        }
        reader.rest = rest[2..];
        return switch (rest[1]) {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'b' => 0x08,
            'f' => 0x0c,
            'u' => reader.unicodeEscape(),
            else => |c| c,
        };
    }

    fn unicodeEscape(reader: *StringReader) u21 {
        const first = reader.hex4() orelse return replacement;
        if (first < 0xd800 or first > 0xdfff) return first;
        if (first > 0xdbff or !std.mem.startsWith(u8, reader.rest, "\\u")) return replacement;
        const before = reader.rest;
        reader.rest = reader.rest[2..];
        const second = reader.hex4() orelse return replacement;
        if (second < 0xdc00 or second > 0xdfff) {
            reader.rest = before;
            return replacement;
        }
        return 0x10000 + ((@as(u21, first) - 0xd800) << 10) + (second - 0xdc00);
    }

    fn hex4(reader: *StringReader) ?u16 {
        if (reader.rest.len < 4) {
            reader.rest = "";
            return null;
        }
        defer reader.rest = reader.rest[4..];
        return std.fmt.parseInt(u16, reader.rest[0..4], 16) catch null;
    }
};

const testing = std.testing;

test "members come in order, values as they stand" {
    var members: Members = undefined;
    try members.init(
        \\ {"a" : 1 , "b":"x\"y", "c": [1, {"d": 2}] ,"e":{} ,"f":-2.5e3
        \\}
        \\
    );
    const expected = [_][2][]const u8{
        .{ "a", "1" },  .{ "b", "\"x\\\"y\"" }, .{ "c", "[1, {\"d\": 2}]" },
        .{ "e", "{}" }, .{ "f", "-2.5e3" },
    };
    for (expected) |pair| {
        const member = (try members.next()).?;
        try testing.expectEqualStrings(pair[0], member.key);
        try testing.expectEqualStrings(pair[1], member.value);
    }
    try testing.expectEqual(null, try members.next());
}

test "what is not one JSON object is an error, not a crash" {
    const cases = [_][]const u8{
        "",
        "   ",
        "null",
        "[1]",
        "\"x\"",
        "1",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,}",
        "{]",
        "{\"a\"]",
        "{\"a\":]",
        "{\"a\":1]",
        "{\"a\":1,]",
        "{\"a\":[1}",
        "{\"a\":[1}}",
        "{\"a\":1}x",
        "{\"a\":1 \"b\":2}",
        "{\"a\":tru}",
        "{\"a\":\"\n\"}",
        "{\"\xff\":1}",
        "{1:2}",
        "{a:1}",
        "{}{}",
        "\xff",
        "{\"a\":" ++ "[" ** 9000,
    };
    for (cases) |text| try testing.expectError(error.InvalidJson, find(text, "a"));
}

test "find takes the last of equal keys and resolves escaped ones" {
    try testing.expectEqualStrings("2", (try find("{\"a\":1,\"a\":2}", "a")).?.value);
    try testing.expectEqualStrings("1", (try find("{\"\\u0061b\":1}", "ab")).?.value);
    try testing.expectEqual(null, try find("{\"ab\":1}", "a"));
    try testing.expectEqual(null, try find("{}", "a"));
}

test "integers are whole numbers only" {
    const cases = [_]struct { []const u8, ?i64 }{
        .{ "80", 80 },
        .{ "-1", -1 },
        .{ "80.5", null },
        .{ "8e1", null },
        .{ "\"80\"", null },
        .{ "99999999999999999999", null },
        .{ "null", null },
        .{ "[1]", null },
    };
    for (cases) |case| {
        const member: Member = .{ .key = "", .value = case[0] };
        try testing.expectEqual(case[1], member.integer());
    }
}

test "strings are read with every kind of escape" {
    var reader: StringReader = .{
        .rest =
        \\a\n\u00e9é€\ud83d\ude00😀\ud83dx\"\/\udc00
        ,
    };
    const expected = [_]u21{
        'a', '\n', 0xe9, 0xe9, 0x20ac, 0x1f600, 0x1f600, 0xfffd, 'x', '"', '/', 0xfffd,
    };
    for (expected) |c| try testing.expectEqual(c, reader.next().?);
    try testing.expectEqual(null, reader.next());
}

test "the string reader survives text that nobody checked" {
    const cases = [_][]const u8{
        "\\", "\\u", "\\u12", "\\uzzzz", "\\ud83d\\u", "\\ud83d\\u12", "\xf0\x9f",
    };
    for (cases) |text| {
        var reader: StringReader = .{ .rest = text };
        for (0..16) |_| _ = reader.next() orelse break else return error.TestUnexpectedResult;
    }
}
