"""F6: flow sampling with guidance, of one image, of edited images, of several in one query."""

from __future__ import annotations

import numpy as np
import torch

from tests.golden.fixtures import Case, close, inference_items
from unigendet.data.packing import TextItem
from unigendet.data.tokenizer import Tokenizer
from unigendet.data.transforms import to_image
from unigendet.flow import unpatchify_latents
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.sampling import (
    FlowStep,
    Guidance,
    GuidanceContexts,
    SamplerConfig,
    flow_steps,
    guidance_contexts,
)

FIXTURE = "F6_*/*"


def _sampler(case: Case) -> SamplerConfig:
    settings = case.document["settings"]
    low, high = settings["cfg_interval"]
    guidance = Guidance(
        text_scale=settings["cfg_text_scale"],
        image_scale=settings.get("cfg_img_scale", 1.0),
        interval=(low, high),
        renorm=settings["cfg_renorm_type"],
        renorm_min=settings["cfg_renorm_min"],
    )
    return SamplerConfig(settings["num_timesteps"] - 1, settings["timestep_shift"], guidance)


def _packed(case: Case) -> bool:
    """Whether the case draws one image per prompt in one query."""
    return isinstance(case.value("inputs")[0], str)


def _contexts(
    case: Case, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer
) -> GuidanceContexts:
    if _packed(case):
        contexts = [[TextItem(tokenizer.encode(prompt))] for prompt in case.value("inputs")]
    else:
        contexts = [inference_items(case, model.config, tokenizer)]
    noise = list(case["in.vae_noise"]) if "in.vae_noise" in case else None
    return guidance_contexts(model, vae, tokenizer.markers, contexts, noise)


def _shapes(case: Case, model: UniGenDetModel) -> list[tuple[int, int]]:
    sizes = (
        case.document["settings"]["image_shapes"]
        if _packed(case)
        else [case.value("image_shape_used")]
    )
    cell = model.config.vae.downsample * model.config.latent_patch_size
    return [(height // cell, width // cell) for height, width in sizes]


def _steps(
    case: Case, model: UniGenDetModel, vae: LatentAutoencoder, tokenizer: Tokenizer
) -> list[FlowStep]:
    return list(
        flow_steps(
            model,
            tokenizer.markers,
            _contexts(case, model, vae, tokenizer),
            case["in.init_noise"],
            _shapes(case, model),
            _sampler(case),
        )
    )


def test_contexts(
    case: Case,
    golden_model: UniGenDetModel,
    golden_vae: LatentAutoencoder,
    golden_tokenizer: Tokenizer,
) -> None:
    contexts = _contexts(case, golden_model, golden_vae, golden_tokenizer)
    if "kv_lens" in case.document["values"]:
        lengths = case.value("kv_lens")
        image = contexts.image or contexts.cond
        assert contexts.cond.lengths.tolist() == lengths["cond"]
        assert contexts.text.lengths.tolist() == lengths["cfg_text"]
        assert image.lengths.tolist() == lengths["cfg_img"]
    for name in case.names(r"kv\.(key|value)\.\d+"):
        _, kind, layer = name.split(".")
        parts = [
            contexts.cond.content(int(layer), i)[0 if kind == "key" else 1]
            for i in range(contexts.cond.batch_size)
        ]
        close(torch.cat(parts), case[name], name)


def test_every_step(
    case: Case,
    golden_model: UniGenDetModel,
    golden_vae: LatentAutoencoder,
    golden_tokenizer: Tokenizer,
) -> None:
    steps = _steps(case, golden_model, golden_vae, golden_tokenizer)
    close(torch.tensor([step.t for step in steps]), case["out.timesteps"], "timesteps")
    compared = 0
    for index, step in enumerate(steps):
        close(step.x_t, case["out.x_t"][index], f"x_t of step {index}")
        close(step.velocity, case["out.velocity"][index], f"velocity of step {index}")
        branches = (("cond", step.cond), ("text", step.text), ("img", step.image))
        for name, branch in branches:
            stored = f"out.branch.{index}.{name}"
            if stored in case and branch is not None:
                close(branch, case[stored], stored)
                compared += 1
    assert compared >= len(steps)
    if "scales_used" in case.document["values"]:
        used = [step.text is not None for step in steps]
        assert used == [text > 1 for text, _ in case.value("scales_used")]


def test_result(
    case: Case,
    golden_model: UniGenDetModel,
    golden_vae: LatentAutoencoder,
    golden_tokenizer: Tokenizer,
) -> None:
    tokens = _steps(case, golden_model, golden_vae, golden_tokenizer)[-1].x_next
    shapes = _shapes(case, golden_model)
    parts = tokens.split([rows * columns for rows, columns in shapes])
    names = case.names(r"out\.latent_tokens(\.\d+)?")
    for name, part in zip(names, parts, strict=True):
        close(part, case[name], name)
    if "out.latent" in case:
        latent = unpatchify_latents(tokens, shapes[0], golden_model.config.latent_patch_size)
        close(latent, case["out.latent"], "latent")
        with torch.no_grad():
            decoded = golden_vae.decode(latent)
        close(decoded, case["out.decoded"], "decoded")
        image, expected = to_image(decoded)[0].astype(int), case["out.image"].numpy()
        assert image.shape == expected.shape and np.abs(image - expected).max() <= 1
