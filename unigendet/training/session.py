"""Several phases of training in one process, each resumable, with one history.

A session's folder holds all that a restart needs, so copying the folder elsewhere is a checkpoint
of the whole session:

- `kept/NAME/`: results of the finished phases, written whole or not at all;
- `loop/PHASE/step-N/`: the newest checkpoint of the phase that is running;
- `history.jsonl`: one line per log row, without those that an interruption undid.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unigendet.config import OptimConfig
from unigendet.training.checkpoint import LoopState, latest_checkpoint
from unigendet.training.loop import LogRow, TrainResult, train
from unigendet.types import Objective

HISTORY = "history.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """What `on_progress` learns each time the session's folder is worth keeping."""

    name: str
    """The running phase, or the result that was just kept."""
    step: int
    """Optimizer steps done in it; 0 for a kept result."""


def _nothing(_: Any) -> None:
    return None


class TrainingSession:
    """Runs phases in order; what is done already is not done again.

    `on_log` gets every log row, `on_progress` is called after each checkpoint and each kept
    result, when `folder` is consistent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world: int = 1,
        on_log: Callable[[LogRow], None] = _nothing,
        on_progress: Callable[[Progress], None] = _nothing,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self.device = device
        self.rank = rank
        self.world = world
        self.say = say
        self.first_step_at: float | None = None
        """Unix time at which this process began its first step; None before it."""
        self._on_log = on_log
        self._on_progress = on_progress
        folder.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, produce: Callable[[Path], None]) -> Path:
        """Folder of the result `name`: kept from an earlier process, or made now by `produce`.

        `produce` gets an empty folder to fill; what it trains through `train` resumes by itself.
        """
        kept = self.folder / "kept" / name
        if kept.is_dir():
            self.say(f"{name}: done before, kept")
            return kept
        making = kept.with_name(f".{name}.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        produce(making)
        making.rename(kept)
        # The phases inside `produce` are over: their checkpoints are not needed any more.
        shutil.rmtree(self.folder / "loop", ignore_errors=True)
        self._on_progress(Progress(name, 0))
        return kept

    def drop(self, name: str, part: str) -> None:
        """Delete `part` of the kept result `name`, where no later phase needs it."""
        shutil.rmtree(self.folder / "kept" / name / part, ignore_errors=True)

    def train(
        self,
        phase: str,
        model: nn.Module,
        objective: Objective,
        batches: Callable[[int], Any],
        config: OptimConfig,
    ) -> TrainResult:
        """`unigendet.training.loop.train` with this session's checkpoints, history and device."""
        checkpoints = self.folder / "loop" / phase
        found = latest_checkpoint(checkpoints)
        done = int(found.name.removeprefix("step-")) if found else 0
        self._forget_rows(phase, after=done)
        if done:
            self.say(f"{phase}: resumed from step {done} of {config.steps}")
        if self.first_step_at is None:
            self.first_step_at = time.time()
        return train(
            model,
            objective,
            batches,
            config,
            phase=phase,
            checkpoint_dir=checkpoints,
            on_log=self._log,
            on_checkpoint=self._checkpointed,
            device=self.device,
        )

    def _log(self, row: LogRow) -> None:
        if self.rank == 0:
            self.say(row.line())
        with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row.history()) + "\n")
        self._on_log(row)

    def _checkpointed(self, path: Path, state: LoopState) -> None:
        for older in path.parent.iterdir():
            if older != path:
                shutil.rmtree(older)
        self._on_progress(Progress(state.phase, state.step))

    def _forget_rows(self, phase: str, *, after: int) -> None:
        """Drop the history rows that the steps to come will write again."""
        history = self.folder / HISTORY
        if not history.exists():
            return
        rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
        valid = [row for row in rows if row["phase"] != phase or row["step"] <= after]
        if len(valid) == len(rows):
            return
        partial = history.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in valid), encoding="utf-8")
        os.replace(partial, history)
