//! Compiles libssh's own sources into a static library: the server half, on libcrypto, without
//! GSSAPI, SFTP, compression, FIDO devices, DH group exchange and the running of commands.
//!
//! Release wheels are made with it (build_hooks/release). A build from source uses the system's
//! libssh and nothing of this file.

const std = @import("std");

/// The release that ships; the file list is its. What sources of another version say of themselves
/// stays what they say: known flaws are worked around by version, see libssh.zig.
const shipped = std.SemanticVersion{ .major = 0, .minor = 12, .patch = 2 };

pub const Paths = struct {
    /// libssh's unpacked source tree.
    libssh: std.Build.LazyPath,
    /// A folder with lib/libcrypto.a and include/openssl for the same target.
    libcrypto: std.Build.LazyPath,
};

/// The paths given by -Dlibssh and -Dlibcrypto, null where neither is given.
pub fn paths(b: *std.Build) ?Paths {
    const libssh = b.option(
        []const u8,
        "libssh",
        b.fmt("Link libssh statically: its source tree, {f}", .{shipped}),
    );
    const libcrypto = b.option(
        []const u8,
        "libcrypto",
        "Folder with lib/libcrypto.a and include/ for the target; goes with -Dlibssh",
    );
    if ((libssh == null) != (libcrypto == null)) {
        std.debug.panic("-Dlibssh and -Dlibcrypto go together: give both or neither", .{});
    }
    return .{
        .libssh = .{ .cwd_relative = libssh orelse return null },
        .libcrypto = .{ .cwd_relative = libcrypto.? },
    };
}

/// libssh with hidden symbols, and the libcrypto that it needs.
pub const Archives = struct {
    libssh: *std.Build.Step.Compile,
    libcrypto: std.Build.LazyPath,

    pub fn link(archives: Archives, module: *std.Build.Module) void {
        module.linkLibrary(archives.libssh);
        module.addObjectFile(archives.libcrypto);
    }
};

pub fn build(b: *std.Build, target: std.Build.ResolvedTarget, from: Paths) Archives {
    const version = versionOf(b, from.libssh);
    const module = b.createModule(.{
        .target = target,
        // Stack protectors and fortified calls, but not Zig's trap on undefined behaviour: a
        // harmless one in somebody else's C must not end a host process.
        .optimize = .ReleaseSafe,
        .sanitize_c = .off,
        .strip = true,
        .pic = true,
        .link_libc = true,
    });
    const config = b.addConfigHeader(.{ .include_path = "config.h" }, .{
        .PACKAGE = "libssh",
        .VERSION = b.fmt("{f}", .{version}),
        .SYSCONFDIR = "/etc",
        .BINARYDIR = "",
        .SOURCEDIR = "",
        .GLOBAL_CONF_DIR = "/etc/ssh",
        .GLOBAL_BIND_CONFIG = "/etc/ssh/libssh_server_config",
        .GLOBAL_CLIENT_CONFIG = "/etc/ssh/ssh_config",
        .HAVE_ARPA_INET_H = 1,
        .HAVE_CLOCK_GETTIME = 1,
        .HAVE_COMPILER__FUNC__ = 1,
        .HAVE_CONSTRUCTOR_ATTRIBUTE = 1,
        .HAVE_DESTRUCTOR_ATTRIBUTE = 1,
        .HAVE_ECC = 1,
        .HAVE_EXPLICIT_BZERO = flag(!target.result.os.tag.isDarwin()),
        .HAVE_FALLTHROUGH_ATTRIBUTE = 1,
        .HAVE_GCC_THREAD_LOCAL_STORAGE = 1,
        .HAVE_GCC_VOLATILE_MEMORY_PROTECTION = 1,
        .HAVE_GETADDRINFO = 1,
        .HAVE_HTONLL = flag(target.result.os.tag.isDarwin()),
        .HAVE_IFADDRS_H = 1,
        .HAVE_ISBLANK = 1,
        .HAVE_LIBCRYPTO = 1,
        .HAVE_MEMSET_S = flag(target.result.os.tag.isDarwin()),
        .HAVE_MLKEM1024 = 1,
        .HAVE_NTOHLL = flag(target.result.os.tag.isDarwin()),
        .HAVE_OPENSSL_AES_H = 1,
        .HAVE_OPENSSL_ECC = 1,
        .HAVE_OPENSSL_ECDH_H = 1,
        .HAVE_OPENSSL_ECDSA_H = 1,
        .HAVE_OPENSSL_EC_H = 1,
        .HAVE_OPENSSL_EVP_CHACHA20 = 1,
        .HAVE_OPENSSL_EVP_KDF_CTX = 1,
        .HAVE_OPENSSL_MLKEM = 1,
        .HAVE_POLL = 1,
        .HAVE_PTHREAD = 1,
        .HAVE_SELECT = 1,
        .HAVE_SNPRINTF = 1,
        .HAVE_STDINT_H = 1,
        .HAVE_STRNDUP = 1,
        .HAVE_STRTOULL = 1,
        .HAVE_SYS_TIME_H = 1,
        .HAVE_TERMIOS_H = 1,
        .HAVE_UNISTD_H = 1,
        .HAVE_UNUSED_ATTRIBUTE = 1,
        .HAVE_VSNPRINTF = 1,
        .WITH_SERVER = 1,
    });
    const versions = b.addConfigHeader(.{
        .style = .{ .cmake = from.libssh.path(b, "include/libssh/libssh_version.h.cmake") },
        .include_path = "libssh/libssh_version.h",
    }, .{
        .libssh_VERSION_MAJOR = @as(i64, @intCast(version.major)),
        .libssh_VERSION_MINOR = @as(i64, @intCast(version.minor)),
        .libssh_VERSION_PATCH = @as(i64, @intCast(version.patch)),
    });
    module.addConfigHeader(config);
    module.addConfigHeader(versions);
    module.addIncludePath(from.libssh.path(b, "include"));
    module.addIncludePath(from.libssh.path(b, "src"));
    module.addIncludePath(from.libcrypto.path(b, "include"));
    const sources = from.libssh.path(b, "src");
    module.addCSourceFiles(.{ .root = sources, .files = &files, .flags = &flags });
    // libssh's own function gets another name, and touched.c has that one: whatever verifies a
    // signature asks it, and without the rename nothing links.
    module.addCSourceFile(.{
        .file = sources.path(b, "pki.c"),
        .flags = &(flags ++ .{"-Dssh_pki_signature_verify=plue_ssh_untouched_verify"}),
    });
    module.addCSourceFile(.{ .file = b.path("touched.c"), .flags = &flags });
    return .{
        .libssh = b.addLibrary(.{ .name = "ssh", .linkage = .static, .root_module = module }),
        .libcrypto = from.libcrypto.path(b, "lib/libcrypto.a"),
    };
}

/// What the sources call themselves: `project(libssh VERSION 0.12.2 ...` in CMakeLists.txt.
fn versionOf(b: *std.Build, libssh: std.Build.LazyPath) std.SemanticVersion {
    const path = b.pathJoin(&.{ libssh.cwd_relative, "CMakeLists.txt" });
    const text = std.fs.cwd().readFileAlloc(b.allocator, path, 1 << 20) catch |err|
        std.debug.panic("{s}: {t}; -Dlibssh is libssh's unpacked source tree", .{ path, err });
    const before = "project(libssh VERSION ";
    const start = std.mem.indexOf(u8, text, before) orelse
        std.debug.panic("{s} has no line '{s}...'", .{ path, before });
    const rest = text[start + before.len ..];
    const end = std.mem.indexOfNone(u8, rest, "0123456789.") orelse rest.len;
    return std.SemanticVersion.parse(rest[0..end]) catch
        std.debug.panic("{s}: '{s}' is no version", .{ path, rest[0..end] });
}

/// A macro that is 1 or not defined at all.
fn flag(is_set: bool) ?u1 {
    return if (is_set) 1 else null;
}

const flags = [_][]const u8{
    "-std=gnu99",
    "-DLIBSSH_STATIC",
    // Takes the attribute visibility("default") out of libssh's declarations, which no switch of
    // its own does outside Windows.
    "-Dvisibility(x)=",
    "-D_GNU_SOURCE",
    "-D_FORTIFY_SOURCE=2",
    "-fvisibility=hidden",
    // LLVM's order of merging scalars follows the addresses of its own objects: with it, one in
    // eight compilations of kex.c comes to other bytes (Zig 0.15.2).
    "-fno-slp-vectorize",
    // Bytes per read of a socket, libssh's own switch. Measured against its default of 4096, 12
    // rounds with 180 MB: a push takes the server 17 % less CPU time and a clone 4 % less; the
    // rates differ by less than from round to round.
    "-DMAX_BUF_SIZE=65536",
    "-w", // what compilers think of libssh is not for who builds this
};

const files = [_][]const u8{
    "agent.c",
    "auth.c",
    "base64.c",
    "bignum.c",
    "bind.c",
    "bind_config.c",
    "buffer.c",
    "callbacks.c",
    "channels.c",
    "client.c",
    "config.c",
    "config_parser.c",
    "connect.c",
    "connector.c",
    "crypto_common.c",
    "curve25519.c",
    "curve25519_crypto.c",
    "dh.c",
    "dh_crypto.c",
    "ecdh.c",
    "ecdh_crypto.c",
    "error.c",
    "external/bcrypt_pbkdf.c",
    "external/blowfish.c",
    "external/sntrup761.c",
    "getpass.c",
    "getrandom_crypto.c",
    "gzip.c",
    "hybrid_mlkem.c",
    "init.c",
    "kdf.c",
    "kex.c",
    "known_hosts.c",
    "knownhosts.c",
    "legacy.c",
    "libcrypto.c",
    "log.c",
    "match.c",
    "md_crypto.c",
    "messages.c",
    "misc.c",
    "mlkem.c",
    "mlkem_crypto.c",
    "options.c",
    "packet.c",
    "packet_cb.c",
    "packet_crypt.c",
    "pcap.c",
    "pki_container_openssh.c",
    "pki_context.c",
    "pki_crypto.c",
    "pki_ed25519_common.c",
    "poll.c",
    "scp.c",
    "server.c",
    "session.c",
    "sntrup761.c",
    "socket.c",
    "string.c",
    "threads.c",
    "threads/libcrypto.c",
    "threads/noop.c",
    "threads/pthread.c",
    "token.c",
    "ttyopts.c",
    "wrapper.c",
};
