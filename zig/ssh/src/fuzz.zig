//! What must hold for any bytes from a client, from git and from whoever writes the key table, for
//! the fuzzer (`./dev fuzz`).

const std = @import("std");
const git_command = @import("git_command.zig");
const key_table = @import("key_table.zig");
const keys_json = @import("keys_json.zig");
const networks = @import("networks.zig");
const pkt_line = @import("pkt_line.zig");
const proxy_protocol = @import("proxy_protocol.zig");
const public_key = @import("public_key.zig");
const push_report = @import("push_report.zig");
const push_request = @import("push_request.zig");
const repository = @import("repository.zig");
const rules = @import("rules.zig");

const Allocator = std.mem.Allocator;
const PublicKey = public_key.PublicKey;

/// Each takes any bytes and returns an error when something is not as it must be.
pub const targets = struct {
    /// The command of an exec request, and the repository's name in it.
    pub fn git_command_line(gpa: Allocator, text: []const u8) !void {
        const room = try gpa.alloc(u8, text.len);
        defer gpa.free(room);
        const expected = try gpa.alloc(u8, text.len);
        defer gpa.free(expected);
        const command = git_command.parse(text, room) catch {
            if (modelPath(text, expected) != null) return error.Refused;
            return;
        };
        const path = modelPath(text, expected) orelse return error.Accepted;
        if (!std.mem.eql(u8, path, command.path)) return error.Path;
        if (!std.mem.startsWith(u8, text[4..], command.service.name())) return error.Service;
        try checkQuoted(gpa, command);
        try checkName(gpa, command.path);
    }

    /// Packets, the references a client wants to update, and what follows them.
    pub fn push_list(gpa: Allocator, bytes: []const u8) !void {
        try checkPackets(gpa, bytes);
        var whole: push_request.Request = .{};
        defer whole.deinit(gpa);
        const verdict = feedRequest(gpa, &whole, bytes, null);
        var prng: std.Random.DefaultPrng = .init(std.hash.Wyhash.hash(0, bytes));
        var cut: push_request.Request = .{};
        defer cut.deinit(gpa);
        if (feedRequest(gpa, &cut, bytes, prng.random()) != verdict) return error.Verdict;
        if (whole.isComplete() != cut.isComplete()) return error.Complete;
        if (whole.wants_report != cut.wants_report) return error.Features;
        if (whole.wants_sideband != cut.wants_sideband) return error.Features;
        if (whole.commands.items.len != cut.commands.items.len) return error.Commands;
        for (whole.commands.items, cut.commands.items) |a, b| {
            if (!std.meta.eql(a, b)) return error.Commands;
            try checkCommand(&whole, a);
        }
        if (!std.mem.eql(u8, whole.text.items, cut.text.items)) return error.Text;
    }

    /// What git answers; the first byte chooses what the client asked for.
    pub fn push_answer(gpa: Allocator, bytes: []const u8) !void {
        if (bytes.len == 0) return;
        const features = [_][]const u8{
            "report-status", "report-status side-band-64k", "side-band-64k", "quiet",
        };
        var request: push_request.Request = .{};
        defer request.deinit(gpa);
        var buffer: [600]u8 = undefined;
        var list: std.Io.Writer = .fixed(&buffer);
        for ([_][]const u8{ "refs/heads/a", "refs/heads/b", "refs/heads/b c", "refs/a" }) |ref| {
            const line_bytes = 4 + 2 * 41 + ref.len + 1 + features[bytes[0] & 3].len;
            try list.print("{x:0>4}{s} {s} {s}\x00{s}", .{
                line_bytes, "1" ** 40, "0" ** 40, ref, features[bytes[0] & 3],
            });
        }
        try list.writeAll("0000");
        try request.feed(gpa, list.buffered());

        var whole: push_report.Report = .{};
        defer whole.deinit(gpa);
        whole.feed(gpa, &request, bytes[1..]);
        var cut: push_report.Report = .{};
        defer cut.deinit(gpa);
        var pieces: Pieces = .init(bytes[1..]);
        while (pieces.next()) |piece| cut.feed(gpa, &request, piece);
        try checkReports(&request, &whole, &cut);
    }

    /// The first bytes of a connection through a load balancer.
    pub fn proxy_header(_: Allocator, bytes: []const u8) !void {
        const final = proxy_protocol.parse(bytes);
        // As the bytes arrive: "more" until it is known, and then the same for good.
        var prng: std.Random.DefaultPrng = .init(std.hash.Wyhash.hash(0, bytes));
        var known: ?@TypeOf(final) = null;
        var len: usize = 0;
        while (len <= bytes.len) : (len += 1 + prng.random().uintAtMost(usize, bytes.len / 64)) {
            const now = proxy_protocol.parse(bytes[0..len]);
            if (known) |before| {
                if (!sameHeader(before, now)) return error.ChangedItsMind;
            } else if (now) |result| {
                if (result == .header) known = now;
            } else |_| known = now;
        }
        if (known) |before| if (!sameHeader(before, final)) return error.ChangedItsMind;
        const expected = modelHeader(bytes);
        const result = final catch return if (expected != null) error.Refused;
        const header = switch (result) {
            .more => return if (expected != null) error.MoreThanWhole,
            .header => |header| header,
        };
        const known_header: proxy_protocol.Result = .{
            .header = expected orelse return error.Accepted,
        };
        if (!sameHeader(final, known_header)) return error.Header;
        const source = header.source orelse return;
        // Written as a load balancer would, it is read as the same address.
        var buffer: [proxy_protocol.v1_max]u8 = undefined;
        const again = (try proxy_protocol.parse(try v1Header(&buffer, source))).header;
        if (!again.source.?.eql(source)) return error.Source;
    }

    /// One line of an authorized_keys file without options.
    pub fn public_key_line(_: Allocator, line: []const u8) !void {
        const key = PublicKey.fromLine(line, 0) catch |err| switch (err) {
            error.TooWeak => return error.WeakerThanNothing,
            error.Malformed, error.UnsupportedType => return,
        };
        const known = for (public_key.types) |name| {
            if (std.mem.eql(u8, name, key.type_name)) break true;
        } else false;
        if (!known) return error.Type;
        var buffer: [public_key.line_max + 1]u8 = undefined;
        const written = key.writeLine(&buffer);
        const again = try PublicKey.fromLine(written, 0);
        if (!std.mem.eql(u8, key.blob(), again.blob())) return error.Blob;
        if (!std.mem.eql(u8, key.type_name, again.type_name)) return error.Type;
        if (std.mem.indexOf(u8, line, written[key.type_name.len + 1 ..]) == null) {
            return error.NotInTheLine;
        }
        if (PublicKey.fromLine(line, 3000)) |_| {} else |err| {
            if (err != error.TooWeak) return error.OtherRefusal;
            if (!std.mem.eql(u8, key.type_name, "ssh-rsa")) return error.OnlyRsaIsWeak;
        }
    }

    /// The key table as JSON.
    pub fn keys_table(gpa: Allocator, text: []const u8) !void {
        var table: key_table.KeyTable = .init(gpa);
        defer table.deinit();
        var draft = table.startDraft();
        defer draft.deinit();
        var buffer: [300]u8 = undefined;
        var reason: std.Io.Writer = .fixed(&buffer);
        keys_json.parse(gpa, &draft, text, &reason) catch |err| switch (err) {
            error.OutOfMemory => return err,
            error.BadKeys => return if (reason.buffered().len == 0) error.NoReason,
        };
        table.replace(&draft);
        try checkTable(gpa, &table, text);
    }

    /// An address or network of the configuration.
    pub fn network(_: Allocator, text: []const u8) !void {
        const parsed = networks.Network.parse(text) catch return;
        const slash = std.mem.indexOfScalar(u8, text, '/') orelse text.len;
        const address = try std.net.Address.parseIp(text[0..slash], 0);
        if (!parsed.contains(address)) return error.WithoutItself;
        if (!networks.contain(&.{parsed}, networks.unmapped(address))) return error.Unmapped;
    }
};

/// Bytes as they might arrive: in pieces of any size, the same ones for the same bytes.
const Pieces = struct {
    rest: []const u8,
    prng: std.Random.DefaultPrng,

    fn init(bytes: []const u8) Pieces {
        return .{ .rest = bytes, .prng = .init(std.hash.Wyhash.hash(0, bytes)) };
    }

    fn next(pieces: *Pieces) ?[]const u8 {
        if (pieces.rest.len == 0) return null;
        const random = pieces.prng.random();
        const most = @min(pieces.rest.len, @as(usize, 1) << random.int(u3));
        const piece = pieces.rest[0..random.intRangeAtMost(usize, 1, most)];
        pieces.rest = pieces.rest[piece.len..];
        return piece;
    }
};

// ---------------------------------------------------------------- commands

/// The path in a command, unquoted a byte at a time; null where anything else stands.
fn modelPath(text: []const u8, out: []u8) ?[]const u8 {
    if (text.len > git_command.command_max) return null;
    const head = text[0 .. std.mem.indexOfScalar(u8, text, '\'') orelse return null];
    const known = for ([_][]const u8{
        "git-upload-pack ",  "git-receive-pack ",   "git-upload-archive ", "git upload-pack ",
        "git receive-pack ", "git upload-archive ",
    }) |name| {
        if (std.mem.eql(u8, head, name)) break true;
    } else false;
    if (!known) return null;
    var len: usize = 0;
    var state: enum { quoted, plain, escaped, after_escape } = .quoted;
    for (text[head.len + 1 ..]) |byte| switch (state) {
        .quoted => if (byte == '\'') {
            state = .plain;
        } else {
            out[len] = byte;
            len += 1;
        },
        .plain => if (byte == '\\') {
            state = .escaped;
        } else return null,
        .escaped => if (byte == '\'' or byte == '!') {
            out[len] = byte;
            len += 1;
            state = .after_escape;
        } else return null,
        .after_escape => if (byte == '\'') {
            state = .quoted;
        } else return null,
    };
    return if (state == .plain) out[0..len] else null;
}

/// Quoted as git does it, the path is read as itself.
fn checkQuoted(gpa: Allocator, command: git_command.Command) !void {
    var quoted: std.ArrayList(u8) = .empty;
    defer quoted.deinit(gpa);
    try quoted.print(gpa, "git-{s} '", .{command.service.name()});
    for (command.path) |byte| switch (byte) {
        '\'', '!' => try quoted.print(gpa, "'\\{c}'", .{byte}),
        else => try quoted.append(gpa, byte),
    };
    try quoted.append(gpa, '\'');
    const room = try gpa.alloc(u8, quoted.items.len);
    defer gpa.free(room);
    if (quoted.items.len > git_command.command_max) return;
    const again = try git_command.parse(quoted.items, room);
    if (again.service != command.service) return error.Service;
    if (!std.mem.eql(u8, again.path, command.path)) return error.Quoting;
}

fn checkName(gpa: Allocator, path: []const u8) !void {
    const name = repository.canonicalName(path) catch return;
    if (std.mem.indexOf(u8, path, name) == null) return error.NotInThePath;
    if (name.len == 0 or name[0] == '-') return error.NameStart;
    if (!std.unicode.utf8ValidateSlice(name)) return error.NameUtf8;
    for (name) |byte| if (std.ascii.isControl(byte)) return error.NameControl;
    var parts = std.mem.splitScalar(u8, name, '/');
    while (parts.next()) |part| {
        for ([_][]const u8{ "", ".", ".." }) |bad| {
            if (std.mem.eql(u8, part, bad)) return error.NamePart;
        }
        if (part.len > repository.component_max) return error.NameLength;
        if (std.ascii.endsWithIgnoreCase(part, ".git")) return error.NameInsideGit;
    }
    // One name for every spelling.
    for ([_][2][]const u8{ .{ "", "" }, .{ "/", "/" }, .{ "", ".git" }, .{ "//", ".git/" } }) |it| {
        const spelling = try std.mem.concat(gpa, u8, &.{ it[0], name, it[1] });
        defer gpa.free(spelling);
        if (spelling.len > repository.path_max) continue;
        const again = try repository.canonicalName(spelling);
        if (!std.mem.eql(u8, again, name)) return error.OtherName;
    }
}

// ---------------------------------------------------------------- pushes

/// The reader over any pieces agrees with one who has all bytes before him.
fn checkPackets(gpa: Allocator, bytes: []const u8) !void {
    var reader: pkt_line.Reader = .{};
    defer reader.deinit(gpa);
    var rest = bytes;
    var pieces: Pieces = .init(bytes);
    while (pieces.next()) |whole_piece| {
        var piece = whole_piece;
        while (reader.next(gpa, &piece) catch |err| switch (err) {
            error.OutOfMemory => return err,
            error.Malformed => {
                const len = modelLength(rest) orelse return;
                if (len != 3 and len <= pkt_line.payload_max + 4) return error.MalformedPacket;
                return;
            },
        }) |packet| {
            const len = modelLength(rest) orelse return error.PacketWithoutHead;
            const expected: pkt_line.Packet = switch (len) {
                0 => .flush,
                1 => .delimiter,
                2 => .response_end,
                else => .{ .data = rest[4..len] },
            };
            if (std.meta.activeTag(expected) != packet) return error.Packet;
            if (packet == .data and !std.mem.eql(u8, packet.data, expected.data)) {
                return error.PacketData;
            }
            rest = rest[@max(4, len)..];
        }
        if (piece.len != 0) return error.PacketRest;
    }
    // What is left is no whole packet.
    if (rest.len < 4) return;
    const len = modelLength(rest) orelse return error.HeadTaken;
    if (len < 4 or len <= rest.len) return error.PacketMissing;
}

fn modelLength(bytes: []const u8) ?usize {
    if (bytes.len < 4) return null;
    for (bytes[0..4]) |digit| if (!std.ascii.isHex(digit)) return null;
    return std.fmt.parseInt(usize, bytes[0..4], 16) catch null;
}

/// The error's name, or null.
fn feedRequest(
    gpa: Allocator,
    request: *push_request.Request,
    bytes: []const u8,
    cuts: ?std.Random,
) ?push_request.Error {
    var rest = bytes;
    while (rest.len > 0) {
        const most = @min(rest.len, 90);
        const len = if (cuts) |random| random.intRangeAtMost(usize, 1, most) else rest.len;
        request.feed(gpa, rest[0..len]) catch |err| return err;
        rest = rest[len..];
    }
    return null;
}

fn checkCommand(request: *const push_request.Request, command: push_request.Command) !void {
    const old = request.old(command);
    const new = request.new(command);
    if (old.len != new.len or (old.len != 40 and old.len != 64)) return error.IdLength;
    for ([_][]const u8{ old, new }) |id| for (id) |digit| {
        if (!std.ascii.isHex(digit) or std.ascii.isUpper(digit)) return error.IdDigit;
    };
    if (std.mem.indexOfScalar(u8, request.ref(command), 0) != null) return error.RefNul;
}

fn checkReports(
    request: *const push_request.Request,
    whole: *const push_report.Report,
    cut: *const push_report.Report,
) !void {
    if (whole.state != cut.state) return error.State;
    if (!std.mem.eql(u32, whole.refused.items, cut.refused.items)) return error.ReportRefused;
    if (whole.accepted.items.len != cut.accepted.items.len) return error.ReportAccepted;
    const count = request.commands.items.len;
    for (whole.accepted.items, cut.accepted.items) |a, b| {
        if (a.command >= count or a.command != b.command) return error.ReportCommand;
        inline for (.{ "ref", "old", "new" }) |name| {
            const texts = .{ @field(a, name), @field(b, name) };
            if ((texts[0] == null) != (texts[1] == null)) return error.ReportOption;
            if (texts[0]) |text| if (!std.mem.eql(u8, text, texts[1].?)) return error.ReportOption;
        }
    }
    // In the order of the commands, none twice: push.zig walks along.
    for (whole.refused.items, 0..) |number, i| {
        if (number >= count) return error.RefusedCommand;
        if (i > 0 and number <= whole.refused.items[i - 1]) return error.RefusedOrder;
        for (whole.accepted.items) |accepted| {
            if (accepted.command == number) return error.AcceptedAndRefused;
        }
    }
    if (!request.wants_report and whole.isComplete()) return error.UnaskedReport;
}

// ---------------------------------------------------------------- addresses and keys

fn sameHeader(a: anytype, b: @TypeOf(a)) bool {
    const x = a catch |err| return if (b) |_| false else |other| err == other;
    const y = b catch return false;
    if (std.meta.activeTag(x) != y) return false;
    if (x == .more) return true;
    if (x.header.len != y.header.len) return false;
    const from = x.header.source orelse return y.header.source == null;
    return from.eql(y.header.source orelse return false);
}

/// A whole header at the start of `bytes`, read with all of it in view; null for anything else.
fn modelHeader(bytes: []const u8) ?proxy_protocol.Header {
    const signature = "\r\n\r\n\x00\r\nQUIT\n";
    if (std.mem.startsWith(u8, bytes, signature)) return modelV2(bytes);
    const head = bytes[0..@min(bytes.len, proxy_protocol.v1_max)];
    const end = std.mem.indexOf(u8, head, "\r\n") orelse return null;
    if (std.mem.indexOfAny(u8, head[0..end], "\r\n") != null) return null;
    var words: [6][]const u8 = @splat("");
    var count: usize = 0;
    var split = std.mem.splitScalar(u8, head[0..end], ' ');
    while (split.next()) |word| : (count += 1) if (count < words.len) {
        words[count] = word;
    };
    if (count < 2 or !std.mem.eql(u8, words[0], "PROXY")) return null;
    if (std.mem.eql(u8, words[1], "UNKNOWN")) return .{ .len = end + 2, .source = null };
    const is_v4 = std.mem.eql(u8, words[1], "TCP4");
    if (count != 6 or !(is_v4 or std.mem.eql(u8, words[1], "TCP6"))) return null;
    var addresses: [2]std.net.Address = undefined;
    for (&addresses, words[2..4], words[4..6]) |*address, host, port| {
        const value = std.fmt.parseInt(u16, port, 10) catch return null;
        var buffer: [5]u8 = undefined;
        const written = std.fmt.bufPrint(&buffer, "{d}", .{value}) catch return null;
        if (!std.mem.eql(u8, port, written)) return null;
        if (std.mem.indexOfScalar(u8, host, '%') != null) return null;
        address.* = std.net.Address.parseIp(host, value) catch return null;
        if ((address.any.family == std.posix.AF.INET) != is_v4) return null;
    }
    return .{ .len = end + 2, .source = addresses[0] };
}

fn modelV2(bytes: []const u8) ?proxy_protocol.Header {
    if (bytes.len < 16) return null;
    const len = 16 + @as(usize, bytes[14]) * 256 + bytes[15];
    if (len > bytes.len or len > proxy_protocol.v2_max) return null;
    if (bytes[12] == 0x20) return .{ .len = len, .source = null };
    if (bytes[12] != 0x21 or bytes[13] & 15 > 2) return null;
    const addresses: usize = switch (bytes[13] >> 4) {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        else => return null,
    };
    if (len < 16 + addresses) return null;
    var at: usize = 16 + addresses;
    while (at < len) {
        if (at + 3 > len) return null;
        const start = at + 3;
        const size = @as(usize, bytes[at + 1]) * 256 + bytes[at + 2];
        if (start + size > len) return null;
        if (bytes[at] == 3) {
            if (size != 4) return null;
            const claimed = std.mem.readInt(u32, bytes[start..][0..4], .big);
            if (crc32c(bytes[0..len], start) != claimed) return null;
        }
        at = start + size;
    }
    const block = bytes[16..];
    const source: ?std.net.Address = switch (bytes[13]) {
        0x11 => .initIp4(block[0..4].*, @as(u16, block[8]) << 8 | block[9]),
        0x21 => .initIp6(block[0..16].*, @as(u16, block[32]) << 8 | block[33], 0, 0),
        else => null,
    };
    return .{ .len = len, .source = source };
}

/// A bit at a time, with zeros in the place of the four bytes at `zeros`.
fn crc32c(bytes: []const u8, zeros: usize) u32 {
    var crc: u32 = 0xffff_ffff;
    for (bytes, 0..) |byte, i| {
        crc ^= if (i >= zeros and i < zeros + 4) 0 else byte;
        for (0..8) |_| crc = crc >> 1 ^ if (crc & 1 != 0) @as(u32, 0x82f6_3b78) else 0;
    }
    return ~crc;
}

fn v1Header(buffer: []u8, source: std.net.Address) ![]u8 {
    if (source.any.family == std.posix.AF.INET) {
        const ip: [4]u8 = @bitCast(source.in.sa.addr);
        return std.fmt.bufPrint(buffer, "PROXY TCP4 {d}.{d}.{d}.{d} 0.0.0.0 {d} 0\r\n", .{
            ip[0], ip[1], ip[2], ip[3], source.getPort(),
        });
    }
    var writer: std.Io.Writer = .fixed(buffer);
    try writer.writeAll("PROXY TCP6 ");
    for (0..8) |i| {
        const group = std.mem.readInt(u16, source.in6.sa.addr[2 * i ..][0..2], .big);
        try writer.print("{s}{x}", .{ if (i == 0) "" else ":", group });
    }
    try writer.print(" :: {d} 0\r\n", .{source.getPort()});
    return writer.buffered();
}

/// Every key of the table that was taken belongs to its principal, under its rules.
fn checkTable(gpa: Allocator, table: *key_table.KeyTable, text: []const u8) !void {
    const Item = struct {
        principal: []const u8,
        keys: []const []const u8,
        rules: ?[]const []const u8 = null,
    };
    const parsed = try std.json.parseFromSlice([]const Item, gpa, text, .{});
    defer parsed.deinit();
    var count: usize = 0;
    for (parsed.value) |item| for (item.keys) |line| {
        count += 1;
        const key = try PublicKey.fromLine(line, 0);
        const principal = table.lookup(&key) orelse return error.KeyMissing;
        if (!std.mem.eql(u8, principal.slice(), item.principal)) return error.OtherPrincipal;
        if (std.ascii.indexOfIgnoreCase(principal.slice(), "\n") != null) return error.Principal;
        for (item.rules orelse continue) |rule| {
            if (rule.len > 0) try checkRule(rule);
        }
    };
    if (table.count() > count) return error.KeyFromNowhere;
}

/// A rule allows what it names and not the repository beside it.
fn checkRule(rule: []const u8) !void {
    try rules.validate(rule);
    const write = std.mem.startsWith(u8, rule, "write ");
    const pattern = rule[if (write) "write ".len else "read ".len..];
    const everything = std.mem.eql(u8, pattern, "*");
    if (rules.allows(rule, "some/other", false) and !everything and
        !std.mem.startsWith(u8, pattern, "some/")) return error.RuleTooWide;
    if (std.mem.endsWith(u8, pattern, "/*")) {
        const folder = pattern[0 .. pattern.len - 2];
        var buffer: [4096]u8 = undefined;
        const inside = try std.fmt.bufPrint(&buffer, "{s}/x", .{folder});
        if (!rules.allows(rule, inside, write)) return error.RuleTooNarrow;
        const beside = try std.fmt.bufPrint(&buffer, "{s}x/y", .{folder});
        if (rules.allows(rule, beside, false)) return error.RuleTooWide;
        if (rules.allows(rule, folder, false)) return error.RuleTooWide;
    }
    if (!everything and std.mem.indexOfScalar(u8, pattern, '*') == null) {
        if (!rules.allows(rule, pattern, false)) return error.RuleTooNarrow;
        if (rules.allows(rule, pattern, true) != write) return error.RuleWrite;
    }
}
