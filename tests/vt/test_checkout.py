"""`zig build vibetunnel`: the executable in a checkout of VibeTunnel, and in no other folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from source_tree import ROOT

PLACES = ["web/bin/vibetunnel-fwd", "mac/VibeTunnel/Resources/vibetunnel-fwd"]


def place(*options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    build = [sys.executable, "-m", "ziglang", "build", "--build-file", str(ROOT / "build.zig")]
    return subprocess.run(
        [*build, "vibetunnel", "-Dssh=false", *options], cwd=cwd, capture_output=True, text=True
    )


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    (folder / "web").mkdir(parents=True)
    (folder / "web/package.json").write_text('{"name": "vibetunnel", "scripts": {"x": ["y"]}}')
    (folder / "mac/VibeTunnel").mkdir(parents=True)
    return folder


def test_a_checkout_gets_the_executable_twice(checkout: Path, need: Callable[[str], str]) -> None:
    done = place(f"-Dvibetunnel={checkout}")
    assert done.returncode == 0, done.stderr
    assert files(checkout) == sorted(["web/package.json", *PLACES])
    for name in PLACES:
        assert str(checkout / name) in done.stderr
        said = subprocess.run([checkout / name, "--version"], capture_output=True, check=True)
        assert said.stdout.startswith(b"vibetunnel-fwd ")
        # An old one is replaced, not written over: it may run.
        (checkout / name).unlink()
        (checkout / name).symlink_to("/bin/false")
    again = place("-Dvibetunnel=a checkout", cwd=checkout.parent)
    assert again.returncode == 0, again.stderr
    for name in PLACES:
        assert not (checkout / name).is_symlink()
        subprocess.run([checkout / name, "--help"], capture_output=True, check=True)


def spoil_name(folder: Path) -> None:
    (folder / "web/package.json").write_text('{"name": "another"}')


def spoil_json(folder: Path) -> None:
    (folder / "web/package.json").write_text("vibetunnel")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_name,
        spoil_json,
        lambda folder: (folder / "web/package.json").unlink(),
        lambda folder: (folder / "mac/VibeTunnel").rmdir(),
    ],
    ids=["another name", "no JSON", "no package.json", "no Mac app"],
)
def test_another_folder_is_refused_and_left_as_it_is(
    checkout: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(checkout)
    before = files(checkout)
    done = place(f"-Dvibetunnel={checkout}")
    assert done.returncode != 0
    assert f"{checkout} is no checkout of VibeTunnel" in done.stderr
    assert "git clone https://github.com/amantus-ai/vibetunnel" in done.stderr
    assert files(checkout) == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ((), "say where the checkout is: zig build vibetunnel -Dvibetunnel=PATH"),
        (("-Dvibetunnel=/no/such/folder",), "cannot open the folder /no/such/folder: FileNotFound"),
    ],
)
def test_no_folder(option: tuple[str, ...], message: str) -> None:
    done = place(*option)
    assert done.returncode != 0
    assert message in done.stderr
