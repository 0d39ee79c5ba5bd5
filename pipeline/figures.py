"""The parts of metrics.json, and the few values of it that two experiments are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from unigendet.evaluation import ALL, MEAN
from unigendet.explanation_evaluation import ExplanationRow
from unigendet.figures import figure, figures_of
from unigendet.image_evaluation import ImageFigures


def explanation_figures(table: list[ExplanationRow], seed: int) -> dict[str, Any]:
    """suite -> metric -> figure."""
    return {row.suite: figures_of(row.figures, seed) for row in table}


def image_figures(found: ImageFigures, seed: int) -> dict[str, Any]:
    """Distances by set, their relations, and the checks on the images themselves."""
    sets = {
        name: {f.name: figure(getattr(one, f.name), seed) for f in fields(one)}
        for name, one in found.sets.items()
    }
    return {
        "sets": sets,
        "relations": figures_of(found.ratios, seed),
        "autoencoder_psnr_db": figure(found.psnr, seed),
        "caption_obedience": figures_of(found.obedience, seed),
        "copying": {
            "copies": figure(found.copies.copies, seed),
            "distance_generated": figure(found.copies.generated, seed),
            "distance_held_out": figure(found.copies.real, seed),
            "threshold": float(f"{found.copies.threshold:.6g}"),
        },
    }


def summary_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The few values that two experiments are compared by, flat, for `dvc metrics` and MLflow."""
    out: dict[str, float | None] = {}
    for suite, families in metrics["detection"].items():
        figures = families["all"]["figures"]
        for name in ("balanced_accuracy", "auroc"):
            out[f"{suite}_{name}"] = figures[name]["value"]
        verdicts = families["all"]["verdicts"]
        if verdicts:
            out[f"{suite}_answer_parsed"] = verdicts["answer_parsed"]["value"]
    for suite, figures in metrics["explanations"].items():
        for name in ("rouge_l", "statements_true"):
            if name in figures:
                out[f"{suite}_{name}"] = figures[name]["value"]
    images = metrics["images"]
    out["autoencoder_psnr_db"] = images["autoencoder_psnr_db"]["value"]
    for name, one in images["sets"].items():
        out[f"kd_{name}"] = one["kd"]["value"]
    for name, one in images["relations"].items():
        out[name] = one["value"]
    if "model" in images["caption_obedience"]:
        out["caption_obedience"] = images["caption_obedience"]["model"]["value"]
    out["copies"] = images["copying"]["copies"]["value"]
    for label, benchmark in metrics["benchmarks"].items():
        rows = benchmark["detection"]
        row = rows.get(MEAN, rows[ALL])["figures"]
        for name in ("balanced_accuracy", "auroc"):
            if name in row:
                out[f"benchmark_{label}_{name}"] = row[name]["value"]
    return {name: value for name, value in out.items() if value is not None}
