//! What a payload must be (RFC 7519): one JSON object, no registered claim twice, and its times
//! against the clock. Looks at exp, nbf and iat; what iss, sub, aud and jti should say only the
//! application knows.

const std = @import("std");
const json = @import("json.zig");

/// Deepest nesting of objects and arrays, the payload itself included.
pub const max_depth = 128;

pub const FormError = error{
    PayloadJson,
    PayloadDepth,
    DuplicateClaim,
};

pub const TimeError = error{
    ExpType,
    NbfType,
    IatType,
    Expired,
    NotYetValid,
    IssuedInFuture,
};

pub const Checks = packed struct(u32) {
    exp: bool = true,
    nbf: bool = true,
    iat: bool = true,
    _: u29 = 0,
};

pub const Clock = struct {
    now_s: i64,
    leeway_s: i64 = 0,
};

/// RFC 7519, 4.1.
const Registered = enum { iss, sub, aud, exp, nbf, iat, jti };

/// A NumericDate (RFC 7519, 2), as far as it can be told.
const Date = union(enum) {
    absent,
    /// Not a number, or not a finite one.
    malformed,
    /// Seconds, cut to a whole number as PyJWT does; beyond i64 the nearest i64.
    s: i64,
};

pub const Claims = struct {
    exp: Date = .absent,
    nbf: Date = .absent,
    iat: Date = .absent,
    seen: std.EnumSet(Registered) = .{},
    duplicate: bool = false,

    /// Reads and checks the form of a payload.
    pub fn read(payload: []const u8) FormError!Claims {
        var claims: Claims = .{};
        json.readObject(payload, max_depth, &claims) catch |err| return switch (err) {
            error.Json => error.PayloadJson,
            error.TooDeep => error.PayloadDepth,
        };
        if (claims.duplicate) return error.DuplicateClaim;
        return claims;
    }

    pub fn member(claims: *Claims, m: json.Member) void {
        const name = registered(m.name) orelse return;
        if (claims.seen.contains(name)) claims.duplicate = true;
        claims.seen.insert(name);
        switch (name) {
            .exp => claims.exp = parseDate(m.value),
            .nbf => claims.nbf = parseDate(m.value),
            .iat => claims.iat = parseDate(m.value),
            .iss, .sub, .aud, .jti => {},
        }
    }

    /// The claims' types without a clock: what a signer must get right.
    pub fn checkTypes(claims: *const Claims) TimeError!void {
        if (claims.iat == .malformed) return error.IatType;
        if (claims.nbf == .malformed) return error.NbfType;
        if (claims.exp == .malformed) return error.ExpType;
    }

    /// The order of the checks is PyJWT's, so that a token with several faults has one verdict.
    pub fn checkTimes(claims: *const Claims, checks: Checks, clock: Clock) TimeError!void {
        const latest_start = clock.now_s +| clock.leeway_s;
        const earliest_end = clock.now_s -| clock.leeway_s;
        if (checks.iat) switch (claims.iat) {
            .absent => {},
            .malformed => return error.IatType,
            .s => |iat_s| if (iat_s > latest_start) return error.IssuedInFuture,
        };
        if (checks.nbf) switch (claims.nbf) {
            .absent => {},
            .malformed => return error.NbfType,
            .s => |nbf_s| if (nbf_s > latest_start) return error.NotYetValid,
        };
        if (checks.exp) switch (claims.exp) {
            .absent => {},
            .malformed => return error.ExpType,
            // RFC 7519, 4.1.4: not accepted "on or after" this time.
            .s => |exp_s| if (exp_s <= earliest_end) return error.Expired,
        };
    }
};

fn registered(raw_name: []const u8) ?Registered {
    var buffer: [3]u8 = undefined;
    var name = raw_name;
    if (raw_name.len != 3) {
        // With one of its three letters escaped, "\u0065xp", it has eight characters or more.
        if (raw_name.len < 8) return null;
        name = json.shortText(&buffer, raw_name) orelse return null;
        if (name.len != 3) return null;
    }
    inline for (comptime std.enums.values(Registered)) |claim| {
        if (number(name[0..3]) == comptime number(@tagName(claim))) return claim;
    }
    return null;
}

/// Numbers compare faster than texts.
inline fn number(name: *const [3]u8) u24 {
    return std.mem.readInt(u24, name, .big);
}

/// Up to this many digits always fit an i64.
const safe_digits = 18;

fn parseDate(value: []const u8) Date {
    if (!json.isNumber(value)) return .malformed;
    if (value.len <= safe_digits) integer: {
        const negative = value[0] == '-';
        var s: i64 = 0;
        for (value[@intFromBool(negative)..]) |digit| {
            if (!std.ascii.isDigit(digit)) break :integer;
            s = s * 10 + (digit - '0');
        }
        return .{ .s = if (negative) -s else s };
    }
    const s = std.fmt.parseFloat(f64, value) catch return .malformed;
    if (!std.math.isFinite(s)) return .malformed;
    return .{ .s = std.math.lossyCast(i64, @trunc(s)) };
}

const testing = std.testing;

fn timesAt(payload: []const u8, now_s: i64, leeway_s: i64) !void {
    const claims = try Claims.read(payload);
    try claims.checkTimes(.{}, .{ .now_s = now_s, .leeway_s = leeway_s });
}

test "a payload expires at the very second of exp" {
    const payload = "{\"sub\":\"ann\",\"exp\":1000,\"x\":1}";
    try timesAt(payload, 999, 0);
    try testing.expectError(error.Expired, timesAt(payload, 1000, 0));
    try testing.expectError(error.Expired, timesAt(payload, 1001, 0));
}

test "leeway counts for exp, nbf and iat" {
    try timesAt("{\"exp\":1000}", 1009, 10);
    try testing.expectError(error.Expired, timesAt("{\"exp\":1000}", 1010, 10));
    try timesAt("{\"nbf\":1000}", 990, 10);
    try testing.expectError(error.NotYetValid, timesAt("{\"nbf\":1000}", 989, 10));
    try timesAt("{\"iat\":1000}", 990, 10);
    try testing.expectError(error.IssuedInFuture, timesAt("{\"iat\":1000}", 989, 10));
}

test "nbf and iat hold from their very second" {
    try timesAt("{\"nbf\":1000,\"iat\":1000}", 1000, 0);
    try testing.expectError(error.NotYetValid, timesAt("{\"nbf\":1000}", 999, 0));
    try testing.expectError(error.IssuedInFuture, timesAt("{\"iat\":1000}", 999, 0));
}

test "fractions and exponents are numbers" {
    try timesAt("{\"exp\":1000.9}", 999, 0);
    try testing.expectError(error.Expired, timesAt("{\"exp\":1000.9}", 1000, 0));
    try timesAt("{\"exp\":1e3,\"nbf\":9.99e2,\"iat\":0.5}", 999, 0);
    try testing.expectError(error.Expired, timesAt("{\"exp\":1E3}", 1000, 0));
    try testing.expectError(error.Expired, timesAt("{\"exp\":-1.5}", 0, 0));
    try testing.expectError(error.Expired, timesAt("{\"exp\":-0}", 0, 0));
}

test "another type is an error and never the same as no claim" {
    const wrong = [_][]const u8{ "\"9\"", "null", "true", "false", "[]", "{}", "[9]", "1e400" };
    const names = .{ "exp", "nbf", "iat" };
    const errors = .{ error.ExpType, error.NbfType, error.IatType };
    inline for (names, errors) |name, err| {
        for (wrong) |value| {
            var buffer: [64]u8 = undefined;
            const payload = try std.fmt.bufPrint(&buffer, "{{\"{s}\":{s}}}", .{ name, value });
            try testing.expectError(err, timesAt(payload, 0, 0));
            const claims = try Claims.read(payload);
            try testing.expectError(err, claims.checkTypes());
        }
    }
}

test "values beyond i64 neither overflow nor wrap" {
    const i64_max = "9223372036854775807";
    try timesAt("{\"exp\":" ++ i64_max ++ "}", std.math.maxInt(i64) - 1, 0);
    try timesAt("{\"exp\":99999999999999999999999999}", 1 << 40, 0);
    try timesAt("{\"exp\":1e300}", 1 << 40, std.math.maxInt(i64));
    try timesAt("{\"nbf\":-1e300,\"iat\":-99999999999999999999}", 0, 0);
    try testing.expectError(error.NotYetValid, timesAt("{\"nbf\":1e300}", 1 << 40, 0));
    try testing.expectError(error.Expired, timesAt("{\"exp\":-1e300}", 1 << 40, 0));
    try testing.expectError(error.Expired, timesAt("{\"exp\":-9223372036854775809}", 0, 0));
    try timesAt("{\"exp\":1,\"nbf\":" ++ i64_max ++ "}", 0, std.math.maxInt(i64));
}

test "a registered claim given twice is refused, also when an escape hides it" {
    for ([_][]const u8{
        "{\"exp\":1,\"exp\":2}",
        "{\"exp\":99999999999,\"\\u0065xp\":1}",
        "{\"sub\":\"a\",\"x\":0,\"s\\u0075b\":\"b\"}",
        "{\"aud\":[],\"aud\":[]}",
        "{\"iss\":1,\"iss\":1}",
        "{\"jti\":1,\"jti\":1}",
    }) |payload| try testing.expectError(error.DuplicateClaim, Claims.read(payload));
    _ = try Claims.read("{\"mine\":1,\"mine\":2,\"deeper\":{\"exp\":1,\"exp\":2},\"exp\":3}");
}

test "claims of deeper objects are none of ours" {
    try timesAt("{\"act\":{\"exp\":1,\"nbf\":99,\"iat\":\"x\"},\"exp\":99}", 5, 0);
}

test "a check that is switched off looks at nothing" {
    const claims = try Claims.read("{\"exp\":\"x\",\"nbf\":99,\"iat\":null}");
    const none: Checks = .{ .exp = false, .nbf = false, .iat = false };
    try claims.checkTimes(none, .{ .now_s = 5 });
    try testing.expectError(
        error.NotYetValid,
        claims.checkTimes(.{ .exp = false, .iat = false }, .{ .now_s = 5 }),
    );
}

test "of several faults the order of the checks decides" {
    try testing.expectError(error.IssuedInFuture, timesAt("{\"exp\":1,\"nbf\":9,\"iat\":9}", 5, 0));
    try testing.expectError(error.NotYetValid, timesAt("{\"exp\":1,\"nbf\":9,\"iat\":1}", 5, 0));
}
