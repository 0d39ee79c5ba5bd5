"""What each family is, and the role that each plays in an experiment. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Role = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What a family's fakes are."""

    aligned: bool
    """Whether a fake keeps the content and size of the real image that it is made from."""
    own_decoder: bool
    """Whether the pixels come out of the project's own autoencoder."""


TRAITS: dict[str, Traits] = {
    "reconstruction": Traits(aligned=True, own_decoder=True),
    "flow": Traits(aligned=False, own_decoder=True),
    "ddpm": Traits(aligned=True, own_decoder=False),
    "gan": Traits(aligned=True, own_decoder=False),
    "vqar": Traits(aligned=False, own_decoder=False),
    "inpaint": Traits(aligned=True, own_decoder=False),
}


def check_roles(roles: Mapping[str, Role]) -> None:
    """Raise ValueError unless the roles allow the claims that are made on them.

    Every role is taken. No test family comes out of our own decoder, or a detector that reads that
    decoder's latents would be judged on what it was given. One training family does not, or nothing
    but that decoder could be learnt. One test family is aligned: it makes the cross-dataset fakes.
    """
    if unknown := set(roles) - set(TRAITS):
        raise ValueError(
            f"unknown families: {', '.join(sorted(unknown))}; there are {', '.join(TRAITS)}"
        )
    by_role = {role: families_with(roles, role) for role in ("train", "val", "test")}
    if untaken := [role for role, names in by_role.items() if not names]:
        raise ValueError(f"no family has the role {', '.join(untaken)}")
    if own := [name for name in by_role["test"] if TRAITS[name].own_decoder]:
        raise ValueError(
            f"{', '.join(own)}: decoded by the project's own autoencoder, so not for test"
        )
    if all(TRAITS[name].own_decoder for name in by_role["train"]):
        raise ValueError(
            "every train family is decoded by the project's own autoencoder: add another"
        )
    if not any(TRAITS[name].aligned for name in by_role["test"]):
        raise ValueError("no test family is aligned: the cross-dataset fakes need one")


def families_with(roles: Mapping[str, Role], *wanted: Role | str) -> tuple[str, ...]:
    """Names of the families that have one of the wanted roles, in the order of `roles`."""
    return tuple(name for name, role in roles.items() if role in wanted)


def families_for_set(roles: Mapping[str, Role], set_name: str) -> tuple[str, ...]:
    """Which families make fakes of a set of real images.

    Train families also make fakes of the val and test sets: those judge a detector in domain. The
    everyday photographs are faked by the aligned test families.
    """
    if set_name == "everyday":
        return tuple(name for name in families_with(roles, "test") if TRAITS[name].aligned)
    return families_with(roles, "train", set_name)
