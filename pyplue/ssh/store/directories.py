"""Repositories on disk: made beside their place and then put there in one step."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyplue.ssh.errors import SshError, SshRefusedError
from pyplue.ssh.names import RepositoryName

# No name of a user or a repository begins so, hence nobody is served what is in there.
_TEMPORARY = ".pyplue-"
_ABANDONED_S = 3600


class Directories:
    """The tree <root>/<user>/<name>.git."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def place(self, name: RepositoryName) -> Path:
        """Where a new repository belongs."""
        return self._root / name.owner / f"{name.name}.git"

    def temporary(self, name: RepositoryName) -> Path:
        """A new path beside that place."""
        return self._root / name.owner / f"{_TEMPORARY}{secrets.token_hex(8)}"

    def find(self, name: RepositoryName) -> Path | None:
        """Where the server finds it: name.git, or else name; never through a symbolic link."""
        for path in self._places(name):
            if path.is_dir() and not path.is_symlink():
                return path
        return None

    def existing(self, name: RepositoryName) -> Path:
        """Where it is; refused when there is no Git repository."""
        path = self.find(name)
        if path is None:
            raise SshRefusedError(f"{self.place(name)} is missing: bring it back, or remove {name}")
        for git in (path, path / ".git"):
            if (git / "HEAD").is_file() and (git / "objects").is_dir() and (git / "refs").is_dir():
                return path
        raise SshRefusedError(f"{path} is no Git repository")

    def check_free(self, name: RepositoryName, but: Path | None = None) -> None:
        """Refused when something is in the place, whatever it is."""
        for path in self._places(name):
            if path != but and os.path.lexists(path):
                raise SshRefusedError(
                    f"{path} exists already, but not in the database: move it away, or take it "
                    "over with --adopt"
                )

    def prepare(self, name: RepositoryName, default_branch: str) -> Path:
        """A new bare repository in a temporary directory beside its place."""
        temporary = self.temporary(name)
        with _explained():
            temporary.parent.mkdir(parents=True, exist_ok=True)
            _sweep(temporary.parent)
            _git_init(temporary, default_branch)
            _flush(temporary)
        return temporary

    @contextmanager
    def moving(self) -> Iterator[Callable[[Path, Path], None]]:
        """Hands out `move(source, target)`, and moves back when what follows fails."""
        moved: list[tuple[Path, Path]] = []

        def move(source: Path, target: Path) -> None:
            with _explained():
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.name.startswith(_TEMPORARY):
                    os.utime(source)  # it may have to come back: not to be swept at once
                os.rename(source, target)
                moved.append((source, target))
                for folder in {source.parent, target.parent}:
                    _flush_one(folder)

        try:
            yield move
        except BaseException:
            for source, target in moved:
                with _explained(f"move {target} back to {source} by hand"):
                    os.rename(target, source)
            raise

    def discard(self, temporary: Path) -> None:
        """Deletes a temporary directory; what cannot be deleted now is swept later."""
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.parent.rmdir()  # only if it was the last of its user

    def _places(self, name: RepositoryName) -> list[Path]:
        """None for what another program has named so that it leads somewhere else."""
        if not all(map(_is_one_step, name)):
            return []
        return [self.place(name), self._root / name.owner / name.name]


def _is_one_step(part: object) -> bool:
    return isinstance(part, str) and part not in ("", ".", "..") and not {"/", "\0"} & {*part}


def _sweep(folder: Path) -> None:
    """Deletes what processes left behind that were killed at work."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def set_head(repository: Path, branch: str) -> None:
    """Points HEAD to the branch."""
    _git("-C", str(repository), "symbolic-ref", "HEAD", f"refs/heads/{branch}")


def _git_init(path: Path, default_branch: str) -> None:
    try:
        _git("init", "--quiet", "--bare", f"--initial-branch={default_branch}", "--", str(path))
    except SshError:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _git(*words: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *words],
            env={**environment, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise SshError("git is not in PATH: install git") from None
    if done.returncode != 0:
        raise SshError(f"git failed: {' '.join(done.stderr.split())[:300]}")


def _flush(path: Path) -> None:
    """The new repository outlives a power cut, as its row does."""
    for folder, _, files in os.walk(path):
        for name in files:
            _flush_one(Path(folder, name))
        _flush_one(Path(folder))


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(cure: str = "") -> Iterator[None]:
    try:
        yield
    except SshError:
        raise
    except OSError as error:
        what = f"{error.filename or 'the repositories'}: {error.strerror}"
        raise SshError(f"{what}: {cure}" if cure else what) from error
