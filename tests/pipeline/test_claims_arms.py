"""Arms are valid experiments of every profile and change what they say, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.claims.arms import (
    ARMS,
    Arm,
    arm_params,
    base_values,
    leave_one_out,
    named_arms,
    overridden,
)
from pipeline.loss_weights import AlignmentWeights, save_best
from pipeline.params import load_params, parse_params

PROFILES = sorted((Path(__file__).parents[2] / "profiles").glob("*.yaml"))
SMOKE = next(path for path in PROFILES if path.stem == "smoke")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: value
        for name, inner in values.items()
        for key, value in _flat(inner, f"{prefix}.{name}" if prefix else name).items()
    }


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_every_arm_of_every_profile_changes_what_it_says_alone(
    profile: Path, tmp_path: Path
) -> None:
    base = base_values(profile)
    full, _ = arm_params(base, Arm("full", {}), 11)
    plain = _flat(full.model_dump(mode="json"))
    assert not [
        key for key in ("flow", "det", "text", "align") if plain[f"coevolve.{key}_weight"] == "auto"
    ]
    for name, overrides in ARMS.items():
        params, text = arm_params(base, Arm(name, overrides), 11)
        values = _flat(params.model_dump(mode="json"))
        changed = {key: value for key, value in values.items() if value != plain[key]}
        # A profile may have an arm's value already: bagel-7b teaches from the last layer.
        assert changed == {key: value for key, value in overrides.items() if plain[key] != value}
        # What is written for DVC is read again as the same experiment.
        (tmp_path / "params.yaml").write_text(text)
        assert load_params(tmp_path / "params.yaml") == params


def test_all_arms_have_the_weights_of_the_sweep_that_is_given(tmp_path: Path) -> None:
    best = AlignmentWeights(0.7, 0.6, 0.5, 0.4, 1)
    save_best(tmp_path / "best.yaml", best)
    section = parse_params(base_values(SMOKE, tmp_path / "best.yaml")).coevolve
    assert (section.flow_weight, section.align_weight, section.tap_layer) == (0.7, 0.4, 1)
    middle = parse_params(base_values(SMOKE)).coevolve
    assert middle.flow_weight == pytest.approx(1.0)  # sqrt(0.5 x 2)
    with pytest.raises(ValueError, match="missing"):
        base_values(SMOKE, tmp_path / "none.yaml")


def test_leave_one_out_makes_each_possible_family_the_only_test_family() -> None:
    arms, refused = leave_one_out(load_params(SMOKE))
    assert [arm.name for arm in arms] == ["leave_out_ddpm", "leave_out_gan", "leave_out_inpaint"]
    base = base_values(SMOKE)
    for arm in arms:
        roles = arm_params(base, arm, 0)[0].forge.roles.by_family()
        tested = [name for name, role in roles.items() if role == "test"]
        assert tested == [arm.name.removeprefix("leave_out_")]
        assert [name for name, role in roles.items() if role == "val"] == ["vqar"]
    assert set(refused) == {"reconstruction", "flow", "vqar"}
    assert "own autoencoder" in refused["flow"]


def test_an_arm_of_ones_own() -> None:
    arm = named_arms([], [["layer1", "coevolve.teacher_layer=1", "coevolve.rounds=1"]])[0]
    assert arm == Arm("layer1", {"coevolve.teacher_layer": 1, "coevolve.rounds": 1})


@pytest.mark.parametrize(
    ("names", "own", "said"),
    [
        (["no_sma"], [], "did you mean no_smsa"),
        (["full", "full"], [], "given twice: full"),
        ([], [["full", "seed=1"]], "name of your own"),
        ([], [["../x", "seed=1"]], "name of your own"),
        ([], [["mine"]], "say what it changes"),
        ([], [["mine", "seed"]], "say what it changes"),
        ([], [["mine", "coevolve.rounds=[1"]], "no YAML"),
        ([], [["mine", "seed=5"]], "seeds are given by --seeds"),
    ],
)
def test_wrong_arms_are_told(names: list[str], own: list[list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        named_arms(names, own)


def test_a_key_that_is_not_there_is_told() -> None:
    base = base_values(SMOKE)
    with pytest.raises(ValueError, match="`tap` is not among"):
        overridden(base, {"coevolve.tap": 1})
    with pytest.raises(ValueError, match="seed"):
        overridden(base, {"seed.more": 1})
    with pytest.raises(ValueError, match="arm mine: 1 wrong"):
        arm_params(base, Arm("mine", {"coevolve.joint": "perhaps"}), 0)


def test_separate_training_refuses_a_token_budget() -> None:
    base = base_values(SMOKE)
    budget = {
        "packs_per_step": 1,
        "expected_num_tokens": 100,
        "max_num_tokens": 200,
        "max_num_tokens_per_sample": 100,
    }
    changed = {"coevolve.joint": False, "coevolve.gduf.token_budget": budget}
    with pytest.raises(ValueError, match="token_budget"):
        arm_params(base, Arm("mine", changed), 0)
