"""The setuptools commands that differ from the stock ones because the sources are Zig.

build_ext runs `zig build` once and puts the libraries into pyplue/_native, build_scripts takes the
executables of the same build as they are, bdist_wheel tags the wheel for the platform alone: the
libraries are loaded through ctypes and know nothing of CPython's ABI.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from distutils.command.build_scripts import build_scripts  # setuptools brings distutils
from pathlib import Path

from setuptools import Extension
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools_zig import BuildExt

from build_hooks import platforms, zig

NATIVE = "pyplue/_native"


def target() -> str | None:
    """The triple to build for, set by `pip wheel -C target=...`; None builds for this machine."""
    return os.environ.get("PYPLUE_TARGET") or None


def static() -> tuple[Path, Path] | None:
    """Sources of libssh and the folder of libcrypto to link statically, set by `-C libssh=...
    -C libcrypto=...`; None links the system's libssh, or leaves plue_ssh out of a cross build."""
    libssh, libcrypto = os.environ.get("PYPLUE_LIBSSH"), os.environ.get("PYPLUE_LIBCRYPTO")
    return (Path(libssh), Path(libcrypto)) if libssh and libcrypto else None


class Build(build):
    """Keeps each target's files apart: a shared build/ would put Linux code into macOS wheels."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = os.path.join("build", target() or "native")


class BuildZig(BuildExt):
    """`zig build` for the one extension that stands for all libraries."""

    def __init__(self, dist: object) -> None:
        super().__init__(dist, zig_value=True)

    def run(self) -> None:
        # Not super().run(): it prepares a C compiler, which nobody needs here.
        zig.build(self._prefix(), target(), static())
        for source, destination in self._libraries():
            destination.parent.mkdir(parents=True, exist_ok=True)
            if destination.exists() and filecmp.cmp(source, destination, shallow=False):
                continue
            # Beside it, then over it: a process that has the old file mapped keeps it whole.
            staged = destination.with_suffix(".new")
            shutil.copyfile(source, staged)
            os.replace(staged, destination)

    def _prefix(self) -> Path:
        base = Path(self.get_finalized_command("build").build_base)
        return (base / "zig").resolve()

    def _destination(self) -> Path:
        if self.inplace:
            return zig.ROOT / NATIVE
        return Path(self.build_lib) / NATIVE

    def _libraries(self) -> list[tuple[Path, Path]]:
        suffix = platforms.library_suffix(target(), sys.platform)
        found = sorted((self._prefix() / "lib").glob(f"*{suffix}"))
        return [(source, self._destination() / source.name) for source in found]

    def get_outputs(self) -> list[str]:
        return [str(destination) for _, destination in self._libraries()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return []

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split("."))

    def build_extension(self, ext: Extension) -> None:
        raise AssertionError(f"run() builds everything, {ext.name} alone cannot be built")


class BuildScripts(build_scripts):
    """Takes the executables named in pyproject.toml from the Zig build, byte for byte."""

    def run(self) -> None:
        self.run_command("build_ext")
        prefix = Path(self.get_finalized_command("build").build_base) / "zig"
        os.makedirs(self.build_dir, exist_ok=True)
        for name in self.scripts:
            if name == "plue-ssh" and target() is not None and static() is None:
                continue  # A cross build has no libssh but the one it is given, see build.zig.
            copied = os.path.join(self.build_dir, name)
            shutil.copyfile(prefix / "bin" / name, copied)
            os.chmod(copied, 0o755)  # noqa: S103, an executable for everybody

    def get_source_files(self) -> list[str]:
        return []


class BuildPy(build_py):
    """Leaves libraries of an earlier editable install out of the package's own files."""

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        found = super().find_data_files(package, src_dir)
        return [path for path in found if f"{os.sep}_native{os.sep}" not in path]


class BdistWheel(bdist_wheel):
    """`py3-none-<platform>`, with the licences of what is linked statically."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        triple = target()
        platform = super().get_tag()[2] if triple is None else platforms.wheel_tag(triple)
        return "py3", "none", platform

    def write_wheelfile(self, wheelfile_base: str, *arguments: str) -> None:
        super().write_wheelfile(wheelfile_base, *arguments)
        linked = static()
        if linked is None:
            return
        libssh, libcrypto = linked
        licenses = Path(wheelfile_base, "licenses")
        for source, name in (
            (libssh / "COPYING", "libssh/COPYING"),
            (libssh / "BSD", "libssh/BSD"),
            (libcrypto / "LICENSE.txt", "openssl/LICENSE.txt"),
            (Path(__file__).parent / "release" / "RELINKING.md", "RELINKING.md"),
        ):
            (licenses / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, licenses / name)


class Sdist(sdist):
    """The stock one, without the executables' names, which are no files before a build."""

    def make_distribution(self) -> None:
        scripts, self.distribution.scripts = self.distribution.scripts, []
        try:
            super().make_distribution()
        finally:
            self.distribution.scripts = scripts
