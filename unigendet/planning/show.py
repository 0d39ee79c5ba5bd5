"""Plans as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unigendet.planning.advice import advice, largest_pack
from unigendet.planning.checkpoints import CheckpointPlan
from unigendet.planning.memory import MemoryPlan
from unigendet.planning.sizes import gib, gigabytes

Row = tuple[str, Callable[["Planned"], str]]
_PARTS = (
    "parameters",
    "gradients",
    "optimizer",
    "average",
    "teacher",
    "autoencoder",
    "tables",
    "weights at work",
    "activations",
    "logits",
    "working memory",
    "gradients on their way",
    "fragments",
    "reserve",
)


_MOMENTS = {
    "images": "images encoded",
    "forward": "forward ends",
    "teacher": "teacher reads",
    "turn": "backward begins",
    "backward": "backward ends",
    "exchange": "gradients exchanged",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """One training phase: the GPUs' memory and the disk."""

    memory: MemoryPlan
    disk: CheckpointPlan


def as_json(title: str, planned: Sequence[Planned]) -> dict[str, Any]:
    """Everything that the tables show, in bytes, and what happens at every moment."""
    return {"profile": title, "phases": [_record(one) for one in planned]}


def as_text(title: str, planned: Sequence[Planned]) -> str:
    """Tables of memory and disk, and what to change where something does not fit."""
    machine = planned[0].memory.machine
    gpus = "1 GPU" if machine.gpus == 1 else f"{machine.gpus} GPUs"
    shared = "" if machine.sharding == "none" else f", {machine.sharding}"
    lines = [f"{title} on {gpus} of {gib(machine.memory)} GiB{shared}", ""]
    names = [one.memory.phase.name for one in planned]
    present = [part for part in _PARTS if any(one.memory.parts.get(part) for one in planned)]
    lines += _table("what a GPU does", names, planned, _WORK)
    lines += _table("GiB of a GPU at its fullest", names, planned, [*map(_part, present), *_SUMS])
    happening = [name for name in _MOMENTS if any(name in one.memory.moments for one in planned)]
    lines += _table("GiB of a GPU as", names, planned, [*map(_moment, happening)])
    lines += _table("on the disk", names, planned, _DISK)
    lines += [_outcome(one.memory) for one in planned]
    return "\n".join([*lines, "", *_keeping(planned)])


def _outcome(plan: MemoryPlan) -> str:
    name = plan.phase.name
    if plan.fits:
        room = f"{gib(plan.headroom)} GiB to spare"
        return f"{name} fits, {room}; packs of up to {largest_pack(plan):,} tokens would"
    does = "".join(f"\n  - {line}" for line in advice(plan))
    return f"{name} does not fit, {gib(-plan.headroom)} GiB are missing; what would do:{does}"


def _keeping(planned: Sequence[Planned]) -> list[str]:
    most = max(planned, key=lambda one: one.disk.disk).disk
    return [
        f"Keep {gigabytes(most.disk)} of disk free while training: {most.copies} checkpoints of "
        f"{gigabytes(most.checkpoint)} at most, and the model.",
        f"Keep a phase's model folder ({gigabytes(most.model_fp32)} in float32, "
        f"{gigabytes(most.model_bf16)} in bfloat16); its checkpoints serve resuming alone and go "
        "when it ends.",
    ]


def _table(
    title: str, names: Sequence[str], planned: Sequence[Planned], rows: Sequence[Row]
) -> list[str]:
    cells = [[title, *names], *([label, *map(show, planned)] for label, show in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return [lines[0], "-" * (sum(widths) + 2 * len(names)), *lines[1:], ""]


def _billions(count: int) -> str:
    return f"{count / 1e9:.3f} B" if count >= 1e8 else f"{count / 1e6:.2f} M"


def _part(name: str) -> Row:
    return name, lambda one: _size(one.memory.parts.get(name, 0))


def _moment(name: str) -> Row:
    return _MOMENTS[name], lambda one: _size(one.memory.total_at(name))


def _size(size: int) -> str:
    return gib(size) if size else "-"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_WORK: Sequence[Row] = (
    ("parameters", lambda one: _billions(one.memory.counts.total)),
    ("of these learning", lambda one: _billions(one.memory.counts.trainable)),
    ("samples of a step", lambda one: f"{one.memory.phase.pack.samples:,}"),
    ("tokens of its pack", lambda one: f"{one.memory.phase.pack.tokens:,}"),
    ("precision", lambda one: one.memory.phase.precision),
    ("recomputation", lambda one: _yes(one.memory.machine.recompute)),
)
_SUMS: Sequence[Row] = (
    ("total", lambda one: gib(one.memory.total)),
    ("fullest as", lambda one: _MOMENTS[one.memory.moment]),
    ("fits", lambda one: _yes(one.memory.fits)),
)
_DISK: Sequence[Row] = (
    ("weights", lambda one: gigabytes(one.disk.weights)),
    ("optimizer", lambda one: gigabytes(one.disk.optimizer)),
    ("average", lambda one: gigabytes(one.disk.average)),
    ("one checkpoint", lambda one: gigabytes(one.disk.checkpoint)),
    ("at once, with the model", lambda one: gigabytes(one.disk.disk)),
)


def _record(one: Planned) -> dict[str, Any]:
    plan = one.memory
    return {
        "phase": plan.phase.name,
        "trainable": list(plan.phase.trainable),
        "precision": plan.phase.precision,
        "machine": asdict(plan.machine),
        "parameters": asdict(plan.counts),
        "pack": asdict(plan.phase.pack) | {"tokens": plan.phase.pack.tokens},
        "teacher_pack": asdict(plan.phase.teacher_pack),
        "bytes": plan.parts,
        "moments": {name: plan.at(name) for name in plan.moments},
        "moment": plan.moment,
        "total": plan.total,
        "headroom": plan.headroom,
        "fits": plan.fits,
        "largest_pack": largest_pack(plan),
        "advice": advice(plan),
        "disk": asdict(one.disk) | {"checkpoint": one.disk.checkpoint, "disk": one.disk.disk},
    }
