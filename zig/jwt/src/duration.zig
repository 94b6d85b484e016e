//! Spans of time as the npm package jose writes them: "7d", "2 hours", "1.5h", "1 week ago".

const std = @import("std");

const Unit = struct { seconds: f64, names: []const []const u8 };

const units = [_]Unit{
    .{ .seconds = 1, .names = &.{ "s", "sec", "secs", "second", "seconds" } },
    .{ .seconds = 60, .names = &.{ "m", "min", "mins", "minute", "minutes" } },
    .{ .seconds = 3600, .names = &.{ "h", "hr", "hrs", "hour", "hours" } },
    .{ .seconds = 86_400, .names = &.{ "d", "day", "days" } },
    .{ .seconds = 7 * 86_400, .names = &.{ "w", "week", "weeks" } },
    .{ .seconds = 365.25 * 86_400, .names = &.{ "y", "yr", "yrs", "year", "years" } },
};

/// Far beyond any date, far below what could overflow.
const max_seconds = 1e15;

/// Whole seconds, rounded; negative for the past.
pub fn parse(text: []const u8) error{NotADuration}!i64 {
    var rest = text;
    var sign: f64 = 1;
    const signed = rest.len > 0 and (rest[0] == '+' or rest[0] == '-');
    if (signed) {
        if (rest[0] == '-') sign = -1;
        rest = rest[1..];
    }
    rest = skipSpace(rest);
    const number = try readNumber(&rest);
    rest = skipSpace(rest);

    var letters: usize = 0;
    while (letters < rest.len and std.ascii.isAlphabetic(rest[letters])) letters += 1;
    const unit_seconds = try findUnit(rest[0..letters]);
    const direction = rest[letters..];
    if (direction.len > 0) {
        if (signed) return error.NotADuration;
        if (std.ascii.eqlIgnoreCase(direction, " ago")) {
            sign = -1;
        } else if (!std.ascii.eqlIgnoreCase(direction, " from now")) {
            return error.NotADuration;
        }
    }
    const seconds = @floor(number * unit_seconds + 0.5);
    if (seconds > max_seconds) return error.NotADuration;
    return @intFromFloat(sign * seconds);
}

fn skipSpace(text: []const u8) []const u8 {
    return if (text.len > 0 and text[0] == ' ') text[1..] else text;
}

fn readNumber(rest: *[]const u8) error{NotADuration}!f64 {
    const text = rest.*;
    var len = countDigits(text);
    if (len == 0) return error.NotADuration;
    if (len < text.len and text[len] == '.') {
        const fraction = countDigits(text[len + 1 ..]);
        if (fraction == 0) return error.NotADuration;
        len += 1 + fraction;
    }
    rest.* = text[len..];
    return std.fmt.parseFloat(f64, text[0..len]) catch error.NotADuration;
}

fn countDigits(text: []const u8) usize {
    for (text, 0..) |character, i| if (!std.ascii.isDigit(character)) return i;
    return text.len;
}

fn findUnit(name: []const u8) error{NotADuration}!f64 {
    for (units) |unit| for (unit.names) |known| {
        if (std.ascii.eqlIgnoreCase(name, known)) return unit.seconds;
    };
    return error.NotADuration;
}

const testing = std.testing;

test "durations of every unit" {
    const Case = struct { []const u8, i64 };
    for ([_]Case{
        .{ "0s", 0 },
        .{ "7d", 604_800 },
        .{ "2 hours", 7200 },
        .{ "30 MINS", 1800 },
        .{ "1y", 31_557_600 },
        .{ "1.5h", 5400 },
        .{ "0.5 sec", 1 },
        .{ "1 week from now", 604_800 },
        .{ "1 day ago", -86_400 },
        .{ "-5m", -300 },
        .{ "+ 5 m", 300 },
    }) |case| {
        errdefer std.debug.print("duration: {s}\n", .{case[0]});
        try testing.expectEqual(case[1], try parse(case[0]));
    }
}

test "everything else is no duration" {
    for ([_][]const u8{
        "",
        " ",
        "7",
        "d",
        "7x",
        "7dd",
        "7  d",
        "  7d",
        "7d ",
        "1,5h",
        ".5h",
        "1.h",
        "1e3s",
        "-1 d ago",
        "1dx",
        "1 d  ago",
        "++1s",
        "99999999999999y",
        "inf s",
        "nan s",
        "1_000s",
        "7d ago ago",
    }) |text| {
        errdefer std.debug.print("duration: {s}\n", .{text});
        try testing.expectError(error.NotADuration, parse(text));
    }
}
