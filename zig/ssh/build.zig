//! Builds libplue_ssh, the executable plue-ssh, and runs the package's Zig tests (step `test`).

const std = @import("std");

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.standardOptimizeOption(.{});
    const strip = optimize != .Debug;

    const library = b.addLibrary(.{
        .name = "plue_ssh",
        .linkage = .dynamic,
        .root_module = module(b, "src/lib.zig", target, optimize, strip),
    });
    library.installHeader(b.path("include/plue_ssh.h"), "plue_ssh.h");
    b.installArtifact(library);

    const executable = b.addExecutable(.{
        .name = "plue-ssh",
        .root_module = module(b, "src/main.zig", target, optimize, strip),
    });
    b.installArtifact(executable);

    const tests = b.addTest(.{ .root_module = module(b, "src/tests.zig", target, optimize, false) });
    b.step("test", "Run the Zig tests").dependOn(&b.addRunArtifact(tests).step);
}

fn module(
    b: *std.Build,
    root: []const u8,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    strip: bool,
) *std.Build.Module {
    const result = b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .strip = strip,
        .link_libc = true,
    });
    result.linkSystemLibrary("ssh", .{ .use_pkg_config = .yes });
    return result;
}
