"""The stage shard's two passes outside of a stage, and folders of images to run them on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from pipeline import shard_assembly, shard_parts, sharding
from pipeline.params import load_params
from pipeline.shard_decisions import Counts
from pipeline.shard_parts import PlannedItem
from pipeline.sharding import plan_sets, write_shards
from unigendet.data.sources.base import Source
from unigendet.data.sources.everyday import EverydayPhotographs
from unigendet.data.sources.folder import ImageFolder

ROOT = Path(__file__).resolve().parents[2]


def picture(seed: int, side: int = 40) -> np.ndarray:
    """Large soft shapes: unlike any other seed's, and still itself when it is scaled."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


def save_pictures(folder: Path, count: int) -> None:
    """`count` images in train, val and test folders, in three formats."""
    for number in range(count):
        split = ("train", "train", "val", "test")[number % 4]
        suffix = ("png", "jpg", "webp")[number % 3]
        (folder / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(folder / split / f"{number:04d}.{suffix}")


@contextmanager
def without_ray() -> Iterator[None]:
    """Parts and shards are written here, the last first."""

    def each(task: Any, orders: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        return ((order, task(order)) for order in reversed(orders))

    with (
        patch.object(sharding, "each_on_ray", each),
        patch.object(shard_assembly, "each_on_ray", each),
    ):
        yield


def context(folder: Path, **section: Any) -> Any:
    """A stage context whose state and out lie in `folder`."""
    params = load_params(ROOT / "profiles" / "smoke.yaml")
    section = {"shard_mb": 0.02, **section}
    params = params.model_copy(update={"shard": params.shard.model_copy(update=section)})
    out, state = folder / "out", folder / "state"
    out.mkdir(parents=True, exist_ok=True)
    state.mkdir(exist_ok=True)
    said: list[str] = []
    return SimpleNamespace(
        params=params,
        out=out,
        state=state,
        seed=0,
        said=said,
        phases={},
        log=said.append,
        timed=lambda phase: nullcontext(),
        run=SimpleNamespace(log_metrics=lambda metrics, step: None),
    )


def plan_of(images: Path) -> list[PlannedItem]:
    return plan_with_everyday(ImageFolder(images, image_size=32))


def plan_with_everyday(source: Source) -> list[PlannedItem]:
    return plan_sets(source, EverydayPhotographs(tile=32, crops=1))


def shard_folder(images: Path, folder: Path, **section: Any) -> tuple[Counts, Any]:
    """Both passes over a folder of images; the counts and the context."""
    return shard_source(ImageFolder(images, image_size=32), folder, **section)


def shard_source(source: Source, folder: Path, **section: Any) -> tuple[Counts, Any]:
    """Both passes over any source; the counts and the context."""
    ctx = context(folder, **section)
    with without_ray():
        return write_shards(ctx, plan_with_everyday(source)), ctx


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of an out."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def main(images: Path, folder: Path, how: str) -> None:
    """Shard `images` into `folder` in small parts, `alone` or with `ray`, as a process to kill."""
    shard_parts.IMAGES_PER_PART = 4
    ctx = context(folder)
    shutil.rmtree(ctx.out)
    ctx.out.mkdir()
    if how == "alone":
        with without_ray():
            write_shards(ctx, plan_of(images))
    else:
        from pipeline.cluster import ray_session

        with ray_session(ctx.params, folder):
            write_shards(ctx, plan_of(images))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
