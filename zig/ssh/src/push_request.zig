//! What a client asks git-receive-pack to update: the command list at the head of its stream
//! (gitprotocol-pack(5), "Reference Update Request and Packfile Transfer"), read as git reads it.
//! What follows the list, push options and the pack, is not looked at.

const std = @import("std");
const pkt_line = @import("pkt_line.zig");

/// Most bytes of commands, or of a push certificate, kept of one push: some 150,000 references.
pub const text_max = 16 * 1024 * 1024;

pub const Error = error{
    OutOfMemory,
    /// git would end with a protocol error.
    Malformed,
    /// More than `text_max`.
    TooLong,
};

/// An object id in hexadecimal, 40 or 64 digits; all zeros for "not there".
pub const Command = struct {
    /// Where its line begins in `Request.text`: "<old> <new> <ref>".
    start: u32,
    len: u32,
    digits: u8,
};

pub const Request = struct {
    state: State = .list,
    reader: pkt_line.Reader = .{},
    text: std.ArrayListUnmanaged(u8) = .empty,
    commands: std.ArrayListUnmanaged(Command) = .empty,
    certificate: std.ArrayListUnmanaged(u8) = .empty,
    wants_report: bool = false,
    wants_sideband: bool = false,

    const State = enum {
        list,
        certificate,
        /// The list has ended, and git can follow it.
        complete,
    };

    pub fn deinit(request: *Request, allocator: std.mem.Allocator) void {
        request.reader.deinit(allocator);
        request.text.deinit(allocator);
        request.commands.deinit(allocator);
        request.certificate.deinit(allocator);
    }

    pub fn isComplete(request: *const Request) bool {
        return request.state == .complete;
    }

    pub fn old(request: *const Request, command: Command) []const u8 {
        return request.text.items[command.start..][0..command.digits];
    }

    pub fn new(request: *const Request, command: Command) []const u8 {
        return request.text.items[command.start + command.digits + 1 ..][0..command.digits];
    }

    pub fn ref(request: *const Request, command: Command) []const u8 {
        const line = request.text.items[command.start..][0..command.len];
        return line[2 * (@as(usize, command.digits) + 1) ..];
    }

    /// The next bytes of the client's stream, in pieces of any size.
    pub fn feed(request: *Request, allocator: std.mem.Allocator, bytes: []const u8) Error!void {
        var rest = bytes;
        while (request.state != .complete) {
            const packet = try request.reader.next(allocator, &rest) orelse return;
            switch (packet) {
                .data => |data| if (request.state == .list)
                    try request.readLine(allocator, data)
                else
                    try request.readCertificate(allocator, data),
                .flush => try request.complete(allocator),
                // git takes any of them for the end of the list, but not inside a certificate.
                .delimiter, .response_end => {
                    if (request.state == .certificate) return error.Malformed;
                    try request.complete(allocator);
                },
            }
        }
    }

    fn readLine(request: *Request, allocator: std.mem.Allocator, data: []const u8) Error!void {
        const chomped = pkt_line.Packet.chomp(data);
        const line = untilNul(chomped);
        if (chomped.len > 8 and std.mem.startsWith(u8, line, "shallow ")) return;
        if (line.len < chomped.len) request.readFeatures(untilNul(chomped[line.len + 1 ..]));
        if (std.mem.eql(u8, line, "push-cert")) {
            request.state = .certificate;
            return;
        }
        try request.addCommand(allocator, line);
    }

    fn untilNul(bytes: []const u8) []const u8 {
        return bytes[0 .. std.mem.indexOfScalar(u8, bytes, 0) orelse bytes.len];
    }

    fn readFeatures(request: *Request, features: []const u8) void {
        var words = std.mem.tokenizeAny(u8, features, &std.ascii.whitespace);
        while (words.next()) |word| {
            const name = word[0 .. std.mem.indexOfScalar(u8, word, '=') orelse word.len];
            if (std.mem.eql(u8, name, "report-status")) request.wants_report = true;
            if (std.mem.eql(u8, name, "report-status-v2")) request.wants_report = true;
            if (std.mem.eql(u8, name, "side-band-64k")) request.wants_sideband = true;
        }
    }

    fn readCertificate(
        request: *Request,
        allocator: std.mem.Allocator,
        data: []const u8,
    ) Error!void {
        const text = untilNul(data);
        if (std.mem.startsWith(u8, text, "ERR ")) return error.Malformed; // git ends there
        if (std.mem.eql(u8, text, "push-cert-end\n")) {
            request.state = .list;
            return;
        }
        if (request.certificate.items.len + text.len > text_max) return error.TooLong;
        try request.certificate.appendSlice(allocator, text);
    }

    fn complete(request: *Request, allocator: std.mem.Allocator) Error!void {
        defer request.certificate.clearAndFree(allocator);
        if (request.certificate.items.len > 0) try request.addCertified(allocator);
        request.state = .complete;
    }

    /// The commands of the certificate.
    fn addCertified(request: *Request, allocator: std.mem.Allocator) Error!void {
        if (request.commands.items.len > 0) return error.Malformed;
        const certificate = request.certificate.items;
        const start = std.mem.indexOf(u8, certificate, "\n\n") orelse return error.Malformed;
        // The blank line may be the last one before the signature.
        const end = @max(signatureStart(certificate), start + 2);
        var lines = std.mem.splitScalar(u8, certificate[start + 2 .. end], '\n');
        while (lines.next()) |line| {
            if (line.len == 0 and lines.peek() == null) break;
            try request.addCommand(allocator, line);
        }
    }

    /// "<old> SP <new> SP <ref>", the digits in either case.
    fn addCommand(request: *Request, allocator: std.mem.Allocator, line: []const u8) Error!void {
        const digits = std.mem.indexOfScalar(u8, line, ' ') orelse return error.Malformed;
        if (digits != 40 and digits != 64) return error.Malformed;
        const ids = 2 * digits + 1;
        if (line.len < ids + 1 or line[ids] != ' ') return error.Malformed;
        for (line[0..ids], 0..) |byte, i| {
            if (i != digits and !std.ascii.isHex(byte)) return error.Malformed;
        }
        if (request.text.items.len + line.len > text_max) return error.TooLong;
        const start = request.text.items.len;
        try request.text.appendSlice(allocator, line);
        for (request.text.items[start..][0..ids]) |*byte| byte.* = std.ascii.toLower(byte.*);
        try request.commands.append(allocator, .{
            .start = @intCast(start),
            .len = @intCast(line.len),
            .digits = @intCast(digits),
        });
    }
};

/// Where the last signature of a signed text begins: git's parse_signed_buffer.
fn signatureStart(text: []const u8) usize {
    const marks = [_][]const u8{
        "-----BEGIN PGP SIGNATURE-----",  "-----BEGIN PGP MESSAGE-----",
        "-----BEGIN SIGNED MESSAGE-----", "-----BEGIN SSH SIGNATURE-----",
    };
    var found = text.len;
    var start: usize = 0;
    while (start < text.len) {
        for (marks) |mark| {
            if (std.mem.startsWith(u8, text[start..], mark)) found = start;
        }
        const end = std.mem.indexOfScalarPos(u8, text, start, '\n') orelse break;
        start = end + 1;
    }
    return found;
}

const testing = std.testing;

pub const test_old = "1111111111111111111111111111111111111111";
pub const test_new = "abcdef7890abcdef7890abcdef7890abcdef7890";
pub const test_zero = "0" ** 40;

/// One pkt-line of `text`.
pub inline fn testPacket(comptime text: []const u8) []const u8 {
    return std.fmt.comptimePrint("{x:0>4}", .{text.len + 4}) ++ text;
}

fn expectCommands(expected: []const u8, stream: []const u8) !void {
    for ([_]usize{ 1, 2, 3, 5, 7, 64, stream.len + 1 }) |step| {
        var request: Request = .{};
        defer request.deinit(testing.allocator);
        var start: usize = 0;
        while (start < stream.len) : (start += step) {
            try request.feed(testing.allocator, stream[start..@min(start + step, stream.len)]);
        }
        try testing.expect(request.isComplete());
        var out: std.ArrayListUnmanaged(u8) = .empty;
        defer out.deinit(testing.allocator);
        for (request.commands.items) |command| {
            try out.print(testing.allocator, "{s}:{c}{c} ", .{
                request.ref(command), request.old(command)[0], request.new(command)[0],
            });
        }
        if (request.wants_report) try out.append(testing.allocator, 'R');
        if (request.wants_sideband) try out.append(testing.allocator, 'S');
        try testing.expectEqualStrings(expected, out.items);
    }
}

const update = test_old ++ " " ++ test_new ++ " refs/heads/main";
const create = test_zero ++ " " ++ test_new ++ " refs/tags/v1";
const delete = test_old ++ " " ++ test_zero ++ " refs/heads/x y";

test "updates, creations and deletions are read, and what follows is not" {
    const features = "\x00 report-status-v2 side-band-64k object-format=sha1 agent=git/2.39.5";
    const three = testPacket(update ++ features) ++ testPacket(create ++ "\n") ++
        testPacket(delete) ++ "0000";
    const expected = "refs/heads/main:1a refs/tags/v1:0a refs/heads/x y:10 RS";
    try expectCommands(expected, three ++ "PACK\x00\x00nonsense");
    try expectCommands("", "0000");
    try expectCommands("refs/heads/main:1a ", testPacket(update) ++ "0001anything");
    try expectCommands("refs/heads/main:1a ", testPacket(update) ++ "0002");
}

test "shallow lines and features are told apart from commands" {
    const shallow = testPacket("shallow " ++ test_old) ++
        testPacket("shallow " ++ test_new ++ "\n");
    try expectCommands("refs/heads/main:1a R", shallow ++ testPacket(update ++
        "\x00report-status\n") ++ "0000");
    try expectCommands("refs/heads/main:1a ", testPacket(update ++
        "\x00 xreport-status report-status-v3 no-side-band-64k atomic push-options") ++ "0000");
    try expectCommands("refs/heads/main:1a S", testPacket(update ++
        "\x00side-band-64k=1\x00report-status") ++ "0000");
    // The line feed ends the packet, not the name.
    try expectCommands("refs/heads/main\n:1a ", testPacket(update ++ "\n\x00quiet") ++ "0000");
}

test "identifiers of SHA-256 and capital digits are read as git reads them" {
    const long = "A" ** 64 ++ " " ++ "0" ** 64 ++ " refs/heads/main";
    try expectCommands("refs/heads/main:a0 ", testPacket(long) ++ "0000");
}

const signed = testPacket("push-cert\x00report-status\n") ++
    testPacket("certificate version 0.1\n") ++ testPacket("pusher alice 1700000000 +0000\n") ++
    testPacket("nonce 123\n") ++ testPacket("\n") ++ testPacket(update ++ "\n") ++
    testPacket(create ++ "\n");

test "a push certificate holds the commands before its signature" {
    const end = testPacket("-----BEGIN SSH SIGNATURE-----\n") ++ testPacket(delete ++ "\n") ++
        testPacket("-----END SSH SIGNATURE-----\n") ++ testPacket("push-cert-end\n");
    try expectCommands("refs/heads/main:1a refs/tags/v1:0a R", signed ++ end ++ "0000");
    // Without push-cert-end the flush ends both.
    try expectCommands("refs/heads/main:1a refs/tags/v1:0a R", signed ++ "0000");
}

fn expectError(expected: anyerror, stream: []const u8) !void {
    var request: Request = .{};
    defer request.deinit(testing.allocator);
    try testing.expectError(expected, request.feed(testing.allocator, stream));
}

test "what git would not take is malformed" {
    const malformed = [_][]const u8{
        "PACK",
        "0004",
        testPacket("hello"),
        testPacket(test_old ++ " " ++ test_new),
        testPacket(test_old ++ " " ++ test_new ++ "\trefs/heads/main"),
        testPacket(test_old[1..] ++ " " ++ test_new ++ " refs/heads/main"),
        testPacket(test_old ++ " " ++ test_new[1..] ++ "g refs/heads/main"),
        testPacket(test_old ++ " " ++ "a" ** 64 ++ " refs/heads/main"),
        testPacket("shallow"),
        testPacket("push-certificate"),
        signed ++ "0001",
        signed ++ testPacket("ERR stop\n"),
        testPacket(update) ++ signed ++ "0000",
        testPacket("push-cert") ++ testPacket("no blank line\n") ++ "0000",
        testPacket("push-cert") ++ testPacket("x\n\nno command\n") ++ "0000",
    };
    for (malformed) |stream| {
        errdefer std.debug.print("{f}\n", .{std.zig.fmtString(stream)});
        try expectError(error.Malformed, stream);
    }
}

test "more commands than are kept are refused before the list ends" {
    var request: Request = .{};
    defer request.deinit(testing.allocator);
    const line = testPacket(update);
    const count = text_max / update.len;
    for (0..count) |_| try request.feed(testing.allocator, line);
    try testing.expectError(error.TooLong, request.feed(testing.allocator, line));
    try testing.expectEqual(count, request.commands.items.len);
}

test "random damage never breaks the parser" {
    const stream = testPacket(update ++ "\x00report-status") ++ signed ++ "0000";
    var prng = std.Random.DefaultPrng.init(6);
    for (0..4000) |_| {
        var bytes: [stream.len]u8 = stream[0..stream.len].*;
        for (0..prng.random().uintLessThan(usize, 4)) |_| {
            bytes[prng.random().uintLessThan(usize, bytes.len)] = prng.random().int(u8);
        }
        var request: Request = .{};
        defer request.deinit(testing.allocator);
        request.feed(testing.allocator, &bytes) catch continue;
        for (request.commands.items) |command| {
            try testing.expectEqual(request.old(command).len, request.new(command).len);
        }
    }
}
