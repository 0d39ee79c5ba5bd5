"""F7: the autoencoder, and F1's names of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.golden.fixtures import Case, Reference, close, model_config
from unigendet.models.vae import LatentAutoencoder

FIXTURE = "F7_*/*"


def test_encode_and_decode(case: Case, golden_vae: LatentAutoencoder) -> None:
    assert golden_vae.config.scale_factor == case.value("scale_factor")
    assert golden_vae.config.shift_factor == case.value("shift_factor")
    pixels = case["in.image"]
    with torch.no_grad():
        close(torch.cat(golden_vae.posterior(pixels), dim=1), case["out.moments"], "moments")
        for latent, noise, decoded in (
            ("out.latent_sample", case["in.noise"], "out.decoded_sample"),
            ("out.latent_mean", None, "out.decoded_mean"),
        ):
            close(golden_vae.encode(pixels, noise), case[latent], latent)
            close(golden_vae.decode(case[latent]), case[decoded], decoded)


def test_weights_keep_their_published_names(reference: Reference) -> None:
    stored = reference.weights("vae_tiny")
    vae = LatentAutoencoder(reference.config.vae)
    vae.load_published_state_dict(stored)
    saved = vae.published_state_dict()
    assert {name: list(value.shape) for name, value in saved.items()} == reference.document["vae"]
    for name, value in saved.items():
        assert torch.equal(value, stored[name]), name


def test_full_size_names(golden: Path) -> None:
    path = golden / "F1_state_dict" / "state_dict_keys_7b.json"
    if not path.exists():
        pytest.skip(f"{golden} has no full-size key list")
    document = json.loads(path.read_text())
    with torch.device("meta"):
        vae = LatentAutoencoder(model_config(document["config"]).vae)
    shapes = {name: list(value.shape) for name, value in vae.published_state_dict().items()}
    assert shapes == document["vae"]
