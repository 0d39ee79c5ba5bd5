"""Several phases of training in one process, each resumable, with one history.

A session's folder holds all that a restart needs, so copying the folder elsewhere is a checkpoint
of the whole session:

- `kept/NAME/`: results of the finished phases, written whole or not at all;
- `loop/PHASE/step-N/`: the newest checkpoint of the phase that is running;
- `history.jsonl`: one line per log row, without those that an interruption undid.

Several processes train together where there is a process group. The ranks of one machine share a
folder, which one of them, the leader, writes; each adds its own part of the checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unigendet import parallel
from unigendet.config import OptimConfig
from unigendet.data.loader import TrainingBatches
from unigendet.data.tokenizer import Tokenizer
from unigendet.models.pretrained import Pretrained, load_pretrained, save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.training.checkpoint import LoopState, step_of
from unigendet.training.loop import LogRow, TrainResult, newest_of_all, train
from unigendet.types import Objective

HISTORY = "history.jsonl"
KEPT = "kept"


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

    Args:
        sharding: how several ranks hold the model: each the whole of it (`ddp`), or a part (`fsdp`,
            for `distribute` and `load`; what goes to `train` without them is whole).
        leader: whether this rank writes results; one of those that share `folder` has to.
        loaders: processes that make a phase's batches ahead of time.
        on_log: gets every log row.
        on_progress: called after each checkpoint and each kept result, when `folder` is consistent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str | torch.device = "cpu",
        sharding: Literal["ddp", "fsdp"] = "ddp",
        leader: bool | None = None,
        loaders: int = 0,
        on_log: Callable[[LogRow], None] = _nothing,
        on_progress: Callable[[Progress], None] = _nothing,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self.device = device
        self.rank, self.world = parallel.rank(), parallel.world()
        self.leader = self.rank == 0 if leader is None else leader
        self.say = say
        self.first_step_at: float | None = None
        """Unix time at which this process began its first step, or other work; None before it."""
        self._shards = sharding == "fsdp" and self.world > 1
        self._loaders = loaders
        self._on_log = on_log
        self._on_progress = on_progress
        with parallel.all_or_none():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / HISTORY).touch()

    def once(self, name: str, produce: Callable[[Path], None]) -> Path:
        """Folder of the result `name`: kept from an earlier process, or made now by `produce`.

        `produce` runs on every rank and gets an empty folder, which the leader fills; what it
        trains through `train` resumes by itself.
        """
        kept = self.kept(name)
        # Asked of all ranks before any of them makes it: with folders of their own, one may have it
        # already where another was interrupted.
        if parallel.least(int(kept.is_dir()), self.device):
            self._say(f"{name}: done before, kept")
            return kept
        making = kept.with_name(f".{name}.making")
        with parallel.all_or_none():
            if self.leader:
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir(parents=True)
        produce(making)
        parallel.wait_for_all()
        with parallel.all_or_none():
            if self.leader:
                shutil.rmtree(kept, ignore_errors=True)
                making.rename(kept)
                # The phases inside `produce` are over: their checkpoints are not needed any more.
                shutil.rmtree(self.folder / "loop", ignore_errors=True)
        self._on_progress(Progress(name, 0))
        return kept

    def kept(self, name: str) -> Path:
        """Where the result `name` lies, or will lie, when it is finished."""
        return self.folder / KEPT / name

    def drop(self, name: str, part: str) -> None:
        """Delete `part` of the kept result `name`, where no later phase needs it."""
        if self.leader:
            shutil.rmtree(self.kept(name) / part, ignore_errors=True)

    def distribute(self, model: UniGenDetModel, optim: OptimConfig) -> UniGenDetModel:
        """Bring a model, alike on every rank, to the session's device and ranks, in place."""
        if self._shards:
            self._shard(model, optim)
        return model.to(self.device)

    def load(
        self,
        folder: Path,
        optim: OptimConfig,
        *,
        head_seed: int | None = None,
        head_width: int | None = None,
        smsa: bool | None = None,
    ) -> Pretrained:
        """A model folder's contents for training under `optim`: float32, on the session's device.

        `head_seed`, `head_width` and `smsa` are those of `load_pretrained`. Of a model to be
        sharded no rank reads more than its part.
        """
        load = partial(
            load_pretrained, folder, head_seed=head_seed, head_width=head_width, smsa=smsa
        )
        if not self._shards:
            loaded = load()
            loaded.model.float().to(self.device)
        else:
            loaded = load(shard=lambda model: self._shard(model, optim), device=self.device)
        loaded.vae.float().to(self.device).requires_grad_(False)
        return loaded

    def save(
        self, folder: Path, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer
    ) -> None:
        """Write a model folder that every rank can read afterwards; all of them have to call it."""
        write = partial(save_pretrained, folder, model, vae, tokenizer, writes=self.leader)
        if self._shards:
            # The ranks exchange their parts as it is written, and cannot tell of a failure too.
            write()
            parallel.wait_for_all()
        else:
            with parallel.all_or_none():
                write()

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
        found = newest_of_all(checkpoints, self.device)
        done = step_of(found) if found else 0
        with parallel.all_or_none():
            if self.leader:
                self._forget_rows(phase, after=done)
        if done:
            self._say(f"{phase}: resumed from step {done} of {config.steps}")
        self.mark_started()
        with TrainingBatches(batches, config.steps, num_workers=self._loaders) as ahead:
            return train(
                model,
                objective,
                ahead,
                config,
                phase=phase,
                checkpoint_dir=checkpoints,
                on_log=self._log,
                on_checkpoint=self._checkpointed,
                device=self.device,
            )

    def mark_started(self) -> None:
        """Start-up is over: for work that comes before the first step."""
        if self.first_step_at is None:
            self.first_step_at = time.time()

    def _shard(self, model: UniGenDetModel, optim: OptimConfig) -> None:
        parallel.shard(model, device=self.device, bf16=optim.precision == "bf16")

    def _say(self, text: str) -> None:
        if self.rank == 0:
            self.say(text)

    def _log(self, row: LogRow) -> None:
        self._say(row.line())
        with parallel.all_or_none():
            if self.leader:
                with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row.history()) + "\n")
        self._on_log(row)

    def _checkpointed(self, path: Path, state: LoopState) -> None:
        with parallel.all_or_none():
            if self.leader:
                for older in path.parent.iterdir():
                    if older != path:
                        shutil.rmtree(older)
        self._on_progress(Progress(state.phase, state.step))

    def _forget_rows(self, phase: str, *, after: int) -> None:
        """Drop the history rows that the steps to come will write again."""
        history = self.folder / HISTORY
        # A line without its end was being written when the process was killed.
        whole, _, torn = history.read_text(encoding="utf-8").rpartition("\n")
        rows = [json.loads(line) for line in whole.splitlines()]
        valid = [row for row in rows if row["phase"] != phase or row["step"] <= after]
        if len(valid) == len(rows) and not torn:
            return
        partial = history.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in valid), encoding="utf-8")
        os.replace(partial, history)
