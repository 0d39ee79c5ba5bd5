"""Records of a table matched to files on disk, wherever the folder was given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

R = TypeVar("R")


class Listing(Generic[R]):
    """Records by the path that they name.

    A file and a record belong together where one's path ends with the other's, so that it does not
    matter at which folder reading begins. A record can never name a file that was not found below
    the given folder.
    """

    def __init__(self, records: Iterable[tuple[str, R]]) -> None:
        self._by_name: dict[str, list[tuple[tuple[str, ...], str, R]]] = defaultdict(list)
        self._used: set[str] = set()
        self.count = 0
        for path, record in records:
            parts = _parts(path)
            if parts:
                self._by_name[parts[-1]].append((parts, path, record))
                self.count += 1

    def find(self, name: str) -> list[R]:
        """Records of the file of this name: those that agree with most of its path."""
        parts = _parts(name)
        if not parts:
            return []
        found = [
            (_shared(parts, listed), path, record)
            for listed, path, record in self._by_name.get(parts[-1], ())
            if _shared(parts, listed) == min(len(parts), len(listed))
        ]
        most = max((shared for shared, _, _ in found), default=0)
        best = [(path, record) for shared, path, record in found if shared == most]
        self._used.update(path for path, _ in best)
        return [record for _, record in best]

    @property
    def matched(self) -> bool:
        """Whether any record met a file."""
        return bool(self._used)

    def unmatched(self) -> Iterator[tuple[str, R]]:
        """Paths that met no file, each once, in the order of the table's file names."""
        told = set(self._used)
        for records in self._by_name.values():
            for _, path, record in records:
                if path not in told:
                    told.add(path)
                    yield path, record


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def _shared(parts: tuple[str, ...], listed: tuple[str, ...]) -> int:
    """Number of equal parts, counted from the end."""
    count = 0
    for own, other in zip(reversed(parts), reversed(listed), strict=False):
        if own != other:
            break
        count += 1
    return count
