//! From the path a client asked for to a Git directory beneath the root: first the name, without
//! looking at the disk, then the directory, without following a single symbolic link.

const std = @import("std");
const posix = std.posix;

/// Longest path a client may ask for, in bytes.
pub const path_max = 4096;
/// Longest component of it, NAME_MAX of every file system git runs on.
pub const component_max = 255;

pub const NameError = error{BadName};

/// The name by which permissions are looked up: "/alice/repo.git/" and "alice/repo" are both
/// "alice/repo". A slice of `path`.
pub fn canonicalName(path: []const u8) NameError![]const u8 {
    if (path.len > path_max) return error.BadName;
    var name = std.mem.trim(u8, path, "/");
    if (std.mem.endsWith(u8, name, ".git")) name = name[0 .. name.len - ".git".len];
    if (name.len == 0 or name[0] == '-') return error.BadName;
    for (name) |byte| {
        if (byte < 0x20 or byte == 0x7f) return error.BadName;
    }
    if (!std.unicode.utf8ValidateSlice(name)) return error.BadName;
    var components = std.mem.splitScalar(u8, name, '/');
    while (components.next()) |component| {
        if (component.len == 0 or component.len > component_max - ".git".len) return error.BadName;
        if (std.mem.eql(u8, component, ".") or std.mem.eql(u8, component, "..")) {
            return error.BadName;
        }
        // Nothing inside a Git directory is a repository, and "x.git.git" is nobody's name.
        if (std.ascii.endsWithIgnoreCase(component, ".git")) return error.BadName;
    }
    return name;
}

pub const OpenError = error{
    /// No such repository, or one that is reached through a symbolic link or another repository.
    NotFound,
    /// The path would not fit `buffer`.
    TooLong,
};

/// The absolute path of the Git directory of `name` (see `canonicalName`), written to `buffer`:
/// <root>/<name>.git if that is there, else <root>/<name>; bare, or with a .git directory in it.
/// `root` is absolute and `root_fd` an open directory of the same place.
pub fn find(
    root: []const u8,
    root_fd: posix.fd_t,
    name: []const u8,
    buffer: []u8,
) OpenError![:0]const u8 {
    for ([_][]const u8{ ".git", "" }) |suffix| {
        const fd = openBeneath(root_fd, name, suffix) catch continue;
        defer posix.close(fd);
        const inner: []const u8 = if (isGitDirectory(fd)) "" else inner: {
            const inner_fd = openDirectory(fd, ".git") catch continue;
            defer posix.close(inner_fd);
            if (!isGitDirectory(inner_fd)) continue;
            break :inner "/.git";
        };
        const separator: []const u8 = if (std.mem.endsWith(u8, root, "/")) "" else "/";
        return std.fmt.bufPrintZ(buffer, "{s}{s}{s}{s}{s}", .{
            root, separator, name, suffix, inner,
        }) catch return error.TooLong;
    }
    return error.NotFound;
}

fn openBeneath(root_fd: posix.fd_t, name: []const u8, suffix: []const u8) !posix.fd_t {
    var current = root_fd;
    errdefer if (current != root_fd) posix.close(current);
    var components = std.mem.splitScalar(u8, name, '/');
    while (components.next()) |component| {
        std.debug.assert(!std.mem.eql(u8, component, "..")); // canonicalName refused it
        var buffer: [component_max + 1]u8 = undefined;
        const last = components.peek() == null;
        const text = try std.fmt.bufPrint(&buffer, "{s}{s}", .{
            component, if (last) suffix else "",
        });
        const next = try openDirectory(current, text);
        if (current != root_fd) posix.close(current);
        current = next;
        if (!last and isRepository(current)) return error.NotFound;
    }
    return current;
}

fn openDirectory(fd: posix.fd_t, name: []const u8) !posix.fd_t {
    return posix.openat(fd, name, .{
        .ACCMODE = .RDONLY,
        .DIRECTORY = true,
        .NOFOLLOW = true,
        .CLOEXEC = true,
    }, 0);
}

/// A repository lies in no other: who may push to the outer one decides what is in its work tree
/// and what its references are called, and could so make an inner one, with hooks. A broken one
/// counts too, and so does what cannot be looked at.
fn isRepository(fd: posix.fd_t) bool {
    if (isThere(fd, ".git")) return true;
    return isThere(fd, "HEAD") and isThere(fd, "objects") and isThere(fd, "refs");
}

fn isThere(fd: posix.fd_t, name: []const u8) bool {
    _ = posix.fstatat(fd, name, posix.AT.SYMLINK_NOFOLLOW) catch |err| {
        return err != error.FileNotFound;
    };
    return true;
}

/// What git itself looks for: HEAD, objects/ and refs/.
fn isGitDirectory(fd: posix.fd_t) bool {
    const dir: std.fs.Dir = .{ .fd = fd };
    dir.access("HEAD", .{}) catch return false;
    const objects = dir.statFile("objects") catch return false;
    const refs = dir.statFile("refs") catch return false;
    return objects.kind == .directory and refs.kind == .directory;
}

const testing = std.testing;

test "one name for every spelling" {
    const spellings = [_][]const u8{
        "alice/repo", "/alice/repo", "alice/repo.git", "//alice/repo.git/", "alice/repo/",
    };
    for (spellings) |path| {
        try testing.expectEqualStrings("alice/repo", try canonicalName(path));
    }
    try testing.expectEqualStrings("it's a !repo", try canonicalName("it's a !repo.git"));
    try testing.expectEqualStrings("~alice/.dot", try canonicalName("/~alice/.dot"));
    try testing.expectEqualStrings("a/-b", try canonicalName("a/-b"));
    try testing.expectEqualStrings("größe", try canonicalName("größe"));
}

test "hostile names are refused" {
    const hostile = [_][]const u8{
        "",            "/",              "///",                ".git",    "/.git",
        ".",           "..",             "../x",               "a/../b",  "a/..",
        "a/./b",       "./a",            "a//b",               "-a",      "/-a",
        "--help",      "--upload-pack",  "a\nb",               "a\x00b",  "a\x7f",
        "\x1b[31m",    "a/.git/b",       "a.git/b",            "x.GIT",   "x.git.git",
        "a/.GIT/b",    "\xff\xfe",       "a/..git/x",          "a/.git/", "/../x",
        "a/.git/.git", "...git/y.git/z", "a/../../etc/passwd",
    };
    for (hostile) |path| try testing.expectError(error.BadName, canonicalName(path));
    const long: [path_max + 1]u8 = @splat('a');
    try testing.expectError(error.BadName, canonicalName(&long));
    try testing.expectError(error.BadName, canonicalName(long[0..component_max]));
    try testing.expectEqualStrings(long[0..251], try canonicalName(long[0..251]));
}

fn makeRepository(dir: std.fs.Dir, path: []const u8) !void {
    var repository = try dir.makeOpenPath(path, .{});
    defer repository.close();
    try repository.makeDir("objects");
    try repository.makeDir("refs");
    try repository.writeFile(.{ .sub_path = "HEAD", .data = "ref: refs/heads/main\n" });
}

test "bare and non-bare repositories are found, everything else reads alike" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    var root_buffer: [std.fs.max_path_bytes]u8 = undefined;
    const root = try tmp.dir.realpath(".", &root_buffer);
    try makeRepository(tmp.dir, "alice/bare.git");
    try makeRepository(tmp.dir, "alice/plain");
    try makeRepository(tmp.dir, "alice/work/.git");
    try makeRepository(tmp.dir, "alice/both");
    try makeRepository(tmp.dir, "alice/both.git");
    try tmp.dir.makePath("alice/empty");
    try tmp.dir.writeFile(.{ .sub_path = "alice/file", .data = "" });
    const found = [_][2][]const u8{
        .{ "alice/bare", "alice/bare.git" },  .{ "alice/plain", "alice/plain" },
        .{ "alice/work", "alice/work/.git" }, .{ "alice/both", "alice/both.git" },
    };
    var buffer: [2 * path_max]u8 = undefined;
    for (found) |pair| {
        const path = try find(root, tmp.dir.fd, pair[0], &buffer);
        try testing.expectEqualStrings(root, path[0..root.len]);
        try testing.expectEqualStrings(pair[1], path[root.len + 1 ..]);
    }
    for ([_][]const u8{ "alice", "alice/empty", "alice/file", "alice/none", "bob/x" }) |name| {
        try testing.expectError(error.NotFound, find(root, tmp.dir.fd, name, &buffer));
    }
    try testing.expectError(error.TooLong, find(root, tmp.dir.fd, "alice/bare", buffer[0..8]));
}

test "a repository lies in no other" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    for ([_][]const u8{ "work/.git", "work/evil", "bare", "bare/refs/heads/x" }) |path| {
        try makeRepository(tmp.dir, path);
    }
    // Others that git would take for repositories, or once were some.
    for ([_][]const u8{ "file", "link", "broken" }) |owner| {
        var buffer: [32]u8 = undefined;
        try makeRepository(tmp.dir, try std.fmt.bufPrint(&buffer, "{s}/deep/evil.git", .{owner}));
    }
    try tmp.dir.writeFile(.{ .sub_path = "file/.git", .data = "gitdir: /nowhere\n" });
    try tmp.dir.symLink("/nowhere", "link/.git", .{});
    try tmp.dir.symLink("refs/heads/none", "broken/HEAD", .{});
    try tmp.dir.makePath("broken/objects");
    try tmp.dir.makePath("broken/refs");
    // No repository, whatever some of it is called.
    try makeRepository(tmp.dir, "owner/objects/project.git");
    try makeRepository(tmp.dir, "owner/refs.git");
    var buffer: [2 * path_max]u8 = undefined;
    for ([_][]const u8{
        "work/evil",      "bare/refs/heads/x", "file/deep/evil",
        "link/deep/evil", "broken/deep/evil",
    }) |name| {
        errdefer std.debug.print("{s}\n", .{name});
        try testing.expectError(error.NotFound, find("/r", tmp.dir.fd, name, &buffer));
    }
    for ([_][]const u8{ "work", "bare", "owner/objects/project", "owner/refs" }) |name| {
        _ = try find("/r", tmp.dir.fd, name, &buffer);
    }
}

test "no symbolic link is followed, wherever it points" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    try makeRepository(tmp.dir, "outside/secret.git");
    try makeRepository(tmp.dir, "root/alice/repo.git");
    var root = try tmp.dir.openDir("root", .{});
    defer root.close();
    try root.symLink("../outside", "link", .{});
    try root.symLink("../outside/secret.git", "secret.git", .{});
    try root.symLink("alice/repo.git", "inside.git", .{});
    try root.makePath("bob/work");
    try root.symLink("../../../outside/secret.git", "bob/work/.git", .{});
    var buffer: [2 * path_max]u8 = undefined;
    for ([_][]const u8{ "link/secret", "secret", "inside", "bob/work" }) |name| {
        try testing.expectError(error.NotFound, find("/r", root.fd, name, &buffer));
    }
    const found = try find("/r", root.fd, "alice/repo", &buffer);
    try testing.expectEqualStrings("/r/alice/repo.git", found);
}
