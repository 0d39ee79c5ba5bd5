"""The families that the project's own model makes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.tiny import square_config
from unigendet.data.prompts import prompt_corpus
from unigendet.data.tokenizer import train_tokenizer
from unigendet.forgeries.config import FlowConfig, ForgeryConfig, ReconstructionConfig
from unigendet.forgeries.registry import build_family
from unigendet.inference import UniGenDet
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

SMALL = ForgeryConfig(
    reconstruction=ReconstructionConfig(batch_size=3), flow=FlowConfig(steps=3, batch_size=3)
)


@pytest.fixture(scope="module")
def generator() -> UniGenDet:
    tokenizer = train_tokenizer([*prompt_corpus(), "desert", "forest"], 300)
    config = square_config(len(tokenizer), min_size=16)
    torch.manual_seed(0)
    model = UniGenDetModel(config).eval()
    torch.nn.init.normal_(model.llm2vae.weight, std=0.5)
    return UniGenDet(model, LatentAutoencoder(config.vae).eval(), tokenizer)


@pytest.mark.parametrize("name", ["reconstruction", "flow"])
def test_own_fakes(name: str, generator: UniGenDet, real: Tensor) -> None:
    family = build_family(name, SMALL, generator=generator)
    captions = ["desert", "forest", "desert", "desert"]
    assert family.fit(real, ["land"] * 48, seed=0) == 0.0
    assert family.weights() == b""
    made = family.make(real[:4], captions, seed=1)
    assert made.shape == real[:4].shape and made.dtype == torch.float32
    assert made.min() >= -1 and made.max() <= 1
    assert torch.equal(made, family.make(real[:4], captions, seed=1))
    other = family.make(real[:4], captions, seed=2)
    # A reconstruction has nothing random; a sample is all chance.
    assert torch.equal(made, other) == (name == "reconstruction")
    assert family.traits.own_decoder


def test_reconstructions_are_the_autoencoders_own(generator: UniGenDet, real: Tensor) -> None:
    made = build_family("reconstruction", SMALL, generator=generator).make(
        real[:4], ["land"] * 4, seed=0
    )
    with torch.no_grad():
        mean = generator.vae.encode(real[:4])
        expected = generator.vae.decode(mean).clamp(-1, 1)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)
