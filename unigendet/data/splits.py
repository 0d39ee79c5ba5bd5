"""Which pixels of a map, or which files of a folder, belong to train, val and test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Band:
    """The columns `left <= x < right` of a map, in pixels, which one split owns."""

    left: int
    right: int
    split: str


def interleaved_bands(
    width: int,
    *,
    train_width: int,
    eval_width: int,
    gap: int,
    eval_order: tuple[str, ...] = ("test", "val", "test"),
) -> list[Band]:
    """Cut `width` columns into train bands with narrow val and test bands between them.

    Neighbouring bands are kept apart by `gap` columns that nobody reads, and so are the two ends
    of the map, which meet on the globe. Many narrow bands give every split a share of every
    climate, which two or three wide ones would not. All sizes in pixels. Raises ValueError where
    not one train and one of each evaluation band fit.
    """
    if min(train_width, eval_width) < 1 or gap < 0:
        raise ValueError(
            f"bands need positive widths and a gap of at least 0, "
            f"got train_width={train_width}, eval_width={eval_width}, gap={gap}"
        )
    bands: list[Band] = []
    left, turn = 0, 0
    while True:
        split = "train" if turn % 2 == 0 else eval_order[turn // 2 % len(eval_order)]
        right = left + (train_width if split == "train" else eval_width)
        if right + gap > width:
            break
        bands.append(Band(left, right, split))
        left, turn = right + gap, turn + 1
    missing = {"train", *eval_order} - {band.split for band in bands}
    if missing:
        raise ValueError(
            f"a map {width} pixels wide has no room for a {' or '.join(sorted(missing))} band: "
            f"make train_width ({train_width}), eval_width ({eval_width}) or gap ({gap}) smaller"
        )
    return bands


def hashed_split(source_id: str, shares: Mapping[str, float], *, seed: int) -> str:
    """The split of `source_id`: a fixed function of its name, so that adding files moves no other.

    `shares` maps each split to its share in [0, 1]; they sum to 1.
    """
    if abs(sum(shares.values()) - 1.0) > 1e-6 or min(shares.values()) < 0:
        raise ValueError(f"the splits' shares must be at least 0 and sum to 1, got {dict(shares)}")
    # A text that is not UTF-8 has a split as well: it is the first pass that tells of it.
    digest = hashlib.sha256(f"{seed}:{source_id}".encode(errors="surrogatepass")).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    upper, chosen = 0.0, ""
    for split, share in shares.items():
        upper += share
        chosen = split if share > 0 else chosen
        if point < upper:
            break
    return chosen
