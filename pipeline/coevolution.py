"""GDUF and DIGA phases on a training session: what the sweep tries and coevolve repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.detection_data import DetectionData
from pipeline.loss_weights import AlignmentWeights, check_layer

if TYPE_CHECKING:
    from unigendet.config import OptimConfig
    from unigendet.data.composition import Budget
    from unigendet.data.loader import MixedBatches
    from unigendet.models.pretrained import Pretrained
    from unigendet.training.session import TrainingSession


GENERATION_SIDE = r".*moe_gen.*|(vae2llm|llm2vae|time_embedder|diga_mlp)\..*"
"""Names of the weights that serve generation; all others serve detection and text."""


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase: its name, its batches' make-up, and how it learns."""

    name: str
    seed: int
    """Sets this phase's images and draws apart from the others'."""
    generation_per_step: int
    detection_per_step: int
    optim: OptimConfig
    budget: Budget | None = None
    """Fills packs by tokens."""


@dataclass(frozen=True, slots=True)
class DigaSettings:
    """Who teaches, and from which of its layers."""

    teacher: Literal["frozen", "live"]
    teacher_layer: Literal["last", "last_input"] | int


def train_gduf(
    session: TrainingSession,
    start: Path,
    data: DetectionData,
    plan: PhasePlan,
    weights: AlignmentWeights,
    more_fakes: Sequence[Path] = (),
) -> Pretrained:
    """GDUF from the model folder `start`; the model returned holds the average of its weights."""
    from unigendet.objectives import GdufObjective

    loaded = session.load(start, plan.optim)
    batches = _batches(session, loaded, data, plan, more_fakes)
    objective = GdufObjective(loaded.vae, weights.gduf())
    trained = session.train(plan.name, loaded.model, objective, batches.batch, plan.optim)
    trained.ema.copy_to_model()
    return loaded


def train_separately(
    session: TrainingSession,
    start: Path,
    data: DetectionData,
    generation: PhasePlan,
    detection: PhasePlan,
    weights: AlignmentWeights,
    more_fakes: Sequence[Path] = (),
) -> Pretrained:
    """What GDUF is compared with: each task by itself, on its own side of the weights.

    The flow loss trains the generation side of `generation.optim.trainable`, the verdict and the
    answers train the rest of `detection.optim.trainable`; no loss reaches the other task's weights.
    With the seed, steps and numbers per step of one GDUF phase in both plans each task sees the
    very images and draws that it sees there, for as many updates at the same learning rates; the
    forward passes are the same too, in two packs a step instead of one. Detection comes last, since
    it reads the generation expert and DIGA, which follows, trains that expert again.
    """
    from unigendet.objectives import GdufObjective

    loaded = session.load(start, generation.optim)
    objective = GdufObjective(loaded.vae, weights.gduf())
    for plan, side in (
        (replace(generation, detection_per_step=0), f"(?=(?:{GENERATION_SIDE})$)"),
        (replace(detection, generation_per_step=0), f"(?!(?:{GENERATION_SIDE})$)"),
    ):
        patterns = "|".join(f"(?:{pattern})" for pattern in plan.optim.trainable)
        optim = replace(plan.optim, trainable=(f"{side}(?:{patterns})",))
        batches = _batches(session, loaded, data, plan, more_fakes)
        trained = session.train(plan.name, loaded.model, objective, batches.batch, optim)
        trained.ema.copy_to_model()
    return loaded


def train_diga(
    session: TrainingSession,
    start: Path,
    data: DetectionData,
    plan: PhasePlan,
    weights: AlignmentWeights,
    settings: DigaSettings,
    more_fakes: Sequence[Path] = (),
) -> Pretrained:
    """DIGA from the model folder `start`, which is also the frozen teacher.

    The model returned holds the average of its weights and has an alignment head: `start`'s own or
    a fresh one.
    """
    from unigendet.objectives import DigaObjective

    loaded = session.load(start, plan.optim, head_seed=data.seed)
    check_layer(weights, loaded.config.llm.num_hidden_layers)
    teacher = session.load(start, plan.optim).model if settings.teacher == "frozen" else None
    batches = _batches(session, loaded, data, plan, more_fakes)
    objective = DigaObjective(
        loaded.vae, teacher, weights.diga(), weights.tap_layer, settings.teacher_layer
    )
    trained = session.train(plan.name, loaded.model, objective, batches.alignment_batch, plan.optim)
    trained.ema.copy_to_model()
    return loaded


def _batches(
    session: TrainingSession,
    start: Pretrained,
    data: DetectionData,
    plan: PhasePlan,
    more_fakes: Sequence[Path],
) -> MixedBatches:
    return data.batches(
        session,
        start.tokenizer,
        start.config,
        generation_per_step=plan.generation_per_step,
        detection_per_step=plan.detection_per_step,
        phase_seed=plan.seed,
        budget=plan.budget,
        more_fakes=more_fakes,
    )
