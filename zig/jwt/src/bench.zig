//! `zig build bench`: how many tokens one thread signs and verifies a second, through the C ABI of
//! the library as it is shipped, on every SHA-256 path of this CPU.

const std = @import("std");
const c = @cImport(@cInclude("plue_jwt.h"));

const payload = "{\"sub\":\"1234567890\",\"name\":\"Ann Muster\",\"iat\":1516239022,\"a\":1}";
const secret = "a secret of at least thirty-two bytes";
const rounds = 250;
const round_ns = 2 * std.time.ns_per_ms;

comptime {
    std.debug.assert(payload.len == 63);
}

const Bench = struct {
    key: u32,
    token: [256]u8 = @splat(0),
    token_len: usize,
    out: [256]u8 = @splat(0),

    fn signInto(b: *Bench) bool {
        return c.jwt_sign_into(b.key, payload, payload.len, &b.out, b.out.len) > 0;
    }

    fn verifyInto(b: *Bench) bool {
        return c.jwt_verify_into(b.key, &b.token, b.token_len, &b.out, b.out.len) > 0;
    }

    fn signText(b: *Bench) bool {
        return c.jwt_sign_text(b.key, payload) != null;
    }

    fn verifyText(b: *Bench) bool {
        return c.jwt_verify_text(b.key, &b.token) != null;
    }

    fn signAndFree(_: *Bench) bool {
        const token = c.jwt_sign(payload);
        defer c.jwt_free(token);
        return token != null;
    }

    fn verifyAndFree(b: *Bench) bool {
        const text = c.jwt_verify(&b.token);
        defer c.jwt_free(text);
        return text != null;
    }

    fn mac(b: *Bench) bool {
        return c.jwt_mac(b.key, &b.token, 121, &b.out);
    }
};

/// The best of many short rounds: whatever else the machine does can only make one slower.
fn nanosecondsPerCall(b: *Bench, comptime call: fn (*Bench) bool) !f64 {
    var best: f64 = std.math.inf(f64);
    for (0..rounds) |_| {
        var timer = try std.time.Timer.start();
        var calls: usize = 0;
        while (timer.read() < round_ns) {
            for (0..100) |_| if (!call(b)) return error.CallFailed;
            calls += 100;
        }
        const ns: f64 = @floatFromInt(timer.read());
        best = @min(best, ns / @as(f64, @floatFromInt(calls)));
    }
    return best;
}

pub fn main() !void {
    var buffer: [1024]u8 = undefined;
    var writer = std.fs.File.stdout().writerStreaming(&buffer);
    const out = &writer.interface;
    if (!c.jwt_init(secret, secret.len)) return error.Init;

    var b: Bench = .{ .key = c.jwt_key_create(secret, secret.len), .token_len = 0 };
    b.token_len = @intCast(c.jwt_sign_into(b.key, payload, payload.len, &b.token, b.token.len));
    try out.print("one thread, payload {d} bytes, token {d}\n\n", .{ payload.len, b.token_len });
    try out.print("{s:<10}{s:<24}{s:>10}{s:>14}\n", .{ "SHA-256", "call", "ns", "per second" });
    for ([_][:0]const u8{ "sha-ni", "sha2", "scalar" }) |path| {
        if (!c.jwt_force_cpu_path(path)) continue;
        inline for (.{
            .{ "jwt_sign_into", Bench.signInto },
            .{ "jwt_verify_into", Bench.verifyInto },
            .{ "jwt_sign_text", Bench.signText },
            .{ "jwt_verify_text", Bench.verifyText },
            .{ "jwt_sign + jwt_free", Bench.signAndFree },
            .{ "jwt_verify + jwt_free", Bench.verifyAndFree },
            .{ "jwt_mac, 121 bytes", Bench.mac },
        }) |row| {
            const ns = try nanosecondsPerCall(&b, row[1]);
            try out.print("{s:<10}{s:<24}{d:>10.0}{d:>14.0}\n", .{ path, row[0], ns, 1e9 / ns });
        }
    }
    try out.flush();
}
