"""One trial of the sweep, in a process of its own: GDUF, then DIGA, then its two figures.

On the way it reports ASHA's scalar every `grace_steps` steps, the mean over the steps since the
report before of

    progress = verdict loss / ln 2 + flow loss / 2,

each term being 1 for a model that knows nothing: ln 2 is the verdict loss of "one half", 2 the
mean square of (noise - data) for latents of variance 1. A batch's loss is taken before the model
learns from it, and all trials see the same batches and draws at the same step, so this compares
them well and costs nothing. It is unweighted, whatever the trial's own weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts import read_json, write_json
from pipeline.coevolution import DigaSettings, PhasePlan, train_diga, train_gduf
from pipeline.loss_weights import AlignmentWeights
from pipeline.sections.coevolve import CoevolveSection, DigaSection, GdufSection
from pipeline.sections.sweep import RANGES, SweepSection
from pipeline.sweep.judging import Judge

if TYPE_CHECKING:
    from unigendet.training.loop import LogRow

AUROC, DISTANCE, PROGRESS, STEPS = "auroc", "distance", "progress", "steps"
"""What a trial reports: two objectives, None before its end; ASHA's scalar and when it was."""
NUMBER, REPEAT = "number", "repeat"
"""Of a trial's configuration, beside its weights: see `pipeline.sweep.front.Trial`."""
_SEEDS_APART = 1_000_003
_GDUF, _DIGA = "gduf", "diga"
_MODEL, _FIGURES = "model", "figures.json"


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """What every trial gets beside its own configuration; picklable."""

    detector: Path
    judge: Judge
    sweep: SweepSection
    coevolve: CoevolveSection
    scratch: Path
    threads: int
    device: str

    def plan(self, phase: GdufSection | DigaSection) -> PhasePlan:
        """A short phase with the batches of section coevolve."""
        diga = isinstance(phase, DigaSection)
        steps = self.sweep.diga_steps if diga else self.sweep.gduf_steps
        return PhasePlan(
            _DIGA if diga else _GDUF,
            seed=11 if diga else 10,
            generation_per_step=phase.generation_per_step,
            detection_per_step=phase.detection_per_step,
            optim=replace(phase.optim.config(), steps=steps, log_every=self.sweep.grace_steps),
            budget=phase.token_budget.config() if phase.token_budget else None,
        )


def weights_of(config: dict[str, Any]) -> AlignmentWeights:
    """The weights of a trial's configuration."""
    return AlignmentWeights(**{name: config[name] for name in (*RANGES, "tap_layer")})


def run_trial(config: dict[str, Any], order: TrialOrder) -> None:
    """Train with the weights of `config` and report; a repeat draws from a seed of its own."""
    import torch
    from ray import tune

    from unigendet.inference import UniGenDet
    from unigendet.training.session import TrainingSession

    torch.set_num_threads(order.threads)
    began = time.perf_counter()
    weights, coevolve = weights_of(config), order.coevolve
    data = order.judge.data
    data = replace(data, seed=data.seed + _SEEDS_APART * config[REPEAT])
    rung: dict[str, Any] = {PROGRESS: None}

    def report(**found: Any) -> None:
        tune.report(
            {
                AUROC: None,
                DISTANCE: None,
                **rung,
                "seconds": time.perf_counter() - began,
                "first_step_at": session.first_step_at,
                **found,
            }
        )

    def on_log(row: LogRow) -> None:
        rung[STEPS] = row.step + (order.sweep.gduf_steps if row.phase == _DIGA else 0)
        rung[PROGRESS] = progress(row.terms)
        if rung[STEPS] < order.sweep.steps:
            report()

    def gduf(folder: Path) -> None:
        trained = train_gduf(session, order.detector, data, order.plan(coevolve.gduf), weights)
        session.save(folder / _MODEL, trained.model, trained.vae, trained.tokenizer)

    def diga(folder: Path) -> None:
        start, settings = session.once(_GDUF, gduf) / _MODEL, DigaSettings.of(coevolve)
        student = train_diga(session, start, data, order.plan(coevolve.diga), weights, settings)
        judged = UniGenDet(student.model, student.vae, student.tokenizer)
        write_json(folder / _FIGURES, order.judge.figures(judged))

    folder = order.scratch / tune.get_context().get_trial_id()
    session = TrainingSession(folder, device=order.device, on_log=on_log)
    figures = read_json(session.once(_DIGA, diga) / _FIGURES)
    session.mark_started()  # where all was done before
    # Trials are many: of an ended one the figures and the history stay.
    session.drop(_GDUF, _MODEL)
    rung[STEPS] = order.sweep.steps
    report(auroc=figures[AUROC], distance=figures[DISTANCE], figures=figures)


def progress(terms: dict[str, float]) -> float:
    """ASHA's scalar of a log row's terms; a task that the phase has not counts as 0."""
    return terms.get("det_loss", 0.0) / math.log(2.0) + terms.get("flow_loss", 0.0) / 2.0
