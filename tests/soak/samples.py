"""What a process holds at a moment: memory, descriptors, threads, children. Read from /proc."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One look at one process."""

    rss_kb: int
    pss_kb: int
    private_kb: int
    anonymous_kb: int
    descriptors: int
    threads: int
    children: int

    def figures(self) -> dict[str, int]:
        return asdict(self)


def look(pid: int) -> Sample | None:
    """None for a process that has ended, waited for or not."""
    process = Path(f"/proc/{pid}")
    try:
        sizes: dict[str, int] = {}
        for line in (process / "smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            sizes[name] = int(value.split()[0])
        tasks = list((process / "task").iterdir())
        return Sample(
            rss_kb=sizes["Rss"],
            pss_kb=sizes["Pss"],
            private_kb=sizes["Private_Clean"] + sizes["Private_Dirty"],
            anonymous_kb=sizes["Anonymous"] + sizes["Swap"],
            descriptors=len(os.listdir(process / "fd")),
            threads=len(tasks),
            children=sum(map(_children, tasks)),
        )
    except (ProcessLookupError, FileNotFoundError):
        return None


def _children(task: Path) -> int:
    try:
        return len((task / "children").read_text().split())
    except (ProcessLookupError, FileNotFoundError):
        return 0  # this thread has ended meanwhile
