//! The table in a file: opening and reopening, a start of the host, locks of the dead, and damage.
const std = @import("std");
const testing = std.testing;
const clock = @import("clock.zig");
const Limiter = @import("limiter.zig").Limiter;
const rule_ = @import("rule.zig");
const Rule = rule_.Rule;
const shared_file = @import("shared_file.zig");
const SharedFile = shared_file.SharedFile;

const boot: [clock.boot_id_bytes]u8 = @splat('a');
const other_boot: [clock.boot_id_bytes]u8 = @splat('b');

const Opened = struct {
    limiter: Limiter = .{},
    file: SharedFile = undefined,

    const epoch = 3;

    fn open(path: [:0]const u8, boot_id: [clock.boot_id_bytes]u8) !*Opened {
        const opened = try testing.allocator.create(Opened);
        errdefer testing.allocator.destroy(opened);
        opened.* = .{};
        const table = &opened.limiter.table;
        try opened.file.open(table, epoch, path, 1000, @splat(9), boot_id);
        opened.limiter.init(try Rule.init(.gcra, 4, 1000), .deny, true);
        return opened;
    }

    fn close(opened: *Opened) void {
        opened.limiter.table.close();
        opened.file.close();
        testing.allocator.destroy(opened);
    }

    fn check(opened: *Opened, key: []const u8, now_ms: u64) !bool {
        return opened.limiter.check(epoch, key, 1, now_ms);
    }
};

fn pathIn(buffer: []u8, folder: *std.testing.TmpDir) ![:0]const u8 {
    var root: [std.fs.max_path_bytes]u8 = undefined;
    const dir = try folder.dir.realpath(".", &root);
    return std.fmt.bufPrintZ(buffer, "{s}/limits", .{dir});
}

test "two openings count together, and the file keeps what they counted" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = try pathIn(&buffer, &folder);
    const one = try Opened.open(path, boot);
    const two = try Opened.open(path, boot);
    try testing.expect(one.file.me != two.file.me);
    for (0..2) |_| {
        try testing.expect(try one.check("key", 10));
        try testing.expect(try two.check("key", 10));
    }
    try testing.expect(!try one.check("key", 10));
    one.close();
    try testing.expect(!try two.check("key", 10));
    two.close();
    const three = try Opened.open(path, boot);
    defer three.close();
    try testing.expect(!try three.check("key", 10));
}

test "a new start of the host forgets the keys, whose times mean nothing any more" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = try pathIn(&buffer, &folder);
    const before = try Opened.open(path, boot);
    for (0..4) |_| try testing.expect(try before.check("key", 1 << 40));
    before.close();
    const after = try Opened.open(path, other_boot);
    defer after.close();
    try testing.expectEqual(0, try after.limiter.table.count(Opened.epoch));
    try testing.expect(try after.check("key", 5));
}

test "a file in use is not begun anew for another boot id, as a container's may be" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = try pathIn(&buffer, &folder);
    const host = try Opened.open(path, boot);
    for (0..4) |_| try testing.expect(try host.check("key", 10));
    if (Opened.open(path, other_boot)) |container| {
        container.close();
        return error.TestUnexpectedResult;
    } else |err| try testing.expectEqual(error.InUse, err);
    try testing.expect(!try host.check("key", 10));
    host.close();
    const container = try Opened.open(path, other_boot);
    defer container.close();
    try testing.expect(try container.check("key", 10));
}

test "a lock of a dead process is taken over, and what it was writing is finished" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = try pathIn(&buffer, &folder);
    const survivor = try Opened.open(path, boot);
    defer survivor.close();
    try testing.expect(try survivor.check("key", 100));
    const limiter = &survivor.limiter;
    const fp = limiter.table.hasher.hash("key").salted(limiter.salt);
    const shard = &limiter.table.places[fp.hi >> 58].shard;
    const slot = shard.find(fp).?;
    const before = slot.entry;

    // As a process leaves it that is killed between the journal and the second half of a change.
    const full = limiter.rule.take(before, 100, 3).?;
    const slots: [*]@TypeOf(slot.*) = @ptrCast(shard.buckets.ptr);
    shard.head.journal_entry = full;
    shard.head.journal_slot = @intCast(slot - slots + 1);
    slot.entry.expires_ms = full.expires_ms;
    shard.head.used += 5;
    // Nobody has this number.
    shard.head.lock.owner.store(shared_file.max_processes - 1, .release);

    try testing.expect(!try survivor.check("key", 100));
    try testing.expectEqual(full, slot.entry);
    try testing.expectEqual(0, shard.head.journal_slot);
    try testing.expectEqual(1, shard.head.used);
    try testing.expectEqual(1, try limiter.table.count(Opened.epoch));
}

test "a key that is in both of its places after a kill is counted in one" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const survivor = try Opened.open(try pathIn(&buffer, &folder), boot);
    defer survivor.close();
    try testing.expect(try survivor.check("key", 100));
    const limiter = &survivor.limiter;
    const fp = limiter.table.hasher.hash("key").salted(limiter.salt);
    const shard = &limiter.table.places[fp.hi >> 58].shard;
    const slot = shard.find(fp).?;
    for (shard.buckets) |*bucket| for (bucket) |*other| {
        if (other.lo == 0) {
            other.* = slot.*;
            break;
        }
    };
    shard.head.lock.owner.store(shared_file.max_processes - 1, .release);
    try testing.expect(try survivor.check("key", 100));
    try testing.expectEqual(1, shard.head.used);
}

test "who gets a dead process's number frees its locks" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = try pathIn(&buffer, &folder);
    const first = try Opened.open(path, boot);
    first.limiter.table.places[5].shard.head.lock.owner.store(first.file.me + 1, .release);
    const second = try Opened.open(path, boot);
    defer second.close();
    defer first.close();
    try testing.expectEqual(first.file.me + 1, second.file.me);
    try testing.expectEqual(0, second.limiter.table.places[5].shard.head.lock.owner.load(.acquire));
}

test "a file that cannot be mapped is an error" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    const file = try folder.dir.createFile("file", .{ .read = true });
    defer file.close();
    try testing.expectError(error.System, shared_file.mapFile(file.handle, 0));
}

test "counts that no shard can have are taken anew" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = try pathIn(&buffer, &folder);
    const before = try Opened.open(path, boot);
    try testing.expect(try before.check("key", 10));
    for (&before.limiter.table.places) |*place| place.shard.head.used = 50_000_000;
    before.limiter.table.places[0].shard.quota.total.store(4_000_000_000, .monotonic);
    before.close();
    const after = try Opened.open(path, boot);
    defer after.close();
    try testing.expectEqual(1, try after.limiter.table.count(Opened.epoch));
    try testing.expect(try after.check("other", 10));
    try testing.expectEqual(2, try after.limiter.table.count(Opened.epoch));
}

/// Makes something of `place` that this library does not write.
fn damage(random: std.Random, place: anytype) void {
    const head = place.shard.head;
    const most = std.math.maxInt(u32);
    const extremes = [_]u32{ 0, 1, 71, 72, 1 << 31, most - 1, most };
    inline for (.{ &head.used, &head.sweep_bucket, &head.journal_slot }) |number| {
        if (random.boolean()) number.* = extremes[random.uintLessThan(usize, extremes.len)];
    }
    for (place.shard.buckets) |*bucket| for (bucket) |*slot| switch (random.uintLessThan(u8, 8)) {
        0 => random.bytes(std.mem.asBytes(slot)),
        1 => slot.entry.expires_ms = random.int(u64) >> random.int(u6),
        2 => slot.entry.counts = @bitCast(random.int(u64) | random.int(u64)),
        3 => slot.lo = random.int(u64),
        // A copy under the same name.
        4 => bucket[random.uintLessThan(usize, bucket.len)] = slot.*,
        else => {},
    };
    head.journal_entry = place.shard.buckets[0][0].entry;
}

test "no damage to the shards stops a process that counts in them" {
    var folder = testing.tmpDir(.{});
    defer folder.cleanup();
    var buffer: [std.fs.max_path_bytes]u8 = undefined;
    const path = try pathIn(&buffer, &folder);
    var prng = std.Random.DefaultPrng.init(23);
    const random = prng.random();
    for (0..40) |_| {
        const opened = try Opened.open(path, boot);
        defer opened.close();
        const limiter = &opened.limiter;
        const table = &limiter.table;
        const epoch = Opened.epoch;
        for (0..300) |i| {
            if (i % 50 == 0) for (&table.places) |*place| damage(random, place);
            if (i % 50 == 25) table.places[0].shard.quota.total.store(random.int(u32), .monotonic);
            var text: [8]u8 = undefined;
            const key = try std.fmt.bufPrint(&text, "{d}", .{random.uintLessThan(u32, 500)});
            const rule = try Rule.init(
                random.enumValue(rule_.Algorithm),
                random.int(u32) >> random.int(u5),
                (random.int(u64) >> random.int(u6)) | 1,
            );
            const cost = (random.int(u32) >> random.int(u5)) | 1;
            const now_ms = random.int(u64) >> random.int(u6);
            limiter.when_full = random.enumValue(@TypeOf(limiter.when_full));
            _ = try limiter.check(epoch, key, cost, now_ms);
            _ = try limiter.hit(epoch, key, cost, now_ms);
            _ = try limiter.hitRule(rule, epoch, key, cost, now_ms);
            _ = try limiter.peekRule(rule, epoch, key, cost, now_ms);
            _ = try limiter.windowCounts(rule.window_ms, epoch, key, now_ms);
            _ = try limiter.logHit(rule, epoch, key, cost, now_ms);
            _ = try limiter.logRead(rule, epoch, key, now_ms);
            try limiter.refund(epoch, key, cost, if (random.boolean()) now_ms else rule_.never_ms);
            if (i % 8 == 0) try limiter.reset(epoch, key, now_ms);
            if (i % 64 == 0) _ = try table.cleanup(epoch, now_ms);
            if (i % 256 == 255) try table.clear(epoch);
        }
        for (&table.places) |*place| {
            damage(random, place);
            // A dead owner's, or the number that the next opening gets.
            place.shard.head.lock.owner.store(random.uintLessThan(u32, 4), .monotonic);
        }
    }
}
