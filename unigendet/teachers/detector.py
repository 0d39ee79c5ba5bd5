"""The detector as teacher: as GDUF left it, as it is at each step, or one that learned nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from unigendet.config import ModelConfig
from unigendet.losses import resized_grids
from unigendet.models.unified import UniGenDetModel
from unigendet.objectives import encode_images
from unigendet.teachers.layers import TeacherLayer, depth
from unigendet.types import AlignmentBatch, Encoder, ModelOutput


class DetectorTeacher(nn.Module):
    """The detector's ViT tokens after `layer` and the final norm, resized to the student's grid.

    It reads the real image as latents and patches, and its caption (specification 7, pass 2).

    Args:
        model: frozen here, but for a live teacher.
        vae: encodes the images.
        layer: the published one is the student's tap.
        live: `model` is the student itself, which goes on learning from its own losses.
    """

    def __init__(
        self, model: UniGenDetModel, vae: Encoder, layer: TeacherLayer, *, live: bool = False
    ) -> None:
        super().__init__()
        self.model = model if live else model.eval().requires_grad_(False)
        self.vae = vae
        self.num_layers = depth(layer, model.config.llm.num_hidden_layers)

    @property
    def width(self) -> int:
        return self.model.config.llm.hidden_size

    @torch.no_grad()
    def forward(self, batch: AlignmentBatch) -> Tensor:
        """(Nf, hidden)."""
        grids, seen = batch.grids(), batch.teacher
        output: ModelOutput = self.model(
            seen, encode_images(self.vae, seen), num_layers=self.num_layers
        )
        features = output.hidden.und[seen.text_ids.shape[0] :]
        return resized_grids(features, seen.vit_shapes, grids)


def random_detector(config: ModelConfig, seed: int) -> UniGenDetModel:
    """A model of the detector's shape whose weights are drawn from `seed`, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UniGenDetModel(replace(config, alignment_head=False, alignment_width=None))
