//! Prepared keys in numbered slots. A slot is read without a lock, and the reader copies the whole
//! key: it sees the old key or the new one, never a mixture, and what it holds stays good when the
//! slot is replaced. Handles are generation-tagged, so that a stale one is an error.

const std = @import("std");
const hmac = @import("hmac.zig");
const sha256 = @import("sha256.zig");

/// One key behind a sequence lock: the sequence is odd while a writer is at work, and a reader who
/// sees it changed reads again.
pub const Slot = struct {
    sequence: std.atomic.Value(u32) = .init(0),
    /// 0: the slot is empty.
    generation: std.atomic.Value(u32) = .init(0),
    words: [word_count]std.atomic.Value(u64) = @splat(.init(0)),

    const word_count = 2 * @sizeOf(sha256.State) / @sizeOf(u64);
    const Words = [word_count]u64;

    /// Copies the key of this generation; false, and nothing is copied, when the slot holds another
    /// or none.
    fn read(slot: *const Slot, generation: u32, key: *hmac.Key) bool {
        // A writer is done within nanoseconds, so this ends soon, also while keys rotate.
        while (true) {
            if (slot.tryRead(generation, key)) |found| return found;
            // The writer may have lost its processor: give ours away too.
            std.Thread.yield() catch std.atomic.spinLoopHint();
        }
    }

    /// Null: a writer was at work.
    inline fn tryRead(slot: *const Slot, generation: u32, key: *hmac.Key) ?bool {
        const before = slot.sequence.load(.acquire);
        if (before & 1 != 0) return null;
        // Acquire, so that the second look at the sequence cannot move before these.
        if (generation == 0 or slot.generation.load(.acquire) != generation) return false;
        inline for (.{ &key.inner, &key.outer }, 0..) |state, half| {
            const words: *align(@alignOf(sha256.State)) [word_count / 2]u64 = @ptrCast(state);
            for (words, slot.words[half * words.len ..][0..words.len]) |*word, *source| {
                word.* = source.load(.acquire);
            }
        }
        if (slot.sequence.load(.monotonic) == before) return true;
        // Some of it may be the next key, which the caller has no handle of and would not wipe.
        key.wipe();
        return null;
    }

    /// Only one writer at a time.
    fn write(slot: *Slot, generation: u32, key: ?*const hmac.Key) void {
        var words: Words = @splat(0);
        if (key) |k| {
            const states: *[2]sha256.State = @ptrCast(&words);
            states.* = .{ k.inner, k.outer };
        }
        const before = slot.sequence.load(.monotonic);
        slot.sequence.store(before +% 1, .monotonic);
        // Release, so that whoever sees one of these sees the odd sequence too.
        slot.generation.store(generation, .release);
        for (&slot.words, words) |*target, word| target.store(word, .release);
        slot.sequence.store(before +% 2, .release);
        std.crypto.secureZero(u64, &words);
    }
};

/// A single key that can be replaced: the secret of the whole process.
pub const Current = struct {
    slot: Slot = .{},
    writer: std.Thread.Mutex = .{},

    pub fn set(current: *Current, key: ?*const hmac.Key) void {
        current.writer.lock();
        defer current.writer.unlock();
        current.slot.write(if (key == null) 0 else 1, key);
    }

    pub fn get(current: *const Current, key: *hmac.Key) error{NoSecret}!void {
        if (!current.slot.read(1, key)) return error.NoSecret;
    }
};

/// Many keys, each behind a handle.
pub const KeyTable = struct {
    slots: [max_keys]Slot,
    /// The generation that each slot had last.
    generations: [max_keys]u16,
    /// Free slots form a list; next_free[i] is one more than the index of the next, 0 at its end.
    next_free: [max_keys]u16,
    first_free: u16,
    /// Slots from here on were never used.
    used: u32,
    writer: std.Thread.Mutex,

    pub const max_keys = 65_535;
    const max_generation = 65_535;

    /// All zero bits, so that the table takes no room in the library's file and in memory only
    /// what is used.
    pub const empty: KeyTable = .{
        .slots = @splat(.{}),
        .generations = @splat(0),
        .next_free = @splat(0),
        .first_free = 0,
        .used = 0,
        .writer = .{},
    };

    /// Index above, generation below; never 0, because no generation is.
    pub const Handle = packed struct(u32) { generation: u16, index: u16 };

    pub fn create(table: *KeyTable, key: *const hmac.Key) error{KeyCount}!Handle {
        table.writer.lock();
        defer table.writer.unlock();
        var index: u16 = undefined;
        if (table.first_free != 0) {
            index = table.first_free - 1;
            table.first_free = table.next_free[index];
        } else if (table.used < max_keys) {
            index = @intCast(table.used);
            table.used += 1;
        } else {
            return error.KeyCount;
        }
        table.generations[index] += 1; // destroy retires a slot before this overflows
        const generation = table.generations[index];
        table.slots[index].write(generation, key);
        return .{ .generation = generation, .index = index };
    }

    pub fn get(table: *const KeyTable, handle: Handle, key: *hmac.Key) error{UnknownKey}!void {
        if (handle.index >= max_keys) return error.UnknownKey;
        if (!table.slots[handle.index].read(handle.generation, key)) return error.UnknownKey;
    }

    pub fn destroy(table: *KeyTable, handle: Handle) error{UnknownKey}!void {
        table.writer.lock();
        defer table.writer.unlock();
        if (handle.generation == 0 or handle.index >= table.used) return error.UnknownKey;
        const slot = &table.slots[handle.index];
        if (slot.generation.load(.monotonic) != handle.generation) return error.UnknownKey;
        slot.write(0, null);
        // A slot whose generations are used up is not used again: no handle ever comes twice.
        if (handle.generation == max_generation) return;
        table.next_free[handle.index] = table.first_free;
        table.first_free = handle.index + 1;
    }
};

const testing = std.testing;

fn testKey(byte: u8) hmac.Key {
    return .{ .inner = @splat(byte), .outer = @splat(byte), .path = .scalar };
}

fn testTable() !*KeyTable {
    const table = try testing.allocator.create(KeyTable);
    table.* = .empty;
    return table;
}

test "a handle gives its key until it is destroyed, and never again" {
    const table = try testTable();
    defer testing.allocator.destroy(table);
    const one = try table.create(&testKey(1));
    const two = try table.create(&testKey(2));
    var key = testKey(0);
    try table.get(one, &key);
    try testing.expectEqual(testKey(1), key);
    try table.destroy(one);
    try testing.expectError(error.UnknownKey, table.get(one, &key));
    try testing.expectError(error.UnknownKey, table.destroy(one));

    const three = try table.create(&testKey(3)); // in the slot of one
    try testing.expectEqual(one.index, three.index);
    key = testKey(0);
    try testing.expectError(error.UnknownKey, table.get(one, &key));
    try testing.expectEqual(testKey(0), key); // of the new key nothing is copied
    try table.get(three, &key);
    try testing.expectEqual(testKey(3), key);
    try table.get(two, &key);
    try testing.expectEqual(testKey(2), key);
}

test "handles that nobody made are errors" {
    const table = try testTable();
    defer testing.allocator.destroy(table);
    _ = try table.create(&testKey(1));
    var key = testKey(0);
    for ([_]u32{ 0, 2, 1 << 16, 0xffff_0001, 0xffff_ffff, 0xffff_0000 }) |number| {
        try testing.expectError(error.UnknownKey, table.get(@bitCast(number), &key));
        try testing.expectError(error.UnknownKey, table.destroy(@bitCast(number)));
    }
}

test "a destroyed key is wiped" {
    const table = try testTable();
    defer testing.allocator.destroy(table);
    const handle = try table.create(&testKey(7));
    try table.destroy(handle);
    for (&table.slots[handle.index].words) |*word| {
        try testing.expectEqual(0, word.load(.monotonic));
    }
}

test "a slot whose generations are used up is retired" {
    const table = try testTable();
    defer testing.allocator.destroy(table);
    var last: KeyTable.Handle = undefined;
    for (0..KeyTable.max_generation) |_| {
        last = try table.create(&testKey(1));
        try testing.expectEqual(0, last.index);
        try table.destroy(last);
    }
    try testing.expectEqual(KeyTable.max_generation, last.generation);
    try testing.expectEqual(1, (try table.create(&testKey(1))).index);
}

test "a full table is an error" {
    const table = try testTable();
    defer testing.allocator.destroy(table);
    for (0..KeyTable.max_keys) |_| _ = try table.create(&testKey(1));
    try testing.expectError(error.KeyCount, table.create(&testKey(1)));
}

test "a reader sees the old key or the new one, never a mixture" {
    const Race = struct {
        current: Current = .{},
        stop: std.atomic.Value(bool) = .init(false),

        fn rotate(race: *@This()) void {
            var byte: u8 = 1;
            while (!race.stop.load(.monotonic)) : (byte = byte % 200 + 1) {
                race.current.set(&testKey(byte));
            }
        }
    };
    var race: Race = .{};
    race.current.set(&testKey(1));
    const thread = try std.Thread.spawn(.{}, Race.rotate, .{&race});
    defer {
        race.stop.store(true, .monotonic);
        thread.join();
    }
    for (0..100_000) |_| {
        var key = testKey(0);
        try race.current.get(&key);
        try testing.expectEqual(@as(sha256.State, @splat(key.inner[0])), key.inner);
        try testing.expectEqual(key.inner, key.outer);
    }
}
