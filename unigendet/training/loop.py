"""The training loop: one for the autoencoder, flow matching, the detector, GDUF and DIGA.

What differs between them is the objective, the batches and the configuration. The loop draws
nothing at random, so a run is a function of its start weights, its batches and its configuration,
and an interrupted run continues bit for bit.

It is the same for one process and for several: with a process group every rank calls `train` with
its part of each batch, and with the model whole (its gradients are then averaged) or sharded by
`unigendet.parallel.shard`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from unigendet import parallel
from unigendet.config import OptimConfig
from unigendet.training import checkpoint as checkpoints
from unigendet.training.checkpoint import LoopState
from unigendet.training.nonfinite import FiniteCheck
from unigendet.training.optim import Ema, build_optimizer, learning_rate, select_trainable
from unigendet.types import Losses, Objective


@dataclass(frozen=True, slots=True)
class LogRow:
    """One line of the training history: means over the steps since the line before."""

    phase: str
    step: int
    """Optimizer steps done."""
    steps: int
    """Optimizer steps of the whole phase."""
    seconds: float
    """Time spent in the phase so far."""
    seconds_left: float
    lr: float
    grad_norm: float
    terms: dict[str, float]

    def history(self) -> dict[str, str | int | float]:
        """The row as `history.jsonl` stores it."""
        return {
            "phase": self.phase,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            **self.terms,
        }

    def line(self) -> str:
        """For people: progress, every term, and the time left."""
        terms = "  ".join(f"{name} {value:.4f}" for name, value in self.terms.items())
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"{self.phase} {self.step}/{self.steps}  {terms}  {minutes}:{seconds:02d} left"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run leaves. The model holds the last weights; `ema` their running average."""

    phase: str
    steps: int
    seconds: float
    resumed_from: int
    """The step the run continued from, 0 for a run of one piece."""
    ema: Ema


@runtime_checkable
class Recomputes(Protocol):
    """A model that can compute activations again in the backward pass instead of keeping them."""

    def recompute_activations(self) -> None: ...


def train(
    model: nn.Module,
    objective: Objective,
    batches: Callable[[int], Any],
    config: OptimConfig,
    *,
    phase: str = "train",
    checkpoint_dir: Path | None = None,
    on_log: Callable[[LogRow], None] | None = None,
    on_checkpoint: Callable[[Path, LoopState], None] | None = None,
    device: str | torch.device = "cpu",
) -> TrainResult:
    """Train `model` in place for `config.steps` steps, from the newest checkpoint where one exists.

    Args:
        batches: the batch of a step (0-based), the same one whenever it is asked; moved to
            `device` through its `.to(device)` where it has one.
        checkpoint_dir: folder of this phase's checkpoints; None trains without any. The last
            step always writes one, so a finished phase, called again, restores and returns.
        on_log: gets a row every `config.log_every` steps and at the end.
        on_checkpoint: gets each complete checkpoint's folder.

    Raises:
        NonFiniteError: a loss term or gradient is not finite, before the weights take the step.
        ValueError: a trainable pattern matches nothing, or a checkpoint is of another run.
    """
    if config.steps < 0:
        raise ValueError(f"steps is {config.steps}; it must be at least 0")
    model.to(device)
    parameters = select_trainable(model, config.trainable)
    optimizer = build_optimizer(parameters, config)
    ema = Ema(parameters, config.ema_decay)
    start, spent, window, window_steps = 0, 0.0, dict[str, float](), 0
    found = newest_of_all(checkpoint_dir, device) if checkpoint_dir else None
    if found is not None:
        saved = checkpoints.read_state(found, phase, config)
        checkpoints.restore(found, model=model, parameters=parameters, optimizer=optimizer, ema=ema)
        start, spent = saved.step, saved.seconds
        window, window_steps = dict(saved.window), saved.window_steps
    if config.recompute:
        _recompute(model)
    if config.compile:
        _compile(model)
    model.train()
    check = FiniteCheck(model, objective, phase, checkpoint_dir)
    began = time.perf_counter()
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        # Before the forward: the last step's gradients need not lie beside this one's activations.
        optimizer.zero_grad(set_to_none=True)
        batch = batches(step)
        batch = batch.to(device) if hasattr(batch, "to") else batch
        run = partial(_forward, model, objective, batch, config, device)
        losses = run()
        terms = check.terms(losses, step, batch, run)
        losses.total.backward()
        parallel.average_gradients(parameters.values())
        grad_norm = _clip(parameters, config.clip_norm)
        if not math.isfinite(grad_norm):
            raise check.bad_gradients(parameters, step, run)
        optimizer.step()
        ema.update(step)
        for name, value in terms.items():
            window[name] = window.get(name, 0.0) + value
        window_steps += 1
        done = step + 1
        last = done == config.steps
        seconds = spent + time.perf_counter() - began
        if last or done % config.log_every == 0:
            if on_log is not None:
                rate = (time.perf_counter() - began) / (done - start)
                on_log(
                    LogRow(
                        phase=phase,
                        step=done,
                        steps=config.steps,
                        seconds=seconds,
                        seconds_left=rate * (config.steps - done),
                        lr=learning_rate(config, step),
                        grad_norm=grad_norm,
                        terms={name: value / window_steps for name, value in window.items()},
                    )
                )
            window, window_steps = {}, 0
        if checkpoint_dir is not None and (last or done % config.checkpoint_every == 0):
            state = LoopState(phase, done, seconds, window, window_steps)
            path = checkpoints.save_checkpoint(
                checkpoint_dir,
                model=model,
                parameters=parameters,
                optimizer=optimizer,
                ema=ema,
                state=state,
                config=config,
            )
            if on_checkpoint is not None:
                on_checkpoint(path, state)
    model.eval()
    return TrainResult(phase, config.steps, spent + time.perf_counter() - began, start, ema)


def newest_of_all(folder: Path, device: str | torch.device) -> Path | None:
    """The newest checkpoint that every rank has in its `folder`, or None; all have to call it."""
    own = checkpoints.latest_checkpoint(folder)
    step = parallel.least(checkpoints.step_of(own) if own else 0, device)
    return folder / checkpoints.checkpoint_name(step) if step else None


def _recompute(model: nn.Module) -> None:
    if not isinstance(model, Recomputes):
        raise ValueError(f"{type(model).__name__} cannot recompute: set `recompute: false`")
    model.recompute_activations()


def _compile(model: nn.Module) -> None:
    """Block by block where there are blocks: they are alike, so that one compilation serves all."""
    for part in model.blocks() if isinstance(model, parallel.Blocks) else [model]:
        part.compile()


def _precision(config: OptimConfig, device: str | torch.device) -> AbstractContextManager[Any]:
    if config.precision == "bf16":
        return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
    return nullcontext()


def _forward(
    model: nn.Module,
    objective: Objective,
    batch: Any,
    config: OptimConfig,
    device: str | torch.device,
) -> Losses:
    with _precision(config, device):
        return objective(model, batch)


def _clip(parameters: dict[str, nn.Parameter], clip_norm: float) -> float:
    """The gradients' norm before they are clipped; one that is not finite leaves them alone."""
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    length = float(parallel.whole(norm))
    if math.isfinite(length):
        torch.nn.utils.clip_grads_with_norm_(parameters.values(), clip_norm, norm)
    return length
