"""The training phases of an experiment, as `unigendet.planning` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

from pipeline.params import Params
from pipeline.sections.coevolve import DigaSection, GdufSection
from pipeline.sections.detector import DetectorSection
from pipeline.sections.generator import FlowTrainingSection
from unigendet.data.composition import FAKE, GENERATION, REAL, Share, samples_per_step

if TYPE_CHECKING:
    from unigendet.planning.memory import MemoryPlan, Sharding, TrainingPhase
    from unigendet.planning.packs import Texts
    from unigendet.planning.show import Planned

_Section = FlowTrainingSection | DetectorSection | GdufSection | DigaSection

CHECKPOINTS_AT_ONCE = 4
"""The session's newest, and in Ray Train's storage the last two and the one being copied there."""


def plan_experiment(
    params: Params,
    texts: Texts,
    *,
    gpus: int,
    memory: int,
    sharding: Sharding,
    recompute: bool | None = None,
) -> list[Planned]:
    """Memory and disk of every phase that trains the model (the autoencoder's is left out).

    Args:
        memory: bytes of one GPU.
        recompute: whether blocks are recomputed; None as the profile says of each phase.
    """
    from unigendet.planning.checkpoints import plan_checkpoints
    from unigendet.planning.memory import Machine, plan_memory
    from unigendet.planning.parameters import count_autoencoder
    from unigendet.planning.show import Planned

    fullest: dict[str, MemoryPlan] = {}
    for phase, recomputed in training_phases(params, texts, gpus):
        again = recomputed if recompute is None else recompute
        plan = plan_memory(phase, Machine(gpus, memory, sharding, again))
        if phase.name not in fullest or plan.total > fullest[phase.name].total:
            fullest[phase.name] = plan
    planned = []
    for plan in fullest.values():
        autoencoder = count_autoencoder(plan.phase.config.vae)
        disk = plan_checkpoints(plan.counts, autoencoder, CHECKPOINTS_AT_ONCE)
        planned.append(Planned(plan, disk))
    return planned


def training_phases(
    params: Params, texts: Texts, gpus: int = 1
) -> list[tuple[TrainingPhase, bool]]:
    """Generator, detector, GDUF and DIGA, as the sections of `params` have them, less those of no
    steps, each with the part of a batch that one of `gpus` has; and whether blocks are recomputed.

    A phase with a token budget comes once for each kind of sample that may fill its packs.

    Raises ValueError where a batch cannot be shared equally, or filled, as training would.
    """
    detector, coevolve = params.pretrain_detector, params.coevolve
    phases: list[tuple[str, _Section, bool, Any]] = [
        ("generator", params.pretrain_generator.flow, True, "none"),
        ("detector", detector, detector.smsa, "none"),
        ("gduf", coevolve.gduf, coevolve.smsa, "none"),
        ("diga", coevolve.diga, coevolve.smsa, coevolve.teacher),
    ]
    return [
        (phase, section.optim.recompute)
        for name, section, smsa, teacher in phases
        if section.optim.steps
        for phase in _phases(params, texts, name, section, smsa, teacher, Share(0, gpus))
    ]


def _phases(
    params: Params,
    texts: Texts,
    name: str,
    section: _Section,
    smsa: bool,
    teacher: Any,
    share: Share,
) -> list[TrainingPhase]:
    from unigendet.planning.memory import TrainingPhase
    from unigendet.planning.packs import (
        PackShape,
        detection_sample,
        generation_sample,
        teacher_pack,
    )

    if teacher in ("efficientnet", "dinov2"):
        raise ValueError(
            f"the plan knows detectors as teachers, and coevolve.teacher is {teacher}: plan with "
            "`live`, and add what that network takes"
        )
    aligned = teacher != "none"
    config = replace(
        params.model.config(params.shard.vocab_size, alignment_head=aligned),
        smsa=smsa,
    )
    size = params.data.image_size
    judged = detection_sample(config, size, texts)
    samples = {GENERATION: generation_sample(config, size, texts), REAL: judged, FAKE: judged}
    try:
        batches = _batches(section, {n: s.tokens for n, s in samples.items()}, share)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    phases = []
    for batch in batches:
        pack = PackShape()
        for stream, count in batch.items():
            pack = pack.plus(samples[stream].times(count))
        drawn = ceil(batch.get(GENERATION, 0))
        phases.append(
            TrainingPhase(
                name=name,
                config=config,
                trainable=section.optim.trainable,
                precision=section.optim.precision,
                pack=pack,
                # A detector of random weights takes what a frozen one does.
                teacher="frozen" if teacher == "random" else teacher,
                teacher_pack=teacher_pack(config, size, drawn, texts) if aligned else PackShape(),
            )
        )
    return phases


def _batches(
    section: _Section, tokens: Mapping[str, int], share: Share
) -> Sequence[Mapping[str, int | Fraction]]:
    """Samples by stream that one GPU may have in a step."""
    from unigendet.planning.budgets import fullest_packs

    if isinstance(section, FlowTrainingSection):
        per_step = samples_per_step(section.batch_size, 0)
    else:
        per_step = samples_per_step(section.generation_per_step, section.detection_per_step)
    if section.token_budget is None:
        return [{name: len(share.of(count, "samples")) for name, count in per_step.items()}]
    budget = section.token_budget.config()
    packs = len(share.of(budget.packs_per_step, "packs"))
    return [
        {name: packs * count for name, count in pack.items()}
        for pack in fullest_packs(budget, {name: tokens[name] for name in per_step})
    ]
