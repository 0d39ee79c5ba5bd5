"""F8: the resize rule, pixels, patches and position ids."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from tests.golden.fixtures import Case, Reference, close, exact
from unigendet.config import ResizeRule
from unigendet.data.image_files import to_rgb
from unigendet.data.transforms import resized_size, to_pixels
from unigendet.models.positions import grid_position_ids
from unigendet.models.vision import patchify_pixels

FIXTURE = "F8_*/*"


def test_size_table(case: Case) -> None:
    rules = {
        rule["name"]: ResizeRule(
            max_size=rule["max_image_size"],
            min_size=rule["min_image_size"],
            stride=rule["image_stride"],
            max_pixels=rule["max_pixels"],
        )
        for rule in case.value("rules")
    }
    table = case.value("size_table")
    assert table
    for rule, images, (width, height), expected in table:
        found = resized_size(width, height, rules[rule], images)
        assert list(found) == expected, (rule, images, width, height)


def test_pixels(case: Case, reference: Reference) -> None:
    names = case.names(r"in\.\w+")
    assert names
    for name in names:
        kind = name.removeprefix("in.")
        image = Image.fromarray(case[name].numpy())
        exact(torch.from_numpy(np.array(to_rgb(image))), case[f"out.{kind}.rgb"], kind)
        for view, rule in (
            ("vae", reference.config.vae_resize),
            ("vit", reference.config.vit_resize),
        ):
            close(to_pixels(image, rule), case[f"out.{kind}.{view}"], f"{kind}, {view}")


def test_patches(case: Case, reference: Reference) -> None:
    for name in case.names(r"out\.\w+\.vit_patches"):
        pixels = case[name.removesuffix("_patches")]
        patches = patchify_pixels(pixels, reference.config.vit.patch_size)
        assert torch.equal(patches, case[name]), name


def test_position_ids(case: Case) -> None:
    for index, values in enumerate(case.value("position_cases")):
        rows, columns = (values[side] // values["patch"] for side in ("img_h", "img_w"))
        for mode in ("extrapolate", "interpolate"):
            found = grid_position_ids(
                rows, columns, values["max_side"], interpolate=mode == "interpolate"
            )
            exact(found, case[f"pos.{index}.{mode}"], f"{values}, {mode}")
