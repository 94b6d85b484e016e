//! Objects by handle: a slot's number and, above it, how often the slot was used. A handle that was
//! closed, or made up, finds nothing. A slot's memory is used again and never returned, so that a
//! call that raced with `remove` looks at a slot and not at nothing.

const std = @import("std");
const Allocator = std.mem.Allocator;

const index_bits = 12;
/// Objects of one kind that a process can have.
pub const max_objects = 1 << index_bits;

pub fn Handles(comptime T: type) type {
    return struct {
        const Self = @This();

        pub const Slot = struct {
            /// Held by whoever uses the object.
            mutex: std.Thread.Mutex = .{},
            /// For those who wait until the object changes.
            changed: std.Thread.Condition = .{},
            /// 0: free. Written with the mutex held.
            handle: u32 = 0,
            uses: u32 = 0,
            value: T = undefined,

            pub fn release(slot: *Slot) void {
                slot.mutex.unlock();
            }
        };

        pub const Error = error{ OutOfMemory, TooManyObjects };

        allocator: Allocator,
        /// Among those who create objects.
        mutex: std.Thread.Mutex = .{},
        slots: [max_objects]std.atomic.Value(?*Slot) = @splat(.init(null)),

        pub fn create(self: *Self, value: T) Error!u32 {
            self.mutex.lock();
            defer self.mutex.unlock();
            for (&self.slots, 0..) |*place, index| {
                const slot = place.load(.monotonic) orelse new: {
                    const slot = try self.allocator.create(Slot);
                    slot.* = .{};
                    place.store(slot, .release);
                    break :new slot;
                };
                slot.mutex.lock();
                defer slot.mutex.unlock();
                if (slot.handle != 0) continue;
                slot.uses = @max(1, (slot.uses + 1) % (1 << (32 - index_bits)));
                slot.handle = slot.uses << index_bits | @as(u32, @intCast(index));
                slot.value = value;
                return slot.handle;
            }
            return error.TooManyObjects;
        }

        /// The object's slot, locked until `release`; null when there is none.
        pub fn acquire(self: *Self, handle: u32) ?*Slot {
            const slot = self.slots[handle % max_objects].load(.acquire) orelse return null;
            slot.mutex.lock();
            if (handle != 0 and slot.handle == handle) return slot;
            slot.mutex.unlock();
            return null;
        }

        /// Takes the object out; from now on its handle finds nothing.
        pub fn remove(self: *Self, handle: u32) ?T {
            const slot = self.acquire(handle) orelse return null;
            defer slot.release();
            slot.handle = 0;
            slot.changed.broadcast();
            return slot.value;
        }

        /// Before fork(2): no object is half changed.
        pub fn lockAll(self: *Self) void {
            self.mutex.lock();
            for (&self.slots) |*place| {
                if (place.load(.monotonic)) |slot| slot.mutex.lock();
            }
        }

        pub fn unlockAll(self: *Self) void {
            for (&self.slots) |*place| {
                if (place.load(.monotonic)) |slot| slot.mutex.unlock();
            }
            self.mutex.unlock();
        }

        /// In the child of a fork, which has one thread: locks are new, and each object is given
        /// to `drop`.
        pub fn dropAll(self: *Self, drop: fn (T) void) void {
            self.mutex = .{};
            for (&self.slots) |*place| {
                const slot = place.load(.monotonic) orelse continue;
                slot.mutex = .{};
                slot.changed = .{};
                if (slot.handle == 0) continue;
                slot.handle = 0;
                drop(slot.value);
            }
        }
    };
}

const testing = std.testing;

test "a handle that was removed or made up finds nothing, and its slot is used again" {
    const handles = try testing.allocator.create(Handles(u8));
    defer testing.allocator.destroy(handles);
    handles.* = .{ .allocator = testing.allocator };
    const handle = try handles.create(7);
    defer testing.allocator.destroy(handles.slots[0].load(.monotonic).?);
    const slot = handles.acquire(handle).?;
    try testing.expectEqual(7, slot.value);
    slot.release();
    for ([_]u32{ 0, handle + 1, handle + max_objects, std.math.maxInt(u32) }) |other| {
        try testing.expectEqual(null, handles.acquire(other));
    }
    try testing.expectEqual(7, handles.remove(handle).?);
    try testing.expectEqual(null, handles.remove(handle));
    const again = try handles.create(8);
    try testing.expect(again != handle);
    try testing.expectEqual(null, handles.acquire(handle));
    try testing.expectEqual(8, handles.remove(again).?);
}
