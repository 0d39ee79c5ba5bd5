"""Parameters of models that are never made: totals of the published one, shares of a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.workload import bagel_slice, tiny
from tests.planning.measured import nbytes
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.planning.checkpoints import plan_checkpoints
from unigendet.planning.parameters import count_autoencoder, count_parameters

KEYS = Path(__file__).parents[1] / "golden" / "data" / "F1_state_dict" / "state_dict_keys_7b.json"
GENERATION = (".*moe_gen.*", "vae2llm.*", "llm2vae.*", "time_embedder.*")


def test_the_published_model_has_the_published_number_of_elements() -> None:
    published = json.loads(KEYS.read_text())
    counts = count_parameters(bagel_slice(28), (".*",), shards=8)
    elements = sum(_size(shape) for shape in published["gduf"].values())
    assert counts.total + counts.buffers == elements == 14_623_562_850
    assert counts.trainable == counts.total
    assert counts.held == pytest.approx(counts.total / 8, rel=1e-4) and counts.held_touched > 0
    assert counts.total == counts.root + 28 * counts.block + _vit_blocks(published["gduf"])
    autoencoder = count_autoencoder(bagel_slice(28).vae)
    assert autoencoder == sum(_size(shape) for shape in published["vae"].values())
    disk = plan_checkpoints(counts, autoencoder, copies=3)
    assert disk.checkpoint == pytest.approx(234e9, rel=3e-3)
    assert disk.model_bf16 == pytest.approx(29.4e9, rel=1e-2)
    assert disk.disk == 3 * disk.checkpoint + disk.model_fp32


def _size(shape: list[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _vit_blocks(shapes: dict[str, list[int]]) -> int:
    return sum(
        _size(shape)
        for name, shape in shapes.items()
        if name.startswith("vit_model.") and ".layers." in name
    )


def test_counts_are_those_of_the_made_model() -> None:
    config = tiny()
    model, counts = UniGenDetModel(config), count_parameters(config, GENERATION)
    assert 4 * counts.total == 4 * counts.held == nbytes(model.parameters())
    assert 4 * counts.buffers == nbytes(model.buffers())
    learning = [
        p.numel()
        for name, p in model.named_parameters()
        if "moe_gen" in name or name.split(".")[0] in {"vae2llm", "llm2vae", "time_embedder"}
    ]
    assert counts.trainable == counts.held_trainable == counts.held_touched == sum(learning)
    assert counts.touched_tensors == len(learning)
    assert counts.learning.gen and not counts.learning.und and not counts.learning.vit
    assert 4 * count_autoencoder(config.vae) == nbytes(LatentAutoencoder(config.vae).parameters())


@pytest.mark.parametrize("gpus", [2, 3, 64, 1000])
def test_shards_are_cut_along_the_first_dimension(gpus: int) -> None:
    counts = count_parameters(tiny(), (".*",), shards=gpus)
    model = UniGenDetModel(tiny())
    largest = sum(p.detach().chunk(gpus)[0].numel() for p in model.parameters())
    assert counts.held == largest
    assert counts.held * gpus >= counts.total == count_parameters(tiny()).total


def test_nothing_learns_without_patterns_and_a_mistyped_one_is_told() -> None:
    assert count_parameters(tiny()).trainable == 0
    with pytest.raises(ValueError, match="matches none of the model's"):
        count_parameters(tiny(), ("moe_gne.*",))
