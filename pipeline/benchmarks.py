"""The stage's side of benchmarks: chosen before a model is loaded, gated, judged, told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.codec_gate import audit_sets
from pipeline.judging import Piece, pieces_of
from pipeline.piecework import Results
from pipeline.stage import StageContext
from unigendet.benchmarking.headers import header_items
from unigendet.benchmarking.perturbations import parse_all
from unigendet.benchmarking.result import collect, to_json
from unigendet.benchmarking.selection import Selection, select
from unigendet.types import EvalRecord

BATCHES = 8
"""Batches in a piece: an actor reads one while it judges another."""


def select_benchmarks(ctx: StageContext) -> dict[str, Selection]:
    """What is judged of each benchmark, by suite.

    Raises ValueError, naming the benchmark, where its folder cannot be used as it is.
    """
    found = {}
    for label, given in ctx.params.evaluate.labelled().items():
        try:
            one = select(given.name, given.path, split=given.split, limit=given.limit)
        except ValueError as error:
            raise ValueError(f"evaluate.benchmarks, {label}: {error}") from error
        ctx.log(f"{label}: {len(one.items)} of {one.listed} images of the split {one.split}")
        if one.problem:
            ctx.log(f"{label}: recall only, {one.problem}")
        found[label] = one
    return found


def audit_benchmarks(
    ctx: StageContext, selections: Mapping[str, Selection]
) -> dict[str, dict[str, Any]]:
    """The codec-and-size audit of each that has both classes; stops the stage as the gate does."""
    if not selections:
        return {}
    return audit_sets(
        ctx,
        {label: header_items(one.items, seed=ctx.seed) for label, one in selections.items()},
        allowed=ctx.params.evaluate.allow_codec_shortcut,
        remedy="Store real and fake images of the benchmark alike, take it out of "
        "evaluate.benchmarks",
        setting="evaluate.allow_codec_shortcut",
    )


def benchmark_pieces(ctx: StageContext, selections: Mapping[str, Selection]) -> list[Piece]:
    """The judging of all of them, in pieces."""
    size = BATCHES * ctx.params.evaluate.batch_size
    return [
        piece
        for label, one in selections.items()
        for piece in pieces_of("benchmark", label, len(one.items), size)
    ]


def benchmark_metrics(
    ctx: StageContext,
    selections: Mapping[str, Selection],
    audits: Mapping[str, dict[str, Any]],
    results: Results,
) -> tuple[dict[str, Any], list[EvalRecord]]:
    """What metrics.json holds of each, and the records of all."""
    params = ctx.params.evaluate
    perturbations = parse_all(params.perturbations)
    metrics, records = dict[str, Any](), list[EvalRecord]()
    for label, selection in selections.items():
        judged = collect(label, selection, results.outcomes("benchmark", label), perturbations)
        for left in judged.unreadable:
            ctx.log(f"{label}: cannot be read: {left.reason}")
        for left in judged.unperturbed:
            ctx.log(f"{label}: {left.reason}")
        metrics[label] = to_json(judged, audits.get(label), draws=params.bootstrap, seed=ctx.seed)
        records += judged.records
    return metrics, records
