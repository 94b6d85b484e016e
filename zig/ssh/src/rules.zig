//! What a principal of the key table may do: lines of "read PATTERN" and "write PATTERN".

const std = @import("std");

pub const Error = error{BadRule};

/// Longest list of rules, in bytes.
pub const text_max = 64 * 1024;

/// Checks every line, so that `allows` needs no error.
pub fn validate(text: []const u8) Error!void {
    if (text.len > text_max) return error.BadRule;
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |line| {
        if (line.len == 0) continue;
        if (parse(line) == null) return error.BadRule;
    }
}

/// `repository` is a canonical name. The first rule that allows decides; without one it is no.
pub fn allows(text: []const u8, repository: []const u8, write: bool) bool {
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |line| {
        const rule = parse(line) orelse continue;
        if (write and !rule.write) continue;
        if (matches(rule.pattern, repository)) return true;
    }
    return false;
}

const Rule = struct { write: bool, pattern: []const u8 };

fn parse(line: []const u8) ?Rule {
    const rule: Rule = if (std.mem.startsWith(u8, line, "read "))
        .{ .write = false, .pattern = line["read ".len..] }
    else if (std.mem.startsWith(u8, line, "write "))
        .{ .write = true, .pattern = line["write ".len..] }
    else
        return null;
    const pattern = rule.pattern;
    if (std.mem.eql(u8, pattern, "*")) return rule;
    const name = if (std.mem.endsWith(u8, pattern, "/*"))
        pattern[0 .. pattern.len - "/*".len]
    else
        pattern;
    // A pattern that no canonical name can match is a mistake of its writer.
    if (std.mem.indexOfScalar(u8, name, '*') != null) return null;
    const canonical = @import("repository.zig").canonicalName(name) catch return null;
    return if (canonical.len == name.len) rule else null;
}

fn matches(pattern: []const u8, repository: []const u8) bool {
    if (std.mem.eql(u8, pattern, "*")) return true;
    if (std.mem.endsWith(u8, pattern, "/*")) {
        return std.mem.startsWith(u8, repository, pattern[0 .. pattern.len - 1]);
    }
    return std.mem.eql(u8, pattern, repository);
}

const testing = std.testing;

test "rules allow what they name and nothing else" {
    const text = "write alice/*\nread bob/public\n\nread team/x/*";
    try validate(text);
    try testing.expect(allows(text, "alice/a", true));
    try testing.expect(allows(text, "alice/a/b", false));
    try testing.expect(allows(text, "bob/public", false));
    try testing.expect(allows(text, "team/x/y", false));
    try testing.expect(!allows(text, "bob/public", true));
    try testing.expect(!allows(text, "bob/publication", false));
    try testing.expect(!allows(text, "alice", false));
    try testing.expect(!allows(text, "alicent/a", false));
    try testing.expect(!allows(text, "team/x", false));
    try testing.expect(!allows("", "alice/a", false));
    try testing.expect(allows("write *", "x", true));
    try testing.expect(!allows("read *", "x", true));
}

test "mistakes are found when the rules are set" {
    const mistakes = [_][]const u8{
        "admin *",    "read",      "write ",     "read a*", "read */a",       "READ *",
        " read *",    "read ../x", "read a.git", "read /a", "read *\nwrit b", "read /*",
        "read a/*/b", "read a//*",
    };
    for (mistakes) |text| try testing.expectError(error.BadRule, validate(text));
}
