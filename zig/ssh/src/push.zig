//! One push while it goes by: reads along on both sides and, when git has ended, leaves a notice
//! of what was updated.

const std = @import("std");
const events_module = @import("events.zig");
const push_request = @import("push_request.zig");
const Report = @import("push_report.zig").Report;
const Pushes = @import("pushes.zig").Pushes;
const Counters = events_module.Counters;
const Events = events_module.Events;

/// Who pushes where. Strings are borrowed for `create`.
pub const About = struct {
    repository: []const u8,
    /// Absolute path of the Git directory.
    path: []const u8,
    principal: []const u8,
    fingerprint: []const u8,
    address: []const u8,
    connection: u64,
};

pub const Push = struct {
    allocator: std.mem.Allocator,
    events: *Events,
    pushes: *Pushes,
    /// Its strings live in `arena`.
    about: About,
    arena: std.heap.ArenaAllocator,
    request: push_request.Request = .{},
    report: Report = .{},
    /// How much of what git has not taken yet has been read here already.
    ahead: usize = 0,
    /// The client's command list cannot be followed: the push must not go on.
    fault: ?push_request.Error = null,

    /// null: too many notices wait already.
    pub fn create(
        allocator: std.mem.Allocator,
        events: *Events,
        pushes: *Pushes,
        about: About,
    ) error{OutOfMemory}!?*Push {
        const push = try allocator.create(Push);
        errdefer allocator.destroy(push);
        push.* = .{
            .allocator = allocator,
            .events = events,
            .pushes = pushes,
            .about = about,
            .arena = .init(allocator),
        };
        errdefer push.arena.deinit();
        inline for (@typeInfo(About).@"struct".fields) |field| {
            if (field.type != []const u8) continue;
            const text = try push.arena.allocator().dupe(u8, @field(about, field.name));
            @field(push.about, field.name) = text;
        }
        if (pushes.reserve()) return push;
        push.arena.deinit();
        allocator.destroy(push);
        return null;
    }

    /// `bytes` are about to be handed to git, which may take a part of them; then the others come
    /// again. false: they must not be, see `fault`.
    pub fn beforeWrite(push: *Push, bytes: []const u8) bool {
        if (push.fault != null) return false;
        if (push.request.isComplete()) return true;
        if (bytes.len > push.ahead) {
            push.request.feed(push.allocator, bytes[push.ahead..]) catch |err| {
                push.fault = err;
                return false;
            };
            push.ahead = bytes.len;
        }
        return true;
    }

    pub fn afterWrite(push: *Push, count: usize) void {
        push.ahead -|= count;
    }

    /// From git's standard output.
    pub fn afterRead(push: *Push, bytes: []const u8) void {
        push.report.feed(push.allocator, &push.request, bytes);
    }

    /// git has ended: leaves the notice, if anything was updated, and frees `push`.
    pub fn finish(push: *Push) void {
        defer push.destroy();
        const updates = push.countUpdates();
        if (updates == 0) return push.pushes.release();
        push.leaveNotice() catch {
            push.pushes.release();
            Counters.add(&push.events.counters.pushes_lost_total, 1);
            return push.events.emit(.@"error", "error", .{
                .repository = push.about.repository,
                .detail = @as([]const u8, "out of memory: the notice of a push is lost"),
            });
        };
        Counters.add(&push.events.counters.pushes_total, 1);
        push.events.emit(.info, "pushed", .{
            .connection = push.about.connection,
            .address = push.about.address,
            .principal = push.about.principal,
            .repository = push.about.repository,
            .references = updates,
            .confirmed = push.report.isComplete(),
        });
    }

    fn destroy(push: *Push) void {
        const allocator = push.allocator;
        push.request.deinit(allocator);
        push.report.deinit(allocator);
        push.arena.deinit();
        allocator.destroy(push);
    }

    fn countUpdates(push: *const Push) usize {
        if (push.report.isComplete()) return push.report.accepted.items.len;
        // Without its whole list git updates nothing.
        if (!push.request.isComplete()) return 0;
        return push.request.commands.items.len - push.report.refused.items.len;
    }

    fn leaveNotice(push: *Push) error{OutOfMemory}!void {
        var out: std.Io.Writer.Allocating = .init(push.allocator);
        defer out.deinit();
        // The only error of a growing writer is that it cannot grow.
        push.writeMembers(&out.writer) catch return error.OutOfMemory;
        try push.pushes.put(out.written());
    }

    /// The JSON object of the notice but for its beginning.
    fn writeMembers(push: *const Push, out: *std.Io.Writer) std.Io.Writer.Error!void {
        try out.writeAll("\"event\":\"push\"");
        inline for (@typeInfo(About).@"struct".fields) |field| {
            try out.writeAll(",\"" ++ field.name ++ "\":");
            const value = @field(push.about, field.name);
            if (field.type == u64) try out.print("{d}", .{value}) else try writeText(out, value);
        }
        const time_us = std.time.microTimestamp();
        try out.print(",\"time\":{d}.{d:0>6},\"confirmed\":{},\"updates\":[", .{
            @divFloor(time_us, std.time.us_per_s),
            @as(u64, @intCast(@mod(time_us, std.time.us_per_s))),
            push.report.isComplete(),
        });
        if (push.report.isComplete()) try push.writeAccepted(out) else try push.writeOpen(out);
        try out.writeAll("]}");
    }

    fn writeAccepted(push: *const Push, out: *std.Io.Writer) std.Io.Writer.Error!void {
        const request = &push.request;
        for (push.report.accepted.items, 0..) |accepted, i| {
            const command = request.commands.items[accepted.command];
            if (i > 0) try out.writeByte(',');
            try writeUpdate(
                out,
                accepted.ref orelse request.ref(command),
                accepted.old orelse request.old(command),
                accepted.new orelse request.new(command),
            );
        }
    }

    /// All that git has not refused, as far as its report was heard.
    fn writeOpen(push: *const Push, out: *std.Io.Writer) std.Io.Writer.Error!void {
        const request = &push.request;
        var refused = push.report.refused.items;
        var is_first = true;
        for (request.commands.items, 0..) |command, number| {
            if (refused.len > 0 and refused[0] == number) {
                refused = refused[1..];
                continue;
            }
            if (!is_first) try out.writeByte(',');
            is_first = false;
            try writeUpdate(out, request.ref(command), request.old(command), request.new(command));
        }
    }
};

fn writeUpdate(
    out: *std.Io.Writer,
    ref: []const u8,
    old: []const u8,
    new: []const u8,
) std.Io.Writer.Error!void {
    try out.writeAll("{\"ref\":");
    try writeText(out, ref);
    try out.writeAll(",\"old\":");
    try writeText(out, old);
    try out.writeAll(",\"new\":");
    try writeText(out, new);
    try out.writeByte('}');
}

/// A JSON string. Bytes that are no UTF-8, which git allows in names, become the lone surrogates
/// U+DC80 to U+DCFF, as in Python's file names.
fn writeText(out: *std.Io.Writer, text: []const u8) std.Io.Writer.Error!void {
    try out.writeByte('"');
    var rest = text;
    while (rest.len > 0) {
        const len = validPrefix(rest);
        try std.json.Stringify.encodeJsonStringChars(rest[0..len], .{}, out);
        rest = rest[len..];
        if (rest.len == 0) break;
        try out.print("\\udc{x:0>2}", .{rest[0]});
        rest = rest[1..];
    }
    try out.writeByte('"');
}

fn validPrefix(text: []const u8) usize {
    var end: usize = 0;
    while (end < text.len) {
        const len = std.unicode.utf8ByteSequenceLength(text[end]) catch return end;
        if (end + len > text.len or !std.unicode.utf8ValidateSlice(text[end..][0..len])) return end;
        end += len;
    }
    return end;
}

const testing = std.testing;
const packetOf = push_request.testPacket;

const sure = ",\"confirmed\":true,\"updates\":[";
const unsure = ",\"confirmed\":false,\"updates\":[";
const update = push_request.test_old ++ " " ++ push_request.test_new ++ " refs/heads/";
const answer = "0000" ++ packetOf("unpack ok\n");

fn expectNotice(expected: ?[]const u8, request: []const u8, report: []const u8) !void {
    var events: Events = .init(testing.allocator);
    defer events.deinit();
    var pushes: Pushes = .init(testing.allocator);
    defer pushes.deinit();
    pushes.capacity.store(1, .monotonic);
    const push = (try Push.create(testing.allocator, &events, &pushes, .{
        .repository = "alice/a",
        .path = "/srv/a\"b",
        .principal = "alice",
        .fingerprint = "SHA256:x",
        .address = "10.0.0.1",
        .connection = 7,
    })).?;
    // git takes three bytes at a time.
    var rest = request;
    while (rest.len > 0) {
        try testing.expect(push.beforeWrite(rest));
        const count = @min(3, rest.len);
        push.afterWrite(count);
        rest = rest[count..];
    }
    push.afterRead(report);
    push.finish();
    var out: [1000]u8 = undefined;
    const json = out[0..pushes.next(&out)];
    const members = expected orelse {
        try testing.expectEqual(0, json.len);
        return testing.expectEqual(0, pushes.reserved);
    };
    const head = "{\"id\":1,\"event\":\"push\",\"repository\":\"alice/a\"," ++
        "\"path\":\"/srv/a\\\"b\",\"principal\":\"alice\",\"fingerprint\":\"SHA256:x\"," ++
        "\"address\":\"10.0.0.1\",\"connection\":7,\"time\":";
    try testing.expectStringStartsWith(json, head);
    try testing.expectStringEndsWith(json, members);
    // Python's and JavaScript's parsers take what is no UTF-8; Zig's does not.
    if (std.mem.indexOf(u8, members, "\\udc") != null) return;
    const parsed = try std.json.parseFromSlice(std.json.Value, testing.allocator, json, .{});
    parsed.deinit();
}

inline fn one(comptime ref: []const u8) []const u8 {
    return "{\"ref\":\"" ++ ref ++ "\",\"old\":\"" ++ push_request.test_old ++ "\",\"new\":\"" ++
        push_request.test_new ++ "\"}";
}

test "a notice lists what git has updated, and there is none when that is nothing" {
    const request = packetOf(update ++ "a\x00report-status") ++ packetOf(update ++ "b") ++
        "0000PACK";
    try expectNotice(sure ++ one("refs/heads/a") ++ "," ++
        one("refs/heads/b") ++ "]}", request, answer ++ packetOf("ok refs/heads/a\n") ++
        packetOf("ok refs/heads/b\n") ++ "0000");
    try expectNotice(sure ++ one("refs/heads/b") ++ "]}", request, answer ++
        packetOf("ng refs/heads/a no\n") ++ packetOf("ok refs/heads/b\n") ++ "0000");
    try expectNotice(null, request, answer ++ packetOf("ng refs/heads/a no\n") ++
        packetOf("ng refs/heads/b no\n") ++ "0000");
    try expectNotice(null, "0000", "0000");
}

test "without a whole report a notice says that it is not confirmed" {
    const request = packetOf(update ++ "a\x00report-status") ++ packetOf(update ++ "b") ++ "0000";
    const both = unsure ++ one("refs/heads/a") ++ "," ++
        one("refs/heads/b") ++ "]}";
    try expectNotice(both, request, "");
    try expectNotice(both, request, "nonsense");
    try expectNotice(both, request, answer ++ packetOf("ok refs/heads/a\n"));
    try expectNotice(unsure ++ one("refs/heads/b") ++ "]}", request, answer ++
        packetOf("ng refs/heads/a no\n"));
    // git had not even read it.
    try expectNotice(null, request[0 .. request.len - 1], "");
}

test "names with quotes, controls and broken UTF-8 become JSON" {
    try expectNotice(unsure ++ one("refs/heads/\\\"\\u0001ü\\udcff\\udcc3") ++
        "]}", packetOf(update ++ "\"\x01ü\xff\xc3") ++ "0000", "");
}

test "what cannot be followed never reaches git" {
    var events: Events = .init(testing.allocator);
    defer events.deinit();
    var pushes: Pushes = .init(testing.allocator);
    defer pushes.deinit();
    const about: About = .{
        .repository = "",
        .path = "",
        .principal = "",
        .fingerprint = "",
        .address = "",
        .connection = 0,
    };
    try testing.expectEqual(null, try Push.create(testing.allocator, &events, &pushes, about));
    pushes.capacity.store(1, .monotonic);
    const certificate = packetOf("push-cert") ++ packetOf("x\n\nno command\n") ++ "0000";
    for ([_][]const u8{ "nonsense", certificate }) |stream| {
        const push = (try Push.create(testing.allocator, &events, &pushes, about)).?;
        for (0..2) |_| try testing.expect(!push.beforeWrite(stream));
        try testing.expect(!push.beforeWrite("0000"));
        try testing.expectEqual(error.Malformed, push.fault.?);
        try testing.expect(!push.request.isComplete());
        push.finish();
        try testing.expectEqual(0, pushes.count());
        try testing.expectEqual(0, pushes.reserved);
    }
}
