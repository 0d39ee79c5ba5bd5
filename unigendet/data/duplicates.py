"""Pictures met again: which to leave out, and which images belong together.

Within a class a picture is kept where it comes first and left out afterwards, so that a training
image that is also a test image stays in the test set only. Across the classes both stay: a fake
that looks like a real image was probably made from it, and takes its `source_id`.

A blank picture (`unigendet.data.hashing.is_blank`) is left out where it comes again, and tells
nothing else: videos that all begin in black are not one source.

"The same" is equal pixels, or perceptual hashes that differ in at most `distance` of 64 bits. Near
pairs are found by banding: hashes that differ in at most d bits agree in one of d + 1 pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from unigendet.data.hashing import BITS

MAX_DISTANCE = 7
"""Beyond it a piece has fewer than 8 bits, and too many pairs would have to be compared."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What became of N images."""

    same_as: Ints
    """(N,): the image that stays in place of this one, or -1 where this one stays."""
    linked: Ints
    """(L, 2): pairs of a fake and a real image that stay and look the same, not blank."""
    group: Ints
    """(N,): the first image of this one's group. A group is what may not be torn apart: images of
    one source, pictures that are the same and not blank, and what is linked to them."""


def find_duplicates(
    pixels: Sequence[str],
    hashes: NDArray[np.uint64],
    fake: NDArray[np.bool_],
    sources: Sequence[str],
    blank: NDArray[np.bool_],
    *,
    distance: int,
) -> Duplicates:
    """Compare all images; earlier ones have precedence.

    Args:
        pixels: digest of each image's pixels.
        hashes: perceptual hashes, (N,).
        fake: class of each image, (N,).
        sources: source_id of each image.
        blank: whether each image shows next to nothing, (N,).
        distance: bits that two hashes of one picture may differ in; 0 compares pixels only.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"the distance of near-duplicates lies in 0..{MAX_DISTANCE}: {distance}")
    same_as, linked = _exact(pixels, fake)
    if distance:
        links = _near(hashes, fake, same_as, distance)
        linked = np.unique(np.concatenate([linked, links]), axis=0)
    linked = linked[~blank[linked].any(axis=1)]
    again = np.flatnonzero(same_as >= 0)
    again = again[~(blank[again] | blank[same_as[again]])]
    first_of_source: dict[str, int] = {}
    by_source = [first_of_source.setdefault(name, place) for place, name in enumerate(sources)]
    pairs = np.concatenate(
        [
            np.column_stack([np.arange(len(sources)), by_source]).astype(np.int64),
            np.column_stack([again, same_as[again]]),
            linked,
        ]
    )
    return Duplicates(same_as, linked, _groups(len(sources), pairs))


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> Iterator[Ints]:
    """Blocks (n, 2) of pairs i < j whose hashes differ in at most `distance` bits; may repeat."""
    edges = np.linspace(0, BITS, distance + 2).round().astype(int)
    for low, high in pairwise(edges.tolist()):
        mask = np.uint64((1 << high - low) - 1)
        pieces = (hashes >> np.uint64(low)) & mask
        order = np.argsort(pieces, kind="stable")
        ranked = pieces[order]
        left = np.arange(len(order))
        for step in range(1, len(order)):
            # Pairs `step` apart in the sorted order, of those that still agree.
            left = left[left + step < len(order)]
            left = left[ranked[left] == ranked[left + step]]
            if not len(left):
                break
            one, other = order[left], order[left + step]
            close = np.bitwise_count(hashes[one] ^ hashes[other]) <= distance
            yield np.sort(np.column_stack([one[close], other[close]]), axis=1)


def _exact(pixels: Sequence[str], fake: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Equal pixels: the earlier image of each class, and pairs (fake, real) across the classes."""
    first: dict[tuple[str, bool], int] = {}
    same_as = np.full(len(pixels), -1, dtype=np.int64)
    for place, (digest, is_fake) in enumerate(zip(pixels, fake.tolist(), strict=True)):
        earlier = first.setdefault((digest, is_fake), place)
        if earlier != place:
            same_as[place] = earlier
    links = [
        (place, first[digest, False])
        for (digest, is_fake), place in first.items()
        if is_fake and (digest, False) in first
    ]
    return same_as, np.array(links, dtype=np.int64).reshape(-1, 2)


def _near(
    hashes: NDArray[np.uint64], fake: NDArray[np.bool_], same_as: Ints, distance: int
) -> Ints:
    """Near-duplicates among the images that stay: fills `same_as`, returns links.

    An image is left out where it is near one that stays, so that what is left out is always near
    its substitute: a chain of small steps from A to Z does not make Z a copy of A.
    """
    distinct, inverse = np.unique(hashes, return_inverse=True)
    near: dict[int, set[int]] = {}
    for block in near_pairs(distinct, distance):
        for one, other in block.tolist():
            near.setdefault(one, set()).add(other)
            near.setdefault(other, set()).add(one)
    stays: dict[tuple[int, bool], int] = {}
    for place, value in enumerate(inverse.tolist()):
        if same_as[place] >= 0:
            continue
        is_fake = bool(fake[place])
        found = [
            stays[other, is_fake]
            for other in (value, *near.get(value, ()))
            if (other, is_fake) in stays
        ]
        if found:
            same_as[place] = min(found)
        else:
            stays[value, is_fake] = place
    # What stood for an image may itself have been left out since.
    again = np.flatnonzero(same_as >= 0)
    beyond = same_as[same_as[again]]
    same_as[again] = np.where(beyond >= 0, beyond, same_as[again])
    return np.array(
        [
            (place, stays[other, False])
            for (value, is_fake), place in stays.items()
            if is_fake
            for other in (value, *near.get(value, ()))
            if (other, False) in stays
        ],
        dtype=np.int64,
    ).reshape(-1, 2)


def _groups(count: int, pairs: Ints) -> Ints:
    """(count,): the smallest member of each one's connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    first = np.full(labels.max(initial=-1) + 1, count, dtype=np.int64)
    np.minimum.at(first, labels, np.arange(count))
    return np.asarray(first[labels])
