"""What a finished wheel must be, looked at from outside: tag, contents, symbols, CPU.

Raises CheckError, whose text names the file and what is wrong with it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import capstone
import iced_x86
import lief

from build_hooks.release import ReleaseError, libcrypto
from build_hooks.release.targets import Target
from pyplue import ffi

# It grumbles about empty parts of Mach-O files; what matters here is raised as a CheckError.
lief.logging.disable()

SIZE_LIMIT = 6_000_000
PROGRAMS = ("plue-jwt", "plue-ratelimit", "plue-ssh", "vibetunnel-fwd", "vt")
LICENSES = ("LICENSE", "RELINKING.md", "libssh/COPYING", "libssh/BSD", "openssl/LICENSE.txt")

# What the system of a user has: the C library in its parts.
_NEEDED = {
    "linux-gnu": re.compile(r"(libc|libm|libdl|libpthread|librt|ld-linux-[\w-]+)\.so\.\d"),
    "linux-musl": re.compile(r"libc\.so"),
    "macos": re.compile(r"/usr/lib/libSystem\.B\.dylib"),
}
# x86-64 as it began (psABI level 1), and what older CPUs take for a no-op or a system has enabled.
_X86_BASELINE = """
INTEL8086 INTEL186 INTEL286 INTEL386 INTEL486 X64 CMOV CX8 CPUID TSC MSR FPU FPU287 FPU387 MMX FXSR
SSE SSE2 SYSCALL MULTIBYTENOP PAUSE CLFSH CET_IBT CET_SS
"""
# Instruction groups of ARMv8.0 that not every such CPU has, and those of later versions.
_ARM_BEYOND = re.compile(
    r"(sha\d|aes|pmull|crc32|ld(add|clr|set|eor|[su](max|min))|cas|swp|[su]dot)"
)
_M1 = ("cas", "swp", "ldadd", "ldclr", "ldeor", "ldset", "crc32")
_SHA = {"SHA", "SSSE3", "SSE4_1", "sha256"}
# Names that Zig's linker gives to the parts of a Mach-O file.
_LINKERS = {"__dso_handle", "_mh_dylib_header", "_mh_execute_header"}


class CheckError(ReleaseError):
    """A file of the release is not what it has to be."""


def check_wheel(wheel: Path, target: Target) -> None:
    """Everything that can be seen of `wheel` without running it."""
    _expect(wheel.name.endswith(f"-py3-none-{target.tag}.whl"), wheel.name, "wrong tag")
    size = wheel.stat().st_size
    _expect(size <= SIZE_LIMIT, wheel.name, f"{size} bytes, {SIZE_LIMIT} at most")
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    [info] = {name.partition("/")[0] for name in contents if ".dist-info/" in name}
    tags = re.findall(r"^Tag: (.*)$", contents[f"{info}/WHEEL"].decode(), re.MULTILINE)
    _expect(tags == [f"py3-none-{target.tag}"], wheel.name, f"its WHEEL says {tags}")
    _check_record(wheel.name, contents, f"{info}/RECORD")

    suffix = "dylib" if target.name.startswith("darwin") else "so"
    libraries = {f"pyplue/_native/lib{it.name}.{suffix}": it for it in ffi.LIBRARIES.values()}
    native = {name for name in contents if name.startswith("pyplue/_native/")}
    _expect(native == {*libraries}, wheel.name, f"its libraries are {sorted(native)}")
    scripts = f"{info.removesuffix('.dist-info')}.data/scripts"
    programs = {name for name in contents if name.startswith(f"{scripts}/")}
    expected = {f"{scripts}/{name}" for name in PROGRAMS}
    _expect(programs == expected, wheel.name, f"its programs are {sorted(programs)}")
    for name in LICENSES:
        _expect(f"{info}/licenses/{name}" in contents, wheel.name, f"licence {name} is missing")

    for name in (*libraries, *programs):
        if contents[name].startswith(b"#!"):
            continue
        binary = lief.parse(io.BytesIO(contents[name]))
        _expect(binary is not None, name, "not an executable file")
        library = libraries.get(name)
        if library is not None:
            check_exports(name, binary, {*library.symbols})
        if isinstance(binary, lief.ELF.Binary):
            check_elf(name, binary, target)
        else:
            _check_mach_o(name, binary, target)
        # The SHA-256 of plue_jwt is chosen at run time. In plue_ssh the assembly of libcrypto
        # hides what is compiled, with the same options as here: see check_libcrypto.
        if not re.search("plue.ssh", name):
            check_cpu(name, binary, _SHA if "jwt" in name else set())
    if "linux-gnu" in target.triple:
        _check_auditwheel(wheel, target)


def check_sdist(sdist: Path, tracked: set[str] | None) -> None:
    """It holds files of the repository, and what setuptools writes; no key, no leftover."""
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    _expect({"build.zig", "pyproject.toml", "PKG-INFO"} <= names, sdist.name, "not a source tree")
    if tracked is not None:
        written = re.compile(r"PKG-INFO|setup\.cfg|pyplue\.egg-info/.*")
        strange = sorted(it for it in names - tracked if not written.fullmatch(it))
        _expect(not strange, sdist.name, f"has {strange[:5]}, which git does not track")


def check_archive(archive: Path, target: Target) -> None:
    """The archive for people without Python has the parts that its readers are told of."""
    with tarfile.open(archive) as tar:
        names = {name.removeprefix("package/") for name in tar.getnames()}
        manifest = json.load(tar.extractfile("package/package.json"))  # type: ignore[arg-type]
    suffix = "dylib" if target.name.startswith("darwin") else "so"
    expected = {
        *(f"lib/lib{library.name}.{suffix}" for library in ffi.LIBRARIES.values()),
        *(f"bin/{name}" for name in PROGRAMS),
        *(f"licenses/{name}" for name in LICENSES),
        *(f"include/{name}.h" for name in ("plue_jwt", "plue_ratelimit", "plue_ssh", "vt_fwd")),
        *(path.removeprefix("./") for path in manifest["exports"].values()),
        "package.json",
    }
    missing = sorted(expected - names)
    _expect(not missing, archive.name, f"without {missing}")


def check_libcrypto(triple: str) -> None:
    """Its C is compiled for the baseline; faster instructions are in OpenSSL's assembly alone,
    which asks the CPU before it uses them."""
    folder = libcrypto.built(triple) / "lib"
    assembly = (folder / "assembly").read_text().split()
    compiled = 0
    for name, content in _members(folder / "libcrypto.a"):
        if name in assembly:
            continue
        binary = lief.parse(io.BytesIO(content))
        _expect(binary is not None, f"libcrypto.a({name})", "not an object file")
        check_cpu(f"libcrypto.a({name})", binary, set())
        compiled += 1
    _expect(compiled > len(assembly) > 0, str(folder), f"{compiled} objects were compiled")


def _members(archive: Path) -> Iterable[tuple[str, bytes]]:
    """Names and contents of an ar archive, of the System V kind or macOS's."""
    data = archive.read_bytes()
    _expect(data.startswith(b"!<arch>\n"), archive.name, "not an archive")
    at, long_names = 8, b""
    while at + 60 <= len(data):
        name, size = data[at : at + 16].rstrip(), int(data[at + 48 : at + 58])
        content = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
        if name == b"//":
            long_names = content
        elif name not in (b"/", b"/SYM64/"):
            if name.startswith(b"#1/"):
                length = int(name[3:])
                name, content = content[:length].rstrip(b"\0"), content[length:]
                if name.startswith(b"__.SYMDEF"):
                    continue
            elif name.startswith(b"/"):
                name = long_names[int(name[1:]) :].partition(b"/\n")[0]
            yield name.rstrip(b"/").decode(), content


def _check_record(wheel: str, contents: dict[str, bytes], record: str) -> None:
    listed = {}
    for line in contents[record].decode().splitlines():
        name, digest, _ = line.rsplit(",", 2)
        listed[name] = digest
    _expect({*listed} == {*contents}, wheel, "its RECORD lists other files")
    for name, digest in listed.items():
        actual = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest()).rstrip(b"=")
        _expect(name == record or digest == f"sha256={actual.decode()}", name, "wrong in RECORD")


def check_exports(name: str, binary: lief.Binary, expected: set[str]) -> None:
    if isinstance(binary, lief.MachO.Binary):
        # What the loader finds; C's names have an underscore before them.
        trie = binary.dyld_exports_trie or binary.dyld_info
        exported = {export.symbol.name.removeprefix("_") for export in trie.exports} - _LINKERS
    else:
        exported = {symbol.name for symbol in binary.exported_symbols}
    _expect(expected <= exported, name, f"does not export {sorted(expected - exported)}")
    _expect(exported <= expected, name, f"also exports {sorted(exported - expected)[:5]}")


def check_elf(name: str, binary: lief.ELF.Binary, target: Target) -> None:
    cpu, system, libc = target.triple.split("-")
    machine = {"x86_64": lief.ELF.ARCH.X86_64, "aarch64": lief.ELF.ARCH.AARCH64}[cpu]
    _expect(binary.header.machine_type == machine, name, "made for another CPU")
    libc, _, newest = libc.partition(".")
    strange = [it for it in binary.libraries if not _NEEDED[f"{system}-{libc}"].fullmatch(it)]
    _expect(not strange, name, f"needs {strange}")
    for requirement in binary.symbols_version_requirement:
        for version in requirement.get_auxiliary_symbols():
            wanted = version.name.removeprefix("GLIBC_")
            _expect(
                libc == "gnu" and _number(wanted) <= _number(newest),
                name,
                f"needs {version.name} of {requirement.name}",
            )
    _expect(binary.has_nx, name, "its stack is executable")
    if binary.libraries:
        relro = any(it.type == lief.ELF.Segment.TYPE.GNU_RELRO for it in binary.segments)
        _expect(relro, name, "its tables of addresses stay writable (no RELRO)")


def _check_mach_o(name: str, binary: lief.MachO.Binary, target: Target) -> None:
    cpu, system = target.triple.split("-")
    expected = {
        "x86_64": lief.MachO.Header.CPU_TYPE.X86_64,
        "aarch64": lief.MachO.Header.CPU_TYPE.ARM64,
    }[cpu]
    _expect(binary.header.cpu_type == expected, name, "made for another CPU")
    needed = {library.name for library in binary.libraries} - {f"@rpath/{Path(name).name}"}
    strange = sorted(it for it in needed if not _NEEDED["macos"].fullmatch(it))
    _expect(not strange, name, f"needs {strange}")
    oldest = binary.build_version.minos
    allowed = _number(system.partition(".")[2])
    _expect([*oldest][: len(allowed)] <= allowed, name, f"needs macOS {oldest}")
    # macOS on Apple's CPUs runs nothing without one.
    _expect(cpu != "aarch64" or binary.has_code_signature, name, "has no code signature")


def check_cpu(name: str, binary: lief.Binary, dispatched: set[str]) -> None:
    """Nothing beyond the baseline CPU but the features in `dispatched`."""
    beyond = _beyond_baseline(binary) - dispatched
    if isinstance(binary, lief.MachO.Binary):
        # Macs began with Core 2 and with the M1.
        beyond -= {"SSE3", "SSSE3", "CMPXCHG16B"} if _is_x86(binary) else {*_M1}
    _expect(not beyond, name, f"has instructions of CPUs with {sorted(beyond)}")


def _beyond_baseline(binary: lief.Binary) -> set[str]:
    """CPU features that instructions in `binary` need and that not every CPU of its kind has."""
    found: set[str] = set()
    for section in binary.sections:
        if section.name not in (".text", "__text") and not section.name.startswith(".text."):
            continue
        code = bytes(section.content)
        if _is_x86(binary):
            # One instruction of each kind: there are millions, of a few hundred kinds.
            kinds = {instruction.code: instruction for instruction in iced_x86.Decoder(64, code)}
            for instruction in kinds.values():
                # Older CPUs run it as bsf, which does the same for what compilers give it.
                if instruction.mnemonic != iced_x86.Mnemonic.TZCNT:
                    found.update(_FEATURES[it] for it in instruction.cpuid_features())
        else:
            decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
            decoder.skipdata = True
            for mnemonic in {it[2] for it in decoder.disasm_lite(code, 0)}:
                if match := _ARM_BEYOND.match(mnemonic):
                    found.add("sha256" if mnemonic.startswith("sha256") else match[0])
    return found - {*_X86_BASELINE.split()}


_FEATURES = {
    value: name for name, value in vars(iced_x86.CpuidFeature).items() if isinstance(value, int)
}


def _is_x86(binary: lief.Binary) -> bool:
    if isinstance(binary, lief.ELF.Binary):
        return binary.header.machine_type == lief.ELF.ARCH.X86_64
    return binary.header.cpu_type == lief.MachO.Header.CPU_TYPE.X86_64


def _check_auditwheel(wheel: Path, target: Target) -> None:
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    answer = subprocess.run(command, capture_output=True, text=True)
    said = " ".join((answer.stdout + answer.stderr).split())
    found = re.search(r'platform tag: "manylinux_2_(\d+)_', said)
    limit = int(target.triple.rpartition(".")[2])
    fits = answer.returncode == 0 and found is not None and int(found[1]) <= limit
    _expect(fits, wheel.name, f"auditwheel: {said}")


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _expect(condition: bool, name: str, otherwise: str) -> None:
    if not condition:
        raise CheckError(f"{name}: {otherwise}")
