"""What the shell blocks of all pages do, and that no block of any page goes unchecked.

The blocks of a page run as its reader would run them: pasted into one shell, in order, in one
folder. A guide gets the files of a release, and a PATH without anything of this source tree: what
it does not install is not there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import shown_commands
from markdown_blocks import GUIDES, PAGES, Block, all_blocks, answers, blocks_of, missing_line
from source_tree import ROOT, copy_tree

from build_hooks.release.archives import write_archive
from build_hooks.release.targets import TARGETS, Target

PORTS = ("2222", "3000", "4020", "8000")
WHEEL = re.compile(r"pyplue-[\w.]+-py3-none-\w+\.whl")
ARCHIVE = re.compile(r"plue-\d[\w.]*-(?:linux|darwin)-[\w-]+\.tgz")
SECONDS = 150

SCRIPTS = [page for page in PAGES if any(block.language == "sh" for block in blocks_of(page))]
# Its lines push from a repository of Alice's: test_quick_start.py makes one.
SCRIPTS.remove(ROOT / "pyplue" / "ssh" / "README.md")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ---- the files of a release ----------------------------------------------------------------------


def this_platform() -> Target:
    system = "darwin" if sys.platform == "darwin" else "linux"
    cpu = {"x86_64": "x64"}.get(platform.machine(), "arm64")
    musl = system == "linux" and platform.libc_ver()[0] != "glibc"
    wanted = f"{system}-{cpu}" + ("-musl" if musl else "")
    return next(target for target in TARGETS if target.name == wanted)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PLUE_RELEASE's wheel for this machine, or one of this tree, made with Zig's cache."""
    target = this_platform()
    if given := os.environ.get("PLUE_RELEASE"):
        return next(Path(given).glob(f"*-{target.tag}.whl"))
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tree / "dist", tree]
    environment = {**os.environ, "ZIG_LOCAL_CACHE_DIR": str(ROOT / ".zig-cache")}
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next((tree / "dist").glob("*.whl"))


@pytest.fixture(scope="session")
def archive(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the same, as a release has it."""
    return write_archive(wheel, this_platform(), tmp_path_factory.mktemp("archive"), 315532800)


# ---- a page as one script ------------------------------------------------------------------------


def script_of(page: Path, folder: Path) -> str:
    """All files and shell blocks of a page, in order; what block N prints goes to out/N."""
    lines = []
    for block in blocks_of(page):
        if block.title:
            path = shlex.quote(block.title)
            lines.append(f"mkdir -p \"$(dirname {path})\"; cat > {path} <<'END_OF_FILE'")
            lines.append(f"{block.text}END_OF_FILE")
        elif block.language == "sh":
            lines.append(f"echo {block.line} > {folder}/at")
            lines.append(f"{{\n{block.text}}} > {folder}/{block.line} 2>&1")
    return "\n".join([*lines, f"echo end > {folder}/at", ""])


def on_free_ports() -> Callable[[str], str]:
    """Puts free ports in the place of the well-known ones, which may be somebody else's here."""
    with_ports = re.compile(rf"\b({'|'.join(PORTS)})\b")
    probes = {port: socket.socket() for port in PORTS}
    for probe in probes.values():
        probe.bind(("127.0.0.1", 0))
    free = {port: str(probe.getsockname()[1]) for port, probe in probes.items()}
    for probe in probes.values():
        probe.close()
    return lambda text: with_ports.sub(lambda found: free[found[1]], text)


@contextmanager
def running(words: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leaves nothing behind: its whole group ends with the block."""
    with subprocess.Popen(words, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                time.sleep(0.2)
                os.killpg(process.pid, signal.SIGKILL)


def run_page(page: Path, work: Path, environment: dict[str, str]):
    out = work.parent / "out"
    out.mkdir()
    move = on_free_ports()
    text = move(script_of(page, out))
    with running(["sh", "-ec", text], cwd=work, env=environment, stdin=subprocess.DEVNULL) as shell:
        deadline = time.monotonic() + SECONDS
        # Its end, and not that of what it has left in the background.
        while (status := shell.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        at = (out / "at").read_text().strip()
        printed = (out / at).read_text() if at != "end" else ""
        assert status == 0, f"{page_id(page)}:{at} ended with {status}:\n{printed}"
    for block in blocks_of(page):
        said = answers(block)
        if block.language == "sh" and said is not None:
            printed = (out / str(block.line)).read_text()
            missing = missing_line(move(said), printed)
            assert missing is None, f"{block.name} did not print {missing!r}, but:\n{printed}"


def environment_of(home: Path, path: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GIT_", "PLUE_", "XDG_", "VIBETUNNEL_", "PYTHON", "VIRTUAL_ENV"))
    }
    home.mkdir()
    caches = {
        "PIP_CACHE_DIR": Path.home() / ".cache" / "pip",
        "npm_config_cache": Path.home() / ".npm",
        "BUN_INSTALL_CACHE_DIR": Path.home() / ".bun" / "install" / "cache",
    }
    return {
        **kept,
        **{name: str(value) for name, value in caches.items()},
        "HOME": str(home),
        "PATH": path,
        "npm_config_prefer_offline": "true",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder with a name short enough for the sockets of terminal sessions."""
    with tempfile.TemporaryDirectory(prefix="page.", dir="/tmp") as folder:
        yield Path(folder)


# ---- guides: a clean machine ---------------------------------------------------------------------


def clean_path(folder: Path, need: Callable[[str], str]) -> str:
    """The system's programs and the tools that guides tell their readers to have."""
    folder.mkdir()
    for tool in ("bun", "node", "npm", "npx"):
        (folder / tool).symlink_to(os.path.realpath(need(tool)))
    (folder / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    if not shutil.which("cc"):
        (folder / "cc").write_text(f'#!/bin/sh\nexec {sys.executable} -m ziglang cc "$@"\n')
        (folder / "cc").chmod(0o755)
    return f"{folder}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("page", GUIDES, ids=page_id)
def test_a_guide_does_what_it_says_on_a_clean_machine(
    page: Path,
    request: pytest.FixtureRequest,
    need: Callable[[str], str],
    short_tmp: Path,
):
    work = short_tmp / "work"
    work.mkdir()
    text = page.read_text()
    for name, fixture in (("/pyplue-*.whl", "wheel"), ("plue-*.tgz", "archive")):
        if name in text:
            shutil.copy(request.getfixturevalue(fixture), work)
    environment = environment_of(short_tmp / "home", clean_path(short_tmp / "bin", need))
    run_page(page, work, environment)


# ---- other pages: everything is installed --------------------------------------------------------


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("page", [page for page in SCRIPTS if page not in GUIDES], ids=page_id)
def test_a_pages_shell_blocks_do_what_they_say(page: Path, short_tmp: Path):
    work = short_tmp / "work"
    work.mkdir()
    run_page(page, work, environment_of(short_tmp / "home", os.environ["PATH"]))


# ---- blocks that are not run ---------------------------------------------------------------------

RUN = {"sh", "python", "ts", "c"}
CHECKED = {"console", "text", "json", "ini"}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_is_of_a_kind_that_is_run_or_checked(page: Path):
    for block in blocks_of(page):
        assert block.language in RUN | CHECKED, block.name
    text = page.read_text()
    assert text.count("\n```") == 2 * len(blocks_of(page)), (
        "a block that is not closed, or indented"
    )
    for names in (WHEEL, ARCHIVE):
        for name in names.findall(text):
            assert name.split("-")[1] == version(), name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_files_that_a_page_names_exist(page: Path):
    """Those of the source tree, in inline code. Links are mkdocs' to check (`./dev docs`)."""
    named = re.findall(r"`((?:tests|zig|examples|bun|pyplue|docs)/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def version() -> str:
    found = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


JSON = [block for page in PAGES for block in blocks_of(page) if block.language == "json"]


@pytest.mark.parametrize("block", JSON, ids=lambda block: block.name)
def test_json_parses(block: Block):
    json.loads(block.text)


UNITS = [
    block for page in PAGES for block in blocks_of(page) if (block.title or "").endswith(".service")
]


@pytest.mark.parametrize("block", UNITS, ids=lambda block: block.name)
def test_systemd_finds_nothing_wrong_with_a_unit(
    block: Block, need: Callable[[str], str], tmp_path: Path
):
    need("systemd-analyze")
    unit = tmp_path / str(block.title)
    unit.write_text(
        re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", block.text, flags=re.M)
    )
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
    )
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("block", all_blocks("console"), ids=lambda block: block.name)
def test_commands_that_are_only_shown_exist(block: Block):
    module = block.page.parent if (block.page.parent / "build.zig").exists() else None
    commands = shown_commands.commands_in(block.text)
    assert commands, "a console block has lines that begin with $"
    for words in commands:
        shown_commands.check(words, module)
