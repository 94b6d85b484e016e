//! The command line and the environment: what was asked for. Nothing is done about it here.

const std = @import("std");
const control_dir = @import("control_dir.zig");
const Level = @import("log.zig").Level;
const Size = @import("asciicast.zig").Size;

pub const TitleMode = enum {
    /// Titles are left to the programs.
    none,
    /// Programs' titles are taken out.
    filter,
    /// The session's own title is shown; programs' titles are taken out.
    static,

    /// Any case; `dynamic` is an older name of `static`.
    pub fn parse(text: []const u8) ?TitleMode {
        if (std.ascii.eqlIgnoreCase(text, "dynamic")) return .static;
        inline for (std.meta.fields(TitleMode)) |field| {
            if (std.ascii.eqlIgnoreCase(text, field.name)) return @enumFromInt(field.value);
        }
        return null;
    }
};

/// The environment's say. Bad values are ignored, as the user may not have set them for us.
pub const Environment = struct {
    title_mode: ?[]const u8 = null, // VIBETUNNEL_TITLE_MODE
    log_level: ?[]const u8 = null, // VIBETUNNEL_LOG_LEVEL
    debug: ?[]const u8 = null, // VIBETUNNEL_DEBUG
    record_input: ?[]const u8 = null, // VIBETUNNEL_RECORD_INPUT
    max_cast_bytes: ?[]const u8 = null, // VIBETUNNEL_MAX_CAST_BYTES
};

pub const Options = struct {
    session_id: ?[]const u8 = null,
    /// Null: made from the command and the folder.
    name: ?[]const u8 = null,
    /// To run away from this terminal, and to return when the session runs.
    detach: bool = false,
    /// The size to start with, whatever this terminal's is.
    size: ?Size = null,
    title_mode: TitleMode = .none,
    level: Level = .@"error",
    log_file: ?[:0]const u8 = null,
    update_title: ?[]const u8 = null,
    record_input: bool = true,
    /// 0: no limit.
    max_cast_bytes: u64 = 0,
    /// The command and its arguments; empty only with `update_title`.
    command: []const [:0]const u8 = &.{},
};

pub const Result = union(enum) {
    run: Options,
    help,
    version,
    invalid: Invalid,
};

pub const Invalid = struct {
    problem: Problem,
    /// The word it is about.
    word: []const u8,

    pub const Problem = enum {
        unknown_option,
        missing_value,
        bad_session_id,
        bad_size,
        bad_title_mode,
        bad_level,
        title_without_session,
    };

    pub fn message(it: Invalid) []const u8 {
        return switch (it.problem) {
            .unknown_option => "unknown option, see --help",
            .missing_value => "this option needs a value",
            .bad_session_id => "a session id has 1 to 64 letters, digits, '_' or '-'",
            .bad_size => "a size is COLSxROWS, each from 1 to 65535",
            .bad_title_mode => "a title mode is none, filter, static or dynamic",
            .bad_level => "a verbosity is silent, error, warn, info, verbose or debug",
            .title_without_session => "--update-title needs --session-id",
        };
    }
};

pub const usage =
    \\Usage: vibetunnel-fwd [options] [--] command [arguments...]
    \\
    \\Runs a command on a pseudoterminal, passes this terminal through, records the session for
    \\VibeTunnel and lets its server type, resize and end it.
    \\
    \\  --session-id ID       the session's id (default: fwd_<milliseconds>_<pid>)
    \\  --name NAME           what people see (default: the command and the folder)
    \\  --detach              run it in the background, print its id and return at once
    \\  --size COLSxROWS      the terminal's size to start with (default: this one's, or 120x40)
    \\  --title-mode MODE     none: leave window titles to programs (default)
    \\                        filter: drop them   static, dynamic: show the session's own
    \\  --update-title TITLE  rename the session --session-id, and end
    \\  --no-record-input     leave what is typed out of the recording
    \\                        (typed passwords never are in it)
    \\  --verbosity LEVEL     silent, error (default), warn, info, verbose or debug
    \\  -q, -v, -vv, -vvv     silent, info, verbose, debug
    \\  --log-file FILE       default: ~/.vibetunnel/log.txt
    \\  -h, --help            this text
    \\  --version             the version
    \\
    \\Environment:
    \\  VIBETUNNEL_CONTROL_DIR     where sessions live (default: ~/.vibetunnel/control)
    \\  VIBETUNNEL_TITLE_MODE      as --title-mode
    \\  VIBETUNNEL_LOG_LEVEL       as --verbosity; VIBETUNNEL_DEBUG=1 is debug
    \\  VIBETUNNEL_RECORD_INPUT    0 is --no-record-input
    \\  VIBETUNNEL_MAX_CAST_BYTES  the recording ends at this size (default: no limit)
    \\
    \\Exits with the command's own code, 128 + n when signal n ended it, 127 when the command was
    \\not found, 126 when it cannot be run, and 1 when the session could not be started.
    \\
    \\Examples:
    \\  vibetunnel-fwd bash
    \\  vibetunnel-fwd --title-mode static --session-id build -- make -j8
    \\  vibetunnel-fwd --session-id build --update-title 'nightly build'
    \\
;

/// `args` without the program's own name. They are kept to the byte, UTF-8 or not.
pub fn parse(args: []const [:0]const u8, environment: Environment) Result {
    var options: Options = .{};
    applyEnvironment(&options, environment);
    var i: usize = 0;
    while (i < args.len) {
        const word = args[i];
        if (std.mem.eql(u8, word, "--")) {
            i += 1;
            break;
        }
        if (word.len < 2 or word[0] != '-') break;
        i += 1;
        if (eql(word, "-h", "--help")) return .help;
        if (eql(word, "--version", "--version")) return .version;
        if (applyFlag(&options, word)) continue;
        if (!takesValue(word)) return invalid(.unknown_option, word);
        if (i == args.len) return invalid(.missing_value, word);
        const value = args[i];
        i += 1;
        if (applyValue(&options, word, value)) |problem| return invalid(problem, value);
    }
    if (i < args.len and std.mem.eql(u8, args[i], "--")) i += 1; // of a wrapper that adds its own
    options.command = args[i..];
    if (options.update_title != null) {
        if (options.session_id != null) return .{ .run = options };
        return invalid(.title_without_session, options.update_title.?);
    }
    return if (options.command.len == 0) .help else .{ .run = options };
}

fn invalid(problem: Invalid.Problem, word: []const u8) Result {
    return .{ .invalid = .{ .problem = problem, .word = word } };
}

fn eql(word: []const u8, short: []const u8, long: []const u8) bool {
    return std.mem.eql(u8, word, short) or std.mem.eql(u8, word, long);
}

fn applyEnvironment(options: *Options, environment: Environment) void {
    if (environment.title_mode) |text| {
        options.title_mode = TitleMode.parse(text) orelse options.title_mode;
    }
    if (environment.log_level) |text| options.level = Level.parse(text) orelse options.level;
    if (environment.debug) |text| {
        if (eql(text, "1", "true")) options.level = .debug;
    }
    if (environment.record_input) |text| {
        if (eql(text, "0", "false")) options.record_input = false;
    }
    if (environment.max_cast_bytes) |text| {
        options.max_cast_bytes = std.fmt.parseInt(u64, text, 10) catch 0;
    }
}

fn applyFlag(options: *Options, word: []const u8) bool {
    const flags = [_]struct { []const u8, Level }{
        .{ "-q", .silent }, .{ "-v", .info }, .{ "-vv", .verbose }, .{ "-vvv", .debug },
    };
    for (flags) |flag| if (std.mem.eql(u8, word, flag[0])) {
        options.level = flag[1];
        return true;
    };
    if (std.mem.eql(u8, word, "--no-record-input")) {
        options.record_input = false;
    } else if (std.mem.eql(u8, word, "--detach")) {
        options.detach = true;
    } else return false;
    return true;
}

fn takesValue(word: []const u8) bool {
    const options = [_][]const u8{
        "--session-id",   "--name",      "--size",
        "--title-mode",   "--verbosity", "--log-file",
        "--update-title",
    };
    for (options) |option| if (std.mem.eql(u8, word, option)) return true;
    return false;
}

fn applyValue(options: *Options, word: []const u8, value: [:0]const u8) ?Invalid.Problem {
    if (std.mem.eql(u8, word, "--session-id")) {
        if (!control_dir.isValidId(value)) return .bad_session_id;
        options.session_id = value;
    } else if (std.mem.eql(u8, word, "--name")) {
        options.name = value;
    } else if (std.mem.eql(u8, word, "--size")) {
        options.size = parseSize(value) orelse return .bad_size;
    } else if (std.mem.eql(u8, word, "--title-mode")) {
        options.title_mode = TitleMode.parse(value) orelse return .bad_title_mode;
    } else if (std.mem.eql(u8, word, "--verbosity")) {
        options.level = Level.parse(value) orelse return .bad_level;
    } else if (std.mem.eql(u8, word, "--log-file")) {
        options.log_file = value;
    } else {
        options.update_title = value;
    }
    return null;
}

fn parseSize(text: []const u8) ?Size {
    const x = std.mem.indexOfScalar(u8, text, 'x') orelse return null;
    const cols = std.fmt.parseUnsigned(u16, text[0..x], 10) catch return null;
    const rows = std.fmt.parseUnsigned(u16, text[x + 1 ..], 10) catch return null;
    return if (cols == 0 or rows == 0) null else .{ .cols = cols, .rows = rows };
}

const testing = std.testing;

fn run(args: []const [:0]const u8) !Options {
    return switch (parse(args, .{})) {
        .run => |options| options,
        else => error.TestUnexpectedResult,
    };
}

test "options stop at the first word that is none, or at --" {
    const options = try run(&.{ "--session-id", "x-1", "-vv", "ls", "--help", "--" });
    try testing.expectEqualStrings("x-1", options.session_id.?);
    try testing.expectEqual(.verbose, options.level);
    try testing.expectEqual(3, options.command.len);
    try testing.expectEqualStrings("-v", (try run(&.{ "--", "-v" })).command[0]);
    try testing.expectEqualStrings("ls", (try run(&.{ "--", "--", "ls" })).command[0]);
    try testing.expectEqualStrings("--", (try run(&.{ "--", "--", "--" })).command[0]);
    try testing.expectEqualStrings("-", (try run(&.{"-"})).command[0]);
    try testing.expectEqualStrings("", (try run(&.{""})).command[0]);
    try testing.expectEqualStrings("\xff", (try run(&.{"\xff"})).command[0]);
}

test "away from this terminal, with a size of its own" {
    const options = try run(&.{ "--detach", "--size", "132x50", "ls", "--detach" });
    try testing.expect(options.detach);
    try testing.expectEqual(Size{ .cols = 132, .rows = 50 }, options.size.?);
    try testing.expectEqual(2, options.command.len);
    try testing.expect(!(try run(&.{"ls"})).detach);
}

test "no command is a request for help" {
    for ([_][]const [:0]const u8{
        &.{}, &.{"--"}, &.{"--help"}, &.{ "-v", "-h", "ls" }, &.{ "--", "--" }, &.{"-q"},
    }) |args| try testing.expectEqual(.help, parse(args, .{}));
    try testing.expectEqual(.version, parse(&.{"--version"}, .{}));
}

test "what is wrong is named" {
    const cases = [_]struct { []const [:0]const u8, Invalid.Problem, []const u8 }{
        .{ &.{ "--wat", "ls" }, .unknown_option, "--wat" },
        .{ &.{ "-x", "ls" }, .unknown_option, "-x" },
        .{ &.{"--title-mode"}, .missing_value, "--title-mode" },
        .{ &.{ "--title-mode", "loud", "ls" }, .bad_title_mode, "loud" },
        .{ &.{ "--verbosity", "", "ls" }, .bad_level, "" },
        .{ &.{ "--size", "80", "ls" }, .bad_size, "80" },
        .{ &.{ "--size", "0x24", "ls" }, .bad_size, "0x24" },
        .{ &.{ "--size", "80x65536", "ls" }, .bad_size, "80x65536" },
        .{ &.{ "--size", "80x-1", "ls" }, .bad_size, "80x-1" },
        .{ &.{ "--session-id", "../x", "ls" }, .bad_session_id, "../x" },
        .{ &.{ "--session-id", "", "ls" }, .bad_session_id, "" },
        .{ &.{ "--update-title", "t" }, .title_without_session, "t" },
    };
    for (cases) |case| {
        const result = parse(case[0], .{});
        try testing.expectEqual(case[1], result.invalid.problem);
        try testing.expectEqualStrings(case[2], result.invalid.word);
        try testing.expect(result.invalid.message().len > 0);
    }
}

test "modes and levels in any case; flags beat the environment, bad values there are ignored" {
    try testing.expectEqual(.static, (try run(&.{ "--title-mode", "DYNAMIC", "ls" })).title_mode);
    const environment: Environment = .{
        .title_mode = "filter",
        .log_level = "warn",
        .debug = "1",
        .record_input = "0",
        .max_cast_bytes = "123",
    };
    const from_env = parse(&.{"ls"}, environment).run;
    try testing.expectEqual(.filter, from_env.title_mode);
    try testing.expectEqual(.debug, from_env.level);
    try testing.expect(!from_env.record_input);
    try testing.expectEqual(123, from_env.max_cast_bytes);
    const both = parse(&.{ "-q", "--title-mode", "none", "ls" }, environment).run;
    try testing.expectEqual(.none, both.title_mode);
    try testing.expectEqual(.silent, both.level);
    const bad = parse(&.{"ls"}, .{
        .title_mode = "x",
        .log_level = "x",
        .max_cast_bytes = "x",
    }).run;
    try testing.expectEqual(.none, bad.title_mode);
    try testing.expectEqual(.@"error", bad.level);
    try testing.expectEqual(0, bad.max_cast_bytes);
}
