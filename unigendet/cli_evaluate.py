"""`unigendet evaluate`: a trained model judged on a benchmark's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unigendet.data.plain_text import plain, plain_lines
from unigendet.terminal import (
    DEFAULT_MODEL,
    DeviceOption,
    ModelOption,
    errors_for_people,
    load_model,
    progress_bar,
)

if TYPE_CHECKING:
    from unigendet.benchmarking.perturbations import Perturbation
    from unigendet.benchmarking.result import Judged
    from unigendet.benchmarking.selection import Selection
    from unigendet.inference import UniGenDet

SHOWN = 20
"""Unreadable images that are named on the terminal; `--json` and `--out` have all."""
METRICS = "metrics.json"
DRAWS, SEED = 1000, 0
"""Behind each interval."""
_COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "recall_real": "acc. real",
    "recall_fake": "acc. fake",
    "balanced_accuracy": "balanced acc.",
}


@dataclass(frozen=True, slots=True)
class _How:
    """How a model judges."""

    model: Path
    device: str
    batch_size: int
    explain: bool


def evaluate(
    name: Annotated[str, typer.Argument(help="A set that `unigendet datasets` lists.")],
    place: Annotated[str, typer.Argument(metavar="PATH", help="Its folder, file or URI.")],
    model: ModelOption = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Judge so many at most, an even share of each generator's real and fake."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all; by default test, else val, else train."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images judged at once.")] = 16,
    device: DeviceOption = "cpu",
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Also write answers, which takes longer.")
    ] = False,
    perturb: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=STRENGTH", help="Judge once more after this; jpeg=70. Repeat."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write metrics.json and records.jsonl.")
    ] = None,
) -> None:
    """Judge a benchmark: figures for each generator with intervals, at the fixed threshold 0.5.

    Exit code 1 where an image could not be read, or was too large for a perturbation; the others
    are judged all the same.
    """
    with errors_for_people():
        from unigendet.benchmarking.perturbations import parse_all
        from unigendet.benchmarking.selection import select

        perturbations = parse_all(perturb or ())
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        _say(f"listing {plain(place)}")
        selection = select(name, place, split=split, limit=limit)
        if selection.problem:
            _say(f"warning: recall only: {selection.problem}")
        loaded = load_model(model, device)
        audit = _audit(selection)
        how = _How(model, device, batch_size, explain)
        judged = _judge(loaded, selection, how, perturbations)
        if out is not None:
            _write_scores(out, judged)
        metrics = _metrics(judged, audit, how, limit)
        if out is not None:
            _write_metrics(out, metrics)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        _print(metrics["benchmarks"][name])
    for left in judged.unreadable[:SHOWN]:
        _say(f"error: {plain_lines(left.reason)}")
    if len(judged.unreadable) > SHOWN:
        _say(f"error: and {len(judged.unreadable) - SHOWN} more could not be read (--json has all)")
    for left in judged.unperturbed[:SHOWN]:
        _say(f"error: {plain_lines(left.reason)}")
    if len(judged.unperturbed) > SHOWN:
        _say(f"error: and {len(judged.unperturbed) - SHOWN} more were too large (--json has all)")
    if judged.unreadable or judged.unperturbed:
        raise typer.Exit(1)


def _audit(selection: Selection) -> dict[str, Any] | None:
    """The codec-and-size audit; None where there is nothing to compare."""
    from unigendet.benchmarking.headers import header_items
    from unigendet.data.audit import audit, can_audit

    if selection.problem:
        return None
    with progress_bar("reading headers", True, lines=True) as progress:
        items = header_items(selection.items, seed=SEED, progress=progress)
    return audit(items, seed=SEED).to_json() if can_audit(items) else None


def _judge(
    model: UniGenDet, selection: Selection, how: _How, perturbations: Sequence[Perturbation]
) -> Judged:
    from unigendet.benchmarking.judging import judge_items
    from unigendet.benchmarking.result import collect

    outcomes = []
    with progress_bar("judging", True, lines=True) as progress:
        for outcome in judge_items(
            partial(model.detect, batch_size=how.batch_size),
            selection.items,
            batch_size=how.batch_size,
            explain=how.explain,
            perturbations=perturbations,
        ):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(selection.items))
    return collect(selection.benchmark.name, selection, outcomes, perturbations)


def _metrics(
    judged: Judged, audit: dict[str, Any] | None, how: _How, limit: int | None
) -> dict[str, Any]:
    """What metrics.json holds, in the form of stage evaluate's."""
    from unigendet.benchmarking.result import provenance, to_json
    from unigendet.models.pretrained import weights_sha256

    with progress_bar("figures", True, lines=True) as progress:
        found = to_json(judged, audit, draws=DRAWS, seed=SEED, progress=progress)
    return {
        "provenance": {
            "command": "unigendet evaluate",
            "model": str(how.model),
            "model_sha256": weights_sha256(how.model),
            "device": how.device,
            "seed": SEED,
            "bootstrap_draws": DRAWS,
            "interval": "95 %, percentiles of a bootstrap over sources",
            "benchmarks": {judged.label: provenance(judged.selection, limit)},
        },
        "benchmarks": {judged.label: found},
    }


def _write_scores(folder: Path, judged: Judged) -> None:
    """Before the figures, which may take long; those of earlier scores go."""
    from unigendet.records import RECORDS, write_records

    (folder / METRICS).unlink(missing_ok=True)
    write_records(folder / RECORDS, judged.records)
    _say(f"wrote {folder / RECORDS}")


def _write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    text = json.dumps(metrics, indent=2, allow_nan=False)
    (folder / METRICS).write_text(text + "\n", encoding="utf-8")
    _say(f"wrote {folder / METRICS}")


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    known = next(iter(found["detection"].values()))["figures"]
    columns = {key: label for key, label in _COLUMNS.items() if key in known}
    table = Table("generator", "real", "fake", *columns.values())
    for generator, row in found["detection"].items():
        cells = [plain(generator, 60), str(row["reals"]), str(row["fakes"])]
        cells += [_shown(row["figures"].get(key)) for key in columns]
        table.add_row(*map(Text, cells))
    Console().print(table)
    images = found["images"]
    typer.echo(
        f"{images['judged']} images judged, of {images['listed']} of the split {found['split']}; "
        f"{len(found['unreadable'])} could not be read, {len(found['left_out'])} files left out "
        "by the reader"
    )
    if found["one_class"]:
        typer.echo(f"Recall only: {plain_lines(found['one_class'])}")
    for point in found["robustness"]:
        shown = _shown(point["auroc"]).replace("\n", " ")
        typer.echo(f"AUROC at {point['kind']}={point['strength']:g}: {shown}")
    if found["audit"] is not None:
        shown = _shown(found["audit"]["auroc"]).replace("\n", " ")
        typer.echo(f"AUROC of a classifier that sees file headers and sizes only: {shown}")
        if found["audit"]["shortcut"]:
            typer.echo(
                "WARNING: format, size or codec tell real from fake in this set. The figures above "
                "may measure the files and not the pictures"
            )


def _shown(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    interval = "" if figure["low"] is None else f"\n[{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:.3f}{interval}"


def _say(line: str) -> None:
    typer.echo(line, err=True)
