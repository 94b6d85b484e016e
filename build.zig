//! Composes the packages below zig/ into one build: `zig build` installs every library, executable
//! and header, `zig build test` runs every package's tests in Debug and in ReleaseSafe.

const std = @import("std");

/// The dependencies of build.zig.zon. Each is a package that also builds and tests alone.
const packages = [_][]const u8{
    "plue_jwt",
    "plue_ratelimit",
    "plue_ssh",
    "vt_fwd",
};

pub fn build(b: *std.Build) void {
    // Baseline: one portable library, which picks faster instructions at run time.
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.option(
        std.builtin.OptimizeMode,
        "optimize",
        "Debug, ReleaseSafe (default), ReleaseFast or ReleaseSmall",
    ) orelse .ReleaseSafe;

    // libssh comes from the system that builds; a cross build for a wheel has none.
    const is_native = target.query.isNativeOs() and target.query.isNativeAbi() and
        target.query.cpu_arch == null;
    const ssh = b.option(
        bool,
        "ssh",
        "Build plue_ssh, which needs libssh (default: native builds only)",
    ) orelse is_native;

    const checkout = b.option([]const u8, "vibetunnel", "A checkout of VibeTunnel") orelse "";
    const vt_fwd = b.dependency("vt_fwd", .{
        .target = target,
        .optimize = optimize,
        .vibetunnel = checkout,
    });
    b.step("vibetunnel", "Place vibetunnel-fwd into the checkout -Dvibetunnel=PATH")
        .dependOn(&vt_fwd.builder.top_level_steps.get("vibetunnel").?.step);

    const test_step = b.step("test", "Run the tests of every package in Debug and ReleaseSafe");
    for (packages) |name| {
        if (!ssh and std.mem.eql(u8, name, "plue_ssh")) continue;
        const package = b.dependency(name, .{ .target = target, .optimize = optimize });
        for (package.builder.getInstallStep().dependencies.items) |step| {
            if (step.cast(std.Build.Step.InstallArtifact)) |install| {
                b.installArtifact(install.artifact);
            } else if (step.cast(std.Build.Step.InstallFile)) |it| {
                const file = b.addInstallFileWithDir(it.source, it.dir, it.dest_rel_path);
                b.getInstallStep().dependOn(&file.step);
            }
        }
        for ([_]std.builtin.OptimizeMode{ .Debug, .ReleaseSafe }) |mode| {
            const tested = b.dependency(name, .{ .target = target, .optimize = mode });
            test_step.dependOn(&tested.builder.top_level_steps.get("test").?.step);
        }
    }
}
