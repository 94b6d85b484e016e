"""The PEP 517 and PEP 660 hooks: setuptools' own, with two additions.

`-C target=<triple>` (pip's --config-settings) builds for another platform, `-C libssh=<sources>
-C libcrypto=<folder>` links libssh statically (see build_hooks/release), and whatever the Zig build
has to say ends the output as plain text instead of a Python traceback.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from setuptools import build_meta
from setuptools_zig import ZigCompilerError

from build_hooks import platforms

get_requires_for_build_wheel = build_meta.get_requires_for_build_wheel
get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
get_requires_for_build_editable = build_meta.get_requires_for_build_editable
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable
build_sdist = build_meta.build_sdist

# Both are known and chosen; pip would print them on every build.
warnings.filterwarnings("ignore", message=r"(?s).*ext-modules.*experimental")
warnings.filterwarnings("ignore", message=r"(?s).*Editable installation")

Settings = Mapping[str, Any] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Builds the wheel for this machine, or for `config_settings["target"]`."""
    return _build(build_meta.build_wheel, wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Puts the libraries into the source tree and builds a wheel that points at it."""
    if config_settings and "target" in config_settings:
        _fail("an editable install is for this machine: leave out -C target")
    return _build(build_meta.build_editable, wheel_directory, config_settings, metadata_directory)


def _build(
    hook: Callable[..., str],
    wheel_directory: str,
    config_settings: Settings,
    metadata_directory: str | None,
) -> str:
    settings = dict(config_settings or {})
    triple = settings.pop("target", None)
    if triple is not None:
        try:
            platforms.wheel_tag(triple)
        except ValueError as error:
            _fail(str(error))
        os.environ["PYPLUE_TARGET"] = triple
    static = [settings.pop(name, None) for name in ("libssh", "libcrypto")]
    if None not in static:
        os.environ["PYPLUE_LIBSSH"], os.environ["PYPLUE_LIBCRYPTO"] = static
    elif static != [None, None]:
        _fail("-C libssh=<sources> and -C libcrypto=<folder> go together: give both or neither")
    try:
        return hook(wheel_directory, settings, metadata_directory)
    except ZigCompilerError as error:
        _fail(str(error))
        raise


def _fail(message: str) -> None:
    sys.stdout.flush()
    raise SystemExit(f"\n{message}")
