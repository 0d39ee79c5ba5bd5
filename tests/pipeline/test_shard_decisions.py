"""What is left out, linked and moved between the passes of stage shard, and the codec gate."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.codec_gate import audit_sets
from pipeline.shard_parts import PlannedItem
from pipeline.sharding import SETS, plan_sets, write_shards
from tests.pipeline.sharding_in_process import context, picture, without_ray
from unigendet.data.audit import original_items
from unigendet.data.shards import ShardDataset
from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.everyday import EverydayPhotographs
from unigendet.types import Sample


@dataclass(frozen=True)
class Given:
    """A source of given samples; an item's path says which."""

    samples: tuple[Sample, ...]
    domain: str = "given"

    def items(self) -> list[SourceItem]:
        return [
            SourceItem(s.key, s.source_id, s.split, Path(str(place)))
            for place, s in enumerate(self.samples)
        ]

    def read(self, item: SourceItem) -> Sample:
        return self.samples[int(str(item.path))]


def sample(key: str, split: str, seed: int, source: str = "", *, fake: bool = False) -> Sample:
    family = "gan" if fake else "real"
    source_id = source or f"s/{key}"
    return Sample(key, picture(seed), source_id, split, "given", "a thing", fake, family)


def shard_samples(tmp_path: Path, *samples: Sample, **section: object):
    """Both passes over samples, which need one of each set; (counts, set -> samples, context)."""
    fillers = tuple(
        sample(f"fill-{s}", s, 900 + place) for place, s in enumerate(("train", "val", "test"))
    )
    ctx = context(tmp_path, **section)
    with without_ray():
        everyday = EverydayPhotographs(tile=32, crops=1)
        counts = write_shards(ctx, plan_sets(Given(samples + fillers), everyday))
    sets = {name: [s for s in ShardDataset(ctx.out, name)] for name in SETS}
    own = {name: [s for s in found if "fill" not in s.key] for name, found in sets.items()}
    return counts, own, ctx


def test_a_picture_in_two_sets_stays_in_the_evaluation_set(tmp_path: Path) -> None:
    counts, sets, ctx = shard_samples(
        tmp_path,
        sample("a", "test", 1),
        sample("b", "test", 2),
        sample("c", "train", 2),
        sample("d", "train", 3),
        sample("e", "train", 3),
        near_duplicates=0,
    )
    assert [s.key for s in sets["test"]] == ["a", "b"]
    assert [s.key for s in sets["train"]] == ["d"]
    assert counts.left_out == 2
    lines = [json.loads(x) for x in (ctx.out / "duplicates.jsonl").read_text().splitlines()]
    assert lines == [
        {"key": "c", "set": "train", "same_as": "b", "same_as_set": "test"},
        {"key": "e", "set": "train", "same_as": "d", "same_as_set": "train"},
    ]


def test_a_near_duplicate_is_left_out_where_the_parameter_says_so(tmp_path: Path) -> None:
    original = sample("a", "test", 1)
    brighter = np.clip(original.image.astype(int) + 9, 0, 255).astype(np.uint8)
    copy = replace(sample("b", "train", 1), image=brighter)
    _, kept, _ = shard_samples(tmp_path / "0", original, copy, near_duplicates=0)
    assert len(kept["train"]) == 1
    counts, kept, _ = shard_samples(tmp_path / "4", original, copy, near_duplicates=4)
    assert not kept["train"] and counts.left_out == 1


def test_a_fake_that_looks_like_a_real_image_joins_its_group(tmp_path: Path) -> None:
    counts, sets, _ = shard_samples(
        tmp_path,
        sample("real", "test", 1, "r"),
        sample("copy", "train", 1, "f", fake=True),
        sample("sibling", "train", 2, "f", fake=True),
        sample("other", "train", 3, "o", fake=True),
    )
    assert {s.key: s.source_id for s in sets["test"]} == dict.fromkeys(
        ("real", "copy", "sibling"), "r"
    )
    assert [s.split for s in sets["test"]] == ["test"] * 3
    assert [(s.key, s.source_id) for s in sets["train"]] == [("other", "o")]
    assert (counts.linked, counts.moved, counts.left_out) == (1, 2, 0)


def test_relatives_of_a_duplicate_follow_it(tmp_path: Path) -> None:
    # The training image is also a test image: it is left out, and what was made from it moves.
    _, sets, _ = shard_samples(
        tmp_path,
        sample("real", "test", 1, "r"),
        sample("again", "train", 1, "s"),
        sample("made", "train", 2, "s", fake=True),
    )
    assert {s.key: s.source_id for s in sets["test"]} == {"real": "r", "made": "r"}
    assert not sets["train"]


def test_two_images_of_one_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set train: 2 images have the key 'a'"):
        shard_samples(tmp_path, sample("a", "train", 1, "s"), sample("a", "train", 2, "t"))


def test_labelled_files_that_give_the_class_away_stop_the_stage(tmp_path: Path) -> None:
    rows = []
    for number in range(40):
        fake = number % 2 == 1
        path = tmp_path / f"{number}.{'png' if fake else 'jpg'}"
        Image.fromarray(picture(number)).save(path)
        rows.append((path, replace(sample(f"k{number}", "train", number, fake=fake))))

    @dataclass(frozen=True)
    class Files(Given):
        def items(self) -> list[SourceItem]:
            return [SourceItem(s.key, s.source_id, s.split, path) for path, s in rows]

        def read(self, item: SourceItem) -> Sample:
            return next(s for path, s in rows if path == item.path)

    ctx = context(tmp_path)
    others = [
        PlannedItem(Given((sample(name, "test", 90 + place),)), found, name)
        for place, name in enumerate(SETS[:3])
        for found in [SourceItem(name, f"s/{name}", "test", Path("0"))]
    ]
    plan = [*others, *(PlannedItem(Files(()), i, "train") for i in Files(()).items())]
    with without_ray():
        write_shards(ctx, plan)
    sets = {name: original_items(ShardDataset(ctx.out, name)) for name in SETS}
    with pytest.raises(ValueError, match=r"tell real from fake in train \(AUROC 1\.00.*JPEG, PNG"):
        audit_sets(ctx, sets, allowed=False, remedy="Do this")
    audit_sets(ctx, sets, allowed=True, remedy="Do this")
    written = json.loads((ctx.out / "audit.json").read_text())
    assert list(written) == ["train"] and written["train"]["shortcut"]
