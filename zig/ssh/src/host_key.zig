//! Host keys: read from files that nobody else may read, or generated.

const std = @import("std");
const posix = std.posix;
const libssh = @import("libssh.zig");

/// Longest key file, in bytes.
const file_max = 64 * 1024;

pub const Error = error{ OutOfMemory, BadHostKey };

/// Reads the private key at `path`; makes an ed25519 one there first if the file is missing and
/// `may_generate`. On BadHostKey `reason` says what is wrong and what to do. The caller frees the
/// key with ssh_key_free.
pub fn load(
    allocator: std.mem.Allocator,
    path: [:0]const u8,
    may_generate: bool,
    reason: *std.Io.Writer,
) Error!*libssh.Key {
    if (may_generate and isMissing(path)) try generate(allocator, path, reason);
    const file = std.fs.cwd().openFile(path, .{}) catch |err| {
        return fail(reason, "cannot open the host key {s}: {t}", .{ path, err });
    };
    defer file.close();
    const stat = posix.fstat(file.handle) catch |err| {
        return fail(reason, "cannot look at the host key {s}: {t}", .{ path, err });
    };
    if (!posix.S.ISREG(stat.mode)) return fail(reason, "the host key {s} is no file", .{path});
    if (stat.mode & 0o077 != 0) {
        return fail(reason, "the host key {s} can be read by others (mode {o}): chmod 600 {s}", .{
            path, stat.mode & 0o777, path,
        });
    }
    const text = try allocator.alloc(u8, file_max + 1);
    defer allocator.free(text);
    defer std.crypto.secureZero(u8, text);
    const len = file.readAll(text[0..file_max]) catch |err| {
        return fail(reason, "cannot read the host key {s}: {t}", .{ path, err });
    };
    text[len] = 0;
    var key: ?*libssh.Key = null;
    const result = libssh.ssh_pki_import_privkey_base64(
        text[0..len :0],
        "",
        null,
        null,
        &key,
    );
    if (result != libssh.OK or key == null) {
        return fail(reason, "{s} holds no private key that libssh can read without a passphrase " ++
            "(make one with ssh-keygen -t ed25519 -N '' -f {s})", .{ path, path });
    }
    return key.?;
}

fn isMissing(path: [:0]const u8) bool {
    std.fs.cwd().access(path, .{}) catch |err| return err == error.FileNotFound;
    return false;
}

/// Writes a new key next to `path` and links it there: a key that has appeared meanwhile stays.
fn generate(allocator: std.mem.Allocator, path: [:0]const u8, reason: *std.Io.Writer) Error!void {
    var key: ?*libssh.Key = null;
    if (libssh.ssh_pki_generate(libssh.KEYTYPE_ED25519, 0, &key) != libssh.OK) {
        return fail(reason, "libssh cannot generate a host key", .{});
    }
    defer libssh.ssh_key_free(key.?);
    const temporary = try std.fmt.allocPrintSentinel(allocator, "{s}.{x}", .{
        path, std.crypto.random.int(u64),
    }, 0);
    defer allocator.free(temporary);
    // libssh opens the file with the process's umask: make it first, private from its birth.
    const flags: std.fs.File.CreateFlags = .{ .exclusive = true, .mode = 0o600 };
    const file = std.fs.cwd().createFile(temporary, flags) catch |err| {
        return fail(reason, "cannot create the host key {s}: {t}", .{ path, err });
    };
    file.close();
    defer std.fs.cwd().deleteFile(temporary) catch {}; // at worst a private file stays
    const result = libssh.ssh_pki_export_privkey_file(key.?, null, null, null, temporary);
    if (result != libssh.OK) return fail(reason, "cannot write the host key {s}", .{path});
    posix.link(temporary, path) catch |err| switch (err) {
        error.PathAlreadyExists => {}, // another start was faster: its key counts
        else => return fail(reason, "cannot create the host key {s}: {t}", .{ path, err }),
    };
}

fn fail(reason: *std.Io.Writer, comptime format: []const u8, args: anytype) error{BadHostKey} {
    reason.print(format, args) catch {}; // a cut reason is still a reason
    return error.BadHostKey;
}

const testing = std.testing;

test "a missing key is made, private, and read again" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var root_buffer: [std.fs.max_path_bytes]u8 = undefined;
    const root = try tmp.dir.realpath(".", &root_buffer);
    const path = try std.fs.path.joinZ(testing.allocator, &.{ root, "host_key" });
    defer testing.allocator.free(path);
    var buffer: [1000]u8 = undefined;
    var reason = std.Io.Writer.fixed(&buffer);
    try testing.expectError(error.BadHostKey, load(testing.allocator, path, false, &reason));
    libssh.ssh_key_free(try load(testing.allocator, path, true, &reason));
    const stat = try tmp.dir.statFile("host_key");
    try testing.expectEqual(0o600, stat.mode & 0o777);
    const key = try load(testing.allocator, path, false, &reason);
    defer libssh.ssh_key_free(key);
    try testing.expectEqual(libssh.KEYTYPE_ED25519, libssh.ssh_key_type(key));
    var iterable = try tmp.dir.openDir(".", .{ .iterate = true });
    defer iterable.close();
    var entries = iterable.iterate();
    var count: usize = 0;
    while (try entries.next()) |_| count += 1;
    try testing.expectEqual(1, count);
}

test "a key that others can read, and a file that is no key, are refused with the cure" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var root_buffer: [std.fs.max_path_bytes]u8 = undefined;
    const root = try tmp.dir.realpath(".", &root_buffer);
    const modes = [_]std.fs.File.Mode{ 0o644, 0o600 };
    for (modes, [_][]const u8{ "chmod 600", "ssh-keygen" }) |mode, cure| {
        const file = try tmp.dir.createFile("key", .{ .mode = mode });
        defer tmp.dir.deleteFile("key") catch {}; // the folder goes with the test
        try file.writeAll("not a key");
        file.close();
        const path = try std.fs.path.joinZ(testing.allocator, &.{ root, "key" });
        defer testing.allocator.free(path);
        var buffer: [1000]u8 = undefined;
        var reason = std.Io.Writer.fixed(&buffer);
        try testing.expectError(error.BadHostKey, load(testing.allocator, path, true, &reason));
        try testing.expect(std.mem.indexOf(u8, reason.buffered(), cure) != null);
    }
}
