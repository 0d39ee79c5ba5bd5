"""The default source: honest tiles, and no pixel of a training tile in any other split."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from unigendet.data.captions import KINDS, measure, water_mask
from unigendet.data.sources.base import SourceItem, read_all
from unigendet.data.sources.blue_marble import BlueMarble, load_map, map_path
from unigendet.data.splits import hashed_split, interleaved_bands

SOURCE = BlueMarble()
FILTER_REACH = 6
"""Columns of the published map that a Lanczos filter mixes at most around one shrunken pixel."""


@pytest.fixture(scope="module")
def items() -> list[SourceItem]:
    return SOURCE.items()


def columns(items: list[SourceItem], split: str) -> np.ndarray:
    """Which columns of the published, unshrunken map reach the pixels of a split."""
    full = load_map(map_path(), 1.0).shape[1]
    used = np.zeros(full, dtype=bool)
    for item in items:
        if item.split == split:
            left, _, side = item.box
            first = int(left * SOURCE.shrink) - FILTER_REACH // 2
            last = int((left + side) * SOURCE.shrink) + 1 + FILTER_REACH // 2
            assert first >= 0 and last <= full
            used[first:last] = True
    return used


def test_no_source_pixel_reaches_two_splits(items: list[SourceItem]) -> None:
    use = {split: columns(items, split) for split in ("train", "val", "test")}
    assert all(used.any() for used in use.values())
    assert not (use["train"] & use["test"]).any()
    assert not (use["train"] & use["val"]).any()
    assert not (use["val"] & use["test"]).any()


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_tiles_are_disjoint(items: list[SourceItem], split: str) -> None:
    covered = np.zeros(load_map(map_path(), SOURCE.shrink).shape[:2], dtype=np.int64)
    chosen = [item for item in items if item.split == split]
    for item in chosen:
        left, top, side = item.box
        covered[top : top + side, left : left + side] += 1
    assert covered.max() == 1
    assert len({item.source_id for item in chosen}) == len(chosen)


def test_training_tiles_share_a_source_only_where_they_overlap(items: list[SourceItem]) -> None:
    cells = defaultdict(list)
    for item in items:
        if item.split == "train":
            cells[item.source_id].append(item.box)
    for boxes in cells.values():
        for left, top, side in boxes:
            assert abs(left - boxes[0][0]) < side and abs(top - boxes[0][1]) < side


def test_there_are_enough_tiles_of_every_split(items: list[SourceItem]) -> None:
    count = Counter(item.split for item in items)
    assert count["train"] > 1200 and count["val"] >= 50 and count["test"] >= 100
    assert len({item.key for item in items}) == len(items)


def test_tiles_are_land_with_texture_and_captions_match_their_colours(
    items: list[SourceItem],
) -> None:
    samples = [SOURCE.read(item) for item in items if item.split == "test"]
    seen = Counter()
    for sample in samples:
        assert sample.image.shape == (64, 64, 3) and sample.image.dtype == np.uint8
        assert water_mask(sample.image).mean() <= SOURCE.max_water + 1e-9
        assert sample.image.std() > 1.0
        assert not sample.fake and sample.generator == "real"
        mean = sample.image.reshape(-1, 3).mean(0)
        ground = sample.caption.removeprefix("a satellite image of ").split(",")[0]
        if ground in ("desert", "smooth desert", "pale desert", "red desert"):
            seen["desert"] += 1
            assert mean[0] > mean[1] > mean[2] and mean.mean() > 80
        if ground in ("forest", "smooth forest"):
            seen["forest"] += 1
            assert mean[1] >= mean[0] and mean.mean() < 60
        if "snow" in sample.caption:
            assert measure(sample.image).shares[KINDS.index("snow")] > 0.03
    assert min(seen["desert"], seen["forest"]) >= 8


def test_train_captions_are_diverse_and_short(items: list[SourceItem]) -> None:
    captions = [SOURCE.read(item).caption for item in items if item.split == "train"][::5]
    assert len(set(captions)) > 50
    assert max(len(caption.split()) for caption in captions) <= 20
    for word in ("desert", "forest", "snow", "grassland"):
        assert sum(word in caption for caption in captions) > 0.1 * len(captions)


@pytest.mark.parametrize(
    ("colour", "word"),
    [
        ((25, 38, 11), "forest"),
        ((60, 70, 32), "green grassland"),
        ((160, 138, 104), "desert"),
        ((205, 178, 138), "pale desert"),
        ((130, 80, 45), "red desert"),
        ((100, 88, 57), "dry land"),
        ((58, 48, 28), "brown scrubland"),
        ((240, 242, 243), "snow"),
        ((28, 65, 115), "water"),
    ],
)
def test_a_plain_colour_has_a_name(colour: tuple[int, int, int], word: str) -> None:
    image = np.full((8, 8, 3), colour, dtype=np.uint8)
    assert measure(image).shares[KINDS.index(word)] == 1.0


def test_bands_never_touch_and_wrap_around_the_globe_with_a_gap() -> None:
    bands = interleaved_bands(4000, train_width=130, eval_width=64, gap=10)
    assert all(right.left - left.right == 10 for left, right in pairwise(bands))
    assert bands[0].left + 4000 - bands[-1].right >= 10
    assert {band.split for band in bands} == {"train", "val", "test"}


def test_another_first_column_draws_other_test_tiles_of_the_same_world() -> None:
    moved = BlueMarble(first_column=108)
    width = load_map(map_path(), SOURCE.shrink).shape[1]

    def places(source: BlueMarble, split: str) -> set[int]:
        lefts = (item.box[0] for item in source.items() if item.split == split and item.box)
        return {(left + source.first_column + x) % width for left in lefts for x in range(64)}

    assert not places(moved, "test") & (places(SOURCE, "test") | places(SOURCE, "val"))
    item = next(item for item in moved.items() if item.split == "test")
    assert item.box is not None
    left, top, side = item.box
    there = load_map(map_path(), SOURCE.shrink)[top : top + side, left + 108 : left + 108 + side]
    assert np.array_equal(moved.read(item).image, there)


def test_bad_sizes_are_told() -> None:
    with pytest.raises(ValueError, match="no room for a val"):
        interleaved_bands(400, train_width=130, eval_width=64, gap=10)
    with pytest.raises(ValueError, match="gap must be at least 8"):
        BlueMarble(gap=2)
    with pytest.raises(ValueError, match="train_stride"):
        BlueMarble(train_stride=65)
    with pytest.raises(ValueError, match="first_column"):
        BlueMarble(first_column=-1)
    with pytest.raises(ValueError, match="shrink"):
        BlueMarble(shrink=0.5)


def test_hashed_split_is_stable_and_follows_its_shares() -> None:
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    names = [f"image-{i}" for i in range(4000)]
    chosen = [hashed_split(name, shares, seed=3) for name in names]
    count = Counter(chosen)
    assert abs(count["train"] / 4000 - 0.8) < 0.03 and abs(count["val"] / 4000 - 0.1) < 0.02
    assert chosen == [hashed_split(name, shares, seed=3) for name in names]
    assert set(hashed_split(n, {"train": 1.0, "val": 0.0}, seed=3) for n in names) == {"train"}


def test_reading_all_keeps_the_order() -> None:
    small = BlueMarble(shrink=1.6, train_stride=64, train_width=128)
    items = small.items()
    assert [sample.key for sample in read_all(small)] == [item.key for item in items]
