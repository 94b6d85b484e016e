"""libvt_fwd through the C ABI, in this process and in hosts: what the tests of it share."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

from pyplue import ffi
from vt.harness import Home, Session

vt = ffi.vt


def code_of(name: str) -> int:
    """The error code that the library calls `name`."""
    for code in range(0, -64, -1):
        if vt.vt_fwd_error_name(code) == name.encode():
            return code
    raise AssertionError(f"no error is called {name}")


def refused(config: Any) -> tuple[str, str]:
    """The name and the sentence with which the library refuses to start."""
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    assert vt.vt_fwd_start(text, len(text)) == 0
    message = vt.vt_fwd_last_message().decode()
    return vt.vt_fwd_error_name(vt.vt_fwd_last_error()).decode(), message


def start(home: Home, *argv: str, **config: Any) -> int:
    config = {"control_dir": str(home.control), "cwd": str(home.work), **config}
    text = json.dumps({"argv": argv, **config}).encode()
    handle = vt.vt_fwd_start(text, len(text))
    assert handle, vt.vt_fwd_last_message()
    return int(handle)


def session_of(home: Home, handle: int) -> Session:
    out = ffi.buffer(64)
    length = vt.vt_fwd_session_id(handle, out, 64)
    assert length > 0
    return home.session(out.raw[:length].decode())


def finish(handle: int, timeout_ms: int = 10_000) -> int:
    code = vt.vt_fwd_wait(handle, timeout_ms)
    assert vt.vt_fwd_close(handle)
    return int(code)


HOST = """
import json, os, signal, sys, time
from pyplue import ffi
vt = ffi.vt
control = sys.argv[1]
def start(*argv, **config):
    text = json.dumps({"argv": argv, "control_dir": control, **config}).encode()
    handle = vt.vt_fwd_start(text, len(text))
    assert handle, vt.vt_fwd_last_message()
    return handle
"""


def host(home: Home, script: str, **options: Any) -> subprocess.Popen[bytes]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    program = HOST + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", program, str(home.control)], **options)


def run_host(home: Home, script: str, **options: Any) -> str:
    process = host(home, script, **options)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()  # one that hangs does not stay
    assert process.returncode == 0, err.decode()
    return out.decode()
