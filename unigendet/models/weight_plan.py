"""Which tensor of a model comes from where, settled before any is written.

Tensors come from published weights, from a formula (the fixed position tables) or from a seed (the
additions that were asked for). What is missing, left over or of another shape is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unigendet.config import AutoencoderConfig, ModelConfig
from unigendet.models.initialisation import fresh_addition
from unigendet.models.positions import sincos_table
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder
from unigendet.models.weight_files import WeightFiles, open_weights
from unigendet.models.weight_specs import TensorSpec, compare_specs, spec_of

ADDITIONS = ("fake_cls_head", "latent_to_vit_connector", "diga_mlp")
"""The modules that UniGenDet adds to BAGEL, whose weights have none of them."""

_TABLE_TOLERANCE = 2**-8
"""More than bfloat16 rounds a sine by, less than any training would leave of one."""


@dataclass(frozen=True, slots=True)
class PlannedWeights:
    """Tensors to write: what they will be, and where each comes from."""

    specs: dict[str, TensorSpec]
    read: Callable[[str], Tensor]

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.specs.values())


def plan_model(
    weights: WeightFiles,
    config: ModelConfig,
    asked: set[str],
    dtype: torch.dtype | None,
    seed: int,
) -> tuple[ModelConfig, PlannedWeights]:
    """The model's tensors, each from `weights`, from the seed, or from a formula.

    Args:
        config: with or without an alignment head, which follows from `weights` and `asked`.
        asked: those of `ADDITIONS` to draw from `seed`.
        dtype: of all tensors; None is the one that `weights` have.

    Returns:
        The configuration with its alignment head settled, and the tensors.

    Raises:
        ValueError: tensors are missing, left over, of another shape, or no fixed table where the
            model has one; the message lists them. Or `weights` has what is asked for.
    """
    present = {_part(name) for name in weights.specs}
    if asked & present:
        raise ValueError(
            f"{weights.source} has {', '.join(sorted(asked & present))}: only what it lacks can be "
            "initialised"
        )
    has_head = config.alignment_head or "diga_mlp" in present | asked
    config = replace(config, alignment_head=has_head)
    model = _without_storage(config)
    expected = _expected(model)
    tables = _fixed_tables(model)
    optional = {name for name in tables if name not in weights.specs}
    optional |= {name for name in expected if _part(name) in asked}
    problems = compare_specs(
        {name: shape for name, shape in expected.items() if name not in optional}, weights.specs
    )
    absent = [name for name in ADDITIONS if name in {_part(key) for key in expected} - present]
    if problems and set(absent) - asked:
        problems.append(
            "weights of BAGEL alone have none of UniGenDet's additions: start those that are "
            f"wanted afresh with --initialise {','.join(absent)}"
        )
    _refuse(problems, weights.source, "the configuration")
    _check_tables(tables, weights)
    if dtype is None:
        dtype = _only_dtype({weights.specs[name].dtype for name in expected.keys() - optional})
    fresh = {name: tables[name] for name in optional & tables.keys()}
    for addition in sorted(asked):
        fresh |= fresh_addition(model, addition, seed)

    def read(name: str) -> Tensor:
        return (fresh[name] if name in fresh else weights.read(name)).to(dtype)

    return config, PlannedWeights(
        {name: TensorSpec(dtype, shape) for name, shape in expected.items()}, read
    )


def plan_copy(weights: WeightFiles, config: ModelConfig) -> PlannedWeights:
    """All of the model's tensors as they are in `weights`. Raises ValueError if they do not fit."""
    expected = _expected(_without_storage(config))
    _refuse(compare_specs(expected, weights.specs), weights.source, "its configuration")
    return PlannedWeights({name: weights.specs[name] for name in expected}, weights.read)


def plan_vae(path: Path, config: AutoencoderConfig) -> PlannedWeights:
    """The autoencoder's tensors under their FLUX names. Raises ValueError if they do not fit."""
    weights = open_weights(path)
    with torch.device("meta"):
        state = LatentAutoencoder(config).published_state_dict()
    expected = {name: spec_of(value).shape for name, value in state.items()}
    _refuse(compare_specs(expected, weights.specs), path, "the configured autoencoder")
    return PlannedWeights({name: weights.specs[name] for name in expected}, weights.read)


def _without_storage(config: ModelConfig) -> UniGenDetModel:
    with torch.device("meta"):
        return UniGenDetModel(config)


def _expected(model: UniGenDetModel) -> dict[str, tuple[int, ...]]:
    return {name: spec_of(value).shape for name, value in model.state_dict().items()}


def _fixed_tables(model: UniGenDetModel) -> dict[str, Tensor]:
    """The position tables, which a formula gives: published loaders drop the stored ones."""
    return {
        name: sincos_table(table.shape[1], math.isqrt(table.shape[0]))
        for name, table in model.named_buffers()
    }


def _check_tables(tables: Mapping[str, Tensor], weights: WeightFiles) -> None:
    for name in tables.keys() & weights.specs.keys():
        difference = float((weights.read(name).float() - tables[name]).abs().max())
        if not difference <= _TABLE_TOLERANCE:
            raise ValueError(
                f"{weights.source}: {name} is not the fixed sin/cos table, it differs by up to "
                f"{difference:.3g}: the file is damaged or of another model"
            )


def _only_dtype(found: set[torch.dtype]) -> torch.dtype:
    if len(found) > 1:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        raise ValueError(f"the weights are of several types ({names}): choose one with --dtype")
    (dtype,) = found
    return dtype


def _part(name: str) -> str:
    return name.partition(".")[0]


def _refuse(problems: list[str], source: Path, what: str) -> None:
    if problems:
        raise ValueError(f"{source} does not fit {what}: " + "; ".join(problems))
