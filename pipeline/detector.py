"""Stage pretrain_detector: image encoder, understanding expert, verdict head and explanations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.detection_data import DetectionData
from pipeline.exporting import export_session, write_summary
from pipeline.ray_train import train_on_ray
from pipeline.sections.detector import DetectorSection
from pipeline.stage import StageContext

if TYPE_CHECKING:
    from unigendet.training.session import TrainingSession

_RESULT = "detector"
_WHITENING_IMAGES = 256
"""Training images whose patches set the start of the image encoder."""


@dataclass(frozen=True, slots=True)
class DetectorJob:
    """All that the worker needs."""

    generator: Path
    data: DetectionData
    section: DetectorSection


def pretrain_detector(ctx: StageContext) -> None:
    """Write the detector's model folder and history into `ctx.out`."""
    section = ctx.params.pretrain_detector
    data = DetectionData.of(ctx, section, validation_images=section.validation_images)
    job = DetectorJob(ctx.inputs["pretrain_generator"], data, section)
    finished = train_on_ray(ctx, train_detector, job)
    export_session(ctx, finished, _RESULT)


def train_detector(session: TrainingSession, job: DetectorJob) -> None:
    """The one phase; runs in the worker."""
    session.once(_RESULT, partial(_train, session, job))


def _train(session: TrainingSession, job: DetectorJob, folder: Path) -> None:
    import torch

    from unigendet.inference import UniGenDet
    from unigendet.models.initialisation import whiten_patch_embedding
    from unigendet.models.pretrained import load_pretrained
    from unigendet.objectives import GdufObjective

    section = job.section
    optim = section.optim.config()
    if section.whiten_patches:
        start = load_pretrained(job.generator, smsa=job.data.smsa)
        torch.manual_seed(job.data.seed)
        whiten_patch_embedding(start.model, job.data.patches(start.config, _WHITENING_IMAGES))
        session.distribute(start.model, optim)
    else:
        start = session.load(job.generator, optim, smsa=job.data.smsa)
    vae = start.vae.to(session.device).requires_grad_(False)
    if optim.steps:
        batches = job.data.batches(
            session,
            start.tokenizer,
            start.config,
            generation_per_step=section.generation_per_step,
            detection_per_step=section.detection_per_step,
            phase_seed=1,
            budget=section.token_budget.config() if section.token_budget else None,
        )
        objective = GdufObjective(vae, section.weights.config())
        trained = session.train(_RESULT, start.model, objective, batches.batch, optim)
        trained.ema.copy_to_model()
    session.save(folder, start.model, vae, start.tokenizer)
    if not session.leader:
        return
    detector = UniGenDet.from_pretrained(folder, session.device)
    found = job.data.validate(detector)
    figures = {f"val_{name}": value for name, value in found.scalars().items()}
    write_summary(folder, figures, reals=found.reals, fakes=found.fakes)
