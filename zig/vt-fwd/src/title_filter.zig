//! Takes the window titles that a program sets (OSC 0, 1 and 2) out of its output, over any split
//! into reads, and leaves everything else as it is. A title that never ends does not swallow the
//! rest of the output: it is given up at CAN, SUB, another escape sequence, or after 4 KiB. One
//! that interrupts another sequence ends it, as its ESC would have done: what comes after the title
//! must not become part of that sequence.

const std = @import("std");
const Scanner = @import("scanner.zig").Scanner;

/// A title longer than this is no title.
const max_title_bytes = 4096;

/// What may be held back from one call to the next: `ESC ] 2`.
pub const max_held = 3;

pub const TitleFilter = struct {
    state: State = .ground,
    /// The digit seen in state `number`.
    digit: u8 = 0,
    title_len: usize = 0,
    /// Where what was given out so far leaves the terminal.
    given: Scanner = .{},

    const State = enum {
        ground,
        /// After ESC.
        escape,
        /// After `ESC ]`.
        osc,
        /// After `ESC ]` and 0, 1 or 2.
        number,
        /// In a title, which is dropped.
        title,
        /// After ESC within a title.
        title_escape,
    };

    /// Writes what is left of `bytes` to `out`, which has room for `bytes.len + max_held`.
    pub fn filter(self: *TitleFilter, out: []u8, bytes: []const u8) usize {
        std.debug.assert(out.len >= bytes.len + max_held);
        var w: usize = 0;
        var r: usize = 0;
        var followed: usize = 0;
        while (r < bytes.len) {
            if (self.state == .number and bytes[r] == ';') {
                self.follow(out[followed..w]);
                const end = self.interrupt();
                @memcpy(out[w..][0..end.len], end);
                w += end.len;
                followed = w;
                self.state = .title;
                self.title_len = 0;
                r += 1;
                continue;
            }
            if (self.state == .ground) {
                const end = std.mem.indexOfScalarPos(u8, bytes, r, 0x1b) orelse bytes.len;
                @memcpy(out[w..][0 .. end - r], bytes[r..end]);
                w += end - r;
                r = end + 1;
                if (end < bytes.len) self.state = .escape;
                continue;
            }
            w += self.step(out[w..], bytes[r]);
            r += 1;
        }
        self.follow(out[followed..w]);
        return w;
    }

    fn follow(self: *TitleFilter, given: []const u8) void {
        var rest = given;
        while (rest.len > 0) rest = rest[self.given.next(rest).len..];
    }

    /// What ends the sequence that a title interrupts. It is shorter than the title's beginning.
    fn interrupt(self: *TitleFilter) []const u8 {
        if (self.given.betweenSequences()) return "";
        self.given = .{};
        return "\x1b\\";
    }

    /// At the end of the output: what was held back after all.
    pub fn flush(self: *TitleFilter, out: []u8) usize {
        defer self.state = .ground;
        return self.release(out);
    }

    fn step(self: *TitleFilter, out: []u8, byte: u8) usize {
        switch (self.state) {
            .ground => unreachable, // `filter` handles it
            .escape => if (byte == ']') {
                self.state = .osc;
                return 0;
            },
            .osc => switch (byte) {
                '0', '1', '2' => {
                    self.state = .number;
                    self.digit = byte;
                    return 0;
                },
                else => {},
            },
            .number => {}, // `filter` handles ';'
            .title => return self.stepTitle(out, byte),
            .title_escape => if (byte == '\\') {
                self.state = .ground;
                return 0;
            } else {
                // The ESC ended the title and begins another sequence: look at it again.
                self.state = .escape;
                return self.step(out, byte);
            },
        }
        // Not a title after all: give out what was held, and look at this byte afresh.
        const held = self.release(out);
        if (byte == 0x1b) {
            self.state = .escape;
            return held;
        }
        self.state = .ground;
        out[held] = byte;
        return held + 1;
    }

    fn stepTitle(self: *TitleFilter, out: []u8, byte: u8) usize {
        self.title_len += 1;
        switch (byte) {
            0x07, 0x18, 0x1a => self.state = .ground,
            0x1b => self.state = .title_escape,
            else => if (self.title_len > max_title_bytes) {
                self.state = .ground;
                out[0] = byte;
                return 1;
            },
        }
        return 0;
    }

    fn release(self: *const TitleFilter, out: []u8) usize {
        const held: []const u8 = switch (self.state) {
            .escape => "\x1b",
            .osc => "\x1b]",
            .number => &.{ 0x1b, ']', self.digit },
            .ground, .title, .title_escape => "",
        };
        @memcpy(out[0..held.len], held);
        return held.len;
    }
};

const testing = std.testing;

fn expectFiltered(expected: []const u8, text: []const u8) !void {
    for (0..text.len + 1) |i| {
        for (i..@min(i + 12, text.len) + 1) |j| {
            var self: TitleFilter = .{};
            var out: [8192]u8 = undefined;
            var len: usize = 0;
            for ([_][]const u8{ text[0..i], text[i..j], text[j..] }) |piece| {
                const n = self.filter(out[len..], piece);
                try testing.expect(n <= piece.len + max_held);
                len += n;
            }
            len += self.flush(out[len..]);
            try testing.expectEqualStrings(expected, out[0..len]);
        }
    }
}

test "titles 0, 1 and 2 vanish, whichever way they end, at every split" {
    try expectFiltered("ab", "a\x1b]0;title\x07b");
    try expectFiltered("ab", "a\x1b]1;title\x1b\\b");
    try expectFiltered("ab", "a\x1b]2;\x07b");
    try expectFiltered("ab", "a\x1b]2;t\xc3\xaf\xe2\x82\xactle\x07b");
    try expectFiltered("", "\x1b]0;a\x07\x1b]2;b\x1b\\\x1b]1;c\x07");
}

test "everything else is untouched, at every split" {
    const cases = [_][]const u8{
        "plain",
        "\x1b[31mred\x1b[0m",
        "\x1b]4;1;rgb:ff/00/00\x07",
        "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
        "\x1b]52;c;aGk=\x07",
        "\x1b]3;x\x07",
        "\x1b]10;?\x07",
        "\x1b]0\x07",
        "\x1b]2",
        "\x1b]",
        "\x1b",
        "\x1b\x1b\x1b[m",
        "\x1b]21;x\x07",
    };
    for (cases) |text| try expectFiltered(text, text);
}

test "a prefix that turns out otherwise is looked at again" {
    try expectFiltered("\x1b\x1b\\", "\x1b\x1b]0;t\x07");
    try expectFiltered("\x1b]\x1b\\", "\x1b]\x1b]0;t\x07");
    try expectFiltered("\x1b]0\x1b\\", "\x1b]0\x1b]0;t\x07");
    try expectFiltered("\x1b[m", "\x1b]0;t\x1b[m");
    try expectFiltered("x", "\x1b]0;t\x1b]2;u\x07x");
    try expectFiltered("\x1bx", "\x1b]0;t\x1bx");
    try expectFiltered("\x1b\x1b[m", "\x1b]0;t\x1b\x1b[m");
}

test "what follows a title never becomes part of the sequence before it" {
    try expectFiltered("\x1b\x1b\\]0;x\x07", "\x1b\x1b]0;t\x07]0;x\x07");
    try expectFiltered("\x1b[3\x1b\\1mred", "\x1b[3\x1b]2;t\x071mred");
    try expectFiltered("\x1bPq\x1b\\text", "\x1bPq\x1b]1;t\x1b\\text");
    try expectFiltered("\x1b]8;;u\x1b\\text", "\x1b]8;;u\x1b]0;a\x07\x1b]0;b\x07text");
    try expectFiltered("\x1b[3\x18m", "\x1b[3\x18\x1b]0;t\x07m");
}

test "a title that never ends gives the output back" {
    try expectFiltered("after", "\x1b]0;lost\x18after");
    try expectFiltered("after", "\x1b]0;lost\x1aafter");
    var text: [4 + max_title_bytes + 5]u8 = undefined;
    @memset(&text, 'x');
    text[0..4].* = "\x1b]2;".*;
    text[text.len - 5 ..][0..5].* = "after".*;
    var self: TitleFilter = .{};
    var out: [text.len + max_held]u8 = undefined;
    const len = self.filter(&out, &text);
    try testing.expectEqualStrings("after", out[0..len]);
}
