//! Builds libplue_ssh, the executable plue-ssh, and runs the package's Zig tests (step `test`).
//!
//! libssh is the system's, found by pkg-config. For another target (-Dtarget=...) it cannot be
//! found here: the result is linked against a stub and finds the real one where it runs, as
//! libssh.so.4 on Linux and as Homebrew's libssh.4.dylib on macOS.

const std = @import("std");
const manifest = @import("build.zig.zon");

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.standardOptimizeOption(.{});
    const strip = optimize != .Debug;
    const stub = if (isNative(target)) null else libsshStub(b, target);
    const valgrind = b.option(
        bool,
        "valgrind",
        "Read strings byte by byte under valgrind, which takes vector reads for errors",
    );

    const library = b.addLibrary(.{
        .name = "plue_ssh",
        .linkage = .dynamic,
        .root_module = module(b, "src/lib.zig", target, optimize, strip, valgrind, stub),
    });
    library.linker_allow_shlib_undefined = false;
    library.installHeader(b.path("include/plue_ssh.h"), "plue_ssh.h");
    b.installArtifact(library);

    const executable = b.addExecutable(.{
        .name = "plue-ssh",
        .root_module = module(b, "src/main.zig", target, optimize, strip, valgrind, stub),
    });
    b.installArtifact(executable);

    const tests = b.addTest(.{
        .root_module = module(b, "src/tests.zig", target, optimize, false, valgrind, stub),
    });
    tests.root_module.addIncludePath(b.path("include"));
    const test_step = b.step("test", "Run the Zig tests");
    test_step.dependOn(if (stub == null) &b.addRunArtifact(tests).step else &tests.step);
}

/// This machine's system, with whatever CPU model: then its libssh is the one to link.
fn isNative(target: std.Build.ResolvedTarget) bool {
    return target.query.isNativeOs() and target.query.isNativeAbi() and
        target.query.cpu_arch == null;
}

fn module(
    b: *std.Build,
    root: []const u8,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    strip: bool,
    valgrind: ?bool,
    stub: ?*std.Build.Step.Compile,
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
    if (stub) |library| {
        result.addObjectFile(library.getEmittedBin());
    } else {
        result.linkSystemLibrary("ssh", .{ .use_pkg_config = .yes });
    }
    return result;
}

fn libsshStub(b: *std.Build, target: std.Build.ResolvedTarget) *std.Build.Step.Compile {
    const stub = b.addLibrary(.{
        .name = "ssh",
        .linkage = .dynamic,
        .version = .{ .major = 4, .minor = 0, .patch = 0 },
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/libssh_stub.zig"),
            .target = target,
            .optimize = .ReleaseSmall,
            .link_libc = true,
        }),
    });
    if (target.result.os.tag.isDarwin()) {
        const prefix = if (target.result.cpu.arch == .aarch64) "/opt/homebrew" else "/usr/local";
        stub.install_name = b.fmt("{s}/opt/libssh/lib/libssh.4.dylib", .{prefix});
    }
    return stub;
}
