"""300 damaged inputs: none crashes the stage, and each is read right or is in the quarantine."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.sharding_in_process import picture, save_pictures, shard_folder
from unigendet.data.manifest import read_index
from unigendet.data.shards import ShardDataset
from unigendet.data.transforms import centre_square

DAMAGED = 300
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
WELL = 40


def encoded(seed: int, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, 64)).save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(kind: int) -> bytes:
    """A small file whose header claims more pixels than anything should have, or none."""
    width, height = ((60_000, 60_000), (0, 10), (2**31 - 1, 1), (12_000, 12_000))[kind % 4]
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def broken_exif(rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    exif[0x010F] = "maker"
    block = bytearray(exif.tobytes())
    for place in rng.integers(6, len(block), 5):
        block[place] = int(rng.integers(256))
    return encoded(int(rng.integers(1000)), "JPEG", exif=bytes(block))


def damage(number: int, rng: np.random.Generator) -> tuple[str, bytes]:
    """File ending and contents of one damaged input."""
    kind = FORMATS[number // 6 % len(FORMATS)]
    whole = encoded(1000 + number, kind)
    suffix = kind.lower().replace("tiff", "tif").replace("gif", "png")
    match number % 6:
        case 0:
            return suffix, whole[: int(rng.integers(0, len(whole)))]
        case 1:
            flipped = bytearray(whole)
            for place in rng.integers(0, len(whole), int(rng.integers(1, 30))):
                flipped[place] ^= int(rng.integers(1, 256))
            return suffix, bytes(flipped)
        case 2:
            hole = bytearray(whole)
            start = int(rng.integers(0, len(whole)))
            hole[start : start + 200] = bytes(min(200, len(whole) - start))
            return suffix, b"" if number % 12 == 2 else bytes(hole)
        case 3:
            wrong = {"png": "jpg", "jpeg": "png", "webp": "bmp"}.get(suffix, "webp")
            return wrong, whole if number % 12 == 3 else rng.bytes(500)
        case 4:
            return "png", bomb(number // 6)
        case _:
            return "jpg", broken_exif(rng)


LINES = (
    b'{"file": "train/0000.png", "caption": ',
    b"\x00\xff\xfe",
    b'{"file": 7, "caption": "x"}',
    b'["train/0000.png"]',
    b'{"file": "train/nowhere.png", "caption": "x"}',
    b'{"file": "train/0001.jpg", "caption": "caf\xe9"}',
    b'{"file": "train/0004.jpg", "caption": "\\ud834 alone", "split": "train"}',
    b'{"file": "test/0003.png", "split": "dev"}',
    b"{" * 3000,
)
"""Six that belong to no image, and three that spoil one."""


def read_alone(path: Path, side: int) -> np.ndarray:
    """What Pillow itself makes of a file that has no rotation."""
    with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
        return np.asarray(centre_square(image.convert("RGB"), side))


@pytest.mark.parametrize("table", ["jsonl", "csv"])
def test_counts_add_up(tmp_path: Path, table: str) -> None:
    images = tmp_path / "images"
    save_pictures(images, WELL)
    rng = np.random.default_rng(7)
    paths = []
    for number in range(DAMAGED):
        suffix, data = damage(number, rng)
        path = images / ("train", "val", "test")[number % 3] / f"damaged-{number:03d}.{suffix}"
        path.write_bytes(data)
        paths.append(path)
    bad_lines: tuple[bytes, ...] = LINES
    if table == "csv":
        bad_lines = (b'x,"open', b"train/nowhere.png,x", b"train/0001.jpg,caf\xe9", b",none")
        table_lines = [b"file,caption", b"train/0000.png,good", *bad_lines]
    else:
        table_lines = [b'{"file": "train/0000.png", "caption": "good"}', *bad_lines]
    (images / f"captions.{table}").write_bytes(b"\n".join(table_lines))

    counts, ctx = shard_folder(images, tmp_path, quarantine_share=1.0, near_duplicates=0)

    quarantine = [json.loads(x) for x in (ctx.out / "quarantine.jsonl").read_text().splitlines()]
    left_out = (ctx.out / "duplicates.jsonl").read_text().splitlines()
    written = {
        name: [entry.key for entry in index.samples] for name, index in read_index(ctx.out).items()
    }
    assert counts.written == sum(map(len, written.values()))
    assert (counts.quarantined, counts.left_out) == (len(quarantine), len(left_out))
    assert counts.planned == counts.written + counts.left_out + counts.quarantined
    assert counts.not_downloaded == 0
    assert all(line["reason"] and "0x" not in line["reason"] for line in quarantine)
    # Every file is in exactly one of the places, and every line that belongs to no image as well.
    files = sum(path.is_file() and path.suffix != f".{table}" for path in images.rglob("*"))
    of_lines = sum(Path(line["path"]).name == f"captions.{table}" for line in quarantine)
    assert counts.planned == files + of_lines + 8
    assert of_lines == {"jsonl": 6, "csv": 3}[table]
    rejected = {line["path"] for line in quarantine}
    assert sum(str(path) in rejected for path in paths) > DAMAGED / 3
    # What was not rejected is what Pillow reads.
    samples = {s.key: s for name in written for s in ShardDataset(ctx.out, name)}
    compared = 0
    for path in paths:
        found = [s for key, s in samples.items() if path.stem in key]
        if found and path.suffix != ".jpg":
            assert np.array_equal(found[0].image, read_alone(path, 32)), path
            compared += 1
    assert compared > 20
