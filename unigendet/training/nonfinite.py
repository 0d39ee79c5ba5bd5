"""Stopping at a loss or gradient that is infinite or not a number, and saying where it began.

The objective draws nothing at random, so the failed step's forward can run once more, watched: the
first module that reads finite values and returns others is the one to look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unigendet import parallel
from unigendet.training.checkpoint import latest_checkpoint
from unigendet.types import Losses, Objective

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]


class NonFiniteError(ArithmeticError):
    """A loss term or a gradient became infinite or not a number; the weights are still whole."""


@dataclass(frozen=True, slots=True)
class FiniteCheck:
    """Raises NonFiniteError with phase, step, first place and newest checkpoint."""

    model: nn.Module
    objective: Objective
    phase: str
    checkpoint_dir: Path | None

    def terms(
        self, losses: Losses, step: int, batch: object, run: Callable[[], object]
    ) -> dict[str, float]:
        """The loss terms of a step, means over the ranks; `run` is its forward."""
        terms, total = losses.scalars(), float(losses.total.detach())
        # The mean of all ranks is finite on all of them or on none: they stop at the same step.
        found = parallel.mean_over_ranks({**terms, "total": total}, losses.total.device)
        if all(math.isfinite(value) for value in found.values()):
            return {name: found[name] for name in terms}
        bad = [f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value)]
        if not bad and not math.isfinite(total):
            bad = [f"total = {total}"]
        place = first_nonfinite(self._modules(), batch, run)
        what = f"{', '.join(bad)} is not finite" if bad else "another rank's loss is not finite"
        begins = f"it begins at {place}" if place else "every module's output is finite"
        raise self._error(step, f"{what}; {begins}")

    def bad_gradients(
        self, parameters: Mapping[str, nn.Parameter], step: int, run: Callable[[], object]
    ) -> NonFiniteError:
        """The error for gradients that are not finite; backward meets the last module first."""
        bad = [n for n, p in parameters.items() if p.grad is not None and not _finite(p.grad)]
        order = execution_order(self.model, run)
        bad.sort(key=lambda name: order.get(name.rpartition(".")[0], -1), reverse=True)
        whose = bad[0] if bad else "the model"
        more = f", then of {len(bad) - 1} more parameters" if len(bad) > 1 else ""
        return self._error(
            step, f"the gradient of {whose} is not finite although the loss is{more}"
        )

    def _modules(self) -> dict[str, nn.Module]:
        """The model, and what the objective holds beside it: autoencoder, teacher."""
        held = getattr(self.objective, "__dict__", {})
        beside = {
            f"{name}.": module
            for name, module in held.items()
            if isinstance(module, nn.Module) and module is not self.model
        }
        return {"": self.model, **beside}

    def _error(self, step: int, what: str) -> NonFiniteError:
        newest = latest_checkpoint(self.checkpoint_dir) if self.checkpoint_dir else None
        return NonFiniteError(
            f"{self.phase}, step {step}: {what}. The weights were left as they were; the last "
            f"checkpoint is {newest or 'none yet'}. Lower the learning rate, or look at this "
            "step's batch, and run again"
        )


def first_nonfinite(
    modules: Mapping[str, nn.Module], batch: object, run: Callable[[], object]
) -> str | None:
    """Where values that are not finite begin, in words; None where no module returns any.

    Args:
        modules: what is watched, by the prefix of the names of its parts.
        batch: what the forward reads beside weights.
        run: the forward; it runs once, uncompiled and without gradients. Where the model is
            sharded, all ranks call this together.
    """
    made, read = list[str](), list[str]()

    def watch(name: str) -> Hook:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if made or all(_finite(value) for _, value in _tensors(output)):
                return
            if all(_usable(value) for _, value in _tensors((args, kwargs))):
                made.append(name)
            else:
                read.append(name)

        return hook

    _rerun(modules, watch, run)
    for prefix, module in modules.items():
        for kind, named in (
            ("weight", module.named_parameters()),
            ("table", module.named_buffers()),
        ):
            for name, value in named:
                if not _finite(value):
                    return f"the {kind} {prefix}{name}"
    for name, value in _tensors(batch):
        if not _usable(value):
            return f"the batch ({name})" if name else "the batch"
    if made:
        return f"{made[0] or 'the model itself'}, which reads finite values"
    return f"what {read[0] or 'the model'} reads" if read else None


def execution_order(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """When each module was last run in a forward, by name: a higher number is later."""
    ran = list[str]()
    _rerun({"": model}, lambda name: lambda *_: ran.append(name), run)
    return {name: place for place, name in enumerate(ran)}


def _rerun(
    modules: Mapping[str, nn.Module], watch: Callable[[str], Hook], run: Callable[[], object]
) -> None:
    """One forward with a hook on every module; a compiled model runs as it was written."""
    with ExitStack() as stack:
        for prefix, root in modules.items():
            for name, module in root.named_modules():
                hook = module.register_forward_hook(
                    watch((prefix + name).rstrip(".")), with_kwargs=True
                )
                stack.callback(hook.remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        run()


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of nested tuples, dictionaries and dataclasses, with its name in them."""
    parts: Iterator[tuple[Any, Any]]
    if isinstance(value, Tensor):
        yield name, value
        return
    if isinstance(value, Mapping):
        parts = iter(value.items())
    elif isinstance(value, list | tuple):
        parts = iter(enumerate(value))
    elif is_dataclass(value):
        parts = ((field.name, getattr(value, field.name)) for field in fields(value))
    else:
        return
    for key, part in parts:
        yield from _tensors(part, f"{name}.{key}" if name else str(key))


def _finite(value: Tensor) -> bool:
    shard = value.to_local() if hasattr(value, "to_local") else value  # of FSDP2: no messages here
    return bool(shard.isfinite().all())


def _usable(value: Tensor) -> bool:
    """What may be read: minus infinity too, as in masks and the timesteps of clean images."""
    return not bool((value.isnan() | value.isposinf()).any())
