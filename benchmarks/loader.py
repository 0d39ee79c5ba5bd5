"""Samples a second of the training stream against plain webdataset, on the same shards.

    python -m benchmarks.loader [--images 1500] [--rounds 5] [--json]

Shards of 256 px JPEG photographs, read once beforehand so that the disk plays no part. Both decode
to (256, 256, 3) uint8 with Pillow in one process: webdataset the shards one after another, the
stream every sample once in shuffled order, by its index and without augmentation, which webdataset
has none of.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.photographs import write_photographs
from benchmarks.report import machine, show
from benchmarks.timing import taking_turns
from unigendet.data.encoding import Encoding
from unigendet.data.image_files import read_image
from unigendet.data.shards import ShardDataset, ShardWriter
from unigendet.data.streams import SampleStream, Selection
from unigendet.data.transforms import centre_square
from unigendet.types import Sample

SIDE = 256
SET = "train"


def write_shards(folder: Path, count: int) -> None:
    """Shards of `count` photographs in `folder`."""
    import numpy as np

    photographs = folder / "photographs"
    photographs.mkdir()
    write_photographs(photographs, range(count))
    with ShardWriter(folder, SET, shard_bytes=16 * 2**20, encoding=Encoding("jpeg", 95)) as writer:
        for path in sorted(photographs.iterdir()):
            blank = Sample(
                path.stem, np.empty(0, np.uint8), path.stem, SET, "photographs", "", fake=False
            )
            image = np.asarray(centre_square(read_image(path), SIDE))
            writer.write(replace(blank, image=image))


def stream_reader(folder: Path) -> Callable[[], None]:
    """Reads every sample once, as training does."""
    stream = SampleStream(Selection([ShardDataset(folder, SET)], fake=False), seed=0, augment=False)

    def read() -> None:
        for position in range(len(stream.samples)):
            assert stream.at(position).image.shape == (SIDE, SIDE, 3)

    return read


def webdataset_reader(folder: Path) -> Callable[[], None]:
    """Reads every sample once, shard after shard."""
    import webdataset

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]

    def read() -> None:
        samples = webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")
        for sample in samples:
            assert sample["jpg"].shape == (SIDE, SIDE, 3)

    return read


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5, help="turns to take the median of")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, options.images)
        readers = {"stream": stream_reader(folder), "webdataset": webdataset_reader(folder)}
        took = taking_turns(readers, options.rounds, device)
    show(
        {
            **machine(device),
            "images": options.images,
            "stream samples/s": options.images / took["stream"],
            "webdataset samples/s": options.images / took["webdataset"],
            "ratio": took["webdataset"] / took["stream"],
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
