"""The whole DAG, in this process, on a source that brings fakes and explanations of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline import coevolve, detector, evaluate, forge, forge_answers, generator, piecework, sweep
from pipeline.artifacts import STAGES, StageInputs, stage_spec
from pipeline.claims.collect import collect
from pipeline.detection_data import DetectionData
from pipeline.forge_tasks import forge_family
from pipeline.params import parse_params
from pipeline.report import report
from pipeline.sharding import shard
from pipeline.stage import StageContext
from tests.pipeline.miniature import ROOT, in_process
from tests.pipeline.sharding_in_process import picture, without_ray
from unigendet.data.answers import read_answers
from unigendet.data.degradations import Degradations
from unigendet.data.shards import ShardDataset
from unigendet.data.verdicts import parse_verdict
from unigendet.models.pretrained import load_pretrained
from unigendet.training.session import TrainingSession

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SIDE = 64
IMAGES = (
    ("train/doc/real", 36),
    ("train/doc/fake", 14),
    ("train/gan/fake", 8),
    ("test/doc/real", 10),
    ("test/doc/fake", 5),
    ("test/ff++/fake", 4),
)
"""A generator called as one of our own families, and one that is only in the test set."""
CHANGES: dict[str, dict[str, Any]] = {
    "data": {"source": "fakeclue", "val_share": 0.35, "everyday_crops": 1},
    "sweep": {"enabled": False},
    "coevolve": {f"{name}_weight": 0.5 for name in ("flow", "det", "text", "align")}
    | {"tap_layer": 1},
    "forge": {"samples_per_family": 6},
}


def _write_source(folder: Path) -> None:
    """FakeClue in miniature; every fourth image is not listed, so has no explanation."""
    records: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    number = 0
    for place, count in IMAGES:
        for _ in range(count):
            path = folder / place / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(number, SIDE)).save(path)
            kind = place.rsplit("/", 1)[1]
            if number % 4:
                said = f"This is a {kind} image. The letters are number {number}."
                turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": said}]
                name = str(path.relative_to(folder))
                record = {"image": name, "label": int(kind == "real"), "conversations": turns}
                records[place.split("/")[0]].append(record)
            number += 1
    (folder / "data_json").mkdir()
    for split, rows in records.items():
        (folder / "data_json" / f"{split}.json").write_text(json.dumps(rows))


def _params(folder: Path) -> Any:
    raw = YAML(typ="safe").load((ROOT / "profiles" / "smoke.yaml").read_text())
    for section, changed in CHANGES.items():
        raw[section] |= changed
    raw["data"]["folder"] = str(folder)
    return parse_params(raw)


def _train_here(ctx: StageContext, task: Callable[[TrainingSession, Any], None], job: Any) -> Path:
    session = TrainingSession(ctx.state, say=lambda _: None)
    task(session, job)
    return session.folder


def _each_here(
    task: Callable[[Any], list[Any]], parts: Mapping[Any, Sequence[Any]]
) -> dict[Any, list[Any]]:
    return {key: [one for part in own for one in task(part)] for key, own in parts.items()}


STAGE_FUNCTIONS: dict[str, Callable[[StageContext], None]] = {
    "shard": shard,
    "pretrain_generator": generator.pretrain_generator,
    "forge": forge.forge,
    "pretrain_detector": detector.pretrain_detector,
    "sweep": sweep.sweep,
    "coevolve": coevolve.coevolve,
    "evaluate": evaluate.evaluate,
    "report": report,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace in which every stage ran, without Ray."""
    workspace = tmp_path_factory.mktemp("labelled")
    _write_source(workspace / "FakeClue")
    params = _params(workspace / "FakeClue")
    (workspace / "params.yaml").write_text("seed: 0\n")
    with pytest.MonkeyPatch.context() as patch, without_ray():
        patch.setattr("pipeline.cluster.ray_session", lambda *_, **__: nullcontext())
        for module in (generator, detector, coevolve):
            patch.setattr(module, "train_on_ray", _train_here)
        patch.setattr(forge, "_forge_all", lambda _, orders: map(forge_family, orders))
        patch.setattr(forge_answers, "each_in_order", _each_here)
        patch.setattr(piecework, "run_pieces", in_process)
        patch.setattr(piecework, "actor_count", lambda gpu: 1)
        for spec in STAGES:
            out, state = workspace / "outputs" / spec.out, workspace / "state" / spec.name
            out.mkdir(parents=True)
            state.mkdir(parents=True)
            ctx = StageContext(
                name=spec.name,
                params=params,
                workspace=workspace,
                inputs=StageInputs(workspace, stage_spec(spec.name)),
                out=out,
                state=state,
                resumed=False,
                run=Mock(),
                fingerprint="f" * 16,
            )
            STAGE_FUNCTIONS[spec.name](ctx)
            ctx.timings(1).save(out)
    yield workspace


def _sets(workspace: Path, out: str) -> dict[str, ShardDataset]:
    return {name: ShardDataset(workspace / "outputs" / out, name) for name in forge.SETS}


def _metrics(workspace: Path) -> Any:
    return json.loads((workspace / "outputs" / "eval" / "metrics.json").read_text())


def test_the_forge_adds_its_own_and_answers_what_came_without_an_answer(finished: Path) -> None:
    shards, forged = _sets(finished, "shards"), _sets(finished, "forged")
    assert set(shards["train"].manifest.generators) == {"real", "doc", "gan of fakeclue"}
    assert set(shards["test"].manifest.generators) == {"real", "doc", "ff++"}
    assert set(forged["train"].manifest.generators) == {"reconstruction", "flow", "ddpm"}
    for name, data in shards.items():
        answers = read_answers(finished / "outputs" / "forged", name)
        assert set(answers) == {sample.key for sample in data if not sample.explanation}
        for sample in data:
            answer = answers.get(sample.key, sample.explanation)
            assert parse_verdict(answer) is sample.fake
        real = {entry.source_id for entry in data.entries if not entry.fake}
        assert {entry.source_id for entry in forged[name].entries} <= real
    audit = json.loads((finished / "outputs" / "forged" / "audit.json").read_text())
    together = len(shards["val"]) + len(forged["val"])
    assert audit["val"]["auroc"]["n_total"] == together


def test_the_detector_learns_from_both_with_the_answers_of_both(finished: Path) -> None:
    outputs = finished / "outputs"
    data = DetectionData(
        outputs / "shards",
        outputs / "forged",
        seed=0,
        smsa=True,
        text_dropout=0.1,
        validation_images=100,
        degradations=Degradations(0.0, 0.7, 0.5, 1.0, 5.0, 60),
    )
    loaded = load_pretrained(outputs / "model")
    session: Any = SimpleNamespace(rank=0, world=1)
    batches = data.batches(
        session,
        loaded.tokenizer,
        loaded.config,
        generation_per_step=8,
        detection_per_step=16,
        phase_seed=1,
    )
    drawn, judged = zip(*(batches.samples(step) for step in range(8)), strict=True)
    assert not any(sample.fake for part in drawn for sample in part)
    seen = {sample.key: sample for part in judged for sample in part}
    assert {s.generator for s in seen.values()} >= {"real", "doc", "gan of fakeclue", "ddpm"}
    own = {s.key: s.explanation for s in _sets(finished, "shards")["train"] if s.explanation}
    kept = {key: sample.explanation for key, sample in seen.items() if key in own}
    assert kept and kept == {key: own[key] for key in kept}
    assert any("letters" in kept[key] and not seen[key].fake for key in kept)
    assert all(parse_verdict(s.explanation) is s.fake for s in seen.values())


def test_fresh_fakes_and_validation_are_of_real_images_and_of_all_fakes(finished: Path) -> None:
    real = {e.source_id for e in _sets(finished, "shards")["train"].only(fake=False).entries}
    fresh = ShardDataset(finished / "state" / "coevolve" / "kept" / "round1_fakes", "train")
    assert {entry.source_id for entry in fresh.entries} <= real
    figures = json.loads((finished / "outputs" / "detector" / "summary.json").read_text())
    assert "val_auroc_doc" in figures["figures"]


def test_the_suites_follow_from_the_training_set(finished: Path) -> None:
    metrics = _metrics(finished)
    detection = metrics["detection"]
    assert set(detection["in_domain"]) == {"doc", "reconstruction", "flow", "ddpm", "all"}
    assert set(detection["cross_generator"]) == {"ff++", "gan", "inpaint", "all"}
    assert detection["in_domain"]["doc"]["fakes"] == 5
    assert detection["in_domain"]["doc"]["reals"] == metrics["counts"]["real/test"]["images"] == 10
    assert metrics["counts"]["given/test"]["generators"] == {"doc": 5, "ff++": 4}
    assert set(metrics["counts"]["train"]["generators"]) == {"real"}
    lines = (finished / "outputs" / "eval" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert all(parse_verdict(record["reference"]) is record["fake"] for record in records)
    assert any("letters" in record["reference"] for record in records if not record["fake"])
    judged = {record["key"] for record in records if record["generator"] == "doc"}
    test = _sets(finished, "shards")["test"]
    assert judged == {entry.key for entry in test.entries if entry.generator == "doc"}


def test_the_page_lists_what_came_with_the_data(finished: Path) -> None:
    page = (finished / "outputs" / "report" / "index.html").read_text()
    assert "Fakes that came with the data" in page
    assert "ff++" in page and "gan of fakeclue" in page and "no, unseen" in page
    assert "Real images come from the source fakeclue" in page


def test_claims_keep_ours_and_theirs_apart(finished: Path) -> None:
    found = collect(finished)
    assert found["trained_on"] == ["ddpm", "doc", "flow", "reconstruction"]
    assert found["own_decoder"] == ["flow", "reconstruction"]
    assert set(found["scores"]["home"]) >= {"real", "doc", "ff++", "gan"}
    assert 0 <= found["figures"]["forgetting"]["in_domain_auroc_before_diga"] <= 1
