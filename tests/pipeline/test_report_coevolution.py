"""The page's section on co-evolution: any number of rounds, with the matrix and without it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.artifacts import SUMMARY, write_json
from pipeline.heat_map import WHO_FOOLS_WHOM
from pipeline.params import load_params
from pipeline.report.coevolution import coevolution_section
from pipeline.report.inputs import ReportInputs
from tests.pipeline.miniature import fooling_matrix

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {"auroc": 0.91, "det_loss": 0.3, "text_loss": 1.0, "flow_loss": 0.5, "kd": 0.0212}


def names_of(rounds: int) -> list[str]:
    numbers = range(1, rounds + 1)
    return ["start", *(f"round{n}_{kind}" for n in numbers for kind in ("gduf", "diga"))]


def inputs_of(folder: Path, rounds: int, **changes: Any) -> ReportInputs:
    params = load_params(ROOT / "profiles" / "smoke.yaml")
    section = params.coevolve.model_copy(update={"rounds": rounds, **changes})

    def file(stage: str, name: str) -> Path | None:
        assert stage == "coevolve"
        return folder / name if (folder / name).is_file() else None

    return cast(
        "ReportInputs", SimpleNamespace(params=SimpleNamespace(coevolve=section), file=file)
    )


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_every_half_round_is_a_row_a_column_and_a_point(tmp_path: Path, rounds: int) -> None:
    names = names_of(rounds)
    write_json(tmp_path / SUMMARY, {"phases": dict.fromkeys(names, FIGURES)})
    matrix = fooling_matrix(names)
    write_json(tmp_path / WHO_FOOLS_WHOM, matrix)
    page = coevolution_section(inputs_of(tmp_path, rounds))
    assert page.count("<svg") == 4
    heat_map = page[page.rindex("<svg") :]
    cells = matrix["cells"]["round1_gduf"].values()
    for label in ("start", "GDUF 1", "DIGA 1", f"DIGA {rounds}"):
        assert heat_map.count(f">{label}<") == 2, "a row and a column"
    for cell in cells:
        assert f">{cell['auroc']['value']:.3f}<" in heat_map
    detailed = rounds < 5  # eleven columns leave room for the value alone
    assert ("pass as real" in heat_map) == detailed
    assert len(re.findall("<tr>", page)) == 1 + len(names)
    assert ("fresh fakes" in page) == (rounds > 1)
    assert "0.0212" in page and "worse generator" in page


def test_without_a_matrix_the_course_is_told_all_the_same(tmp_path: Path) -> None:
    plain = {name: value for name, value in FIGURES.items() if name != "kd"}
    write_json(tmp_path / SUMMARY, {"phases": dict.fromkeys(names_of(2), plain)})
    page = coevolution_section(inputs_of(tmp_path, 2, fresh_fakes=0, fresh_share=0.0))
    assert page.count("<svg") == 2 and "KD</th>" not in page
    assert "Who fools whom" not in page and "fresh fakes" not in page


def test_an_out_without_a_summary_has_no_section(tmp_path: Path) -> None:
    assert coevolution_section(inputs_of(tmp_path, 2)) == ""
