"""The training phases of an experiment, as `unigendet.planning` takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.params import Params
from pipeline.sections.base import OptimSection
from unigendet.data.composition import Share

if TYPE_CHECKING:
    from unigendet.planning.memory import Sharding, TrainingPhase
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

    planned = []
    for phase, recomputed in training_phases(params, texts, gpus):
        again = recomputed if recompute is None else recompute
        plan = plan_memory(phase, Machine(gpus, memory, sharding, again))
        autoencoder = count_autoencoder(phase.config.vae)
        disk = plan_checkpoints(plan.counts, autoencoder, CHECKPOINTS_AT_ONCE)
        planned.append(Planned(plan, disk))
    return planned


def training_phases(
    params: Params, texts: Texts, gpus: int = 1
) -> list[tuple[TrainingPhase, bool]]:
    """Generator, detector, GDUF and DIGA, as the sections of `params` have them, less those of no
    steps, each with the part of a batch that one of `gpus` has; and whether blocks are recomputed.

    Raises ValueError where a batch cannot be shared equally, as training would.
    """
    flow, detector, coevolve = (
        params.pretrain_generator.flow,
        params.pretrain_detector,
        params.coevolve,
    )
    share = Share(0, gpus)

    def part(number: int) -> int:
        return len(share.of(number, "samples"))

    found = [_phase(params, texts, "generator", flow.optim, part(flow.batch_size))]
    for name, section, use_vae, teacher in (
        ("detector", detector, detector.use_vae, "none"),
        ("gduf", coevolve.gduf, coevolve.use_vae, "none"),
        ("diga", coevolve.diga, coevolve.use_vae, coevolve.teacher),
    ):
        if section.token_budget is not None:
            raise ValueError(
                f"the plan counts samples, and {name} has a token_budget: set it to null, and the "
                "numbers per step to what one of its packs holds"
            )
        generation = part(section.generation_per_step)
        detection = 2 * part(section.detection_per_step // 2)
        found.append(
            _phase(params, texts, name, section.optim, generation, detection, use_vae, teacher)
        )
    return [phase for phase in found if phase is not None]


def _phase(
    params: Params,
    texts: Texts,
    name: str,
    optim: OptimSection,
    generation: int,
    detection: int = 0,
    use_vae: bool = True,
    teacher: Any = "none",
) -> tuple[TrainingPhase, bool] | None:
    from unigendet.planning.memory import TrainingPhase
    from unigendet.planning.packs import PackShape, teacher_pack, training_pack

    if not optim.steps:
        return None
    if teacher in ("efficientnet", "dinov2"):
        raise ValueError(
            f"the plan knows detectors as teachers, and coevolve.teacher is {teacher}: plan with "
            "`live`, and add what that network takes"
        )
    aligned = teacher != "none"
    config = params.model.config(params.shard.vocab_size, alignment_head=aligned)
    size = params.data.image_size
    phase = TrainingPhase(
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
        # A detector of random weights takes what a frozen one does.
        teacher="frozen" if teacher == "random" else teacher,
        teacher_pack=teacher_pack(config, size, generation, texts) if aligned else PackShape(),
    )
    return phase, optim.recompute
