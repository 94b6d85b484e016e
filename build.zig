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

    // libssh comes from the system that builds; for another one it is built in, or left out.
    const libssh = b.option([]const u8, "libssh", "Link libssh statically: its source tree");
    const libcrypto = b.option([]const u8, "libcrypto", "libcrypto for the target, see zig/ssh");
    const is_native = target.query.isNativeOs() and target.query.isNativeAbi() and
        target.query.cpu_arch == null;
    const ssh = b.option(
        bool,
        "ssh",
        "Build plue_ssh (default: native builds, and where -Dlibssh is given)",
    ) orelse (is_native or libssh != null);

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
        const package = dependency(b, name, target, optimize, libssh, libcrypto);
        for (package.builder.getInstallStep().dependencies.items) |step| {
            if (step.cast(std.Build.Step.InstallArtifact)) |install| {
                b.installArtifact(install.artifact);
            } else if (step.cast(std.Build.Step.InstallFile)) |it| {
                const file = b.addInstallFileWithDir(it.source, it.dir, it.dest_rel_path);
                b.getInstallStep().dependOn(&file.step);
            }
        }
        for ([_]std.builtin.OptimizeMode{ .Debug, .ReleaseSafe }) |mode| {
            const tested = dependency(b, name, target, mode, libssh, libcrypto);
            test_step.dependOn(&tested.builder.top_level_steps.get("test").?.step);
        }
    }
    fuzz(b, target);
}

/// Builds tests/fuzz/libfuzzer.zig with the packages' fuzz.zig, as `./dev fuzz` wants it.
fn fuzz(b: *std.Build, target: std.Build.ResolvedTarget) void {
    const step = b.step("fuzz", "Build the fuzzer; -Dlibfuzzer=libclang_rt.fuzzer...a, of LLVM");
    const libfuzzer = b.option([]const u8, "libfuzzer", "Where LLVM's libFuzzer is");
    const libstdcxx = b.option([]const u8, "libstdcxx", "Where libstdc++.so.6 is");

    const object = b.addObject(.{
        .name = "fuzz",
        .use_llvm = true, // Zig's own code generator counts nothing
        .root_module = fuzzModule(b, b.path("tests/fuzz/libfuzzer.zig"), target),
    });
    for ([_][2][]const u8{
        .{ "jwt", "zig/jwt" }, .{ "ssh", "zig/ssh" }, .{ "vt", "zig/vt-fwd" },
    }) |it| {
        const root = b.path(b.fmt("{s}/src/fuzz.zig", .{it[1]}));
        object.root_module.addImport(it[0], fuzzModule(b, root, target));
    }
    const program = b.addExecutable(.{
        .name = "pyplue-fuzz",
        .use_llvm = true,
        .root_module = b.createModule(.{ .target = target, .link_libc = true }),
    });
    program.root_module.addObject(object);
    for ([_]?[]const u8{ libfuzzer, libstdcxx }) |path| {
        if (path) |it| program.root_module.addObjectFile(.{ .cwd_relative = it });
    }
    step.dependOn(&b.addInstallArtifact(program, .{}).step);
}

fn fuzzModule(
    b: *std.Build,
    root: std.Build.LazyPath,
    target: std.Build.ResolvedTarget,
) *std.Build.Module {
    return b.createModule(.{
        .root_source_file = root,
        .target = target,
        .optimize = .ReleaseSafe,
        .link_libc = true,
        .fuzz = true,
        .error_tracing = true,
    });
}

fn dependency(
    b: *std.Build,
    name: []const u8,
    target: std.Build.ResolvedTarget,
    optimize: std.builtin.OptimizeMode,
    libssh: ?[]const u8,
    libcrypto: ?[]const u8,
) *std.Build.Dependency {
    if (libssh == null or !std.mem.eql(u8, name, "plue_ssh")) {
        return b.dependency(name, .{ .target = target, .optimize = optimize });
    }
    return b.dependency(name, .{
        .target = target,
        .optimize = optimize,
        .libssh = libssh.?,
        .libcrypto = libcrypto orelse @panic("-Dlibssh goes with -Dlibcrypto"),
    });
}
