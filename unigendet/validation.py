"""A quick look at a model on validation data, the same images and draws for every model.

Sweeps and training stages compare models with it; final figures come from `evaluation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from unigendet.data.packing import SamplePlan, pack
from unigendet.data.prompts import detection_plan, generation_plan
from unigendet.data.streams import draw_generator
from unigendet.data.tokenizer import Tokenizer
from unigendet.metrics.detection import area_under, roc_curve
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import encode_images
from unigendet.types import Encoder, ModelOutput, PackedBatch, Sample

_BATCH = 32
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Validation:
    """Figures of one model. Losses are means over images (flow, verdict) or answers' tokens."""

    reals: int
    fakes: int
    auroc: float
    """P(a fake scores above a real image), all families together."""
    auroc_by_family: Mapping[str, float]
    det_loss: float
    text_loss: float
    flow_loss: float

    def scalars(self) -> dict[str, float]:
        """Every figure under one flat name, for logs."""
        families = {f"auroc_{name}": value for name, value in self.auroc_by_family.items()}
        return {
            "auroc": self.auroc,
            **families,
            "det_loss": self.det_loss,
            "text_loss": self.text_loss,
            "flow_loss": self.flow_loss,
        }


def spread(samples: Sequence[Item], count: int) -> list[Item]:
    """At most `count` samples (or their places), evenly spread over `samples`."""
    taken = min(count, len(samples))
    return [samples[place * len(samples) // taken] for place in range(taken)]


@torch.no_grad()
def validate(
    model: UniGenDetModel,
    vae: Encoder,
    tokenizer: Tokenizer,
    real: Sequence[Sample],
    fakes: Sequence[Sample],
    *,
    seed: int = 0,
) -> Validation:
    """Judge all of `real` and `fakes`, and measure the flow loss on `real`.

    Images are read as their posterior means. Timesteps and noise of the flow loss are drawn from
    `seed`, so two models are compared on the same draws.
    """
    device = model.llm2vae.weight.device
    real, fakes = list(real), list(fakes)
    samples = [*real, *fakes]
    scores, verdicts, answers = list[float](), list[float](), list[float]()
    model.eval()
    for start in range(0, len(samples), _BATCH):
        part = samples[start : start + _BATCH]
        plans = [detection_plan(sample, tokenizer, model.config) for sample in part]
        batch = _packed(plans, model, tokenizer, seed, start)
        output: ModelOutput = model(batch.to(device), encode_images(vae, batch.to(device)))
        scores += output.det_logits.float().softmax(-1)[:, 0].tolist()
        # Means of this process alone: where several train, only one of them may be validating.
        verdict = F.cross_entropy(output.det_logits.float(), batch.det_labels.to(device))
        answer = F.cross_entropy(output.ce_logits.float(), batch.ce_labels.to(device))
        verdicts.append(float(verdict) * len(part))
        answers.append(float(answer) * len(part))
    labels = np.array([sample.fake for sample in samples])
    values = np.array(scores)
    families = sorted({sample.generator for sample in fakes})
    of_family = {
        name: np.array([not s.fake or s.generator == name for s in samples]) for name in families
    }
    return Validation(
        reals=len(real),
        fakes=len(fakes),
        auroc=area_under(roc_curve(labels, values)),
        auroc_by_family={
            name: area_under(roc_curve(labels[chosen], values[chosen]))
            for name, chosen in of_family.items()
        },
        det_loss=sum(verdicts) / len(samples),
        text_loss=sum(answers) / len(samples),
        flow_loss=flow_loss(model, vae, tokenizer, real, seed=seed),
    )


@torch.no_grad()
def flow_loss(
    model: UniGenDetModel,
    vae: Encoder,
    tokenizer: Tokenizer,
    real: Sequence[Sample],
    *,
    seed: int = 0,
) -> float:
    """The flow-matching loss on real images, each with its caption, timestep and noise of `seed`.

    Raises ValueError without images, and where one is a fake.
    """
    if not real:
        raise ValueError("a flow loss needs at least one real image")
    device = model.llm2vae.weight.device
    model.eval()
    total = 0.0
    for start in range(0, len(real), _BATCH):
        part = real[start : start + _BATCH]
        plans = [generation_plan(sample, tokenizer, model.config, 0.0) for sample in part]
        batch = _packed(plans, model, tokenizer, seed, start).to(device)
        output = model(batch, encode_images(vae, batch))
        error = F.mse_loss(output.velocity.float(), output.target.float())
        total += float(error) * len(part)
    return total / len(real)


def _packed(
    plans: Sequence[SamplePlan],
    model: UniGenDetModel,
    tokenizer: Tokenizer,
    seed: int,
    start: int,
) -> PackedBatch:
    batch = pack(plans, model.config, tokenizer.markers, draw_generator(seed, 0, start))
    return replace(batch, posterior_noise=torch.zeros_like(batch.posterior_noise))
