//! The argument vector and the environment of one git, built from scratch. Of what the client
//! sent only the repository (as a path found on disk) and a checked GIT_PROTOCOL get in.

const std = @import("std");
const Config = @import("config.zig").Config;
const Service = @import("git_command.zig").Service;

pub const protocol_max = 256;

/// "version=2", perhaps with more colon-separated words; git(1), GIT_PROTOCOL.
pub fn isGitProtocol(value: []const u8) bool {
    if (value.len > protocol_max) return false;
    var words = std.mem.splitScalar(u8, value, ':');
    const version = words.first();
    const known = version.len == "version=2".len and std.mem.startsWith(u8, version, "version=") and
        version[version.len - 1] >= '0' and version[version.len - 1] <= '2';
    if (!known) return false;
    for (value) |byte| switch (byte) {
        'a'...'z', 'A'...'Z', '0'...'9', '=', '-', '_', '.', ':' => {},
        else => return false,
    };
    return true;
}

pub const Request = struct {
    service: Service,
    /// Absolute path of the Git directory.
    git_dir: []const u8,
    repository: []const u8,
    principal: []const u8,
    address: []const u8,
    /// "" when the client sent none.
    protocol: []const u8,
};

pub const Vectors = struct {
    argv: [:null]const ?[*:0]const u8,
    envp: [:null]const ?[*:0]const u8,
};

/// `git` is git's absolute path. All memory comes from `arena`.
pub fn vectors(
    arena: std.mem.Allocator,
    config: *const Config,
    git: [:0]const u8,
    request: Request,
) error{OutOfMemory}!Vectors {
    return .{
        .argv = try arguments(arena, config, git, request),
        .envp = try environment(arena, config, git, request),
    };
}

const List = std.ArrayListUnmanaged(?[*:0]const u8);

fn arguments(
    arena: std.mem.Allocator,
    config: *const Config,
    git: [:0]const u8,
    request: Request,
) ![:null]const ?[*:0]const u8 {
    var list: List = .empty;
    try list.append(arena, git);
    // The operator named the root, so its repositories may belong to another user of the system.
    try appendConfig(arena, &list, "safe.directory", request.git_dir);
    if (std.mem.endsWith(u8, request.git_dir, "/.git")) {
        const work_tree = request.git_dir[0 .. request.git_dir.len - "/.git".len];
        try appendConfig(arena, &list, "safe.directory", work_tree);
    }
    try appendConfig(arena, &list, "uploadpack.allowFilter", "true");
    try appendConfig(arena, &list, "uploadpack.allowAnySHA1InWant", "true"); // as in protocol v2
    try appendConfig(arena, &list, "protocol.ext.allow", "never");
    try appendConfig(arena, &list, "protocol.file.allow", "never");
    const fsck = if (config.fsck_objects) "true" else "false";
    try appendConfig(arena, &list, "receive.fsckObjects", fsck);
    for (config.git_config) |pair| try appendConfig(arena, &list, pair.name, pair.value);
    try list.append(arena, request.service.name());
    if (request.service == .upload_pack) try list.append(arena, "--strict");
    // upload-archive takes no options at all and would read "--" as the directory; the path is
    // absolute anyhow.
    if (request.service != .upload_archive) try list.append(arena, "--");
    try list.append(arena, try arena.dupeZ(u8, request.git_dir));
    return list.toOwnedSliceSentinel(arena, null);
}

fn appendConfig(arena: std.mem.Allocator, list: *List, name: []const u8, value: []const u8) !void {
    try list.append(arena, "-c");
    try list.append(arena, try std.fmt.allocPrintSentinel(arena, "{s}={s}", .{ name, value }, 0));
}

fn environment(
    arena: std.mem.Allocator,
    config: *const Config,
    git: [:0]const u8,
    request: Request,
) ![:null]const ?[*:0]const u8 {
    const bin = std.fs.path.dirname(git) orelse "/";
    var list: List = .empty;
    const path = try std.mem.join(arena, ":", &.{ bin, "/usr/local/bin:/usr/bin:/bin" });
    const fixed = [_][2][]const u8{
        .{ "PATH", path },
        .{ "HOME", "/nonexistent" },
        .{ "LANG", "C.UTF-8" },
        .{ "GIT_CONFIG_NOSYSTEM", "1" },
        .{ "GIT_CONFIG_GLOBAL", "/dev/null" },
        .{ "GIT_TERMINAL_PROMPT", "0" },
        .{ "GIT_NO_LAZY_FETCH", "1" },
    };
    for (fixed) |pair| {
        if (!overridden(config, pair[0])) try appendVariable(arena, &list, pair[0], pair[1]);
    }
    for (config.environment) |pair| try appendVariable(arena, &list, pair.name, pair.value);
    try appendVariable(arena, &list, "PLUE_USER", request.principal);
    try appendVariable(arena, &list, "PLUE_REPO", request.repository);
    try appendVariable(arena, &list, "PLUE_ADDRESS", request.address);
    if (request.protocol.len > 0) {
        try appendVariable(arena, &list, "GIT_PROTOCOL", request.protocol);
    }
    return list.toOwnedSliceSentinel(arena, null);
}

fn overridden(config: *const Config, name: []const u8) bool {
    for (config.environment) |pair| {
        if (std.mem.eql(u8, pair.name, name)) return true;
    }
    return false;
}

fn appendVariable(
    arena: std.mem.Allocator,
    list: *List,
    name: []const u8,
    value: []const u8,
) !void {
    try list.append(arena, try std.fmt.allocPrintSentinel(arena, "{s}={s}", .{ name, value }, 0));
}

const testing = std.testing;

test "only a well-formed GIT_PROTOCOL gets through" {
    const longer = "version=2:feature=x-1_y.z";
    for ([_][]const u8{ "version=0", "version=1", "version=2", longer }) |value| {
        try testing.expect(isGitProtocol(value));
    }
    const bad = [_][]const u8{
        "",                "version=3",      "version=22",               "version=", "Version=2",
        "version=2 x",     "version=2\nA=b", "version=2:$(x)",           "2",        " version=2",
        "version=2:a\x00", "x:version=2",    "version=2" ++ ":a" ** 200,
    };
    for (bad) |value| try testing.expect(!isGitProtocol(value));
}

test "the vectors hold what they should and the path comes last, after --" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const config: Config = .{
        .environment = &.{.{ .name = "HOME", .value = "/srv" }},
        .git_config = &.{.{ .name = "core.hooksPath", .value = "/hooks" }},
    };
    const result = try vectors(arena.allocator(), &config, "/opt/git/bin/git", .{
        .service = .upload_pack,
        .git_dir = "/srv/git/a/b/.git",
        .repository = "a/b",
        .principal = "alice",
        .address = "10.0.0.1",
        .protocol = "version=2",
    });
    const argv = result.argv;
    try testing.expectEqualStrings("/opt/git/bin/git", std.mem.span(argv[0].?));
    try testing.expectEqualStrings("/srv/git/a/b/.git", std.mem.span(argv[argv.len - 1].?));
    try testing.expectEqualStrings("--", std.mem.span(argv[argv.len - 2].?));
    try testing.expectEqualStrings("--strict", std.mem.span(argv[argv.len - 3].?));
    try testing.expect(contains(argv, "core.hooksPath=/hooks"));
    try testing.expect(contains(argv, "safe.directory=/srv/git/a/b"));
    try testing.expect(contains(result.envp, "HOME=/srv"));
    try testing.expect(!contains(result.envp, "HOME=/nonexistent"));
    try testing.expect(contains(result.envp, "PLUE_USER=alice"));
    try testing.expect(contains(result.envp, "GIT_PROTOCOL=version=2"));
    try testing.expect(contains(result.envp, "PATH=/opt/git/bin:/usr/local/bin:/usr/bin:/bin"));
}

fn contains(list: [:null]const ?[*:0]const u8, text: []const u8) bool {
    for (list) |item| {
        if (std.mem.eql(u8, std.mem.span(item.?), text)) return true;
    }
    return false;
}
