"""F1: the reference's weights come in through `import_weights`, and go out again, bit for bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.golden.fixtures import Reference
from unigendet.models.exchange import export_weights, import_weights
from unigendet.models.pretrained import config_to_json, load_pretrained


@pytest.mark.parametrize("alignment_head", [False, True])
def test_the_reference_in_and_out(
    reference: Reference, golden: Path, tmp_path: Path, alignment_head: bool
) -> None:
    weights = reference.weights("gduf_tiny")
    if alignment_head:
        weights |= reference.weights("diga_extra_tiny")
    source = tmp_path / "released"
    source.mkdir()
    save_file(weights, source / "ema.safetensors")
    vae = shutil.copy(golden / "F1_state_dict" / "vae_tiny.safetensors", source / "ae.safetensors")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(golden / "tokenizer" / name, source)
    (tmp_path / "config.json").write_text(config_to_json(reference.config))

    import_weights(source, tmp_path / "model", config=tmp_path / "config.json")
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.config == replace(reference.config, alignment_head=alignment_head)
    state = loaded.model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    special = json.loads((golden / "tokenizer" / "special_tokens.json").read_text())
    ids = special["special_token_ids"]
    markers = loaded.tokenizer.markers
    assert (markers.bos, markers.eos) == (ids["bos_token_id"], ids["eos_token_id"])
    assert markers.vision_start == ids["start_of_image"]
    assert markers.vision_end == ids["end_of_image"]
    assert len(loaded.tokenizer) == special["tokenizer_length"]

    export_weights(tmp_path / "model", tmp_path / "published")
    for name, expected in (("ema.safetensors", weights), ("ae.safetensors", load_file(vae))):
        found = load_file(tmp_path / "published" / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    import_weights(tmp_path / "published", tmp_path / "again")  # its own configuration files
    assert load_pretrained(tmp_path / "again").config == loaded.config
