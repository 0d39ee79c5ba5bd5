"""Which families exist, and how one is built from the configuration."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import torch

from unigendet.forgeries.config import ForgeryConfig
from unigendet.forgeries.ddpm import DdpmFamily
from unigendet.forgeries.family import Family
from unigendet.forgeries.gan import GanFamily
from unigendet.forgeries.inpaint import InpaintFamily
from unigendet.forgeries.own import FlowFamily, ReconstructionFamily
from unigendet.forgeries.vqar import VqarFamily

if TYPE_CHECKING:
    from unigendet.inference import UniGenDet

FAMILIES: dict[str, type[Family]] = {
    family.name: family
    for family in (
        ReconstructionFamily,
        FlowFamily,
        DdpmFamily,
        GanFamily,
        VqarFamily,
        InpaintFamily,
    )
}


def check_family(name: str) -> None:
    """Raise ValueError, naming the nearest family, unless `name` is one."""
    if name not in FAMILIES:
        near = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FAMILIES)}"
        raise ValueError(f"no family of fakes is called {name!r}: {hint}")


def build_family(
    name: str, config: ForgeryConfig, *, seed: int = 0, generator: UniGenDet | None = None
) -> Family:
    """An unfitted family, its first weights drawn from `seed`.

    `generator` is the project's own model, which the families made by it need.
    """
    check_family(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(name, config, generator)


def _build(name: str, config: ForgeryConfig, generator: UniGenDet | None) -> Family:
    if name in (ReconstructionFamily.name, FlowFamily.name):
        if generator is None:
            raise ValueError(f"family {name!r} needs the trained generator's folder")
        if name == ReconstructionFamily.name:
            return ReconstructionFamily(config.reconstruction, generator)
        return FlowFamily(config.flow, generator)
    if name == DdpmFamily.name:
        return DdpmFamily(config.ddpm)
    if name == GanFamily.name:
        return GanFamily(config.gan)
    if name == VqarFamily.name:
        return VqarFamily(config.vqar)
    return InpaintFamily(config.inpaint)
