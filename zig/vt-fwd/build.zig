//! Builds `vibetunnel-fwd` and libvt_fwd, and installs `vt` beside the program, alone or as a
//! dependency of a larger build; `zig build test` runs the tests.

const std = @import("std");
const Checkout = @import("checkout.zig");

const version = @import("build.zig.zon").version;

pub fn build(b: *std.Build) void {
    // The baseline CPU: a binary from a wheel runs on machines older than the one it was built on.
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    const optimize = b.standardOptimizeOption(.{});

    const config = b.addOptions();
    config.addOption([:0]const u8, "version", version);

    const exe = b.addExecutable(.{
        .name = "vibetunnel-fwd",
        .root_module = createModule(b, .program, target, optimize, config),
    });
    b.installArtifact(exe);
    b.installBinFile("vt", "vt");

    const path = b.option([]const u8, "vibetunnel", "A checkout of VibeTunnel") orelse "";
    const place = b.step("vibetunnel", "Place vibetunnel-fwd into the checkout -Dvibetunnel=PATH");
    place.dependOn(&Checkout.create(b, exe, path).step);

    const library = b.addLibrary(.{
        .name = "vt_fwd",
        .linkage = .dynamic,
        .use_llvm = true, // Zig's own x86 backend, Debug's default, crashes in a shared library
        .root_module = createModule(b, .library, target, optimize, config),
    });
    library.installHeader(b.path("include/vt_fwd.h"), "vt_fwd.h");
    b.installArtifact(library);

    const sanitize_thread = b.option(
        bool,
        "sanitize-thread",
        "Run the library's tests under the thread sanitizer",
    );
    const test_step = b.step("test", "Run the unit tests");
    for ([_]Kind{ .program, .library }) |kind| {
        const module = createModule(b, kind, target, optimize, config);
        const tests = b.addTest(.{ .root_module = module });
        tests.root_module.strip = false;
        if (kind == .library) tests.root_module.sanitize_thread = sanitize_thread;
        tests.root_module.addIncludePath(b.path("include"));
        test_step.dependOn(&b.addRunArtifact(tests).step);
    }
}

const Kind = enum { program, library };

fn createModule(
    b: *std.Build,
    kind: Kind,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    config: *std.Build.Step.Options,
) *std.Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path(if (kind == .program) "src/main.zig" else "src/lib.zig"),
        .target = target,
        .optimize = optimize,
        // The program has no libc on Linux: one static file that starts in the time of an exec and
        // idles in a few pages, the same for glibc and musl systems. macOS has no system interface
        // but libSystem. The library lives among a host's threads, which are libc's.
        .link_libc = kind == .library or target.result.os.tag != .linux,
        .single_threaded = kind == .program,
        .strip = optimize != .Debug,
    });
    module.addOptions("config", config);
    return module;
}
