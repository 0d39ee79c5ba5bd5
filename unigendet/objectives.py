"""Training objectives, (model, batch) -> losses: variants of the method differ here alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from unigendet.config import LossWeights
from unigendet.losses import (
    LossTerms,
    align_loss,
    det_loss,
    flow_loss,
    resized_grids,
    text_loss,
    weighted_sum,
)
from unigendet.models.unified import UniGenDetModel
from unigendet.types import AlignmentBatch, Encoder, ModelOutput, PackedBatch

TeacherLayer = Literal["last", "last_input"] | int
PUBLISHED_TAP = 7
"""The published alignment reads student and teacher after the eighth layer."""


def encode_images(vae: Encoder, batch: PackedBatch) -> Tensor:
    """The latents of a batch's images, (n, z, H, W), with the posterior draw of the batch."""
    with torch.no_grad():
        if not batch.latent_shapes:
            return batch.posterior_noise
        return vae.encode(batch.pixels, batch.posterior_noise)


class FlowObjective:
    """Flow matching alone: the generator's pretraining."""

    def __init__(self, vae: Encoder, weights: LossWeights | None = None) -> None:
        self.vae = vae
        self.weights = weights or LossWeights()

    def __call__(self, model: UniGenDetModel, batch: PackedBatch) -> LossTerms:
        output: ModelOutput = model(batch, encode_images(self.vae, batch))
        return weighted_sum(self.weights, flow=flow_loss(output.velocity, output.target))


class GdufObjective:
    """GDUF: flow, explanation and verdict on one backbone (paper section 3.2, specification 6)."""

    def __init__(
        self, vae: Encoder, weights: LossWeights | None = None, *, reweight_text: bool = False
    ) -> None:
        self.vae = vae
        self.weights = weights or LossWeights()
        self.reweight_text = reweight_text

    def __call__(self, model: UniGenDetModel, batch: PackedBatch) -> LossTerms:
        output: ModelOutput = model(batch, encode_images(self.vae, batch))
        return self.terms(batch, output)

    def terms(
        self, batch: PackedBatch, output: ModelOutput, align: Tensor | None = None
    ) -> LossTerms:
        """The losses of a forward, with an alignment loss where there is one."""
        weights = batch.ce_weights if self.reweight_text else None
        return weighted_sum(
            self.weights,
            flow=flow_loss(output.velocity, output.target),
            text=text_loss(output.ce_logits, batch.ce_labels, weights),
            det=det_loss(output.det_logits, batch.det_labels),
            align=align,
        )


class DigaObjective:
    """DIGA: the generator's features are pulled to the detector's features of the real image.

    Paper section 3.3, specification 7. The student is tapped after layer `tap_layer`, without a
    norm, at the tokens it generates; the teacher's features are its ViT tokens after
    `teacher_layer` and the final norm, resized to the student's grid. No gradient reaches the
    teacher.

    Args:
        vae: encodes the images of both passes.
        teacher: the detector, a model of its own that is frozen here; None uses the student itself
            as it is at each step.
        weights: `flow` and `align`; `text` and `det` count where the generation batch holds
            detection samples.
        tap_layer: the student's layer; the published one is 7, the eighth.
        teacher_layer: a layer, or "last", or "last_input", the input of the last one. None takes
            `tap_layer`, as published.
    """

    def __init__(
        self,
        vae: Encoder,
        teacher: UniGenDetModel | None,
        weights: LossWeights,
        tap_layer: int = PUBLISHED_TAP,
        teacher_layer: TeacherLayer | None = None,
    ) -> None:
        self.vae = vae
        self.teacher = teacher
        self.gduf = GdufObjective(vae, weights)
        self.tap_layer = tap_layer
        self.teacher_layer = tap_layer if teacher_layer is None else teacher_layer
        if teacher is not None:
            teacher.eval().requires_grad_(False)

    def __call__(self, model: UniGenDetModel, batch: AlignmentBatch) -> LossTerms:
        student = batch.generation
        output: ModelOutput = model(
            student, encode_images(self.vae, student), project_tap=self.tap_layer
        )
        assert output.projected is not None
        align = align_loss(output.projected, self.targets(model, batch))
        return self.gduf.terms(student, output, align)

    @torch.no_grad()
    def targets(self, model: UniGenDetModel, batch: AlignmentBatch) -> Tensor:
        """The teacher's features, one row (N, hidden) per token that the student generates."""
        teacher = model if self.teacher is None else self.teacher
        shapes = _generated_shapes(batch.generation)
        if len(shapes) != len(batch.teacher.vit_shapes):
            raise ValueError(
                f"The student generates {len(shapes)} images but the teacher sees "
                f"{len(batch.teacher.vit_shapes)}; a DIGA batch pairs them one to one."
            )
        output: ModelOutput = teacher(
            batch.teacher,
            encode_images(self.vae, batch.teacher),
            num_layers=_depth(self.teacher_layer, teacher.config.llm.num_hidden_layers),
        )
        features = output.hidden.und[batch.teacher.text_ids.shape[0] :]
        return resized_grids(features, batch.teacher.vit_shapes, shapes)


def _generated_shapes(batch: PackedBatch) -> list[tuple[int, int]]:
    generated = (batch.raw_timesteps > -torch.inf).tolist()
    return [shape for shape, wanted in zip(batch.latent_shapes, generated, strict=True) if wanted]


def _depth(layer: TeacherLayer, num_layers: int) -> int:
    """How many layers to run so that the final norm reads the output of `layer`."""
    if layer == "last":
        return num_layers
    if layer == "last_input":
        return num_layers - 1
    return layer + 1
