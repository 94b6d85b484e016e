"""For mkdocs: the pages outside docs/ are part of the site, and links work there as on disk."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = (
    "*.md",
    "LICENSE",
    "examples/*",
    "pyplue/*/README.md",
    "zig/*/README.md",
    "zig/*/include/*.h",
)
# README.md and index.md would both be the first page.
NAMES = {"README.md": "overview.md"}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(
                File.generated(config, NAMES.get(name, name), abs_src_path=os.fspath(path))
            )
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead from file to file in the repository; in the site docs/ is the top folder."""
    on_disk = Path(os.path.relpath(str(page.file.abs_src_path), ROOT)).as_posix()
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(on_disk), link[1]))
        target = NAMES.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(target, here or ".")

    return LINK.sub(moved, markdown)
