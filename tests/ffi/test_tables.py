"""One ABI, written down three times: C header, Python table, TypeScript table. They must agree.

The header is read by a C preprocessor (`zig cc -E`) and pycparser, the TypeScript table by Bun, and
what the library exports by the system's own symbol reader.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pycparser import c_ast, c_parser
from source_tree import ROOT

from pyplue import ffi
from pyplue.ffi import Signature

# Just enough of the C library's headers for declarations: the compiler's own hold extensions that
# pycparser does not read.
FAKE_HEADERS = {
    "stdbool.h": "typedef _Bool bool;",
    "stddef.h": "typedef unsigned long size_t;",
    "stdint.h": (
        "typedef signed char int8_t; typedef unsigned char uint8_t;"
        "typedef short int16_t; typedef unsigned short uint16_t;"
        "typedef int int32_t; typedef unsigned int uint32_t;"
        "typedef long int64_t; typedef unsigned long uint64_t;"
    ),
}

# A C type by its spelling; every 64-bit platform that pyplue supports has a 64-bit size_t.
SCALARS = {
    "void": "void",
    "bool": "bool",
    "_Bool": "bool",
    "int": "i32",
    "int32_t": "i32",
    "uint16_t": "u16",
    "uint32_t": "u32",
    "int64_t": "i64",
    "uint64_t": "u64",
    "size_t": "u64",
}

LIBRARIES = list(ffi.LIBRARIES.values())


def header_of(library: ffi.Library) -> Path:
    [header] = ROOT.glob(f"zig/*/include/{library.name}.h")
    return header


def bun_type(node: c_ast.Node) -> str:
    """The FFIType name for a C declaration's type."""
    if isinstance(node, c_ast.PtrDecl):
        pointee = node.type
        if isinstance(pointee, c_ast.FuncDecl):
            return "function"
        is_text = (
            isinstance(pointee, c_ast.TypeDecl)
            and isinstance(pointee.type, c_ast.IdentifierType)
            and pointee.type.names == ["char"]
        )
        return "cstring" if is_text and "const" in pointee.quals else "ptr"
    assert isinstance(node, c_ast.TypeDecl), node
    name = " ".join(node.type.names)
    return SCALARS.get(name) or TYPEDEFS[name]


# Function pointer typedefs of a header, filled while it is read.
TYPEDEFS: dict[str, str] = {}


def declarations(header: Path, fakes: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """Every function that a header declares, in FFIType names."""
    for name, text in FAKE_HEADERS.items():
        (fakes / name).write_text(text)
    command = [sys.executable, "-m", "ziglang", "cc", "-E", "-P", "-nostdinc", "-I", str(fakes)]
    source = subprocess.run(
        [*command, str(header)], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for item in c_parser.CParser().parse(source).ext:
        if isinstance(item, c_ast.Typedef) and item.name not in SCALARS:
            is_pointer = isinstance(item.type, c_ast.PtrDecl)
            TYPEDEFS[item.name] = bun_type(item.type) if is_pointer else item.name
        if isinstance(item, c_ast.Decl) and isinstance(item.type, c_ast.FuncDecl):
            params = item.type.args.params if item.type.args else []
            args = tuple(bun_type(param.type) for param in params)
            found[item.name] = (() if args == ("void",) else args, bun_type(item.type.type))
    assert found, f"{header} declares no function"
    return found


def interchangeable(header: tuple[tuple[str, ...], str], table: Signature) -> bool:
    """Equal, where `ptr` may stand for text: the same pointer, handed over without a copy."""

    def fits(declared: str, written: str) -> bool:
        return declared == written or {declared, written} == {"cstring", "ptr"}

    args, returns = header
    return (
        len(args) == len(table.args)
        and all(map(fits, args, table.args))
        and fits(returns, table.returns)
    )


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_the_python_table_is_the_header(library: ffi.Library, tmp_path: Path):
    declared = declarations(header_of(library), tmp_path)
    assert sorted(declared) == sorted(library.symbols)
    wrong = {
        name: (declared[name], table)
        for name, table in library.symbols.items()
        if not interchangeable(declared[name], table)
    }
    assert not wrong


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_the_library_exports_its_header_and_nothing_else(library: ffi.Library, tmp_path: Path):
    flags = "-gU" if sys.platform == "darwin" else "-D --defined-only"
    listing = subprocess.run(
        ["nm", *flags.split(), str(library.path)], check=True, capture_output=True, text=True
    ).stdout
    exported = {line.split()[-1].removeprefix("_") for line in listing.splitlines()}
    assert exported == set(declarations(header_of(library), tmp_path))


@pytest.mark.parametrize("name", ffi.LIBRARIES)
def test_the_typescript_table_is_the_python_table(
    name: str, need: Callable[[str], str], tmp_path: Path
):
    library = ffi.LIBRARIES[name]
    module = ROOT / "bun" / f"plue_{name}.ts"
    script = tmp_path / "table.ts"
    script.write_text(
        f"import {{ symbols }} from {json.dumps(str(module))};\n"
        "console.log(JSON.stringify(symbols));\n"
    )
    answer = subprocess.run(
        [need("bun"), str(script)], check=True, capture_output=True, text=True, cwd=module.parent
    )
    table = json.loads(answer.stdout)
    assert sorted(table) == sorted(library.symbols)
    # A `buffer` is Bun's own way to hand over a typed array as a pointer.
    same = {"buffer": "ptr", "pointer": "ptr", "callback": "function", "usize": "u64"}

    def bare(name: str) -> str:
        return same.get(name, name)

    wrong = {}
    for name, signature in library.symbols.items():
        args = tuple(map(bare, table[name].get("args", [])))
        returns = bare(table[name].get("returns", "void"))
        if not interchangeable((args, returns), signature):
            wrong[name] = (args, returns, signature)
    assert not wrong
