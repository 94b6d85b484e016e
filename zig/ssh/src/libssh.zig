//! The part of libssh's C API (0.10.6 and later) that this package uses, declared by hand: a
//! cross build then needs no libssh headers. Signatures follow libssh.h, server.h and callbacks.h.

pub const Session = opaque {};
pub const Channel = opaque {};
pub const Bind = opaque {};
pub const Event = opaque {};
pub const Message = opaque {};
pub const Key = opaque {};

pub const OK: c_int = 0;
pub const ERROR: c_int = -1;
pub const AGAIN: c_int = -2;

/// Bits of `ssh_get_status` and `ssh_get_poll_flags`. The first takes WRITE_PENDING for bytes that
/// wait in libssh, the second for the wish to be called when the socket takes some, which libssh
/// has after every write.
pub const CLOSED_ERROR: c_int = 0x04;
pub const WRITE_PENDING: c_int = 0x08;

pub const AUTH_METHOD_NONE: c_int = 0x0001;
pub const AUTH_METHOD_PUBLICKEY: c_int = 0x0004;

/// `ssh_message_type`.
pub const REQUEST_AUTH: c_int = 1;
pub const REQUEST_CHANNEL_OPEN: c_int = 2;
pub const REQUEST_CHANNEL: c_int = 3;
pub const REQUEST_SERVICE: c_int = 4;
pub const REQUEST_GLOBAL: c_int = 5;

/// `ssh_message_auth_publickey_state`.
pub const PUBLICKEY_STATE_NONE: c_int = 0;
pub const PUBLICKEY_STATE_VALID: c_int = 1;

pub const LOG_NOLOG: c_int = 0;
pub const LOG_PACKET: c_int = 3;

/// `enum ssh_keytypes_e`, the ones a private host key can have.
pub const KEYTYPE_RSA: c_int = 2;
pub const KEYTYPE_ED25519: c_int = 5;

/// `enum ssh_bind_options_e`.
pub const BindOption = enum(c_int) {
    banner = 6,
    import_key = 10,
    key_exchange = 11,
    ciphers_c_s = 12,
    ciphers_s_c = 13,
    hmac_c_s = 14,
    hmac_s_c = 15,
    pubkey_accepted_key_types = 17,
    hostkey_algorithms = 18,
    process_config = 19,
    rsa_min_size = 21,
    _,
};

/// `enum ssh_options_e`.
pub const OPTIONS_COMPRESSION_C_S: c_int = 17;
pub const OPTIONS_COMPRESSION_S_C: c_int = 18;
pub const OPTIONS_REKEY_DATA: c_int = 39; // uint64_t, bytes
pub const OPTIONS_REKEY_TIME: c_int = 40; // uint32_t, seconds

pub const ChannelCallbacks = extern struct {
    size: usize = @sizeOf(ChannelCallbacks),
    userdata: ?*anyopaque = null,
    data: ?*const fn (
        *Session,
        *Channel,
        ?[*]u8,
        u32,
        c_int,
        ?*anyopaque,
    ) callconv(.c) c_int = null,
    eof: ?*const fn (*Session, *Channel, ?*anyopaque) callconv(.c) void = null,
    close: ?*const fn (*Session, *Channel, ?*anyopaque) callconv(.c) void = null,
    signal: ?*const anyopaque = null,
    exit_status: ?*const anyopaque = null,
    exit_signal: ?*const anyopaque = null,
    pty_request: ?*const anyopaque = null,
    shell_request: ?*const fn (*Session, *Channel, ?*anyopaque) callconv(.c) c_int = null,
    auth_agent_request: ?*const anyopaque = null,
    x11_request: ?*const anyopaque = null,
    pty_window_change: ?*const anyopaque = null,
    exec_request: ?*const fn (
        *Session,
        *Channel,
        ?[*:0]const u8,
        ?*anyopaque,
    ) callconv(.c) c_int = null,
    env_request: ?*const fn (
        *Session,
        *Channel,
        ?[*:0]const u8,
        ?[*:0]const u8,
        ?*anyopaque,
    ) callconv(.c) c_int = null,
    subsystem_request: ?*const anyopaque = null,
    write_wontblock: ?*const anyopaque = null,
};

pub const ServerCallbacks = extern struct {
    size: usize = @sizeOf(ServerCallbacks),
    userdata: ?*anyopaque = null,
    auth_password: ?*const anyopaque = null,
    auth_none: ?*const anyopaque = null,
    auth_gssapi_mic: ?*const anyopaque = null,
    auth_pubkey: ?*const anyopaque = null,
    service_request: ?*const anyopaque = null,
    channel_open_request_session: ?*const fn (
        *Session,
        ?*anyopaque,
    ) callconv(.c) ?*Channel = null,
    gssapi_select_oid: ?*const anyopaque = null,
    gssapi_accept_sec_ctx: ?*const anyopaque = null,
    gssapi_verify_mic: ?*const anyopaque = null,
};

/// `struct ssh_counter_struct`; libssh adds to what we own.
pub const Counter = extern struct {
    in_bytes: u64 = 0,
    out_bytes: u64 = 0,
    in_packets: u64 = 0,
    out_packets: u64 = 0,
};

pub const MessageCallback = *const fn (*Session, *Message, ?*anyopaque) callconv(.c) c_int;
pub const LogCallback = *const fn (
    priority: c_int,
    function: [*:0]const u8,
    text: [*:0]const u8,
    userdata: ?*anyopaque,
) callconv(.c) void;

pub extern fn ssh_init() c_int;
pub extern fn ssh_version(required: c_int) ?[*:0]const u8;
pub extern fn ssh_get_error(object: *anyopaque) [*:0]const u8;
pub extern fn ssh_set_log_level(level: c_int) c_int;
pub extern fn ssh_set_log_callback(callback: LogCallback) c_int;

pub extern fn ssh_bind_new() ?*Bind;
pub extern fn ssh_bind_free(bind: *Bind) void;
pub extern fn ssh_bind_options_set(bind: *Bind, option: BindOption, value: ?*const anyopaque) c_int;
pub extern fn ssh_bind_accept_fd(bind: *Bind, session: *Session, fd: c_int) c_int;

pub extern fn ssh_new() ?*Session;
pub extern fn ssh_free(session: *Session) void;
pub extern fn ssh_disconnect(session: *Session) void;
pub extern fn ssh_options_set(session: *Session, option: c_int, value: ?*const anyopaque) c_int;
pub extern fn ssh_set_blocking(session: *Session, blocking: c_int) void;
pub extern fn ssh_get_status(session: *Session) c_int;
pub extern fn ssh_get_poll_flags(session: *Session) c_int;
pub extern fn ssh_is_connected(session: *Session) c_int;
pub extern fn ssh_get_disconnect_message(session: *Session) ?[*:0]const u8;
pub extern fn ssh_session_set_disconnect_message(session: *Session, message: [*:0]const u8) c_int;
pub extern fn ssh_set_counters(session: *Session, socket: ?*Counter, raw: ?*Counter) void;
pub extern fn ssh_handle_key_exchange(session: *Session) c_int;
pub extern fn ssh_set_auth_methods(session: *Session, methods: c_int) void;
pub extern fn ssh_set_server_callbacks(session: *Session, callbacks: *ServerCallbacks) c_int;
pub extern fn ssh_set_message_callback(
    session: *Session,
    callback: ?MessageCallback,
    userdata: ?*anyopaque,
) void;
pub extern fn ssh_send_keepalive(session: *Session) c_int;
pub extern fn ssh_send_ignore(session: *Session, text: [*:0]const u8) c_int;

pub extern fn ssh_event_new() ?*Event;
pub extern fn ssh_event_free(event: *Event) void;
pub extern fn ssh_event_add_session(event: *Event, session: *Session) c_int;
pub extern fn ssh_event_remove_session(event: *Event, session: *Session) c_int;
pub extern fn ssh_event_dopoll(event: *Event, timeout_ms: c_int) c_int;

pub extern fn ssh_message_get(session: *Session) ?*Message;
pub extern fn ssh_message_free(message: *Message) void;
pub extern fn ssh_message_type(message: *Message) c_int;
pub extern fn ssh_message_subtype(message: *Message) c_int;
pub extern fn ssh_message_reply_default(message: *Message) c_int;
pub extern fn ssh_message_service_service(message: *Message) ?[*:0]const u8;
pub extern fn ssh_message_service_reply_success(message: *Message) c_int;
pub extern fn ssh_message_auth_user(message: *Message) ?[*:0]const u8;
pub extern fn ssh_message_auth_pubkey(message: *Message) ?*Key;
pub extern fn ssh_message_auth_publickey_state(message: *Message) c_int;
pub extern fn ssh_message_auth_reply_pk_ok_simple(message: *Message) c_int;
pub extern fn ssh_message_auth_reply_success(message: *Message, partial: c_int) c_int;
pub extern fn ssh_message_channel_request_subsystem(message: *Message) ?[*:0]const u8;

pub extern fn ssh_channel_new(session: *Session) ?*Channel;
pub extern fn ssh_channel_free(channel: *Channel) void;
pub extern fn ssh_channel_close(channel: *Channel) c_int;
pub extern fn ssh_channel_send_eof(channel: *Channel) c_int;
pub extern fn ssh_channel_is_open(channel: *Channel) c_int;
pub extern fn ssh_channel_poll(channel: *Channel, is_stderr: c_int) c_int;
pub extern fn ssh_channel_window_size(channel: *Channel) u32;
pub extern fn ssh_channel_write(channel: *Channel, data: [*]const u8, len: u32) c_int;
pub extern fn ssh_channel_write_stderr(channel: *Channel, data: [*]const u8, len: u32) c_int;
pub extern fn ssh_channel_read_timeout(
    channel: *Channel,
    dest: [*]u8,
    count: u32,
    is_stderr: c_int,
    timeout_ms: c_int,
) c_int;
pub extern fn ssh_channel_request_send_exit_status(channel: *Channel, status: c_int) c_int;
pub extern fn ssh_channel_request_send_exit_signal(
    channel: *Channel,
    signal: [*:0]const u8,
    core: c_int,
    message: [*:0]const u8,
    language: [*:0]const u8,
) c_int;
pub extern fn ssh_add_channel_callbacks(channel: *Channel, callbacks: *ChannelCallbacks) c_int;
pub extern fn ssh_remove_channel_callbacks(channel: *Channel, callbacks: *ChannelCallbacks) c_int;

pub extern fn ssh_key_free(key: *Key) void;
pub extern fn ssh_key_dup(key: *const Key) ?*Key;
pub extern fn ssh_key_type(key: *const Key) c_int;
pub extern fn ssh_key_type_to_char(key_type: c_int) ?[*:0]const u8;
pub extern fn ssh_pki_generate(key_type: c_int, parameter: c_int, key: *?*Key) c_int;
pub extern fn ssh_pki_export_pubkey_base64(key: *const Key, base64: *?[*:0]u8) c_int;
pub extern fn ssh_pki_export_privkey_file(
    key: *const Key,
    passphrase: ?[*:0]const u8,
    auth: ?*const anyopaque,
    auth_data: ?*anyopaque,
    path: [*:0]const u8,
) c_int;
pub extern fn ssh_pki_import_privkey_base64(
    text: [*:0]const u8,
    passphrase: ?[*:0]const u8,
    auth: ?*const anyopaque,
    auth_data: ?*anyopaque,
    key: *?*Key,
) c_int;
pub extern fn ssh_string_free_char(text: [*:0]u8) void;
