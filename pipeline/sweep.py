"""Stage sweep: short trials of co-evolution under different loss weights and tap layers.

Rule: the best trial has the highest

    score = AUROC - flow loss / flow loss of the detector it started from,

both on validation data with the same images and draws for every trial: one point of AUROC is worth
one percent of flow loss. A trial that failed has no score and cannot be the best.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts import BEST_WEIGHTS, HISTORY, read_json, write_json
from pipeline.coevolution import (
    DigaSettings,
    PhasePlan,
    train_diga,
    train_gduf,
    with_teacher_found,
)
from pipeline.detection_data import DetectionData
from pipeline.loss_weights import AlignmentWeights, save_best
from pipeline.sections.coevolve import CoevolveSection, SweepSection
from pipeline.stage import StageContext
from pipeline.tracking import Run, nested_run

TRIALS = "trials.json"
RULE = "score = AUROC - flow loss / flow loss of the start, both on validation data; highest wins"
_STORAGE = "ray"
_NAME = "sweep"
_SCRATCH = "trials"
_RANGES = ("flow_weight", "det_weight", "text_weight", "align_weight")


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """What every trial gets beside its own weights; picklable."""

    detector: Path
    data: DetectionData
    sweep: SweepSection
    coevolve: CoevolveSection
    scratch: Path
    threads: int
    device: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One finished trial as `trials.json` stores it."""

    number: int
    weights: AlignmentWeights
    score: float | None
    """None where the trial failed."""
    seconds: float
    figures: Mapping[str, float]
    """Validation figures, and `start_flow_loss`, that of the weights before the trial."""
    trial_id: str
    """Ray Tune's name of it."""
    error: str
    """What failed, in a line; empty where nothing did."""


def sweep(ctx: StageContext) -> None:
    """Write `best.yaml` and `trials.json` into `ctx.out`; each trial has a nested MLflow run."""
    section, coevolve = ctx.params.sweep, with_teacher_found(ctx.params.coevolve)
    if not section.trials:
        ctx.log("no trials: every weight is given in section coevolve")
        write_json(ctx.out / TRIALS, {"rule": RULE, "trials": []})
        return
    data = DetectionData(
        shards=ctx.inputs["shard"],
        forged=ctx.inputs["forge"],
        seed=ctx.seed,
        use_vae=coevolve.use_vae,
        text_dropout=coevolve.text_dropout,
        validation_images=section.validation_images,
        degradations=ctx.params.data.degradations.config(),
    )
    with ctx.ray("ray.tune"):
        import ray

        resources = ray.cluster_resources()
        device = "cuda" if resources.get("GPU", 0) and ctx.params.cluster.device != "cpu" else "cpu"
        threads = max(1, int(resources["CPU"]) // section.concurrent)
        order = TrialOrder(
            detector=ctx.inputs["pretrain_detector"],
            data=data,
            sweep=section,
            coevolve=coevolve,
            scratch=ctx.state / _SCRATCH,
            threads=threads,
            device=device,
        )
        with ctx.timed("trials"):
            trials = _run_trials(ctx, order)
    report_trials(ctx.run, trials, ctx.state / _SCRATCH)
    best = best_trial(trials)
    assert best.score is not None
    ctx.log(f"best of {len(trials)}: trial {best.number}, score {best.score:.4f}, {best.weights}")
    ctx.run.log_metrics({"best/score": best.score, **prefixed(best.figures, "best/")}, step=0)
    save_best(ctx.out / BEST_WEIGHTS, best.weights, trial=best.number, score=best.score, rule=RULE)
    write_json(ctx.out / TRIALS, {"rule": RULE, "trials": [asdict(trial) for trial in trials]})


def score_of(figures: Mapping[str, float]) -> float:
    """The rule of this module's head."""
    return figures["auroc"] - figures["flow_loss"] / figures["start_flow_loss"]


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest score, the earlier one of equals.

    Raises ValueError with the trials' errors where every one failed.
    """
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        errors = "\n  ".join(f"trial {trial.number}: {trial.error}" for trial in trials)
        raise ValueError(f"every trial of the sweep failed:\n  {errors}")
    return max(scored, key=lambda trial: (trial.score, -trial.number))


def prefixed(figures: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The figures with `prefix` before each name."""
    return {prefix + name: value for name, value in figures.items()}


def first_guess(section: SweepSection) -> dict[str, float | int]:
    """The first trial: the middle of every range on a log scale, so that a small sweep has one."""
    guess: dict[str, float | int] = {
        name: math.sqrt(math.prod(getattr(section, name))) for name in _RANGES
    }
    guess["tap_layer"] = section.tap_layers[len(section.tap_layers) // 2]
    return guess


def _run_trials(ctx: StageContext, order: TrialOrder) -> list[Trial]:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    section = order.sweep
    space: dict[str, Any] = {name: tune.loguniform(*getattr(section, name)) for name in _RANGES}
    space["tap_layer"] = tune.choice(list(section.tap_layers))
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, order=order),
        {"CPU": order.threads, "GPU": 1 if order.device == "cuda" else 0},
    )
    storage = str(ctx.state / _STORAGE)
    kept = str(ctx.state / _STORAGE / _NAME)
    if tune.Tuner.can_restore(kept):
        ctx.log("going on with the trials of the interrupted sweep")
        tuner = tune.Tuner.restore(kept, trainable, param_space=space)
    else:
        search = OptunaSearch(seed=ctx.seed, points_to_evaluate=[first_guess(section)])
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=section.trials,
                max_concurrent_trials=section.concurrent,
                # A process that has done a trial takes the next one without new imports.
                reuse_actors=True,
                search_alg=search,
            ),
            run_config=tune.RunConfig(
                name=_NAME,
                storage_path=storage,
                verbose=0,
                callbacks=[_progress(section.trials)],
            ),
        )
    results = tuner.fit()
    trials = [_trial(number, result) for number, result in enumerate(results)]
    started = [
        result.metrics["first_step_at"]
        for result in results
        if result.metrics and "first_step_at" in result.metrics
    ]
    if started:
        ctx.mark_started(min(started))
    return trials


def _progress(total: int) -> Any:
    """A Ray Tune callback that prints how many trials are done and the time left."""
    from ray import tune

    class Progress(tune.Callback):  # type: ignore[misc]
        began = 0.0

        def on_trial_start(self, **_: Any) -> None:
            self.began = self.began or time.time()

        def on_trial_complete(self, trials: Sequence[Any], **_: Any) -> None:
            # The trial that has just ended is not among the terminated ones yet.
            done = 1 + sum(trial.status == "TERMINATED" for trial in trials)
            left = (time.time() - self.began) / done * (total - done)
            minutes, seconds = divmod(round(left), 60)
            print(f"[sweep] trial {done} of {total} done, {minutes}:{seconds:02d} left", flush=True)

    return Progress()


def run_trial(config: dict[str, Any], order: TrialOrder) -> None:
    """One trial, in its own process: GDUF, then DIGA, then validation."""
    import torch
    from ray import tune

    from unigendet.inference import UniGenDet
    from unigendet.training.session import TrainingSession

    torch.set_num_threads(order.threads)
    trial_id = tune.get_context().get_trial_id()
    weights = AlignmentWeights(**config)
    session = TrainingSession(order.scratch / trial_id, device=order.device)
    section, began = order.coevolve, time.perf_counter()
    start_flow_loss = _start_flow_loss(order)
    gduf = PhasePlan(
        "gduf",
        seed=10,
        generation_per_step=section.gduf.generation_per_step,
        detection_per_step=section.gduf.detection_per_step,
        optim=replace(section.gduf.optim.config(), steps=order.sweep.gduf_steps),
        budget=section.gduf.token_budget.config() if section.gduf.token_budget else None,
    )
    diga = PhasePlan(
        "diga",
        seed=11,
        generation_per_step=section.diga.generation_per_step,
        detection_per_step=section.diga.detection_per_step,
        optim=replace(section.diga.optim.config(), steps=order.sweep.diga_steps),
        budget=section.diga.token_budget.config() if section.diga.token_budget else None,
    )
    settings = DigaSettings.of(section)
    judging = train_gduf(session, order.detector, order.data, gduf, weights)
    teacher = session.folder / "gduf"
    session.save(teacher, judging.model, judging.vae, judging.tokenizer)
    student = train_diga(session, teacher, order.data, diga, weights, settings)
    found = order.data.validate(UniGenDet(student.model, student.vae, student.tokenizer))
    figures = {**found.scalars(), "start_flow_loss": start_flow_loss}
    tune.report(
        {
            "score": score_of(figures),
            "seconds": time.perf_counter() - began,
            "first_step_at": session.first_step_at,
            "figures": figures,
        }
    )


def _start_flow_loss(order: TrialOrder) -> float:
    """Validation flow loss of the weights that every trial starts from; measured once."""
    from unigendet.inference import UniGenDet

    note = order.scratch / "start.json"
    if not note.is_file():
        found = order.data.validate(UniGenDet.from_pretrained(order.detector, order.device))
        write_json(note, found.scalars())
    return float(read_json(note)["flow_loss"])


def _trial(number: int, result: Any) -> Trial:
    """A result of Ray Tune as `trials.json` tells it."""
    metrics = result.metrics or {}
    failed = result.error is not None or "score" not in metrics
    return Trial(
        number=number,
        weights=AlignmentWeights(**result.config),
        score=None if failed else float(metrics["score"]),
        seconds=float(metrics.get("seconds", 0.0)),
        figures={} if failed else dict(metrics["figures"]),
        error=str(result.error).strip().splitlines()[-1] if result.error else "",
        trial_id=str(metrics.get("trial_id", "")),
    )


def report_trials(run: Run, trials: Sequence[Trial], scratch: Path) -> None:
    """A nested MLflow run for each trial: its weights, its loss curves and its figures."""
    for trial in trials:
        with nested_run(run, f"trial {trial.number}", failed=trial.score is None) as child:
            child.log_params(asdict(trial.weights))
            for phase, step, terms in _history(scratch / trial.trial_id / HISTORY):
                child.log_metrics(prefixed(terms, f"{phase}/"), step)
            if trial.score is not None:
                child.log_metrics({"score": trial.score, **trial.figures}, step=0)


def _history(path: Path) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Phase, step and terms of each row; none where the trial ran on another machine's disk."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        phase, step = row.pop("phase"), row.pop("step")
        yield phase, step, row
