"""docs/results.md from made-up results: numbers, verdicts, and results that cannot be compared."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from pipeline.claims.comparisons import CLAIMS, compare, figure_of, forgetting, verdict
from pipeline.claims.page import PAGE, write_page
from pipeline.claims.result import RESULTS, ArmResult, load_result
from unigendet.metrics.paired import PairedDifference

SOURCES = [f"tile{place:02d}" for place in range(20)]


def _result(arm: str, seed: int, *, apart: float, kd: float, before: float = 0.97) -> ArmResult:
    """Scores of fakes lie `apart` above those of real images, with noise of the seed."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (4, len(SOURCES)))
    level = {"real": 0.3, "gan": 0.3 + apart, "ddpm": 0.9, "flow": 0.0}
    scores = {
        family: {
            source: [round(float(np.clip(level[family] + n, 0, 1)), 7)]
            for source, n in zip(SOURCES, row, strict=True)
        }
        for family, row in zip(level, noise, strict=True)
    }
    figures: dict[str, dict[str, float | None]] = {
        "detection": {
            "in_domain_all_auroc": 0.98,
            "cross_generator_all_balanced_accuracy": 0.8,
        },
        "generation": {"kd_model": kd, "fd_model": 30 * kd, "flow_loss_model": 4 * kd},
        "forgetting": {
            "in_domain_auroc_before_diga": before,
            "in_domain_auroc_after_diga": 0.98,
        },
        "validation": {},
    }
    return ArmResult(
        profile="made_up",
        arm=arm,
        seed=seed,
        overrides={} if arm == "full" else {"coevolve.align_weight": 0.0},
        fingerprint=f"{arm}{seed}",
        base="b",
        code="c",
        pool=f"p{seed}",
        revision="0123456789abcdef",
        command="python -m pipeline.claims run",
        machine={"cores": 2, "cpu": "some CPU", "torch": "2.13.0", "python": "3.11.9"},
        finished="2026-01-01T00:00:00+00:00",
        seconds={"coevolve": 1800.0},
        weights={"flow_weight": 1.0, "tap_layer": 2},
        trained_on=["ddpm"],
        own_decoder=["flow"],
        figures=figures,
        scores={"home": scores, "everyday": {k: scores[k] for k in ("real", "gan")}},
    )


def _pairs(seeds: int) -> list[ArmResult]:
    kds = np.random.default_rng(5).normal(0.1, 0.01, seeds)
    found = []
    for seed, kd in enumerate(kds, start=11):
        found.append(_result("full", seed, apart=0.3, kd=float(kd)))
        found.append(_result("no_smsa", seed, apart=0.1, kd=float(kd)))
        found.append(_result("no_diga", seed, apart=0.3, kd=float(kd) - 0.01 - 0.001 * (seed % 2)))
    return found


def _page(workspace: Path, results: list[ArmResult]) -> str:
    for one in results:
        one.save(workspace / RESULTS / "made_up")
    write_page(workspace)
    return (workspace / PAGE).read_text()


def test_without_results_the_page_says_so(tmp_path: Path) -> None:
    assert "No results yet" in _page(tmp_path, [])


def test_the_page_holds_the_paired_figures_and_honest_words(tmp_path: Path) -> None:
    results = _pairs(4)
    text = _page(tmp_path, results)
    rows = {line.split("|")[1].strip("* "): line for line in text.splitlines() if "**" in line}
    assert rows["SMSA helps detection"].endswith("| **helps** |")
    # Lower is better, and the full method's tiles are further away: said as it is.
    hurt = rows["DIGA helps generation"]
    assert hurt.endswith("| **hurts** |")
    full, control = (
        [figure_of(one, "kd") for one in results if one.arm == arm] for arm in ("full", "no_diga")
    )
    wanted = ttest_rel(full, control).confidence_interval(0.95)
    assert f"| [{wanted.low:+.4f}, {wanted.high:+.4f}] |" in hurt
    assert "| 4 |" in hurt
    assert "GDUF helps generation" not in rows  # no seed has that arm
    cost = rows["The last DIGA phase costs detection at most 0.01"]
    assert cost.endswith("| **holds: drop of at most 0.01** |")
    # Scores on eight photographs say nothing of others, whatever their interval over seeds.
    everyday = next(line for line in text.splitlines() if "everyday photographs |" in line)
    assert everyday.endswith("| too few photographs to say |")
    assert "], 20 sources |" in rows["SMSA helps detection"]
    assert "`python -m pipeline.claims run`" in text and "2 x some CPU, torch 2.13.0" in text
    picture = re.search(r"\((results/made_up/\S+\.png)\)", text)
    assert picture and (tmp_path / "docs" / picture[1]).stat().st_size > 1000
    write_page(tmp_path)
    assert (tmp_path / PAGE).read_text() == text


def test_two_seeds_are_too_few(tmp_path: Path) -> None:
    text = _page(tmp_path, _pairs(2))
    assert "too few seeds" in text and "helps** |" not in text


def test_a_single_arm_has_its_row_and_no_claim(tmp_path: Path) -> None:
    text = _page(tmp_path, [_result("leave_out_gan", 11, apart=0.3, kd=0.1)])
    assert "`gan` is the only test family" in text and "differences.png" not in text


def test_own_and_learned_families_are_not_counted_as_unseen() -> None:
    """The flow family scores below real images here and ddpm far above: neither may count."""
    result = _result("full", 11, apart=0.0, kd=0.1)
    real, gan = (
        np.array([s[0] for s in result.scores["home"][name].values()]) for name in ("real", "gan")
    )
    by_hand = (gan[:, None] > real).mean() + (gan[:, None] == real).mean() / 2
    assert figure_of(result, "auroc_unseen") == pytest.approx(by_hand)


def test_a_family_below_the_floor_is_not_counted(tmp_path: Path) -> None:
    one = _result("full", 11, apart=0.3, kd=0.1)
    good = {**one.scores["home"], "vqar": {name: [0.0] for name in SOURCES}}
    poor = replace(one, scores={**one.scores, "home": good}, below_floor=["vqar"])
    assert figure_of(poor, "auroc_unseen") == figure_of(one, "auroc_unseen")
    assert figure_of(replace(poor, below_floor=[]), "auroc_unseen") < 0.7
    path = poor.save(tmp_path)
    assert load_result(path) == poor
    path.write_text(path.read_text().replace('  "below_floor": [\n    "vqar"\n  ],\n', ""))
    assert load_result(path).below_floor == ()  # as the first results


def test_an_arm_on_request_is_held_against_the_full_method(tmp_path: Path) -> None:
    results = [
        replace(one, arm="live_teacher" if one.arm == "no_diga" else one.arm) for one in _pairs(4)
    ]
    text = _page(tmp_path, results)
    row = next(line for line in text.splitlines() if "`full` against `live_teacher`" in line)
    assert "KD of generated images" in row and row.endswith("| hurts |")
    assert "DIGA helps generation" not in text


def test_the_interval_over_seeds_and_sources_holds_the_mean() -> None:
    found = compare(_pairs(5), CLAIMS[0])
    assert found is not None and found.hierarchical is not None
    assert found.hierarchical.value == pytest.approx(found.student.value)
    assert found.hierarchical.low is not None and found.hierarchical.high is not None
    assert found.hierarchical.low < found.student.value < found.hierarchical.high


def test_verdicts() -> None:
    assert verdict(PairedDifference(0.1, 0.05, 0.2, 5), 1) == "helps"
    assert verdict(PairedDifference(0.1, 0.05, 0.2, 5), -1) == "hurts"
    assert verdict(PairedDifference(-0.1, -0.2, -0.05, 5), -1) == "helps"
    assert verdict(PairedDifference(0.1, -0.05, 0.2, 5), 1) == "no effect shown"
    assert verdict(PairedDifference(0.1, None, None, 2), 1) == "too few seeds"


def test_forgetting_is_shown_to_be_small_or_not() -> None:
    worse = [_result("full", seed, apart=0.3, kd=0.1, before=0.999) for seed in (1, 2, 3)]
    found = forgetting(worse)
    assert found is not None and found.value == pytest.approx(-0.019)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": "other"}, "of other parameters"),
        ({"code": "other"}, "made by other code"),
        ({"pool": "other"}, "judged on other images"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(
    change: dict[str, str], said: str, tmp_path: Path
) -> None:
    first, second, *_ = _pairs(1)
    for one in (first, replace(second, **change)):
        one.save(tmp_path / RESULTS / "made_up")
    first.save(tmp_path / RESULTS / "sound")
    (wrong,) = write_page(tmp_path)
    assert wrong.startswith("profile made_up: ") and said in wrong
    assert all(f"{one.arm}-seed11.json" in wrong for one in (first, second))
    # The other profile has its table.
    assert "| full | nothing | 1 |" in (tmp_path / PAGE).read_text()


def test_an_arm_is_the_same_in_every_seed(tmp_path: Path) -> None:
    results = _pairs(3)
    other = replace(results[-1], overrides={"coevolve.rounds": 1})
    for one in (*results[:-1], other):
        one.save(tmp_path / RESULTS / "made_up")
    (wrong,) = write_page(tmp_path)
    assert "of another arm called no_diga" in wrong and "no_diga-seed13.json" in wrong


def test_an_undefined_figure_is_left_out_and_said(tmp_path: Path) -> None:
    results = _pairs(4)
    generation = {**results[2].figures["generation"], "kd_model": None}
    results[2] = replace(results[2], figures={**results[2].figures, "generation": generation})
    assert (results[2].arm, results[2].seed) == ("no_diga", 11)
    text = _page(tmp_path, results)
    row = next(line for line in text.splitlines() if "**DIGA helps generation**" in line)
    assert "| 3 (without 11) |" in row
    assert "(n = 3)" in next(line for line in text.splitlines() if line.startswith("| no_diga |"))


def test_an_arm_of_other_data_has_a_table_and_is_not_paired(tmp_path: Path) -> None:
    blurred = replace(
        _result("blur", 11, apart=0.3, kd=0.1),
        overrides={"data.degradations.probability": 0.5},
        pool="other",
    )
    text = _page(tmp_path, [*_pairs(1), blurred])
    said = text.index("Arms that change the data")
    assert "| blur | `data.degradations.probability=0.5` | 1 |" in text[said:]


def test_uncommitted_changes_are_told(tmp_path: Path) -> None:
    changed = replace(_result("full", 11, apart=0.3, kd=0.1), revision=40 * "a" + "+")
    assert f"Revisions: {12 * 'a'}+" in _page(tmp_path, [changed])
