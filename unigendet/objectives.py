"""Training objectives, (model, batch) -> losses: variants of the method differ here alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unigendet.config import AlignmentSchedule, LossWeights
from unigendet.losses import (
    LossTerms,
    align_loss,
    det_loss,
    flow_loss,
    text_loss,
    weighted_sum,
)
from unigendet.models.unified import UniGenDetModel
from unigendet.types import AlignmentBatch, Encoder, ModelOutput, PackedBatch, Teacher

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
        ce_weights = batch.ce_weights if self.reweight_text else None
        return _joint_terms(self.weights, batch, output, ce_weights=ce_weights)


class DigaObjective:
    """DIGA: the generator's features are pulled to the detector's features of the real image.

    Paper section 3.3, specification 7. The student is tapped after layer `tap_layer`, without a
    norm, at the tokens it generates; its projection learns the direction of the teacher's features
    there. No gradient reaches the teacher.

    Args:
        vae: encodes the images that are generated.
        teacher: `unigendet.teachers` has the detector, and what it is compared with.
        weights: `flow` and `align`; `text` and `det` count where the generation batch holds
            detection samples.
        tap_layer: the student's layer; the published one is 7, the eighth.
        schedule: of the weight `align`; None leaves it as it is. The step is the batch's.
    """

    def __init__(
        self,
        vae: Encoder,
        teacher: Teacher,
        weights: LossWeights,
        tap_layer: int = PUBLISHED_TAP,
        schedule: AlignmentSchedule | None = None,
    ) -> None:
        self.vae = vae
        self.teacher = teacher
        self.weights = weights
        self.tap_layer = tap_layer
        self.schedule = schedule

    def __call__(self, model: UniGenDetModel, batch: AlignmentBatch) -> LossTerms:
        student = batch.generation
        output: ModelOutput = model(
            student, encode_images(self.vae, student), project_tap=self.tap_layer
        )
        assert output.projected is not None
        align = align_loss(output.projected, self.teacher(batch))
        part = 1.0 if self.schedule is None else self.schedule.at(batch.step)
        weights = replace(self.weights, align=part * self.weights.align)
        terms = _joint_terms(weights, student, output, align=align)
        return replace(terms, align_weight=weights.align)


def _joint_terms(
    weights: LossWeights,
    batch: PackedBatch,
    output: ModelOutput,
    *,
    align: Tensor | None = None,
    ce_weights: Tensor | None = None,
) -> LossTerms:
    """The losses of a forward, with an alignment loss where there is one."""
    return weighted_sum(
        weights,
        flow=flow_loss(output.velocity, output.target),
        text=text_loss(output.ce_logits, batch.ce_labels, ce_weights),
        det=det_loss(output.det_logits, batch.det_labels),
        align=align,
    )
