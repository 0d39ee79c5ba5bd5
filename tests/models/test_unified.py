"""The training forward: packing changes nothing, tokens see what they may, odd configurations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.models.tiny import (
    detection_plan,
    generation_plan,
    mixed_plans,
    tiny_config,
    tiny_model,
    tiny_pack,
)
from unigendet.config import AutoencoderConfig, ModelConfig, TransformerConfig
from unigendet.models.unified import UniGenDetModel
from unigendet.types import ModelOutput, PackedBatch


def _output(model: UniGenDetModel, batch: PackedBatch) -> ModelOutput:
    return model(batch, batch.posterior_noise, taps=[0])


def _alone(batch: PackedBatch, single: PackedBatch, sample: int) -> PackedBatch:
    """`single`, a pack of one sample, with the draws that it has as a part of `batch`."""
    start = sum(batch.sample_lens[:sample])
    end = start + batch.sample_lens[sample]
    tokens = (batch.latent_indexes >= start) & (batch.latent_indexes < end)
    images = batch.latent_images[tokens].unique()
    height, width = single.posterior_noise.shape[2:]
    return replace(
        single,
        noise=batch.noise[tokens],
        raw_timesteps=batch.raw_timesteps[images],
        posterior_noise=batch.posterior_noise[images, :, :height, :width],
    )


CONFIGS = {
    "tiny": tiny_config(),
    "interpolated": tiny_config(interpolate_pos=True, max_latent_size=5, timestep_shift=3.0),
    "no grouped heads": tiny_config(llm=TransformerConfig(64, 40, 24, 2, 5, 5)),
    "one kv head, patch 1": tiny_config(
        llm=TransformerConfig(64, 64, 24, 2, 4, 1),
        vae=AutoencoderConfig(8, (1, 1, 1), 1, latent_channels=5, norm_groups=4),
        latent_patch_size=1,
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_packed_equals_per_sample(config: ModelConfig) -> None:
    model, plans = tiny_model(config), mixed_plans()
    batch = tiny_pack(plans, config)
    packed = _output(model, batch)
    parts = [
        _output(model, _alone(batch, tiny_pack([plan], config), index))
        for index, plan in enumerate(plans)
    ]
    for name in ("velocity", "target", "x_t", "ce_logits", "det_logits"):
        expected = torch.cat([getattr(part, name) for part in parts])
        assert expected.shape[0] > 0
        torch.testing.assert_close(getattr(packed, name), expected, atol=2e-5, rtol=1e-4, msg=name)


def _detection_batch() -> PackedBatch:
    generator = torch.Generator().manual_seed(1)
    return tiny_pack([detection_plan(generator), detection_plan(generator, count=8)])


def test_answer_is_causal() -> None:
    """A later word changes no logits before it; an earlier one changes those after it."""
    model, batch = tiny_model(), _detection_batch()
    before = _output(model, batch).ce_logits
    row = int(batch.ce_rows[3])
    ids = batch.text_ids.clone()
    ids[row] = (ids[row] + 1) % 60
    after = _output(model, replace(batch, text_ids=ids)).ce_logits
    changed = (before - after).abs().amax(1) > 1e-6
    assert not changed[:3].any() and changed[3:6].all()
    assert not changed[6:].any(), "another sample has changed"


def test_verdict_reads_both_images_and_the_question() -> None:
    """SMSA: the verdict depends on ViT tokens, on latents and on the question."""
    model, batch = tiny_model(), _detection_batch()
    vit = batch.vit_tokens.clone().requires_grad_()
    latents = batch.posterior_noise.clone().requires_grad_()
    output: ModelOutput = model(replace(batch, vit_tokens=vit), latents)
    output.det_logits[0].sum().backward()
    first = batch.vit_shapes[0][0] * batch.vit_shapes[0][1]
    assert vit.grad is not None and latents.grad is not None
    assert bool((vit.grad[:first] != 0).any(1).all()) and not vit.grad[first:].any()
    assert latents.grad[0].abs().sum() > 0 and not latents.grad[1].any()


def test_clean_latents_ignore_their_noise() -> None:
    model, batch = tiny_model(), _detection_batch()
    other = replace(batch, noise=torch.randn_like(batch.noise))
    torch.testing.assert_close(
        _output(model, batch).det_logits, _output(model, other).det_logits, atol=0, rtol=0
    )
    assert bool((_output(model, batch).timesteps == 0).all())


def test_text_only_and_images_only() -> None:
    generator = torch.Generator().manual_seed(2)
    detection = detection_plan(generator)
    text = replace(detection, items=detection.items[2:])
    without_latents = replace(detection, items=detection.items[1:])
    for plan in (text, without_latents, generation_plan(generator)):
        batch = tiny_pack([plan])
        output = _output(tiny_model(), batch)
        assert output.det_logits.shape == (len(batch.det_labels), 2)
        assert bool(output.hidden.und.isfinite().all())


def test_runs_only_the_first_layers() -> None:
    """With k layers the output is the tap after layer k - 1 through the final norms."""
    model, batch = tiny_model(), _detection_batch()
    full = model(batch, batch.posterior_noise, taps=[1])
    short: ModelOutput = model(batch, batch.posterior_noise, num_layers=2)
    norm, norm_gen = model.language_model.model.norm, model.language_model.model.norm_moe_gen
    torch.testing.assert_close(short.hidden.und, norm(full.taps[1].und))
    torch.testing.assert_close(short.hidden.gen, norm_gen(full.taps[1].gen))


def test_wrong_layer_is_an_error() -> None:
    batch = _detection_batch()
    with pytest.raises(ValueError, match="layers 0 to 2"):
        tiny_model()(batch, batch.posterior_noise, taps=[3])
    with pytest.raises(ValueError, match="alignment head"):
        tiny_model()(batch, batch.posterior_noise, project_tap=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 50}, "hidden_size .50. divisible by 4"),
        ({"num_attention_heads": 5}, "twice num_attention_heads .5."),
        ({"num_key_value_heads": 4}, "divisible by num_key_value_heads .4."),
    ],
)
def test_impossible_configurations_are_errors(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny_config().llm, **change)
    with pytest.raises(ValueError, match=r"image_size .36. divisible by patch_size .5."):
        replace(tiny_config().vit, patch_size=5)


def test_start_of_training() -> None:
    """A fresh model says nothing yet: zero velocity, an even verdict, near-uniform next tokens."""
    torch.manual_seed(0)
    model, batch = UniGenDetModel(tiny_config()), tiny_pack(mixed_plans())
    output = _output(model, batch)
    assert not output.velocity.any() and not output.det_logits.any()
    nll = torch.nn.functional.cross_entropy(output.ce_logits, batch.ce_labels)
    uniform = torch.log(torch.tensor(64.0))
    assert abs(float(nll.detach()) - float(uniform)) < 0.1


def test_autocast_stays_close_to_float32() -> None:
    model, batch = tiny_model(), _detection_batch()

    def verdict() -> Tensor:
        return _output(model, batch).det_logits.float().detach()

    exact = verdict()
    with torch.autocast("cpu", torch.bfloat16):
        rough = verdict()
    assert float((rough - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_flex_attention_gives_the_same_output() -> None:
    model, batch = tiny_model(), tiny_pack(mixed_plans())
    with torch.no_grad():
        expected = model(batch, batch.posterior_noise)
        model.attention = "flex"
        actual = model(batch, batch.posterior_noise)
    for name in ("velocity", "ce_logits", "det_logits"):
        torch.testing.assert_close(
            getattr(actual, name), getattr(expected, name), atol=1e-5, rtol=1e-4
        )


def test_recomputed_activations_give_the_same_gradients() -> None:
    batch = tiny_pack(mixed_plans())
    gradients, saved = [], []
    for recompute in (False, True):
        model = tiny_model()
        if recompute:
            model.recompute_activations()
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model(batch, batch.posterior_noise)
        (output.velocity.square().mean() + output.det_logits.square().mean()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        saved.append(sum(sizes.values()))
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], value) for name, value in gradients[1].items())
    assert saved[1] < 0.5 * saved[0]
