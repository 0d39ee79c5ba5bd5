"""Arms: the experiment of a profile with a few parameters changed, and nothing else.

All arms of a seed take the same loss weights, as numbers, so that no arm has a sweep of its own:
those of `--weights`, else the numbers of the profile, else (`auto`) the middle of the sweep's range
on a log scale. Then nothing is left to sweep.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.loss_weights import load_best
from pipeline.params import Params, load_params, parse_params
from pipeline.sections.forge import RolesSection
from pipeline.sweep import first_guess
from unigendet.forgeries.roles import check_roles

Overrides: TypeAlias = Mapping[str, Any]
"""Dotted key of params.yaml -> value."""

FULL = "full"
_APART = {"coevolve.joint": False}
_NO_LATENTS = {"pretrain_detector.smsa": False, "coevolve.smsa": False}
ARMS: dict[str, dict[str, Any]] = {
    FULL: {},
    # The detector cannot attend to latents, neither in its pretraining nor later.
    "no_smsa": _NO_LATENTS,
    # Generation and detection learn on weights of their own (`coevolution.train_separately`).
    "no_gduf": _APART,
    # The same steps on the same images, without the alignment loss.
    "no_diga": {"coevolve.align_weight": 0.0},
    # A detector trained alone: no latents, no flow loss, no shared update.
    "alone": {"pretrain_detector.weights.flow": 0.0, **_NO_LATENTS, **_APART},
    # Its mean moves at every step.
    "live_teacher": {"coevolve.teacher": "live", "coevolve.teacher_centred": False},
    "last_layer_teacher": {"coevolve.teacher_layer": "last"},
    # As published: with the mean of its features, which is nearly all of their direction.
    "plain_teacher": {"coevolve.teacher_centred": False},
    # The detector's shape without what it learned: does the alignment need a teacher that knows?
    "random_teacher": {"coevolve.teacher": "random"},
    # Features of ImageNet's classes, on 14 x 14 places. KD and FD are measured in the same network
    # and flatter this arm.
    "efficientnet_teacher": {"coevolve.teacher": "efficientnet", "coevolve.teacher_layer": 10},
}
DEFAULT_ARMS = (FULL, "no_smsa", "no_gduf", "no_diga", "alone")
_MEASURED = {
    # No figure of a claim comes from these two.
    "sweep.enabled": False,
    "coevolve.matrix_images": 0,
    # What the generator has learned, without the help of guidance, as REPA is judged.
    "evaluate.guidance": 1.0,
}
"""How every arm is run, whatever the profile says."""
LEAVE_OUT = "leave_out_"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Arm:
    """A name and what it changes of the full method."""

    name: str
    overrides: Overrides


def named_arms(names: Sequence[str], own: Sequence[Sequence[str]] = ()) -> list[Arm]:
    """The arms of those names, then the caller's own, each `[name, "key=value", ...]`.

    Raises ValueError for an unknown name, one given twice, and a setting without `=`.
    """
    arms = []
    for name in names:
        if name not in ARMS:
            near = difflib.get_close_matches(name, ARMS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"arms: {', '.join(ARMS)}"
            raise ValueError(f"there is no arm {name!r}; {hint}")
        arms.append(Arm(name, ARMS[name]))
    arms += [_own_arm(name, settings) for name, *settings in own]
    every = [arm.name for arm in arms]
    if twice := sorted({name for name in every if every.count(name) > 1}):
        raise ValueError(f"given twice: {', '.join(twice)}")
    return arms


def _own_arm(name: str, settings: Sequence[str]) -> Arm:
    if not _NAME.fullmatch(name) or name in ARMS or name.startswith(LEAVE_OUT):
        raise ValueError(
            f"arm {name!r}: a name of your own is of lower-case letters, digits and _, and none of "
            f"{', '.join(ARMS)}"
        )
    if not settings or not all("=" in setting for setting in settings):
        raise ValueError(f"arm {name}: say what it changes, as in coevolve.teacher_layer=1")
    pairs = [setting.split("=", 1) for setting in settings]
    if any(key == "seed" for key, _ in pairs):
        raise ValueError(f"arm {name}: seeds are given by --seeds")
    try:
        return Arm(name, {key: YAML(typ="safe", pure=True).load(text) for key, text in pairs})
    except YAMLError as error:
        raise ValueError(f"arm {name}: a value is no YAML: {error}") from None


def leave_one_out(params: Params) -> tuple[list[Arm], dict[str, str]]:
    """An arm for each family that can be the only test family, and why each other one cannot.

    The families of role val stay so; where that was the one left out, the next one that is not of
    our own decoder takes its place. All others train.
    """
    roles = params.forge.roles.by_family()
    arms, refused = list[Arm](), dict[str, str]()
    for family in RolesSection.model_fields:
        val = [name for name, role in roles.items() if role == "val" and name != family]
        if not val:
            val = [name for name, role in roles.items() if role == "test" and name != family][:1]
        taken = {
            name: "test" if name == family else "val" if name in val else "train" for name in roles
        }
        try:
            check_roles(taken)  # type: ignore[arg-type]
        except ValueError as error:
            refused[family] = str(error)
            continue
        changed = {f"forge.roles.{name}": role for name, role in taken.items()}
        arms.append(Arm(LEAVE_OUT + family, changed))
    return arms, refused


def base_values(profile: Path, weights: Path | None = None) -> dict[str, Any]:
    """The profile's values with equal weights for all arms, as YAML would hold them.

    Raises ValueError where the profile or `weights` (a sweep's best.yaml) cannot be read.
    """
    params = load_params(profile)
    chosen: dict[str, Any] = dict(first_guess(params.sweep))
    if weights is not None:
        chosen = asdict(load_best(weights))
    else:
        given = {name: getattr(params.coevolve, name) for name in chosen}
        chosen |= {name: value for name, value in given.items() if value != "auto"}
    raw = YAML(typ="safe", pure=True).load(profile.read_text(encoding="utf-8"))
    fixed = {f"coevolve.{name}": value for name, value in chosen.items()}
    # An image without guidance is half the work.
    images = {"evaluate.generated": 2 * params.evaluate.generated}
    return overridden(raw, {**fixed, **_MEASURED, **images})


def overridden(values: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """A copy of nested values with dotted keys set; ValueError for a key that is not there."""
    copy: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()
    }
    for key, value in overrides.items():
        first, _, rest = key.partition(".")
        if first not in copy or (rest and not isinstance(copy[first], Mapping)):
            raise ValueError(f"`{key}` is no parameter: `{first}` is not among {', '.join(copy)}")
        copy[first] = overridden(copy[first], {rest: value}) if rest else value
    return copy


def arm_params(base: Mapping[str, Any], arm: Arm, seed: int) -> tuple[Params, str]:
    """An arm's whole experiment, checked, and the text of its params.yaml."""
    values = overridden(base, {**arm.overrides, "seed": seed})
    params = parse_params(values, where=f"arm {arm.name}")
    text = io.StringIO()
    YAML().dump(values, text)
    return params, text.getvalue()
