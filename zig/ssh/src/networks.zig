//! A list of addresses and networks such as "10.0.0.0/8", "192.0.2.7" and "fd00::/8".

const std = @import("std");
const Address = std.net.Address;

/// IPv4 is kept as the IPv6 addresses that stand for it, ::ffff:a.b.c.d: a socket for both
/// families shows IPv4 peers in this way.
pub const Network = struct {
    address: [16]u8,
    /// How many of its bits count.
    bits: u8,

    pub const Error = error{BadNetwork};

    /// An address alone, or with the number of its leading bits that count. Bits beyond those must
    /// be zero: anything else is a mistake of the writer.
    pub fn parse(text: []const u8) Error!Network {
        const slash = std.mem.indexOfScalar(u8, text, '/');
        const host = text[0 .. slash orelse text.len];
        // std takes "fe80::1%3" as well; an interface is no part of a network.
        if (std.mem.indexOfScalar(u8, host, '%') != null) return error.BadNetwork;
        const parsed = Address.parseIp(host, 0) catch return error.BadNetwork;
        const longest: u8 = if (parsed.any.family == std.posix.AF.INET) 32 else 128;
        const bits = if (slash) |at| try parseBits(text[at + 1 ..], longest) else longest;
        const network: Network = .{
            .address = wide(parsed) orelse return error.BadNetwork,
            .bits = 128 - longest + bits,
        };
        const number = std.mem.readInt(u128, &network.address, .big);
        return if (number & ~network.mask() == 0) network else error.BadNetwork;
    }

    fn parseBits(text: []const u8, longest: u8) Error!u8 {
        for (text) |byte| if (!std.ascii.isDigit(byte)) return error.BadNetwork;
        const bits = std.fmt.parseInt(u8, text, 10) catch return error.BadNetwork;
        return if (bits <= longest) bits else error.BadNetwork;
    }

    fn mask(network: *const Network) u128 {
        if (network.bits == 0) return 0;
        return ~@as(u128, 0) << @intCast(128 - network.bits);
    }

    pub fn contains(network: *const Network, address: Address) bool {
        const bytes = wide(address) orelse return false;
        const difference = std.mem.readInt(u128, &bytes, .big) ^
            std.mem.readInt(u128, &network.address, .big);
        return difference & network.mask() == 0;
    }
};

pub fn contain(networks: []const Network, address: Address) bool {
    for (networks) |*network| if (network.contains(address)) return true;
    return false;
}

const mapped_prefix = [_]u8{0} ** 10 ++ [_]u8{0xff} ** 2;

/// ::ffff:a.b.c.d as the IPv4 address that it stands for, any other as it is.
pub fn unmapped(address: Address) Address {
    if (address.any.family != std.posix.AF.INET6) return address;
    const bytes = &address.in6.sa.addr;
    if (!std.mem.startsWith(u8, bytes, &mapped_prefix)) return address;
    return .initIp4(bytes[mapped_prefix.len..].*, address.in6.getPort());
}

fn wide(address: Address) ?[16]u8 {
    return switch (address.any.family) {
        std.posix.AF.INET => mapped_prefix ++ @as([4]u8, @bitCast(address.in.sa.addr)),
        std.posix.AF.INET6 => address.in6.sa.addr,
        else => null,
    };
}

const testing = std.testing;

test "a network contains its addresses, in either spelling, and no others" {
    const cases = .{
        .{ "10.0.0.0/8", "10.255.0.1", true },
        .{ "10.0.0.0/8", "11.0.0.1", false },
        .{ "10.0.0.0/8", "::ffff:10.1.2.3", true },
        .{ "192.0.2.7", "192.0.2.7", true },
        .{ "192.0.2.7", "192.0.2.8", false },
        .{ "192.0.2.6/31", "192.0.2.7", true },
        .{ "0.0.0.0/0", "203.0.113.9", true },
        .{ "0.0.0.0/0", "2001:db8::1", false },
        .{ "::1", "::1", true },
        .{ "::1", "127.0.0.1", false },
        .{ "fd00::/8", "fdff::1", true },
        .{ "fd00::/8", "fe00::1", false },
        .{ "::/0", "2001:db8::1", true },
        .{ "::ffff:10.0.0.0/104", "10.9.9.9", true },
    };
    inline for (cases) |case| {
        const network = try Network.parse(case[0]);
        const address = try Address.parseIp(case[1], 22);
        errdefer std.debug.print("{s} {s}\n", .{ case[0], case[1] });
        try testing.expectEqual(case[2], network.contains(address));
        try testing.expectEqual(case[2], contain(&.{network}, address));
    }
    try testing.expect(!contain(&.{}, try Address.parseIp("::1", 22)));
}

test "an IPv4 address is shown as such in either spelling" {
    const cases = [_][2][]const u8{
        .{ "::ffff:192.0.2.7", "192.0.2.7:22" }, .{ "192.0.2.7", "192.0.2.7:22" },
        .{ "2001:db8::7", "[2001:db8::7]:22" },  .{ "::1", "[::1]:22" },
        .{ "::c000:207", "[::c000:207]:22" },
    };
    for (cases) |case| {
        try testing.expectFmt(case[1], "{f}", .{unmapped(try Address.parseIp(case[0], 22))});
    }
}

test "what is no network is refused" {
    const bad = [_][]const u8{
        "",           "localhost", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/8/8",
        "10.0.0.1/8", "10.0.0/8",  "/8",        "::/129",      "fd00::1/8",   "10.0.0.0 /8",
        "fe80::1%3",  "*",
    };
    for (bad) |text| try testing.expectError(error.BadNetwork, Network.parse(text));
}
