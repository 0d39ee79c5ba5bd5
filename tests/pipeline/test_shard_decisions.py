"""What is left out, linked and moved between the passes of stage shard, and the codec gate."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
    drawn: tuple[str, ...] = ()
    """Sets whose images were drawn by hashing; the other sets are as published."""

    def items(self) -> list[SourceItem]:
        return [
            SourceItem(s.key, s.source_id, s.split, Path(str(place)), drawn=s.split in self.drawn)
            for place, s in enumerate(self.samples)
        ]

    def read(self, item: SourceItem) -> Sample:
        return self.samples[int(str(item.path))]


def sample(key: str, split: str, seed: int, source: str = "", *, fake: bool = False) -> Sample:
    family = "gan" if fake else "real"
    source_id = source or f"s/{key}"
    return Sample(key, picture(seed), source_id, split, "given", "a thing", fake, family)


HASHED = ("train", "val", "test")


def shard_samples(tmp_path: Path, *samples: Sample, drawn: tuple[str, ...] = (), **section: object):
    """Both passes over samples, which need one of each set; (counts, set -> samples, context)."""
    fillers = tuple(
        sample(f"fill-{s}", s, 900 + place) for place, s in enumerate(("train", "val", "test"))
    )
    ctx = context(tmp_path, **section)
    with without_ray():
        everyday = EverydayPhotographs(tile=32, crops=1)
        counts = write_shards(ctx, plan_sets(Given(samples + fillers, drawn=drawn), everyday))
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
    assert left_out(ctx) == {
        ("c", "train"): ("b", "test", "near-duplicate of a test image"),
        ("e", "train"): ("d", "train", "near-duplicate of a train image"),
    }


def left_out(ctx: Any) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Key and set of what is left out -> the same of what stays, and the reason."""
    lines = [json.loads(x) for x in (ctx.out / "duplicates.jsonl").read_text().splitlines()]
    return {
        (one["key"], one["set"]): (one["same_as"], one["same_as_set"], one["reason"])
        for one in lines
    }


def test_a_near_duplicate_is_left_out_where_the_parameter_says_so(tmp_path: Path) -> None:
    original = sample("a", "test", 1)
    brighter = np.clip(original.image.astype(int) + 9, 0, 255).astype(np.uint8)
    copy = replace(sample("b", "train", 1), image=brighter)
    _, kept, _ = shard_samples(tmp_path / "0", original, copy, near_duplicates=0)
    assert len(kept["train"]) == 1
    counts, kept, _ = shard_samples(tmp_path / "4", original, copy, near_duplicates=4)
    assert not kept["train"] and counts.left_out == 1


def test_a_fake_that_looks_like_a_real_image_joins_its_group(tmp_path: Path) -> None:
    counts, sets, ctx = shard_samples(
        tmp_path,
        sample("real", "test", 1, "r"),
        sample("copy", "train", 1, "f", fake=True),
        sample("sibling", "train", 2, "f", fake=True),
        sample("other", "train", 3, "o", fake=True),
        drawn=HASHED,
    )
    assert {s.key: s.source_id for s in sets["test"]} == dict.fromkeys(
        ("real", "copy", "sibling"), "r"
    )
    assert [s.split for s in sets["test"]] == ["test"] * 3
    assert [(s.key, s.source_id) for s in sets["train"]] == [("other", "o")]
    assert (counts.linked, counts.moved, counts.left_out, counts.kept_apart) == (1, 2, 0, 0)
    assert any("2 images moved to the set of their group" in line for line in ctx.said)


def test_a_published_test_set_neither_grows_nor_shrinks(tmp_path: Path) -> None:
    # Training, and val with it, is drawn here; the test set is the set's own.
    counts, sets, ctx = shard_samples(
        tmp_path,
        sample("real", "test", 1, "r"),
        sample("made", "test", 4, "m", fake=True),
        sample("val-copy", "val", 4, "v"),
        sample("copy", "train", 1, "f", fake=True),
        sample("again", "train", 1, "g", fake=True),
        sample("sibling", "train", 2, "f", fake=True),
        sample("other", "train", 3, "o", fake=True),
        drawn=("train", "val"),
    )
    assert {s.key: s.source_id for s in sets["test"]} == {"real": "r", "made": "m"}
    assert not sets["val"] and [s.key for s in sets["train"]] == ["other"]
    assert left_out(ctx) == {
        ("val-copy", "val"): ("made", "test", "near-duplicate of a test image"),
        ("copy", "train"): ("real", "test", "near-duplicate of a test image"),
        ("again", "train"): ("real", "test", "near-duplicate of a test image"),
        ("sibling", "train"): ("real", "test", "relative of a test image"),
    }
    assert (counts.left_out, counts.kept_apart, counts.moved) == (4, 4, 0)
    assert json.loads((ctx.out / "counts.json").read_text()) == asdict(counts)
    assert any("4 of those left out resemble" in line for line in ctx.said)


def test_a_published_val_set_takes_no_training_image(tmp_path: Path) -> None:
    given = (sample("real", "val", 1, "r"), sample("copy", "train", 1, "f", fake=True))
    _, sets, ctx = shard_samples(tmp_path / "published", *given)
    assert [s.key for s in sets["val"]] == ["real"] and not sets["train"]
    assert left_out(ctx)["copy", "train"][2] == "near-duplicate of a val image"
    _, sets, _ = shard_samples(tmp_path / "drawn", *given, drawn=HASHED)
    assert {s.key for s in sets["val"]} == {"real", "copy"}


def test_a_repeated_image_of_a_group_that_moves_names_the_one_that_moved(tmp_path: Path) -> None:
    _, sets, ctx = shard_samples(
        tmp_path,
        sample("real", "test", 1, "r"),
        sample("copy", "train", 1, "f", fake=True),
        sample("sibling", "train", 2, "f", fake=True),
        sample("twin", "train", 2, "t", fake=True),
        drawn=HASHED,
    )
    assert {s.key for s in sets["test"]} == {"real", "copy", "sibling"}
    assert left_out(ctx) == {
        ("twin", "train"): ("sibling", "test", "near-duplicate of a test image")
    }


def test_relatives_of_a_duplicate_follow_it(tmp_path: Path) -> None:
    # The training image is also a test image: it is left out, and what was made from it moves.
    samples = (
        sample("real", "test", 1, "r"),
        sample("again", "train", 1, "s"),
        sample("made", "train", 2, "s", fake=True),
    )
    _, sets, _ = shard_samples(tmp_path / "drawn", *samples, drawn=HASHED)
    assert {s.key: s.source_id for s in sets["test"]} == {"real": "r", "made": "r"}
    assert not sets["train"]
    # Where the test set is published, neither joins it.
    _, sets, ctx = shard_samples(tmp_path / "published", *samples)
    assert [s.key for s in sets["test"]] == ["real"] and not sets["train"]
    assert left_out(ctx)["made", "train"] == ("real", "test", "relative of a test image")


@pytest.mark.parametrize("near_duplicates", [0, 3])
def test_a_black_frame_does_not_bring_videos_together(tmp_path: Path, near_duplicates: int) -> None:
    black = np.zeros((40, 40, 3), np.uint8)
    frames = []
    for video in range(10):
        split = "test" if video < 2 else "train"
        first = sample(f"v{video}-0", split, 0, f"v{video}", fake=video % 5 == 4)
        rest = sample(f"v{video}-1", split, video + 1, f"v{video}", fake=video % 5 == 4)
        frames += [replace(first, image=black), rest]
    counts, sets, ctx = shard_samples(
        tmp_path, *frames, drawn=HASHED, near_duplicates=near_duplicates
    )
    assert {s.source_id for s in sets["test"]} == {"v0", "v1"}
    assert {s.source_id for s in sets["train"]} == {f"v{video}" for video in range(2, 10)}
    assert (counts.linked, counts.moved, counts.left_out) == (0, 0, 8)
    assert left_out(ctx)["v5-0", "train"] == ("v0-0", "test", "near-duplicate of a test image")
    assert not any("WARNING" in line for line in ctx.said)


def test_a_blank_picture_whose_substitute_is_left_out_names_it(tmp_path: Path) -> None:
    # The black frame of val goes with its source, which test has an image of.
    black = np.zeros((40, 40, 3), np.uint8)
    _, sets, ctx = shard_samples(
        tmp_path,
        sample("real", "test", 1, "r"),
        sample("copy", "val", 1, "v"),
        replace(sample("black", "val", 0, "v"), image=black),
        replace(sample("again", "train", 0, "t"), image=black),
        sample("other", "train", 2, "t"),
    )
    assert not sets["val"] and [s.key for s in sets["train"]] == ["other"]
    assert left_out(ctx)["black", "val"] == ("real", "test", "relative of a test image")
    assert left_out(ctx)["again", "train"] == ("black", "test", "near-duplicate of a test image")


def test_a_group_of_many_sources_is_told(tmp_path: Path) -> None:
    # Ten videos begin with one and the same title.
    frames = []
    for video in range(10):
        split = "test" if video < 2 else "train"
        frames += [sample(f"v{video}-{n}", split, n * (video + 1), f"v{video}") for n in range(2)]
    _, sets, ctx = shard_samples(tmp_path, *frames, drawn=HASHED)
    assert not sets["train"]
    (told,) = [line for line in ctx.said if "WARNING" in line]
    assert "10 of 21 sources" in told and "set test" in told


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
