"""Who fools whom: every cell as computed by hand, whatever interrupted the rounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from torch import multiprocessing

from pipeline.coevolve import CoevolveJob, train_rounds
from pipeline.fooling import matrix_of
from pipeline.half_rounds import HalfRounds
from pipeline.heat_map import WHO_FOOLS_WHOM
from tests.pipeline.toy_rounds import IMAGES, REFERENCE, rank_main, toy_job
from unigendet.data.shards import ShardDataset
from unigendet.inference import UniGenDet
from unigendet.metrics.generation import FeatureSet, features, kernel_distance
from unigendet.training.session import Progress, TrainingSession
from unigendet.validation import spread

NAMES = ["start", "round1_gduf", "round1_diga"]


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> CoevolveJob:
    return toy_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def kept(job: CoevolveJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a session that nothing interrupted kept."""
    session = TrainingSession(tmp_path_factory.mktemp("session"), say=lambda _: None)
    train_rounds(session, job)
    return session.folder / "kept"


def matrix(kept: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((kept / "model" / WHO_FOOLS_WHOM).read_text())
    return found


def test_every_cell_is_what_the_models_say(job: CoevolveJob, kept: Path) -> None:
    found = matrix(kept)
    assert found["half_rounds"] == NAMES and found["images"] == IMAGES
    reals = spread(ShardDataset(job.data.shards, "val"), IMAGES)
    folders = [job.detector, *(kept / name / "model" for name in NAMES[1:])]
    models = {
        name: UniGenDet.from_pretrained(path) for name, path in zip(NAMES, folders, strict=True)
    }
    drawn = {
        name: model.generate([s.caption for s in reals], steps=2, guidance=2.0, seed=4)
        for name, model in models.items()
    }
    labels = [0] * IMAGES + [1] * IMAGES
    values = set()
    for detector, model in models.items():
        real = [one.score for one in model.detect([s.image for s in reals], explain=False)]
        about = found["reals"][detector]
        assert about["mean_score"]["value"] == pytest.approx(np.mean(real), abs=2e-6)
        assert about["called_fake"]["value"] == pytest.approx(np.mean(np.array(real) > 0.5), 1e-4)
        for generator, images in drawn.items():
            scores = [one.score for one in model.detect(images, explain=False)]
            cell = found["cells"][detector][generator]
            expected = roc_auc_score(labels, [*real, *scores])
            assert cell["auroc"]["value"] == pytest.approx(expected, abs=1e-5)
            assert cell["auroc"]["low"] <= expected <= cell["auroc"]["high"]
            assert cell["auroc"]["sources"] == len({s.source_id for s in reals})
            assert cell["mean_score"]["value"] == pytest.approx(np.mean(scores), abs=2e-6)
            passed = np.mean(np.array(scores) <= 0.5)
            assert cell["fooled"]["value"] == pytest.approx(passed, rel=1e-4)
            values.add(np.mean(scores))
    assert len(values) == len(NAMES) ** 2, "each detector and each generator makes a difference"


def test_the_distance_after_each_half_round_is_to_real_validation_images(
    job: CoevolveJob, kept: Path
) -> None:
    reals = spread(ShardDataset(job.data.shards, "val"), REFERENCE)
    reference = FeatureSet(
        features(np.stack([s.image for s in reals])), tuple(s.source_id for s in reals)
    )
    asked = spread(ShardDataset(job.data.shards, "val"), IMAGES)
    half_rounds = HalfRounds(
        TrainingSession(kept.parent, say=lambda _: None), job.data, job.section
    )
    summary = json.loads((kept / "model" / "summary.json").read_text())
    for name in NAMES:
        images = half_rounds.drawn(name)
        assert images.shape == (IMAGES, 32, 32, 3)
        rows = FeatureSet(features(images), tuple(s.source_id for s in asked))
        expected = kernel_distance(rows, reference)
        assert summary["phases"][name]["kd"] == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert matrix(kept)["kd"][name]["value"] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert summary["figures"]["val_kd"] == summary["phases"]["round1_diga"]["kd"]


def test_rounds_interrupted_after_every_result_give_the_same(
    job: CoevolveJob, kept: Path, tmp_path: Path
) -> None:
    done: list[str] = []

    def interrupt(progress: Progress) -> None:
        if progress.step == 0 and progress.name not in done:
            done.append(progress.name)
            raise Killed

    for _ in range(20):
        session = TrainingSession(tmp_path, say=lambda _: None, on_progress=interrupt)
        try:
            train_rounds(session, job)
        except Killed:
            continue
        break
    assert done == [*NAMES, "who_fools_whom", "model"]
    assert matrix(tmp_path / "kept") == matrix(kept)
    summary = "model/summary.json"
    assert (tmp_path / "kept" / summary).read_text() == (kept / summary).read_text()


@pytest.mark.slow
def test_two_ranks_leave_one_matrix(job: CoevolveJob, kept: Path, tmp_path: Path) -> None:
    multiprocessing.spawn(rank_main, args=(2, tmp_path, job), nprocs=2)
    ours, theirs = matrix(kept), matrix(tmp_path / "session" / "kept")
    for detector in NAMES:
        for generator in NAMES:
            one, other = (m["cells"][detector][generator]["mean_score"] for m in (ours, theirs))
            assert one["value"] == pytest.approx(other["value"], abs=1e-3)


def test_only_the_leader_draws_and_judges(job: CoevolveJob, tmp_path: Path) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None, leader=False)
    HalfRounds(session, job.data, job.section).keep("start", job.detector, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_without_the_matrix_nothing_is_judged(job: CoevolveJob, tmp_path: Path) -> None:
    update = {"matrix_images": 0, "rounds": 2, "fresh_fakes": 0, "fresh_share": 0.0}
    session = TrainingSession(tmp_path, say=lambda _: None)
    train_rounds(session, replace(job, section=job.section.model_copy(update=update)))
    assert not (tmp_path / "kept" / "who_fools_whom").exists()
    assert not (tmp_path / "kept" / "model" / WHO_FOOLS_WHOM).exists()
    summary = json.loads((tmp_path / "kept" / "model" / "summary.json").read_text())
    assert next(iter(summary["phases"])) == "start" and "kd" not in summary["phases"]["start"]


def test_images_and_real_ones_of_a_source_are_drawn_together() -> None:
    """Six images of one source are one observation: no resample differs from another."""
    scores = {"d": {"real": [0.1, 0.6, 0.3], "g": [0.9, 0.2, 0.5]}}
    one = matrix_of(scores, ["a"] * 3, seed=0)["cells"]["d"]["g"]
    three = matrix_of(scores, ["a", "b", "c"], seed=0)["cells"]["d"]["g"]
    assert one["auroc"]["low"] == one["auroc"]["value"] == one["auroc"]["high"]
    assert one["auroc"]["value"] == three["auroc"]["value"] == pytest.approx(6 / 9, abs=1e-5)
    assert three["auroc"]["low"] < three["auroc"]["value"]
    assert one["fooled"]["value"] == pytest.approx(2 / 3, abs=1e-5)  # a half is not above a half
