//! Builds libplue_jwt and plue-jwt, alone or as a dependency of a larger build.

const std = @import("std");

const version = @import("build.zig.zon").version;

const test_tables = [_][]const u8{
    "jwt/refusals.json",
    "vectors/wycheproof_jws.json",
    "vectors/wycheproof_hmac_sha256.json",
};

pub fn build(b: *std.Build) void {
    // Baseline: the library picks the CPU's SHA instructions at run time.
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.standardOptimizeOption(.{});

    const config = b.addOptions();
    config.addOption([:0]const u8, "version", version);

    const library = b.addLibrary(.{
        .name = "plue_jwt",
        .linkage = .dynamic,
        .use_llvm = true,
        .root_module = createModule(b, "src/lib.zig", target, optimize, config),
    });
    library.installHeader(b.path("include/plue_jwt.h"), "plue_jwt.h");
    b.installArtifact(library);

    const executable = b.addExecutable(.{
        .name = "plue-jwt",
        .use_llvm = true,
        .root_module = createModule(b, "src/main.zig", target, optimize, config),
    });
    b.installArtifact(executable);

    // The tables that Python and Bun are tested with, where this package is part of their tree.
    const test_folder = b.pathFromRoot("../../tests");
    const first_table = b.pathJoin(&.{ test_folder, test_tables[0] });
    const has_tables = if (std.fs.cwd().access(first_table, .{})) true else |_| false;
    const test_config = b.addOptions();
    test_config.addOption([:0]const u8, "version", version);
    test_config.addOption(?[]const u8, "test_folder", if (has_tables) test_folder else null);

    const test_step = b.step("test", "Run all tests at the chosen -Doptimize");
    const tests = b.addTest(.{
        .root_module = createModule(b, "src/lib.zig", target, optimize, test_config),
        .use_llvm = true,
    });
    tests.root_module.addIncludePath(b.path("include"));
    tests.root_module.sanitize_thread = b.option(
        bool,
        "sanitize-thread",
        "Run the tests under the thread sanitizer",
    );
    const run_tests = b.addRunArtifact(tests);
    if (has_tables) for (test_tables) |table| {
        run_tests.addFileInput(.{ .cwd_relative = b.pathJoin(&.{ test_folder, table }) });
    };
    test_step.dependOn(&run_tests.step);

    const bench = b.addExecutable(.{
        .name = "bench",
        .root_module = createModule(b, "src/bench.zig", target, optimize, config),
        .use_llvm = true,
    });
    bench.root_module.addIncludePath(b.path("include"));
    bench.root_module.linkLibrary(library);
    const run_bench = b.addRunArtifact(bench);
    b.step("bench", "Measure signing and verifying").dependOn(&run_bench.step);
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
