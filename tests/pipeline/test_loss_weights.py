"""`auto` reads the sweep's best, a number wins."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.loss_weights import AlignmentWeights, check_layer, load_best, resolve, save_best
from pipeline.params import load_params
from pipeline.report.sweep import sweep_section
from pipeline.sections.coevolve import CoevolveSection
from pipeline.sweep import sweep

ROOT = Path(__file__).parents[2]
BEST = AlignmentWeights(
    flow_weight=1.5, det_weight=0.3, text_weight=0.5, align_weight=0.2, tap_layer=2
)


def section(**changes: object) -> CoevolveSection:
    params = load_params(ROOT / "profiles" / "smoke.yaml").coevolve
    return params.model_copy(update=changes)


def test_auto_reads_the_sweep_and_a_number_wins(tmp_path: Path) -> None:
    save_best(tmp_path / "best.yaml", BEST, trial=3, auroc=0.9, rule="nearest wins")
    weights, origin = resolve(section(align_weight=0.7), tmp_path / "best.yaml")
    assert weights.align_weight == 0.7
    assert weights.flow_weight == 1.5
    assert weights.tap_layer == 2
    assert origin["align_weight"] == "params"
    assert origin["tap_layer"] == "sweep"
    assert weights.gduf().align == 0.0
    assert (weights.diga().align, weights.diga().det) == (0.7, 0.3)


def test_numbers_alone_need_no_sweep(tmp_path: Path) -> None:
    given = section(flow_weight=1.0, det_weight=0.0, text_weight=0.5, align_weight=0.1, tap_layer=0)
    weights, origin = resolve(given, tmp_path / "missing.yaml")
    assert weights == AlignmentWeights(1.0, 0.0, 0.5, 0.1, 0)
    assert set(origin.values()) == {"params"}


def test_a_missing_or_broken_best_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"best\.yaml is missing: run the stage sweep"):
        resolve(section(), tmp_path / "best.yaml")
    (tmp_path / "best.yaml").write_text("flow_weight: 1.0\n")
    with pytest.raises(ValueError, match=r"best\.yaml holds no weights.*det_weight"):
        load_best(tmp_path / "best.yaml")


def test_a_tap_layer_that_the_model_lacks_is_refused() -> None:
    check_layer(BEST.tap_layer, num_layers=3)
    with pytest.raises(ValueError, match=r"tap_layer 2 .* 0\.\.1"):
        check_layer(BEST.tap_layer, num_layers=2)


def test_a_sweep_that_is_off_leaves_the_weights_to_the_parameters(tmp_path: Path) -> None:
    params = load_params(ROOT / "profiles" / "bagel-7b.yaml")
    said: list[str] = []
    stage: Any = SimpleNamespace(params=params, out=tmp_path, log=said.append)
    sweep(stage)
    assert json.loads((tmp_path / "trials.json").read_text())["trials"] == [] and said
    weights, origin = resolve(params.coevolve, tmp_path / "best.yaml")
    assert (weights.align_weight, weights.tap_layer) == (0.5, 7)
    assert set(origin.values()) == {"params"}
    folder = {"trials.json": tmp_path / "trials.json"}
    inputs: Any = SimpleNamespace(params=params, file=lambda stage, name: folder.get(name))
    assert "Nothing was tried" in str(sweep_section(inputs))
