//! Follows the escape sequences in a terminal's output, over any split into reads: where the last
//! unfinished sequence began, whether the stream stands between two sequences, and where a
//! sequence ended that lets a viewer forget what came before (a "prune" sequence).
//! It interprets nothing else and changes nothing.

const std = @import("std");

const State = enum {
    ground,
    /// After ESC.
    escape,
    /// After ESC and an intermediate byte, as in `ESC ( B`.
    intermediate,
    csi,
    /// In an operating system command, ended by BEL or ST.
    osc,
    /// In DCS, SOS, PM or APC, ended by ST.
    string,
    /// After ESC within `osc` or `string`.
    string_escape,
};

pub const Step = struct {
    /// How many bytes were looked at: all of them, or up to the end of a prune sequence.
    len: usize,
    /// How many of those belong to text and finished sequences; the rest begins a sequence.
    stable: usize,
    /// The last byte looked at ends a prune sequence.
    prune: bool,
};

pub const Scanner = struct {
    state: State = .ground,
    /// Parameters and final byte of the current CSI, as far as they matter for `prunes`.
    csi: [longest_prune]u8 = undefined,
    csi_len: u8 = 0,
    /// The sequence just before was `ESC [ H`: with `ESC [ J` at once after it, it clears.
    after_home: bool = false,

    const prunes = [_][]const u8{ "2J", "3J", "?1049h", "?1049l", "?47h", "?47l" };
    const longest_prune = 6;

    /// No sequence is unfinished: something else may be written to the terminal now.
    pub fn betweenSequences(scanner: *const Scanner) bool {
        return scanner.state == .ground;
    }

    /// Looks at `bytes` up to the end of the first prune sequence.
    pub fn next(scanner: *Scanner, bytes: []const u8) Step {
        var i: usize = 0;
        var stable: usize = 0;
        while (i < bytes.len) {
            if (scanner.state == .ground) {
                const escape = std.mem.indexOfScalarPos(u8, bytes, i, 0x1b) orelse {
                    scanner.after_home = false;
                    return .{ .len = bytes.len, .stable = bytes.len, .prune = false };
                };
                if (escape > i) scanner.after_home = false;
                stable = escape;
                i = escape + 1;
                scanner.state = .escape;
                continue;
            }
            const pruned = scanner.step(bytes[i]);
            i += 1;
            if (scanner.state == .ground) stable = i;
            if (pruned) return .{ .len = i, .stable = i, .prune = true };
        }
        return .{ .len = bytes.len, .stable = stable, .prune = false };
    }

    /// One byte within a sequence. True when it ended a prune sequence.
    fn step(scanner: *Scanner, byte: u8) bool {
        if (byte == 0x18 or byte == 0x1a) { // CAN and SUB abort every sequence
            scanner.finish(false);
            return false;
        }
        switch (scanner.state) {
            .ground => unreachable, // `next` leaves the ground state itself
            .escape => return scanner.stepEscape(byte),
            .intermediate => switch (byte) {
                0x1b => scanner.state = .escape,
                0x00...0x17, 0x19, 0x1c...0x2f => {},
                else => scanner.finish(false),
            },
            .csi => return scanner.stepCsi(byte),
            .osc => switch (byte) {
                0x07 => scanner.finish(false),
                0x1b => scanner.state = .string_escape,
                else => {},
            },
            .string => if (byte == 0x1b) {
                scanner.state = .string_escape;
            },
            .string_escape => if (byte == '\\') {
                scanner.finish(false);
            } else {
                scanner.state = .escape;
                return scanner.stepEscape(byte);
            },
        }
        return false;
    }

    fn stepEscape(scanner: *Scanner, byte: u8) bool {
        switch (byte) {
            '[' => {
                scanner.state = .csi;
                scanner.csi_len = 0;
            },
            ']' => scanner.state = .osc,
            'P', 'X', '^', '_' => scanner.state = .string,
            0x1b => {},
            0x20...0x2f => scanner.state = .intermediate,
            0x00...0x17, 0x19, 0x1c...0x1f => {}, // a control character is obeyed in between
            else => {
                scanner.finish(false);
                return byte == 'c'; // full reset
            },
        }
        return false;
    }

    fn stepCsi(scanner: *Scanner, byte: u8) bool {
        switch (byte) {
            0x1b => scanner.state = .escape,
            0x40...0x7e => {
                scanner.keep(byte);
                const body = scanner.csi[0..@min(scanner.csi_len, longest_prune)];
                const fits = scanner.csi_len <= longest_prune;
                var pruned = fits and scanner.after_home and std.mem.eql(u8, body, "J");
                for (prunes) |prune| pruned = pruned or (fits and std.mem.eql(u8, body, prune));
                scanner.finish(fits and std.mem.eql(u8, body, "H"));
                return pruned;
            },
            0x80...0xff => scanner.finish(false),
            else => scanner.keep(byte),
        }
        return false;
    }

    /// Remembers one byte of the CSI; one that is too long to be a prune sequence stays too long.
    fn keep(scanner: *Scanner, byte: u8) void {
        if (scanner.csi_len < longest_prune) scanner.csi[scanner.csi_len] = byte;
        scanner.csi_len = @min(scanner.csi_len + 1, longest_prune + 1);
    }

    fn finish(scanner: *Scanner, home: bool) void {
        scanner.state = .ground;
        scanner.after_home = home;
    }
};

const testing = std.testing;

/// The offsets just after each prune sequence of `pieces` joined.
fn pruneOffsets(out: []usize, pieces: []const []const u8) []usize {
    var scanner: Scanner = .{};
    var n: usize = 0;
    var base: usize = 0;
    for (pieces) |piece| {
        var rest = piece;
        while (rest.len > 0) {
            const step = scanner.next(rest);
            base += step.len;
            rest = rest[step.len..];
            if (step.prune) {
                out[n] = base;
                n += 1;
            }
        }
    }
    return out[0..n];
}

test "every prune sequence is found, at every split" {
    const cases = [_][]const u8{
        "\x1b[3J",     "\x1bc",       "\x1b[2J",   "\x1b[H\x1b[J", "\x1b[H\x1b[2J",
        "\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[?47l",
    };
    for (cases) |sequence| {
        var text_buffer: [64]u8 = undefined;
        const text = try std.fmt.bufPrint(&text_buffer, "before{s}after", .{sequence});
        for (0..text.len + 1) |i| {
            var offsets: [4]usize = undefined;
            const found = pruneOffsets(&offsets, &.{ text[0..i], text[i..] });
            try testing.expectEqualSlices(usize, &.{6 + sequence.len}, found);
        }
    }
}

test "what only looks like a prune sequence is none" {
    const cases = [_][]const u8{
        "\x1b[J",            "\x1b[Hx\x1b[J",  "\x1b[1J", "\x1b[22J",        "\x1b[?1049hh"[0..7],
        "\x1b]0;\x1b_c\x07", "\x1b]2;[2J\x07", "\x1b(c",  "\x1b[?1049\x18h", "\x1b[?10490h",
    };
    for (cases) |text| {
        var offsets: [4]usize = undefined;
        try testing.expectEqual(0, pruneOffsets(&offsets, &.{text}).len);
    }
}

test "stable ends where an unfinished sequence begins" {
    const cases = [_]struct { []const u8, usize }{
        .{ "abc", 3 },              .{ "abc\x1b", 3 },        .{ "abc\x1b[1;2", 3 },
        .{ "abc\x1b[1;2m", 9 },     .{ "a\x1b]0;title", 1 },  .{ "a\x1b]0;t\x07", 7 },
        .{ "a\x1b]0;t\x1b\\b", 9 }, .{ "a\x1bPq\x07", 1 },    .{ "\x1b(", 0 },
        .{ "\x1b(B", 3 },           .{ "\x1b]0;t\x1b[3", 0 }, .{ "\x1b[1\x18x", 5 },
    };
    for (cases) |case| {
        var scanner: Scanner = .{};
        const step = scanner.next(case[0]);
        try testing.expectEqual(case[0].len, step.len);
        try testing.expectEqual(case[1], step.stable);
        try testing.expectEqual(case[1] == case[0].len, scanner.betweenSequences());
    }
}

test "random bytes never move past the end" {
    var prng = std.Random.DefaultPrng.init(7);
    var scanner: Scanner = .{};
    for (0..20_000) |_| {
        var bytes: [40]u8 = undefined;
        prng.random().bytes(&bytes);
        for (&bytes) |*byte| if (byte.* & 3 == 0) {
            byte.* = "\x1b[]J2H\\"[byte.* % 7];
        };
        var rest: []const u8 = bytes[0..prng.random().uintAtMost(usize, bytes.len)];
        while (rest.len > 0) {
            const step = scanner.next(rest);
            try testing.expect(step.len > 0 and step.stable <= step.len);
            rest = rest[step.len..];
        }
    }
}
