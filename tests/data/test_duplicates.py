"""Duplicates: what stays, what is linked, and that banding finds what comparing all pairs finds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from unigendet.data.duplicates import find_duplicates, near_pairs
from unigendet.data.hashing import is_blank, perceptual_hash, pixel_sha256
from unigendet.data.sources.everyday import PHOTOGRAPHS, _locate

H = np.uint64


def found(hashes: list[int], fake: list[bool] | None = None, *, distance: int = 2, **more):
    count = len(hashes)
    return find_duplicates(
        more.get("pixels", [f"p{place}" for place in range(count)]),
        np.array(hashes, dtype=H),
        np.array(fake or [False] * count),
        more.get("sources", [f"s{place}" for place in range(count)]),
        np.array(more.get("blank", [False] * count)),
        distance=distance,
    )


@pytest.mark.parametrize("distance", [1, 3, 7])
def test_banding_finds_every_near_pair(distance: int) -> None:
    rng = np.random.default_rng(distance)
    centres = rng.integers(0, 2**64, 40, dtype=H)
    hashes = []
    for centre in centres.tolist():
        for flips in range(9):
            value = centre
            for bit in rng.choice(64, flips, replace=False).tolist():
                value ^= 1 << bit
            hashes.append(value)
    array = np.array(hashes, dtype=H)
    apart = np.bitwise_count(array[:, None] ^ array[None, :])
    every = {(i, j) for i, j in np.argwhere(apart <= distance).tolist() if i < j}
    banded = {tuple(pair) for block in near_pairs(array, distance) for pair in block.tolist()}
    assert banded == every and len(every) > 40


def test_the_first_of_equal_pictures_stays() -> None:
    result = found([0, 99, 0], pixels=["a", "b", "a"], distance=0)
    assert result.same_as.tolist() == [-1, -1, 0]
    assert result.group.tolist() == [0, 1, 0]
    assert not len(result.linked)


def test_distance_zero_ignores_looks() -> None:
    assert found([5, 5], distance=0).same_as.tolist() == [-1, -1]
    assert found([5, 5], distance=1).same_as.tolist() == [-1, 0]


def test_a_chain_of_small_steps_is_no_copy() -> None:
    # Each differs from the one before by two bits: the third is four bits from the first.
    assert found([0b0, 0b11, 0b1111]).same_as.tolist() == [-1, 0, -1]


def test_an_image_left_out_names_one_that_stays() -> None:
    # The last has the pixels of the second, which is near the first.
    result = found([0b0, 0b11, 0b11], pixels=["a", "b", "b"])
    assert result.same_as.tolist() == [-1, 0, 0]


def test_across_classes_images_are_linked_and_stay() -> None:
    result = found([7, 7, 0xFF << 50], [False, True, True])
    assert result.same_as.tolist() == [-1, -1, -1]
    assert result.linked.tolist() == [[1, 0]]
    assert result.group.tolist() == [0, 0, 2]
    exact = found([7, 0xFF << 50], [False, True], pixels=["a", "a"], distance=0)
    assert exact.linked.tolist() == [[1, 0]] and exact.group.tolist() == [0, 0]


def test_a_group_holds_all_images_of_the_sources_that_meet() -> None:
    # Image 2 is left out for image 0; its source's fake (3) belongs to image 0's group from now on.
    result = found(
        [0, 0xFF << 40, 0, 0xFF << 20],
        [False, False, False, True],
        sources=["a", "b", "c", "c"],
    )
    assert result.same_as.tolist() == [-1, -1, 0, -1]
    assert result.group.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("distance", [0, 2])
def test_blank_pictures_make_no_sources_meet(distance: int) -> None:
    # Three sources with a black frame each, one of them fake; 0 and 3 are of one source.
    result = found(
        [0, 0, 0, 0xFF << 40],
        [False, False, True, False],
        pixels=["black", "black", "black", "d"],
        sources=["a", "b", "c", "a"],
        blank=[True, True, True, False],
        distance=distance,
    )
    assert result.same_as.tolist() == [-1, 0, -1, -1]
    assert result.group.tolist() == [0, 1, 2, 0] and not len(result.linked)


def test_what_is_blank() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    rng = np.random.default_rng(0)
    grainy = np.clip(rng.normal(250, 1.5, (64, 64, 3)), 0, 255).astype(np.uint8)
    corner = np.full((64, 64, 3), 255, np.uint8)
    corner[:14, :14] = (200, 30, 30)  # 4.8 % of it
    assert is_blank(black) and is_blank(black + 255) and is_blank(grainy) and is_blank(corner)
    corner[:15, :15] = (200, 30, 30)
    ramp = np.repeat(np.arange(64, dtype=np.uint8), 192).reshape(64, 64, 3)
    assert not is_blank(corner) and not is_blank(ramp)
    assert not any(is_blank(np.asarray(photograph(place))) for place in range(len(PHOTOGRAPHS)))


def test_thousands_of_equal_hashes_are_no_quadratic_work() -> None:
    result = found([0] * 50_000)
    assert (result.same_as[1:] == 0).all()


def test_too_large_a_distance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.7"):
        found([1], distance=8)


def photograph(place: int) -> Image.Image:
    return Image.open(_locate(PHOTOGRAPHS[place])).convert("RGB")


@pytest.mark.parametrize("place", range(len(PHOTOGRAPHS)))
def test_a_photograph_looks_like_its_copies_and_like_no_other(place: int) -> None:
    image = photograph(place)
    buffer = io.BytesIO()
    image.resize((image.width // 2, image.height // 2)).save(buffer, "JPEG", quality=60)
    brighter = image.point(lambda value: min(255, round(value * 1.1)))
    own = perceptual_hash(np.asarray(image))
    for copy in (Image.open(buffer), brighter):
        assert (own ^ perceptual_hash(np.asarray(copy.convert("RGB")))).bit_count() <= 4
    for other in range(len(PHOTOGRAPHS)):
        if other != place:
            assert (own ^ perceptual_hash(np.asarray(photograph(other)))).bit_count() > 12


def test_pixel_digests_see_pixels_and_shape() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    changed = image.copy()
    changed[0, 0, 0] += 1
    digests = {pixel_sha256(one) for one in (image, changed, image.reshape(4, 2, 3))}
    assert len(digests) == 3 and pixel_sha256(image[:, ::-1][:, ::-1]) == pixel_sha256(image)
