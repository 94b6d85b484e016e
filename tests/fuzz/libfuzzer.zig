//! One program with the targets of all packages, driven by LLVM's libFuzzer. FUZZ_TARGET names the
//! target; arguments are libFuzzer's. `./dev fuzz` builds and runs it.
//!
//! Zig counts how often each place of the code is reached, LLVM tells what is compared with what:
//! this file introduces the tables of the first to libFuzzer, which expects clang's.

const std = @import("std");

const Target = *const fn (std.mem.Allocator, []const u8) anyerror!void;

const packages = .{
    @import("jwt").targets,
    @import("ssh").targets,
    @import("vt").targets,
    // What a fuzzer that is led by coverage finds in a second, and one that guesses in years.
    struct {
        pub fn self_check(_: std.mem.Allocator, bytes: []const u8) !void {
            if (bytes.len < 12) return;
            for ("PLUE", bytes[0..4]) |expected, byte| if (byte != expected) return;
            if (std.mem.readInt(u64, bytes[4..12], .big) != 0x0123_4567_89ab_cdef) return;
            return error.Found;
        }
    },
};

fn find(name: []const u8) ?Target {
    inline for (packages) |package| inline for (@typeInfo(package).@"struct".decls) |decl| {
        if (std.mem.eql(u8, decl.name, name)) return &@field(package, decl.name);
    };
    return null;
}

var target: Target = undefined;

/// Finds leaks, and frees that do not fit. Without stack traces and with small pages: most of the
/// time would go into those.
var debug_allocator: std.heap.DebugAllocator(.{
    .stack_trace_frames = 0,
    .page_size = 4096,
}) = .{ .backing_allocator = std.heap.smp_allocator };

export fn LLVMFuzzerInitialize(_: *c_int, _: *[*][*:0]u8) c_int {
    const name = std.posix.getenv("FUZZ_TARGET") orelse "";
    target = find(name) orelse {
        std.debug.print("FUZZ_TARGET is '{s}'. These are the targets:\n", .{name});
        inline for (packages) |package| inline for (@typeInfo(package).@"struct".decls) |decl| {
            std.debug.print("{s}\n", .{decl.name});
        };
        std.process.exit(2);
    };
    introduce();
    return 0;
}

export fn LLVMFuzzerTestOneInput(data: [*]const u8, len: usize) c_int {
    target(debug_allocator.allocator(), data[0..len]) catch |err| {
        if (@errorReturnTrace()) |trace| std.debug.dumpStackTrace(trace.*);
        std.debug.panic("FINDING {t}", .{err});
    };
    if (debug_allocator.detectLeaks()) @panic("FINDING Leak");
    return 0;
}

// ---------------------------------------------------------------- coverage

const Place = extern struct { address: usize, flags: usize };

extern fn __sanitizer_cov_8bit_counters_init(start: [*]u8, end: [*]u8) void;
extern fn __sanitizer_cov_pcs_init(start: [*]const Place, end: [*]const Place) void;

const counters = @extern([*]u8, .{ .name = "__start___sancov_cntrs" });
const counters_end = @extern([*]u8, .{ .name = "__stop___sancov_cntrs" });
const addresses = @extern([*]const usize, .{ .name = "__start___sancov_pcs1" });

/// clang's list of places has flags beside each address, Zig's has not.
fn introduce() void {
    const count = counters_end - counters;
    const places = std.heap.page_allocator.alloc(Place, count) catch @panic("out of memory");
    for (places, addresses[0..count]) |*place, at| place.* = .{ .address = at, .flags = 0 };
    __sanitizer_cov_8bit_counters_init(counters, counters_end);
    __sanitizer_cov_pcs_init(places.ptr, places.ptr + count);
}
