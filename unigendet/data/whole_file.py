"""A file that appears under its name whole, with its checksum known, or not at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

PARTIAL = ".partial"
"""Ending of files that nobody finished."""


class WholeFile:
    """Collects bytes beside `path`; `finish` puts them there.

    The file that is written to has a name of its own. So where a process that was thought dead
    writes the same file still, each finishes its own bytes. Use it in a `with` block: without
    `finish`, nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        self._file = self._partial.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        """Append."""
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._size

    def finish(self) -> tuple[int, str]:
        """Size and sha256 of the file, which is under its name now."""
        self._file.close()
        os.replace(self._partial, self._path)
        return self._size, self._digest.hexdigest()

    def discard(self) -> None:
        """Delete what was written, where it is not finished."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


def remove_partials(folder: Path) -> None:
    """Delete what interrupted processes left."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
