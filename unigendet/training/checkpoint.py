"""Checkpoints of the training loop: whole or absent, free of pickle, tied to their configuration.

A checkpoint is a folder `step-00000100` with

- `model.safetensors`: the whole state dict, frozen parts too;
- `ema.safetensors`: the running average of the learning parameters;
- `optimizer.safetensors`: AdamW's `exp_avg/NAME`, `exp_avg_sq/NAME`, `step/NAME`, and torch's
  random state `rng`;
- `state.json`: phase, step, configuration, and the sums of the log window that was open.

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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unigendet.config import OptimConfig
from unigendet.training.optim import Ema

_NAME = re.compile(r"step-(\d{8})")
_MAY_DIFFER = frozenset({"log_every", "checkpoint_every", "compile"})
"""Settings that leave every weight as it is, so a run may resume with others."""


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

    An `OSError` (a full disk, for instance) leaves no half-written checkpoint behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / checkpoint_name(state.step)
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _save(temporary / "model.safetensors", model.state_dict())
        _save(temporary / "ema.safetensors", ema.shadow)
        _save(temporary / "optimizer.safetensors", _optimizer_tensors(parameters, optimizer))
        text = json.dumps({"state": asdict(state), "config": asdict(config)}, indent=1)
        (temporary / "state.json").write_text(text)
        for path in temporary.iterdir():
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _flush(folder)
    finally:
        # Gone already where all went well.
        shutil.rmtree(temporary, ignore_errors=True)
    older = sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    for path in older[:-keep]:
        shutil.rmtree(path)
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
        weights = load_file(path / "model.safetensors")
        average = load_file(path / "ema.safetensors")
        moments = load_file(path / "optimizer.safetensors")
    except (FileNotFoundError, SafetensorError) as error:
        raise ValueError(
            f"checkpoint {path} is incomplete or damaged ({error}); delete the folder to train "
            "from the checkpoint before it"
        ) from None
    _check_same(path, {name: t.shape for name, t in model.state_dict().items()}, weights)
    _check_same(path, {name: t.shape for name, t in ema.shadow.items()}, average)
    model.load_state_dict(weights)
    for name, value in average.items():
        ema.shadow[name].copy_(value)
    torch.set_rng_state(moments.pop("rng"))
    for name, parameter in parameters.items():
        if f"step/{name}" not in moments:
            continue  # it had not received a gradient yet
        optimizer.state[parameter] = {
            "step": moments[f"step/{name}"].to(parameter.device),
            "exp_avg": moments[f"exp_avg/{name}"].to(parameter.device),
            "exp_avg_sq": moments[f"exp_avg_sq/{name}"].to(parameter.device),
        }


def _optimizer_tensors(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    for name, parameter in parameters.items():
        # `.get`: the state is a defaultdict, and asking it would make an entry.
        moments = optimizer.state.get(parameter)
        if moments:
            for key in ("step", "exp_avg", "exp_avg_sq"):
                tensors[f"{key}/{name}"] = moments[key]
    return tensors


def _check_same(path: Path, wanted: Mapping[str, torch.Size], found: Mapping[str, Tensor]) -> None:
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    shapes = sorted(n for n in wanted.keys() & found.keys() if found[n].shape != wanted[n])
    if missing or extra or shapes:
        raise ValueError(
            f"checkpoint {path} is of another model: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(extra)} unknown {extra[:3]}, {len(shapes)} of another shape "
            f"{shapes[:3]}"
        )


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
