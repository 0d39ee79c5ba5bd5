"""F1: names and shapes of every tensor, tiny and full size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.golden.fixtures import Reference, model_config
from unigendet.models.unified import UniGenDetModel


def _shapes(model: UniGenDetModel) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def test_tiny_state_dict_loads_strictly(reference: Reference) -> None:
    expected = reference.document["gduf"]
    model = UniGenDetModel(reference.config)
    assert _shapes(model) == expected
    model.load_state_dict(reference.weights("gduf_tiny"), strict=True)


def test_tiny_alignment_state_dict(reference: Reference) -> None:
    expected = reference.document["gduf"] | reference.document["diga_extra"]
    assert _shapes(UniGenDetModel(replace(reference.config, alignment_head=True))) == expected


def test_fixed_tables_match_stored_ones(reference: Reference) -> None:
    """Fresh tables equal the stored ones, and nothing but them is fixed."""
    stored = reference.weights("gduf_tiny")
    fresh = UniGenDetModel(reference.config)
    fixed = {name for name, _ in fresh.named_buffers()}
    assert fixed == set(reference.document["gduf_not_trainable"])
    for name in fixed:
        torch.testing.assert_close(fresh.state_dict()[name], stored[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("alignment_head", [False, True])
def test_full_size_state_dict(golden: Path, alignment_head: bool) -> None:
    path = golden / "F1_state_dict" / "state_dict_keys_7b.json"
    if not path.exists():
        pytest.skip(f"{golden} has no full-size key list")
    document = json.loads(path.read_text())
    config = replace(model_config(document["config"]), alignment_head=alignment_head)
    with torch.device("meta"):
        model = UniGenDetModel(config)
    expected = dict(document["gduf"]) | (document["diga_extra"] if alignment_head else {})
    assert _shapes(model) == expected
    if not alignment_head:
        total = sum(tensor.numel() for tensor in model.state_dict().values())
        assert total == document["counts"]["gduf_parameters"]
