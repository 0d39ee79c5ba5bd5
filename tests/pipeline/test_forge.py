"""Stage forge: orders follow from the seed, and the out is whole, explained and judged."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.forge import SETS, forge, plan_orders
from pipeline.forge_tasks import FamilyFakes, forge_family
from pipeline.params import load_params, parse_params
from pipeline.stage import run_stage
from tests.models.tiny import square_config
from unigendet.data.answers import read_answers
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardDataset, ShardWriter
from unigendet.data.sources.blue_marble import load_map, map_path
from unigendet.data.tokenizer import train_tokenizer
from unigendet.data.verdicts import parse_verdict
from unigendet.evidence import measure
from unigendet.explanations import EVIDENCE_FILE, NOTHING, Explainer, statements_in
from unigendet.models.pretrained import save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.types import Sample

ROOT = Path(__file__).parents[2]
SIDE = 32


def _tiles() -> NDArray[np.uint8]:
    world = load_map(map_path(), 2.0)
    return np.stack(
        [
            world[top : top + SIDE, left : left + SIDE]
            for top in range(560, 560 + 4 * SIDE, SIDE)
            for left in range(1500, 1500 + 12 * SIDE, SIDE)
        ]
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for set_name, part in zip(SETS, np.array_split(_tiles(), 4), strict=True):
        with ShardWriter(folder, set_name) as writer:
            for place, image in enumerate(part):
                everyday = set_name == "everyday"
                writer.write(
                    Sample(
                        key=f"{set_name}-{place:03d}",
                        image=image,
                        source_id=f"{set_name}/{place}",
                        split="test" if everyday else set_name,
                        domain="everyday" if everyday else "blue_marble",
                        caption="desert" if place % 2 else "forest",
                        fake=False,
                    )
                )
    return folder


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer([*prompt_corpus(), "desert", "forest"], 300)
    config = square_config(len(tokenizer))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("generator") / "model"
    model, vae = UniGenDetModel(config).eval(), LatentAutoencoder(config.vae).eval()
    save_pretrained(folder, model, vae, tokenizer)
    return folder


def _context(shards: Path, generator: Path, seed: int = 0) -> Any:
    params = load_params(ROOT / "profiles" / "smoke.yaml")
    inputs = {"shard": shards, "pretrain_generator": generator}
    return SimpleNamespace(params=params, inputs=inputs, seed=seed, device="cpu")


SIZES = {"train": 30, "val": 5, "test": 12, "everyday": 9}


def test_orders_follow_from_the_seed(tmp_path: Path) -> None:
    first, again, other = (
        plan_orders(_context(tmp_path, tmp_path, seed), SIZES) for seed in (0, 0, 1)
    )
    assert first == again
    assert all(a.seed != b.seed for a, b in zip(first, other, strict=True))
    assert first[0].make_from != other[0].make_from


def test_orders_keep_roles_and_limits(tmp_path: Path) -> None:
    orders = {order.family: order for order in plan_orders(_context(tmp_path, tmp_path), SIZES)}
    assert set(orders["ddpm"].make_from) == {"train", "val", "test"}
    assert set(orders["vqar"].make_from) == {"val"}
    assert set(orders["inpaint"].make_from) == {"test", "everyday"}
    for order in orders.values():
        for name, positions in order.make_from.items():
            assert len(set(positions)) == len(positions) == min(8, SIZES[name])
            assert max(positions) < SIZES[name]
    assert len({order.seed for order in orders.values()}) == len(orders)
    assert orders["ddpm"].make_from["train"] != orders["flow"].make_from["train"]


def test_a_task_makes_the_fakes_of_its_order(
    shards: Path, generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {name: len(ShardDataset(shards, name)) for name in SETS}
    orders = {o.family: o for o in plan_orders(_context(shards, generator), sizes)}
    for family in ("gan", "reconstruction"):
        made = forge_family(orders[family])
        again = forge_family(orders[family])
        for name, positions in orders[family].make_from.items():
            assert made.fakes[name].shape == (len(positions), SIDE, SIDE, 3)
            assert made.fakes[name].dtype == np.uint8
            np.testing.assert_array_equal(made.fakes[name], again.fakes[name])
        assert bool(made.weights) == (family == "gan")
        made.save(tmp_path / "kept.npz")
        kept = FamilyFakes.load(tmp_path / "kept.npz")
        assert (kept.family, kept.weights, kept.fit_loss) == (family, made.weights, made.fit_loss)
        assert kept.started_at == made.started_at
        for name, images in made.fakes.items():
            np.testing.assert_array_equal(kept.fakes[name], images)
    assert "gan: step 4 of 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"roles": {"flow": "test"}}, "so not for test"),
        ({"roles": {"vqar": "train"}}, "no family has the role val"),
        ({"ddpm": {"strength": 1.0}}, "strength must lie in"),
        ({"gan": {"scael": 2}}, "did you mean `scale`"),
        ({"inpaint": {"min_side": 0.9}}, "min_side <= max_side"),
        ({"quality_floor": -1.0}, "quality_floor"),
    ],
)
def test_wrong_parameters_are_named(changes: dict[str, Any], message: str) -> None:
    raw = load_params(ROOT / "profiles" / "smoke.yaml").model_dump(mode="json")
    for key, value in changes.items():
        if isinstance(value, dict):
            raw["forge"][key] |= value
        else:
            raw["forge"][key] = value
    with pytest.raises(ValueError, match=message):
        parse_params(raw)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_stage(workspace: Path, shards: Path, generator: Path) -> None:
    (workspace / "stages" / "forge.py").write_text("from pipeline.forge import forge\n")
    (workspace / "pipeline" / "forge.py").write_text("def forge(ctx): ...\n")
    (workspace / "outputs").mkdir()
    (workspace / "outputs" / "shards").symlink_to(shards)
    (workspace / "outputs" / "generator").symlink_to(generator)
    assert run_stage("forge", forge, workspace) == 0

    out = workspace / "outputs" / "forged"
    families = {
        "train": {"reconstruction", "flow", "ddpm"},
        "val": {"reconstruction", "flow", "ddpm", "vqar"},
        "test": {"reconstruction", "flow", "ddpm", "gan", "inpaint"},
        "everyday": {"gan", "inpaint"},
    }
    explainer = Explainer.from_json((out / EVIDENCE_FILE).read_text())
    for name in SETS:
        fakes, real = ShardDataset(out, name), ShardDataset(shards, name)
        assert {sample.generator for sample in fakes} == families[name]
        origins = {sample.source_id: sample for sample in real}
        for sample in fakes:
            origin = origins[sample.source_id]
            assert sample.fake and sample.image.shape == origin.image.shape
            facts = (sample.split, sample.domain, sample.caption)
            assert facts == (origin.split, origin.domain, origin.caption)
            _true_answer(explainer, sample.explanation, sample)
        answers = read_answers(out, name)
        assert set(answers) == {sample.key for sample in real}
        for sample in real:
            _true_answer(explainer, answers[sample.key], sample)
    quality = json.loads((out / "quality.json").read_text())
    assert {one["family"] for one in quality["families"]} == families["test"] | families["val"]
    assert all(one["distances"]["kd"]["n"] >= 2 for one in quality["families"])
    audit = json.loads((out / "audit.json").read_text())
    assert all(audit[name]["formats"] == ["PNG"] for name in SETS)
    assert all(audit[name]["sizes"] == [f"{SIDE}x{SIDE}"] for name in SETS)
    assert all((out / f"{family}.png").is_file() for family in families["test"])
    assert (out / "families" / "ddpm.safetensors").is_file()


def _true_answer(explainer: Explainer, answer: str, sample: Sample) -> None:
    assert parse_verdict(answer) is sample.fake
    evidence = measure(sample.image)
    statements = statements_in(answer)
    assert statements or NOTHING in answer
    assert all(explainer.holds(statement, evidence) for statement in statements)
