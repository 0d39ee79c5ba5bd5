"""A small untrained model whose answers and velocities are not trivial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models.tiny import square_config
from unigendet.config import ModelConfig
from unigendet.data.prompts import prompt_corpus
from unigendet.data.tokenizer import Tokenizer, train_tokenizer
from unigendet.inference import UniGenDet
from unigendet.models.pretrained import save_pretrained
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder


@pytest.fixture(scope="session")
def small_tokenizer() -> Tokenizer:
    return train_tokenizer([*prompt_corpus(), "pale desert", "dark forest"], 300)


@pytest.fixture(scope="session")
def small_config(small_tokenizer: Tokenizer) -> ModelConfig:
    return square_config(len(small_tokenizer), layers=3, min_size=16)


@pytest.fixture(scope="session")
def small(small_config: ModelConfig, small_tokenizer: Tokenizer) -> UniGenDet:
    """Shared: no test may change it."""
    torch.manual_seed(0)
    model = UniGenDetModel(small_config).eval()
    for head in (model.llm2vae, model.fake_cls_head[-1], model.language_model.lm_head):
        torch.nn.init.normal_(head.weight, std=0.5)  # fresh heads are zero and say nothing
    return UniGenDet(model, LatentAutoencoder(small_config.vae).eval(), small_tokenizer)


@pytest.fixture(scope="session")
def model_folder(small: UniGenDet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: no test may change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_pretrained(folder, small.model, small.vae, small.tokenizer)
    return folder


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Five pictures of three sizes."""
    generator = np.random.default_rng(0)
    sizes = [(32, 32), (24, 40), (32, 32), (20, 16), (24, 40)]
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture
def picture_files(pictures: list[np.ndarray], tmp_path: Path) -> list[Path]:
    paths = []
    for index, picture in enumerate(pictures):
        paths.append(tmp_path / f"picture-{index}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths
