"""Stage coevolve: rounds of GDUF, DIGA with a teacher (the detector, unless told), fresh fakes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.artifacts import BEST_WEIGHTS
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
from pipeline.fooling import PICTURE, who_fools_whom
from pipeline.fresh_fakes import draw_fresh_fakes
from pipeline.half_rounds import HalfRounds
from pipeline.heat_map import WHO_FOOLS_WHOM
from pipeline.loss_weights import AlignmentWeights, resolve
from pipeline.phases import START, phase_label, phase_name
from pipeline.pictures import draw_rows
from pipeline.ray_train import train_on_ray
from pipeline.sections.coevolve import CoevolveSection, DigaSection, GdufSection
from pipeline.stage import StageContext

if TYPE_CHECKING:
    from unigendet.models.pretrained import Pretrained
    from unigendet.training.session import TrainingSession

_RESULT = "model"
_MODEL = "model"
_MATRIX = "who_fools_whom"
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


def coevolve(ctx: StageContext) -> None:
    """Write the co-evolved model's folder, its history and the pictures into `ctx.out`."""
    section = with_teacher_found(ctx.params.coevolve)
    weights, origin = resolve(section, ctx.inputs["sweep"] / BEST_WEIGHTS)
    in_force = {name: getattr(weights, name) for name in origin}
    for name, source in origin.items():
        ctx.log(f"{name} = {in_force[name]:g} (from {source})")
        ctx.run.set_tag(f"unigendet.{name}.from", source)
    ctx.run.log_params({"in_force": in_force})
    data = DetectionData.of(
        ctx,
        section,
        validation_images=section.validation_images,
        fresh_share=section.fresh_share,
    )
    job = CoevolveJob(ctx.inputs["pretrain_detector"], data, weights, section)
    finished = train_on_ray(ctx, train_rounds, job)
    export_session(ctx, finished, _RESULT)
    if section.matrix_images:
        ctx.run.log_artifact(ctx.out / WHO_FOOLS_WHOM)


def train_rounds(session: TrainingSession, job: CoevolveJob) -> None:
    """All rounds; runs in the worker."""
    half_rounds = HalfRounds(session, job.data, job.section)
    models = {START: job.detector}
    session.once(START, partial(half_rounds.keep, START, job.detector))
    more_fakes, phases = list[Path](), list[str]()
    start = job.detector
    for number in range(1, job.section.rounds + 1):
        for name, train in (
            (phase_name("gduf", number), _gduf),
            (phase_name("diga", number), _diga),
        ):
            order = partial(train, half_rounds, job, number, start, more_fakes)
            start = models[name] = session.once(name, order) / _MODEL
            before_last_diga = train is _diga and number == job.section.rounds
            if phases and not before_last_diga and not job.section.matrix_images:
                session.drop(phases[-1], _MODEL)
            phases.append(name)
        if number < job.section.rounds and job.section.fresh_fakes:
            name = phase_name("fakes", number)
            draw = partial(draw_fresh_fakes, session, job.data, job.section, number, start)
            more_fakes.append(session.once(name, draw))
    if job.section.matrix_images:
        session.once(_MATRIX, partial(who_fools_whom, half_rounds, models))
        for name in phases[:-2]:
            session.drop(name, _MODEL)
    session.once(_RESULT, partial(_finish, half_rounds, job, start, phases))


def _gduf(
    half_rounds: HalfRounds,
    job: CoevolveJob,
    number: int,
    start: Path,
    more_fakes: Sequence[Path],
    folder: Path,
) -> None:
    session, plan = half_rounds.session, job.plan("gduf", number)
    if job.section.joint:
        trained = train_gduf(session, start, job.data, plan, job.weights, more_fakes)
    else:
        flow, detection = (
            replace(plan, name=f"round{number}_{task}") for task in ("flow", "detection")
        )
        trained = train_separately(
            session, start, job.data, flow, detection, job.weights, more_fakes
        )
    _keep(half_rounds, trained, plan.name, folder)


def _diga(
    half_rounds: HalfRounds,
    job: CoevolveJob,
    number: int,
    start: Path,
    more_fakes: Sequence[Path],
    folder: Path,
) -> None:
    session, plan = half_rounds.session, job.plan("diga", number)
    settings = DigaSettings.of(job.section)
    trained = train_diga(session, start, job.data, plan, job.weights, settings, more_fakes)
    _keep(half_rounds, trained, plan.name, folder)


def _keep(half_rounds: HalfRounds, trained: Pretrained, name: str, folder: Path) -> None:
    half_rounds.session.save(folder / _MODEL, trained.model, trained.vae, trained.tokenizer)
    half_rounds.keep(name, folder / _MODEL, folder)


def _finish(
    half_rounds: HalfRounds, job: CoevolveJob, start: Path, phases: Sequence[str], folder: Path
) -> None:
    """The last phase's model without its alignment head, and the pictures of all phases."""
    from unigendet.models.pretrained import load_pretrained, save_pretrained
    from unigendet.training.alignment_head import without_alignment_head
    from unigendet.validation import spread

    session = half_rounds.session
    if not session.leader:
        return
    loaded = load_pretrained(start)
    save_pretrained(folder, without_alignment_head(loaded.model), loaded.vae, loaded.tokenizer)
    before = load_pretrained(session.kept(phases[-2]) / _MODEL)
    entered_diga = without_alignment_head(before.model)
    save_pretrained(folder / BEFORE_DIGA, entered_diga, before.vae, before.tokenizer)

    names = [START, *phases]
    asked = half_rounds.asked()
    shown = spread(range(len(asked)), job.section.samples.count)
    captions = [asked[place].caption for place in shown]
    images = {"real": [sample.image for sample in asked]}
    images |= {_row_label(name): list(half_rounds.drawn(name)) for name in names}
    rows = [(label, [drawn[place] for place in shown]) for label, drawn in images.items()]
    draw_rows(folder / "coevolution.png", rows, captions)
    draw_rows(folder / "diga_before_after.png", [rows[0], *rows[-2:]], captions)
    if job.section.matrix_images:
        for file in (WHO_FOOLS_WHOM, PICTURE):
            shutil.copyfile(session.kept(_MATRIX) / file, folder / file)
    by_phase = {name: half_rounds.validation(name) for name in names}
    figures = {f"val_{name}": value for name, value in by_phase[phases[-1]].items()}
    write_summary(folder, figures, phases=by_phase, weights=asdict(job.weights))


def _row_label(name: str) -> str:
    return "before" if name == START else f"after {phase_label(name)}"
