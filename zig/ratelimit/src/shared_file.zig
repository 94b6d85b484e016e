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
    /// Of another boot id, by the clock of which somebody still counts in it.
    InUse,
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
        const is_new = stat.size == 0 or
            (stat.size == wanted.file_bytes and !try hasContent(fd));
        // What is checked is a copy, and none of its numbers is read from the file again.
        const found = if (is_new) null else try readHeader(fd);
        if (found) |*header| try wanted.check(header, @intCast(stat.size));
        const is_current = found != null and std.mem.eql(u8, &found.?.boot_id, &boot_id);
        // To begin anew would take the counts from under those who have it open. With another boot
        // id some may: a container can be given one of its own.
        if (!is_current and try hasProcesses(fd))
            return if (is_new) error.Format else error.InUse;
        if (is_new) try allocate(fd, wanted.file_bytes);
        const map = try mapFile(fd, @intCast(wanted.file_bytes));
        errdefer posix.munmap(map);

        const seed = if (found) |*header| header.seed else fresh_seed;
        if (!is_current) {
            if (!is_new) @memset(map[heads_offset..], 0);
            wanted.write(@ptrCast(map.ptr), seed, boot_id);
        }
        shared.* = .{ .fd = fd, .map = map, .me = try register(fd) };
        shared.attach(table, epoch, wanted, seed);
    }

    fn attach(
        shared: *SharedFile,
        table: *Table,
        epoch: u32,
        geometry: Geometry,
        seed: key_hash.Seed,
    ) void {
        const header: *Header = @ptrCast(shared.map.ptr);
        const heads: [*]shard_.Head = @ptrCast(@alignCast(shared.map[heads_offset..]));
        const buckets: [*]shard_.Bucket = @ptrCast(@alignCast(shared.map[buckets_offset..]));
        const per_shard = geometry.buckets_per_shard;
        table.hasher.init(seed);
        table.max_keys = geometry.max_keys;
        table.sharing = .{ .context = shared, .isAlive = isAlive, .me = shared.me };
        for (&table.places, 0..) |*place, i| {
            _ = place.lock.acquire(1, null);
            defer place.lock.release();
            place.shard = .{
                .head = &heads[i],
                .buckets = buckets[i * per_shard ..][0..per_shard],
                .quota = .{ .total = &header.total, .max = geometry.max_keys },
                .allocator = null,
            };
            place.epoch = epoch;
        }
        shared.releaseInherited(table);
        shared.mend(table);
    }

    /// Counts that no shard can have are of a damaged file, and taken anew.
    fn mend(shared: *SharedFile, table: *Table) void {
        var slots: usize = 0;
        var found = false;
        for (&table.places) |*place| {
            const shard = &place.shard;
            slots += shard.slotCount();
            if (@atomicLoad(u32, &shard.head.used, .monotonic) <= shard.slotCount()) continue;
            _ = shard.head.lock.acquire(shared.me, &table.sharing.?);
            defer shard.head.lock.release();
            shard.recover();
            found = true;
        }
        const total = table.places[0].shard.quota.total.load(.monotonic);
        if (found or total > slots) table.recount();
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
    /// says the parent lives, must not be kept open here. False: the child must not use the table,
    /// and `close` is still to be called.
    pub fn becomeChild(shared: *SharedFile, table: *Table) bool {
        var path: [32]u8 = undefined;
        const own = std.fmt.bufPrintZ(&path, "/dev/fd/{d}", .{shared.fd}) catch return false;
        const fd = posix.openZ(own, .{ .ACCMODE = .RDWR, .CLOEXEC = true }, 0) catch return false;
        // The parent's file goes last: without a lock on it for a moment, it would seem that nobody
        // has it open.
        shared.me = register(fd) catch {
            posix.close(fd);
            return false;
        };
        posix.close(shared.fd);
        shared.fd = fd;
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

    /// Of a table without keys: a new one, or one whose times are of a clock that is gone.
    fn write(
        geometry: Geometry,
        header: *Header,
        seed: key_hash.Seed,
        boot_id: [clock.boot_id_bytes]u8,
    ) void {
        // The magic goes first and comes last: a process killed in between leaves a file that the
        // next one makes anew.
        @as(*volatile [magic.len]u8, &header.magic).* = @splat(0);
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
        var complete = header.*;
        complete.magic = magic.*;
        header.checksum = complete.sum();
        @as(*volatile [magic.len]u8, &header.magic).* = magic.*;
    }

    fn check(wanted: Geometry, header: *const Header, file_bytes: u64) OpenError!void {
        if (!std.mem.eql(u8, &header.magic, magic)) return error.Format;
        if (header.version != version) return error.Format;
        if (header.checksum != header.sum()) return error.Format;
        if (header.slot_bytes != @sizeOf(shard_.Slot)) return error.Format;
        if (header.max_keys != wanted.max_keys) return error.Size;
        if (header.buckets_per_shard != wanted.buckets_per_shard) return error.Format;
        if (header.file_bytes != wanted.file_bytes) return error.Format;
        if (file_bytes != wanted.file_bytes) return error.Format;
    }
};

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

fn readHeader(fd: posix.fd_t) OpenError!?Header {
    var header: Header = undefined;
    const bytes = std.mem.asBytes(&header);
    const read_bytes = posix.pread(fd, bytes, 0) catch return error.System;
    return if (read_bytes == bytes.len) header else error.Format;
}

/// As posix.mmap, which takes some errors for impossible; a file system may know better.
pub fn mapFile(fd: posix.fd_t, bytes: usize) OpenError![]align(std.heap.page_size_min) u8 {
    const access = posix.PROT.READ | posix.PROT.WRITE;
    const address = std.c.mmap(null, bytes, access, .{ .TYPE = .SHARED }, fd, 0);
    if (address == std.c.MAP_FAILED) return error.System;
    return @as([*]align(std.heap.page_size_min) u8, @ptrCast(@alignCast(address)))[0..bytes];
}

fn allocate(fd: posix.fd_t, bytes: u64) OpenError!void {
    if (builtin.os.tag != .linux) {
        posix.ftruncate(fd, bytes) catch return error.System;
        return;
    }
    // What a maker that was killed left behind goes first.
    posix.ftruncate(fd, 0) catch return error.System;
    // Of the C library: posix.errno sees no error in what the raw system call gives.
    while (true) switch (posix.errno(std.c.fallocate(fd, 0, 0, @intCast(bytes)))) {
        .SUCCESS => return,
        .INTR => continue,
        .OPNOTSUPP => {
            posix.ftruncate(fd, bytes) catch return error.System;
            return;
        },
        else => |err| {
            // What it has got so far would look like a damaged file to the next one. If not even
            // this succeeds, the error to report is the first.
            posix.ftruncate(fd, 0) catch {};
            std.c._errno().* = @intFromEnum(err);
            return error.System;
        },
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

/// Whether a process has the file open, this one's other openings included.
fn hasProcesses(fd: posix.fd_t) OpenError!bool {
    var lock = byteLock(1, posix.F.WRLCK);
    lock.len = max_processes;
    const result = posix.system.fcntl(fd, ofd.get, @intFromPtr(&lock));
    if (posix.errno(result) != .SUCCESS) return error.System;
    return lock.type != posix.F.UNLCK;
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
