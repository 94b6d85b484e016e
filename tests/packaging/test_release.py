"""The files of a release: made twice to the same bytes, checked from outside, and run where they
are meant to run: a machine with no compiler, an ARM machine, the oldest x86-64 CPU, musl, Bun."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lief
import pytest
from debian_machine import Machine
from source_tree import ROOT, copy_tree

from build_hooks import zig
from build_hooks.release import checks, environment, kept, libcrypto, sources
from build_hooks.release.targets import TARGETS, TESTED

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("apt-get") is None or os.geteuid() != 0,
        reason="a release is made and tried as root on a Debian machine",
    ),
]

EPOCH = "1790000000"


def release(tree: Path, out: Path, *names: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "build_hooks.release", "--out", str(out), *names],
        cwd=tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the release of TESTED."""
    folder = tmp_path_factory.mktemp("release")
    release(copy_tree(folder / "tree"), folder / "dist", *(target.name for target in TESTED))
    return folder / "dist"


def wheel_of(files: Path, name: str) -> Path:
    [target] = [target for target in TESTED if target.name == name]
    [wheel] = files.glob(f"*-{target.tag}.whl")
    return wheel


def archive_of(files: Path, name: str) -> Path:
    [archive] = files.glob(f"plue-*-{name}.tgz")
    return archive


# ---- what is made -------------------------------------------------------------------------------


def test_sha256sums_lists_every_file_and_is_true(files: Path):
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=files, check=True
    )
    listed = {line.split()[1] for line in (files / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in files.iterdir()} - {"SHA256SUMS"}
    assert len(listed) == 1 + 2 * len(TESTED)


def test_the_sdist_gives_the_same_bytes_in_another_place(files: Path, tmp_path: Path):
    """Whoever has the sources can make the very release: nothing of this machine is in it."""
    [sdist] = files.glob("*.tar.gz")
    mask = os.umask(0o077)
    try:
        shutil.unpack_archive(sdist, tmp_path / "elsewhere", "gztar")
        [tree] = (tmp_path / "elsewhere").iterdir()
        (tree / "setup.cfg").unlink()  # setuptools wrote it, and would list it another time
        release(tree, tmp_path / "again", "linux-x64")
    finally:
        os.umask(mask)
    made = [path.name for path in (tmp_path / "again").iterdir() if path.name != "SHA256SUMS"]
    assert len(made) == 3
    different = [
        it for it in made if (tmp_path / "again" / it).read_bytes() != (files / it).read_bytes()
    ]
    assert not different, differing_members(files, tmp_path / "again")


def differing_members(one: Path, other: Path) -> list[str]:
    """The files inside the linux-x64 wheels of two releases that are not the same."""
    first, second = (zipfile.ZipFile(wheel_of(folder, "linux-x64")) for folder in (one, other))
    names = {*first.namelist(), *second.namelist()}
    both = {*first.namelist()} & {*second.namelist()}
    return sorted(it for it in names if it not in both or first.read(it) != second.read(it))


# ---- checks that can fail -----------------------------------------------------------------------


def compiled(
    tmp_path: Path, source: str, *flags: str, triple: str = "x86_64-linux-gnu.2.28"
) -> bytes:
    (tmp_path / "it.c").write_text(source)
    command = [zig.compiler(), "cc", "-target", triple, "-O2", "-shared", "-fPIC", *flags]
    subprocess.run([*command, "-o", tmp_path / "it.so", tmp_path / "it.c"], check=True)
    return (tmp_path / "it.so").read_bytes()


X64 = TARGETS[0]
ADDS = "void f(int *a, int *b) { for (int i = 0; i < 64; i++) a[i] += b[i]; }"


def parsed(content: bytes):
    return lief.parse(io.BytesIO(content))


def test_code_for_a_newer_cpu_is_found(tmp_path: Path):
    new = parsed(compiled(tmp_path, ADDS, "-mcpu=x86_64_v3"))
    with pytest.raises(checks.CheckError, match=r"instructions of CPUs with .*AVX2"):
        checks.check_cpu("it.so", new, set())
    checks.check_cpu("it.so", parsed(compiled(tmp_path, ADDS)), set())


def test_code_for_a_newer_arm_cpu_is_found(tmp_path: Path):
    source = "int f(int *a) { return __atomic_fetch_add(a, 1, __ATOMIC_SEQ_CST); }"
    arm = "aarch64-linux-gnu.2.28"
    new = parsed(compiled(tmp_path, source, "-mcpu=neoverse_n1", triple=arm))
    with pytest.raises(checks.CheckError, match=r"instructions of CPUs with .*ldadd"):
        checks.check_cpu("it.so", new, set())
    checks.check_cpu("it.so", parsed(compiled(tmp_path, source, triple=arm)), set())


@pytest.mark.parametrize("triple", ["x86_64-linux-gnu.2.28", "x86_64-macos.13.0"])
def test_a_compiled_object_of_libcrypto_for_a_newer_cpu_is_found(
    tmp_path: Path, monkeypatch, triple: str
):
    """The same in a file of assembly is fine: that asks the CPU first."""
    (tmp_path / "lib").mkdir()
    objects = []
    for name, flags in (("old", []), ("older", []), ("a_name_longer_than_16", ["-mcpu=x86_64_v3"])):
        (tmp_path / f"{name}.c").write_text(ADDS)
        command = [zig.compiler(), "cc", "-target", triple, "-O2", "-c", *flags]
        objects.append(f"{name}.o")
        subprocess.run([*command, "-o", objects[-1], f"{name}.c"], cwd=tmp_path, check=True)
    command = [zig.compiler(), "ar", "rcs", "lib/libcrypto.a", *objects]
    subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.setattr(libcrypto, "built", lambda _: tmp_path)
    (tmp_path / "lib" / "assembly").write_text("a_name_longer_than_16.o\n")
    checks.check_libcrypto(triple)
    (tmp_path / "lib" / "assembly").write_text("old.o\n")
    with pytest.raises(checks.CheckError, match=r"a_name_longer_than_16\.o\): has instructions"):
        checks.check_libcrypto(triple)
    (tmp_path / "lib" / "assembly").write_text("\n".join(objects))
    with pytest.raises(checks.CheckError, match="0 objects were compiled"):
        checks.check_libcrypto(triple)


def test_a_file_that_git_does_not_track_is_found_in_the_sdist(files: Path):
    [sdist] = files.glob("pyplue-*.tar.gz")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    known = {*subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")}
    checks.check_sdist(sdist, known)
    with pytest.raises(checks.CheckError, match=r"has \['zig/ssh/touched.c'\], which git"):
        checks.check_sdist(sdist, known - {"zig/ssh/touched.c"})


def test_the_flags_of_whoever_makes_a_release_stay_outside(monkeypatch):
    for name in ("CFLAGS", "CPATH", "PERL5LIB", "OPENSSL_LOCAL_CONFIG_DIR"):
        monkeypatch.setenv(name, "-march=native")
    assert "-march=native" not in environment().values()


def test_an_export_too_many_or_too_few_is_found(tmp_path: Path):
    binary = parsed(compiled(tmp_path, "void f(void) {} void g(void) {}"))
    checks.check_exports("it.so", binary, {"f", "g"})
    with pytest.raises(checks.CheckError, match=r"also exports \['g'\]"):
        checks.check_exports("it.so", binary, {"f"})
    with pytest.raises(checks.CheckError, match=r"does not export \['h'\]"):
        checks.check_exports("it.so", binary, {"f", "g", "h"})


def test_a_newer_glibc_than_the_tag_says_is_found(tmp_path: Path):
    source = "#include <pthread.h>\nint f(pthread_t t) { return pthread_detach(t); }"
    binary = parsed(compiled(tmp_path, source, triple="x86_64-linux-gnu.2.36"))
    with pytest.raises(checks.CheckError, match=r"needs GLIBC_2\.34"):
        checks.check_elf("it.so", binary, X64)


def test_another_library_than_the_c_library_is_found(tmp_path: Path):
    (tmp_path / "z").mkdir()
    compiled(tmp_path / "z", "int z(void) { return 1; }", "-Wl,-soname,libz.so.1")
    shutil.move(tmp_path / "z" / "it.so", tmp_path / "libz.so")
    source = "int z(void); int f(void) { return z(); }"
    binary = parsed(compiled(tmp_path, source, f"-L{tmp_path}", "-lz"))
    with pytest.raises(checks.CheckError, match=r"needs \['libz.so.1'\]"):
        checks.check_elf("it.so", binary, X64)


def test_a_wheel_with_another_tag_or_a_changed_file_is_refused(files: Path, tmp_path: Path):
    good = wheel_of(files, "linux-x64")
    checks.check_wheel(good, X64)
    with pytest.raises(checks.CheckError, match="wrong tag"):
        checks.check_wheel(good, TARGETS[1])
    bad = tmp_path / good.name
    with (
        zipfile.ZipFile(good) as source,
        zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as changed,
    ):
        for name in source.namelist():
            content = source.read(name)
            changed.writestr(name, content + b"#" if name == "pyplue/ffi.py" else content)
    with pytest.raises(checks.CheckError, match=r"pyplue/ffi.py: wrong in RECORD"):
        checks.check_wheel(bad, X64)


def test_a_source_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = kept.root() / "downloads"
    folder.mkdir(parents=True)
    for name, _ in sources.LIBSSH.files:
        (folder / name).write_bytes(b"not libssh")
    with pytest.raises(sources.SourceError, match="is not the pinned file: its SHA-256 is"):
        sources.unpacked(sources.LIBSSH)


def test_a_source_that_is_not_to_be_had_is_named_with_a_cure(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sources.SourceError, match=r"libssh_0\.12\.2\.orig\.tar\.xz .* put it into"):
        sources.unpacked(sources.LIBSSH)


def test_what_is_kept_is_made_once_and_is_there_only_when_it_is_whole(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def make(work: Path) -> Path:
        time.sleep(0.1)
        made.append(work)
        (work / "it").mkdir()
        (work / "it" / "file").write_text("whole")
        return work / "it"

    def fail(work: Path) -> Path:
        (work / "half").mkdir()
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        kept.folder("things/one", fail)
    with ThreadPoolExecutor(4) as pool:
        folders = [*pool.map(lambda _: kept.folder("things/one", make), range(4))]
    assert len(made) == 1
    assert (folders[3] / "file").read_text() == "whole"
    names = {path.name for path in (kept.root() / "things").iterdir()}
    assert names == {"one", "one.lock"}


@pytest.mark.parametrize("words", [["linux-riscv"], ["linux-x64", "windows-x64"]])
def test_an_unknown_platform_is_a_usage_error_that_lists_the_known(words: list[str]):
    command = [sys.executable, "-m", "build_hooks.release", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "linux-x64, linux-arm64" in done.stderr


# ---- run where it is meant to run ---------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """An x86-64 machine where the wheel is installed, with its extra for the Git server."""
    it = Machine(tmp_path_factory.mktemp("machine"), "amd64")
    wheel = wheel_of(files, "linux-x64")
    install_wheels(it, wheel, "manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
    done = it.run(
        "sh",
        "-ec",
        "python3 -m venv /venv; /venv/bin/pip install -q --no-index --find-links /wheels "
        f"'/wheels/{wheel.name}[ssh]' 2>&1",
    )
    assert done.returncode == 0, done.stdout
    return it


def install_wheels(it: Machine, wheel: Path, *platforms: str) -> None:
    """Puts `wheel` and what its extra needs into /wheels of the machine."""
    folder = it.root / "wheels"
    folder.mkdir()
    shutil.copy(wheel, folder)
    needed = ["SQLAlchemy>=2", "prometheus-client>=0.21"]
    chosen = [f"--platform={name}" for name in platforms]
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", *chosen]
    subprocess.run([*command, "--python-version=3.11", "-d", folder, *needed], check=True)


def test_the_machine_has_nothing_to_compile_with(machine: Machine):
    done = machine.run("sh", "-c", "command -v cc gcc clang zig pkg-config; ls /usr/include/libssh")
    assert "/usr/bin" not in done.stdout
    assert not list(machine.root.glob("usr/lib/**/libssh.*"))
    assert not list(machine.root.glob("usr/lib/**/libssl.a"))


def test_a_machine_with_only_python_runs_the_demo(machine: Machine):
    done = machine.run("/venv/bin/python", "-m", "pyplue", "demo")
    assert done.returncode == 0, done.stdout
    assert "the real git pushed 16 MB" in done.stdout
    assert "All of it works on this machine." in done.stdout
    report = machine.run("/venv/bin/python", "-m", "pyplue").stdout
    assert f"on libssh {sources.LIBSSH.upstream}" in report


def test_without_git_the_demo_says_what_it_could_not_try(machine: Machine):
    tools = machine.root / "few"  # in a PATH of its own
    tools.mkdir()
    for name in ("sh", "seq", "printf", "uname", "sort", "sleep"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    done = machine.run("/venv/bin/python", "-m", "pyplue", "demo", PATH="/few")
    assert done.returncode == 0, done.stdout
    assert "git        not tried, needs git and ssh and ssh-keygen: apt-get install" in done.stdout
    assert "4 of 5 were tried, and work on this machine." in done.stdout


def test_every_program_of_the_wheel_runs(machine: Machine):
    for name in checks.PROGRAMS:
        done = machine.run(f"/venv/bin/{name}", "--help")
        assert done.returncode == 0, done.stdout
        assert name in done.stdout


def test_an_arm_machine_runs_the_demo(files: Path, tmp_path: Path):
    """Under qemu, slowly; the programs it starts are ARM's too."""
    it = Machine(tmp_path, "arm64")
    wheel = wheel_of(files, "linux-arm64")
    install_wheels(it, wheel, "manylinux_2_28_aarch64", "manylinux_2_17_aarch64")
    for package in (it.root / "wheels").iterdir():
        command = ["pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
        where = ["--only-binary=:all:", "--python-version=3.11", f"--target={it.root / 'pyplue'}"]
        platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (17, 28)]
        words = [sys.executable, "-m", *command, *where, *platforms, str(package)]
        subprocess.run(words, check=True)
    done = it.run(
        *("python3", "-m", "pyplue", "demo"),
        PYTHONPATH="/pyplue",
        PATH="/pyplue/bin:/usr/bin:/bin",
    )
    assert done.returncode == 0, done.stdout
    assert "the real git pushed 16 MB" in done.stdout
    assert "All of it works on this machine." in done.stdout


# Every library once, in one process: what a CPU without SSE3, AES and SHA gets to run.
EVERY_LIBRARY = """
import os, pathlib, subprocess
from pyplue import ffi, jwt, ratelimit, ssh, vt
claims = jwt.decode(jwt.encode({"sub": "ann"}, "s" * 32), "s" * 32, algorithms=["HS256"])
assert claims == {"sub": "ann"} and ffi.jwt.jwt_cpu_path() == b"scalar", ffi.jwt.jwt_cpu_path()
limiter = ratelimit.RateLimiter(1, "1m")
assert [limiter.check("a") for _ in range(2)] == [True, False]
session = vt.spawn(["sh", "-c", "echo seen"], session_id="old-cpu")
assert session.wait(timeout=60) == 0
assert "seen" in "".join(event.data for event in session.events() if event.code == "o")

os.chdir("/tmp")
subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], check=True)
subprocess.run(["git", "init", "-q", "--bare", "repositories/ann/project.git"], check=True)
ann = ssh.Principal(keys=[pathlib.Path("key.pub").read_text()], rules=["write ann/*"])
for cipher in ("chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com"):
    client = f"ssh -F none -i key -c {cipher} -o UserKnownHostsFile=known"
    client += " -o StrictHostKeyChecking=no"
    with ssh.GitServer("repositories", port=0, host_key="host", keys={"ann": ann}) as server:
        address = f"ssh://git@127.0.0.1:{server.port}/ann/project.git"
        environment = {**os.environ, "GIT_SSH_COMMAND": client}
        subprocess.run(["git", "ls-remote", address], check=True, env=environment)
print("every library ran")
"""


def test_an_x86_cpu_of_the_first_kind_runs_every_library(machine: Machine):
    """qemu64 has SSE2 and next to nothing newer: one instruction too new would end the process."""
    shutil.copy("/usr/bin/qemu-x86_64-static", machine.root / "usr/bin")
    (machine.root / "every_library.py").write_text(EVERY_LIBRARY)
    emulated = ["qemu-x86_64-static", "-cpu", "qemu64", "/venv/bin/python", "/every_library.py"]
    done = machine.run(*emulated)
    assert done.returncode == 0, done.stdout
    assert "every library ran" in done.stdout


def test_a_bun_project_installs_the_archive(
    files: Path, need: Callable[[str], str], tmp_path: Path
):
    (tmp_path / "package.json").write_text('{"name": "it", "private": true}')
    bun = need("bun")
    added = subprocess.run(
        [bun, "add", archive_of(files, "linux-x64")], cwd=tmp_path, capture_output=True, text=True
    )
    assert added.returncode == 0, added.stderr
    (tmp_path / "it.ts").write_text(
        """
import { Key, libraryPath } from "plue/jwt";
import { RateLimiter } from "plue/ratelimit";
import { libsshVersion } from "plue/ssh";
import { version } from "plue/vt";
const key = new Key("a secret of at least 32 bytes, please");
if (key.verify(key.sign({ sub: "ann" })).sub !== "ann") throw new Error("a token");
if (!new RateLimiter(1, 60_000).check("a")) throw new Error("a limit");
console.log(libraryPath, libsshVersion(), version);
"""
    )
    done = subprocess.run([bun, "it.ts"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/node_modules/plue/lib/libplue_jwt.so" in done.stdout
    assert sources.LIBSSH.upstream in done.stdout
    forwarder = [tmp_path / "node_modules" / ".bin" / "vibetunnel-fwd", "--help"]
    assert subprocess.run(forwarder, capture_output=True).returncode == 0


LOADS = """
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **names) {
    for (int i = 1; i + 1 < count; i += 2) {
        void *library = dlopen(names[i], RTLD_NOW);
        if (!library) { puts(dlerror()); return 1; }
        const char *(*version)(void) = (const char *(*)(void))dlsym(library, names[i + 1]);
        puts(version());
    }
    return 0;
}
"""


def test_a_musl_program_loads_every_library(files: Path, tmp_path: Path):
    """With the loader of Debian's package musl, and the programs of the archive too."""
    shutil.unpack_archive(archive_of(files, "linux-x64-musl"), tmp_path, "gztar")
    (tmp_path / "loads.c").write_text(LOADS)
    compiler = [zig.compiler(), "cc", "-target", "x86_64-linux-musl", "-dynamic"]
    command = [*compiler, "-o", tmp_path / "loads", tmp_path / "loads.c"]
    subprocess.run(command, check=True)
    package = tmp_path / "package"
    words: list[str | Path] = [tmp_path / "loads"]
    for library, version in (
        ("plue_jwt", "jwt_version"),
        ("plue_ratelimit", "ratelimit_version"),
        ("plue_ssh", "plue_ssh_libssh_version"),
        ("vt_fwd", "vt_fwd_version"),
    ):
        words += [package / "lib" / f"lib{library}.so", version]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert sources.LIBSSH.upstream in done.stdout
    for name in checks.PROGRAMS:
        answer = subprocess.run([package / "bin" / name, "--help"], capture_output=True, text=True)
        assert answer.returncode == 0, answer.stderr


# Half of what the same tests do with the system's libssh.
SMALLER = {
    "PLUE_SSH_AUTH_ATTEMPTS": "2000",
    "PLUE_SSH_BIG_MB": "12",
    "PLUE_SSH_FILES": "1000",
    "PLUE_SSH_COMMITS": "250",
    "PLUE_SSH_SLOW_S": "3",
}


def test_the_wheel_passes_the_tests_of_the_git_server(files: Path, tmp_path: Path):
    """With the libssh that is inside; the other libraries are the same code as in the tree."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, wheel_of(files, "linux-x64")], check=True)
    # What the tests need is there already; the source tree's pyplue is not in that folder.
    [folder] = (tmp_path / "venv").glob("lib/python3.*/site-packages")
    (folder / "test_packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Those that meet libssh: what is Python alone is the same code as in the source tree.
    alone = re.compile(r"test_(admin|metrics|serve|store)")
    found = sorted((ROOT / "tests" / "ssh").glob("test_*.py"))
    tests = [str(it.relative_to(ROOT)) for it in found if not alone.match(it.name)]
    tests.append("tests/interop/test_ssh_clients.py")
    words = ["-q", "-n2", "--dist=loadfile", "--reruns=2", *tests]
    command = [sys.executable, ROOT / "tests" / "installed.py", "--python", python, *words]
    done = subprocess.run(
        command,
        env={**os.environ, **SMALLER},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert f"libssh {sources.LIBSSH.upstream}" in done.stdout
