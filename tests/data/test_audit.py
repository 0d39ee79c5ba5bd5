"""The audit finds a codec or a size, and stays at chance where the files say nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unigendet.data.audit import AuditItem, audit, blockiness, can_audit
from unigendet.data.encoding import PNG
from unigendet.data.image_header import header_facts

encode_png = PNG.encode


def picture(number: int, side: int = 48) -> np.ndarray:
    rng = np.random.default_rng(number)
    noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))


def jpeg(image: np.ndarray, quality: int, subsampling: int = 2) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def blurred(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))


def pairs(real, fake, count: int = 40) -> list[AuditItem]:
    """A real file and an aligned fake of each source."""
    return [
        AuditItem.of(make(picture(number)), f"s/{number}", is_fake)
        for number in range(count)
        for make, is_fake in ((real, False), (fake, True))
    ]


def test_same_encoder_and_size_pass_although_fakes_are_blurred() -> None:
    result = audit(pairs(encode_png, lambda image: encode_png(blurred(image))), draws=200)
    assert result.passed
    assert result.auroc.value == result.auroc.low == result.auroc.high == 0.5
    assert result.auroc.n == 80 and result.auroc.groups == 40
    assert result.bytes_per_pixel.value < 0.1  # blur compresses: reported, decides nothing
    assert result.formats == ("PNG",) and result.sizes == ("48x48",)


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (lambda image: jpeg(image, 90), encode_png),
        (lambda image: jpeg(image, 90), lambda image: jpeg(image, 75)),
        (lambda image: jpeg(image, 90, 2), lambda image: jpeg(image, 90, 0)),
        (encode_png, lambda image: encode_png(image[:40, :40])),
    ],
    ids=["format", "quality", "subsampling", "size"],
)
def test_a_header_that_tells_the_class_fails(real, fake) -> None:
    result = audit(pairs(real, fake), draws=100)
    assert not result.passed and result.auroc.value > 0.95


def test_a_header_that_varies_with_the_source_only_passes() -> None:
    # Each source has its own quality, and its fake the same: nothing to learn about the class.
    items = [
        AuditItem.of(jpeg(picture(number), 60 + number % 7 * 5), f"s/{number}", fake)
        for number in range(60)
        for fake in (False, True)
    ]
    result = audit(items, draws=200)
    assert result.passed and result.auroc.value == pytest.approx(0.5, abs=0.1)


def test_unequal_classes_do_not_move_a_blind_classifier() -> None:
    items = pairs(encode_png, encode_png, 30)
    items += [AuditItem.of(encode_png(picture(100 + n)), f"t/{n}", True) for n in range(50)]
    result = audit(items, draws=100)
    assert result.auroc.value == 0.5 and result.passed


def test_header_facts_read_the_header() -> None:
    facts = header_facts(jpeg(picture(0), 90, 2))
    assert (facts.format, facts.width, facts.subsampling) == ("JPEG", 48, "2x2 1x1 1x1")
    assert len(facts.table_means) == 2
    assert header_facts(encode_png(picture(0))).table_means == ()


def test_blockiness_rises_with_coarser_jpeg() -> None:
    values = [
        blockiness(np.asarray(Image.open(io.BytesIO(jpeg(picture(1), quality)))))
        for quality in (95, 5)
    ]
    assert values[1] > 1.5 * values[0] > 0


def test_one_class_or_one_source_cannot_be_audited() -> None:
    items = pairs(encode_png, encode_png, 5)
    with pytest.raises(ValueError, match="one of the classes is missing"):
        audit([item for item in items if item.fake])
    with pytest.raises(ValueError, match="two sources"):
        audit(items[:2])


def test_small_sets_are_audited_as_far_as_they_reach() -> None:
    items = pairs(encode_png, lambda image: jpeg(image, 90), count=3)
    assert can_audit(items) and audit(items, draws=20).auroc.n == 6
    assert not can_audit(items[:3]), "one file of a class cannot be held out"
    with pytest.raises(ValueError, match="two files of each class"):
        audit(items[:3])
