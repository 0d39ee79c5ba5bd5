"""The DIGA projector comes and goes: it serves the alignment loss and is no part of the result."""

from __future__ import annotations

from dataclasses import replace

import torch

from unigendet.models.unified import UniGenDetModel

_PREFIX = "diga_mlp."


def with_alignment_head(model: UniGenDetModel, seed: int) -> UniGenDetModel:
    """A copy of `model` with a `diga_mlp`: the model's own, or a fresh one drawn from `seed`."""
    return _rebuilt(model, alignment_head=True, seed=seed)


def without_alignment_head(model: UniGenDetModel) -> UniGenDetModel:
    """A copy of `model` without `diga_mlp`: what detects and generates."""
    return _rebuilt(model, alignment_head=False, seed=0)


def _rebuilt(model: UniGenDetModel, *, alignment_head: bool, seed: int) -> UniGenDetModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rebuilt = UniGenDetModel(replace(model.config, alignment_head=alignment_head))
    weights = rebuilt.state_dict()
    weights.update({name: value for name, value in model.state_dict().items() if name in weights})
    rebuilt.load_state_dict(weights)
    return rebuilt.to(next(model.parameters()).device)
