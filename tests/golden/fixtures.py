"""Reading the golden fixtures, and comparing with the tolerances that were measured for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from unigendet.config import (
    AutoencoderConfig,
    ModelConfig,
    ResizeRule,
    TransformerConfig,
    VisionConfig,
)
from unigendet.data.packing import ImageItem, SamplePlan, TextItem
from unigendet.data.tokenizer import Tokenizer
from unigendet.data.transforms import resize, to_pixels
from unigendet.models.unified import UniGenDetModel
from unigendet.types import HiddenState, Markers, PackedBatch

GRADIENT_RTOL, GRADIENT_ATOL = 1e-4, 1e-6


class Case:
    """One fixture: `case["in.noise"]` is a tensor, `case.value("splits")` a JSON value."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"{path.parent.name}/{path.stem}"

    @cached_property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.path.read_text())
        return document

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.path.with_suffix(".safetensors"))

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def names(self, pattern: str) -> list[str]:
        """The names of the tensors that fully match a pattern."""
        return [name for name in self.tensors if re.fullmatch(pattern, name)]

    def value(self, key: str) -> Any:
        return self.document["values"][key]["value"]


class Reference:
    """What F1 holds: the configuration, and the weights by file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "state_dict_tiny.json").read_text())
        return document

    @cached_property
    def config(self) -> ModelConfig:
        return model_config(self.document["config"])

    @cached_property
    def markers(self) -> Markers:
        """The markers are the last four ids (specification 2)."""
        first = self.config.llm.vocab_size - 4
        return Markers(*range(first, first + 4))

    def weights(self, name: str) -> dict[str, Tensor]:
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"{path.name} is in the full set of fixtures only (--golden DIR)")
        return load_file(path)

    def model(self, *, alignment_head: bool = False, **changes: Any) -> UniGenDetModel:
        """The published tiny model; `changes` replace fields of its configuration."""
        config = replace(self.config, alignment_head=alignment_head, **changes)
        state = self.weights("gduf_tiny")
        if alignment_head:
            state |= self.weights("diga_extra_tiny")
        model = UniGenDetModel(config)
        model.load_state_dict(state, strict=True)
        return model


def model_config(config: Mapping[str, Any]) -> ModelConfig:
    """The fixtures' description of a configuration as ours."""
    llm, vit, vae = config["llm"], config["vit"], config["vae"]
    rules = config.get("image_transforms")
    assert vit["image_size"] // vit["patch_size"] == config["vit_max_num_patch_per_side"]
    return ModelConfig(
        llm=TransformerConfig(
            **{name: llm[name] for name in TransformerConfig.__slots__ if name in llm}
        ),
        vit=VisionConfig(**{name: vit[name] for name in VisionConfig.__slots__ if name in vit}),
        vae=AutoencoderConfig(
            base_channels=vae["ch"],
            channel_multipliers=tuple(vae["ch_mult"]),
            num_res_blocks=vae["num_res_blocks"],
            latent_channels=vae["z_channels"],
            scale_factor=vae["scale_factor"],
            shift_factor=vae["shift_factor"],
        ),
        vae_resize=_rule(rules, "vae") if rules else ResizeRule(1024, 512, 16),
        vit_resize=_rule(rules, "vit") if rules else ResizeRule(980, 224, 14),
        latent_patch_size=config["latent_patch_size"],
        max_latent_size=config["max_latent_size"],
        interpolate_pos=config.get("interpolate_pos", False),
        timestep_shift=config.get("timestep_shift_default", 1.0),
    )


def _rule(rules: Mapping[str, Any], name: str) -> ResizeRule:
    rule = rules[name]
    return ResizeRule(
        max_size=rule["max_image_size"],
        min_size=rule["min_image_size"],
        stride=rule["image_stride"],
        max_pixels=rules["max_pixels"],
    )


class StoredLatents:
    """An autoencoder that gives the latents of a fixture, by the noise it is called with."""

    def __init__(self, *pairs: tuple[Tensor, Tensor]) -> None:
        self.pairs = pairs

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        assert noise is not None
        return next(latents for known, latents in self.pairs if torch.equal(known, noise))


def published_plans(case: Case, config: ModelConfig) -> list[SamplePlan]:
    """The raw samples of F2 as plans: sample i shows `raw.image.i`."""
    plans = []
    for index, sample in enumerate(case.value("raw_samples")):
        image = case[f"raw.image.{index}"].numpy()
        texts = iter(sample["text_ids_list"])
        items: list[TextItem | ImageItem] = []
        for item in sample["sequence_plan"]:
            loss = bool(item["loss"])
            if item["type"] == "text":
                dropout = float(sample["text_dropped"] and item["enable_cfg"])
                items.append(TextItem(next(texts), loss=loss, dropout=dropout))
            elif item["type"] == "vae_image":
                items.append(ImageItem("vae", to_pixels(image, config.vae_resize), loss=loss))
            else:
                items.append(ImageItem("vit", to_pixels(image, config.vit_resize)))
        label = sample["label"]  # the head's order: 0 = fake, 1 = real
        plans.append(SamplePlan(items, fake=None if label is None else label == 0))
    return plans


def in_sequence(batch: PackedBatch, hidden: HiddenState) -> Tensor:
    """A hidden state (L, hidden) in the order of the packed sequence."""
    order = torch.cat([batch.text_indexes, batch.vit_indexes, batch.latent_indexes])
    rows = torch.cat([hidden.und, hidden.gen])
    sequence = torch.empty_like(rows)
    sequence[order] = rows
    return sequence


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value per image of values that are given per token."""
    first = torch.stack([(images == image).nonzero()[0, 0] for image in images.unique()])
    return values[first]


def close(actual: Tensor, expected: Tensor, what: str) -> None:
    """float32 agreement as measured between two runs of the reference (specification 0)."""
    torch.testing.assert_close(
        actual.detach(), expected, atol=5e-5, rtol=1e-5, msg=lambda text: f"{what}: {text}"
    )


def exact(actual: Tensor | Sequence[int], expected: Tensor, what: str) -> None:
    """Equality of integer tensors."""
    values = actual if isinstance(actual, Tensor) else torch.tensor(actual)
    assert values.shape == expected.shape and bool((values == expected).all()), what


def close_gradient_norms(model: nn.Module, expected: Mapping[str, float | None]) -> None:
    """The gradient norm of every parameter; None where the loss does not reach it."""
    problems = []
    for name, parameter in model.named_parameters():
        norm = None if parameter.grad is None else float(parameter.grad.norm())
        want = expected[name]
        if want is None or norm is None:
            # A gradient of exact zeros also says that the loss does not reach the parameter.
            agrees = not want and not norm
        else:
            agrees = abs(norm - want) <= GRADIENT_ATOL + GRADIENT_RTOL * abs(want)
        if not agrees:
            problems.append(f"{name}: {norm} instead of {want}")
    assert not problems, "\n".join(problems)


def inference_items(
    case: Case, config: ModelConfig, tokenizer: Tokenizer
) -> list[TextItem | ImageItem]:
    """The inputs of F5 and F6 as items. The published inference resizes by the VAE's rule first."""
    items: list[TextItem | ImageItem] = []
    images = iter(sorted(case.names(r"raw\.image(\.\d+)?")))
    for term in case.value("inputs"):
        if term["type"] == "text":
            items.append(TextItem(tokenizer.encode(term["text"])))
            continue
        image = resize(Image.fromarray(case[next(images)].numpy()), config.vae_resize)
        if term.get("vae", True):
            items.append(ImageItem("vae", to_pixels(image, config.vae_resize)))
        if term.get("vit", True):
            items.append(ImageItem("vit", to_pixels(image, config.vit_resize)))
    return items
