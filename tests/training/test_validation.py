"""Validation figures: the same for the same model, true to their definitions, of every image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.params import load_params
from tests.training.miniature import Miniature, write_miniature
from unigendet.data.answers import read_answers
from unigendet.data.shards import ShardDataset
from unigendet.data.streams import Selection
from unigendet.data.tokenizer import Tokenizer
from unigendet.inference import UniGenDet
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.validation import flow_loss, spread, validate


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return write_miniature(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(data: Miniature) -> UniGenDet:
    params = load_params(Path(__file__).parents[2] / "profiles" / "smoke.yaml")
    tokenizer = Tokenizer.load(data.shards)
    torch.manual_seed(0)
    network = UniGenDetModel(params.model.config(len(tokenizer)))
    for parameter in network.fake_cls_head.parameters():  # an untrained head says one half
        torch.nn.init.normal_(parameter, std=0.3)
    return UniGenDet(network, LatentAutoencoder(network.config.vae), tokenizer)


def test_figures_agree_with_inference_and_repeat(data: Miniature, model: UniGenDet) -> None:
    answers = read_answers(data.forged, "val")
    real = Selection([ShardDataset(data.shards, "val")], fake=False, explanations=answers)
    fakes = Selection([ShardDataset(data.forged, "val")], fake=True)
    first = validate(model.model, model.vae, model.tokenizer, real, fakes, seed=3)
    again = validate(model.model, model.vae, model.tokenizer, real, fakes, seed=3)
    assert first == again
    other = validate(model.model, model.vae, model.tokenizer, real, fakes, seed=4)
    assert other.flow_loss != first.flow_loss
    assert other.auroc == first.auroc  # posterior means: detection draws nothing

    images = [sample.image for sample in [*real, *fakes]]
    scores = np.array([found.score for found in model.detect(images, explain=False)])
    on_real, on_fake = scores[: len(real)], scores[len(real) :]
    above = (on_fake[:, None] > on_real[None]).mean()
    assert first.auroc == pytest.approx(above)
    assert first.auroc_by_family == {"blurred": pytest.approx(above)}
    expected = -np.concatenate([np.log(1 - on_real), np.log(on_fake)]).mean()
    assert first.det_loss == pytest.approx(expected, rel=1e-4)
    assert (first.reals, first.fakes) == (len(real), len(fakes))


def test_a_flow_loss_is_of_real_images_and_fixed_draws(data: Miniature, model: UniGenDet) -> None:
    real, fake = ShardDataset(data.shards, "val"), ShardDataset(data.forged, "val")
    parts = (model.model, model.vae, model.tokenizer)
    found = flow_loss(*parts, list(real), seed=3)
    # The model draws nothing yet: what is left is noise less data.
    assert found == flow_loss(*parts, list(real), seed=3) != flow_loss(*parts, list(real), seed=4)
    assert 0.9 < found < 10
    with pytest.raises(ValueError, match="only real images may be generated"):
        flow_loss(*parts, list(fake))
    with pytest.raises(ValueError, match="at least one real image"):
        flow_loss(*parts, [])


def test_spread_takes_from_the_whole_set(data: Miniature) -> None:
    real = ShardDataset(data.shards, "train")
    keys = [sample.key for sample in spread(real, 6)]
    assert keys == [real[place].key for place in range(0, 24, 4)]
    assert len(spread(real, 1000)) == len(real)
