"""The code blocks of the project's Markdown pages; CONTRIBUTING.md says what each kind means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from source_tree import ROOT

# Their readers begin in an empty folder with the files of a release.
GUIDES = [*sorted(ROOT.glob("docs/guides/*.md")), ROOT / "docs" / "migrating.md"]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("pyplue/*/README.md")),
    *sorted(ROOT.glob("zig/*/README.md")),
]


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    title: str | None
    """The file that the block is, or None."""
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    found = []
    for block in re.finditer(r"^```(\w*)([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, block.start()) + 1
        title = re.search(r'title="([^"]+)"', block[2])
        found.append(Block(page, line, block[1], title[1] if title else None, block[3]))
    return found


def all_blocks(*languages: str) -> list[Block]:
    """The blocks in one of these languages on all pages; those with a title are left out."""
    return [
        block
        for page in PAGES
        for block in blocks_of(page)
        if block.language in languages and block.title is None
    ]


def answers(block: Block) -> str | None:
    """What the page says that a block prints: the `text` block that comes next."""
    following = blocks_of(block.page)
    after = following[following.index(block) + 1 :][:1]
    return after[0].text if after and after[0].language == "text" else None


def missing_line(said: str, printed: str) -> str | None:
    """The first line of `said` that is not in `printed`, after those before it; `...` in a line
    stands for anything."""
    lines = iter(printed.splitlines())
    for line in filter(str.strip, said.splitlines()):
        pattern = re.compile(".*".join(map(re.escape, line.rstrip().split("..."))))
        if not any(pattern.fullmatch(other.rstrip()) for other in lines):
            return line
    return None
