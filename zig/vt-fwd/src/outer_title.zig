//! The window title of the user's own terminal: which one, and the moment at which it may be
//! written between two pieces of the program's output.

const std = @import("std");
const title = @import("title.zig");
const TitleMode = @import("cli.zig").TitleMode;

pub const OuterTitle = struct {
    mode: TitleMode,
    context: title.Context,
    /// Not a terminal: titles have no meaning there.
    silent: bool,
    /// The title that waits to be written.
    waiting: ?title.Name = null,
    /// The sequence that was taken last.
    bytes: [title.max_characters * 4 + 8]u8 = undefined,

    /// At the start: the session's own title, in the mode that has one.
    pub fn begin(self: *OuterTitle, name: *const title.Name) void {
        if (self.mode == .static) self.renamed(name);
    }

    /// Somebody renamed the session.
    pub fn renamed(self: *OuterTitle, name: *const title.Name) void {
        if (self.silent) return;
        self.waiting = if (self.mode == .static) title.staticTitle(name, self.context) else name.*;
    }

    pub fn waits(self: *const OuterTitle) bool {
        return self.waiting != null;
    }

    /// The sequence to write now; "" for none. It stays valid until the next `take`: a terminal that
    /// is stopped may have got half of it when the session is renamed again.
    pub fn take(self: *OuterTitle) []const u8 {
        const text = self.waiting orelse return "";
        self.waiting = null;
        return std.fmt.bufPrint(&self.bytes, "\x1b]2;{s}\x07", .{text.slice()}) catch
            unreachable; // a name has at most `max_characters`
    }
};

test "titles in each mode" {
    const context: title.Context = .{ .argv0 = "sh", .cwd = "/tmp", .home = "" };
    const generated = title.defaultName(context);
    const chosen: title.Name = .fromBytes("mine");
    const cases = [_]struct { TitleMode, []const u8, []const u8 }{
        .{ .none, "", "\x1b]2;mine\x07" },
        .{ .filter, "", "\x1b]2;mine\x07" },
        .{ .static, "\x1b]2;/tmp · sh\x07", "\x1b]2;mine\x07" },
    };
    for (cases) |case| {
        var self: OuterTitle = .{ .mode = case[0], .context = context, .silent = false };
        self.begin(&generated);
        try std.testing.expectEqualStrings(case[1], self.take());
        self.renamed(&chosen);
        try std.testing.expect(self.waits());
        try std.testing.expectEqualStrings(case[2], self.take());
        try std.testing.expect(!self.waits());
    }
    var silent: OuterTitle = .{ .mode = .static, .context = context, .silent = true };
    silent.begin(&generated);
    try std.testing.expect(!silent.waits());
}

test "a rename leaves the sequence alone that is being written" {
    const context: title.Context = .{ .argv0 = "sh", .cwd = "/tmp", .home = "" };
    var self: OuterTitle = .{ .mode = .none, .context = context, .silent = false };
    self.renamed(&.fromBytes("first"));
    const taken = self.take();
    self.renamed(&.fromBytes("2nd"));
    self.renamed(&.fromBytes("third"));
    try std.testing.expectEqualStrings("\x1b]2;first\x07", taken);
    try std.testing.expectEqualStrings("\x1b]2;third\x07", self.take());
    try std.testing.expectEqualStrings("", self.take());
}
