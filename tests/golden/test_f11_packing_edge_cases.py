"""F11: plans that the published datasets do not emit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tests.golden.fixtures import Case, Reference, close, exact
from unigendet.config import ModelConfig
from unigendet.data.packing import ImageItem, SamplePlan, TextItem, pack
from unigendet.models.attention import sample_mask
from unigendet.types import PackedBatch

FIXTURE = "F11_*/*"

_EXACT: dict[str, Callable[[PackedBatch], Any]] = {
    "packed_text_ids": lambda batch: batch.text_ids,
    "packed_text_indexes": lambda batch: batch.text_indexes,
    "packed_position_ids": lambda batch: batch.position_ids,
    "packed_vae_token_indexes": lambda batch: batch.latent_indexes,
    "packed_vit_token_indexes": lambda batch: batch.vit_indexes,
    "packed_latent_position_ids": lambda batch: batch.latent_position_ids,
    "packed_vit_position_ids": lambda batch: batch.vit_position_ids,
    "vit_token_seqlens": lambda batch: [h * w for h, w in batch.vit_shapes],
    "mse_loss_indexes": lambda batch: batch.flow_indexes,
    "ce_loss_indexes": lambda batch: batch.ce_indexes,
    "packed_label_ids": lambda batch: batch.ce_labels,
}


def _plan(sample: dict[str, Any], dropout: dict[str, float], config: ModelConfig) -> SamplePlan:
    texts = iter(sample["text_ids_list"])
    items: list[TextItem | ImageItem] = []
    for item in sample["plan"]:
        kind = item["type"].removesuffix("_image")
        probability = float(dropout[kind]) if item["enable_cfg"] else 0.0
        label = item["special_token_label"] if item["special_token_loss"] else None
        if kind == "text":
            items.append(TextItem(next(texts), bool(item["loss"]), probability, label))
        else:
            patch = config.vit.patch_size
            if kind == "vae":
                patch = config.vae.downsample * config.latent_patch_size
            rows, columns = item["hw"]
            pixels = torch.zeros(3, rows * patch, columns * patch)
            items.append(ImageItem(kind, pixels, bool(item["loss"]), probability, label))
    return SamplePlan(items)


def test_edge_cases(case: Case, reference: Reference) -> None:
    config = replace(
        reference.config,
        interpolate_pos=case.document.get("interpolate_pos", reference.config.interpolate_pos),
    )
    for index, published in enumerate(case.value("cases")):
        plans = [_plan(s, published["dropout"], config) for s in published["samples"]]
        batch = pack(plans, config, reference.markers, torch.Generator().manual_seed(index))
        assert list(batch.sample_lens) == published["sample_lens"]
        for splits, expected in zip(batch.splits, published["splits"], strict=True):
            assert [split.length for split in splits] == expected["split_lens"]
            assert [split.mode for split in splits] == expected["attn_modes"]
        for name, field in _EXACT.items():
            key = f"{index}.{name}"
            actual = torch.as_tensor(field(batch))
            exact(actual, case[key] if key in case else actual[:0], key)
        for sample, splits in enumerate(batch.splits):
            key = f"{index}.attention_allowed.{sample}"
            exact(sample_mask(splits), case[key].bool(), key)
        weights = f"{index}.ce_loss_weights"
        close(batch.ce_weights, case[weights] if weights in case else torch.zeros(0), weights)
        raw = batch.raw_timesteps[batch.latent_images]
        key = f"{index}.packed_timesteps"
        if key in case:
            clean = torch.isneginf(case[key])
            exact(torch.isneginf(raw), clean, f"case {index}: clean images")
