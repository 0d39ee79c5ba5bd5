"""Two processes learn what one learns, however they hold the model, and go on from each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from tests.models.published import assert_same, small_config, small_parts
from tests.training.rank_process import (
    CONFIG,
    diga,
    diga_batch,
    gduf,
    gduf_batch,
    rank_main,
    run,
)
from unigendet.config import OptimConfig
from unigendet.models.pretrained import load_pretrained, save_pretrained

Terms = dict[int, dict[str, float]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Terms, dict[str, torch.Tensor], Path]:
    """One process: loss terms by step, the weights after them, and its checkpoints."""
    checkpoints = tmp_path_factory.mktemp("alone")
    terms, model = run(gduf(), gduf_batch, CONFIG, checkpoints=checkpoints)
    return terms, model.state_dict(), checkpoints


@pytest.fixture(scope="module")
def pair(alone: tuple[Any, Any, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks left what they found."""
    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(alone[2] / "step-00000010", folder / "alone" / "step-00000010")
    save_pretrained(folder / "model", *small_parts(small_config()))
    multiprocessing.spawn(rank_main, args=(folder,), nprocs=2)
    return folder


def found(pair: Path, rank: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((pair / f"found{rank}.json").read_text())
    return content


def assert_close(terms: dict[str, dict[str, float]], expected: Terms) -> None:
    assert [int(step) for step in terms] == list(expected)
    for step, values in expected.items():
        for name, value in values.items():
            assert terms[str(step)][name] == pytest.approx(value, rel=1e-5, abs=1e-5), (step, name)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_twenty_steps_of_two_ranks_have_the_losses_of_one_process(
    alone: tuple[Terms, dict[str, torch.Tensor], Path], pair: Path, sharding: str
) -> None:
    terms, weights, _ = alone
    assert_close(found(pair)[sharding], terms)
    assert found(pair, 0)[sharding] == found(pair, 1)[sharding]
    first, second = (
        torch.load(pair / f"{sharding}{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert_same(first, second)
    for name, value in weights.items():
        if name.startswith("vit_model") and name.endswith("k_proj.bias"):
            continue  # it has no influence: its gradient is rounding, which AdamW makes large
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=1e-4)


def test_each_rank_holds_a_part_of_the_parameters(
    alone: tuple[Terms, dict[str, torch.Tensor], Path], pair: Path
) -> None:
    whole = sum(value.numel() for name, value in alone[1].items() if "pos_embed" not in name)
    parts = [found(pair, rank)["local_share"] for rank in (0, 1)]
    assert sum(parts) == whole
    assert max(parts) < 0.6 * whole


def test_two_ranks_go_on_from_the_checkpoint_of_one(
    alone: tuple[Terms, dict[str, torch.Tensor], Path], pair: Path
) -> None:
    assert_close(found(pair)["resumed"], {step: alone[0][step] for step in range(11, 21)})


def test_one_process_goes_on_from_the_parts_that_two_ranks_wrote_apart(
    alone: tuple[Terms, dict[str, torch.Tensor], Path], pair: Path, tmp_path: Path
) -> None:
    first, second = (pair / f"checkpoints-of-rank{rank}" / "step-00000010" for rank in (0, 1))
    shards = [path.name for path in second.iterdir()]
    assert shards == ["shard-00002-model-00001-of-00001.safetensors"]
    joined = tmp_path / "step-00000010"
    shutil.copytree(first, joined)
    with pytest.raises(ValueError, match="some of its files are missing"):
        run(gduf(), gduf_batch, CONFIG, checkpoints=tmp_path)
    shutil.copy(second / shards[0], joined)
    resumed, _ = run(gduf(), gduf_batch, CONFIG, checkpoints=tmp_path)
    assert_close(
        {str(step): row for step, row in resumed.items()},
        {step: alone[0][step] for step in range(11, 21)},
    )


def test_alignment_with_a_sharded_teacher(pair: Path) -> None:
    expected, _ = run(diga(), diga_batch, OptimConfig(steps=3, lr=1e-3, log_every=1))
    assert expected[1]["align_loss"] > 0.1
    assert_close(found(pair)["diga"], expected)


def test_sharded_weights_stay_float32_under_bfloat16(
    alone: tuple[Terms, dict[str, torch.Tensor], Path], pair: Path
) -> None:
    assert found(pair)["dtypes"] == ["torch.float32"]
    for step, terms in found(pair)["bf16"].items():
        assert terms["total"] == pytest.approx(alone[0][int(step)]["total"], rel=0.05)


def test_all_ranks_stop_where_one_of_them_has_a_loss_that_is_not_finite(pair: Path) -> None:
    assert "step 0: another rank's loss is not finite" in found(pair, 0)["error"]
    assert "step 0: flow_loss = nan, " in found(pair, 1)["error"]
    assert "it begins at the batch (noise)" in found(pair, 1)["error"]


def test_a_session_of_two_ranks_keeps_one_result(pair: Path) -> None:
    said = found(pair, 0)["said"]
    assert said[-1] == "result: done before, kept"
    assert found(pair, 1)["said"] == []
    history = (pair / "session" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in history] == [1, 2]
    start = load_pretrained(pair / "model", head_seed=3)
    unchanged = load_pretrained(pair / "session" / "kept" / "result" / "unchanged")
    assert unchanged.config == start.config
    expected = {name: value.float() for name, value in start.model.state_dict().items()}
    assert_same(unchanged.model.state_dict(), expected)
