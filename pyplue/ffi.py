"""The raw functions of the native libraries, with the names and types they have under Bun.

    >>> from pyplue import ffi
    >>> ffi.jwt.jwt_init(b"a secret of at least 32 bytes, please", 37)
    True

Each attribute of this module named in `LIBRARIES` is one library; it is loaded when the first of
its functions is used. This is the only module that knows ctypes. The types are Bun's `FFIType`
names; what they take and give in Python:

    ptr        an int, bytes, a `buffer()` or None (NULL); gives an int or None
    cstring    bytes up to the first NUL, or None; gives bytes (a copy) or None
    function   a `callback()` or None
    bool, i32, u32, i64, u64    bool and int

A `ptr` that is returned and owned by the caller is freed with the library's own free function, see
its header. Nothing here checks what a pointer points to: the typed modules (`pyplue.jwt` and so on)
are for everyday use.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pyplue.errors import LibraryNotFoundError

_NATIVE = Path(__file__).resolve().parent / "_native"
_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

_CTYPES: dict[str, Any] = {
    "void": None,
    "bool": ctypes.c_bool,
    "i32": ctypes.c_int32,
    "u16": ctypes.c_uint16,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "ptr": ctypes.c_void_p,
    "cstring": ctypes.c_char_p,
    "function": ctypes.c_void_p,
}


class Signature(NamedTuple):
    """One exported function: Bun's names for its argument and return types.

    A function that `waits` (for a lock held long, for I/O, for a thread) lets other Python threads
    run meanwhile; the others keep the GIL, which is faster for calls of under a microsecond.
    """

    args: tuple[str, ...] = ()
    returns: str = "void"
    waits: bool = False


class Library:
    """A native library whose exported functions are attributes, loaded at first use."""

    def __init__(self, name: str, symbols: dict[str, Signature]) -> None:
        self.name = name
        self.symbols = symbols
        self.path = _NATIVE / f"lib{name}{_SUFFIX}"

    def __getattr__(self, symbol: str) -> Any:
        signature = self.symbols.get(symbol)
        if signature is None:
            raise AttributeError(f"lib{self.name} exports no '{symbol}'")
        loader = ctypes.CDLL if signature.waits else ctypes.PyDLL
        function = getattr(self._load(loader), symbol)
        function.argtypes = [_CTYPES[name] for name in signature.args]
        function.restype = _CTYPES[signature.returns]
        setattr(self, symbol, function)
        return function

    def unchecked(self, symbol: str) -> Any:
        """The function without conversion of its arguments, which saves a fifth of a fast call.

        Only for u32, i32 and cstring arguments, and only where they are known to be an int that
        fits and bytes.
        """
        function = getattr(self._load(ctypes.PyDLL), symbol)
        function.restype = _CTYPES[self.symbols[symbol].returns]
        return function

    def _load(self, loader: Callable[[str], Any]) -> Any:
        if not self.path.exists():
            raise LibraryNotFoundError(
                f"{self.path} is missing: install pyplue again (pip install --force-reinstall "
                "pyplue), or build the source tree with ./dev demo"
            )
        try:
            return loader(str(self.path))
        except OSError as error:
            raise LibraryNotFoundError(f"{self.path} cannot be loaded: {error}") from error

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.symbols]


def buffer(size: int) -> Any:
    """`size` zero bytes that a library can write to; `buffer(8).raw` gives them as bytes."""
    return ctypes.create_string_buffer(size)


def text(pointer: int) -> bytes:
    """A copy of the bytes at `pointer` up to the first NUL, as Bun's CString reads them."""
    return ctypes.string_at(pointer)


def callback(args: tuple[str, ...], returns: str, function: Callable[..., Any]) -> Any:
    """A C function pointer that calls `function` on any thread; keep it while C may call."""
    prototype = ctypes.CFUNCTYPE(_CTYPES[returns], *(_CTYPES[name] for name in args))
    return prototype(function)


def write(address: int, text: bytes) -> None:
    """Copies `text` to memory that a library has lent, such as a callback's output argument."""
    ctypes.memmove(address, text, len(text))


_INTO = ("u32", "ptr", "u64", "ptr", "u64")
_WITH_KEYS = ("ptr", "u64", "ptr", "u64", "ptr", "ptr", "u64", "ptr")

jwt = Library(
    "plue_jwt",
    {
        "jwt_init": Signature(("ptr", "u64"), "bool"),
        "jwt_sign": Signature(("cstring",), "ptr"),
        "jwt_verify": Signature(("cstring",), "ptr"),
        "jwt_free": Signature(("ptr",)),
        "jwt_cleanup": Signature(),
        "jwt_last_error": Signature((), "i32"),
        "jwt_error_name": Signature(("i32",), "cstring"),
        "jwt_key_create": Signature(("ptr", "u64"), "u32"),
        "jwt_key_destroy": Signature(("u32",), "bool"),
        "jwt_sign_text": Signature(("u32", "cstring"), "cstring"),
        "jwt_verify_text": Signature(("u32", "cstring"), "cstring"),
        "jwt_sign_into": Signature(_INTO, "i32"),
        "jwt_verify_into": Signature(_INTO, "i32"),
        "jwt_verify_with": Signature(_WITH_KEYS, "i32"),
        "jwt_verify_batch": Signature(
            ("u32", "ptr", "ptr", "u64", "ptr", "ptr", "u64", "ptr"), "i64", waits=True
        ),
        "jwt_jws_sign": Signature(("u32", "ptr", "u64", "ptr", "u64", "ptr", "u64"), "i32"),
        "jwt_jws_verify": Signature(_WITH_KEYS, "i32"),
        "jwt_decode_unverified": Signature(("ptr", "u64", "u32", "ptr", "u64"), "i32"),
        "jwt_mac": Signature(("u32", "ptr", "u64", "ptr"), "bool"),
        "jwt_version": Signature((), "cstring"),
        "jwt_cpu_path": Signature((), "cstring"),
        "jwt_force_cpu_path": Signature(("cstring",), "bool"),
    },
)

_KEY = ("u32", "ptr", "u32")
_RULE = ("u32", "u32", "u64")
_LIMITER = ("u32", "u32", "u64", "u32", "u32")

ratelimit = Library(
    "plue_ratelimit",
    {
        "ratelimit_init": Signature(("u32", "u64"), "bool"),
        "ratelimit_check": Signature(("cstring",), "bool"),
        "ratelimit_reset": Signature(("cstring",)),
        "ratelimit_cleanup": Signature((), "u32", waits=True),
        "ratelimit_get_remaining": Signature(("cstring",), "u32"),
        "ratelimit_destroy": Signature(),
        "ratelimit_count": Signature((), "u32"),
        "ratelimit_create": Signature(_LIMITER, "u32"),
        "ratelimit_open_shared": Signature(("cstring", *_LIMITER), "u32"),
        "ratelimit_close": Signature(("u32",), "bool"),
        "ratelimit_check_key": Signature((*_KEY, "u32"), "bool"),
        "ratelimit_check_text": Signature(("u32", "cstring"), "bool"),
        "ratelimit_hit": Signature((*_KEY, "u32", "ptr"), "i32"),
        "ratelimit_peek": Signature((*_KEY, "u32", "ptr"), "i32"),
        "ratelimit_refund": Signature((*_KEY, "u32"), "bool"),
        "ratelimit_hit_at": Signature((*_KEY, "u32", "u64", "ptr"), "i32"),
        "ratelimit_peek_at": Signature((*_KEY, "u32", "u64", "ptr"), "i32"),
        "ratelimit_refund_at": Signature((*_KEY, "u32", "u64"), "bool"),
        "ratelimit_check_many": Signature(("u32", "ptr", "u64", "ptr", "u32", "u32", "ptr"), "i32"),
        "ratelimit_reset_key": Signature(_KEY, "bool"),
        "ratelimit_clear": Signature(("u32",), "bool", waits=True),
        "ratelimit_sweep": Signature(("u32",), "u32", waits=True),
        "ratelimit_key_count": Signature(("u32",), "u32"),
        "ratelimit_bytes": Signature(("u32",), "u64"),
        "ratelimit_hit_rule": Signature((*_KEY, "u32", *_RULE, "ptr"), "i32"),
        "ratelimit_peek_rule": Signature((*_KEY, "u32", *_RULE, "ptr"), "i32"),
        "ratelimit_read_window": Signature((*_KEY, "u64", "ptr"), "i32"),
        "ratelimit_hit_log": Signature((*_KEY, "u32", "u32", "u64"), "bool"),
        "ratelimit_read_log": Signature((*_KEY, "u32", "u64", "ptr"), "i32"),
        "ratelimit_last_error": Signature((), "i32"),
        "ratelimit_last_errno": Signature((), "i32"),
        "ratelimit_error_name": Signature(("i32",), "cstring"),
        "ratelimit_version": Signature((), "cstring"),
    },
)


def _waiting(*args: str, returns: str = "void") -> Signature:
    return Signature(args, returns, waits=True)


# All of them wait: each may meet a lock that a server thread holds, and a server thread may need
# the GIL for a callback.
ssh = Library(
    "plue_ssh",
    {
        "ssh_server_start": _waiting("u16", "cstring", returns="bool"),
        "ssh_server_stop": _waiting(),
        "plue_ssh_server_drain": _waiting(returns="bool"),
        "ssh_set_auth_callback": _waiting("function"),
        "ssh_get_connection_count": _waiting(returns="u32"),
        "plue_ssh_port": _waiting(returns="u16"),
        "plue_ssh_last_error": _waiting(returns="cstring"),
        "plue_ssh_version": _waiting(returns="cstring"),
        "plue_ssh_libssh_version": _waiting(returns="cstring"),
        "plue_ssh_configure": _waiting("cstring", returns="bool"),
        "plue_ssh_keys_add": _waiting("cstring", "cstring", "cstring", returns="bool"),
        "plue_ssh_keys_remove": _waiting("cstring", returns="bool"),
        "plue_ssh_keys_replace": _waiting("cstring", returns="bool"),
        "plue_ssh_keys_clear": _waiting(),
        "plue_ssh_keys_count": _waiting(returns="u32"),
        "plue_ssh_set_authenticate_callback": _waiting("function"),
        "plue_ssh_set_authorize_callback": _waiting("function"),
        "plue_ssh_set_decision_notify": _waiting("function"),
        "plue_ssh_decision_next": _waiting("ptr", "u32", returns="u32"),
        "plue_ssh_decision_reply": _waiting("u32", "bool", "cstring", returns="bool"),
        "plue_ssh_set_push_notify": _waiting("function"),
        "plue_ssh_push_next": _waiting("ptr", "u32", returns="u32"),
        "plue_ssh_push_done": _waiting("u32", returns="bool"),
        "plue_ssh_event_next": _waiting("ptr", "u32", returns="u32"),
        "plue_ssh_set_event_notify": _waiting("function"),
        "plue_ssh_counters": _waiting("ptr", "u32", returns="u32"),
    },
)

_BYTES = ("ptr", "u64")

# What may write a file or wait for a session lets other threads run.
vt = Library(
    "vt_fwd",
    {
        "vt_fwd_last_error": Signature((), "i32"),
        "vt_fwd_last_message": Signature((), "cstring"),
        "vt_fwd_needed": Signature((), "u64"),
        "vt_fwd_error_name": Signature(("i32",), "cstring"),
        "vt_fwd_version": Signature((), "cstring"),
        "vt_fwd_start": _waiting(*_BYTES, returns="u32"),
        "vt_fwd_session_id": Signature(("u32", *_BYTES), "i64"),
        "vt_fwd_session_pid": Signature(("u32",), "i32"),
        "vt_fwd_wait": _waiting("u32", "i64", returns="i32"),
        "vt_fwd_stop": Signature(("u32",), "i32"),
        "vt_fwd_kill": Signature(("u32", "u32"), "i32"),
        "vt_fwd_close": Signature(("u32",), "bool"),
        "vt_fwd_shutdown": _waiting(),
        "vt_fwd_running": _waiting(returns="u32"),
        "vt_fwd_frame_encode": Signature(("u32", *_BYTES, *_BYTES), "i64"),
        "vt_fwd_decoder_create": Signature((), "u32"),
        "vt_fwd_decoder_destroy": Signature(("u32",), "bool"),
        "vt_fwd_decoder_next": Signature(("u32", *_BYTES, *_BYTES, "ptr"), "i32"),
        "vt_fwd_cast_create": _waiting(
            "cstring", "u32", "u32", "i64", "cstring", "cstring", "u64", returns="u32"
        ),
        "vt_fwd_cast_output": _waiting("u32", "u64", *_BYTES, returns="i32"),
        "vt_fwd_cast_input": _waiting("u32", "u64", *_BYTES, returns="i32"),
        "vt_fwd_cast_resize": _waiting("u32", "u64", "u32", "u32", returns="i32"),
        "vt_fwd_cast_marker": _waiting("u32", "u64", "cstring", returns="i32"),
        "vt_fwd_cast_clear_offset": Signature(("u32",), "i64"),
        "vt_fwd_cast_end": _waiting("u32", "u64", "u32", "cstring", returns="i32"),
        "vt_fwd_filter_create": Signature((), "u32"),
        "vt_fwd_filter_destroy": Signature(("u32",), "bool"),
        "vt_fwd_filter_write": Signature(("u32", *_BYTES, *_BYTES), "i64"),
        "vt_fwd_filter_end": Signature(("u32", *_BYTES), "i64"),
        "vt_fwd_session_parse": Signature(("cstring", *_BYTES, *_BYTES), "i64"),
        "vt_fwd_session_read": _waiting("cstring", *_BYTES, returns="i64"),
    },
)

# Every library by the name of its attribute here.
LIBRARIES: dict[str, Library] = {"jwt": jwt, "ratelimit": ratelimit, "ssh": ssh, "vt": vt}
