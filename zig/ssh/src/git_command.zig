//! Parses the command of an SSH exec request. Only git's three server commands with exactly one
//! single-quoted argument are understood; no shell is ever involved.

const std = @import("std");

pub const Service = enum {
    upload_pack,
    receive_pack,
    upload_archive,

    /// The name as git's subcommand, such as `upload-pack`.
    pub fn name(service: Service) [:0]const u8 {
        return switch (service) {
            .upload_pack => "upload-pack",
            .receive_pack => "receive-pack",
            .upload_archive => "upload-archive",
        };
    }

    pub fn writes(service: Service) bool {
        return service == .receive_pack;
    }
};

pub const Command = struct {
    service: Service,
    /// What stood between the quotes, as the client wrote it. Nothing has been checked yet.
    path: []const u8,
};

/// Longest command looked at, in bytes. A path of 4096 quotes takes four times as much.
pub const command_max = 20 * 1024;

pub const Error = error{
    /// Not one of git's commands.
    UnknownService,
    /// One of them, but not followed by exactly one well-formed quoted argument.
    Malformed,
};

/// `path` receives the unquoted argument and must be as long as `text`.
pub fn parse(text: []const u8, path: []u8) Error!Command {
    if (text.len > command_max) return error.Malformed;
    std.debug.assert(path.len >= text.len);
    const service, const argument = try splitService(text);
    return .{ .service = service, .path = try unquote(argument, path) };
}

fn splitService(text: []const u8) Error!struct { Service, []const u8 } {
    if (!std.mem.startsWith(u8, text, "git")) return error.UnknownService;
    if (text.len == "git".len) return error.UnknownService;
    // "git-upload-pack" is what git sends, "git upload-pack" what some servers suggest.
    if (text[3] != '-' and text[3] != ' ') return error.UnknownService;
    const rest = text[4..];
    for (std.enums.values(Service)) |service| {
        if (!std.mem.startsWith(u8, rest, service.name())) continue;
        const after = rest[service.name().len..];
        if (after.len == 0) return error.Malformed;
        if (after[0] != ' ') return error.UnknownService;
        return .{ service, after[1..] };
    }
    return error.UnknownService;
}

/// Undoes git's shell quoting (quote.c, sq_quote_buf): runs in single quotes, between them a
/// backslash with a quote or an exclamation mark.
fn unquote(quoted: []const u8, out: []u8) Error![]const u8 {
    var len: usize = 0;
    var i: usize = 0;
    if (quoted.len < 2 or quoted[0] != '\'') return error.Malformed;
    while (true) {
        i += 1; // the opening quote
        while (i < quoted.len and quoted[i] != '\'') : (i += 1) {
            out[len] = quoted[i];
            len += 1;
        }
        if (i == quoted.len) return error.Malformed; // no closing quote
        i += 1;
        if (i == quoted.len) return out[0..len];
        // Outside of quotes only \' and \! may stand, and a quote must follow.
        if (quoted.len - i < 3 or quoted[i] != '\\') return error.Malformed;
        if (quoted[i + 1] != '\'' and quoted[i + 1] != '!') return error.Malformed;
        if (quoted[i + 2] != '\'') return error.Malformed;
        out[len] = quoted[i + 1];
        len += 1;
        i += 2;
    }
}

const testing = std.testing;

fn expectParsed(service: Service, path: []const u8, text: []const u8) !void {
    var buffer: [command_max]u8 = undefined;
    const command = try parse(text, &buffer);
    try testing.expectEqual(service, command.service);
    try testing.expectEqualStrings(path, command.path);
}

fn expectRefused(expected: Error, text: []const u8) !void {
    var buffer: [command_max]u8 = undefined;
    try testing.expectError(expected, parse(text, &buffer));
}

test "what git and its relatives send is understood" {
    try expectParsed(.upload_pack, "alice/repo.git", "git-upload-pack 'alice/repo.git'");
    try expectParsed(.upload_pack, "/alice/repo.git", "git upload-pack '/alice/repo.git'");
    try expectParsed(.receive_pack, "a b", "git-receive-pack 'a b'");
    try expectParsed(.upload_archive, "x", "git-upload-archive 'x'");
    try expectParsed(.upload_pack, "", "git-upload-pack ''");
}

test "quotes and exclamation marks are undone as git writes them" {
    try expectParsed(.upload_pack, "it's", "git-upload-pack 'it'\\''s'");
    try expectParsed(.upload_pack, "wow!", "git-upload-pack 'wow'\\!''");
    try expectParsed(.upload_pack, "''", "git-upload-pack ''\\'''\\'''");
    try expectParsed(.upload_pack, "a\\b$(c)`d`", "git-upload-pack 'a\\b$(c)`d`'");
}

test "anything else is refused" {
    const unknown = [_][]const u8{
        "",
        "g",
        "git",
        "git ",
        "git-",
        "ls",
        "git-shell 'x'",
        "git-upload-packer 'x'",
        "git-lfs-authenticate x",
        "GIT-UPLOAD-PACK 'x'",
        " git-upload-pack 'x'",
        "git\tupload-pack 'x'",
        "/usr/bin/git-upload-pack 'x'",
        "git-upload-pack\t'x'",
        "git-upload-pack\n'x'",
        "gitupload-pack 'x'",
    };
    for (unknown) |text| try expectRefused(error.UnknownService, text);
    const malformed = [_][]const u8{
        "git-upload-pack",              "git-upload-pack ",          "git-upload-pack x",
        "git-upload-pack  'x'",         "git-upload-pack 'x",        "git-upload-pack 'x' ",
        "git-upload-pack 'x' 'y'",      "git-upload-pack 'x';ls",    "git-upload-pack 'x'y",
        "git-upload-pack 'x'\\''",      "git-upload-pack 'x'\\n'y'", "git-upload-pack \"x\"",
        "git-upload-pack 'x'\\'y'",     "git-upload-pack '",         "git-upload-pack 'x'\\",
        "git-upload-pack --strict 'x'", "git-upload-pack 'x'\\'",    "git-upload-pack 'x'\n",
        "git-upload-pack 'x'\\!",       "git-upload-pack \\''x'",
    };
    for (malformed) |text| try expectRefused(error.Malformed, text);
}

test "a good command is refused when it is cut at any byte" {
    const text = "git-receive-pack 'a'\\''b/c'\\!''";
    var buffer: [text.len]u8 = undefined;
    for (0..text.len) |end| {
        const cut = parse(text[0..end], &buffer) catch continue;
        // Only where a quoted run happens to be complete, and then with less in it.
        try testing.expect(cut.path.len < "a'b/c!".len or end == text.len - 2 or
            text[end - 1] == '\'');
    }
    try expectParsed(.receive_pack, "a'b/c!", text);
}

test "quoting any bytes and parsing them gives them back" {
    var prng = std.Random.DefaultPrng.init(1);
    for (0..2000) |_| {
        var name: [24]u8 = undefined;
        for (&name) |*byte| byte.* = "ab'!\\/ $\n\x01\xff"[prng.random().uintLessThan(usize, 11)];
        var text: [200]u8 = undefined;
        var writer = std.Io.Writer.fixed(&text);
        try writer.writeAll("git-upload-pack '");
        for (name) |byte| switch (byte) {
            '\'', '!' => try writer.print("'\\{c}'", .{byte}),
            else => try writer.writeByte(byte),
        };
        try writer.writeByte('\'');
        try expectParsed(.upload_pack, &name, writer.buffered());
    }
}

test "random bytes never break the parser" {
    var prng = std.Random.DefaultPrng.init(2);
    var text: [64]u8 = undefined;
    var path: [64]u8 = undefined;
    const head = "git-upload-pack ";
    @memcpy(text[0..head.len], head);
    for (0..20_000) |_| {
        for (text[head.len..]) |*byte| byte.* = "'\\!a \x00"[prng.random().uintLessThan(usize, 6)];
        const len = prng.random().intRangeAtMost(usize, 0, text.len);
        _ = parse(text[0..len], &path) catch continue;
    }
}

test "a command over the limit is refused" {
    var text: [command_max + 1]u8 = @splat('a');
    var path: [command_max + 1]u8 = undefined;
    @memcpy(text[0.."git-upload-pack '".len], "git-upload-pack '");
    text[command_max] = '\'';
    try testing.expectError(error.Malformed, parse(&text, &path));
}
