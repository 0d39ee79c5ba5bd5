"""A stage's state folder: what it goes on from after an interruption, held by one process."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import read_json, write_json

_ATTEMPTS = "attempts.json"


@dataclass(frozen=True, slots=True)
class StageState:
    """A folder under `runs/<stage>/<fingerprint>/` that outlives the process."""

    folder: Path
    attempts: int
    """1, or more where an earlier attempt was interrupted."""

    @property
    def resumed(self) -> bool:
        """Whether an earlier attempt may have left something to go on from."""
        return self.attempts > 1

    def delete(self) -> None:
        """Removes it: the stage's result is exported."""
        shutil.rmtree(self.folder)


@contextmanager
def hold_state(home: Path, stage: str, fingerprint: str, *, fresh: bool) -> Iterator[StageState]:
    """The state folder, locked until the block ends, even where the process is killed.

    `fresh` throws away what an interrupted attempt left. Raises `ValueError` where another process
    holds the folder.
    """
    folder = home / "runs" / stage / fingerprint
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f"{fingerprint}.lock")
    descriptor = _lock(lock, stage)
    try:
        if fresh and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        counter = folder / _ATTEMPTS
        attempts = 1 + (int(read_json(counter)) if counter.is_file() else 0)
        write_json(counter, attempts)
        yield StageState(folder, attempts)
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def interrupted_siblings(home: Path, stage: str, fingerprint: str) -> list[Path]:
    """State folders that other versions of the stage (code, parameters, inputs) left behind.

    One that another process works in is none of them: seeds may run beside each other.
    """
    folder = home / "runs" / stage
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir()
        and path.name != fingerprint
        and not _held(path.with_name(f"{path.name}.lock"))
    )


def _held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(path: Path, stage: str) -> int:
    """Takes the lock file, or raises `ValueError` naming the process that has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode() or "unknown"
            os.close(descriptor)
            raise ValueError(
                f"stage {stage} is already running with the same parameters, inputs and code "
                f"(process {holder} holds {path}): wait for it, or stop it"
            ) from None
        # The last holder deletes the file: a lock on a deleted file would exclude nobody.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)
