//! Memory of its own pages for large objects that are mostly never touched: pages that nobody
//! writes to cost nothing. An allocator would fill them first, in the builds with safety checks.

const std = @import("std");
const posix = std.posix;

pub fn create(comptime T: type) error{OutOfMemory}!*T {
    comptime std.debug.assert(@alignOf(T) <= std.heap.page_size_min);
    const protection = posix.PROT.READ | posix.PROT.WRITE;
    const flags: posix.MAP = .{ .TYPE = .PRIVATE, .ANONYMOUS = true };
    const bytes = posix.mmap(null, @sizeOf(T), protection, flags, -1, 0) catch
        return error.OutOfMemory;
    return @ptrCast(bytes.ptr);
}

pub fn destroy(object: anytype) void {
    const bytes: [*]align(std.heap.page_size_min) const u8 = @ptrCast(@alignCast(object));
    posix.munmap(bytes[0..@sizeOf(@TypeOf(object.*))]);
}

test "an object is there until it is destroyed" {
    const object = try create([100_000]u8);
    defer destroy(object);
    object[99_999] = 1;
    try std.testing.expectEqual(0, object[0]);
}
