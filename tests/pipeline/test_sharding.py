"""Stage shard: sets without leaks, every image once, and every bad image named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.params import load_params
from pipeline.sharding import (
    SETS,
    ReadItem,
    open_source,
    plan_sets,
    read_in_parallel,
    write_sets,
)
from unigendet.data.manifest import read_index
from unigendet.data.shards import ShardDataset, encode
from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.blue_marble import BlueMarble
from unigendet.data.sources.everyday import EverydayPhotographs
from unigendet.data.sources.folder import ImageFolder
from unigendet.types import Sample

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Listed:
    """A source of given items."""

    listed: tuple[SourceItem, ...]
    domain: str = "listed"

    def items(self) -> list[SourceItem]:
        return list(self.listed)


def item(key: str, split: str, source_id: str) -> SourceItem:
    return SourceItem(key=key, source_id=source_id, split=split, path=Path("x.png"))


def read_item(key: str, set_name: str, seed: int) -> ReadItem:
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    sample = Sample(key, image, f"s/{key}", "train", "test", "a thing", False)
    return ReadItem(set_name, encode(sample), "")


def items_of(*rows: tuple[str, str, int]) -> Iterator[ReadItem]:
    return iter([read_item(*row) for row in rows])


SPLITS = tuple(item(split, split, f"s/{split}") for split in ("train", "val", "test"))
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


def test_a_picture_in_two_sets_stays_in_the_evaluation_set(tmp_path: Path) -> None:
    items = items_of(("a", "test", 1), ("b", "test", 2), ("c", "train", 2), ("d", "train", 3))
    assert write_sets(tmp_path, items, 10) == 1
    sets = read_index(tmp_path)
    assert [sample.key for sample in sets["test"].samples] == ["a", "b"]
    assert [sample.key for sample in sets["train"].samples] == ["d"]


def test_every_bad_image_is_named_and_its_set_is_not_written(tmp_path: Path) -> None:
    bad = [ReadItem("train", None, f"{name}.png: damaged") for name in ("p", "q")]
    items = iter([read_item("a", "test", 1), bad[0], read_item("b", "train", 2), bad[1]])
    with pytest.raises(ValueError, match=r"2 images cannot be used.*\n  p\.png.*\n  q\.png"):
        write_sets(tmp_path, items, 10)
    assert not list(tmp_path.glob("train*"))


def test_params_open_the_sources(tmp_path: Path) -> None:
    data = load_params(ROOT / "params.yaml").data
    assert open_source(data, seed=0) == BlueMarble(first_column=data.first_column)
    folder = data.model_copy(update={"source": "folder", "folder": str(tmp_path)})
    assert open_source(folder, seed=3) == ImageFolder(tmp_path, 64, 0.1, 0.1, 3)


@pytest.mark.slow
def test_ray_reads_every_image_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cluster import ray_session

    images, workspace = tmp_path / "images", tmp_path / "workspace"
    workspace.mkdir()
    for number in range(150):
        split = ("train", "val", "test")[number % 3]
        (images / split).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).save(images / split / f"{number:03d}.png")
    (images / "train" / "broken.png").write_bytes(b"no image")
    everyday = EverydayPhotographs(crops=1)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    params = load_params(ROOT / "params.yaml")
    with ray_session(params, workspace):
        plan = plan_sets(ImageFolder(images, image_size=9), everyday)
        read = list(read_in_parallel(plan))
    assert [item.set_name for item in read] == [planned.set_name for planned in plan]
    problems = [item.problem for item in read if item.sample is None]
    assert len(problems) == 1 and "broken.png" in problems[0]
    usable = [item for item in read if item.sample is not None]
    assert write_sets(tmp_path / "out", iter(usable), 20) == 0
    for name in SETS:
        chosen = [
            planned
            for planned in plan
            if planned.set_name == name and planned.item.path.name != "broken.png"
        ]
        samples = ShardDataset(tmp_path / "out", name)
        assert [sample.key for sample in samples] == [planned.item.key for planned in chosen]
        direct = chosen[0].source.read(chosen[0].item)
        assert np.array_equal(samples[0].image, direct.image)
        assert replace(samples[0], image=direct.image) == direct
