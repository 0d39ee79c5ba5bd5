"""Every family learns, makes images of the right kind from a seed, and can be stored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from unigendet.forgeries.config import (
    DdpmConfig,
    FitConfig,
    ForgeryConfig,
    GanConfig,
    InpaintConfig,
    VqarConfig,
)
from unigendet.forgeries.family import Family, seeded, training_batch
from unigendet.forgeries.inpaint import smooth_fill
from unigendet.forgeries.registry import FAMILIES, build_family
from unigendet.forgeries.roles import TRAITS

FIT = FitConfig(steps=6, batch_size=4, lr=2e-3)
SMALL = ForgeryConfig(
    ddpm=DdpmConfig(fit=FIT, width=16, sample_steps=2),
    gan=GanConfig(fit=FIT, width=8),
    vqar=VqarConfig(FIT, FIT, width=8, code_dims=3, prior_width=32, prior_layers=1),
    inpaint=InpaintConfig(fit=FIT, width=8),
)
FITTED = ("ddpm", "gan", "vqar", "inpaint")
CAPTIONS = ["land"] * 48


@pytest.fixture(scope="module", params=FITTED)
def fitted(request: pytest.FixtureRequest, real: Tensor) -> Family:
    """Shared: no test may change it."""
    family = build_family(request.param, SMALL, seed=3)
    family.fit(real, CAPTIONS, seed=3)
    return family


def test_registry_and_traits_name_the_same_families() -> None:
    assert set(FAMILIES) == set(TRAITS)
    assert {f.name for f in dataclasses.fields(ForgeryConfig)} == set(TRAITS)


def test_fakes_have_the_shape_and_range_of_images(fitted: Family, real: Tensor) -> None:
    made = fitted.make(real[:5], CAPTIONS[:5], seed=1)
    assert made.shape == (5, 3, 32, 32)
    assert made.isfinite().all() and made.min() >= -1 and made.max() <= 1
    assert not torch.equal(made, real[:5])


def test_fakes_follow_from_the_seed(fitted: Family, real: Tensor) -> None:
    first, again, other = (fitted.make(real[:3], CAPTIONS[:3], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fitting_follows_from_the_seed(fitted: Family, real: Tensor) -> None:
    again = build_family(fitted.name, SMALL, seed=3)
    torch.rand(7)  # the global random state must not matter
    again.fit(real, CAPTIONS, seed=3)
    assert again.weights() == fitted.weights()


def test_stored_weights_make_the_same_fakes(fitted: Family, real: Tensor, tmp_path: Path) -> None:
    fitted.save(tmp_path / "family.safetensors")
    loaded = build_family(fitted.name, SMALL, seed=99)
    loaded.load(tmp_path / "family.safetensors")
    made = (family.make(real[:2], CAPTIONS[:2], seed=4) for family in (fitted, loaded))
    assert torch.equal(*made)


def test_weights_of_another_family_or_shape_are_refused(fitted: Family, tmp_path: Path) -> None:
    path = tmp_path / "family.safetensors"
    fitted.save(path)
    stranger = build_family("gan" if fitted.name != "gan" else "inpaint", SMALL)
    with pytest.raises(ValueError, match="not of"):
        stranger.load(path)
    bigger = dataclasses.replace(
        SMALL,
        gan=GanConfig(fit=FIT, width=16),
        ddpm=DdpmConfig(fit=FIT, width=24),
        vqar=VqarConfig(FIT, FIT, width=16),
        inpaint=InpaintConfig(fit=FIT, width=16),
    )
    with pytest.raises(ValueError, match="another configuration"):
        build_family(fitted.name, bigger).load(path)


@pytest.mark.parametrize("name", FITTED)
def test_fitting_lowers_the_loss(name: str, real: Tensor) -> None:
    fit = FitConfig(steps=60, batch_size=8, lr=2e-3)
    old = getattr(SMALL, name)
    fits = {f.name: fit for f in dataclasses.fields(old) if f.name.startswith("fit")}
    config = dataclasses.replace(SMALL, **{name: dataclasses.replace(old, **fits)})
    losses: list[float] = []
    last = build_family(name, config, seed=0).fit(
        real, CAPTIONS, seed=0, progress=lambda step, steps, loss: losses.append(loss)
    )
    start = 60 if name == "vqar" else 0  # its second network is fitted after the first
    assert len(losses) in (60, 120)
    assert last < 0.9 * np.mean(losses[start : start + 3])


def test_inpainting_leaves_the_surroundings_real(real: Tensor) -> None:
    family = build_family("inpaint", SMALL, seed=0)
    made = family.make(real[:8], CAPTIONS[:8], seed=5)
    changed = (made != real[:8]).any(1).float().mean((1, 2))
    assert ((changed > 0.1) & (changed < 0.5)).all()  # a hole of 0.4 to 0.65 of each side


def test_a_smooth_fill_keeps_what_is_known_and_continues_it() -> None:
    ramp = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32).contiguous()
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 12:20, 12:20] = 1
    filled = smooth_fill(ramp * (1 - mask), mask)
    assert torch.equal(filled * (1 - mask), ramp * (1 - mask))
    assert (filled - ramp).abs().max() < 0.25


def test_aligned_families_keep_the_layout(real: Tensor) -> None:
    """Even hardly fitted, what the real image gives is in the fake: its colours, coarsely."""
    for name in ("gan", "inpaint"):
        family = build_family(name, SMALL, seed=0)
        family.fit(real, CAPTIONS, seed=0)
        made = family.make(real, CAPTIONS, seed=1)
        coarse = [torch.nn.functional.avg_pool2d(x, 8) for x in (made, real)]
        shuffled = coarse[1].roll(1, 0)
        assert (coarse[0] - coarse[1]).abs().mean() < (coarse[0] - shuffled).abs().mean() / 2


def test_batches_are_turned_and_cropped(tiles: NDArray[np.uint8], real: Tensor) -> None:
    batch = training_batch(real[:1], 64, seeded(0))
    assert len({tuple(image.flatten().tolist()) for image in batch}) == 8
    assert training_batch(real, 4, seeded(1), crop=16).shape == (4, 3, 16, 16)


@pytest.mark.parametrize(
    ("images", "captions", "message"),
    [
        (torch.zeros(2, 3, 30, 32), ["a", "b"], "multiples of"),
        (torch.zeros(2, 1, 32, 32), ["a", "b"], "must be"),
        (torch.zeros(2, 3, 32, 32), ["a"], "captions"),
        (torch.zeros(0, 3, 32, 32), [], "at least 1"),
    ],
)
def test_bad_images_are_refused(images: Tensor, captions: list[str], message: str) -> None:
    family = build_family("gan", SMALL)
    with pytest.raises(ValueError, match=message):
        family.fit(images, captions, seed=0)
    with pytest.raises(ValueError, match=message):
        family.make(images, captions, seed=0)


def test_a_loss_that_is_no_number_stops_the_fit(real: Tensor) -> None:
    with pytest.raises(ValueError, match="gan: the loss is nan at step 0"):
        build_family("gan", SMALL).fit(real * float("nan"), CAPTIONS, seed=0)


def test_unknown_families_and_missing_generators_are_explained() -> None:
    with pytest.raises(ValueError, match="did you mean 'inpaint'"):
        build_family("inpant", SMALL)
    with pytest.raises(ValueError, match="needs the trained generator"):
        build_family("flow", SMALL)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FitConfig(steps=0),
        lambda: FitConfig(steps=1, crop=20),
        lambda: DdpmConfig(strength=1.0),
        lambda: DdpmConfig(width=12),
        lambda: GanConfig(scale=3),
        lambda: VqarConfig(patch=5),
        lambda: VqarConfig(levels=1),
        lambda: VqarConfig(prior_width=40),
        lambda: InpaintConfig(min_side=0.8, max_side=0.5),
    ],
)
def test_impossible_configurations_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"must|needs"):
        make()
