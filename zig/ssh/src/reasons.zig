//! Why something was refused or ended: the words of the events, and what the counters count by.

/// Before the key exchange.
pub const Refusal = enum {
    max_connections,
    max_unauthenticated,
    max_unauthenticated_per_ip,
    proxy_missing,
    proxy_malformed,
    proxy_timeout,
    proxy_closed,
    /// Memory or descriptors; the event has the system's word for it.
    resources,
};

pub const AuthFailure = enum {
    wrong_user,
    unknown_key,
    denied,
    timeout,
    queue_full,
    weak_key,
    key_type,
    bad_signature,
    /// A security key (sk-) signed without anybody's touch.
    not_touched,
    method,
};

pub const CommandRefusal = enum {
    syntax,
    service,
    path,
    denied,
    timeout,
    queue_full,
    not_found,
    not_allowed,
    spawn,
    stopping,
    too_many_references,
    resources,
};

/// Of a connection.
pub const End = enum {
    client,
    kex,
    login_grace,
    max_auth_tries,
    pre_auth_limit,
    keepalive,
    exec_grace,
    idle,
    protocol,
    window,
    resources,
    stopping,
};
