//! Builds libplue_ssh, the executable plue-ssh, and runs the package's Zig tests (step `test`).
//!
//! libssh is the system's, found by pkg-config. For another target (-Dtarget=...) there is none:
//! -Dlibssh and -Dlibcrypto name the sources to link statically, see static_libssh.zig.

const std = @import("std");
const manifest = @import("build.zig.zon");
const static_libssh = @import("static_libssh.zig");

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.standardOptimizeOption(.{});
    const strip = optimize != .Debug;
    const static = if (static_libssh.paths(b)) |paths|
        static_libssh.build(b, target, paths)
    else
        null;
    const valgrind = b.option(
        bool,
        "valgrind",
        "Read strings byte by byte under valgrind, which takes vector reads for errors",
    );

    const library = b.addLibrary(.{
        .name = "plue_ssh",
        .linkage = .dynamic,
        .root_module = module(b, "src/lib.zig", target, optimize, strip, valgrind, static),
    });
    library.linker_allow_shlib_undefined = false;
    library.installHeader(b.path("include/plue_ssh.h"), "plue_ssh.h");
    b.installArtifact(library);

    const executable = b.addExecutable(.{
        .name = "plue-ssh",
        .root_module = module(b, "src/main.zig", target, optimize, strip, valgrind, static),
    });
    b.installArtifact(executable);

    const tests = b.addTest(.{
        // Zig's own code generator, of Debug, knows no weak symbols: it needs the newest C library.
        .use_llvm = true,
        .root_module = module(b, "src/tests.zig", target, optimize, false, valgrind, static),
    });
    tests.root_module.addIncludePath(b.path("include"));
    const test_step = b.step("test", "Run the Zig tests");
    test_step.dependOn(&b.addRunArtifact(tests).step);
}

fn module(
    b: *std.Build,
    root: []const u8,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    strip: bool,
    valgrind: ?bool,
    static: ?static_libssh.Archives,
) *std.Build.Module {
    const result = b.createModule(.{
        .root_source_file = b.path(root),
        .target = target,
        .optimize = optimize,
        .strip = strip,
        .valgrind = valgrind,
        .link_libc = true,
    });
    const options = b.addOptions();
    options.addOption([:0]const u8, "version", manifest.version);
    result.addOptions("build_options", options);
    if (static) |archives| {
        archives.link(result);
    } else {
        result.linkSystemLibrary("ssh", .{ .use_pkg_config = .yes });
    }
    return result;
}
