//! All tests of the package.

test {
    _ = @import("algorithms.zig");
    _ = @import("config.zig");
    _ = @import("counters.zig");
    _ = @import("decisions.zig");
    _ = @import("descriptor.zig");
    _ = @import("events.zig");
    _ = @import("fifo.zig");
    _ = @import("git_command.zig");
    _ = @import("git_process.zig");
    _ = @import("host_key.zig");
    _ = @import("key_table.zig");
    _ = @import("keys_json.zig");
    _ = @import("lib.zig");
    _ = @import("limits.zig");
    _ = @import("networks.zig");
    _ = @import("poller.zig");
    _ = @import("process.zig");
    _ = @import("pkt_line.zig");
    _ = @import("proxy_protocol.zig");
    _ = @import("public_key.zig");
    _ = @import("push.zig");
    _ = @import("push_report.zig");
    _ = @import("push_request.zig");
    _ = @import("pushes.zig");
    _ = @import("repository.zig");
    _ = @import("rules.zig");
}
