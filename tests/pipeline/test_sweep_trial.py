"""A trial on real tiles in miniature, in this process: its reports, and what it is judged on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.detection_data import DetectionData
from pipeline.params import load_params
from pipeline.sweep.judging import Judge
from pipeline.sweep.run import trial_order
from pipeline.sweep.space import first_guess
from pipeline.sweep.trial import TrialOrder, progress, run_trial
from tests.models.tiny import square_config
from tests.training.miniature import write_miniature
from unigendet.data.degradations import Degradations
from unigendet.data.tokenizer import Tokenizer
from unigendet.inference import UniGenDet
from unigendet.models.pretrained import save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

PARAMS = load_params(Path(__file__).parents[2] / "profiles" / "smoke.yaml")


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> TrialOrder:
    folder = tmp_path_factory.mktemp("sweep")
    made = write_miniature(folder, tile=32)
    tokenizer = Tokenizer.load(made.shards)
    config = square_config(len(tokenizer))
    torch.manual_seed(0)
    model, vae = UniGenDetModel(config).eval(), LatentAutoencoder(config.vae).eval()
    save_pretrained(folder / "detector", model, vae, tokenizer)
    data = DetectionData(
        made.shards,
        made.forged,
        seed=0,
        smsa=True,
        text_dropout=0.1,
        validation_images=4,
        degradations=Degradations(0.0, 0.7, 0.5, 1.0, 5.0, 60),
    )
    update = {"grace_steps": 1, "tap_layers": (0, 1), "gduf_steps": 2, "diga_steps": 1}
    section = PARAMS.sweep.model_copy(update=update)
    judge = Judge(data, ("blurred",), section.distance)
    return TrialOrder(
        folder / "detector",
        judge,
        section,
        PARAMS.coevolve,
        folder / "trials",
        torch.get_num_threads(),
        "cpu",
    )


def reports(
    order: TrialOrder, monkeypatch: pytest.MonkeyPatch, trial_id: str, repeat: int = 0
) -> list[dict[str, Any]]:
    from ray import tune

    heard: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", heard.append)
    context = SimpleNamespace(get_trial_id=lambda: trial_id)
    monkeypatch.setattr(tune, "get_context", lambda: context)
    run_trial({**first_guess(order.sweep), "number": 0, "repeat": repeat}, order)
    return heard


def test_a_trial_reports_at_rungs_and_its_objectives_at_the_end_alone(
    order: TrialOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = reports(order, monkeypatch, "a")
    assert [one["steps"] for one in heard] == [1, 2, 3]
    assert [one["auroc"] is None for one in heard] == [True, True, False]
    assert all(one["progress"] > 0 for one in heard)
    figures = heard[-1]["figures"]
    assert 0 <= heard[-1]["auroc"] == figures["auroc"] <= 1
    assert heard[-1]["distance"] == figures["distance"] > 0
    # Taken up again after its last step it trains nothing, and ends with the same figures.
    again = reports(order, monkeypatch, "a")
    assert len(again) == 1 and again[0]["figures"] == figures
    assert again[0]["first_step_at"] > heard[0]["first_step_at"]
    # Weights and checkpoints of so many trials would fill a disk.
    left = [path.name for path in (order.scratch / "a").rglob("*") if path.is_file()]
    assert sorted(left) == ["figures.json", "history.jsonl"]

    # A repeat draws from another seed, but is judged on the same images and draws.
    repeat = reports(order, monkeypatch, "b", repeat=1)
    assert [one["steps"] for one in repeat] == [1, 2, 3]
    assert repeat[0]["progress"] != heard[0]["progress"]
    assert repeat[-1]["figures"] != figures


def test_the_figures_are_of_the_families_asked_for_and_the_distance_asked_for(
    order: TrialOrder,
) -> None:
    judged = UniGenDet.from_pretrained(order.detector)
    drawn = order.judge.figures(judged)
    assert drawn == order.judge.figures(judged)
    assert drawn["auroc"] == drawn["auroc_blurred"]
    section = order.sweep.distance.model_copy(update={"measure": "flow_loss"})
    cheap = replace(order.judge, distance=section).figures(judged)
    assert cheap["distance"] == cheap["flow_loss"] == drawn["flow_loss"]
    with pytest.raises(ValueError, match=r"set val holds no fakes of vqar.*stage forge"):
        replace(order.judge, families=("vqar",)).figures(judged)


def test_progress_is_two_for_a_model_that_knows_nothing() -> None:
    assert progress({"det_loss": 0.693147, "flow_loss": 2.0, "text_loss": 9.0}) == pytest.approx(2)
    assert progress({"flow_loss": 1.0, "align_loss": 1.0}) == 0.5


def test_a_distance_needs_real_images_of_two_sources(order: TrialOrder) -> None:
    section = order.sweep.distance.model_copy(update={"images": 1})
    judged = UniGenDet.from_pretrained(order.detector)
    with pytest.raises(ValueError, match=r"of one source.*raise sweep.distance.images"):
        replace(order.judge, distance=section).figures(judged)


def test_tiles_are_drawn_in_the_size_of_the_real_ones(order: TrialOrder) -> None:
    judged = UniGenDet.from_pretrained(order.detector)
    expected = order.judge.figures(judged)
    # Of a model for larger images, too.
    larger = replace(judged.config.vae_resize, max_size=64)
    judged.model.config = replace(judged.config, vae_resize=larger)
    assert order.judge.figures(judged) == expected


def test_trials_get_the_teachers_path_as_workers_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Tune runs each trial in a folder of its own."""
    import ray

    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.chdir(tmp_path)
    teacher = {"teacher": "dinov2", "teacher_path": "dinov2", "teacher_layer": "last"}
    params = PARAMS.model_copy(update={"coevolve": PARAMS.coevolve.model_copy(update=teacher)})
    inputs = dict.fromkeys(("shard", "forge", "pretrain_detector"), tmp_path)
    ctx: Any = SimpleNamespace(params=params, inputs=inputs, seed=0, state=tmp_path)
    with pytest.raises(ValueError, match="holds no DINOv2"):
        trial_order(ctx)
    (tmp_path / "dinov2").mkdir()
    config = '{"model_type": "dinov2", "num_hidden_layers": 2}'
    (tmp_path / "dinov2" / "config.json").write_text(config)
    assert trial_order(ctx).coevolve.teacher_path == str(tmp_path / "dinov2")
