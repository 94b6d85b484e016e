//! The header that a load balancer sends ahead of a connection to say whose it is: the PROXY
//! protocol, versions 1 and 2. Sections are those of haproxy's proxy-protocol.txt. Pure: bytes in,
//! an address out; arrivals.zig reads them.

const std = @import("std");
const Address = std.net.Address;

/// Section 2.1: the longest line of version 1, CRLF included.
pub const v1_max = 107;
/// Version 2 could announce 64 KB; what load balancers send has a few hundred bytes.
pub const v2_max = 4096;

const v2_signature = "\r\n\r\n\x00\r\nQUIT\n";
const v2_fixed = 16;
const type_crc32c = 0x03;

pub const Error = error{
    /// The first bytes are no header at all: somebody speaks SSH at once.
    Missing,
    /// A header that breaks the protocol, or is longer than the limits above.
    Malformed,
};

pub const Result = union(enum) {
    /// Every byte so far belongs to the header, and at least one more will.
    more,
    header: Header,
};

pub const Header = struct {
    /// How many bytes it has. What follows is the client's.
    len: usize,
    /// The client, or null for LOCAL, UNKNOWN and whatever is not TCP over IP: then the socket's
    /// own peer counts.
    source: ?Address,
};

/// Looks at the first bytes of a connection.
pub fn parse(bytes: []const u8) Error!Result {
    if (startsLike(bytes, "PROXY ")) return parseV1(bytes);
    if (startsLike(bytes, v2_signature)) return parseV2(bytes);
    return error.Missing;
}

fn startsLike(bytes: []const u8, signature: []const u8) bool {
    const len = @min(bytes.len, signature.len);
    return std.mem.eql(u8, bytes[0..len], signature[0..len]);
}

// ---------------------------------------------------------------- version 1, section 2.1

fn parseV1(bytes: []const u8) Error!Result {
    const head = bytes[0..@min(bytes.len, v1_max)];
    const end = std.mem.indexOfScalar(u8, head, '\n') orelse {
        return if (head.len == v1_max) error.Malformed else .more;
    };
    if (end == 0 or head[end - 1] != '\r') return error.Malformed;
    return .{ .header = .{ .len = end + 1, .source = try v1Source(head[0 .. end - 1]) } };
}

fn v1Source(line: []const u8) Error!?Address {
    if (std.mem.indexOfScalar(u8, line, '\r') != null) return error.Malformed;
    var words = std.mem.splitScalar(u8, line, ' ');
    _ = words.first(); // "PROXY"
    const family = words.next() orelse return error.Malformed;
    if (std.mem.eql(u8, family, "UNKNOWN")) return null; // and anything after it
    const parseIp = if (std.mem.eql(u8, family, "TCP4"))
        &v1Ip4
    else if (std.mem.eql(u8, family, "TCP6"))
        &v1Ip6
    else
        return error.Malformed;
    const source = words.next() orelse return error.Malformed;
    const target = words.next() orelse return error.Malformed;
    const source_port = try v1Port(words.next() orelse return error.Malformed);
    const target_port = try v1Port(words.next() orelse return error.Malformed);
    if (words.next() != null) return error.Malformed;
    _ = try parseIp(target, target_port);
    return try parseIp(source, source_port);
}

fn v1Ip4(text: []const u8, port: u16) Error!Address {
    return .{ .in = std.net.Ip4Address.parse(text, port) catch return error.Malformed };
}

fn v1Ip6(text: []const u8, port: u16) Error!Address {
    // std takes "fe80::1%3" as well.
    if (std.mem.indexOfScalar(u8, text, '%') != null) return error.Malformed;
    return .{ .in6 = std.net.Ip6Address.parse(text, port) catch return error.Malformed };
}

fn v1Port(text: []const u8) Error!u16 {
    if (text.len == 0 or (text.len > 1 and text[0] == '0')) return error.Malformed;
    for (text) |byte| if (!std.ascii.isDigit(byte)) return error.Malformed;
    return std.fmt.parseInt(u16, text, 10) catch error.Malformed;
}

// ---------------------------------------------------------------- version 2, section 2.2

const Family = enum(u4) { unspec = 0, inet = 1, inet6 = 2, unix = 3, _ };
const Transport = enum(u4) { unspec = 0, stream = 1, dgram = 2, _ };

fn parseV2(bytes: []const u8) Error!Result {
    // Each byte as soon as it is there: nobody waits for the rest of nonsense.
    if (bytes.len <= 12) return .more;
    const is_local = switch (bytes[12]) {
        0x20 => true,
        0x21 => false,
        else => return error.Malformed,
    };
    if (bytes.len <= 13) return .more;
    const family: Family = @enumFromInt(@as(u4, @truncate(bytes[13] >> 4)));
    const transport: Transport = @enumFromInt(@as(u4, @truncate(bytes[13])));
    // The family of a LOCAL one is ignored.
    if (!is_local) switch (family) {
        .unspec, .inet, .inet6, .unix => switch (transport) {
            .unspec, .stream, .dgram => {},
            _ => return error.Malformed,
        },
        _ => return error.Malformed,
    };
    if (bytes.len < v2_fixed) return .more;
    const announced: usize = std.mem.readInt(u16, bytes[14..16], .big);
    const len = v2_fixed + announced;
    const addresses: usize = if (is_local) 0 else switch (family) {
        .unspec => 0,
        .inet => 12,
        .inet6 => 36,
        .unix => 216,
        _ => unreachable, // refused above
    };
    if (len > v2_max or len < v2_fixed + addresses) return error.Malformed;
    if (bytes.len < len) return .more;
    if (is_local) return .{ .header = .{ .len = len, .source = null } };
    try checkVectors(bytes[0..len], v2_fixed + addresses);
    return .{ .header = .{ .len = len, .source = v2Source(bytes[v2_fixed..], family, transport) } };
}

/// What is not supported falls back to the socket's address, as section 2.2 allows.
fn v2Source(block: []const u8, family: Family, transport: Transport) ?Address {
    if (transport != .stream) return null;
    return switch (family) {
        .inet => .initIp4(block[0..4].*, std.mem.readInt(u16, block[8..10], .big)),
        .inet6 => .initIp6(block[0..16].*, std.mem.readInt(u16, block[32..34], .big), 0, 0),
        .unspec, .unix => null,
        _ => unreachable, // refused by the caller
    };
}

/// The type-length-values from `start` on fill `header` to its end, and a checksum is right
/// (section 2.2.3). What else they say is of no use here.
fn checkVectors(header: []const u8, start: usize) Error!void {
    var rest = header[start..];
    while (rest.len > 0) {
        if (rest.len < 3) return error.Malformed;
        const len: usize = std.mem.readInt(u16, rest[1..3], .big);
        if (rest.len - 3 < len) return error.Malformed;
        if (rest[0] == type_crc32c) {
            if (len != 4) return error.Malformed;
            const at = header.len - rest.len + 3;
            const claimed = std.mem.readInt(u32, rest[3..7], .big);
            if (checksum(header, at) != claimed) return error.Malformed;
        }
        rest = rest[3 + len ..];
    }
}

/// CRC32c of the header with zeros at `at`, where the checksum itself stands.
fn checksum(header: []const u8, at: usize) u32 {
    var crc = std.hash.crc.Crc32Iscsi.init();
    crc.update(header[0..at]);
    crc.update(&.{ 0, 0, 0, 0 });
    crc.update(header[at + 4 ..]);
    return crc.final();
}

const testing = std.testing;

fn expectSource(expected: ?[]const u8, bytes: []const u8) !void {
    const header = (try parse(bytes)).header;
    try testing.expectEqual(bytes.len, header.len);
    const text = expected orelse return testing.expect(header.source == null);
    try testing.expectFmt(text, "{f}", .{header.source.?});
}

const inet: [12]u8 = .{ 192, 0, 2, 7, 10, 0, 0, 1 } ++ .{ 0xd9, 0x03 } ++ .{ 0, 22 };
const inet6 = "\x20\x01\x0d\xb8" ++ "\x00" ** 11 ++ "\x07" ++ "\x00" ** 15 ++ "\x01" ++
    "\xd9\x03\x00\x16";

fn v2(comptime command: u8, comptime family: u8, comptime block: []const u8) []const u8 {
    const len: [2]u8 = .{ block.len >> 8, block.len & 0xff };
    return v2_signature ++ &[_]u8{ command, family } ++ &len ++ block;
}

const good = [_][]const u8{
    "PROXY TCP4 192.0.2.7 10.0.0.1 55555 22\r\n",
    "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
    "PROXY TCP6 2001:db8::7 ::1 55555 0\r\n",
    "PROXY UNKNOWN\r\n",
    "PROXY UNKNOWN ffff:f...f:ffff whatever 65535 65535\r\n",
    v2(0x21, 0x11, &inet),
    v2(0x21, 0x21, inet6),
    v2(0x21, 0x11, &inet ++ "\x04\x00\x00\xea\x00\x03abc"),
    v2(0x21, 0x12, &inet),
    v2(0x21, 0x31, "/run/a.sock" ++ "\x00" ** 205),
    v2(0x21, 0x00, "\x02\x00\x04host"),
    v2(0x20, 0x00, ""),
    v2(0x20, 0xff, "anything at all"),
};

test "the client's address is read from both versions" {
    const sources = [good.len]?[]const u8{
        "192.0.2.7:55555",     "255.255.255.255:65535",
        "[2001:db8::7]:55555", null,
        null,                  "192.0.2.7:55555",
        "[2001:db8::7]:55555", "192.0.2.7:55555",
        null,                  null,
        null,                  null,
        null,
    };
    for (good, sources) |bytes, source| try expectSource(source, bytes);
}

test "a header cut at any byte asks for more, and nothing behind it is looked at" {
    for (good) |bytes| {
        for (0..bytes.len) |end| {
            try testing.expect(try parse(bytes[0..end]) == .more);
        }
        var longer: [512]u8 = @splat('\n');
        @memcpy(longer[0..bytes.len], bytes);
        const whole = (try parse(bytes)).header;
        const header = (try parse(&longer)).header;
        try testing.expectEqual(bytes.len, header.len);
        try testing.expectEqual(whole.source == null, header.source == null);
    }
}

test "what is no header at all is told by its first bytes" {
    const others = [_][]const u8{
        "SSH-2.0-OpenSSH_9.2\r\n", "S",            "\n",                   "\x00", "proxy TCP4", "PROXX", "P\x00", "PROXY\t",
        "GET / HTTP/1.1\r\n",      "\r\n\r\n\r\n", "\r\n\r\n\x00\r\nQUIX",
    };
    for (others) |bytes| try testing.expectError(error.Missing, parse(bytes));
}

test "every malformed header is refused" {
    const malformed = [_][]const u8{
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\r\n",
        "PROXY TCP4\r 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1_0 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP4 1.2.3.4 localhost 1 1\r\n",
        "PROXY TCP4 ::1 ::1 1 1\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        "PROXY TCP6 fe80::1%3 ::1 1 1\r\n",
        "PROXY TCP6 :::1 ::1 1 1\r\n",
        "PROXY UNKNOWN" ++ " " ** 100 ++ "\r\n",
        v2(0x22, 0x11, &inet), // command 2
        v2(0x11, 0x11, &inet), // version 1
        v2(0x31, 0x11, &inet), // version 3
        v2(0x21, 0x41, &inet), // family 4
        v2(0x21, 0x13, &inet), // transport 3
        v2(0x21, 0x11, inet[0..11]), // shorter than its addresses
        v2(0x21, 0x11, ""),
        v2(0x21, 0x21, &inet),
        v2(0x21, 0x31, inet6),
        v2(0x21, 0x11, &inet ++ "\x04"), // half a vector
        v2(0x21, 0x11, &inet ++ "\x04\x00\x01"), // one that claims more than there is
        v2(0x21, 0x11, &inet ++ "\x04\xff\xff"),
        v2(0x21, 0x11, &inet ++ "\x03\x00\x03abc"), // a checksum of three bytes
        v2(0x21, 0x11, &inet ++ "\x03\x00\x04\x00\x00\x00\x00"), // a wrong one
        v2_signature ++ "\x21\x11\xff\xff", // longer than anybody needs
    };
    for (malformed) |bytes| {
        errdefer std.debug.print("{f}\n", .{std.zig.fmtString(bytes)});
        try testing.expectError(error.Malformed, parse(bytes));
    }
}

test "a right checksum is accepted, and any flipped bit under it is not" {
    var header = v2(0x21, 0x11, &inet ++ "\xea\x00\x01x" ++ "\x03\x00\x04\x00\x00\x00\x00")[0..39].*;
    std.mem.writeInt(u32, header[35..39], checksum(&header, 35), .big);
    try expectSource("192.0.2.7:55555", &header);
    for (v2_fixed * 8..header.len * 8) |bit| {
        var flipped = header;
        flipped[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
        // The type of the checksum itself may become one that nobody knows.
        const is_type = bit / 8 == 32;
        if (parse(&flipped)) |_| try testing.expect(is_type) else |err| {
            try testing.expectEqual(error.Malformed, err);
        }
    }
}

test "random bytes behind a good start never break the parser" {
    var prng = std.Random.DefaultPrng.init(5);
    const random = prng.random();
    for (0..50_000) |_| {
        var bytes: [300]u8 = undefined;
        random.bytes(&bytes);
        const start = good[random.uintLessThan(usize, good.len)];
        const kept = random.uintAtMost(usize, start.len);
        @memcpy(bytes[0..kept], start[0..kept]);
        const len = random.uintAtMost(usize, bytes.len);
        const result = parse(bytes[0..len]) catch continue;
        switch (result) {
            .more => {},
            .header => |header| try testing.expect(header.len <= len),
        }
    }
}
