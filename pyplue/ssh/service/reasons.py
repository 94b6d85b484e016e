"""What each reason code of the server means, and what to do about it.

The codes are those of `plue_ssh_event_next` in plue_ssh.h. A client learns less than this: it is
not told, for instance, whether a repository exists that it may not read.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """Two sentences without a full stop."""

    meaning: str
    cure: str


_LIMIT = "raise it with serve --set if such load is meant, or see log --json for the address"
_PROXY = (
    "let the load balancer send it (haproxy: send-proxy-v2), or leave its address out of "
    "--proxy-protocol-from"
)
_SLOW = "see whether the database answers (doctor) and whether this machine is overloaded"
_REASONS: dict[str, dict[str, Reason]] = {
    "refused": {
        "max_connections": Reason("the server had max_connections open connections", _LIMIT),
        "max_unauthenticated": Reason(
            "max_unauthenticated connections had not logged in yet", _LIMIT
        ),
        "max_unauthenticated_per_ip": Reason(
            "that address had max_unauthenticated_per_ip connections that had not logged in",
            _LIMIT,
        ),
        "proxy_missing": Reason(
            "it came from a load balancer's address without a PROXY header", _PROXY
        ),
        "proxy_malformed": Reason("the load balancer's PROXY header made no sense", _PROXY),
        "proxy_timeout": Reason("no PROXY header came within login_grace_s", _PROXY),
        "proxy_closed": Reason(
            "the load balancer hung up before its PROXY header: often its health check",
            "nothing if it is one",
        ),
    },
    "auth_failed": {
        "wrong_user": Reason("it logged in as another user than git", "use ssh://git@HOST/..."),
        "unknown_key": Reason(
            "nobody has this key",
            "add it with key add USER, or let the client offer another one (ssh -i); compare "
            "fingerprints with ssh-keygen -l",
        ),
        "denied": Reason("the application did not accept the key", "add it with key add USER"),
        "timeout": Reason("nobody decided about the key within decision_timeout_ms", _SLOW),
        "queue_full": Reason("max_pending_decisions questions were open already", _SLOW),
        "weak_key": Reason(
            "the RSA key has fewer bits than rsa_min_bits", "make one with ssh-keygen -t ed25519"
        ),
        "key_type": Reason(
            "keys of that type are not accepted, or signed with SHA-1",
            "make one with ssh-keygen -t ed25519; old clients need an update",
        ),
        "bad_signature": Reason(
            "the client could not prove that it owns the key",
            "see whether its private and public key files belong together",
        ),
        "not_touched": Reason(
            "a security key (sk-) signed without being touched",
            "make a key without -O no-touch-required",
        ),
        "method": Reason(
            "it tried a password or the like", "only public keys log in: give it one with key add"
        ),
    },
    "command_refused": {
        "syntax": Reason("the command was no git command in good order", "use git, not a shell"),
        "service": Reason(
            "it asked for another command than git's", "use git: there is no shell, SFTP or LFS"
        ),
        "not_allowed": Reason("git archive is not enabled", "serve --set archive=true"),
        "path": Reason(
            "a repository cannot have such a name", "write ssh://git@HOST/user/repository"
        ),
        "denied": Reason(
            "the user may not do that with the repository, or it does not exist",
            "see access show and repo list, then access grant REPOSITORY USER read|write",
        ),
        "timeout": Reason("nobody decided within decision_timeout_ms", _SLOW),
        "queue_full": Reason(
            "max_pending_decisions questions, or push_queue pushes, were waiting already", _SLOW
        ),
        "not_found": Reason(
            "there is no Git repository in its place, or a symbolic link leads there",
            "repo list shows what is MISSING: bring the directory back, or repo remove it",
        ),
        "spawn": Reason("git could not be started", "see doctor; memory or processes ran out"),
        "stopping": Reason("the server was being stopped", "try again"),
        "too_many_references": Reason(
            "the push names more references than the application can be told of",
            "push in several parts",
        ),
        "resources": Reason("memory ran out", "see doctor and the system's limits"),
    },
    "request_refused": {
        "request": Reason(
            "it wanted a terminal, forwarding, SFTP or a shell",
            "only git clone, fetch and push work here",
        ),
    },
    "disconnected": {
        "kex": Reason(
            "client and server have no algorithm in common",
            "update the client; detail shows both lists, --set kex=, ciphers= and macs= widen ours",
        ),
        "login_grace": Reason(
            "it had not logged in within login_grace_s", "see its network, or raise login_grace_s"
        ),
        "max_auth_tries": Reason(
            "it was refused max_auth_tries times",
            "offer the right key alone: ssh -o IdentitiesOnly=yes -i KEY",
        ),
        "pre_auth_limit": Reason(
            "it sent more than anybody needs before logging in", "use an SSH client"
        ),
        "keepalive": Reason(
            "it was silent and did not answer keepalive_count questions",
            "see its network; raise keepalive_s for slow links",
        ),
        "exec_grace": Reason(
            "it logged in and ran nothing within exec_grace_s", "nothing, or raise exec_grace_s"
        ),
        "idle": Reason(
            "no git ran for idle_timeout_s", "nothing, or raise idle_timeout_s for ControlMaster"
        ),
        "protocol": Reason("it broke the SSH protocol", "use an SSH client; detail says more"),
        "window": Reason("it sent more than it was allowed to", "use another SSH client"),
        "resources": Reason("memory or descriptors ran out", "see doctor and the system's limits"),
    },
}
_SYSTEM = Reason("the system refused: the reason is its own word", "see doctor and its limits")


def explain(event: str, reason: str) -> Reason:
    """For any event; what is not known is the operating system's own word."""
    return _REASONS.get(event, {}).get(reason, _SYSTEM)


def codes() -> list[str]:
    """All that `reason` can be, the system's own words apart."""
    return sorted({reason for reasons in _REASONS.values() for reason in reasons})
