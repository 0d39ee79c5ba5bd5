"""Stage coevolve: rounds of GDUF, DIGA with the frozen detector as teacher, and fresh fakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.artifacts import BEST_WEIGHTS, read_json, write_json
from pipeline.coevolution import (
    DigaSettings,
    PhasePlan,
    train_diga,
    train_gduf,
    train_separately,
    with_teacher_found,
)
from pipeline.detection_data import DetectionData
from pipeline.exporting import export_session, write_summary
from pipeline.loss_weights import AlignmentWeights, resolve
from pipeline.pictures import draw_rows
from pipeline.ray_train import train_on_ray
from pipeline.sections.coevolve import CoevolveSection, DigaSection, GdufSection
from pipeline.sheets import read_sheet, write_sheet
from pipeline.stage import StageContext

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unigendet.models.pretrained import Pretrained
    from unigendet.training.session import TrainingSession
    from unigendet.types import Sample

_RESULT = "model"
_MODEL = "model"
_DRAWN = "drawn.png"
_VALIDATION = "validation.json"
BEFORE_DIGA = "before_diga"
"""Folder in the out: the model as it entered the last DIGA phase, for comparisons."""


@dataclass(frozen=True, slots=True)
class CoevolveJob:
    """All that the worker needs."""

    detector: Path
    data: DetectionData
    weights: AlignmentWeights
    section: CoevolveSection

    def plan(self, kind: Literal["gduf", "diga"], round_number: int) -> PhasePlan:
        """The GDUF or DIGA phase of a round (from 1)."""
        phase: GdufSection | DigaSection = getattr(self.section, kind)
        return PhasePlan(
            name=phase_name(kind, round_number),
            seed=100 + 2 * round_number + (kind == "diga"),
            generation_per_step=phase.generation_per_step,
            detection_per_step=phase.detection_per_step,
            optim=phase.optim.config(),
            budget=phase.token_budget.config() if phase.token_budget else None,
        )


def phase_name(kind: Literal["gduf", "diga", "fakes"], round_number: int) -> str:
    """Name of a phase in the history and of its result."""
    return f"round{round_number}_{kind}"


def coevolve(ctx: StageContext) -> None:
    """Write the co-evolved model's folder, its history and the pictures into `ctx.out`."""
    section = with_teacher_found(ctx.params.coevolve)
    weights, origin = resolve(section, ctx.inputs["sweep"] / BEST_WEIGHTS)
    in_force = {name: getattr(weights, name) for name in origin}
    for name, source in origin.items():
        ctx.log(f"{name} = {in_force[name]:g} (from {source})")
        ctx.run.set_tag(f"unigendet.{name}.from", source)
    ctx.run.log_params({"in_force": in_force})
    data = DetectionData(
        shards=ctx.inputs["shard"],
        forged=ctx.inputs["forge"],
        seed=ctx.seed,
        use_vae=section.use_vae,
        text_dropout=section.text_dropout,
        validation_images=section.validation_images,
        degradations=ctx.params.data.degradations.config(),
    )
    job = CoevolveJob(ctx.inputs["pretrain_detector"], data, weights, section)
    finished = train_on_ray(ctx, train_rounds, job)
    export_session(ctx, finished, _RESULT)


def train_rounds(session: TrainingSession, job: CoevolveJob) -> None:
    """All rounds; runs in the worker."""
    start, more_fakes, phases = job.detector, list[Path](), list[str]()
    for number in range(1, job.section.rounds + 1):
        for kind, train in (("gduf", _gduf), ("diga", _diga)):
            name = f"round{number}_{kind}"
            kept = session.once(name, partial(train, session, job, number, start, more_fakes))
            start = kept / _MODEL
            before_last_diga = kind == "diga" and number == job.section.rounds
            if phases and not before_last_diga:
                session.drop(phases[-1], _MODEL)
            phases.append(name)
        if number < job.section.rounds and job.section.fresh_fakes:
            name = phase_name("fakes", number)
            more_fakes.append(
                session.once(name, partial(_fresh_fakes, session, job, number, start))
            )
    session.once(_RESULT, partial(_finish, session, job, start, phases))


def _gduf(
    session: TrainingSession,
    job: CoevolveJob,
    number: int,
    start: Path,
    more_fakes: Sequence[Path],
    folder: Path,
) -> None:
    plan = job.plan("gduf", number)
    if job.section.joint:
        trained = train_gduf(session, start, job.data, plan, job.weights, more_fakes)
    else:
        flow, detection = (
            replace(plan, name=f"round{number}_{task}") for task in ("flow", "detection")
        )
        trained = train_separately(
            session, start, job.data, flow, detection, job.weights, more_fakes
        )
    _keep(session, job, trained, plan.name, folder)


def _diga(
    session: TrainingSession,
    job: CoevolveJob,
    number: int,
    start: Path,
    more_fakes: Sequence[Path],
    folder: Path,
) -> None:
    plan = job.plan("diga", number)
    settings = DigaSettings.of(job.section)
    trained = train_diga(session, start, job.data, plan, job.weights, settings, more_fakes)
    _keep(session, job, trained, plan.name, folder)


def _keep(
    session: TrainingSession, job: CoevolveJob, trained: Pretrained, name: str, folder: Path
) -> None:
    """Save a phase's model, what it draws for the same captions and noise, and its validation."""
    import numpy as np

    from unigendet.inference import UniGenDet

    session.save(folder / _MODEL, trained.model, trained.vae, trained.tokenizer)
    if not session.leader:
        return
    model = UniGenDet.from_pretrained(folder / _MODEL, session.device)
    drawing = job.section.samples
    captions = [sample.caption for sample in _validation_samples(job)]
    images = model.generate(
        captions, steps=drawing.steps, guidance=drawing.guidance, seed=job.data.seed
    )
    write_sheet(folder / _DRAWN, np.stack(images))
    found = job.data.validate(model)
    write_json(folder / _VALIDATION, found.scalars())
    session.say(
        f"{name}: validation AUROC {found.auroc:.3f}, flow loss {found.flow_loss:.4f}, "
        f"verdict loss {found.det_loss:.3f}"
    )


def _validation_samples(job: CoevolveJob) -> list[Sample]:
    from unigendet.data.shards import ShardDataset
    from unigendet.validation import spread

    return spread(ShardDataset(job.data.shards, "val", verify=False), job.section.samples.count)


def _fresh_fakes(
    session: TrainingSession, job: CoevolveJob, number: int, start: Path, folder: Path
) -> None:
    """Images that the improved generator draws for training captions, as a further training set."""
    from unigendet.data.shards import ShardDataset, ShardWriter
    from unigendet.evidence import measure
    from unigendet.explanations import EVIDENCE_FILE, Explainer
    from unigendet.inference import UniGenDet
    from unigendet.types import Sample
    from unigendet.validation import spread

    if not session.leader:
        return
    section = job.section
    generator = UniGenDet.from_pretrained(start, session.device)
    explainer = Explainer.from_json((job.data.forged / EVIDENCE_FILE).read_text(encoding="utf-8"))
    real = ShardDataset(job.data.shards, "train", verify=False)
    origins = spread(real, section.fresh_fakes)
    session.say(f"round {number}: drawing {len(origins)} fresh fakes")
    images = generator.generate(
        [sample.caption for sample in origins],
        steps=section.fresh_fakes_steps,
        guidance=section.fresh_fakes_guidance,
        seed=job.data.seed + number,
    )
    with ShardWriter(folder, "train", encoding=real.encoding) as writer:
        for place, (origin, image) in enumerate(zip(origins, images, strict=True)):
            writer.write(
                Sample(
                    key=f"fresh{number}-{place:06d}",
                    image=image,
                    source_id=origin.source_id,
                    split=origin.split,
                    domain=origin.domain,
                    caption=origin.caption,
                    fake=True,
                    generator="flow",
                    explanation=explainer.explain(measure(image), fake=True),
                )
            )


def _finish(
    session: TrainingSession, job: CoevolveJob, start: Path, phases: Sequence[str], folder: Path
) -> None:
    """The last phase's model without its alignment head, and the pictures of all phases."""
    from unigendet.models.pretrained import load_pretrained, save_pretrained
    from unigendet.training.alignment_head import without_alignment_head

    if not session.leader:
        return
    loaded = load_pretrained(start)
    save_pretrained(folder, without_alignment_head(loaded.model), loaded.vae, loaded.tokenizer)
    samples = _validation_samples(job)
    kept = session.folder / "kept"
    before = load_pretrained(kept / phases[-2] / _MODEL)
    entered_diga = without_alignment_head(before.model)
    save_pretrained(folder / BEFORE_DIGA, entered_diga, before.vae, before.tokenizer)
    rows: list[tuple[str, Sequence[NDArray[np.uint8]]]] = [("real", [s.image for s in samples])]
    for name in phases:
        size = (samples[0].image.shape[0], samples[0].image.shape[1])
        drawn = read_sheet(kept / name / _DRAWN, len(samples), size)
        rows.append((_label(name), list(drawn)))
    captions = [sample.caption for sample in samples]
    draw_rows(folder / "coevolution.png", rows, captions)
    draw_rows(folder / "diga_before_after.png", [rows[0], *rows[-2:]], captions)
    by_phase = {name: read_json(kept / name / _VALIDATION) for name in phases}
    figures = {f"val_{name}": value for name, value in by_phase[phases[-1]].items()}
    write_summary(folder, figures, phases=by_phase, weights=asdict(job.weights))


def _label(phase: str) -> str:
    number, kind = phase.removeprefix("round").split("_")
    return f"after {kind.upper()}, round {number}"
