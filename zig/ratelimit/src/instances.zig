//! The limiters of a process by handle. A handle is a slot's number and, above it, how often the
//! slot was used: after `close`, or made up, it is an error. A slot's memory is reused, never
//! returned, so that a call that raced with `close` looks at a limiter, closed or another's, and
//! not at nothing.
const std = @import("std");
const Allocator = std.mem.Allocator;
const Limiter = @import("limiter.zig").Limiter;
const SharedFile = @import("shared_file.zig").SharedFile;

pub const max_limiters = 1 << index_bits;
const index_bits = 12;

pub const Instance = struct {
    limiter: Limiter = .{},
    shared: ?SharedFile = null,
    /// 0: closed.
    handle: std.atomic.Value(u32) = .init(0),
    uses: u32 = 0,
};

pub const Instances = struct {
    /// Among those who open, close and fork.
    mutex: std.Thread.Mutex = .{},
    slots: [max_limiters]std.atomic.Value(?*Instance) = @splat(.init(null)),
    /// Of the instances themselves.
    allocator: Allocator,

    pub inline fn find(instances: *Instances, handle: u32) ?*Instance {
        const instance = instances.slots[handle % max_limiters].load(.acquire) orelse return null;
        return if (instance.handle.load(.monotonic) == handle and handle != 0) instance else null;
    }

    /// A closed instance and the handle that `publish` will give it. The mutex must be held.
    pub fn reserve(instances: *Instances) error{ OutOfMemory, TooManyLimiters }!struct {
        *Instance,
        u32,
    } {
        for (&instances.slots, 0..) |*slot, index| {
            const instance = slot.load(.monotonic) orelse new: {
                const instance = try instances.allocator.create(Instance);
                instance.* = .{};
                slot.store(instance, .release);
                break :new instance;
            };
            if (instance.handle.load(.monotonic) != 0) continue;
            const uses = (instance.uses + 1) % (1 << (32 - index_bits));
            instance.uses = @max(uses, 1);
            return .{ instance, instance.uses << index_bits | @as(u32, @intCast(index)) };
        }
        return error.TooManyLimiters;
    }

    pub fn publish(instance: *Instance, handle: u32) void {
        instance.handle.store(handle, .release);
    }

    pub fn close(instances: *Instances, handle: u32) bool {
        instances.mutex.lock();
        defer instances.mutex.unlock();
        const instance = instances.find(handle) orelse return false;
        closeInstance(instance);
        return true;
    }

    fn closeInstance(instance: *Instance) void {
        instance.handle.store(0, .release);
        instance.limiter.table.close();
        if (instance.shared) |*shared| shared.close();
        instance.shared = null;
    }

    // ---- fork(2)
    // ---------------------------------------------------------------------------------- The child
    // gets a copy of each private table and counts on its own from there; a shared table stays
    // shared.

    pub fn beforeFork(instances: *Instances) void {
        instances.mutex.lock();
        for (&instances.slots) |*slot| {
            const instance = slot.load(.monotonic) orelse continue;
            instance.limiter.table.lockAll();
        }
    }

    pub fn afterFork(instances: *Instances, in_child: bool) void {
        for (&instances.slots) |*slot| {
            const instance = slot.load(.monotonic) orelse continue;
            instance.limiter.table.unlockAll();
            if (!in_child) continue;
            const shared = if (instance.shared) |*shared| shared else continue;
            if (!shared.becomeChild(&instance.limiter.table)) closeInstance(instance);
        }
        instances.mutex.unlock();
    }
};

test "a handle that was closed or made up finds nothing, and a slot is used again" {
    const testing = std.testing;
    const instances = try testing.allocator.create(Instances);
    defer testing.allocator.destroy(instances);
    instances.* = .{ .allocator = testing.allocator };
    instances.mutex.lock();
    const instance, const handle = try instances.reserve();
    defer testing.allocator.destroy(instance);
    Instances.publish(instance, handle);
    instances.mutex.unlock();
    try testing.expectEqual(instance, instances.find(handle).?);
    try testing.expect(instances.find(0) == null);
    try testing.expect(instances.find(handle + 1) == null);
    try testing.expect(instances.find(std.math.maxInt(u32)) == null);
    try testing.expect(instances.close(handle));
    try testing.expect(!instances.close(handle));
    try testing.expect(instances.find(handle) == null);
    instances.mutex.lock();
    defer instances.mutex.unlock();
    const again, const other = try instances.reserve();
    try testing.expectEqual(instance, again);
    try testing.expect(other != handle);
}
