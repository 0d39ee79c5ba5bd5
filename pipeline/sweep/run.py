"""Stage sweep: all trials, their MLflow runs, `trials.json` and `best.yaml`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.artifacts import BEST_WEIGHTS, HISTORY, TRIALS, write_json
from pipeline.coevolution import with_teacher_found
from pipeline.detection_data import DetectionData
from pipeline.loss_weights import save_best
from pipeline.stage import StageContext
from pipeline.sweep.front import (
    RULE,
    Trial,
    choose,
    finished_or_raise,
    noise_between_seeds,
    pareto_front,
)
from pipeline.sweep.judging import Judge
from pipeline.sweep.search import run_search
from pipeline.sweep.space import from_the_middle
from pipeline.sweep.trial import (
    AUROC,
    DISTANCE,
    NUMBER,
    PROGRESS,
    REPEAT,
    STEPS,
    TrialOrder,
    run_trial,
    weights_of,
)
from pipeline.tracking import Run, nested_run
from unigendet.forgeries.roles import families_with

_TUNE = "ray"
_SCRATCH = "trials"
_RUN_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def sweep(ctx: StageContext) -> None:
    """Write `best.yaml` and `trials.json` into `ctx.out`; each trial has a nested MLflow run."""
    section = ctx.params.sweep
    if not section.enabled:
        ctx.log("no trials: every weight is given in section coevolve")
        write_json(ctx.out / TRIALS, {"rule": RULE, "trials": []})
        return
    with ctx.ray("ray.tune"):
        from ray import tune

        order = trial_order(ctx)
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, order=order),
            {"CPU": order.threads, "GPU": section.gpu_share if order.device == "cuda" else 0},
        )
        with ctx.timed("trials"):
            results = run_search(section, ctx.seed, trainable, ctx.state / _TUNE)
    started = [r.metrics["first_step_at"] for r in results if "first_step_at" in (r.metrics or {})]
    if started:
        ctx.mark_started(min(started))
    trials = sorted(map(read_trial, results), key=lambda trial: trial.number)
    report_trials(ctx.run, trials, order.scratch)
    finished_or_raise(trials)
    front, noise = pareto_front(trials), noise_between_seeds(trials)
    best = choose(trials, noise, partial(from_the_middle, section=section))
    auroc, distance = best.objectives
    ctx.log(
        f"best: trial {best.number} ({len(front)} on the front), AUROC {auroc:.4f} (noise "
        f"{noise.auroc:.4f}), {section.distance.measure} {distance:.4f} (noise "
        f"{noise.distance:.4f}), {best.weights}"
    )
    ctx.run.log_metrics({"best/auroc": auroc, "best/distance": distance}, step=0)
    ctx.run.log_metrics({"noise/auroc": noise.auroc, "noise/distance": noise.distance}, step=0)
    save_best(
        ctx.out / BEST_WEIGHTS,
        best.weights,
        trial=best.number,
        auroc=auroc,
        distance=distance,
        measure=section.distance.measure,
        noise_auroc=noise.auroc,
        noise_distance=noise.distance,
        noise_runs=noise.runs,
        rule=RULE,
    )
    found = {
        "rule": RULE,
        "measure": section.distance.measure,
        "noise": asdict(noise),
        "front": [trial.number for trial in front],
        "best": best.number,
        "trials": [asdict(trial) for trial in trials],
    }
    write_json(ctx.out / TRIALS, found)


def trial_order(ctx: StageContext) -> TrialOrder:
    """What all trials share, on the Ray that is connected."""
    import ray

    section, coevolve = ctx.params.sweep, with_teacher_found(ctx.params.coevolve)
    data = DetectionData.of(ctx, coevolve, validation_images=section.validation_images)
    resources = ray.cluster_resources()
    cuda = bool(resources.get("GPU", 0)) and ctx.params.cluster.device != "cpu"
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return TrialOrder(
        detector=ctx.inputs["pretrain_detector"],
        judge=Judge(
            data, families_with(ctx.params.forge.roles.by_family(), "val"), section.distance
        ),
        sweep=section,
        coevolve=coevolve,
        scratch=ctx.state / _SCRATCH,
        threads=threads_per_trial(nodes, section.concurrent),
        device="cuda" if cuda else "cpu",
    )


def threads_per_trial(nodes: Sequence[int], concurrent: int) -> int:
    """Cores of a trial, `nodes` being the cores of each machine: one trial is on one machine."""
    return max(1, min(sum(nodes) // concurrent, max(nodes)))


def read_trial(result: Any) -> Trial:
    """A result of Ray Tune as `trials.json` tells it.

    Raises RuntimeError where not even the trial's process could be started.
    """
    if result.config is None:
        raise RuntimeError(
            f"Ray could not start a trial of the sweep: {result.error}\nThe trials that ended are "
            "kept: mend the cluster and run the stage again"
        )
    metrics = result.metrics or {}
    failed = result.error is not None or PROGRESS not in metrics
    finished = not failed and metrics[AUROC] is not None
    return Trial(
        number=result.config[NUMBER],
        weights=weights_of(result.config),
        repeat=result.config[REPEAT],
        status="failed" if failed else "finished" if finished else "stopped",
        steps=int(metrics.get(STEPS, 0)),
        progress=metrics.get(PROGRESS),
        auroc=float(metrics[AUROC]) if finished else None,
        distance=float(metrics[DISTANCE]) if finished else None,
        seconds=float(metrics.get("seconds", 0.0)),
        figures=dict(metrics["figures"]) if finished else {},
        trial_id=str(metrics.get("trial_id", "")),
        error=str(result.error).strip().splitlines()[-1] if result.error else "",
    )


def report_trials(run: Run, trials: Sequence[Trial], scratch: Path) -> None:
    """A nested MLflow run for each trial: its weights, its loss curves and its figures."""
    for trial in trials:
        name = f"trial {trial.number}" + (f", repeat {trial.repeat}" if trial.repeat else "")
        with nested_run(run, name, status=_RUN_STATUS[trial.status]) as child:
            child.set_tag("unigendet.trial", trial.status)
            child.log_params({**asdict(trial.weights), "repeat": trial.repeat})
            for phase, step, terms in _history(scratch / trial.trial_id / HISTORY):
                child.log_metrics({f"{phase}/{key}": value for key, value in terms.items()}, step)
            if trial.progress is not None:
                child.log_metrics({PROGRESS: trial.progress}, step=trial.steps)
            child.log_metrics(trial.figures, step=0)


def _history(path: Path) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Phase, step and terms of each row; none where the trial ran on another machine's disk."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        phase, step = row.pop("phase"), row.pop("step")
        yield phase, step, row
