"""GDUF and DIGA phases on a training session: what the sweep tries and coevolve repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.detection_data import DetectionData
from pipeline.loss_weights import AlignmentWeights, check_layer
from pipeline.sections.coevolve import CoevolveSection, TeacherName

if TYPE_CHECKING:
    from unigendet.config import OptimConfig
    from unigendet.data.composition import Budget
    from unigendet.data.loader import MixedBatches
    from unigendet.models.pretrained import Pretrained
    from unigendet.training.session import TrainingSession
    from unigendet.types import Teacher


GENERATION_SIDE = r".*moe_gen.*|(vae2llm|llm2vae|time_embedder|diga_mlp)\..*"
"""Names of the weights that serve generation; all others serve detection and text."""
_RANDOM_TEACHER = 2**20
"""Added to the seed: drawn from the seed itself, the random teacher would be the generator before
it was trained. It is the same one in all rounds."""
_CENTRED_ON = 16
"""Steps whose images give the mean of a teacher's features."""


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
    """Who teaches, from which of its layers, and how strongly in the course of a phase."""

    teacher: TeacherName
    teacher_layer: Literal["last", "last_input"] | int
    teacher_path: Path | None = None
    """The folder of a `dinov2` teacher."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    until: float = 1.0
    """As in `AlignmentSchedule`."""
    centred: bool = False
    """Whether the mean of the teacher's features is taken off them."""

    @classmethod
    def of(cls, section: CoevolveSection) -> DigaSettings:
        """What a section says."""
        return cls(
            section.teacher,
            section.teacher_layer,
            Path(section.teacher_path) if section.teacher_path else None,
            section.diga.align_schedule,
            section.diga.align_until,
            section.teacher_centred,
        )


def with_teacher_found(section: CoevolveSection) -> CoevolveSection:
    """The same section with the path of its teacher as workers need it, absolute.

    Raises ValueError where no DINOv2 is there, before anything is trained.
    """
    if not section.teacher_path:
        return section
    from unigendet.teachers.dinov2 import check_dinov2

    path = Path(section.teacher_path).expanduser().absolute()
    check_dinov2(path, section.teacher_layer)
    return section.model_copy(update={"teacher_path": str(path)})


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

    loaded = session.load(start, plan.optim, smsa=data.smsa)
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

    loaded = session.load(start, generation.optim, smsa=data.smsa)
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
    """DIGA from the model folder `start`, which is the teacher too unless `settings` name another.

    The model returned holds the average of its weights and has an alignment head as wide as the
    teacher's features: `start`'s own or a fresh one.
    """
    from unigendet.config import AlignmentSchedule
    from unigendet.objectives import DigaObjective
    from unigendet.teachers.centred import CentredTeacher

    image_teacher = _image_teacher(session, start, settings)
    loaded = session.load(
        start,
        plan.optim,
        head_seed=data.seed,
        head_width=image_teacher.width if image_teacher else None,
    )
    check_layer(weights.tap_layer, loaded.config.llm.num_hidden_layers)
    teacher = image_teacher or _detector_teacher(session, start, loaded, plan, settings, data.seed)
    schedule = AlignmentSchedule(plan.optim.steps, settings.schedule, settings.until)
    batches = _batches(session, loaded, data, plan, more_fakes)
    if settings.centred and plan.optim.steps:
        # The steps' own batches, so that a run that is resumed has the same mean.
        steps = range(min(_CENTRED_ON, plan.optim.steps))
        teacher = CentredTeacher(
            teacher, (batches.alignment_batch(step).to(session.device) for step in steps)
        )
    objective = DigaObjective(loaded.vae, teacher, weights.diga(), weights.tap_layer, schedule)
    trained = session.train(plan.name, loaded.model, objective, batches.alignment_batch, plan.optim)
    trained.ema.copy_to_model()
    return loaded


def _image_teacher(session: TrainingSession, start: Path, settings: DigaSettings) -> Teacher | None:
    """A teacher that is no detector, or None. Every rank holds the whole of it."""
    from unigendet.models.pretrained import read_config

    if settings.teacher == "efficientnet":
        from unigendet.teachers.efficientnet import EfficientNetTeacher

        return EfficientNetTeacher(read_config(start), settings.teacher_layer)
    if settings.teacher == "dinov2":
        from unigendet.teachers.dinov2 import Dinov2Teacher

        assert settings.teacher_path is not None
        config, layer = read_config(start), settings.teacher_layer
        return Dinov2Teacher(config, settings.teacher_path, layer, session.device)
    return None


def _detector_teacher(
    session: TrainingSession,
    start: Path,
    student: Pretrained,
    plan: PhasePlan,
    settings: DigaSettings,
    seed: int,
) -> Teacher:
    """The detector of `start`, the student itself, or a detector that has learned nothing."""
    from unigendet.teachers.detector import DetectorTeacher, random_detector

    if settings.teacher == "live":
        model = student.model
    elif settings.teacher == "random":
        fresh = random_detector(student.config, seed + _RANDOM_TEACHER)
        model = session.distribute(fresh, plan.optim)
    else:
        model = session.load(start, plan.optim).model
    live = settings.teacher == "live"
    return DetectorTeacher(model, student.vae, settings.teacher_layer, live=live)


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
