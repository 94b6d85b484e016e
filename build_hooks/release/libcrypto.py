"""Compiles OpenSSL's libcrypto with zig cc for one target: what libssh needs of it, and no more.

The result is a folder with lib/libcrypto.a, include/openssl and lib/assembly, which lists the
objects that no compiler made. It is kept in the cache under a name that holds everything it
depends on. All symbols are hidden: linked into a library, they are nobody else's business.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from build_hooks import zig
from build_hooks.release import ReleaseError, environment, kept, sources
from build_hooks.release.targets import TESTED

# OpenSSL's names of the systems. Its own compiler flags for them are the baseline CPU's; faster
# instructions are in assembly and picked at run time.
_CONFIGURATIONS = {
    ("x86_64", "linux"): "linux-x86_64",
    ("aarch64", "linux"): "linux-aarch64",
    ("x86_64", "macos"): "darwin64-x86_64",
    ("aarch64", "macos"): "darwin64-arm64",
}
# Left in: AES, ChaCha20-Poly1305, SHA, MD5 (fingerprints), HMAC, RSA, EC, X25519, Ed25519, DH,
# ML-KEM, the SSH key derivation, PEM and PKCS #8, and DES, which libssh names.
_OPTIONS = """
no-shared no-module no-dso no-engine no-static-engine no-apps no-tests no-docs no-makedepend
no-ssl no-tls no-dtls no-quic no-srp no-srtp no-psk no-nextprotoneg no-multiblock
no-cmp no-cms no-ct no-ocsp no-ts no-rfc3779 no-http no-sock no-dgram no-comp no-ui-console
no-autoload-config no-filenames no-async no-thread-pool no-default-thread-pool
no-legacy no-md4 no-mdc2 no-rc2 no-rc4 no-idea no-seed no-bf no-cast no-camellia no-aria
no-sm2 no-sm3 no-sm4 no-whirlpool no-rmd160 no-siphash no-siv no-ocb no-scrypt no-blake2 no-argon2
no-ec2m no-gost no-dsa no-ml-dsa no-slh-dsa no-afalgeng
"""
# What OpenSSL puts before the names of its objects.
OBJECT_PREFIX = "libcrypto-lib-"
_FLAGS = [
    "-fvisibility=hidden",
    "-O2",
    "-fno-slp-vectorize",  # zig/ssh/static_libssh.zig says why
    "-g0",
    # Zig brings no CommonCrypto for macOS; getentropy is there on every version since 10.12.
    "-DOPENSSL_NO_APPLE_CRYPTO_RANDOM",
]

# For sed, as assembly knows no -fvisibility: below each `.globl x` it writes a line that hides x.
# In Mach-O a common symbol cannot be hidden; the only one becomes a plain one.
_HIDE = r"s/^[[:space:]]*\.globl[[:space:]]+([A-Za-z0-9_$.]+).*/&\n{directive} \1/"
_HIDING = {
    "linux": _HIDE.format(directive=".hidden"),
    "macos": _HIDE.format(directive=".private_extern")
    + r"; s/^\.comm[[:space:]]+([^,]+),([0-9]+),([0-9]+)/.zerofill __DATA,__bss,\1,\2,\3/",
}
_TOOLS = {
    "zig-cc": """\
#!/bin/sh
for word; do
    case $word in *.[sS]) sed -i -E {hide} "$word" ;; esac
done
exec {zig} cc -target {triple} -mcpu=baseline "$@"
""",
    "zig-ar": '#!/bin/sh\nexec {zig} ar "$@"\n',
    "zig-ranlib": '#!/bin/sh\nexec {zig} ranlib "$@"\n',
}


def built(triple: str) -> Path:
    """The folder with libcrypto for `triple`; compiled in about a minute when it is not there."""
    source = sources.unpacked(sources.OPENSSL)
    recipe = [2, source.name, zig.REQUIRED_ZIG, _OPTIONS, _FLAGS, _TOOLS, _HIDING[_system(triple)]]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    name = f"libcrypto/{key}-{triple}"
    return kept.folder(name, lambda work: _compile(triple, source, work))


def _compile(triple: str, source: Path, work: Path) -> Path:
    # In a fixed place beside its sources: the paths that the compiler sees are always the same.
    (work / "openssl").symlink_to(source)
    build, tools = work / "build", work / "tools"
    build.mkdir()
    _write_tools(tools, triple)
    surroundings = environment(
        PATH=f"{tools}{os.pathsep}{os.environ['PATH']}",
        SOURCE_DATE_EPOCH="0",  # OpenSSL writes the time of its build into the library
    )
    configuration = _CONFIGURATIONS[triple.partition("-")[0], _system(triple)]
    names = ["CC=zig-cc", "AR=zig-ar", "RANLIB=zig-ranlib"]
    place = ["--prefix=/nonexistent", "--openssldir=/nonexistent", "--libdir=lib"]
    configure = [
        "perl",
        "../openssl/Configure",
        configuration,
        *names,
        *place,
        *_OPTIONS.split(),
        *_FLAGS,
    ]
    jobs = f"-j{os.cpu_count() or 1}"
    for command in (configure, ["make", "-s", jobs, "build_generated", "libcrypto.a"]):
        done = subprocess.run(
            command, cwd=build, env=surroundings, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-4000:]
            raise ReleaseError(f"{said}\nlibcrypto for {triple}: {command[0]} failed")
    result = work / "result"
    (result / "lib").mkdir(parents=True)
    shutil.copyfile(build / "libcrypto.a", result / "lib" / "libcrypto.a")
    assembly = sorted(f"{OBJECT_PREFIX}{path.stem}.o" for path in build.rglob("*.[sS]"))
    (result / "lib" / "assembly").write_text("".join(f"{name}\n" for name in assembly))
    shutil.copyfile(source / "LICENSE.txt", result / "LICENSE.txt")
    for include in (source / "include", build / "include"):
        shutil.copytree(include / "openssl", result / "include" / "openssl", dirs_exist_ok=True)
    return result


def _system(triple: str) -> str:
    """ "linux" or "macos"."""
    return triple.split("-")[1].partition(".")[0]


def _write_tools(folder: Path, triple: str) -> None:
    """A compiler and an archiver by names without a path: OpenSSL keeps its compiler's name."""
    folder.mkdir()
    hide = shlex.quote(_HIDING[_system(triple)])
    words = {"zig": shlex.quote(zig.compiler()), "triple": triple, "hide": hide}
    for name, text in _TOOLS.items():
        (folder / name).write_text(text.format(**words))
        (folder / name).chmod(0o755)


if __name__ == "__main__":
    for target in TESTED:
        built(target.triple)
