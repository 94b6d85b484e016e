//! Builds libplue_ratelimit and plue-ratelimit, alone or as a dependency of a larger build.

const std = @import("std");

const version = @import("build.zig.zon").version;

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.standardOptimizeOption(.{});

    const config = b.addOptions();
    config.addOption([:0]const u8, "version", version);

    const library = b.addLibrary(.{
        .name = "plue_ratelimit",
        .linkage = .dynamic,
        .use_llvm = true,
        .root_module = createModule(b, "src/lib.zig", target, optimize, config),
    });
    library.installHeader(b.path("include/plue_ratelimit.h"), "plue_ratelimit.h");
    b.installArtifact(library);

    const program = b.addExecutable(.{
        .name = "plue-ratelimit",
        .use_llvm = true,
        .root_module = createModule(b, "src/main.zig", target, optimize, config),
    });
    b.installArtifact(program);

    const tests = b.addTest(.{
        .root_module = createModule(b, "src/lib.zig", target, optimize, config),
        .use_llvm = true,
    });
    tests.root_module.addIncludePath(b.path("include"));
    tests.root_module.sanitize_thread = b.option(
        bool,
        "sanitize-thread",
        "Run the tests under the thread sanitizer",
    );
    const test_step = b.step("test", "Run all tests at the chosen -Doptimize");
    test_step.dependOn(&b.addRunArtifact(tests).step);
}

fn createModule(
    b: *std.Build,
    root: []const u8,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    config: *std.Build.Step.Options,
) *std.Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .strip = if (optimize == .Debug) null else true,
    });
    module.addOptions("config", config);
    return module;
}
