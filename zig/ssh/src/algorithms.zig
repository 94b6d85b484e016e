//! The algorithms offered. The defaults are what ssh-audit finds nothing against; names that the
//! libssh in use lacks fall out of them, one by one, when libssh refuses them.

const std = @import("std");
const libssh = @import("libssh.zig");
const old_libssh = @import("old_libssh.zig");
const Config = @import("config.zig").Config;

pub const kex = "mlkem768x25519-sha256,curve25519-sha256,curve25519-sha256@libssh.org";
pub const ciphers = "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com," ++
    "aes128-gcm@openssh.com,aes256-ctr,aes128-ctr";
/// libssh before 0.12.2 does not check the tag of AES-GCM (CVE-2026-59847), unless the
/// distribution has mended it, which nothing tells.
pub const ciphers_without_gcm = "chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr";
pub const macs = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com";
pub const host_keys = "ssh-ed25519,rsa-sha2-512,rsa-sha2-256";
pub const user_keys = "ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256," ++
    "ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com," ++
    "rsa-sha2-512,rsa-sha2-256";

pub const Error = error{AlgorithmRefused};

/// What libssh does not have, and the configuration key that asks for it.
pub const Refused = struct { key: []const u8 = "", algorithm: []const u8 = "" };

/// Sets all lists on `bind`. On AlgorithmRefused `refused` says which one.
pub fn apply(bind: *libssh.Bind, config: *const Config, refused: *Refused) Error!void {
    const Item = struct { []const u8, []const u8, []const u8, []const libssh.BindOption };
    const default_ciphers = if (old_libssh.isFixed()) ciphers else ciphers_without_gcm;
    const items = [_]Item{
        .{ "kex", config.kex, kex, &.{.key_exchange} },
        .{ "ciphers", config.ciphers, default_ciphers, &.{ .ciphers_c_s, .ciphers_s_c } },
        .{ "macs", config.macs, macs, &.{ .hmac_c_s, .hmac_s_c } },
        .{ "host_key_algorithms", config.host_key_algorithms, host_keys, &.{.hostkey_algorithms} },
        .{
            "user_key_algorithms", config.user_key_algorithms,
            user_keys,             &.{.pubkey_accepted_key_types},
        },
    };
    for (items) |item| {
        const key, const own, const default, const options = item;
        refused.* = .{ .key = key };
        for (options) |option| {
            if (own.len > 0) {
                try checkEach(bind, option, own, refused);
                try set(bind, option, own);
            } else {
                try setSupported(bind, option, default);
            }
        }
    }
}

/// libssh drops names it does not know from a list without a word, but refuses a list of them.
fn checkEach(
    bind: *libssh.Bind,
    option: libssh.BindOption,
    list: []const u8,
    refused: *Refused,
) Error!void {
    var names = std.mem.splitScalar(u8, list, ',');
    while (names.next()) |name| {
        refused.algorithm = name;
        try set(bind, option, name);
    }
}

fn setSupported(bind: *libssh.Bind, option: libssh.BindOption, list: []const u8) Error!void {
    var buffer: [list_max]u8 = undefined;
    var supported = std.Io.Writer.fixed(&buffer);
    var names = std.mem.splitScalar(u8, list, ',');
    while (names.next()) |name| {
        set(bind, option, name) catch continue;
        const separator: []const u8 = if (supported.end == 0) "" else ",";
        supported.print("{s}{s}", .{ separator, name }) catch unreachable; // a part of `list`
    }
    try set(bind, option, supported.buffered());
}

const list_max = 1024;

fn set(bind: *libssh.Bind, option: libssh.BindOption, list: []const u8) Error!void {
    var buffer: [list_max]u8 = undefined;
    if (list.len == 0 or list.len >= buffer.len) return error.AlgorithmRefused;
    @memcpy(buffer[0..list.len], list);
    buffer[list.len] = 0;
    const result = libssh.ssh_bind_options_set(bind, option, &buffer);
    if (result != libssh.OK) return error.AlgorithmRefused;
}

const testing = std.testing;

test "the defaults apply, and a name that libssh lacks is refused in an own list" {
    const bind = libssh.ssh_bind_new().?;
    defer libssh.ssh_bind_free(bind);
    var refused: Refused = .{};
    try apply(bind, &.{ .repositories = "/" }, &refused);
    try apply(bind, &.{ .kex = "curve25519-sha256" }, &refused);
    inline for (.{
        .{ "rot13", "rot13" },
        .{ "aes256-ctr,rot13,aes128-ctr", "rot13" },
        .{ "aes256-ctr,", "" },
    }) |case| {
        const result = apply(bind, &.{ .ciphers = case[0] }, &refused);
        try testing.expectError(error.AlgorithmRefused, result);
        try testing.expectEqualStrings("ciphers", refused.key);
        try testing.expectEqualStrings(case[1], refused.algorithm);
    }
}
