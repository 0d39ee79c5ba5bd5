"""Stage pretrain_generator: the autoencoder, then flow matching, in one training worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base_model import check_base
from pipeline.exporting import export_session, write_summary
from pipeline.pictures import draw_rows
from pipeline.ray_train import train_on_ray
from pipeline.sections.generator import GeneratorSection
from pipeline.sections.model import ModelSection
from pipeline.stage import StageContext
from pipeline.workspace import persistent_root
from unigendet.data.shards import ShardDataset, one_size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from unigendet.config import ModelConfig, OptimConfig
    from unigendet.inference import UniGenDet
    from unigendet.models.pretrained import Pretrained
    from unigendet.models.vae import LatentAutoencoder
    from unigendet.training.session import TrainingSession
    from unigendet.types import Sample

_AUTOENCODER, _RESULT = "autoencoder", "generator"
_SCALING_IMAGES = 256
"""Training images from which the latents' start and, in the end, their scale are measured."""
_PSNR_IMAGES = 256


@dataclass(frozen=True, slots=True)
class GeneratorJob:
    """All that the worker needs."""

    seed: int
    shards: Path
    model: ModelSection
    section: GeneratorSection
    base: Path | None = None
    """The model folder to start from; None trains from scratch."""


def pretrain_generator(ctx: StageContext) -> None:
    """Write the generator's model folder, its history and its pictures into `ctx.out`."""
    section = ctx.params.pretrain_generator
    base = None
    if section.base:
        # From the repository, in temporary workspaces too, like `data.folder`.
        base = persistent_root(ctx.workspace) / Path(section.base).expanduser()
        check_base(base, ctx.params.model)
    shards = ctx.inputs["shard"]
    one_size([ShardDataset(shards, name, verify=False) for name in ("train", "val")])
    job = GeneratorJob(ctx.seed, shards, ctx.params.model, section, base)
    finished = train_on_ray(ctx, train_generator, job)
    export_session(ctx, finished, _RESULT)


def train_generator(session: TrainingSession, job: GeneratorJob) -> None:
    """Both phases; runs in the worker."""
    if job.base is None:
        session.once(_AUTOENCODER, partial(_train_autoencoder, session, job))
    session.once(_RESULT, partial(_train_flow, session, job))


def _train_autoencoder(session: TrainingSession, job: GeneratorJob, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from unigendet.models.initialisation import whiten_latents
    from unigendet.models.vae import LatentAutoencoder
    from unigendet.training.autoencoder import AutoencoderObjective, AutoencoderTrainee, PatchCritic
    from unigendet.training.autoencoder_batches import AutoencoderBatches
    from unigendet.validation import spread

    section = job.section.autoencoder
    config = job.model.config(vocab_size=1)
    real = ShardDataset(job.shards, "train").only(fake=False)
    torch.manual_seed(job.seed)
    vae = LatentAutoencoder(config.vae)
    pixels = _pixels(spread(real, _SCALING_IMAGES), config)
    whiten_latents(vae, pixels)
    critic = PatchCritic(section.critic_width) if section.weights.adversary > 0 else None
    batches = AutoencoderBatches(
        real,
        section.batch_size,
        crop=section.crop,
        config=config.vae,
        resize=config.vae_resize,
        steps=section.optim.steps,
        seed=job.seed,
        rank=session.rank,
        world=session.world,
    )
    trained = session.train(
        _AUTOENCODER,
        AutoencoderTrainee(vae, critic),
        AutoencoderObjective(section.weights.config()),
        batches,
        section.optim.config(),
    )
    trained.ema.copy_to_model()
    if not session.leader:
        return
    vae.fit_scaling(pixels.to(session.device))
    save_file(vae.cpu().published_state_dict(), folder / "vae.safetensors")
    scaling = {"scale_factor": vae.config.scale_factor, "shift_factor": vae.config.shift_factor}
    (folder / "scaling.json").write_text(json.dumps(scaling), encoding="utf-8")


def _load_autoencoder(session: TrainingSession, job: GeneratorJob) -> LatentAutoencoder:
    from unigendet.models.vae import LatentAutoencoder
    from unigendet.models.weight_files import read_weights

    folder = session.kept(_AUTOENCODER)
    scaling = json.loads((folder / "scaling.json").read_text(encoding="utf-8"))
    vae = LatentAutoencoder(replace(job.model.config(vocab_size=1).vae, **scaling))
    vae.load_published_state_dict(read_weights(folder / "vae.safetensors"))
    return vae.to(session.device).eval().requires_grad_(False)


def _start(session: TrainingSession, job: GeneratorJob, optim: OptimConfig) -> Pretrained:
    """What flow matching begins with: the base, or fresh weights on the trained autoencoder."""
    import torch

    from unigendet.data.tokenizer import Tokenizer
    from unigendet.models.pretrained import Pretrained
    from unigendet.models.unified import UniGenDetModel

    if job.base is not None:
        return session.load(job.base, optim)
    vae, tokenizer = _load_autoencoder(session, job), Tokenizer.load(job.shards)
    config = replace(job.model.config(vocab_size=len(tokenizer)), vae=vae.config)
    torch.manual_seed(job.seed)
    model = session.distribute(UniGenDetModel(config), optim)
    return Pretrained(model, vae, tokenizer)


def _train_flow(session: TrainingSession, job: GeneratorJob, folder: Path) -> None:
    from unigendet.data.loader import MixedBatches
    from unigendet.inference import UniGenDet
    from unigendet.objectives import FlowObjective
    from unigendet.validation import spread

    section = job.section.flow
    optim = section.optim.config()
    start = _start(session, job, optim)
    if optim.steps:
        batches = MixedBatches(
            [ShardDataset(job.shards, "train", verify=False)],
            generation_per_step=section.batch_size,
            detection_per_step=0,
            tokenizer=start.tokenizer,
            config=start.config,
            seed=job.seed,
            rank=session.rank,
            world=session.world,
            budget=section.token_budget.config() if section.token_budget else None,
            text_dropout=section.text_dropout,
        )
        objective = FlowObjective(start.vae)
        trained = session.train("flow", start.model, objective, batches.batch, optim)
        trained.ema.copy_to_model()
    session.save(folder, start.model, start.vae, start.tokenizer)
    if not session.leader:
        return
    session.say("flow: drawing samples")
    generator = UniGenDet.from_pretrained(folder, session.device)
    validation = ShardDataset(job.shards, "val", verify=False).only(fake=False)
    figures = {"val_psnr_db": _psnr(generator, spread(validation, _PSNR_IMAGES))}
    _draw(generator, spread(validation, job.section.samples.count), job, folder)
    parameters = sum(parameter.numel() for parameter in generator.model.parameters())
    write_summary(folder, figures, parameters=parameters)


def _pixels(samples: Sequence[Sample], config: ModelConfig) -> Tensor:
    """(N, 3, H, W) in [-1, 1], as the autoencoder sees them."""
    import torch

    from unigendet.data.transforms import to_pixels

    return torch.stack([to_pixels(sample.image, config.vae_resize) for sample in samples])


def _reconstructed(generator: UniGenDet, samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8: through the posterior's mean and back."""
    import torch

    from unigendet.data.transforms import to_image

    pixels = _pixels(samples, generator.config)
    device = generator.model.llm2vae.weight.device
    with torch.no_grad():
        return to_image(generator.vae.decode(generator.vae.encode(pixels.to(device))))


def _psnr(generator: UniGenDet, samples: Sequence[Sample]) -> float:
    """Mean peak signal-to-noise ratio of reconstructions in dB."""
    import numpy as np

    from unigendet.metrics.samples import psnr

    originals = np.stack([sample.image for sample in samples])
    return float(psnr(originals, _reconstructed(generator, samples)).mean())


def _draw(generator: UniGenDet, samples: Sequence[Sample], job: GeneratorJob, folder: Path) -> None:
    drawing = job.section.samples
    captions = [sample.caption for sample in samples]
    generated = generator.generate(
        captions, steps=drawing.steps, guidance=drawing.guidance, seed=job.seed
    )
    rows: list[tuple[str, Sequence[NDArray[np.uint8]]]] = [
        ("real", [sample.image for sample in samples]),
        ("reconstructed", list(_reconstructed(generator, samples))),
        ("generated for the caption", generated),
    ]
    draw_rows(folder / "samples.png", rows, captions)
