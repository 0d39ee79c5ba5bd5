"""The tables of metrics.json, every number a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pipeline.estimates import Figure, figure
from unigendet.evaluation import DetectionRow, ExplanationRow
from unigendet.image_evaluation import ImageFigures
from unigendet.metrics.bootstrap import Estimate


def _figures(estimates: Mapping[str, Estimate], seed: int) -> dict[str, Figure]:
    return {name: figure(estimate, seed) for name, estimate in estimates.items()}


def detection_figures(table: list[DetectionRow], seed: int) -> dict[str, Any]:
    """suite -> family (or `all`) -> counts, `figures` and `verdicts`."""
    out: dict[str, Any] = {}
    for row in table:
        out.setdefault(row.suite, {})[row.generator] = {
            "fakes": row.fakes,
            "reals": row.reals,
            "figures": _figures(row.figures, seed),
            "verdicts": _figures(row.verdicts, seed),
        }
    return out


def explanation_figures(table: list[ExplanationRow], seed: int) -> dict[str, Any]:
    """suite -> metric -> figure."""
    return {row.suite: _figures(row.figures, seed) for row in table}


def image_figures(found: ImageFigures, seed: int) -> dict[str, Any]:
    """Distances by set, their relations, and the checks on the images themselves."""
    sets = {
        name: {f.name: figure(getattr(one, f.name), seed) for f in fields(one)}
        for name, one in found.sets.items()
    }
    return {
        "sets": sets,
        "relations": _figures(found.ratios, seed),
        "autoencoder_psnr_db": figure(found.psnr, seed),
        "caption_obedience": _figures(found.obedience, seed),
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
    return {name: value for name, value in out.items() if value is not None}
