//! What git-receive-pack answers to a push: for each command whether its reference was updated
//! (gitprotocol-pack(5), "Report Status"). That it says "ok" only of what it has updated is git's
//! own truth, which the client's `git push` prints too.

const std = @import("std");
const pkt_line = @import("pkt_line.zig");
const push_request = @import("push_request.zig");
const Request = push_request.Request;

pub const Error = pkt_line.Error;

/// One "ok". A proc-receive hook may have updated another reference than the one asked for.
pub const Accepted = struct {
    command: u32,
    /// Owned; null: as in the command.
    ref: ?[]u8 = null,
    old: ?[]u8 = null,
    new: ?[]u8 = null,

    fn deinit(accepted: *Accepted, allocator: std.mem.Allocator) void {
        inline for (.{ "ref", "old", "new" }) |name| {
            if (@field(accepted, name)) |text| allocator.free(text);
        }
    }
};

pub const Report = struct {
    state: State = .advertisement,
    outer: pkt_line.Reader = .{},
    /// The report inside the side band.
    inner: pkt_line.Reader = .{},
    accepted: std.ArrayListUnmanaged(Accepted) = .empty,
    /// Commands that were refused, by number.
    refused: std.ArrayListUnmanaged(u32) = .empty,
    next_command: u32 = 0,

    const State = enum {
        /// The references there are, to their flush.
        advertisement,
        answer,
        /// The report has been read to its end.
        complete,
        /// Something else than a report came: nothing is known.
        broken,
    };

    pub fn deinit(report: *Report, allocator: std.mem.Allocator) void {
        report.outer.deinit(allocator);
        report.inner.deinit(allocator);
        for (report.accepted.items) |*accepted| accepted.deinit(allocator);
        report.accepted.deinit(allocator);
        report.refused.deinit(allocator);
    }

    pub fn isComplete(report: *const Report) bool {
        return report.state == .complete;
    }

    /// The next bytes of git's standard output, in pieces of any size.
    pub fn feed(
        report: *Report,
        allocator: std.mem.Allocator,
        request: *const Request,
        bytes: []const u8,
    ) void {
        report.read(allocator, request, bytes) catch {
            report.state = .broken;
        };
    }

    fn read(
        report: *Report,
        allocator: std.mem.Allocator,
        request: *const Request,
        bytes: []const u8,
    ) Error!void {
        var rest = bytes;
        while (report.state == .advertisement) {
            const packet = try report.outer.next(allocator, &rest) orelse return;
            if (packet == .flush) report.state = .answer;
        }
        if (!request.wants_report) return;
        if (!request.wants_sideband) return report.readLines(allocator, request, rest);
        while (report.state == .answer) {
            const packet = try report.outer.next(allocator, &rest) orelse return;
            if (packet != .data) return error.Malformed;
            const data = packet.data;
            if (data.len == 0) return error.Malformed;
            if (data[0] == 1) try report.readLines(allocator, request, data[1..]);
        }
    }

    fn readLines(
        report: *Report,
        allocator: std.mem.Allocator,
        request: *const Request,
        bytes: []const u8,
    ) Error!void {
        var rest = bytes;
        while (report.state == .answer) {
            const packet = try report.inner.next(allocator, &rest) orelse return;
            switch (packet) {
                .flush => report.state = .complete,
                .data => |data| try report.readLine(
                    allocator,
                    request,
                    pkt_line.Packet.chomp(data),
                ),
                .delimiter, .response_end => return error.Malformed,
            }
        }
    }

    fn readLine(
        report: *Report,
        allocator: std.mem.Allocator,
        request: *const Request,
        line: []const u8,
    ) Error!void {
        if (cut(line, "unpack ") != null) return; // when it failed, each command is "ng"
        if (cut(line, "ok ")) |ref| {
            const command = try report.find(request, ref);
            return report.accepted.append(allocator, .{ .command = command });
        }
        if (cut(line, "ng ")) |text| {
            const command = try report.findRefused(request, text);
            return report.refused.append(allocator, command);
        }
        const option = cut(line, "option ") orelse return error.Malformed;
        if (report.accepted.items.len == 0) return error.Malformed;
        const last = &report.accepted.items[report.accepted.items.len - 1];
        inline for (.{ "refname ", "old-oid ", "new-oid " }, .{ "ref", "old", "new" }) |key, name| {
            if (cut(option, key)) |text| {
                if (@field(last, name) != null) return error.Malformed;
                @field(last, name) = try allocator.dupe(u8, text);
            }
        }
    }

    fn cut(line: []const u8, start: []const u8) ?[]const u8 {
        return if (std.mem.startsWith(u8, line, start)) line[start.len..] else null;
    }

    /// The command with this reference: git reports them in their order, and one more than once
    /// where a hook made several of it.
    fn find(report: *Report, request: *const Request, ref: []const u8) error{Malformed}!u32 {
        const commands = request.commands.items;
        const number = report.next_command;
        if (number < commands.len and std.mem.eql(u8, request.ref(commands[number]), ref)) {
            report.next_command += 1;
            return number;
        }
        const last = report.accepted.getLastOrNull() orelse return error.Malformed;
        if (last.command + 1 != number) return error.Malformed;
        if (!std.mem.eql(u8, request.ref(commands[last.command]), ref)) return error.Malformed;
        return last.command;
    }

    /// The same for "<ref> SP <reason>": a refused name may have a space in it.
    fn findRefused(
        report: *Report,
        request: *const Request,
        text: []const u8,
    ) error{Malformed}!u32 {
        const number = report.next_command;
        if (number >= request.commands.items.len) return error.Malformed;
        const reason = cut(text, request.ref(request.commands.items[number])) orelse {
            return error.Malformed;
        };
        if (reason.len > 0 and reason[0] != ' ') return error.Malformed;
        report.next_command += 1;
        return number;
    }
};

const testing = std.testing;
const packetOf = push_request.testPacket;

const advertisement = packetOf(push_request.test_old ++ " refs/heads/a\x00report-status\n") ++
    packetOf(push_request.test_old ++ " refs/heads/b\n") ++ "0000";

const command_a = push_request.test_old ++ " " ++ push_request.test_new ++ " refs/heads/a";
const command_b = push_request.test_old ++ " " ++ push_request.test_zero ++ " refs/heads/b";
const command_c = push_request.test_zero ++ " " ++ push_request.test_new ++ " refs/for/c d";

fn expectReport(
    expected: []const u8,
    comptime features: []const u8,
    answer: []const u8,
) !void {
    const allocator = testing.allocator;
    var request: Request = .{};
    defer request.deinit(allocator);
    try request.feed(allocator, packetOf(command_a ++ "\x00" ++ features) ++ packetOf(command_b) ++
        packetOf(command_c) ++ "0000");
    const stream = try std.mem.concat(allocator, u8, &.{ advertisement, answer });
    defer allocator.free(stream);
    for ([_]usize{ 1, 2, 3, 7, 50, stream.len }) |step| {
        var report: Report = .{};
        defer report.deinit(allocator);
        var start: usize = 0;
        while (start < stream.len) : (start += step) {
            report.feed(allocator, &request, stream[start..@min(start + step, stream.len)]);
        }
        var out: std.ArrayListUnmanaged(u8) = .empty;
        defer out.deinit(allocator);
        try out.appendSlice(allocator, @tagName(report.state));
        for (report.accepted.items) |it| {
            const command = request.commands.items[it.command];
            try out.print(allocator, " {s}", .{it.ref orelse request.ref(command)});
            if (it.old) |old| try out.print(allocator, "<{c}", .{old[0]});
            if (it.new) |new| try out.print(allocator, ">{c}", .{new[0]});
        }
        for (report.refused.items) |number| try out.print(allocator, " -{d}", .{number});
        try testing.expectEqualStrings(expected, out.items);
    }
}

const all_ok = packetOf("unpack ok\n") ++ packetOf("ok refs/heads/a\n") ++
    packetOf("ok refs/heads/b\n") ++ packetOf("ok refs/for/c d\n") ++ "0000";
const one_refused = packetOf("unpack ok\n") ++ packetOf("ok refs/heads/a\n") ++
    packetOf("ng refs/heads/b hook declined\n") ++ packetOf("ng refs/for/c d why not\n") ++ "0000";

test "a report tells what was updated, with a side band and without" {
    const all = "complete refs/heads/a refs/heads/b refs/for/c d";
    try expectReport(all, "report-status", all_ok);
    try expectReport(all, "report-status-v2 side-band-64k", packetOf("\x02remote: hello\n") ++
        packetOf("\x01") ++ packetOf("\x01" ++ all_ok) ++ "0000");
    // The report may be cut anywhere by the side band.
    try expectReport(all, "report-status side-band-64k", packetOf("\x01" ++ all_ok[0..7]) ++
        packetOf("\x02more") ++ packetOf("\x01" ++ all_ok[7..40]) ++
        packetOf("\x01" ++ all_ok[40..]) ++ "0000");
}

test "what is refused is not accepted" {
    try expectReport("complete refs/heads/a -1 -2", "report-status", packetOf("unpack ok\n") ++
        packetOf("ok refs/heads/a\n") ++ packetOf("ng refs/heads/b hook declined\n") ++
        packetOf("ng refs/for/c d\n") ++ "0000");
    try expectReport("complete -0 -1 -2", "report-status", packetOf("unpack index-pack failed\n") ++
        packetOf("ng refs/heads/a unpacker error\n") ++ packetOf("ng refs/heads/b no\n") ++
        packetOf("ng refs/for/c d\n") ++ "0000");
}

test "a hook's own updates are taken from the options" {
    try expectReport(
        "complete refs/heads/a refs/heads/b refs/changes/1<2>3 refs/changes/2",
        "report-status-v2",
        packetOf("unpack ok\n") ++ packetOf("ok refs/heads/a\n") ++ packetOf("ok refs/heads/b\n") ++
            packetOf("ok refs/for/c d\n") ++ packetOf("option refname refs/changes/1\n") ++
            packetOf("option old-oid 2222\n") ++ packetOf("option new-oid 3333\n") ++
            packetOf("option forced-update\n") ++ packetOf("ok refs/for/c d\n") ++
            packetOf("option refname refs/changes/2\n") ++ "0000",
    );
}

test "a refused name may have a space" {
    try expectReport("complete refs/heads/a -1 -2", "report-status", one_refused);
}

test "without a whole report nothing is certain" {
    try expectReport("answer", "side-band-64k", packetOf("\x02hello") ++ "0000");
    try expectReport("answer", "report-status", "");
    try expectReport("answer refs/heads/a", "report-status", all_ok[0..40]);
    try expectReport("broken", "report-status", packetOf("hello"));
    try expectReport("broken", "report-status", packetOf("ok refs/heads/z\n"));
    try expectReport("broken", "report-status", packetOf("option refname x\n"));
    try expectReport("broken", "report-status side-band-64k", "0000");
    try expectReport("broken", "report-status side-band-64k", "0004");
    try expectReport("broken", "report-status", "nonsense");
    try expectReport("broken refs/heads/a", "report-status", packetOf("ok refs/heads/a") ++ "0001");
    try expectReport("broken refs/heads/a -1", "report-status", packetOf("ok refs/heads/a") ++
        packetOf("ng refs/heads/b no") ++ packetOf("ok refs/heads/b"));
}

test "random damage never breaks the parser" {
    const allocator = testing.allocator;
    var request: Request = .{};
    defer request.deinit(allocator);
    try request.feed(allocator, packetOf(command_a ++ "\x00report-status side-band-64k") ++
        packetOf(command_b) ++ "0000");
    const stream = advertisement ++ packetOf("\x01" ++ one_refused) ++ "0000";
    var prng = std.Random.DefaultPrng.init(7);
    for (0..4000) |_| {
        var bytes: [stream.len]u8 = stream[0..stream.len].*;
        for (0..1 + prng.random().uintLessThan(usize, 3)) |_| {
            bytes[prng.random().uintLessThan(usize, bytes.len)] = prng.random().int(u8);
        }
        var report: Report = .{};
        defer report.deinit(allocator);
        report.feed(allocator, &request, &bytes);
        for (report.accepted.items) |it| try testing.expect(it.command < 2);
    }
}
