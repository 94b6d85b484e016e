"""A file that says which process is the server, for init scripts and monitors."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from pyplue.processes import is_alive
from pyplue.ssh.errors import SshError, SshRefusedError

_TEXT_MAX = 32
# Clock ticks and the file system round differently.
_ROUNDING_S = 2.0


class PidFile:
    """Written whole or not at all, removed at the end, and never taken from a live process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> None:
        """SshRefusedError when the process in it is alive, or when it is no pid file."""
        pid = self._read()
        if pid is None or pid == os.getpid() or not is_alive(pid):
            return
        started_at = _started_at(pid)
        try:
            written_at = self._path.stat().st_mtime
        except FileNotFoundError:
            return
        # A process that is younger than the file has only inherited the number.
        if started_at is None or started_at <= written_at + _ROUNDING_S:
            raise SshRefusedError(
                f"{self._path} belongs to process {pid}, which is alive: stop it, or remove the "
                "file if that is no Git server"
            )

    def write(self) -> None:
        """Puts our number into it, in the place of a dead process's."""
        self.check()
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.unlink(missing_ok=True)
            # Nobody else's file and no link: the directory may be one that many can write.
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w") as file:
                file.write(f"{os.getpid()}\n")
            os.rename(temporary, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise SshError(f"cannot write the pid file {self._path}: {error.strerror}") from error

    def remove(self) -> None:
        """Unless it has become another process's."""
        with contextlib.suppress(OSError, SshError, SshRefusedError):
            if self._read() == os.getpid():
                self._path.unlink()

    def _read(self) -> int | None:
        """The number in it; None when there is no file, or an empty one."""
        try:
            with self._path.open("rb") as file:
                text = file.read(_TEXT_MAX).strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SshError(f"cannot read the pid file {self._path}: {error.strerror}") from error
        if not text:
            return None
        if not text.isdigit() or int(text) == 0:
            raise SshRefusedError(f"{self._path} is no pid file: name another one")
        return int(text)


def _started_at(pid: int) -> float | None:
    """When a process began, in seconds since 1970; None where the system does not tell.

    proc(5): field 22 of /proc/PID/stat, in clock ticks since the machine started.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError):
        return None
    ticks = int(stat.rpartition(")")[2].split()[19])
    return time.time() - uptime_s + ticks / os.sysconf("SC_CLK_TCK")
