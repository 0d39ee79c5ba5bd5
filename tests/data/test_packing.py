"""Packing: draws, dropped conditions, labels, and plans that cannot be packed."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from tests.models.tiny import (
    MARKERS,
    detection_plan,
    generation_plan,
    image,
    mixed_plans,
    tiny_config,
    tiny_pack,
    words,
)
from unigendet.data.packing import ImageItem, SamplePlan, TextItem, pack


def _same(first: object, second: object) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in (
            (getattr(first, field.name), getattr(second, field.name))
            for field in fields(first)  # type: ignore[arg-type]
            if "attention" not in field.name
        )
    )


def test_every_draw_comes_from_the_generator() -> None:
    torch.manual_seed(0)
    first = tiny_pack(mixed_plans(), seed=5)
    torch.manual_seed(1)
    assert _same(first, tiny_pack(mixed_plans(), seed=5))
    other = tiny_pack(mixed_plans(), seed=6)
    for name in ("noise", "posterior_noise", "raw_timesteps"):
        assert not torch.equal(getattr(first, name), getattr(other, name)), name


def test_survives_a_worker_process() -> None:
    batch = tiny_pack(mixed_plans())
    copy = pickle.loads(pickle.dumps(batch)).to("cpu")
    assert _same(batch, copy)
    assert torch.equal(copy.attention.gather, batch.attention.gather)


def test_rows_are_text_then_vit_then_latents() -> None:
    batch = tiny_pack(mixed_plans())
    order = torch.cat([batch.text_indexes, batch.vit_indexes, batch.latent_indexes])
    assert torch.equal(order.sort().values, torch.arange(batch.sequence_length))
    assert torch.equal(order[batch.ce_rows], batch.ce_indexes)
    assert torch.equal(batch.latent_indexes[batch.flow_rows], batch.flow_indexes)
    assert torch.equal(batch.text_ids[batch.det_rows], torch.full((2,), MARKERS.bos))


def test_verdict_labels_are_the_heads_order() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = tiny_pack([detection_plan(generator, fake=fake) for fake in (True, False, True)])
    assert batch.det_labels.tolist() == [0, 1, 0]


def test_verdict_is_read_at_the_first_answer() -> None:
    items = [TextItem([1, 2], loss=True), TextItem([3], loss=True)]
    batch = tiny_pack([SamplePlan([TextItem([9]), *items], fake=True)])
    assert batch.det_rows.tolist() == [3]


def test_only_images_with_loss_are_flow_targets() -> None:
    """Clean images, all fakes among them, have no flow place and timestep 0."""
    batch = tiny_pack(mixed_plans())
    generated = torch.isfinite(batch.raw_timesteps)
    assert generated.tolist() == [True, False, True, False, True]
    assert bool(generated[batch.latent_images[batch.flow_rows]].all())
    assert len(batch.flow_rows) == int(generated[batch.latent_images].sum())


def test_text_is_dropped_as_often_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = image(generator)
    plan = SamplePlan([TextItem([1, 2], dropout=0.25), ImageItem("vae", picture, loss=True)])
    batch = tiny_pack([plan] * 400)
    dropped = sum(len(splits) == 1 for splits in batch.splits)
    assert 70 <= dropped <= 130
    starts = torch.tensor(batch.sample_lens).cumsum(0) - torch.tensor(batch.sample_lens)
    ends = torch.tensor([sum(batch.sample_lens[: i + 1]) - 1 for i in range(400)])
    assert bool((batch.position_ids[starts] == 0).all())
    image_positions = batch.position_ids[ends]
    expected = torch.tensor([0 if len(splits) == 1 else 4 for splits in batch.splits])
    assert torch.equal(image_positions, expected)


def test_images_are_padded_with_mid_grey() -> None:
    generator = torch.Generator().manual_seed(0)
    plans = [generation_plan(generator, height=8, width=16), generation_plan(generator)]
    batch = tiny_pack(plans)
    assert batch.pixels.shape == (2, 3, 12, 16)
    assert not batch.pixels[0, :, 8:].any() and not batch.pixels[1, :, :, 12:].any()
    assert batch.posterior_noise.shape == (2, 3, 6, 8)
    assert batch.latent_shapes == ((2, 4), (3, 3))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (SamplePlan([ImageItem("vae", torch.zeros(3, 10, 12))]), "12 x 10 is no multiple of its"),
        (SamplePlan([ImageItem("vit", torch.zeros(3, 12, 8))]), "8 x 12 is no multiple of its"),
        (SamplePlan([ImageItem("vit", torch.zeros(1, 12, 12))]), r"must be \(3, H, W\)"),
        (SamplePlan([ImageItem("vit", torch.zeros(3, 12, 12), loss=True)]), "cannot be generated"),
        (SamplePlan([TextItem([64])]), "outside 0 .. 63"),
        (SamplePlan([TextItem([-1])]), "outside 0 .. 63"),
        (SamplePlan([TextItem([1])], fake=True), "no text with loss"),
        (SamplePlan([]), "no tokens"),
        (
            SamplePlan(
                [ImageItem("vae", torch.zeros(3, 12, 12), loss=True), TextItem([1], loss=True)],
                fake=True,
            ),
            "real images only",
        ),
    ],
)
def test_what_cannot_be_packed_says_which_sample_and_why(plan: SamplePlan, message: str) -> None:
    good = SamplePlan([TextItem([1])])
    with pytest.raises(ValueError, match=f"Sample 1 of the pack: .*{message}"):
        tiny_pack([good, plan])


def test_empty_pack_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        tiny_pack([])


def test_too_large_an_image_is_an_error_unless_positions_are_interpolated() -> None:
    plan = SamplePlan([ImageItem("vae", torch.zeros(3, 40, 40))])
    with pytest.raises(ValueError, match="10 x 10 patches does not fit"):
        tiny_pack([plan])
    config = tiny_config(interpolate_pos=True)
    batch = tiny_pack([plan], config)
    assert int(batch.latent_position_ids.max()) == config.max_latent_size**2 - 1


def test_end_marker_can_be_labelled() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = ImageItem("vae", image(generator), end_label=7)
    text = TextItem(words(generator, 2), end_label=8)
    batch = tiny_pack([SamplePlan([picture, text])])
    assert batch.ce_indexes.tolist() == [10, 14] and batch.ce_labels.tolist() == [7, 8]


def test_markers_are_where_the_config_says() -> None:
    markers = replace(MARKERS, bos=1, eos=2)
    plan = SamplePlan([TextItem([5, 6])])
    batch = pack([plan], tiny_config(), markers, torch.Generator())
    assert batch.text_ids.tolist() == [1, 5, 6, 2]
