"""Stage evaluate: its figures, its records, and the work it shares out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import evaluate as stage
from pipeline.judging import Job, Piece, Worker, pieces_of
from pipeline.sheets import read_sheet, write_sheet
from tests.pipeline.miniature import COUNT, SIDE


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
    assert all(record["reference"] for record in records)


def test_summary_is_flat_and_in_the_metrics(finished: Path) -> None:
    summary = json.loads((finished / "outputs" / "eval" / "summary.json").read_text())
    assert all(isinstance(value, float) for value in summary.values())
    metrics = json.loads((finished / "outputs" / "eval" / "metrics.json").read_text())
    expected = metrics["detection"]["in_domain"]["all"]["figures"]["auroc"]["value"]
    assert summary["in_domain_auroc"] == expected


def test_arms_draw_the_same_noise_and_results_do_not_depend_on_the_order(finished: Path) -> None:
    outputs = finished / "outputs"
    job = Job(
        detector=str(outputs / "model"),
        sets={},
        arms={
            "model": stage.GeneratorArm(str(outputs / "model")),
            "again": stage.GeneratorArm(str(outputs / "model")),
            "untrained": stage.GeneratorArm(str(outputs / "model"), untrained=True),
        },
        prompts=("a desert",) * 4,
        size=(SIDE, SIDE),
        steps=2,
        guidance=2.0,
        timestep_shift=1.0,
        batch_size=2,
        use_vae=True,
        seed=0,
        device="cpu",
        threads=1,
    )
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


def test_pieces_cover_every_image_once() -> None:
    pieces = pieces_of("judge", "x", 7, 3)
    assert [(p.start, p.stop) for p in pieces] == [(0, 3), (3, 6), (6, 7)]


def test_sheets_give_back_what_was_put_in(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (19, 8, 12, 3), dtype=np.uint8)
    write_sheet(tmp_path / "s.png", images)
    np.testing.assert_array_equal(read_sheet(tmp_path / "s.png", 19, (8, 12)), images)
    with pytest.raises(ValueError, match=r"s\.png does not hold"):
        read_sheet(tmp_path / "s.png", 40, (8, 12))
