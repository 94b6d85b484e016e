//! A build step: places the executable into a checkout of VibeTunnel, where its server and its Mac
//! app look for it. A folder that is no such checkout is left as it is.

const std = @import("std");
const Step = std.Build.Step;
const Checkout = @This();

const places = [_][]const u8{ "web/bin", "mac/VibeTunnel/Resources" };
const manifest = "web/package.json";
const app = "mac/VibeTunnel";
const max_manifest_bytes = 1 << 20;

step: Step,
executable: *Step.Compile,
/// As the user wrote it; empty when nothing was.
path: []const u8,

pub fn create(b: *std.Build, executable: *Step.Compile, path: []const u8) *Checkout {
    const it = b.allocator.create(Checkout) catch @panic("OOM");
    it.* = .{
        .step = .init(.{
            .id = .custom,
            .name = "place vibetunnel-fwd into a VibeTunnel checkout",
            .owner = b,
            .makeFn = make,
        }),
        .executable = executable,
        .path = path,
    };
    it.step.dependOn(&executable.step);
    return it;
}

fn make(step: *Step, _: Step.MakeOptions) !void {
    const it: *Checkout = @fieldParentPtr("step", step);
    const path = it.path;
    if (path.len == 0)
        return step.fail("say where the checkout is: zig build vibetunnel -Dvibetunnel=PATH", .{});
    var root = std.fs.cwd().openDir(path, .{}) catch |err|
        return step.fail("cannot open the folder {s}: {s}", .{ path, @errorName(err) });
    defer root.close();
    if (!isVibeTunnel(step.owner.allocator, root)) return step.fail(
        "{s} is no checkout of VibeTunnel: {s} with the name 'vibetunnel' and {s} are not both " ++
            "there. git clone https://github.com/amantus-ai/vibetunnel",
        .{ path, manifest, app },
    );
    const built = it.executable.getEmittedBin().getPath2(step.owner, step);
    const name = it.executable.name;
    for (places) |place| {
        var folder = root.makeOpenPath(place, .{}) catch |err|
            return step.fail("cannot make {s}/{s}: {s}", .{ path, place, @errorName(err) });
        defer folder.close();
        // Over the old one by rename: a forwarder that runs keeps its file.
        std.fs.cwd().copyFile(built, folder, name, .{ .override_mode = 0o755 }) catch |err|
            return step.fail("cannot write into {s}/{s}: {s}", .{ path, place, @errorName(err) });
        std.debug.print("{s}/{s}/{s}\n", .{ path, place, name });
    }
}

fn isVibeTunnel(allocator: std.mem.Allocator, root: std.fs.Dir) bool {
    root.access(app, .{}) catch return false;
    const text = root.readFileAlloc(allocator, manifest, max_manifest_bytes) catch return false;
    defer allocator.free(text);
    const Package = struct { name: []const u8 = "" };
    const package = std.json.parseFromSlice(Package, allocator, text, .{
        .ignore_unknown_fields = true,
    }) catch return false;
    defer package.deinit();
    return std.mem.eql(u8, package.value.name, "vibetunnel");
}
