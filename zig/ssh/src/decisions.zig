//! Questions that only the host can answer: may this key log in, may this principal read or write
//! this repository. An event loop asks and goes on; the answer comes back to it through its
//! mailbox. Answers come from callback threads in here or from the host's own queue reader.

const std = @import("std");
const events_module = @import("events.zig");
const key_table = @import("key_table.zig");
const public_key = @import("public_key.zig");

const Principal = key_table.Principal;
const Counters = events_module.Counters;

/// Counted up from 1, so that an answer which comes very late cannot meet another question.
pub const Id = u32;

pub const Route = enum { callback, queue };

pub const Authenticate = struct { user: []const u8, key: *const public_key.PublicKey };
pub const Authorize = struct { principal: []const u8, repository: []const u8, write: bool };

pub const Question = struct {
    kind: union(enum) { authenticate: Authenticate, authorize: Authorize },
    fingerprint: public_key.Fingerprint,
    address: []const u8,
    connection: u64,
};

pub const Answer = struct {
    id: Id,
    /// What the asker gave to find its way back.
    token: u64,
    allow: bool,
    /// Set when `allow` and the question was to authenticate.
    principal: ?Principal,
};

/// What an asker keeps of its question.
pub const Pending = struct {
    id: Id,
    deadline_ms: u64,

    /// Longer than any answer is on its way.
    const lost_ms = 5000;

    /// No answer has come in time, and none will.
    pub fn isOver(pending: Pending, decisions: *Decisions, now_ms: u64) bool {
        if (now_ms < pending.deadline_ms) return false;
        // An answer that is on its way already counts, unless it was lost there for want of memory.
        return decisions.cancel(pending.id) or now_ms >= pending.deadline_ms + lost_ms;
    }
};

/// Where a loop receives answers. Called without a lock held.
pub const Mailbox = struct {
    context: *anyopaque,
    deliver: *const fn (context: *anyopaque, answer: Answer) void,
};

pub const AuthCallback = *const fn ([*:0]const u8, [*:0]const u8) callconv(.c) bool;
pub const AuthenticateCallback = *const fn (
    username: [*:0]const u8,
    key_line: [*:0]const u8,
    fingerprint: [*:0]const u8,
    principal: [*]u8,
    capacity: u32,
) callconv(.c) bool;
pub const AuthorizeCallback = *const fn ([*:0]const u8, [*:0]const u8, bool) callconv(.c) bool;

/// What the host has registered. Set at any time from any thread.
pub const Callbacks = struct {
    auth: std.atomic.Value(?AuthCallback) = .init(null),
    authenticate: std.atomic.Value(?AuthenticateCallback) = .init(null),
    authorize: std.atomic.Value(?AuthorizeCallback) = .init(null),
    notify: std.atomic.Value(?events_module.Notify) = .init(null),

    pub fn canAuthenticate(callbacks: *const Callbacks) bool {
        return callbacks.auth.load(.acquire) != null or
            callbacks.authenticate.load(.acquire) != null;
    }
};

pub const AskError = error{ QueueFull, OutOfMemory };

pub const Decisions = struct {
    allocator: std.mem.Allocator,
    callbacks: *const Callbacks,
    counters: *Counters,
    pending_max: u32 = 4096,

    mutex: std.Thread.Mutex = .{},
    work: std.Thread.Condition = .{},
    /// What waits for an answer.
    open: std.AutoArrayHashMapUnmanaged(Id, Open) = .empty,
    last_id: Id = 0,
    /// Ids that nobody has taken yet. Some may have been cancelled since.
    waiting: [2]Waiting = .{ .{}, .{} },
    closing: bool = false,

    const Waiting = struct {
        ids: std.ArrayListUnmanaged(Id) = .empty,
        taken: usize = 0,

        fn pop(waiting: *Waiting) ?Id {
            if (waiting.taken == waiting.ids.items.len) return null;
            defer waiting.compact();
            defer waiting.taken += 1;
            return waiting.ids.items[waiting.taken];
        }

        fn compact(waiting: *Waiting) void {
            if (waiting.taken < waiting.ids.items.len and waiting.taken < 1024) return;
            waiting.ids.replaceRangeAssumeCapacity(0, waiting.taken, &.{});
            waiting.taken = 0;
        }
    };

    const Open = struct {
        mailbox: Mailbox,
        token: u64,
        fingerprint: public_key.Fingerprint,
        is_authenticate: bool,
        /// The arguments of the callbacks, and of `record`, all in one allocation.
        text: []u8,
        first: [:0]const u8, // user, or principal
        second: [:0]const u8, // key line, or repository
        write: bool,
        address: []const u8,
        connection: u64,
    };

    pub fn deinit(decisions: *Decisions) void {
        for (decisions.open.values()) |open| decisions.allocator.free(open.text);
        decisions.open.deinit(decisions.allocator);
        for (&decisions.waiting) |*waiting| waiting.ids.deinit(decisions.allocator);
    }

    /// Puts a question. Exactly one answer follows in the mailbox, unless `cancel` comes first.
    pub fn ask(
        decisions: *Decisions,
        route: Route,
        question: Question,
        mailbox: Mailbox,
        token: u64,
    ) AskError!Id {
        const open = try decisions.copy(question, mailbox, token);
        errdefer decisions.allocator.free(open.text);
        const id = id: {
            decisions.mutex.lock();
            defer decisions.mutex.unlock();
            const is_full = decisions.open.count() >= decisions.pending_max;
            if (decisions.closing or is_full) return error.QueueFull;
            const waiting = &decisions.waiting[@intFromEnum(route)];
            if (waiting.ids.items.len > 2 * decisions.pending_max + 64) decisions.sweep(waiting);
            try waiting.ids.ensureUnusedCapacity(decisions.allocator, 1);
            try decisions.open.ensureUnusedCapacity(decisions.allocator, 1);
            const id = decisions.nextId();
            decisions.open.putAssumeCapacityNoClobber(id, open);
            waiting.ids.appendAssumeCapacity(id);
            if (route == .callback) decisions.work.signal();
            break :id id;
        };
        Counters.add(&decisions.counters.decisions_total, 1);
        if (route == .queue) {
            if (decisions.callbacks.notify.load(.acquire)) |notify| notify();
        }
        return id;
    }

    /// Drops the ids of questions that are over, for a host that never reads its queue.
    fn sweep(decisions: *Decisions, waiting: *Waiting) void {
        var kept: usize = 0;
        for (waiting.ids.items[waiting.taken..]) |id| {
            if (!decisions.open.contains(id)) continue;
            waiting.ids.items[kept] = id;
            kept += 1;
        }
        waiting.ids.items.len = kept;
        waiting.taken = 0;
    }

    fn copy(decisions: *Decisions, question: Question, mailbox: Mailbox, token: u64) !Open {
        var line_buffer: [public_key.line_max + 1]u8 = undefined;
        const first, const second = switch (question.kind) {
            .authenticate => |it| .{ it.user, it.key.writeLine(&line_buffer) },
            .authorize => |it| .{ it.principal, it.repository },
        };
        const text = try std.mem.concat(decisions.allocator, u8, &.{
            first, "\x00", second, "\x00", question.address,
        });
        const second_start = first.len + 1;
        return .{
            .mailbox = mailbox,
            .token = token,
            .fingerprint = question.fingerprint,
            .is_authenticate = question.kind == .authenticate,
            .text = text,
            .first = text[0..first.len :0],
            .second = text[second_start..][0..second.len :0],
            .write = switch (question.kind) {
                .authenticate => false,
                .authorize => |it| it.write,
            },
            .address = text[second_start + second.len + 1 ..],
            .connection = question.connection,
        };
    }

    fn nextId(decisions: *Decisions) Id {
        while (true) {
            decisions.last_id +%= 1;
            if (decisions.last_id == 0) continue; // no id
            if (!decisions.open.contains(decisions.last_id)) return decisions.last_id;
        }
    }

    /// Forgets a question. true: no answer has come and none will.
    pub fn cancel(decisions: *Decisions, id: Id) bool {
        const open = decisions.close(id) orelse return false;
        decisions.allocator.free(open.text);
        return true;
    }

    /// Ends a question and hands out what it held.
    fn close(decisions: *Decisions, id: Id) ?Open {
        decisions.mutex.lock();
        defer decisions.mutex.unlock();
        const entry = decisions.open.fetchSwapRemove(id) orelse return null;
        return entry.value;
    }

    pub const ReplyError = error{ UnknownId, BadPrincipal };

    /// Answers a question. `principal` "" stands for the key's fingerprint.
    pub fn reply(
        decisions: *Decisions,
        id: Id,
        allow: bool,
        principal: []const u8,
    ) ReplyError!void {
        const named: ?Principal = if (principal.len > 0) try Principal.init(principal) else null;
        const open = decisions.close(id) orelse return error.UnknownId;
        defer decisions.allocator.free(open.text);
        var answer: Answer = .{ .id = id, .token = open.token, .allow = allow, .principal = null };
        if (allow and open.is_authenticate) {
            // A fingerprint always fits a principal's name.
            answer.principal = named orelse (Principal.init(&open.fingerprint) catch unreachable);
        }
        open.mailbox.deliver(open.mailbox.context, answer);
    }

    fn refuse(decisions: *Decisions, id: Id) void {
        decisions.reply(id, false, "") catch |err| switch (err) {
            error.UnknownId => {}, // too late, as above
            error.BadPrincipal => unreachable, // none was given
        };
    }

    /// The host's reader: the oldest question of the queue as JSON in `out`, null when none.
    pub fn next(decisions: *Decisions, out: *[events_module.record_max]u8) ?struct { Id, usize } {
        decisions.mutex.lock();
        defer decisions.mutex.unlock();
        while (decisions.waiting[@intFromEnum(Route.queue)].pop()) |id| {
            const open = decisions.open.getPtr(id) orelse continue; // cancelled
            var writer = std.Io.Writer.fixed(out[0 .. out.len - 1]);
            // The longest path, key and principal, all escaped, fit in a record.
            writeRecord(&writer, id, open) catch continue;
            out[writer.end] = 0;
            return .{ id, writer.end };
        }
        return null;
    }

    fn writeRecord(writer: *std.Io.Writer, id: Id, open: *const Open) !void {
        if (open.is_authenticate) {
            try std.json.Stringify.value(.{
                .id = id,
                .kind = "authenticate",
                .user = @as([]const u8, open.first),
                .key = @as([]const u8, open.second),
                .fingerprint = @as([]const u8, &open.fingerprint),
                .address = open.address,
                .connection = open.connection,
            }, .{}, writer);
        } else {
            try std.json.Stringify.value(.{
                .id = id,
                .kind = "authorize",
                .principal = @as([]const u8, open.first),
                .repository = @as([]const u8, open.second),
                .write = open.write,
                .fingerprint = @as([]const u8, &open.fingerprint),
                .address = open.address,
                .connection = open.connection,
            }, .{}, writer);
        }
    }

    pub fn pendingCount(decisions: *Decisions) u32 {
        decisions.mutex.lock();
        defer decisions.mutex.unlock();
        return @intCast(decisions.open.count());
    }

    /// No more questions; callback threads return when they have ended what they do.
    pub fn shutdown(decisions: *Decisions) void {
        decisions.mutex.lock();
        defer decisions.mutex.unlock();
        decisions.closing = true;
        decisions.work.broadcast();
    }

    /// A callback thread: answers questions until `shutdown`.
    pub fn runCallbacks(decisions: *Decisions) void {
        while (decisions.takeForCallback()) |call| {
            defer decisions.allocator.free(call.text);
            const allow, const principal = call.invoke(decisions.callbacks);
            decisions.reply(call.id, allow, principal.text()) catch |err| switch (err) {
                error.UnknownId => {}, // too late: the asker has taken it as no
                error.BadPrincipal => decisions.refuse(call.id),
            };
        }
    }

    const Call = struct {
        id: Id,
        is_authenticate: bool,
        text: []u8,
        first: [:0]const u8,
        second: [:0]const u8,
        write: bool,
        fingerprint: public_key.Fingerprint,

        const Named = struct {
            buffer: [key_table.principal_max + 1]u8 = @splat(0),

            fn text(named: *const Named) []const u8 {
                const end = std.mem.indexOfScalar(u8, &named.buffer, 0) orelse named.buffer.len;
                return named.buffer[0..end];
            }
        };

        fn invoke(call: *const Call, callbacks: *const Callbacks) struct { bool, Named } {
            var named: Named = .{};
            if (!call.is_authenticate) {
                const callback = callbacks.authorize.load(.acquire) orelse return .{ false, named };
                return .{ callback(call.first, call.second, call.write), named };
            }
            if (callbacks.authenticate.load(.acquire)) |callback| {
                const capacity: u32 = named.buffer.len;
                var fingerprint: [public_key.fingerprint_len + 1]u8 = undefined;
                @memcpy(fingerprint[0..public_key.fingerprint_len], &call.fingerprint);
                fingerprint[public_key.fingerprint_len] = 0;
                const allow = callback(
                    call.first,
                    call.second,
                    fingerprint[0..public_key.fingerprint_len :0],
                    &named.buffer,
                    capacity,
                );
                return .{ allow, named };
            }
            const callback = callbacks.auth.load(.acquire) orelse return .{ false, named };
            const space = std.mem.indexOfScalar(u8, call.second, ' ').?; // "type base64"
            return .{ callback(call.first, call.second[space + 1 ..]), named };
        }
    };

    fn takeForCallback(decisions: *Decisions) ?Call {
        decisions.mutex.lock();
        defer decisions.mutex.unlock();
        while (true) {
            if (decisions.closing) return null;
            const id = decisions.waiting[@intFromEnum(Route.callback)].pop() orelse {
                decisions.work.wait(&decisions.mutex);
                continue;
            };
            const open = decisions.open.getPtr(id) orelse continue; // cancelled
            // A copy: the asker may cancel while the callback runs. Without memory the question
            // stays open until its deadline, which is a no.
            const text = decisions.allocator.dupe(u8, open.text) catch continue;
            return .{
                .id = id,
                .is_authenticate = open.is_authenticate,
                .text = text,
                .first = text[0..open.first.len :0],
                .second = text[open.first.len + 1 ..][0..open.second.len :0],
                .write = open.write,
                .fingerprint = open.fingerprint,
            };
        }
    }
};

const testing = std.testing;

const TestBox = struct {
    answers: [8]Answer = undefined,
    count: usize = 0,
    done: std.Thread.ResetEvent = .{},

    fn mailbox(box: *TestBox) Mailbox {
        return .{ .context = box, .deliver = deliver };
    }

    fn deliver(context: *anyopaque, answer: Answer) void {
        const box: *TestBox = @ptrCast(@alignCast(context));
        box.answers[box.count] = answer;
        box.count += 1;
        box.done.set();
    }
};

fn testQuestion(key: *const public_key.PublicKey) Question {
    return .{
        .kind = .{ .authenticate = .{ .user = "git", .key = key } },
        .fingerprint = public_key.fingerprint(&key.digest()),
        .address = "10.0.0.1",
        .connection = 5,
    };
}

/// Decisions of a server that waits for the host's queue, and who asks.
const Asked = struct {
    callbacks: Callbacks = .{},
    counters: Counters = .{},
    decisions: Decisions = undefined,
    box: TestBox = .{},
    key: public_key.PublicKey = undefined,

    /// In place: the decisions point at their neighbours.
    fn init(asked: *Asked) !void {
        asked.* = .{};
        asked.decisions = .{
            .allocator = testing.allocator,
            .callbacks = &asked.callbacks,
            .counters = &asked.counters,
        };
        asked.key = try .fromLine(public_key.test_line, 2048);
    }

    fn deinit(asked: *Asked) void {
        asked.decisions.deinit();
    }

    fn ask(asked: *Asked, token: u64) !Id {
        return asked.decisions.ask(.queue, testQuestion(&asked.key), asked.box.mailbox(), token);
    }
};

test "a question goes out as JSON and its answer comes back once" {
    var asked: Asked = undefined;
    try asked.init();
    defer asked.deinit();
    const decisions = &asked.decisions;
    const id = try asked.ask(77);
    var out: [events_module.record_max]u8 = undefined;
    const taken, const len = decisions.next(&out).?;
    try testing.expectEqual(id, taken);
    const member = "\"key\":\"" ++ public_key.test_line;
    try testing.expect(std.mem.indexOf(u8, out[0..len], member) != null);
    try testing.expectEqual(null, decisions.next(&out));
    try testing.expectError(error.UnknownId, decisions.reply(id +% 1, true, ""));
    try testing.expectError(error.BadPrincipal, decisions.reply(id, true, "a\n"));
    try decisions.reply(id, true, "alice");
    try testing.expectError(error.UnknownId, decisions.reply(id, true, "mallory"));
    try testing.expectEqual(1, asked.box.count);
    try testing.expectEqual(77, asked.box.answers[0].token);
    try testing.expectEqualStrings("alice", asked.box.answers[0].principal.?.slice());
    try testing.expectEqual(0, decisions.pendingCount());
}

test "a cancelled question is neither seen nor answered" {
    var asked: Asked = undefined;
    try asked.init();
    defer asked.deinit();
    const decisions = &asked.decisions;
    decisions.pending_max = 1;
    for (0..500) |round| {
        // Soon the ids start again from 1.
        if (round == 1) decisions.last_id = std.math.maxInt(Id) - 9;
        const id = try asked.ask(1);
        try testing.expectError(error.QueueFull, asked.ask(1));
        try testing.expect(id != 0);
        try testing.expect(decisions.cancel(id));
        try testing.expect(!decisions.cancel(id));
        try testing.expectError(error.UnknownId, decisions.reply(id, true, "x"));
        try testing.expect(decisions.waiting[@intFromEnum(Route.queue)].ids.items.len < 100);
    }
    var out: [events_module.record_max]u8 = undefined;
    try testing.expectEqual(null, decisions.next(&out));
    try testing.expectEqual(0, asked.box.count);
}

test "an asker waits for its deadline, and a little for an answer that was given" {
    var asked: Asked = undefined;
    try asked.init();
    defer asked.deinit();
    const decisions = &asked.decisions;
    for ([_]bool{ false, true }) |is_answered| {
        const id = try asked.ask(1);
        const pending: Pending = .{ .id = id, .deadline_ms = 100 };
        if (is_answered) try decisions.reply(id, true, "alice");
        try testing.expect(!pending.isOver(decisions, 99));
        try testing.expectEqual(!is_answered, pending.isOver(decisions, 100));
        try testing.expect(!is_answered or pending.isOver(decisions, 100 + Pending.lost_ms));
    }
}

test "an answer that comes very late meets no other question" {
    var asked: Asked = undefined;
    try asked.init();
    defer asked.deinit();
    const decisions = &asked.decisions;
    const first = try asked.ask(1);
    try testing.expect(decisions.cancel(first));
    for (0..std.math.maxInt(u16) + 10) |_| {
        const id = try asked.ask(1);
        try testing.expectError(error.UnknownId, decisions.reply(first, true, "mallory"));
        try testing.expect(decisions.cancel(id));
    }
}

test "callback threads answer, and the plan's boolean callback gets the base64" {
    const host = struct {
        fn auth(user: [*:0]const u8, base64: [*:0]const u8) callconv(.c) bool {
            return std.mem.eql(u8, std.mem.span(user), "git") and
                std.mem.eql(u8, std.mem.span(base64), public_key.test_base64);
        }
    };
    var callbacks: Callbacks = .{};
    callbacks.auth.store(host.auth, .release);
    var counters: Counters = .{};
    var decisions: Decisions = .{
        .allocator = testing.allocator,
        .callbacks = &callbacks,
        .counters = &counters,
    };
    defer decisions.deinit();
    var box: TestBox = .{};
    const thread = try std.Thread.spawn(.{}, Decisions.runCallbacks, .{&decisions});
    const key = try public_key.PublicKey.fromLine(public_key.test_line, 2048);
    _ = try decisions.ask(.callback, testQuestion(&key), box.mailbox(), 1);
    box.done.wait();
    decisions.shutdown();
    thread.join();
    try testing.expect(box.answers[0].allow);
    try testing.expectEqualStrings(
        &public_key.fingerprint(&key.digest()),
        box.answers[0].principal.?.slice(),
    );
}
