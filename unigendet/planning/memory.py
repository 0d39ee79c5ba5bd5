"""The memory of one GPU in one training phase: what lies there always, and what at which moment.

Always: float32 weights, their gradients, AdamW's two moments, the running average, DIGA's frozen
teacher, the autoencoder, the fixed tables. With `fsdp` every GPU holds its share of all but the
last two.

At a moment (the fullest counts): weights as they are multiplied with, activations, gradients on
their way. The moments are

    images      the autoencoder encodes the step's images
    forward     it ends: all activations are kept
    teacher     DIGA's teacher reads its images, beside all that
    turn        the backward begins: one block is at work
    backward    it reaches the first block: gradients are there, activations are gone
    exchange    gradients that belong to no block are shared out between GPUs

Beyond all that: a fixed reserve for CUDA, cuBLAS and NCCL, and a share for fragments that no
tensor fits into. Both are assumptions, no measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from unigendet.config import ModelConfig
from unigendet.planning.activations import WIDE, Precision, activations, masks, numbers, reading
from unigendet.planning.packs import PackShape
from unigendet.planning.parameters import ParameterCounts, count_autoencoder, count_parameters

Sharding = Literal["none", "ddp", "fsdp"]

RESERVE = 2**30
"""Bytes of every GPU that no tensor gets."""
FRAGMENTS = 0.05
"""Share of what tensors take that lies between them."""
_ENCODING = 5 * WIDE
"""Bytes of the autoencoder's encoder at its widest, by pixel and base channel: five maps."""


@dataclass(frozen=True, slots=True)
class TrainingPhase:
    """What one GPU does in a step of a phase."""

    name: str
    config: ModelConfig
    trainable: tuple[str, ...]
    """Regular expressions, as in `OptimConfig`."""
    precision: Precision
    pack: PackShape
    teacher: Literal["none", "frozen", "live"] = "none"
    """DIGA's: a frozen copy of the model without alignment head, or the student itself."""
    teacher_pack: PackShape = field(default_factory=PackShape)


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs, how they share the model, and what each has. Sizes in bytes."""

    gpus: int
    memory: int
    sharding: Sharding
    recompute: bool
    """Whether every block's activations are made anew in the backward."""

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ValueError(f"there must be at least one GPU, got {self.gpus}")
        if self.sharding == "none" and self.gpus > 1:
            raise ValueError(f"{self.gpus} GPUs need sharding ddp or fsdp")
        if self.sharding != "none" and self.gpus == 1:
            raise ValueError(f"sharding {self.sharding} needs more than one GPU; leave it out")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of one GPU."""

    phase: TrainingPhase
    machine: Machine
    counts: ParameterCounts
    always: dict[str, int]
    moments: dict[str, dict[str, int]]
    """What each has beside `always`, or instead of a part of it."""

    @property
    def moment(self) -> str:
        """When memory is fullest."""
        return max(self.moments, key=lambda name: sum(self.at(name).values()))

    def at(self, moment: str) -> dict[str, int]:
        """The tensors that are there at a moment; none for a moment that this phase has not."""
        return self.always | self.moments[moment] if moment in self.moments else {}

    def total_at(self, moment: str) -> int:
        """The same in one number, with what lies between tensors and the reserve."""
        tensors = sum(self.at(moment).values())
        return tensors and int((1 + FRAGMENTS) * tensors) + RESERVE

    @property
    def parts(self) -> dict[str, int]:
        """Everything there at the fullest moment."""
        parts = self.at(self.moment)
        between = self.total - RESERVE - sum(parts.values())
        return parts | {"fragments": between, "reserve": RESERVE}

    @property
    def total(self) -> int:
        return self.total_at(self.moment)

    @property
    def headroom(self) -> int:
        """What is left of the GPU; negative where it does not fit."""
        return self.machine.memory - self.total

    @property
    def fits(self) -> bool:
        return self.headroom >= 0


def plan_memory(phase: TrainingPhase, machine: Machine) -> MemoryPlan:
    """The memory that `phase` takes on each GPU of `machine`."""
    sharded = machine.sharding == "fsdp"
    with_vit = phase.pack.vit > 0
    counts = count_parameters(
        phase.config,
        phase.trainable,
        shards=machine.gpus if sharded else 1,
        with_vit=with_vit,
    )
    always = {
        "parameters": WIDE * counts.held,
        "gradients": WIDE * counts.held_touched,
        "optimizer": WIDE * (2 * counts.held_touched + counts.touched_tensors),
        "average": WIDE * counts.held_trainable,
    }
    if phase.teacher == "frozen":
        teacher = count_parameters(
            replace(phase.config, alignment_head=False), shards=machine.gpus if sharded else 1
        )
        always["teacher"] = WIDE * (teacher.held + teacher.buffers)
    always["autoencoder"] = WIDE * count_autoencoder(phase.config.vae)
    always["tables"] = WIDE * counts.buffers
    return MemoryPlan(phase, machine, counts, always, moments(phase, machine, counts))


def moments(
    phase: TrainingPhase, machine: Machine, counts: ParameterCounts
) -> dict[str, dict[str, int]]:
    """What lies on a GPU at each moment beside what lies there always."""
    number = numbers(phase.precision)
    acts = activations(
        phase.config,
        phase.pack,
        number,
        counts.learning,
        recompute=machine.recompute,
        taps=phase.teacher != "none",
    )
    weights = _weights_at_work(counts, machine, phase.precision)
    encoding = _ENCODING * phase.config.vae.base_channels
    # The last step's gradients are gone before a forward begins.
    none = {"gradients": 0}
    kept = none | {
        "weights at work": weights,
        "activations": acts.kept - acts.logits,
        "logits": acts.logits,
    }
    block, message = _gradients_on_their_way(counts, machine, number.linear)
    found = {
        "images": none | {"working memory": encoding * phase.pack.pixels},
        "forward": kept | {"working memory": reading(phase.config, phase.pack, number)},
        "turn": kept | {"working memory": acts.working, "gradients on their way": block},
        "backward": {
            "weights at work": weights,
            "working memory": acts.working,
            "gradients on their way": block,
        },
        "exchange": {"gradients on their way": message},
    }
    if phase.teacher != "none":
        looking = max(
            encoding * phase.teacher_pack.pixels,
            masks(phase.teacher_pack) + reading(phase.config, phase.teacher_pack, number),
        )
        found["teacher"] = kept | {"working memory": looking}
        if phase.teacher == "frozen" and machine.sharding == "fsdp":
            # What lies in no block of the student stays gathered until its backward.
            found["teacher"]["weights at work"] = weights + number.linear * counts.root
    return found


def _weights_at_work(counts: ParameterCounts, machine: Machine, precision: Precision) -> int:
    """Copies of weights that a forward or backward multiplies with.

    FSDP gathers, in the type of the computation, what lies in no block for the whole step, and
    three times a block: the one at work, the next, and the message that the next arrives in.
    Without it, autocast's copies stay as long as the activations.
    """
    size = 2 if precision == "bf16" else WIDE
    if machine.sharding == "fsdp":
        return size * (counts.root + 3 * counts.block)
    if precision == "fp32":
        return 0
    copied = counts.root + counts.block if machine.recompute else counts.total
    return size * (copied - counts.embedding)


def _gradients_on_their_way(
    counts: ParameterCounts, machine: Machine, linear: int
) -> tuple[int, int]:
    """Whole gradients beside the ones kept: in a block's backward, and at the very end.

    FSDP has a block's, and those that belong to no block, in the type of the computation, and the
    block's once more as a float32 message; at the end the message is of what lies in no block. Data
    parallel ranks send all gradients in one message and take the means out of it.
    """
    if machine.sharding == "fsdp":
        root = counts.root_trainable * linear
        block = counts.block_trainable * (linear + WIDE)
        return root + block, root + counts.root_trainable * WIDE
    if machine.sharding == "ddp":
        return 0, 2 * WIDE * counts.held_touched
    return 0, 0
