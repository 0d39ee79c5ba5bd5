"""What images go through before they are judged once more."""

from __future__ import annotations

import numpy as np
import pytest

from unigendet.benchmarking.perturbations import KINDS, Perturbation, parse_all


@pytest.mark.parametrize("kind", KINDS)
def test_a_perturbation_keeps_the_shape_and_is_the_same_each_time(kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    strength = {"jpeg": 50, "webp": 50, "resize": 0.5, "crop": 0.5}.get(kind, 3)
    one = Perturbation.parse(f"{kind}={strength}")
    changed = one.apply(image, "key")
    assert changed.shape == image.shape and changed.dtype == np.uint8 and (changed != image).any()
    np.testing.assert_array_equal(changed, one.apply(image, "key"))


@pytest.mark.parametrize(
    "text", ["jpeg", "jpeg=0", "jpeg=100", "jpeg=70.5", "fog=3", "blur=x", "resize=2", "blur=nan"]
)
def test_a_perturbation_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"jpeg|blur|resize"):
        parse_all([text])


def test_a_perturbation_comes_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_all(["jpeg=70", "jpeg=70.0"])
