"""The training phases of an experiment, as `unigendet.planning` takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.params import Params
from pipeline.sections.base import OptimSection

if TYPE_CHECKING:
    from unigendet.planning.memory import MemoryPlan, Sharding, TrainingPhase
    from unigendet.planning.packs import Texts
    from unigendet.planning.show import Planned

CHECKPOINTS_AT_ONCE = 4
"""The session's newest, and in Ray Train's storage the last two and the one being copied there."""


def plan_experiment(
    params: Params,
    texts: Texts,
    *,
    gpus: int,
    memory: int,
    sharding: Sharding,
    recompute: bool | None,
) -> list[Planned]:
    """Memory and disk of every phase that trains the model (the autoencoder's is left out).

    Args:
        memory: bytes of one GPU.
        recompute: whether blocks are recomputed; None where a phase would not fit without it.
    """
    from unigendet.planning.checkpoints import plan_checkpoints
    from unigendet.planning.parameters import count_autoencoder
    from unigendet.planning.show import Planned

    planned = []
    for phase in training_phases(params, texts):
        plan = _plan(phase, gpus, memory, sharding, recompute)
        autoencoder = count_autoencoder(phase.config.vae)
        disk = plan_checkpoints(plan.counts, autoencoder, CHECKPOINTS_AT_ONCE)
        planned.append(Planned(plan, disk))
    return planned


def training_phases(params: Params, texts: Texts) -> list[TrainingPhase]:
    """Generator, detector, GDUF and DIGA, as the sections of `params` have them, less those of no
    steps; batches are those of one rank."""
    flow, detector, coevolve = (
        params.pretrain_generator.flow,
        params.pretrain_detector,
        params.coevolve,
    )
    phases = [_phase(params, texts, "generator", flow.optim, flow.batch_size)]
    for name, section, use_vae, teacher in (
        ("detector", detector, detector.use_vae, "none"),
        ("gduf", coevolve.gduf, coevolve.use_vae, "none"),
        ("diga", coevolve.diga, coevolve.use_vae, coevolve.teacher),
    ):
        phases.append(
            _phase(
                params,
                texts,
                name,
                section.optim,
                section.generation_per_step,
                section.detection_per_step,
                use_vae,
                teacher,
            )
        )
    return [phase for phase in phases if phase is not None]


def _phase(
    params: Params,
    texts: Texts,
    name: str,
    optim: OptimSection,
    generation: int,
    detection: int = 0,
    use_vae: bool = True,
    teacher: Any = "none",
) -> TrainingPhase | None:
    from unigendet.planning.memory import TrainingPhase
    from unigendet.planning.packs import PackShape, teacher_pack, training_pack

    if not optim.steps:
        return None
    aligned = teacher != "none"
    config = params.model.config(params.shard.vocab_size, alignment_head=aligned)
    size = params.data.image_size
    return TrainingPhase(
        name=name,
        config=config,
        trainable=optim.trainable,
        precision=optim.precision,
        pack=training_pack(
            config,
            size,
            generation=generation,
            detection=detection,
            texts=texts,
            use_vae=use_vae,
        ),
        teacher=teacher,
        teacher_pack=teacher_pack(config, size, generation, texts) if aligned else PackShape(),
    )


def _plan(
    phase: TrainingPhase, gpus: int, memory: int, sharding: Sharding, recompute: bool | None
) -> MemoryPlan:
    from unigendet.planning.memory import Machine, plan_memory

    plan = plan_memory(phase, Machine(gpus, memory, sharding, bool(recompute)))
    if recompute is None and not plan.fits:
        return plan_memory(phase, Machine(gpus, memory, sharding, recompute=True))
    return plan
