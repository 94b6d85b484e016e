//! The command line.
const std = @import("std");
const bench = @import("bench.zig");
pub fn main() !void {
    var buffer: [4096]u8 = undefined;
    var writer = std.fs.File.stdout().writer(&buffer);
    try bench.run(std.heap.c_allocator, &writer.interface);
    try writer.interface.flush();
}
