"""Stage shard: sets without leaks, every image once, and every bad image accounted for."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import shard_parts
from pipeline.params import load_params
from pipeline.ray_data import _outcome
from pipeline.shard_parts import cut_into_parts, read_rows, write_part
from pipeline.sharding import SETS, open_source, plan_sets
from tests.pipeline.sharding_in_process import (
    contents,
    context,
    picture,
    plan_of,
    save_pictures,
    shard_folder,
)
from unigendet.data.manifest import read_index, read_originals
from unigendet.data.shards import ShardDataset
from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.blue_marble import BlueMarble
from unigendet.data.sources.folder import ImageFolder

ROOT = Path(__file__).parents[2]
EVERYDAY_COUNT = 8


@dataclass(frozen=True)
class Listed:
    """A source of given items."""

    listed: tuple[SourceItem, ...]
    domain: str = "listed"

    def items(self) -> list[SourceItem]:
        return list(self.listed)


def item(key: str, split: str, source_id: str) -> SourceItem:
    return SourceItem(key=key, source_id=source_id, split=split, path=Path("x.png"))


SPLITS = tuple(item(split, split, f"s/{split}") for split in ("train", "val", "test"))
EVERYDAY = Listed((item("e", "test", "everyday/e"),))


def test_the_plan_fills_evaluation_sets_first() -> None:
    plan = plan_sets(Listed(SPLITS), EVERYDAY)
    assert [planned.set_name for planned in plan] == list(SETS)


def test_a_source_in_two_sets_is_refused() -> None:
    with pytest.raises(ValueError, match="s/train is in the sets train and val"):
        plan_sets(Listed((*SPLITS, item("again", "val", "s/train"))), EVERYDAY)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no real images for val"):
        plan_sets(Listed((SPLITS[0], SPLITS[2])), EVERYDAY)


def test_params_open_the_sources(tmp_path: Path) -> None:
    data = load_params(ROOT / "params.yaml").data
    assert open_source(data, root=ROOT) == BlueMarble(first_column=data.first_column)
    folder = data.model_copy(update={"source": "folder", "folder": str(tmp_path)})
    wanted = ImageFolder(tmp_path, 64, 0.1, 0.1, 3, crops=4)
    folder = folder.model_copy(update={"crops": 4, "split_seed": 3})
    assert open_source(folder, root=ROOT) == wanted
    # Relative: from the repository, wherever the stage runs.
    relative = folder.model_copy(update={"folder": tmp_path.name})
    by_uri = folder.model_copy(update={"folder": tmp_path.as_uri()})
    assert open_source(by_uri, root=ROOT) == wanted
    assert open_source(relative, root=tmp_path.parent) == wanted


def test_every_image_is_written_once_as_the_source_reads_it(tmp_path: Path) -> None:
    save_pictures(tmp_path / "images", 40)
    counts, ctx = shard_folder(tmp_path / "images", tmp_path)
    assert (counts.planned, counts.written, counts.left_out) == (48, 48, 0)
    assert "captions: 40 from a file name" in ctx.said
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
    assert reasons["text.jpg"].startswith("not an image, or of a kind that is not read")
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
    with pytest.raises(ValueError, match=r"no real images for val .*unreadable"):
        shard_folder(images, tmp_path, quarantine_share=0.5)


def _full_disk(order: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(order))


def test_errors_of_tasks_reach_people_as_they_were() -> None:
    outcome = pickle.loads(pickle.dumps(_outcome(_full_disk, "a.tar")))
    assert isinstance(outcome, OSError) and outcome.errno == errno.ENOSPC
    assert "_full_disk" in outcome.__notes__[0]
    with pytest.raises(KeyError):
        _outcome({}.__getitem__, 1)
