//! A table in a memory-mapped file, for all processes of a host: layout, opening, and finding out
//! which process has died. The table's code is the private table's.
//!
//! Layout: a page with `Header`, the 64 shard heads, the buckets shard by shard. The size is fixed
//! when the file is made, and its blocks are allocated then: a full disk is an error, not a SIGBUS
//! later.
//!
//! Processes are told apart by record locks on bytes far behind the file's end, one byte per open
//! file (open file description locks: fcntl(2)). The kernel drops them when a process ends, however
//! it ends, also in another container, and never reuses one that lives, as it does process ids.
const std = @import("std");
const builtin = @import("builtin");
const posix = std.posix;
const key_hash = @import("key_hash.zig");
const clock = @import("clock.zig");
const shard_ = @import("shard.zig");
const table_ = @import("table.zig");
const Table = table_.Table;

pub const max_processes = 4096;
pub const max_keys_limit = 1 << 26;

pub const OpenError = error{
    /// The system refused; `posix_error` of the report says why.
    System,
    /// Not a regular file, or a symbolic link.
    NotAFile,
    NotOwner,
    /// Others than the owner may read or write the file.
    Mode,
    /// No file of this library, of another version, or damaged.
    Format,
    /// Made for another number of keys.
    Size,
    TooManyProcesses,
    NoBootId,
};

const magic = "plue ratelimit\n\x00";
const version = 1;
const page_bytes = 4096;

const Header = extern struct {
    magic: [16]u8,
    version: u32,
    max_keys: u32,
    buckets_per_shard: u32,
    slot_bytes: u32,
    file_bytes: u64,
    seed: key_hash.Seed,
    boot_id: [clock.boot_id_bytes]u8,
    reserved: u32,
    /// Of all fields above.
    checksum: u64,
    /// Entries in all shards; changes all the time.
    total: std.atomic.Value(u32),

    fn sum(header: *const Header) u64 {
        const bytes = std.mem.asBytes(header)[0..@offsetOf(Header, "checksum")];
        return std.hash.XxHash3.hash(0, bytes);
    }
};

const heads_offset = page_bytes;
const buckets_offset = heads_offset + table_.shard_count * @sizeOf(shard_.Head);

comptime {
    std.debug.assert(@sizeOf(Header) <= page_bytes);
    std.debug.assert(buckets_offset % std.atomic.cache_line == 0);
}

/// Byte locks, from here on: opening, then one byte for each process.
const lock_offset: i64 = 1 << 40;

pub const SharedFile = struct {
    fd: posix.fd_t,
    map: []align(std.heap.page_size_min) u8,
    /// Index of this process's lock byte, 1 or more; also its name in the shards' locks.
    me: u32,

    /// Opens or makes the file at `path` and opens `table` in it. `shared` must stay where it is
    /// until `close`.
    pub fn open(
        shared: *SharedFile,
        table: *Table,
        epoch: u32,
        path: [:0]const u8,
        max_keys: u32,
        fresh_seed: key_hash.Seed,
        boot_id: [clock.boot_id_bytes]u8,
    ) OpenError!void {
        std.debug.assert(max_keys > 0 and max_keys <= max_keys_limit);
        const fd = posix.openZ(path, .{
            .ACCMODE = .RDWR,
            .CREAT = true,
            .CLOEXEC = true,
            .NOFOLLOW = true,
            // A pipe without a reader would block.
            .NONBLOCK = true,
        }, 0o600) catch |err| return switch (err) {
            error.SymLinkLoop => error.NotAFile,
            error.IsDir, error.NoDevice => error.NotAFile,
            else => error.System,
        };
        errdefer posix.close(fd);
        try checkFile(fd);

        try lockByte(fd, 0, .wait);
        defer unlockByte(fd, 0);
        const wanted = Geometry.of(max_keys);
        const stat = posix.fstat(fd) catch return error.System;
        const is_new = stat.size == 0 or !try hasContent(fd);
        if (is_new) try allocate(fd, wanted.file_bytes);
        if (!is_new and stat.size < page_bytes) return error.Format;
        const map_bytes: usize = if (is_new) wanted.file_bytes else @intCast(stat.size);
        const map = posix.mmap(
            null,
            map_bytes,
            posix.PROT.READ | posix.PROT.WRITE,
            .{ .TYPE = .SHARED },
            fd,
            0,
        ) catch return error.System;
        errdefer posix.munmap(map);

        const header: *Header = @ptrCast(map.ptr);
        if (is_new) {
            wanted.write(header, fresh_seed, boot_id);
        } else {
            try wanted.check(header, map.len);
            if (!std.mem.eql(u8, &header.boot_id, &boot_id)) restart(header, map, boot_id);
        }
        shared.* = .{ .fd = fd, .map = map, .me = try register(fd) };
        shared.attach(table, epoch);
    }

    fn attach(shared: *SharedFile, table: *Table, epoch: u32) void {
        const header: *Header = @ptrCast(shared.map.ptr);
        const heads: [*]shard_.Head = @ptrCast(@alignCast(shared.map[heads_offset..]));
        const buckets: [*]shard_.Bucket = @ptrCast(@alignCast(shared.map[buckets_offset..]));
        const per_shard = header.buckets_per_shard;
        table.hasher.init(header.seed);
        table.max_keys = header.max_keys;
        table.sharing = .{ .context = shared, .isAlive = isAlive, .me = shared.me };
        for (&table.places, 0..) |*place, i| {
            _ = place.lock.acquire(1, null);
            defer place.lock.release();
            place.shard = .{
                .head = &heads[i],
                .buckets = buckets[i * per_shard ..][0..per_shard],
                .quota = .{ .total = &header.total, .max = header.max_keys },
                .allocator = null,
            };
            place.epoch = epoch;
        }
        shared.releaseInherited(table);
    }

    /// Locks that carry this process's number are of a dead one that had it before.
    fn releaseInherited(shared: *SharedFile, table: *Table) void {
        var found = false;
        for (&table.places) |*place| {
            const head = place.shard.head;
            if (head.lock.owner.load(.acquire) != shared.me) continue;
            place.shard.recover();
            head.lock.release();
            found = true;
        }
        if (found) table.recount();
    }

    /// After `Table.close`.
    pub fn close(shared: *SharedFile) void {
        posix.munmap(shared.map);
        posix.close(shared.fd);
    }

    /// In a child right after fork(): a name of its own. The parent's open file, and the lock that
    /// says the parent lives, must not be kept open here. False: the child must not use the table.
    pub fn becomeChild(shared: *SharedFile, table: *Table) bool {
        var path: [32]u8 = undefined;
        const own = std.fmt.bufPrintZ(&path, "/dev/fd/{d}", .{shared.fd}) catch return false;
        const fd = posix.openZ(own, .{ .ACCMODE = .RDWR, .CLOEXEC = true }, 0) catch null;
        posix.close(shared.fd);
        shared.fd = fd orelse return false;
        shared.me = register(shared.fd) catch return false;
        table.sharing.?.me = shared.me;
        shared.releaseInherited(table);
        return true;
    }

    fn isAlive(context: *anyopaque, owner: u32) bool {
        const shared: *SharedFile = @ptrCast(@alignCast(context));
        // A number no process can have was never written by this library: the file is damaged,
        // and taking the lock over mends it.
        if (owner > max_processes) return false;
        var lock = byteLock(owner, posix.F.WRLCK);
        const result = posix.system.fcntl(shared.fd, ofd.get, @intFromPtr(&lock));
        // In doubt an owner lives.
        if (posix.errno(result) != .SUCCESS) return true;
        return lock.type != posix.F.UNLCK;
    }
};

const Geometry = struct {
    max_keys: u32,
    buckets_per_shard: u32,
    file_bytes: u64,

    /// Room for `max_keys` at four fifths full, and for shards that get more than their share:
    /// six standard deviations.
    fn of(max_keys: u32) Geometry {
        const mean = @as(f64, @floatFromInt(max_keys)) / table_.shard_count;
        const slots = (mean + 6 * @sqrt(mean)) * 1.25;
        const buckets: u32 = @intFromFloat(@ceil(slots / shard_.slots_per_bucket) + 2);
        const bucket_bytes = @as(u64, buckets) * table_.shard_count * @sizeOf(shard_.Bucket);
        return .{
            .max_keys = max_keys,
            .buckets_per_shard = buckets,
            .file_bytes = buckets_offset + bucket_bytes,
        };
    }

    fn write(
        geometry: Geometry,
        header: *Header,
        seed: key_hash.Seed,
        boot_id: [clock.boot_id_bytes]u8,
    ) void {
        header.* = .{
            .magic = @splat(0),
            .version = version,
            .max_keys = geometry.max_keys,
            .buckets_per_shard = geometry.buckets_per_shard,
            .slot_bytes = @sizeOf(shard_.Slot),
            .file_bytes = geometry.file_bytes,
            .seed = seed,
            .boot_id = boot_id,
            .reserved = 0,
            .checksum = 0,
            .total = .init(0),
        };
        // The magic last: a process killed before leaves a file that the next one makes anew.
        var complete = header.*;
        complete.magic = magic.*;
        header.checksum = complete.sum();
        @as(*volatile [16]u8, &header.magic).* = magic.*;
    }

    fn check(wanted: Geometry, header: *const Header, map_bytes: usize) OpenError!void {
        if (!std.mem.eql(u8, &header.magic, magic)) return error.Format;
        if (header.version != version) return error.Format;
        if (header.checksum != header.sum()) return error.Format;
        if (header.slot_bytes != @sizeOf(shard_.Slot)) return error.Format;
        if (header.max_keys != wanted.max_keys) return error.Size;
        if (header.buckets_per_shard != wanted.buckets_per_shard) return error.Format;
        if (header.file_bytes != wanted.file_bytes) return error.Format;
        if (map_bytes != wanted.file_bytes) return error.Format;
    }
};

/// The host was started anew since the file was used: its times are of a clock that is gone, and
/// nobody else has it open. The keys are forgotten, the seed stays.
fn restart(header: *Header, map: []u8, boot_id: [clock.boot_id_bytes]u8) void {
    @memset(map[heads_offset..], 0);
    header.total.store(0, .monotonic);
    header.boot_id = boot_id;
    header.checksum = header.sum();
}

fn checkFile(fd: posix.fd_t) OpenError!void {
    const stat = posix.fstat(fd) catch return error.System;
    if (!posix.S.ISREG(stat.mode)) return error.NotAFile;
    if (stat.uid != posix.geteuid()) return error.NotOwner;
    if (stat.mode & 0o077 != 0) return error.Mode;
}

/// False for a file whose maker was killed before it wrote the magic.
fn hasContent(fd: posix.fd_t) OpenError!bool {
    var start: [magic.len]u8 = @splat(0);
    _ = posix.pread(fd, &start, 0) catch return error.System;
    return !std.mem.allEqual(u8, &start, 0);
}

fn allocate(fd: posix.fd_t, bytes: u64) OpenError!void {
    if (builtin.os.tag != .linux) {
        posix.ftruncate(fd, bytes) catch return error.System;
        return;
    }
    // Zeroes left by a maker that was killed are taken as they are; anything else goes first.
    posix.ftruncate(fd, 0) catch return error.System;
    while (true) switch (posix.errno(std.os.linux.fallocate(fd, 0, 0, @intCast(bytes)))) {
        .SUCCESS => return,
        .INTR => continue,
        .OPNOTSUPP => {
            posix.ftruncate(fd, bytes) catch return error.System;
            return;
        },
        else => return error.System,
    };
}

// ---- record locks
// --------------------------------------------------------------------------------

/// fcntl commands for locks of the open file, not of the process; the standard library lacks them.
const ofd = switch (builtin.os.tag) {
    .linux => .{ .get = 36, .set = 37, .set_wait = 38 },
    // <sys/fcntl.h> of XNU.
    else => .{ .get = 92, .set = 90, .set_wait = 91 },
};

fn byteLock(index: u32, kind: i16) posix.Flock {
    var lock = std.mem.zeroes(posix.Flock);
    lock.type = kind;
    lock.whence = posix.SEEK.SET;
    lock.start = lock_offset + index;
    lock.len = 1;
    return lock;
}

fn lockByte(fd: posix.fd_t, index: u32, how: enum { wait, try_once }) OpenError!void {
    var lock = byteLock(index, posix.F.WRLCK);
    const command: i32 = switch (how) {
        .wait => ofd.set_wait,
        .try_once => ofd.set,
    };
    while (true) switch (posix.errno(posix.system.fcntl(fd, command, @intFromPtr(&lock)))) {
        .SUCCESS => return,
        .INTR => continue,
        .AGAIN, .ACCES => return error.TooManyProcesses,
        else => return error.System,
    };
}

fn unlockByte(fd: posix.fd_t, index: u32) void {
    var lock = byteLock(index, posix.F.UNLCK);
    // Releasing a lock that is held cannot fail; closing the file would release it too.
    _ = posix.system.fcntl(fd, ofd.set, @intFromPtr(&lock));
}

fn register(fd: posix.fd_t) OpenError!u32 {
    var index: u32 = 1;
    while (index <= max_processes) : (index += 1) {
        lockByte(fd, index, .try_once) catch |err| switch (err) {
            error.TooManyProcesses => continue,
            else => return err,
        };
        return index;
    }
    return error.TooManyProcesses;
}
