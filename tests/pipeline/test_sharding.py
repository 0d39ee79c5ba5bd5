"""Stage shard: sets without leaks, every image once, and every bad image accounted for."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import shard_parts
from pipeline.codec_gate import audit_sets
from pipeline.params import load_params
from pipeline.shard_parts import PlannedItem, cut_into_parts, read_rows, write_part
from pipeline.sharding import SETS, open_source, plan_sets, write_shards
from tests.pipeline.sharding_in_process import (
    contents,
    context,
    picture,
    plan_of,
    save_pictures,
    shard_folder,
    without_ray,
)
from unigendet.data.audit import original_items
from unigendet.data.manifest import read_index, read_originals
from unigendet.data.shards import ShardDataset
from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.blue_marble import BlueMarble
from unigendet.data.sources.everyday import EverydayPhotographs
from unigendet.data.sources.folder import ImageFolder
from unigendet.types import Sample

ROOT = Path(__file__).parents[2]
EVERYDAY_COUNT = 8


@dataclass(frozen=True)
class Listed:
    """A source of given items."""

    listed: tuple[SourceItem, ...]
    domain: str = "listed"

    def items(self) -> list[SourceItem]:
        return list(self.listed)


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


def item(key: str, split: str, source_id: str) -> SourceItem:
    return SourceItem(key=key, source_id=source_id, split=split, path=Path("x.png"))


def sample(key: str, split: str, seed: int, source: str = "", *, fake: bool = False) -> Sample:
    family = "gan" if fake else "real"
    source_id = source or f"s/{key}"
    return Sample(key, picture(seed), source_id, split, "given", "a thing", fake, family)


def shard_samples(tmp_path: Path, *samples: Sample, **section: object):
    """Both passes over samples, which need one of each set; (counts, set -> samples, context)."""
    fillers = tuple(sample(f"fill-{s}", s, 900 + place) for place, s in enumerate(SPLITS_NAMES))
    ctx = context(tmp_path, **section)
    with without_ray():
        everyday = EverydayPhotographs(tile=32, crops=1)
        counts = write_shards(ctx, plan_sets(Given(samples + fillers), everyday))
    sets = {name: [s for s in ShardDataset(ctx.out, name)] for name in SETS}
    own = {name: [s for s in found if "fill" not in s.key] for name, found in sets.items()}
    return counts, own, ctx


SPLITS_NAMES = ("train", "val", "test")
SPLITS = tuple(item(split, split, f"s/{split}") for split in SPLITS_NAMES)
EVERYDAY = Listed((item("e", "test", "everyday/e"),))


def test_the_plan_fills_evaluation_sets_first() -> None:
    plan = plan_sets(Listed(SPLITS), EVERYDAY)
    assert [planned.set_name for planned in plan] == list(SETS)


def test_a_source_in_two_sets_is_refused() -> None:
    with pytest.raises(ValueError, match="s/train is in the sets train and val"):
        plan_sets(Listed((*SPLITS, item("again", "val", "s/train"))), EVERYDAY)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no images for val"):
        plan_sets(Listed((SPLITS[0], SPLITS[2])), EVERYDAY)


def test_params_open_the_sources(tmp_path: Path) -> None:
    data = load_params(ROOT / "params.yaml").data
    assert open_source(data, seed=0) == BlueMarble(first_column=data.first_column)
    folder = data.model_copy(update={"source": "folder", "folder": str(tmp_path)})
    assert open_source(folder, seed=3) == ImageFolder(tmp_path, 64, 0.1, 0.1, 3)


def test_every_image_is_written_once_as_the_source_reads_it(tmp_path: Path) -> None:
    save_pictures(tmp_path / "images", 40)
    counts, ctx = shard_folder(tmp_path / "images", tmp_path)
    assert (counts.planned, counts.written, counts.left_out) == (48, 48, 0)
    plan = plan_of(tmp_path / "images")
    index = read_index(ctx.out)
    assert len(index["train"].shards) > 2
    for name in SETS:
        chosen = [planned for planned in plan if planned.set_name == name]
        samples = ShardDataset(ctx.out, name)
        assert [s.key for s in samples] == [planned.item.key for planned in chosen]
        for found, planned in zip(samples, chosen, strict=True):
            direct = planned.source.read(planned.item)
            assert np.array_equal(found.image, direct.image)
            assert replace(found, image=direct.image) == direct
        originals = read_originals(ctx.out, name)
        for facts, planned in zip(originals, chosen, strict=True):
            assert facts is not None and facts.bytes == planned.item.path.stat().st_size
    assert {facts.format for facts in read_originals(ctx.out, "train")} == {"PNG", "JPEG", "WEBP"}


def test_the_size_of_a_shard_changes_no_sample(tmp_path: Path) -> None:
    save_pictures(tmp_path / "images", 20)
    _, small = shard_folder(tmp_path / "images", tmp_path / "a")
    _, large = shard_folder(tmp_path / "images", tmp_path / "b", shard_mb=9)
    few, many = (ShardDataset(ctx.out, "train") for ctx in (large, small))
    assert len(few.manifest.shards) == 1 < len(many.manifest.shards)
    for one, other in zip(few, many, strict=True):
        assert np.array_equal(one.image, other.image) and one.key == other.key


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


def test_bad_images_are_in_quarantine_up_to_a_budget(tmp_path: Path) -> None:
    images = tmp_path / "images"
    save_pictures(images, 40)
    (images / "train" / "zero.png").write_bytes(b"")
    (images / "train" / "text.jpg").write_bytes(b"not an image")
    (images / "train" / "text2.jpg").write_bytes(b"not an image")
    counts, ctx = shard_folder(images, tmp_path / "wide", quarantine_share=0.1)
    assert (counts.planned, counts.quarantined, counts.written) == (51, 3, 48)
    lines = [json.loads(x) for x in (ctx.out / "quarantine.jsonl").read_text().splitlines()]
    reasons = {Path(line["path"]).name: line["reason"] for line in lines}
    assert reasons["zero.png"] == "the file is empty"
    assert reasons["text.jpg"] == "not an image, or of a kind that cannot be read"
    with pytest.raises(ValueError, match=r"3 of 51 images cannot be used.*0\.01.*\n  2 x not an"):
        shard_folder(images, tmp_path / "narrow", quarantine_share=0.01)
    listed = tmp_path / "narrow" / "state" / "quarantine.jsonl"
    assert len(listed.read_text().splitlines()) == 3
    assert not list((tmp_path / "narrow" / "out").iterdir())


def test_finished_parts_are_used_again_and_changed_files_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_parts, "IMAGES_PER_PART", 8)
    images, read = tmp_path / "images", []
    save_pictures(images, 24)
    _, ctx = shard_folder(images, tmp_path / "one")
    whole = contents(ctx.out)

    def again() -> None:
        shutil.rmtree(ctx.out)
        read.clear()
        shard_folder(images, tmp_path / "one")

    original = ImageFolder.read
    monkeypatch.setattr(
        ImageFolder, "read", lambda self, item: read.append(item.key) or original(self, item)
    )
    again()
    assert not read and contents(ctx.out) == whole
    damaged = max((ctx.state / "parts").glob("*.images"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (ctx.state / "parts" / ".x.partial").write_bytes(b"left by a killed process")
    again()
    assert 0 < len(read) <= 8 and contents(ctx.out) == whole
    assert not list((ctx.state / "parts").glob(".*"))
    Image.fromarray(picture(99)).save(images / "train" / "0000.png")
    again()
    assert 0 < len(read) <= 8 and contents(ctx.out) != whole


def test_parts_do_not_depend_on_who_writes_them(tmp_path: Path) -> None:
    save_pictures(tmp_path / "images", 12)
    plan = plan_of(tmp_path / "images")
    encoding = context(tmp_path).params.shard.encoding()
    orders = [cut_into_parts(plan, tmp_path / name, encoding) for name in ("a", "b")]
    for order in (*orders[0], *reversed(orders[1])):
        write_part(order)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert read_rows(orders[0]).column("key").to_pylist() == [one.item.key for one in plan]


def test_a_set_that_loses_all_its_images_is_told(tmp_path: Path) -> None:
    images = tmp_path / "images"
    save_pictures(images, 12)
    for path in (images / "val").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="set val is empty"):
        shard_folder(images, tmp_path, quarantine_share=0.5)


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
