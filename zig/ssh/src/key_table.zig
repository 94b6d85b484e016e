//! The in-process table of authorised keys. Readers on the hot path hold a shared lock for one
//! hash lookup; what they get is a copy.

const std = @import("std");
const public_key = @import("public_key.zig");
const rules = @import("rules.zig");

const PublicKey = public_key.PublicKey;
const Digest = public_key.Digest;

/// Longest principal, in bytes.
pub const principal_max = 255;
/// Most keys in the table.
pub const keys_max = 1 << 20;

pub const Principal = struct {
    buffer: [principal_max + 1]u8 = undefined,
    len: usize = 0,

    pub const Error = error{BadPrincipal};

    /// UTF-8, not empty, no control characters.
    pub fn init(text: []const u8) Error!Principal {
        if (text.len == 0 or text.len > principal_max) return error.BadPrincipal;
        if (!std.unicode.utf8ValidateSlice(text)) return error.BadPrincipal;
        for (text) |byte| if (byte < 0x20 or byte == 0x7f) return error.BadPrincipal;
        var principal: Principal = .{ .len = text.len };
        @memcpy(principal.buffer[0..text.len], text);
        principal.buffer[text.len] = 0;
        return principal;
    }

    pub fn slice(principal: *const Principal) [:0]const u8 {
        return principal.buffer[0..principal.len :0];
    }
};

pub const Verdict = enum { allowed, denied, no_rules, no_such_key };

pub const KeyTable = struct {
    allocator: std.mem.Allocator,
    lock: std.Thread.RwLock = .{},
    entries: Map = .empty,

    const Map = std.AutoHashMapUnmanaged(Digest, Entry);

    const Entry = struct {
        /// All three in one allocation, blob first.
        text: []u8,
        blob_len: usize,
        principal_len: usize,
        has_rules: bool,

        fn blob(entry: Entry) []const u8 {
            return entry.text[0..entry.blob_len];
        }

        fn principal(entry: Entry) []const u8 {
            return entry.text[entry.blob_len..][0..entry.principal_len];
        }

        fn ruleText(entry: Entry) []const u8 {
            return entry.text[entry.blob_len + entry.principal_len ..];
        }
    };

    pub const AddError = error{ OutOfMemory, OtherPrincipal, TableFull } || rules.Error;

    pub fn init(allocator: std.mem.Allocator) KeyTable {
        return .{ .allocator = allocator };
    }

    pub fn deinit(table: *KeyTable) void {
        freeMap(table.allocator, &table.entries);
    }

    /// Adds a key, or gives it other rules. `rule_text` null: none, somebody else decides.
    pub fn add(
        table: *KeyTable,
        principal: *const Principal,
        key: *const PublicKey,
        rule_text: ?[]const u8,
    ) AddError!void {
        table.lock.lock();
        defer table.lock.unlock();
        try addTo(table.allocator, &table.entries, principal, key, rule_text);
    }

    fn addTo(
        allocator: std.mem.Allocator,
        map: *Map,
        principal: *const Principal,
        key: *const PublicKey,
        rule_text: ?[]const u8,
    ) AddError!void {
        const rule_bytes = rule_text orelse "";
        try rules.validate(rule_bytes);
        if (map.count() >= keys_max) return error.TableFull;
        const text = try std.mem.concat(allocator, u8, &.{
            key.blob(), principal.slice(), rule_bytes,
        });
        errdefer allocator.free(text);
        const slot = try map.getOrPut(allocator, key.digest());
        if (slot.found_existing) {
            const other = !std.mem.eql(u8, slot.value_ptr.principal(), principal.slice());
            if (other) return error.OtherPrincipal;
            allocator.free(slot.value_ptr.text);
        }
        slot.value_ptr.* = .{
            .text = text,
            .blob_len = key.blob().len,
            .principal_len = principal.len,
            .has_rules = rule_text != null,
        };
    }

    pub fn remove(table: *KeyTable, key: *const PublicKey) bool {
        table.lock.lock();
        defer table.lock.unlock();
        const removed = table.entries.fetchRemove(key.digest()) orelse return false;
        table.allocator.free(removed.value.text);
        return true;
    }

    pub fn clear(table: *KeyTable) void {
        var empty: Map = .empty;
        table.swap(&empty);
        freeMap(table.allocator, &empty);
    }

    pub fn count(table: *KeyTable) u32 {
        table.lock.lockShared();
        defer table.lock.unlockShared();
        return table.entries.count();
    }

    fn swap(table: *KeyTable, other: *Map) void {
        table.lock.lock();
        defer table.lock.unlock();
        std.mem.swap(Map, &table.entries, other);
    }

    /// The principal whose key this is. The whole blob is compared, in constant time.
    pub fn lookup(table: *KeyTable, key: *const PublicKey) ?Principal {
        table.lock.lockShared();
        defer table.lock.unlockShared();
        const entry = table.entries.get(key.digest()) orelse return null;
        if (!equalConstantTime(entry.blob(), key.blob())) return null;
        return Principal.init(entry.principal()) catch null; // `add` took only good ones
    }

    /// What the rules of this key say. Whoever logged in with a key that has since been removed
    /// has no such key any more.
    pub fn authorize(
        table: *KeyTable,
        digest: *const Digest,
        principal: []const u8,
        repository: []const u8,
        write: bool,
    ) Verdict {
        table.lock.lockShared();
        defer table.lock.unlockShared();
        const entry = table.entries.get(digest.*) orelse return .no_such_key;
        if (!std.mem.eql(u8, entry.principal(), principal)) return .no_such_key;
        if (!entry.has_rules) return .no_rules;
        return if (rules.allows(entry.ruleText(), repository, write)) .allowed else .denied;
    }

    /// A new table in the making, for `replace`.
    pub const Draft = struct {
        allocator: std.mem.Allocator,
        entries: Map = .empty,

        pub fn deinit(draft: *Draft) void {
            freeMap(draft.allocator, &draft.entries);
        }

        pub fn add(
            draft: *Draft,
            principal: *const Principal,
            key: *const PublicKey,
            rule_text: ?[]const u8,
        ) AddError!void {
            try addTo(draft.allocator, &draft.entries, principal, key, rule_text);
        }
    };

    pub fn startDraft(table: *const KeyTable) Draft {
        return .{ .allocator = table.allocator };
    }

    /// The draft becomes the table, and holds the old one until its deinit.
    pub fn replace(table: *KeyTable, new: *Draft) void {
        table.swap(&new.entries);
    }
};

fn freeMap(allocator: std.mem.Allocator, map: *KeyTable.Map) void {
    var values = map.valueIterator();
    while (values.next()) |entry| allocator.free(entry.text);
    map.deinit(allocator);
}

fn equalConstantTime(a: []const u8, b: []const u8) bool {
    if (a.len != b.len) return false;
    var difference: u8 = 0;
    for (a, b) |x, y| difference |= x ^ y;
    return difference == 0;
}

const testing = std.testing;

fn testKey(seed: u8) PublicKey {
    var key: PublicKey = .{ .type_name = "ssh-ed25519", .blob_buffer = undefined, .blob_len = 51 };
    @memset(key.blob_buffer[0..51], seed);
    return key;
}

test "a key is found with its principal, and gone when removed" {
    var table: KeyTable = .init(testing.allocator);
    defer table.deinit();
    const alice = try Principal.init("alice");
    try table.add(&alice, &testKey(1), "write alice/*");
    try testing.expectEqual(1, table.count());
    const found = table.lookup(&testKey(1)).?;
    try testing.expectEqualStrings("alice", found.slice());
    try testing.expectEqual(null, table.lookup(&testKey(2)));
    try testing.expect(table.remove(&testKey(1)));
    try testing.expect(!table.remove(&testKey(1)));
    try testing.expectEqual(null, table.lookup(&testKey(1)));
}

test "a key has one principal, and the last rules count" {
    var table: KeyTable = .init(testing.allocator);
    defer table.deinit();
    const alice = try Principal.init("alice");
    const bob = try Principal.init("bob");
    const digest = testKey(1).digest();
    try testing.expectEqual(.no_such_key, table.authorize(&digest, "alice", "r", false));
    try table.add(&alice, &testKey(1), null);
    try testing.expectEqual(.no_rules, table.authorize(&digest, "alice", "r", false));
    try table.add(&alice, &testKey(1), "read r");
    try testing.expectEqual(.allowed, table.authorize(&digest, "alice", "r", false));
    try testing.expectEqual(.denied, table.authorize(&digest, "alice", "r", true));
    try testing.expectEqual(.no_such_key, table.authorize(&digest, "bob", "r", false));
    try testing.expectError(error.OtherPrincipal, table.add(&bob, &testKey(1), "write *"));
    try testing.expectEqual(.denied, table.authorize(&digest, "alice", "r", true));
    try table.add(&alice, &testKey(1), "");
    try testing.expectEqual(.denied, table.authorize(&digest, "alice", "r", false));
}

test "replacing is all or nothing" {
    var table: KeyTable = .init(testing.allocator);
    defer table.deinit();
    const alice = try Principal.init("alice");
    const bob = try Principal.init("bob");
    try table.add(&alice, &testKey(1), null);
    {
        var draft = table.startDraft();
        defer draft.deinit();
        try draft.add(&bob, &testKey(2), null);
        try testing.expectError(error.OtherPrincipal, draft.add(&alice, &testKey(2), null));
        try testing.expectError(error.BadRule, draft.add(&alice, &testKey(3), "nonsense"));
    }
    try testing.expect(table.lookup(&testKey(1)) != null);
    var draft = table.startDraft();
    defer draft.deinit();
    try draft.add(&bob, &testKey(2), null);
    table.replace(&draft);
    try testing.expectEqual(null, table.lookup(&testKey(1)));
    try testing.expectEqualStrings("bob", table.lookup(&testKey(2)).?.slice());
    table.clear();
    try testing.expectEqual(0, table.count());
}

test "running out of memory leaves the table as it was" {
    try testing.checkAllAllocationFailures(testing.allocator, struct {
        fn run(allocator: std.mem.Allocator) !void {
            var table: KeyTable = .init(allocator);
            defer table.deinit();
            const alice = try Principal.init("alice");
            try table.add(&alice, &testKey(1), "read *");
            try table.add(&alice, &testKey(2), "read *");
        }
    }.run, .{});
}

test "principals with control characters, empty or too long are refused" {
    const long: [principal_max + 1]u8 = @splat('a');
    const bad = [_][]const u8{ "", "a\nb", "a\x00", "\x7f", "\xff", &long };
    for (bad) |text| try testing.expectError(error.BadPrincipal, Principal.init(text));
    _ = try Principal.init(long[1..]);
}
