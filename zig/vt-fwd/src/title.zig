//! Names and window titles: the default name of a session, the title that stands for it, and
//! the sanitising of every name that comes from outside before it reaches a terminal.

const std = @import("std");
const json_object = @import("json_object.zig");
const utf8 = @import("utf8.zig");

/// How many characters of a name are kept.
pub const max_characters = 256;

/// A name that is safe to show: valid UTF-8 without control characters.
pub const Name = struct {
    bytes: [max_characters * 4]u8 = undefined,
    len: usize = 0,

    pub fn slice(name: *const Name) []const u8 {
        return name.bytes[0..name.len];
    }

    pub fn eql(name: *const Name, other: *const Name) bool {
        return std.mem.eql(u8, name.slice(), other.slice());
    }

    /// Keeps what is safe of `text`. Bytes that are not UTF-8 are dropped.
    pub fn fromBytes(text: []const u8) Name {
        var name: Name = .{};
        var characters: usize = 0;
        var rest = text;
        while (rest.len > 0 and characters < max_characters) {
            switch (utf8.classify(rest[0..@min(4, rest.len)])) {
                .whole => |n| {
                    if (isSafe(rest[0..n])) {
                        @memcpy(name.bytes[name.len..][0..n], rest[0..n]);
                        name.len += n;
                        characters += 1;
                    }
                    rest = rest[n..];
                },
                .cut, .malformed => rest = rest[1..],
            }
        }
        return name;
    }

    /// The same from the inside of a JSON string.
    pub fn fromJson(escaped: []const u8) Name {
        var name: Name = .{};
        var characters: usize = 0;
        var reader: json_object.StringReader = .{ .rest = escaped };
        while (reader.next()) |c| {
            if (characters == max_characters) break;
            var encoded: [4]u8 = undefined;
            const n = std.unicode.utf8Encode(c, &encoded) catch continue; // never a surrogate
            if (!isSafe(encoded[0..n])) continue;
            @memcpy(name.bytes[name.len..][0..n], encoded[0..n]);
            name.len += n;
            characters += 1;
        }
        return name;
    }
};

/// Neither C0, DEL nor C1.
fn isSafe(character: []const u8) bool {
    if (character.len == 1) return character[0] >= 0x20 and character[0] != 0x7f;
    return !(character.len == 2 and character[0] == 0xc2 and character[1] < 0xa0);
}

/// What a title is made of.
pub const Context = struct {
    /// The command's first word, as given.
    argv0: []const u8,
    cwd: []const u8,
    /// Empty when unknown.
    home: []const u8,

    fn command(context: Context) []const u8 {
        return std.fs.path.basename(context.argv0);
    }
};

/// `vim (~/src/plue)`: the name of a session that nobody named.
pub fn defaultName(context: Context) Name {
    var text: Text = .{};
    text.add(context.command());
    text.add(" (");
    addShortPath(&text, context.cwd, context.home);
    text.add(")");
    return .fromBytes(text.slice());
}

/// The title for a session called `name`: the name when somebody chose it, else where it runs
/// and what.
pub fn staticTitle(name: *const Name, context: Context) Name {
    const trimmed = std.mem.trim(u8, name.slice(), " \t");
    if (!isGenerated(trimmed, context.command())) return .fromBytes(trimmed);
    var text: Text = .{};
    addTildePath(&text, context.cwd, context.home);
    text.add(" · ");
    text.add(context.command());
    return .fromBytes(text.slice());
}

/// `sh`, `sh · sh` and `sh (...)` are names that a program made up.
fn isGenerated(name: []const u8, command: []const u8) bool {
    if (name.len == 0) return true;
    if (!std.mem.startsWith(u8, name, command)) return false;
    const rest = name[command.len..];
    if (rest.len == 0 or std.mem.startsWith(u8, rest, " (")) return true;
    const dot = " · ";
    return std.mem.startsWith(u8, rest, dot) and std.mem.eql(u8, rest[dot.len..], command);
}

/// Text that stops growing when it is full: it ends up in a `Name`, which is shorter.
const Text = struct {
    bytes: [max_characters * 4 * 4]u8 = undefined,
    len: usize = 0,

    fn add(text: *Text, bytes: []const u8) void {
        const n = @min(bytes.len, text.bytes.len - text.len);
        @memcpy(text.bytes[text.len..][0..n], bytes[0..n]);
        text.len += n;
    }

    fn slice(text: *const Text) []const u8 {
        return text.bytes[0..text.len];
    }
};

/// The part of `path` below `home`, or null when it is elsewhere: `/home/bob2` is not in
/// `/home/bob`.
fn belowHome(path: []const u8, home: []const u8) ?[]const u8 {
    const root = std.mem.trimRight(u8, home, "/");
    if (root.len == 0 or !std.mem.startsWith(u8, path, root)) return null;
    const rest = path[root.len..];
    return if (rest.len == 0 or rest[0] == '/') rest else null;
}

fn addTildePath(text: *Text, path: []const u8, home: []const u8) void {
    if (belowHome(path, home)) |rest| {
        text.add("~");
        text.add(rest);
    } else text.add(path);
}

const abbreviations = [_][2][]const u8{
    .{ "Development", "Dev" },
    .{ "Documents", "Docs" },
    .{ "Applications", "Apps" },
};

/// With `~`, well-known folders abbreviated, and only the last two of more than three parts.
fn addShortPath(text: *Text, path: []const u8, home: []const u8) void {
    const below = belowHome(path, home);
    const rest = below orelse path;
    var parts = std.mem.tokenizeScalar(u8, rest, '/');
    var count: usize = if (below != null) 1 else 0;
    while (parts.next()) |_| count += 1;
    parts.reset();
    var skip: usize = 0;
    if (count > 3) {
        text.add("…");
        skip = count - 2 - @as(usize, if (below != null) 1 else 0);
    } else if (below != null) {
        text.add("~");
    } else if (count == 0) {
        text.add("/");
    }
    while (parts.next()) |part| {
        if (skip > 0) {
            skip -= 1;
            continue;
        }
        text.add("/");
        // Only a folder with something below it is abbreviated.
        for (abbreviations) |pair| {
            if (parts.peek() != null and std.mem.eql(u8, part, pair[0])) {
                text.add(pair[1]);
                break;
            }
        } else text.add(part);
    }
}

const testing = std.testing;

test "sanitising drops control characters and what is not UTF-8" {
    const cases = [_][2][]const u8{
        .{ "hi\nthere\x1b[", "hithere[" },
        .{ "raw\xfftitle", "rawtitle" },
        .{ "IPC\x1b]2;unsafe", "IPC]2;unsafe" },
        .{ "a\x7fb\u{80}c\u{9f}d\u{a0}e", "abcd\u{a0}e" },
        .{ "é€😀", "é€😀" },
        .{ "cut\xe2\x82", "cut" },
        .{ "", "" },
    };
    for (cases) |case| try testing.expectEqualStrings(case[1], Name.fromBytes(case[0]).slice());
}

test "sanitising a JSON string resolves its escapes first" {
    const name: Name = .fromJson("x\\u0007\\u001b]52;c;\\u0000\\ud83d\\ude00\\n\\\"é");
    try testing.expectEqualStrings("x]52;c;😀\"é", name.slice());
}

test "256 characters are kept, however long they are" {
    try testing.expectEqual(1024, Name.fromBytes("😀" ** 300).len);
    try testing.expectEqual(256, Name.fromBytes("a" ** 300).len);
    try testing.expectEqual(256, Name.fromJson("a" ** 300).len);
}

test "default names" {
    const cases = [_][4][]const u8{
        .{ "/bin/sh", "/tmp", "/home/bob", "sh (/tmp)" },
        .{ "vim", "/home/bob", "/home/bob", "vim (~)" },
        .{ "vim", "/home/bob2", "/home/bob", "vim (/home/bob2)" },
        .{ "vim", "/home/bob/a/b", "/home/bob/", "vim (~/a/b)" },
        .{ "vim", "/home/bob/a/b/c", "/home/bob", "vim (…/b/c)" },
        .{ "vim", "/a/b/c", "/home/bob", "vim (/a/b/c)" },
        .{ "vim", "/a/b/c/d", "", "vim (…/c/d)" },
        .{ "vim", "/home/bob/Development/x", "/home/bob", "vim (~/Dev/x)" },
        .{ "vim", "/home/bob/Documents", "/home/bob", "vim (~/Documents)" },
        .{ "vim", "/", "/home/bob", "vim (/)" },
    };
    for (cases) |case| {
        const name = defaultName(.{ .argv0 = case[0], .cwd = case[1], .home = case[2] });
        try testing.expectEqualStrings(case[3], name.slice());
    }
}

test "static titles show a chosen name, or where and what" {
    const context: Context = .{ .argv0 = "/bin/sh", .cwd = "/home/bob/src", .home = "/home/bob" };
    const cases = [_][2][]const u8{
        .{ "sh (~/src)", "~/src · sh" },
        .{ "sh", "~/src · sh" },
        .{ "sh · sh", "~/src · sh" },
        .{ "", "~/src · sh" },
        .{ " my build ", "my build" },
        .{ "shell", "shell" },
    };
    for (cases) |case| {
        const name: Name = .fromBytes(case[0]);
        try testing.expectEqualStrings(case[1], staticTitle(&name, context).slice());
    }
}
