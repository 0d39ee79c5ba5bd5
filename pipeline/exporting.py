"""From a finished training session to a stage's out and its MLflow run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts import HISTORY, SUMMARY, read_json, write_json
from pipeline.stage import StageContext


def write_summary(folder: Path, figures: Mapping[str, float], **details: Any) -> None:
    """Write summary.json, `{"figures": {name: number}}` and whatever else describes the result."""
    write_json(folder / SUMMARY, {"figures": dict(figures), **details})


def export_session(ctx: StageContext, finished: Path, result: str) -> None:
    """Copy the result `result` of a finished session, and its history, into the stage's out.

    Its pictures and figures go to MLflow; the seconds of each phase to the stage's timings.
    """
    from unigendet.training.session import KEPT

    shutil.copytree(finished / KEPT / result, ctx.out, dirs_exist_ok=True)
    shutil.copyfile(finished / HISTORY, ctx.out / HISTORY)
    for picture in sorted(ctx.out.glob("*.png")):
        ctx.run.log_figure(picture.stem, picture)
    figures = read_json(ctx.out / SUMMARY)["figures"]
    ctx.run.log_metrics({f"result/{name}": value for name, value in figures.items()}, step=0)
    for phase, seconds in phase_seconds(ctx.out / HISTORY).items():
        ctx.phases[phase] = ctx.phases.get(phase, 0.0) + seconds
    for name, value in figures.items():
        ctx.log(f"{name}: {value:.4g}")


def phase_seconds(history: Path) -> dict[str, float]:
    """Seconds that each phase of a history spent in training steps."""
    seconds: dict[str, float] = {}
    for line in history.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        seconds[row["phase"]] = float(row["seconds"])
    return seconds
