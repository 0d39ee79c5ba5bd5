"""Stage evaluate: its figures, its records, and the work it shares out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import evaluate as stage
from pipeline import piecework
from pipeline.judging import Finished, Job, Piece, Worker, pieces_of
from pipeline.params import load_params
from pipeline.sections.evaluate import EvaluateSection
from pipeline.sheets import read_sheet, write_sheet
from tests.pipeline.miniature import COUNT, ROOT, SIDE, stage_context
from unigendet.data.benchmarks.base import BenchmarkItem


def test_every_figure_has_its_n_interval_and_seed(finished: Path) -> None:
    metrics = json.loads((finished / "outputs" / "eval" / "metrics.json").read_text())
    seen = 0

    def look(value: Any) -> None:
        nonlocal seen
        if isinstance(value, dict) and "value" in value and "groups" not in value:
            seen += 1
            assert set(value) == {"value", "low", "high", "n", "n_total", "sources", "seed"}
            assert value["n"] <= value["n_total"] and value["sources"] <= value["n"]
        elif isinstance(value, dict):
            for inner in value.values():
                look(inner)

    look(metrics)
    assert seen > 100
    assert set(metrics["detection"]) == {"in_domain", "cross_generator", "cross_dataset"}
    assert set(metrics["detection"]["in_domain"]) == {"flow", "all"}
    assert metrics["detection"]["cross_generator"]["inpaint"]["fakes"] == COUNT
    sets = metrics["images"]["sets"]
    assert set(sets) == {
        "real", "reconstructed", "model", "pretrained", "untrained", "before_diga",
    }  # fmt: skip
    assert len(metrics["provenance"]["model_sha256"]) == 64


def test_no_image_is_dropped(finished: Path) -> None:
    lines = (finished / "outputs" / "eval" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    per_suite = {"in_domain": 2, "cross_generator": 2, "cross_dataset": 2}
    for suite, kinds in per_suite.items():
        keys = [record["key"] for record in records if record["suite"] == suite]
        assert len(keys) == len(set(keys)) == kinds * COUNT
    assert all(record["reference"] for record in records if record["suite"] in per_suite)


def test_summary_is_flat_and_in_the_metrics(finished: Path) -> None:
    summary = json.loads((finished / "outputs" / "eval" / "summary.json").read_text())
    assert all(isinstance(value, float) for value in summary.values())
    metrics = json.loads((finished / "outputs" / "eval" / "metrics.json").read_text())
    expected = metrics["detection"]["in_domain"]["all"]["figures"]["auroc"]["value"]
    assert summary["in_domain_auroc"] == expected


def drawing(model: Path) -> Job:
    """Four prompts in batches of two; arms `model`, `again` and `untrained`."""
    return Job(
        detector=str(model),
        sets={},
        benchmarks={},
        perturbations=(),
        arms={
            "model": stage.GeneratorArm(str(model)),
            "again": stage.GeneratorArm(str(model)),
            "untrained": stage.GeneratorArm(str(model), untrained=True),
        },
        prompts=("a desert",) * 4,
        size=(SIDE, SIDE),
        steps=2,
        guidance=2.0,
        timestep_shift=1.0,
        batch_size=2,
        seed=0,
        device="cpu",
        threads=1,
    )


def test_arms_draw_the_same_noise_and_results_do_not_depend_on_the_order(finished: Path) -> None:
    job = drawing(finished / "outputs" / "model")
    worker = Worker(job)
    second = worker.run(Piece("generate", "model", 2, 4))
    first = worker.run(Piece("generate", "model", 0, 2))
    again = Worker(job).run(Piece("generate", "again", 0, 2))
    fresh = worker.run(Piece("generate", "untrained", 0, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.images != second.images).any(), "other places, other noise"
    assert (first.images != fresh.images).any()
    state = torch.get_rng_state()
    Worker(job).run(Piece("generate", "untrained", 0, 2))
    assert torch.equal(state, torch.get_rng_state()), "fresh weights leave the generator alone"


def test_an_evaluation_that_was_interrupted_goes_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    ctx: Any = SimpleNamespace(
        state=tmp_path,
        log=said.append,
        timed=lambda phase: nullcontext(),
        mark_started=lambda at=None: None,
        ray=lambda *ahead: nullcontext(),
    )
    picture = np.full((SIDE, SIDE, 3), 90, np.uint8)
    items = []
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(picture).save(tmp_path / name)
        items.append(BenchmarkItem(str(tmp_path / name), name, False, "real", "test", ""))
    job = replace(drawing(finished / "outputs" / "model"), benchmarks={"mine": tuple(items)})
    pieces = [*pieces_of("generate", "model", 4, 2), *pieces_of("benchmark", "mine", 3, 2)]
    ran: list[Piece] = []

    def running(job: Job, pieces: Sequence[Piece], **_: Any) -> Iterator[Finished]:
        for piece in pieces:
            if len(ran) == 3:
                raise KeyboardInterrupt
            ran.append(piece)
            yield Worker(job).run(piece)

    monkeypatch.setattr(piecework, "run_pieces", running)
    monkeypatch.setattr(piecework, "actor_count", lambda gpu: 1)
    with pytest.raises(KeyboardInterrupt):
        piecework.run_all(ctx, job, pieces)
    ran.clear()
    results = piecework.run_all(ctx, job, pieces)
    assert ran == pieces[3:] and "3 of 4 pieces were finished before" in said
    alone = [Worker(job).run(piece) for piece in pieces[:2]]
    whole = np.concatenate([part.images for part in alone])
    np.testing.assert_array_equal(results.images("generate", "model"), whole)
    assert len(results.outcomes("benchmark", "mine")) == 3
    # Another list of images is other work.
    other = replace(job, benchmarks={"mine": tuple(reversed(items))})
    ran.clear()
    piecework.run_all(ctx, other, pieces)
    assert ran == pieces[2:]


def test_pieces_cover_every_image_once() -> None:
    pieces = pieces_of("judge", "x", 7, 3)
    assert [(p.start, p.stop) for p in pieces] == [(0, 3), (3, 6), (6, 7)]


def test_sheets_give_back_what_was_put_in(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (19, 8, 12, 3), dtype=np.uint8)
    write_sheet(tmp_path / "s.png", images)
    np.testing.assert_array_equal(read_sheet(tmp_path / "s.png", 19, (8, 12)), images)
    with pytest.raises(ValueError, match=r"s\.png does not hold"):
        read_sheet(tmp_path / "s.png", 40, (8, 12))


def test_benchmarks_are_judged_and_pinned(finished: Path) -> None:
    out = finished / "outputs" / "eval"
    metrics = json.loads((out / "metrics.json").read_text())
    found = metrics["benchmarks"]["forensynths"]
    assert set(found["detection"]) == {"biggan", "<b>", "mean", "all"}
    assert found["images"] == {"listed": 48, "chosen": 40, "judged": 40}
    assert found["audit"]["shortcut"]
    assert found["audit"] == json.loads((out / "audit.json").read_text())["forensynths"]
    assert [point["strength"] for point in found["robustness"]] == [100, 50]
    scars = metrics["benchmarks"]["synthscars"]
    assert "all 5 images are fake" in scars["one_class"] and scars["audit"] is None
    assert set(scars["detection"]["all"]["figures"]) == {"recall_fake"}
    (left,) = scars["unreadable"]
    assert left["path"].endswith("broken.png")
    pinned = metrics["provenance"]["benchmarks"]["forensynths"]
    assert pinned["limit"] == 40 and len(pinned["sha256_of_list"]) == 64
    suites = [json.loads(line)["suite"] for line in (out / "records.jsonl").open()]
    assert (suites.count("forensynths"), suites.count("synthscars")) == (40, 4)
    summary = json.loads((out / "summary.json").read_text())
    assert (
        summary["benchmark_forensynths_auroc"]
        == (found["detection"]["mean"]["figures"]["auroc"]["value"])
    )
    for suite, curve in metrics["robustness"].items():
        assert curve[0]["auroc"] == metrics["detection"][suite]["all"]["figures"]["auroc"]


def _changed(workspace: Path, **changes: Any) -> Any:
    """The stage's context with another section `evaluate`, and nothing that could judge."""
    context = stage_context("evaluate", workspace)
    values = context.params.evaluate.model_dump() | changes
    section = type(context.params.evaluate)(**values)
    context.params = context.params.model_copy(update={"evaluate": section})
    context.ray = lambda *ahead: pytest.fail("a model was loaded")
    return context


def test_a_folder_that_cannot_be_used_stops_before_a_model_is_loaded(tmp_path: Path) -> None:
    entry = {"name": "genimage", "path": str(tmp_path / "no"), "split": None, "limit": None}
    (tmp_path / "outputs").mkdir()
    with pytest.raises(
        ValueError, match=r"evaluate\.benchmarks, genimage: .*no such file or folder"
    ):
        stage.evaluate(_changed(tmp_path, benchmarks=[entry]))


def test_a_benchmark_whose_headers_give_fakes_away_stops_the_stage(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name, ending in (("0_real", "jpg"), ("1_fake", "png")):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        for at in range(30):
            picture = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"{at}.{ending}")
    entry = {"name": "folder", "path": str(tmp_path / "set"), "split": None, "limit": None}
    (tmp_path / "outputs").mkdir()
    context = _changed(tmp_path, benchmarks=[entry], allow_codec_shortcut=False)
    with pytest.raises(
        ValueError, match=r"folder \(AUROC 1\.00.*evaluate\.allow_codec_shortcut: true"
    ):
        stage.evaluate(context)


def test_section_benchmarks_is_strict() -> None:
    entry = {"name": "genimage", "path": "/data", "split": None, "limit": None}
    for changes, words in (
        ({"benchmarks": [entry | {"name": "genimag"}]}, "did you mean genimage"),
        ({"benchmarks": [entry | {"path": ""}]}, "at least 1 character"),
        ({"benchmarks": [entry | {"split": "tset"}]}, "'train', 'val', 'test' or 'all'"),
        ({"benchmarks": [entry | {"limit": 0}]}, "greater than or equal to 1"),
        ({"perturbations": ["fog=1"]}, "KIND=STRENGTH"),
    ):
        values = load_params(ROOT / "params.yaml").evaluate.model_dump() | changes
        with pytest.raises(ValueError, match=words):
            EvaluateSection(**values)
    section = load_params(ROOT / "params.yaml").evaluate.model_dump()
    twice = EvaluateSection(**(section | {"benchmarks": [entry, entry]}))
    assert list(twice.labelled()) == ["genimage", "genimage_2"]
