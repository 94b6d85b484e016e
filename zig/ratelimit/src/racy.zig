//! Values that are read without a lock while another thread may be writing them: a limiter's own
//! numbers, in a slot that is being closed and used again. What is read may be of two lives at
//! once; the reader learns that from the epoch of the shard it locks next, and throws it away. Each
//! part is read and written whole, which costs nothing.
const std = @import("std");

pub fn load(pointer: anytype) @TypeOf(pointer.*) {
    const Value = @TypeOf(pointer.*);
    switch (@typeInfo(Value)) {
        .@"struct" => |info| {
            var value: Value = undefined;
            inline for (info.fields) |field|
                @field(value, field.name) = load(&@field(pointer, field.name));
            return value;
        },
        .int => |info| if (info.bits == 128) {
            const halves: *const [2]u64 = @ptrCast(pointer);
            return @bitCast([2]u64{ load(&halves[0]), load(&halves[1]) });
        },
        else => {},
    }
    return @atomicLoad(Value, pointer, .monotonic);
}

pub fn store(pointer: anytype, value: @TypeOf(pointer.*)) void {
    switch (@typeInfo(@TypeOf(value))) {
        .@"struct" => |info| inline for (info.fields) |field|
            store(&@field(pointer, field.name), @field(value, field.name)),
        else => @atomicStore(@TypeOf(value), pointer, value, .monotonic),
    }
}
