"""Roles allow the claims that are made on them, and decide which family fakes which set."""

from __future__ import annotations

import pytest

from unigendet.forgeries.roles import Role, check_roles, families_for_set

ROLES: dict[str, Role] = {
    "reconstruction": "train",
    "flow": "train",
    "ddpm": "train",
    "vqar": "val",
    "gan": "test",
    "inpaint": "test",
}


def test_the_default_roles_are_good() -> None:
    check_roles(ROLES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vqar": "train"}, "no family has the role val"),
        ({"flow": "test"}, "flow: decoded by the project's own autoencoder"),
        ({"ddpm": "val"}, "every train family is decoded"),
        ({"gan": "train", "inpaint": "train", "vqar": "test", "ddpm": "val"}, "aligned"),
        ({"gam": "test"}, "unknown families: gam"),
    ],
)
def test_roles_that_allow_no_claim_are_refused(changes: dict[str, Role], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_roles({**ROLES, **changes})


def test_each_set_gets_its_families() -> None:
    train = ("reconstruction", "flow", "ddpm")
    assert families_for_set(ROLES, "train") == train
    assert families_for_set(ROLES, "val") == (*train, "vqar")
    assert families_for_set(ROLES, "test") == (*train, "gan", "inpaint")
    assert families_for_set({**ROLES, "gan": "val", "vqar": "test"}, "everyday") == ("inpaint",)
