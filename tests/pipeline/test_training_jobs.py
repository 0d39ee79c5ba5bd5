"""The training stages on real tiles in miniature, in this process: what learns, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.coevolution import (
    DigaSettings,
    PhasePlan,
    train_diga,
    train_gduf,
    train_separately,
    with_teacher_found,
)
from pipeline.coevolve import CoevolveJob, train_rounds
from pipeline.detection_data import DetectionData
from pipeline.detector import DetectorJob, train_detector
from pipeline.generator import GeneratorJob, train_generator
from pipeline.loss_weights import AlignmentWeights
from pipeline.params import Params, load_params
from tests.training.miniature import Miniature, write_miniature
from unigendet.data.degradations import Degradations
from unigendet.data.shards import ShardDataset
from unigendet.inference import UniGenDet
from unigendet.models.pretrained import load_pretrained, save_pretrained
from unigendet.training.alignment_head import without_alignment_head
from unigendet.training.session import TrainingSession

WEIGHTS = AlignmentWeights(
    flow_weight=1.0, det_weight=1.0, text_weight=0.5, align_weight=0.5, tap_layer=1
)


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(Path(__file__).parents[2] / "profiles" / "smoke.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_miniature(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def generator(
    params: Params, data: Miniature, tmp_path_factory: pytest.TempPathFactory
) -> TrainingSession:
    session = TrainingSession(tmp_path_factory.mktemp("generator"), say=lambda _: None)
    train_generator(session, GeneratorJob(0, data.shards, params.model, params.pretrain_generator))
    return session


@pytest.fixture(scope="module")
def detection(data: Miniature) -> DetectionData:
    return DetectionData(
        data.shards,
        data.forged,
        seed=0,
        smsa=True,
        text_dropout=0.1,
        validation_images=4,
        degradations=Degradations(0.5, 0.7, 0.5, 1.0, 5.0, 60),
    )


@pytest.fixture(scope="module")
def detector(
    params: Params,
    generator: TrainingSession,
    detection: DetectionData,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    session = TrainingSession(tmp_path_factory.mktemp("detector"), say=lambda _: None)
    start = generator.folder / "kept" / "generator"
    train_detector(session, DetectorJob(start, detection, params.pretrain_detector))
    return session.folder / "kept" / "detector"


def rows(session: TrainingSession) -> list[dict[str, object]]:
    lines = (session.folder / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def changed(before: torch.nn.Module, after: torch.nn.Module) -> set[str]:
    old, new = before.state_dict(), after.state_dict()
    return {name for name in old.keys() & new.keys() if not torch.equal(old[name], new[name])}


def test_the_generator_stage_keeps_a_model_pictures_and_one_history(
    params: Params, generator: TrainingSession
) -> None:
    kept = generator.folder / "kept" / "generator"
    loaded = load_pretrained(kept)
    latents = loaded.vae.config
    assert latents.scale_factor != params.model.vae.scale_factor  # measured on training images
    assert (kept / "samples.png").stat().st_size > 1000
    figures = json.loads((kept / "summary.json").read_text())["figures"]
    assert 5 < figures["val_psnr_db"] < 60
    section = params.pretrain_generator
    assert [(row["phase"], row["step"]) for row in rows(generator)] == [
        (phase, step)
        for phase, optim in (
            ("autoencoder", section.autoencoder.optim),
            ("flow", section.flow.optim),
        )
        for step in range(optim.log_every, optim.steps + 1, optim.log_every)
    ]


def test_the_detector_stage_leaves_the_generation_expert_as_it_was(
    generator: TrainingSession, detector: Path
) -> None:
    before = load_pretrained(generator.folder / "kept" / "generator").model
    after = load_pretrained(detector).model
    learned = changed(before, after)
    assert {name.split(".")[0] for name in learned} >= {
        "language_model",
        "vit_model",
        "connector",
        "fake_cls_head",
    }
    assert not [n for n in learned if "moe_gen" in n or n.startswith(("vae2llm", "llm2vae"))]


def test_a_detector_reads_latents_where_it_learned_to(
    params: Params, generator: TrainingSession, detection: DetectionData, tmp_path: Path
) -> None:
    start = generator.folder / "kept" / "generator"
    session = TrainingSession(tmp_path, say=lambda _: None)
    without = replace(detection, smsa=False)
    train_detector(session, DetectorJob(start, without, params.pretrain_detector))
    folder = session.folder / "kept" / "detector"
    alone = UniGenDet.from_pretrained(folder)
    assert not alone.config.smsa
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    score = alone.detect([image], explain=False)[0].score
    # Were latents read, an autoencoder that encodes to nonsense would change the score.
    for weight in alone.vae.parameters():
        weight.data.normal_()
    assert alone.detect([image], explain=False)[0].score == score
    for data in (without, detection):
        plan = PhasePlan("gduf", 1, 2, 2, params.coevolve.gduf.optim.config())
        phase = TrainingSession(tmp_path / str(data.smsa), say=lambda _: None)
        assert train_gduf(phase, folder, data, plan, WEIGHTS).config.smsa is data.smsa


def test_a_detector_of_no_steps_is_the_generator(
    params: Params, generator: TrainingSession, detection: DetectionData, tmp_path: Path
) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None)
    start = generator.folder / "kept" / "generator"
    section = params.pretrain_detector
    optim = section.optim.model_copy(update={"steps": 0})
    update = {"optim": optim, "whiten_patches": False}
    train_detector(session, DetectorJob(start, detection, section.model_copy(update=update)))
    result = load_pretrained(tmp_path / "kept" / "detector").model
    assert not changed(load_pretrained(start).model, result)
    assert rows(session) == []


def test_gduf_trains_both_experts_and_diga_the_generator_alone(
    params: Params, detector: Path, detection: DetectionData, tmp_path: Path
) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None)
    section = params.coevolve
    before = load_pretrained(detector).model
    gduf = PhasePlan("gduf", 1, 4, 4, section.gduf.optim.config())
    judging = train_gduf(session, detector, detection, gduf, WEIGHTS)
    learned = changed(before, judging.model)
    assert any("moe_gen" in name for name in learned)
    assert any("moe_gen" not in name and "language_model" in name for name in learned)
    assert any(name.startswith("vit_model") for name in learned)

    taught = tmp_path / "taught"
    session.save(taught, judging.model, judging.vae, judging.tokenizer)
    diga = PhasePlan("diga", 2, 4, 0, section.diga.optim.config())
    settings = DigaSettings("frozen", "last_input")
    student = train_diga(session, taught, detection, diga, WEIGHTS, settings)
    learned = changed(judging.model, student.model)
    assert learned
    allowed = ("vae2llm", "llm2vae", "time_embedder", "diga_mlp")
    assert all("moe_gen" in name or name.startswith(allowed) for name in learned)
    assert all(row["align_loss"] > 0 for row in rows(session) if row["phase"] == "diga")


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dinov2")
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    Dinov2Model(Dinov2Config(**size)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("teacher", "layer", "width"),
    [("live", 0, None), ("random", "last", None), ("efficientnet", 10, 112), ("dinov2", 1, 24)],
)
def test_the_other_teachers_train_the_generator_through_a_head_of_their_width(
    params: Params,
    detector: Path,
    detection: DetectionData,
    dinov2: Path,
    tmp_path: Path,
    teacher: Any,
    layer: Any,
    width: int | None,
) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None)
    optim = replace(params.coevolve.diga.optim.config(), steps=2, log_every=1)
    plan = PhasePlan("diga", 2, 4, 0, optim)
    path = dinov2 if teacher == "dinov2" else None
    centred = teacher != "live"
    settings = DigaSettings(teacher, layer, path, schedule="linear", centred=centred)
    student = train_diga(session, detector, detection, plan, WEIGHTS, settings)
    assert (student.config.alignment_head, student.config.alignment_width) == (True, width)
    assert any(
        "moe_gen" in name for name in changed(load_pretrained(detector).model, student.model)
    )
    first, second = rows(session)
    assert (first["align_weight"], second["align_weight"]) == (0.5, 0.25)
    assert 0 < float(str(first["align_loss"])) < 2

    # The next round goes on with the same head; what is exported has none.
    session.save(tmp_path / "taught", student.model, student.vae, student.tokenizer)
    again = session.load(tmp_path / "taught", optim, head_seed=9, head_width=width)
    assert not changed(student.model, again.model)
    bare = without_alignment_head(again.model)
    assert (bare.config.alignment_head, bare.config.alignment_width) == (False, None)
    assert not changed(bare, student.model)
    assert bare.state_dict().keys() == load_pretrained(detector).model.state_dict().keys()


def test_a_phase_of_no_steps_needs_no_mean_of_its_teacher(
    params: Params, detector: Path, detection: DetectionData, tmp_path: Path
) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None)
    plan = PhasePlan("diga", 2, 4, 0, replace(params.coevolve.diga.optim.config(), steps=0))
    settings = DigaSettings("frozen", "last", centred=True)
    student = train_diga(session, detector, detection, plan, WEIGHTS, settings)
    assert not changed(load_pretrained(detector).model, student.model)


def test_the_path_of_a_teacher_is_settled_before_anything_is_trained(
    params: Params, dinov2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert with_teacher_found(params.coevolve) is params.coevolve
    monkeypatch.chdir(dinov2.parent)
    update = {"teacher": "dinov2", "teacher_path": dinov2.name, "teacher_layer": "last"}
    section = with_teacher_found(params.coevolve.model_copy(update=update))
    assert DigaSettings.of(section).teacher_path == dinov2.absolute()
    with pytest.raises(ValueError, match="holds no DINOv2"):
        with_teacher_found(section.model_copy(update={"teacher_path": "nowhere"}))
    with pytest.raises(ValueError, match="none of the teacher's layers"):
        with_teacher_found(section.model_copy(update={"teacher_layer": 2}))


def test_without_gduf_each_task_trains_its_own_side_on_the_same_samples(
    params: Params, detector: Path, detection: DetectionData, tmp_path: Path
) -> None:
    sides: dict[str, set[str]] = {}
    optim = params.coevolve.gduf.optim.config()
    joint = PhasePlan("gduf", 1, 4, 4, optim)
    before = load_pretrained(detector).model
    for name, flow_steps, detection_steps in (("flow", 2, 0), ("detection", 0, 2)):
        session = TrainingSession(tmp_path / name, say=lambda _: None)
        apart = train_separately(
            session,
            detector,
            detection,
            replace(joint, name="flow", optim=replace(optim, steps=flow_steps)),
            replace(joint, name="detection", optim=replace(optim, steps=detection_steps)),
            WEIGHTS,
        )
        sides[name] = changed(before, apart.model)
    generation = ("vae2llm", "llm2vae", "time_embedder")
    assert all("moe_gen" in name or name.startswith(generation) for name in sides["flow"])
    assert not [n for n in sides["detection"] if "moe_gen" in n or n.startswith(generation)]
    assert {"llm2vae"} <= {name.split(".")[0] for name in sides["flow"]}
    assert {"vit_model", "fake_cls_head"} <= {name.split(".")[0] for name in sides["detection"]}

    loaded = load_pretrained(detector)

    def keys(generation: int, judged: int) -> tuple[list[str], list[str]]:
        batches = detection.batches(
            session,
            loaded.tokenizer,
            loaded.config,
            generation_per_step=generation,
            detection_per_step=judged,
            phase_seed=1,
        )
        drawn, seen = batches.samples(3)
        return [s.key for s in drawn], [s.key for s in seen]

    assert (keys(4, 0)[0], keys(0, 4)[1]) == keys(4, 4)


def test_separate_training_in_the_rounds_leaves_a_model_and_two_histories(
    params: Params, detector: Path, detection: DetectionData, tmp_path: Path
) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None)
    section = params.coevolve.model_copy(update={"joint": False, "rounds": 1})
    train_rounds(session, CoevolveJob(detector, detection, WEIGHTS, section))
    phases = list(dict.fromkeys(row["phase"] for row in rows(session)))
    assert phases == ["round1_flow", "round1_detection", "round1_diga"]
    assert (tmp_path / "kept" / "model" / "config.json").is_file()


def test_the_rounds_run_in_order_and_the_fresh_fakes_join_the_second(
    params: Params, detector: Path, detection: DetectionData, tmp_path: Path
) -> None:
    session = TrainingSession(tmp_path, say=lambda _: None)
    mixing = replace(detection, fresh_share=params.coevolve.fresh_share)
    train_rounds(session, CoevolveJob(detector, mixing, WEIGHTS, params.coevolve))
    phases = list(dict.fromkeys(row["phase"] for row in rows(session)))
    assert phases == ["round1_gduf", "round1_diga", "round2_gduf", "round2_diga"]

    kept = tmp_path / "kept"
    fresh = ShardDataset(kept / "round1_fakes", "train")
    assert len(fresh) == params.coevolve.fresh_fakes
    assert all(s.fake and s.generator == "flow" and s.split == "train" for s in fresh)
    assert all(s.explanation.startswith("This is a fake image.") for s in fresh)
    batches = mixing.batches(
        session,
        load_pretrained(detector).tokenizer,
        load_pretrained(detector).config,
        generation_per_step=0,
        detection_per_step=8,
        phase_seed=5,
        more_fakes=[fresh.folder],
    )
    drawn = [s.key for step in range(8) for s in batches.samples(step)[1] if s.fake]
    joined = [key for key in drawn if key in {s.key for s in fresh}]
    assert len(joined) == params.coevolve.fresh_share * len(drawn)
    assert set(joined) == {s.key for s in fresh}

    result = load_pretrained(kept / "model")
    assert not result.config.alignment_head
    assert {path.name for path in (kept / "model").glob("*.png")} == {
        "coevolution.png",
        "diga_before_after.png",
        "who_fools_whom.png",
    }
    summary = json.loads((kept / "model" / "summary.json").read_text())
    assert list(summary["phases"]) == ["start", *phases]
    assert 0 <= summary["figures"]["val_auroc"] <= 1
    # Only the weights that a later phase needs are carried along.
    models = {path.parents[1].name for path in kept.glob("*/model/config.json")}
    assert models == {"round2_gduf", "round2_diga"}


def test_the_alignment_head_comes_from_the_seed_and_goes_without_a_trace(
    detector: Path, tmp_path: Path
) -> None:
    plain = load_pretrained(detector)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second, other = (load_pretrained(detector, head_seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.config.alignment_head and not plain.config.alignment_head
    assert not changed(first.model, second.model)
    redrawn = changed(first.model, other.model)
    assert redrawn
    assert all(name.startswith("diga_mlp.") for name in redrawn)
    save_pretrained(tmp_path / "own", first.model, first.vae, first.tokenizer)
    own = load_pretrained(tmp_path / "own", head_seed=7)
    assert not changed(first.model, own.model)  # a model's own head is kept
    wide = load_pretrained(tmp_path / "own", head_seed=7, head_width=20)  # but not of another width
    assert wide.config.head_width == 20 != own.config.head_width
    assert all(name.startswith("diga_mlp.") for name in changed(first.model, wide.model))
    save_pretrained(tmp_path / "wide", wide.model, wide.vae, wide.tokenizer)
    assert not changed(load_pretrained(tmp_path / "wide").model, wide.model)
    narrow = load_pretrained(tmp_path / "wide", head_seed=5)
    assert not changed(narrow.model, first.model) and narrow.config == first.config
    bare = without_alignment_head(first.model)
    assert bare.state_dict().keys() == plain.model.state_dict().keys()
    assert not changed(bare, plain.model)
