"""Fresh fakes at their share of a stream, and nothing of the older ones forgotten."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_composition import EVEN, LIMITS
from tests.data.test_loader import make_sample
from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.composition import Budget
from unigendet.data.degradations import Degradations
from unigendet.data.loader import MixedBatches
from unigendet.data.prompts import prompt_corpus
from unigendet.data.replay import ReplayStream
from unigendet.data.shards import ShardDataset, ShardWriter
from unigendet.data.tokenizer import train_tokenizer

OLD, FRESH = 20, 6
SAMPLES = [make_sample(number, fake=True) for number in range(OLD + FRESH)]


def stream(share: float, **changes: Any) -> ReplayStream:
    return ReplayStream(SAMPLES, fresh=FRESH, share=share, seed=3, **changes)


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.5, 0.9, 1.0])
def test_every_stretch_holds_the_share(share: float) -> None:
    drawn = [stream(share).index(position) >= OLD for position in range(400)]
    for length in (7, 50, 333):
        for first in range(0, 400 - length, 11):
            assert abs(sum(drawn[first : first + length]) - length * share) <= 1


def test_each_part_goes_through_whole_epochs_of_its_own() -> None:
    mixed = stream(0.25)
    places = [mixed.place(position) for position in range(200)]
    for part in (range(OLD), range(OLD, OLD + FRESH)):
        mine = [place for place in places if place[0] in part]
        epochs = [mine[start : start + len(part)] for start in range(0, len(mine), len(part))]
        for number, epoch in enumerate(epochs[:-1]):
            assert {index for index, _ in epoch} == set(part)
            assert {times for _, times in epoch} == {number}


def test_a_sample_that_comes_again_is_degraded_anew() -> None:
    changed = stream(1.0, augment=False, degradations=Degradations(1.0, 0.5, 0.5, 2.0, 9.0, 40))
    places = [changed.index(position) for position in range(2 * FRESH)]
    first = places[0]
    again = places.index(first, FRESH)
    assert (changed.at(0).image.shape, first) == (changed.at(again).image.shape, places[again])
    assert (changed.at(0).image != changed.at(again).image).any()


@pytest.mark.parametrize(
    ("fresh", "share", "words"),
    [
        (0, 0.5, "not 0"),
        (len(SAMPLES), 0.5, "not 26"),
        (FRESH, 0.0, "above 0"),
        (FRESH, 1.5, "not 1.5"),
    ],
)
def test_a_part_or_share_that_cannot_be_is_an_error(fresh: int, share: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReplayStream(SAMPLES, fresh=fresh, share=share, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    sets = {
        "real": [make_sample(number, fake=False) for number in range(8)],
        "forged": SAMPLES[:OLD],
        "first": SAMPLES[OLD : OLD + 3],
        "second": SAMPLES[OLD + 3 :],
    }
    for name, samples in sets.items():
        with ShardWriter(folder, name) as writer:
            for sample in samples:
                writer.write(sample)
    return folder


def batches(folder: Path, **changes: Any) -> MixedBatches:
    tokenizer = train_tokenizer(prompt_corpus(), 300)
    rule = ResizeRule(max_size=16, min_size=16, stride=8)
    config = ModelConfig(
        llm=TransformerConfig(len(tokenizer), 16, 32, 1, 2, 1),
        vit=VisionConfig(16, 32, 1, 2, image_size=16, patch_size=8),
        vae=AutoencoderConfig(8, (1, 2, 2), 1, 4),
        vae_resize=rule,
        vit_resize=rule,
        max_latent_size=2,
    )
    options: dict[str, Any] = {
        "fresh": [ShardDataset(folder, "first"), ShardDataset(folder, "second")],
        "fresh_share": 0.25,
        "generation_per_step": 0,
        "detection_per_step": 8,
        "seed": 1,
    }
    return MixedBatches(
        [ShardDataset(folder, "real")],
        [ShardDataset(folder, "forged")],
        tokenizer=tokenizer,
        config=config,
        **options | changes,
    )


def drawn_fakes(loader: MixedBatches, steps: int) -> list[str]:
    return [s.key for step in range(steps) for s in loader.samples(step)[1] if s.fake]


def test_the_loader_draws_the_share_from_all_rounds_alike(folder: Path) -> None:
    keys = drawn_fakes(batches(folder), 24)
    counted = Counter(keys)
    fresh = {sample.key: counted[sample.key] for sample in SAMPLES[OLD:]}
    assert len(keys) == 96 and sum(fresh.values()) == 24
    assert set(fresh.values()) == {4}  # 24 draws of 6, three of each round
    assert all(counted[sample.key] for sample in SAMPLES[:OLD])


def test_ranks_together_draw_what_one_does(folder: Path) -> None:
    ranks = [batches(folder, rank=rank, world=2) for rank in range(2)]
    for step in range(6):
        together = [s.key for one in ranks for s in one.samples(step)[1] if s.fake]
        alone = [s.key for s in batches(folder).samples(step)[1] if s.fake]
        assert sorted(together) == sorted(alone)


def test_a_token_budget_keeps_the_share(folder: Path) -> None:
    budget = Budget(1, LIMITS, ((0, {name: EVEN[name] for name in ("real", "fake")}),))
    keys = drawn_fakes(batches(folder, budget=budget), 60)
    fresh = sum(key in {sample.key for sample in SAMPLES[OLD:]} for key in keys)
    assert len(keys) > 60 and abs(fresh - 0.25 * len(keys)) <= 1


def test_without_fresh_fakes_the_stream_is_what_it_was(folder: Path) -> None:
    plain = drawn_fakes(batches(folder, fresh=(), fresh_share=0.0), 10)
    assert plain == drawn_fakes(batches(folder, fresh=(), fresh_share=0.5), 10)
    assert sorted(plain[:OLD]) == sorted(sample.key for sample in SAMPLES[:OLD])
