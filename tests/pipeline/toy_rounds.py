"""One round of co-evolution of a small model that nobody trained, on real tiles; also by ranks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import distributed

from pipeline.coevolve import CoevolveJob, train_rounds
from pipeline.detection_data import DetectionData
from pipeline.loss_weights import AlignmentWeights
from pipeline.params import load_params
from pipeline.sections.coevolve import CoevolveSection
from tests.models.tiny import square_config
from tests.training.miniature import write_miniature
from unigendet.data.degradations import Degradations
from unigendet.data.tokenizer import Tokenizer
from unigendet.models.pretrained import save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.training.session import TrainingSession

IMAGES, REFERENCE = 6, 8


def toy_section() -> CoevolveSection:
    """One round of two steps each, on numbers of samples that two ranks can share."""
    smoke = load_params(Path(__file__).parents[2] / "profiles" / "smoke.yaml").coevolve
    optim = smoke.gduf.optim.model_copy(update={"steps": 2, "lr": 0.02})
    update = {
        "rounds": 1,
        "matrix_images": IMAGES,
        "gduf": smoke.gduf.model_copy(update={"optim": optim}),
        "diga": smoke.diga.model_copy(update={"detection_per_step": 4}),
        "samples": smoke.samples.model_copy(update={"count": 2, "steps": 2}),
    }
    return smoke.model_copy(update=update)


def toy_job(folder: Path) -> CoevolveJob:
    """32 px tiles, blurred fakes of them, and the model, all in `folder`."""
    section = toy_section()
    data = write_miniature(folder, tile=32)
    tokenizer = Tokenizer.load(data.shards)
    config = square_config(len(tokenizer))
    torch.manual_seed(0)
    model, vae = UniGenDetModel(config).eval(), LatentAutoencoder(config.vae).eval()
    # Fresh output weights are zero; here they are to make a difference.
    for head in (model.llm2vae, model.fake_cls_head):
        for weight in head.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    save_pretrained(folder / "detector", model, vae, tokenizer)
    detection = DetectionData(
        data.shards,
        data.forged,
        seed=4,
        smsa=True,
        text_dropout=0.1,
        validation_images=REFERENCE,
        degradations=Degradations(0.0, 0.7, 0.5, 1.0, 5.0, 60),
        fresh_share=section.fresh_share,
    )
    weights = AlignmentWeights(1.0, 1.0, 0.5, 0.5, tap_layer=1)
    return CoevolveJob(folder / "detector", detection, weights, section)


def rank_main(rank: int, world: int, folder: Path, job: CoevolveJob) -> None:
    """One rank's part of the rounds; all ranks share the session in `folder`."""
    torch.set_num_threads(1)
    rendezvous = f"file://{folder / 'rendezvous'}"
    distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    train_rounds(TrainingSession(folder / "session", say=lambda _: None), job)
    distributed.destroy_process_group()
