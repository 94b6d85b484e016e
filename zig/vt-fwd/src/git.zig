//! What session.json says about the git repository that a session runs in.

const std = @import("std");
const posix = std.posix;

pub const Info = struct {
    repo_buffer: [posix.PATH_MAX]u8 = undefined,
    repo_len: usize = 0,
    branch_buffer: [256]u8 = undefined,
    branch_len: usize = 0,
    main_buffer: [posix.PATH_MAX]u8 = undefined,
    main_len: usize = 0,
    /// Null without an upstream.
    ahead: ?u32 = null,
    behind: ?u32 = null,
    changes: bool = false,
    worktree: bool = false,

    pub fn repo(info: *const Info) []const u8 {
        return info.repo_buffer[0..info.repo_len];
    }

    pub fn branch(info: *const Info) []const u8 {
        return info.branch_buffer[0..info.branch_len];
    }

    pub fn main(info: *const Info) []const u8 {
        return info.main_buffer[0..info.main_len];
    }
};
