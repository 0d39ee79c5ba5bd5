"""F4: both passes of the alignment stage, its loss and its gradients."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
import torch.nn.functional as F

from tests.golden.fixtures import (
    Case,
    Reference,
    StoredLatents,
    close,
    close_gradient_norms,
    exact,
    in_sequence,
    per_image,
)
from unigendet.config import LossWeights
from unigendet.data.packing import ImageItem, SamplePlan, TextItem, pack
from unigendet.data.transforms import to_pixels
from unigendet.losses import resized_grids
from unigendet.models.attention import sample_mask
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import DigaObjective
from unigendet.teachers.detector import DetectorTeacher
from unigendet.types import AlignmentBatch, PackedBatch

FIXTURE = "F4_*/*"


def _model(case: Case, reference: Reference) -> UniGenDetModel:
    return reference.model(
        alignment_head=True,
        timestep_shift=case.value("timestep_shift"),
        interpolate_pos=case.document.get("interpolate_pos", reference.config.interpolate_pos),
    )


def _texts(case: Case, prefix: str, samples: int, bos: int, eos: int) -> list[list[int]]:
    """The words of each sample's text block, from the packed ids."""
    ids = case[f"{prefix}packed_text_ids"].tolist()
    starts = [place for place, token in enumerate(ids) if token == bos]
    ends = [place for place, token in enumerate(ids) if token == eos]
    assert len(starts) == len(ends) <= samples
    return [ids[start + 1 : end] for start, end in zip(starts, ends, strict=True)]


def _batch(case: Case, reference: Reference, model: UniGenDetModel) -> AlignmentBatch:
    config, markers = model.config, reference.markers
    dropped = case.value("prompt_dropped")
    images = [case[f"raw.image.{index}"].numpy() for index in range(len(dropped))]
    vae = [to_pixels(image, config.vae_resize) for image in images]
    captions = iter(_texts(case, "in.", len(images), markers.bos, markers.eos))
    prompts = _texts(case, "det.in.", len(images), markers.bos, markers.eos)
    student = [
        SamplePlan([*([] if gone else [TextItem(next(captions))]), ImageItem("vae", px, loss=True)])
        for gone, px in zip(dropped, vae, strict=True)
    ]
    teacher = [
        SamplePlan(
            [
                ImageItem("vae", px),
                TextItem(prompt),
                ImageItem("vit", to_pixels(image, config.vit_resize)),
            ]
        )
        for px, prompt, image in zip(vae, prompts, images, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    first = pack(student, config, markers, generator)
    second = pack(teacher, config, markers, generator)
    return AlignmentBatch(
        generation=replace(
            first,
            noise=case["in.noise"],
            posterior_noise=case["in.vae_noise"],
            raw_timesteps=per_image(case["in.packed_timesteps"], first.latent_images),
        ),
        teacher=replace(second, posterior_noise=case["in.det_vae_noise"]),
    )


def _check_pack(case: Case, batch: PackedBatch, prefix: str) -> None:
    exact(batch.text_ids, case[f"{prefix}packed_text_ids"], "text ids")
    exact(batch.text_indexes, case[f"{prefix}packed_text_indexes"], "text places")
    exact(batch.position_ids, case[f"{prefix}packed_position_ids"], "positions")
    exact(batch.latent_position_ids, case[f"{prefix}packed_latent_position_ids"], "latent ids")
    exact(batch.latent_indexes, case[f"{prefix}packed_vae_token_indexes"], "latent places")
    raw = batch.raw_timesteps[batch.latent_images]
    exact(raw, case[f"{prefix}packed_timesteps"], "raw timesteps")


def test_packing(case: Case, reference: Reference) -> None:
    batch = _batch(case, reference, _model(case, reference))
    _check_pack(case, batch.generation, "in.")
    exact(batch.generation.flow_indexes, case["in.mse_loss_indexes"], "flow places")
    for index, splits in enumerate(batch.generation.splits):
        allowed = case[f"in.attention_allowed.{index}"].bool()
        exact(sample_mask(splits), allowed, f"mask of sample {index}")
    if "in.padded_images" in case:
        close(batch.generation.pixels, case["in.padded_images"], "padded images")
    _check_pack(case, batch.teacher, "det.in.")
    assert list(batch.teacher.sample_lens) == case.value("det.sample_lens")
    exact(batch.teacher.vit_indexes, case["det.in.packed_vit_token_indexes"], "ViT places")
    exact(batch.teacher.vit_position_ids, case["det.in.packed_vit_position_ids"], "ViT ids")
    exact([h * w for h, w in batch.teacher.vit_shapes], case["det.in.vit_token_seqlens"], "ViT")
    close(batch.teacher.vit_tokens, case["det.in.packed_vit_tokens"], "ViT patches")


def test_generation_pass(case: Case, reference: Reference) -> None:
    model = _model(case, reference)
    batch = _batch(case, reference, model).generation
    tap = case.document["diga_layer"] - 1
    output = model(batch, case["in.padded_latent"], taps=[tap], project_tap=tap)
    close(output.timesteps[batch.latent_images], case["out.timesteps"], "timesteps")
    close(in_sequence(batch, output.taps[tap]), case["out.gen_tap_all"], "tap")
    close(output.taps[tap].gen, case["out.gen_tap"], "tap at the latents")
    close(output.projected, case["out.projected_gen_tokens"], "projected tap")
    close(in_sequence(batch, output.hidden), case["out.last_hidden_state"], "last hidden state")
    close((output.velocity - output.target).square(), case["out.mse"], "squared error")


def test_detector_pass(case: Case, reference: Reference) -> None:
    model = _model(case, reference)
    batch = _batch(case, reference, model).teacher
    seen = {}
    model.language_model.model.register_forward_pre_hook(
        lambda _, inputs: seen.__setitem__("llm_input", in_sequence(batch, inputs[0]))
    )
    output = model(batch, case["det.in.padded_latent"], num_layers=case.document["diga_layer"])
    if "det.out.llm_input" in case:
        close(seen["llm_input"], case["det.out.llm_input"], "input embeddings")
    assert bool((output.timesteps == 0).all()), "the teacher's latent is clean"
    close(in_sequence(batch, output.hidden), case["det.out.hidden"], "hidden state")
    features = output.hidden.und[len(batch.text_ids) :]
    start = 0
    for index, (rows, columns) in enumerate(batch.vit_shapes):
        grid = features[start : start + rows * columns].T.reshape(1, -1, rows, columns)
        close(grid, case[f"det.out.vit_grid.{index}"], f"grid {index}")
        start += rows * columns
    resized = resized_grids(features, batch.vit_shapes, batch.latent_shapes)
    close(resized, case["out.resized_vit_tokens"], "resized grids")


def test_loss_and_gradients(case: Case, reference: Reference) -> None:
    for weights, gradients in (
        (LossWeights(flow=0.0, align=1.0), "grad_norm_diga"),
        (LossWeights(align=0.5), "grad_norm_total"),
    ):
        model = _model(case, reference)
        vae = StoredLatents(
            (case["in.vae_noise"], case["in.padded_latent"]),
            (case["in.det_vae_noise"], case["det.in.padded_latent"]),
        )
        tap = case.document["diga_layer"] - 1
        teacher = DetectorTeacher(model, vae, tap, live=True)
        objective = DigaObjective(vae, teacher, weights, tap_layer=tap)
        batch = _batch(case, reference, model)
        losses = objective(model, batch)
        close(losses.flow_loss, torch.tensor(case.value("loss")["mse"]), "mse")
        close(losses.align_loss, torch.tensor(case.value("loss")["diga"]), "diga")
        losses.total.backward()
        close_gradient_norms(model, case.value(gradients))
        targets = teacher(batch)
        cosine = F.cosine_similarity(case["out.projected_gen_tokens"], targets)
        close(cosine, case["out.cosine"], "cosine")
    close(losses.total, torch.tensor(case.value("loss")["total"]), "total")
    for key in case.tensors:
        if match := re.fullmatch(r"out\.grad\.(.+)", key):
            gradient = model.get_parameter(match[1]).grad
            assert gradient is not None
            close(gradient, case[key], key)
