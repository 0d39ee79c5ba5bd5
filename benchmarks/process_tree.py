"""Memory of a process and all that it started, as Linux counts it."""

from __future__ import annotations

import threading
from pathlib import Path


class PeakMemory:
    """Highest proportional set size of a process tree, in bytes, sampled while the block runs.

    A page that several processes share, Ray's object store for instance, counts once.
    """

    def __init__(self, pid: int, every_s: float = 1.0) -> None:
        self.peak = 0
        self._pid, self._every_s = pid, every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            self.peak = max(self.peak, sum(map(_proportional, tree(self._pid))))


def tree(pid: int) -> list[int]:
    """The process and its descendants, as far as they run."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(after_name[1]), []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines() if line.startswith("Pss:")]
    return 1024 * int(lines[0][1]) if lines else 0
