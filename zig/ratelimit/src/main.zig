//! The command line: replay a list of keys, simulate a load, measure.

const std = @import("std");
const bench = @import("bench.zig");
const clock = @import("clock.zig");
const simulate = @import("simulate.zig");
const Limiter = @import("limiter.zig").Limiter;
const max_key_bytes = @import("limiter.zig").max_key_bytes;
const rule_ = @import("rule.zig");
const config = @import("config");

const usage =
    \\usage: plue-ratelimit COMMAND [OPTION ...]
    \\
    \\  replay    check the keys on standard input, one a line, and say "pass" or "refuse" for each;
    \\            with --timed each line is a time in milliseconds, a blank, and the key
    \\  simulate  let requests of one key come at random and count what each algorithm passes
    \\  bench     measure checks a second, bytes per key and the longest pause on this machine
    \\
    \\  --limit N         requests per window (default 100)
    \\  --window TIME     as 500ms, 60s, 15m, 1h or 1d (default 60s)
    \\  --algorithm NAME  sliding-window (default), gcra or fixed-window; for replay
    \\  --max-keys N      keys held at most (default 1000000); for replay
    \\  --timed           for replay, see there
    \\  --quiet           for replay: print the totals only
    \\  --load PERCENT    for simulate: requests per window in percent of the limit (default 100)
    \\  --windows N       for simulate: how long (default 1000 windows)
    \\
    \\  plue-ratelimit replay --limit 100 --window 1m < keys.txt | sort | uniq -c
    \\  plue-ratelimit simulate --limit 20 --load 120
    \\
    \\exit status: 0 done; 1 the input cannot be read; 2 wrong usage
    \\
;

const Options = struct {
    limit: u32 = 100,
    window_ms: u64 = 60_000,
    algorithm: rule_.Algorithm = .sliding_window,
    max_keys: u32 = 1_000_000,
    timed: bool = false,
    quiet: bool = false,
    load_percent: u32 = 100,
    windows: u32 = 1000,
};

const Failure = error{ WrongUsage, BadLine };

pub fn main() u8 {
    var out_buffer: [64 * 1024]u8 = undefined;
    var out_file = std.fs.File.stdout().writerStreaming(&out_buffer);
    const out = &out_file.interface;
    const status = run(out) catch |err| failed: {
        std.debug.print("plue-ratelimit: {t}\n", .{err});
        break :failed @as(u8, 1);
    };
    // A reader that has seen enough closes the pipe; there is nobody left to tell.
    out.flush() catch return if (status == 0) 1 else status;
    return status;
}

fn run(out: *std.Io.Writer) !u8 {
    var arguments = std.process.args();
    _ = arguments.next();
    const command = arguments.next() orelse return wrong("a command is missing");
    if (isOneOf(command, &.{ "-h", "--help", "help" })) {
        try out.writeAll(usage);
        return 0;
    }
    if (isOneOf(command, &.{ "-V", "--version" })) {
        try out.print("plue-ratelimit {s}\n", .{config.version});
        return 0;
    }
    var options: Options = .{};
    while (arguments.next()) |name| {
        readOption(&options, name, &arguments) catch return wrong(name);
    }
    const allocator = std.heap.c_allocator;
    if (std.mem.eql(u8, command, "replay")) {
        try replay(allocator, options, out);
    } else if (std.mem.eql(u8, command, "simulate")) {
        const load = @as(f64, @floatFromInt(options.load_percent)) / 100;
        try simulate.run(allocator, options.limit, options.window_ms, load, options.windows, out);
    } else if (std.mem.eql(u8, command, "bench")) {
        try bench.run(allocator, out);
    } else return wrong(command);
    return 0;
}

fn wrong(what: []const u8) u8 {
    std.debug.print("plue-ratelimit: wrong usage: {s}\nTry plue-ratelimit --help\n", .{what});
    return 2;
}

fn isOneOf(text: []const u8, names: []const []const u8) bool {
    for (names) |name| if (std.mem.eql(u8, text, name)) return true;
    return false;
}

fn readOption(options: *Options, name: []const u8, rest: *std.process.ArgIterator) !void {
    if (std.mem.eql(u8, name, "--timed")) {
        options.timed = true;
        return;
    }
    if (std.mem.eql(u8, name, "--quiet")) {
        options.quiet = true;
        return;
    }
    const value = rest.next() orelse return error.WrongUsage;
    if (std.mem.eql(u8, name, "--limit")) {
        options.limit = try std.fmt.parseInt(u32, value, 10);
    } else if (std.mem.eql(u8, name, "--window")) {
        options.window_ms = try parseTime(value);
    } else if (std.mem.eql(u8, name, "--max-keys")) {
        options.max_keys = try std.fmt.parseInt(u32, value, 10);
        if (options.max_keys == 0) return error.WrongUsage;
    } else if (std.mem.eql(u8, name, "--load")) {
        options.load_percent = try std.fmt.parseInt(u32, value, 10);
        if (options.load_percent == 0) return error.WrongUsage;
    } else if (std.mem.eql(u8, name, "--windows")) {
        options.windows = try std.fmt.parseInt(u32, value, 10);
    } else if (std.mem.eql(u8, name, "--algorithm")) {
        options.algorithm = try parseAlgorithm(value);
    } else return error.WrongUsage;
}

fn parseAlgorithm(name: []const u8) Failure!rule_.Algorithm {
    if (std.mem.eql(u8, name, "sliding-window")) return .sliding_window;
    if (isOneOf(name, &.{ "gcra", "token-bucket" })) return .gcra;
    if (std.mem.eql(u8, name, "fixed-window")) return .fixed_window;
    return error.WrongUsage;
}

/// Milliseconds of "500ms", "60s", "15m", "1h" or "1d"; never 0.
fn parseTime(text: []const u8) Failure!u64 {
    const digits = std.mem.indexOfNone(u8, text, "0123456789") orelse return error.WrongUsage;
    const number = std.fmt.parseInt(u64, text[0..digits], 10) catch return error.WrongUsage;
    const units = .{ .ms = 1, .s = 1000, .m = 60_000, .h = 3_600_000, .d = 86_400_000 };
    inline for (@typeInfo(@TypeOf(units)).@"struct".fields) |unit| {
        if (std.mem.eql(u8, text[digits..], unit.name)) {
            const product = std.math.mul(u64, number, @field(units, unit.name));
            const ms = product catch return error.WrongUsage;
            return if (ms == 0) error.WrongUsage else ms;
        }
    }
    return error.WrongUsage;
}

fn replay(allocator: std.mem.Allocator, options: Options, out: *std.Io.Writer) !void {
    const epoch = 1;
    var limiter: Limiter = .{};
    limiter.table.openPrivate(epoch, allocator, seed(), options.max_keys);
    defer limiter.table.close();
    const rule = try rule_.Rule.init(options.algorithm, options.limit, options.window_ms);
    limiter.init(rule, .deny, false);

    var buffer: [max_key_bytes + 64]u8 = undefined;
    var input = std.fs.File.stdin().readerStreaming(&buffer);
    var passed: u64 = 0;
    var refused: u64 = 0;
    while (try nextLine(&input.interface)) |line| {
        const now_ms, const key = if (options.timed)
            try splitTimed(line)
        else
            .{ clock.preciseMs(), line };
        const decision = try limiter.hit(epoch, key, 1, now_ms);
        if (decision.allowed == 1) passed += 1 else refused += 1;
        if (options.quiet) continue;
        try out.print("{s} {s}\n", .{ if (decision.allowed == 1) "pass" else "refuse", key });
    }
    try out.flush();
    std.debug.print("{d} passed, {d} refused, {d} keys\n", .{
        passed, refused, try limiter.table.count(epoch),
    });
}

fn seed() [32]u8 {
    var bytes: [32]u8 = undefined;
    std.crypto.random.bytes(&bytes);
    return bytes;
}

/// Null at the end. A line longer than any key is an error. The last may lack its line feed.
fn nextLine(input: *std.Io.Reader) !?[]const u8 {
    const line = input.takeDelimiterInclusive('\n') catch |err| switch (err) {
        error.EndOfStream => {
            const rest = input.buffered();
            input.tossBuffered();
            return if (rest.len == 0) null else rest;
        },
        error.StreamTooLong => return error.BadLine,
        error.ReadFailed => return error.ReadFailed,
    };
    return line[0 .. line.len - 1];
}

fn splitTimed(line: []const u8) Failure!struct { u64, []const u8 } {
    const blank = std.mem.indexOfScalar(u8, line, ' ') orelse return error.BadLine;
    const ms = std.fmt.parseInt(u64, line[0..blank], 10) catch return error.BadLine;
    return .{ ms, line[blank + 1 ..] };
}
