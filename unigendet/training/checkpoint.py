"""Checkpoints of the training loop: whole or absent, free of pickle, tied to their configuration.

A checkpoint is a folder `step-00000100` with

- `shard-R-model-I-of-N.safetensors`: what rank R (from 1) holds, by torch's distributed checkpoint:
  `model/NAME`, the whole state dict, frozen parts too; `ema/NAME`, the running average of the
  learning parameters; AdamW's `exp_avg/NAME`, `exp_avg_sq/NAME` and `step/NAME`; torch's random
  state `rng`. What ranks hold alike rank 1 writes alone;
- `state.json` (of the first rank): phase, step, configuration, and the sums of the open log window.

Any number of processes may go on from it, whatever number wrote it, sharded or not. Ranks may write
to folders of their own; to resume, each needs the files of all of them in one.

It is written under a temporary name, flushed to the disk, and renamed: a folder that carries the
final name is complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unigendet import parallel
from unigendet.config import OptimConfig
from unigendet.training.optim import Ema
from unigendet.training.tensor_store import read_tensors, stored_shapes, write_tensors

_NAME = re.compile(r"step-(\d{8})")
_MAY_DIFFER = frozenset({"log_every", "checkpoint_every", "compile", "recompute"})
"""Settings that leave every weight as it is, so a run may resume with others."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class LoopState:
    """Where a training run stands: `step` optimizer steps are done."""

    phase: str
    step: int
    seconds: float
    """Time spent in the loop so far, interrupted runs included."""
    window: dict[str, float]
    """Sums of the loss terms since the last log line."""
    window_steps: int


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` optimizer steps."""
    return f"step-{step:08d}"


def latest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step below `folder`, or None."""
    if not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return max(found, key=lambda path: path.name, default=None)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's folder name tells."""
    return int(checkpoint.name.removeprefix("step-"))


def save_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: Ema,
    state: LoopState,
    config: OptimConfig,
    keep: int = 2,
) -> Path:
    """Write `folder/step-N` atomically, keep the newest `keep` checkpoints, return the new path.

    Every rank calls it, with a folder of its own or with the same one. An `OSError` (a full disk,
    for instance) on one of them is one on all, and leaves no half-written checkpoint behind.
    """
    final = folder / checkpoint_name(state.step)
    temporary = folder / f".{final.name}"
    # Ranks may share the folder: what an earlier process left is gone before any of them writes.
    shutil.rmtree(temporary, ignore_errors=True)
    parallel.wait_for_all()
    try:
        with parallel.all_or_none():
            temporary.mkdir(parents=True, exist_ok=True)
        write_tensors(temporary, _tensors(model, parameters, optimizer, ema))
        with parallel.all_or_none():
            if parallel.rank() == 0:
                text = json.dumps({"state": asdict(state), "config": asdict(config)}, indent=1)
                (temporary / "state.json").write_text(text)
                _flush(temporary / "state.json")
            shutil.rmtree(final, ignore_errors=True)
        with parallel.all_or_none():
            _rename(temporary, final)
            _flush(folder)
    finally:
        # Gone already where all went well.
        shutil.rmtree(temporary, ignore_errors=True)
    older = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    for path in older[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
    return final


def read_state(path: Path, phase: str, config: OptimConfig) -> LoopState:
    """The loop's state in a checkpoint. `ValueError` where phase or configuration is another."""
    try:
        document = json.loads((path / "state.json").read_text())
        state = LoopState(**document["state"])
        saved = document["config"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"checkpoint {path} has no readable state.json ({error}); delete the folder to train "
            "from the checkpoint before it"
        ) from None
    if state.phase != phase:
        raise ValueError(f"checkpoint {path} is of phase {state.phase!r}, not {phase!r}")
    # Through JSON, so that tuples compare as the lists they were stored as.
    wanted = json.loads(json.dumps(asdict(config)))
    differing = [
        f"{key} (saved {saved.get(key)!r}, now {wanted.get(key)!r})"
        for key in sorted(wanted.keys() | saved.keys())
        if key not in _MAY_DIFFER and saved.get(key) != wanted.get(key)
    ]
    if differing:
        raise ValueError(
            f"checkpoint {path} was written under another configuration: {'; '.join(differing)}; "
            "go back to it, or delete the checkpoint's folder to start anew"
        )
    return state


def restore(
    path: Path,
    *,
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: Ema,
) -> None:
    """Put a checkpoint's weights, averages, optimizer and random state in place, all in place."""
    try:
        found = stored_shapes(path)
        for name, parameter in parameters.items():
            if f"step/{name}" in found:  # else it had not received a gradient yet
                optimizer.state[parameter] = _no_moments(parameter)
        tensors = _tensors(model, parameters, optimizer, ema)
        _check_same({name: tensor.shape for name, tensor in tensors.items()}, found)
        read_tensors(path, tensors)
    except ValueError as error:
        raise ValueError(
            f"checkpoint {path} cannot be used: {error}; delete the folder to train from the "
            "checkpoint before it"
        ) from None
    torch.set_rng_state(tensors["rng"])


def _tensors(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: Ema,
) -> dict[str, Tensor]:
    """All that a checkpoint keeps, by the names that it has there; not copied."""
    tensors = {f"model/{name}": value.detach() for name, value in model.state_dict().items()}
    tensors |= {f"ema/{name}": value for name, value in ema.shadow.items()}
    for name, parameter in parameters.items():
        # `.get`: the state is a defaultdict, and asking it would make an entry.
        moments = optimizer.state.get(parameter)
        if moments:
            tensors |= {f"{key}/{name}": moments[key] for key in _MOMENTS}
    tensors["rng"] = torch.get_rng_state()
    return tensors


def _no_moments(parameter: nn.Parameter) -> dict[str, Tensor]:
    """AdamW's state of a parameter, to be filled."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }


def _rename(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except FileNotFoundError:
        # Ranks that share the folder: another one was first.
        if not final.is_dir():
            raise


def _check_same(wanted: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> None:
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    shapes = sorted(n for n in wanted.keys() & found.keys() if found[n] != wanted[n])
    if missing or extra or shapes:
        raise ValueError(
            "it is of another model, or some of its files are missing: "
            f"{len(missing)} tensors missing {missing[:3]}, {len(extra)} unknown {extra[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}"
        )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
