//! A library with libssh's names and nothing in it, to link against in a cross build. Never
//! installed.

const libssh = @import("libssh.zig");

comptime {
    @setEvalBranchQuota(10_000);
    for (@typeInfo(libssh).@"struct".decls) |declaration| {
        if (declaration.name.len < 4) continue;
        if (!@import("std").mem.eql(u8, declaration.name[0..4], "ssh_")) continue;
        @export(&nothing, .{ .name = declaration.name });
    }
}

fn nothing() callconv(.c) void {
    unreachable;
}
