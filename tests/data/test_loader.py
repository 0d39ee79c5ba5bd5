"""Batches are a function of (seed, step): exact over ranks, workers and resumption."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.test_composition import EVEN, LIMITS
from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.composition import Budget, TokenBudget
from unigendet.data.loader import MixedBatches, TrainingBatches
from unigendet.data.prompts import prompt_corpus
from unigendet.data.shards import ShardDataset, ShardWriter
from unigendet.data.streams import SampleStream, Selection, dihedral, epoch_order
from unigendet.data.tokenizer import Tokenizer, train_tokenizer
from unigendet.types import PackedBatch, Sample

REALS, FAKES = 12, 7


def make_sample(number: int, fake: bool) -> Sample:
    rng = np.random.default_rng([number, fake])
    return Sample(
        key=f"{'fake' if fake else 'real'}-{number:02d}",
        image=rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
        source_id=f"source/{number}",
        split="train",
        domain="test",
        caption="a satellite image of desert",
        fake=fake,
        generator="gan" if fake else "real",
        explanation="This is a fake image. It is too smooth." if fake else "",
    )


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardDataset, ShardDataset]:
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, "real", shard_bytes=8000) as writer:
        for number in range(REALS):
            writer.write(make_sample(number, fake=False))
    with ShardWriter(folder, "mixed", shard_bytes=8000) as writer:
        for number in range(FAKES):
            writer.write(make_sample(number, fake=True))
            writer.write(make_sample(50 + number, fake=False))
    return ShardDataset(folder, "real"), ShardDataset(folder, "mixed")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(prompt_corpus(), 300)


@pytest.fixture(scope="module")
def config(tokenizer: Tokenizer) -> ModelConfig:
    rule = ResizeRule(max_size=16, min_size=16, stride=8)
    return ModelConfig(
        llm=TransformerConfig(len(tokenizer), 16, 32, 1, 2, 1),
        vit=VisionConfig(16, 32, 1, 2, image_size=16, patch_size=8),
        vae=AutoencoderConfig(8, (1, 2, 2), 1, 4),
        vae_resize=rule,
        vit_resize=rule,
        max_latent_size=2,
    )


@pytest.fixture(scope="module")
def mixed(
    datasets: tuple[ShardDataset, ShardDataset], tokenizer: Tokenizer, config: ModelConfig
) -> MixedBatches:
    real, fakes = datasets
    return MixedBatches(
        [real],
        [fakes],
        generation_per_step=3,
        detection_per_step=4,
        tokenizer=tokenizer,
        config=config,
        seed=5,
        explanations={"real-03": "This is a real image. Its texture is natural."},
    )


def same(left: PackedBatch, right: PackedBatch) -> bool:
    for field in fields(PackedBatch):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, torch.Tensor) and not torch.equal(a, b):
            return False
    return left.splits == right.splits


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    assert np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 2))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 1, 3))
    assert not np.array_equal(epoch_order(50, 1, 2), epoch_order(50, 2, 2))


def test_dihedral_gives_the_eight_symmetries() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    views = [dihedral(image, symmetry) for symmetry in range(8)]
    assert len({view.tobytes() for view in views}) == 8
    assert np.array_equal(views[0], image)
    assert {tuple(np.sort(view.reshape(-1))) for view in views} == {
        tuple(np.sort(image.reshape(-1)))
    }


def test_augmentation_is_fixed_by_the_position_and_varies() -> None:
    samples = [make_sample(0, fake=False)]
    stream = SampleStream(samples, seed=4)
    views = [stream.at(position).image.tobytes() for position in range(60)]
    assert views == [stream.at(position).image.tobytes() for position in range(60)]
    assert len(set(views)) == 8
    plain = SampleStream(samples, seed=4, augment=False)
    assert np.array_equal(plain.at(9).image, samples[0].image)


def test_generation_learns_real_images_only_and_detection_is_balanced(mixed: MixedBatches) -> None:
    generated, detected = Counter(), Counter()
    for step in range(30):
        generation, detection = mixed.samples(step)
        generated.update((sample.fake, sample.key) for sample in generation)
        assert [sample.fake for sample in detection] == [False, False, True, True]
        detected.update(sample.key for sample in detection)
    assert not any(fake for fake, _ in generated)
    assert {key for _, key in generated} == {f"real-{number:02d}" for number in range(REALS)}
    assert {key for key in detected if key.startswith("fake")} == {
        f"fake-{number:02d}" for number in range(FAKES)
    }
    # Reals that lie among the fakes' shards are not in `real`, so they are not used.
    assert not any(key.startswith("real-5") for key in detected)


def test_the_pack_keeps_the_polarity_of_the_labels(mixed: MixedBatches) -> None:
    batch = mixed.batch(0)
    assert batch.det_labels.tolist() == [1, 1, 0, 0]  # head order: 0 = fake
    assert len(batch.sample_lens) == 7
    generated = batch.raw_timesteps > -torch.inf
    assert generated.tolist() == [True] * 3 + [False] * 4


def build(
    datasets: tuple[ShardDataset, ShardDataset],
    tokenizer: Tokenizer,
    config: ModelConfig,
    **changes: Any,
) -> MixedBatches:
    settings: dict[str, Any] = {"generation_per_step": 4, "detection_per_step": 4, "seed": 5}
    real, fakes = datasets
    return MixedBatches(
        [real], [fakes], tokenizer=tokenizer, config=config, **{**settings, **changes}
    )


def test_batches_repeat_and_differ_by_step_and_seed(
    mixed: MixedBatches,
    datasets: tuple[ShardDataset, ShardDataset],
    tokenizer: Tokenizer,
    config: ModelConfig,
) -> None:
    assert same(mixed.batch(11), mixed.batch(11))
    assert not same(mixed.batch(11), mixed.batch(12))
    first, other = (build(datasets, tokenizer, config, seed=seed).batch(3) for seed in (5, 6))
    assert not torch.equal(first.pixels, other.pixels)
    assert not torch.equal(first.noise, other.noise)


def test_two_ranks_pack_what_one_packs_with_the_same_draws(
    datasets: tuple[ShardDataset, ShardDataset], tokenizer: Tokenizer, config: ModelConfig
) -> None:
    for step in range(4):
        alone = build(datasets, tokenizer, config).alignment_batch(step)
        pair = [
            build(datasets, tokenizer, config, rank=rank, world=2).alignment_batch(step)
            for rank in range(2)
        ]
        # By kind: 4 to generate, then 2 real and 2 fake to judge, half of each on either rank.
        order = [0, 1, 4, 6, 2, 3, 5, 7]
        for name in ("raw_timesteps", "posterior_noise", "pixels"):
            together = torch.cat([getattr(part.generation, name) for part in pair])
            assert torch.equal(together, getattr(alone.generation, name)[order]), name
        noise = alone.generation.noise.unflatten(0, (8, -1))[order].flatten(0, 1)
        assert torch.equal(torch.cat([part.generation.noise for part in pair]), noise)
        drawn = torch.cat([part.teacher.posterior_noise for part in pair])
        assert torch.equal(drawn, alone.teacher.posterior_noise)


def test_a_step_that_the_ranks_cannot_share_is_an_error(
    datasets: tuple[ShardDataset, ShardDataset], tokenizer: Tokenizer, config: ModelConfig
) -> None:
    with pytest.raises(ValueError, match="4 samples cannot be shared by 3 workers"):
        build(datasets, tokenizer, config, world=3)


def test_alignment_pairs_the_teacher_with_what_is_generated(mixed: MixedBatches) -> None:
    batch = mixed.alignment_batch(2)
    assert same(batch.generation, mixed.batch(2))
    assert len(batch.teacher.vit_shapes) == 3
    assert torch.equal(batch.teacher.pixels, batch.generation.pixels[:3])
    assert not (batch.teacher.raw_timesteps > -torch.inf).any()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_number_of_workers_and_a_resume_give_the_same_batches(
    mixed: MixedBatches, num_workers: int
) -> None:
    with TrainingBatches(mixed.batch, 6, num_workers=num_workers) as batches:
        whole = [batches(step) for step in range(6)]
    with TrainingBatches(mixed.batch, 6, num_workers=num_workers) as batches:
        resumed = [batches(step) for step in range(3, 6)]
        with pytest.raises(ValueError, match="outside the run"):
            batches(6)
    assert all(same(batch, mixed.batch(step)) for step, batch in enumerate(whole))
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))


def test_explanations_reach_real_samples_by_key(
    datasets: tuple[ShardDataset, ShardDataset],
) -> None:
    text = "This is a real image. Its texture is natural."
    chosen = Selection([datasets[0]], fake=False, explanations={"real-03": text})
    assert chosen[3].explanation == text and chosen[4].explanation == ""
    both = Selection(datasets, fake=False)
    assert len(both) == REALS + FAKES and not any(sample.fake for sample in both)


def test_one_set_may_hold_both_classes(
    datasets: tuple[ShardDataset, ShardDataset], tokenizer: Tokenizer, config: ModelConfig
) -> None:
    """What a labelled source brings; its fakes without an explanation get theirs by key too."""
    mixed = datasets[1]
    text = "This is a fake image. It came with the data."
    batches = MixedBatches(
        [mixed],
        [mixed],
        generation_per_step=4,
        detection_per_step=4,
        tokenizer=tokenizer,
        config=config,
        seed=0,
        explanations={entry.key: text for entry in mixed.entries if entry.fake},
    )
    for step in range(6):
        drawn, judged = batches.samples(step)
        assert [s.fake for s in (*drawn, *judged)] == [False] * 6 + [True] * 2
        assert all(s.explanation == text for s in judged if s.fake)


def test_what_cannot_be_loaded_is_told(
    datasets: tuple[ShardDataset, ShardDataset], tokenizer: Tokenizer, config: ModelConfig
) -> None:
    real, _ = datasets
    with pytest.raises(ValueError, match=r"no fake samples in .*real"):
        Selection([real], fake=True)
    with pytest.raises(ValueError, match="half of it is real"):
        MixedBatches(
            [real],
            generation_per_step=1,
            detection_per_step=3,
            tokenizer=tokenizer,
            config=config,
            seed=0,
        )


def test_packs_are_filled_by_tokens_that_were_counted_without_pictures(
    datasets: tuple[ShardDataset, ShardDataset], tokenizer: Tokenizer, config: ModelConfig
) -> None:
    """A caption that is dropped shortens its pack after it was planned: here none is."""
    budget = Budget(1, LIMITS, ((0, EVEN),))
    batches = build(datasets, tokenizer, config, budget=budget, text_dropout=0.0)
    plan = batches._composition
    assert isinstance(plan, TokenBudget)
    lengths = [batches.batch(step).sequence_length for step in range(20)]
    counted = [
        sum(plan._sizes[name](position) for name, position in plan.places(step))
        for step in range(20)
    ]
    assert lengths == counted
    # A pack ends early only where neither it nor the buffer had room for the next sample.
    assert all(150 - 60 < length <= 150 for length in lengths)
    assert len(set(lengths)) > 1


def test_a_budget_that_cannot_be_kept_is_told(
    datasets: tuple[ShardDataset, ShardDataset], tokenizer: Tokenizer, config: ModelConfig
) -> None:
    with pytest.raises(ValueError, match="2 packs cannot be shared by 3 workers"):
        build(datasets, tokenizer, config, budget=Budget(2, LIMITS, ((0, EVEN),)), world=3)
    short = replace(LIMITS, max_num_tokens_per_sample=20)
    batches = build(datasets, tokenizer, config, budget=Budget(1, short, ((0, EVEN),)))
    with pytest.raises(ValueError, match="tokens, more than the 20 of the budget"):
        batches.batch(0)
