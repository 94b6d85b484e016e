//! Hands typed bytes to the child and records them. What the child does not take now waits in
//! the queue of the source. What is typed at a password prompt is not recorded.

const std = @import("std");
const posix = std.posix;
const pty = @import("pty.zig");
const InputQueue = @import("input_queue.zig").InputQueue;
const Recorder = @import("asciicast.zig").Recorder;

pub const Typing = struct {
    master: posix.fd_t,
    recorder: *Recorder,
    /// False when the user wants no input recorded at all.
    record: bool,

    /// Passes `bytes` on, for which `queue` has room.
    pub fn put(typing: Typing, now_us: u64, bytes: []const u8, queue: *InputQueue) void {
        const taken = if (queue.isEmpty()) typing.write(now_us, bytes, queue) else 0;
        queue.push(bytes[taken..]);
    }

    /// The child can take something of what waits.
    pub fn proceed(typing: Typing, now_us: u64, queue: *InputQueue) void {
        queue.consume(typing.write(now_us, queue.slice(), queue));
    }

    /// Nothing will complete a character that `queue` saw the beginning of.
    pub fn end(typing: Typing, now_us: u64, queue: *InputQueue) void {
        if (queue.isEmpty()) typing.recorder.endInput(now_us, &queue.carry);
    }

    fn write(typing: Typing, now_us: u64, bytes: []const u8, queue: *InputQueue) usize {
        // The prompt may appear, or end, while the bytes are on their way.
        var secret = pty.asksForPassword(typing.master);
        // No room, or nobody has the terminal open at the moment: they wait.
        const n = posix.write(typing.master, bytes) catch 0;
        secret = secret or pty.asksForPassword(typing.master);
        if (typing.record and !secret) {
            typing.recorder.input(now_us, bytes[0..n], &queue.carry);
        }
        return n;
    }
};

const testing = std.testing;

test "what is typed arrives and is recorded; a password only arrives" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    const disk = try tmp.dir.createFile("cast", .{});
    defer disk.close();
    const recorder = try testing.allocator.create(Recorder);
    defer testing.allocator.destroy(recorder);
    recorder.init(disk.handle, 0, .{ .cols = 80, .rows = 24 }, 0);
    const pair: pty.Pty = try .open(.{ .cols = 80, .rows = 24 });
    defer pair.close();
    const typing: Typing = .{ .master = pair.master, .recorder = recorder, .record = true };
    var queue: InputQueue = .{};
    var line: [64]u8 = undefined;

    typing.put(0, "name\n", &queue);
    try testing.expectEqualStrings("name\n", line[0..try posix.read(pair.slave, &line)]);
    var attributes = try posix.tcgetattr(pair.slave);
    attributes.lflag.ECHO = false;
    try posix.tcsetattr(pair.slave, .NOW, attributes);
    typing.put(0, "secret\n", &queue);
    try testing.expectEqualStrings("secret\n", line[0..try posix.read(pair.slave, &line)]);

    recorder.flush();
    var buffer: [256]u8 = undefined;
    const text = try tmp.dir.readFile("cast", &buffer);
    try testing.expectEqualStrings("[0.000000,\"i\",\"name\\n\"]\n", text);
}

test "a child that does not read fills the queue, and gets all in order later" {
    var tmp = testing.tmpDir(.{});
    defer tmp.cleanup();
    const disk = try tmp.dir.createFile("cast", .{});
    defer disk.close();
    const recorder = try testing.allocator.create(Recorder);
    defer testing.allocator.destroy(recorder);
    recorder.init(disk.handle, 0, .{ .cols = 80, .rows = 24 }, 0);
    const pair: pty.Pty = try .open(.{ .cols = 80, .rows = 24 });
    defer pair.close();
    var attributes = try posix.tcgetattr(pair.slave);
    attributes.lflag.ICANON = false;
    attributes.lflag.ECHO = false;
    try posix.tcsetattr(pair.slave, .NOW, attributes);
    const typing: Typing = .{ .master = pair.master, .recorder = recorder, .record = false };
    var queue: InputQueue = .{};

    var typed: usize = 0;
    while (queue.isEmpty()) : (typed += 1000) typing.put(0, "0123456789" ** 100, &queue);
    var received: usize = 0;
    var buffer: [4096]u8 = undefined;
    while (received < typed) {
        for (buffer[0..try posix.read(pair.slave, &buffer)]) |byte| {
            try testing.expectEqual('0' + @as(u8, @intCast(received % 10)), byte);
            received += 1;
        }
        typing.proceed(0, &queue);
    }
    try testing.expect(queue.isEmpty());
}
