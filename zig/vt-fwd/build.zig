//! Builds `vibetunnel-fwd`, and runs its tests with `zig build test`.

const std = @import("std");

pub fn build(b: *std.Build) void {
    // The baseline CPU: a binary from a wheel runs on machines older than the one it was built on.
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.standardOptimizeOption(.{});

    // No libc on Linux: one static file that starts in the time of an exec and idles in a few
    // pages, the same for glibc and musl systems. macOS has no system interface but libSystem.
    const options: std.Build.Module.CreateOptions = .{
        .root_source_file = b.path("src/main.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = target.result.os.tag != .linux,
        .single_threaded = true,
        .strip = if (optimize == .Debug) false else true,
    };
    const exe = b.addExecutable(.{
        .name = "vibetunnel-fwd",
        .root_module = b.createModule(options),
    });
    b.installArtifact(exe);

    var test_options = options;
    test_options.strip = false;
    const tests = b.addTest(.{ .root_module = b.createModule(test_options) });
    const test_step = b.step("test", "Run the unit tests");
    test_step.dependOn(&b.addRunArtifact(tests).step);
}
