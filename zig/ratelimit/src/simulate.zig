//! `plue-ratelimit simulate`: how far each algorithm is from an exact log of the requests, under
//! requests that come at random (a Poisson process).

const std = @import("std");
const rule_ = @import("rule.zig");
const Rule = rule_.Rule;

pub fn run(
    allocator: std.mem.Allocator,
    limit: u32,
    window_ms: u64,
    load: f64,
    windows: u32,
    out: *std.Io.Writer,
) !void {
    try out.print("{s:<16}{s:>12}{s:>12}{s:>24}\n", .{
        "algorithm", "requests", "passed", "an exact log refuses",
    });
    for ([_]rule_.Algorithm{ .sliding_window, .gcra, .fixed_window }) |algorithm| {
        const rule = try Rule.init(algorithm, limit, window_ms);
        const result = try simulate(allocator, rule, load, windows);
        const share = 100 * @as(f64, @floatFromInt(result.beyond)) /
            @as(f64, @floatFromInt(@max(1, result.passed)));
        try out.print("{t:<16}{d:>12}{d:>12}{d:>15} ({d:.1} %)\n", .{
            algorithm, result.requests, result.passed, result.beyond, share,
        });
    }
}

const Result = struct {
    requests: u64 = 0,
    passed: u64 = 0,
    /// Passed although `limit` others had passed in the window that ended then.
    beyond: u64 = 0,
};

fn simulate(allocator: std.mem.Allocator, rule: Rule, load: f64, windows: u32) !Result {
    var result: Result = .{};
    // Times of the last `limit` passes, in a ring.
    const passes = try allocator.alloc(u64, @max(1, rule.limit));
    defer allocator.free(passes);
    @memset(passes, 0);
    var prng = std.Random.DefaultPrng.init(1);
    const random = prng.random();
    const width: f64 = @floatFromInt(rule.window_ms);
    const pause_ms = width / (load * @as(f64, @floatFromInt(@max(1, rule.limit))));
    const start_ms = 2 * rule.window_ms;
    const end_ms = @as(f64, @floatFromInt(start_ms)) + width * @as(f64, @floatFromInt(windows));
    var entry: rule_.Entry = .none;
    var time_ms: f64 = @floatFromInt(start_ms);
    while (true) {
        time_ms += random.floatExp(f64) * pause_ms;
        if (time_ms >= end_ms) return result;
        result.requests += 1;
        const now_ms: u64 = @intFromFloat(time_ms);
        entry = rule.take(entry, now_ms, 1) orelse continue;
        const oldest = &passes[result.passed % passes.len];
        if (result.passed >= rule.limit and oldest.* + rule.window_ms > now_ms) result.beyond += 1;
        oldest.* = now_ms;
        result.passed += 1;
    }
}
