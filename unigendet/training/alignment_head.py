"""The DIGA projector serves the alignment loss and is no part of the result."""

from __future__ import annotations

from dataclasses import replace

import torch

from unigendet.models.unified import UniGenDetModel

_PREFIX = "diga_mlp."


def without_alignment_head(model: UniGenDetModel) -> UniGenDetModel:
    """A model without `diga_mlp`, which detects and generates with `model`'s own weights."""
    with torch.device("meta"):
        config = replace(model.config, alignment_head=False, alignment_width=None)
        bare = UniGenDetModel(config)
    kept = {n: value for n, value in model.state_dict().items() if not n.startswith(_PREFIX)}
    bare.load_state_dict(kept, assign=True)
    return bare.train(model.training)
