"""F2: packing from raw samples, the training forward, losses and gradients."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.golden.fixtures import (
    Case,
    Reference,
    StoredLatents,
    close,
    close_gradient_norms,
    exact,
    in_sequence,
    per_image,
    published_plans,
)
from unigendet.config import LossWeights, ModelConfig
from unigendet.data.packing import pack
from unigendet.losses import LossTerms
from unigendet.models.attention import sample_mask
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import GdufObjective
from unigendet.types import PackedBatch

FIXTURE = "F2_*/*"


def _config(case: Case, reference: Reference) -> ModelConfig:
    return replace(
        reference.config,
        timestep_shift=case.value("timestep_shift"),
        interpolate_pos=case.document["interpolate_pos"],
    )


def _batch(case: Case, reference: Reference) -> PackedBatch:
    """Packed from the raw samples; the fixture's draws in place of ours."""
    config = _config(case, reference)
    plans = published_plans(case, config)
    batch = pack(plans, config, reference.markers, torch.Generator().manual_seed(0))
    return replace(
        batch,
        noise=case["in.noise"],
        posterior_noise=case["in.vae_noise"],
        raw_timesteps=per_image(case["in.packed_timesteps"], batch.latent_images),
    )


def _model(case: Case, reference: Reference) -> UniGenDetModel:
    config = _config(case, reference)
    return reference.model(
        timestep_shift=config.timestep_shift, interpolate_pos=config.interpolate_pos
    )


def test_packing(case: Case, reference: Reference) -> None:
    batch = _batch(case, reference)
    assert batch.sequence_length == case.value("sequence_length")
    assert list(batch.sample_lens) == case.value("sample_lens")
    assert [list(shape) for shape in batch.latent_shapes] == case.value(
        "patchified_vae_latent_shapes"
    )
    exact(batch.text_ids, case["in.packed_text_ids"], "text ids")
    exact(batch.text_indexes, case["in.packed_text_indexes"], "text places")
    exact(batch.position_ids, case["in.packed_position_ids"], "positions")
    exact(batch.latent_position_ids, case["in.packed_latent_position_ids"], "latent positions")
    exact(batch.latent_indexes, case["in.packed_vae_token_indexes"], "latent places")
    exact(batch.vit_position_ids, case["in.packed_vit_position_ids"], "ViT positions")
    exact(batch.vit_indexes, case["in.packed_vit_token_indexes"], "ViT places")
    exact([h * w for h, w in batch.vit_shapes], case["in.vit_token_seqlens"], "ViT lengths")
    exact(batch.flow_indexes, case["in.mse_loss_indexes"], "flow places")
    exact(batch.ce_indexes, case["in.ce_loss_indexes"], "text loss places")
    exact(batch.ce_labels, case["in.packed_label_ids"], "text labels")
    exact(batch.det_labels, case["in.label"], "verdicts")
    close(batch.ce_weights, case["in.ce_loss_weights"], "text loss weights")
    if "in.packed_vit_tokens" in case:
        close(batch.vit_tokens, case["in.packed_vit_tokens"], "ViT patches")
    if "in.padded_images" in case:
        close(batch.pixels, case["in.padded_images"], "padded images")
    else:
        assert list(batch.pixels.shape) == case.value("padded_images")
    exact(batch.raw_timesteps[batch.latent_images], case["in.packed_timesteps"], "timesteps")


def test_masks(case: Case, reference: Reference) -> None:
    batch = _batch(case, reference)
    for index, (splits, expected) in enumerate(
        zip(batch.splits, case.value("splits"), strict=True)
    ):
        assert [split.length for split in splits] == expected["split_lens"]
        assert [split.mode for split in splits] == expected["attn_modes"]
        allowed = case[f"in.attention_allowed.{index}"]
        exact(sample_mask(splits).to(allowed.dtype), allowed, f"mask of sample {index}")


def test_forward(case: Case, reference: Reference) -> None:
    batch, model = _batch(case, reference), _model(case, reference)
    seen: dict[str, Tensor] = {}
    model.vit_model.register_forward_hook(lambda *a: seen.__setitem__("vit", a[2]))
    model.connector.register_forward_hook(lambda *a: seen.__setitem__("connector", a[2]))
    model.language_model.model.register_forward_pre_hook(
        lambda _, inputs: seen.__setitem__("llm_input", in_sequence(batch, inputs[0]))
    )
    taps = [int(k.rsplit(".", 1)[1]) for k in case.tensors if "hidden_after_layer" in k]
    output = model(batch, case["in.padded_latent"], taps=taps)

    t = output.timesteps[batch.latent_images]
    close(t, case["out.timesteps"], "timesteps")
    clean = torch.isneginf(case["in.packed_timesteps"])
    assert bool((t[clean] == 0).all()), "a clean image has t of exactly 0"
    starts = torch.ones_like(t, dtype=torch.bool)
    starts[1:] = t[1:] != t[:-1]
    close(model.time_embedder(t[starts]), case["out.time_embedding"], "time embedding")
    close(output.x_t, case["out.x_t"], "x_t")
    for name in ("vit", "connector", "llm_input"):
        close(seen[name], case[f"out.{name}"], name)
    for tap in taps:
        actual = in_sequence(batch, output.taps[tap])
        close(actual, case[f"out.hidden_after_layer.{tap}"], f"layer {tap}")
    close(in_sequence(batch, output.hidden), case["out.last_hidden_state"], "last hidden state")
    close(output.velocity, case["out.velocity"], "velocity")
    close((output.velocity - output.target).square(), case["out.mse"], "squared error")
    close(output.ce_logits, case["out.ce_logits"], "text logits")
    ce = torch.nn.functional.cross_entropy(output.ce_logits, batch.ce_labels, reduction="none")
    close(ce, case["out.ce"], "cross entropy")
    close(output.det_logits, case["out.cls_logits"], "verdict logits")


@pytest.mark.parametrize("variant", ["published", "unweighted"])
def test_losses_and_gradients(case: Case, reference: Reference, variant: str) -> None:
    weights = LossWeights() if variant == "published" else LossWeights(det=1.0)
    model = _model(case, reference)
    vae = StoredLatents((case["in.vae_noise"], case["in.padded_latent"]))
    losses: LossTerms = GdufObjective(vae, weights)(model, _batch(case, reference))
    expected = case.value("loss")
    for name, term in (("mse", "flow_loss"), ("ce", "text_loss"), ("cls", "det_loss")):
        close(getattr(losses, term), torch.tensor(expected[name]), name)
    close(losses.total, torch.tensor(expected[f"total_{variant}"]), "total")
    losses.total.backward()
    close_gradient_norms(model, case.value(f"grad_norm_{variant}"))
    if variant == "unweighted":
        for key in case.tensors:
            if match := re.fullmatch(r"out\.grad\.(.+)", key):
                gradient = model.get_parameter(match[1]).grad
                assert gradient is not None
                close(gradient, case[key], key)
