"""Figures about images, on sets whose order is known."""

from __future__ import annotations

import numpy as np
import pytest

from unigendet.image_evaluation import (
    BEFORE_DIGA,
    FLOOR,
    MODEL,
    RECONSTRUCTED,
    UNTRAINED,
    ImageSet,
    evaluate_images,
)

GROUNDS = ("desert", "forest")
COLOURS = {"desert": (200, 170, 120), "forest": (30, 60, 30)}


def _set(shift: float, seed: int, *, swap: bool = False, prefix: str = "t") -> ImageSet:
    """Images coloured as their captions say, or swapped; features moved by `shift`."""
    n = 24
    generator = np.random.default_rng(seed)
    captions = tuple(f"a satellite image of {GROUNDS[i % 2]}" for i in range(n))
    colours = [COLOURS[GROUNDS[(i + swap) % 2]] for i in range(n)]
    images = np.array(colours)[:, None, None, :] + generator.integers(-20, 20, (n, 16, 16, 3))
    return ImageSet(
        images=np.clip(images, 0, 255).astype(np.uint8),
        features=generator.normal(shift, 1.0, (n, 12)).astype(np.float32),
        captions=captions,
        groups=tuple(f"{prefix}{i}" for i in range(n)),
    )


def _sets() -> dict[str, ImageSet]:
    return {
        FLOOR: _set(0.0, 1, prefix="v"),
        RECONSTRUCTED: _set(0.3, 2),
        MODEL: _set(0.6, 3),
        BEFORE_DIGA: _set(0.9, 4),
        UNTRAINED: _set(2.0, 5, swap=True),
    }


def test_distances_relations_and_obedience_come_out_in_order() -> None:
    found = evaluate_images(_set(0.0, 0), _sets(), _set(0.0, 9), grounds=GROUNDS, draws=60)
    kd = {name: figures.kd.value for name, figures in found.sets.items()}
    assert kd[FLOOR] < kd[RECONSTRUCTED] < kd[MODEL] < kd[BEFORE_DIGA] < kd[UNTRAINED]
    ratios = found.ratios
    assert ratios["generated_to_untrained"].value == pytest.approx(kd[MODEL] / kd[UNTRAINED])
    gap = (kd[MODEL] - kd[RECONSTRUCTED]) / (kd[UNTRAINED] - kd[RECONSTRUCTED])
    assert ratios["generated_gap"].value == pytest.approx(gap)
    change = ratios["diga_change"]
    assert change.value == pytest.approx(kd[MODEL] - kd[BEFORE_DIGA]) and change.high < 0
    assert found.obedience[MODEL].value == 1.0
    assert found.obedience[UNTRAINED].value == 0.0
    assert found.nearest.index.shape == (24,)


def test_the_scale_needs_both_of_its_ends() -> None:
    sets = _sets()
    del sets[UNTRAINED]
    with pytest.raises(ValueError, match="untrained"):
        evaluate_images(_set(0.0, 0), sets, _set(0.0, 9), grounds=GROUNDS, draws=5)


def test_without_the_state_before_diga_nothing_is_said_of_it() -> None:
    sets = _sets()
    del sets[BEFORE_DIGA]
    found = evaluate_images(_set(0.0, 0), sets, _set(0.0, 9), grounds=GROUNDS, draws=5)
    assert "diga_change" not in found.ratios


def test_captions_of_another_kind_are_not_judged_by_colour() -> None:
    found = evaluate_images(_set(0.0, 0), _sets(), _set(0.0, 9), grounds=("cat", "dog"), draws=5)
    assert found.obedience == {}
