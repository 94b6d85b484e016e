"""Lets the library ask Python functions: what is not clearly a yes is a no, and logged."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pyplue import ffi
from pyplue.ssh.events import log_failure

Authenticate = Callable[[str, str], "str | None"]
Authorize = Callable[[str, str, bool], bool]

# PLUE_SSH_PRINCIPAL_MAX of the header.
PRINCIPAL_MAX = 255


class Callbacks:
    """The C function pointers of one server, kept alive for as long as the library may call."""

    def __init__(self, authenticate: Authenticate | None, authorize: Authorize | None) -> None:
        self._authenticate = authenticate
        self._authorize = authorize
        self._here = threading.local()
        self._authenticate_pointer = (
            ffi.callback(
                ("cstring", "cstring", "cstring", "ptr", "u32"), "bool", self._on_authenticate
            )
            if authenticate
            else None
        )
        self._authorize_pointer = (
            ffi.callback(("cstring", "cstring", "bool"), "bool", self._on_authorize)
            if authorize
            else None
        )

    def set(self) -> None:
        """Hands the functions to the library."""
        ffi.ssh.plue_ssh_set_authenticate_callback(self._authenticate_pointer)
        ffi.ssh.plue_ssh_set_authorize_callback(self._authorize_pointer)

    @staticmethod
    def unset() -> None:
        """Takes them back; the library calls nothing any more."""
        ffi.ssh.plue_ssh_set_authenticate_callback(None)
        ffi.ssh.plue_ssh_set_authorize_callback(None)

    def running_here(self) -> bool:
        """Whether this thread is inside one of the functions."""
        return getattr(self._here, "inside", False)

    def _on_authenticate(
        self, user: bytes, key_line: bytes, fingerprint: bytes, out: int, capacity: int
    ) -> bool:
        assert self._authenticate is not None  # noqa: S101 (for the type checker)
        self._here.inside = True
        try:
            principal = self._authenticate(user.decode(), key_line.decode())
            if principal is None:
                return False
            name = _principal(principal)
            if len(name) >= capacity:
                raise ValueError(f"a principal has at most {capacity - 1} bytes, not {len(name)}")
            ffi.write(out, name + b"\0")
        except BaseException:  # which would leave the library with whatever is in its memory
            shown = fingerprint.decode(errors="replace")
            log_failure("authenticate failed for %s, which is refused", shown)
            return False
        else:
            return True
        finally:
            self._here.inside = False

    def _on_authorize(self, principal: bytes, repository: bytes, write: bool) -> bool:
        assert self._authorize is not None  # noqa: S101
        self._here.inside = True
        try:
            allowed = self._authorize(principal.decode(), repository.decode(), write)
            if not isinstance(allowed, bool):
                raise TypeError(f"authorize returned {type(allowed).__name__}, not bool")
        except BaseException:  # as above
            log_failure("authorize failed for %s on %s, which is refused", principal, repository)
            return False
        else:
            return allowed
        finally:
            self._here.inside = False


def _principal(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"authenticate returned {type(value).__name__}, not str or None")
    # The library would take an empty name for "call it by its fingerprint".
    if not value or not value.isprintable():
        raise ValueError(f"a principal is printable text, not {value!r}")
    return value.encode()
