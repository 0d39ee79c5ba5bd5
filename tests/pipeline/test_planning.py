"""`unigendet plan`: profiles in, memory and disk out, and what is told where a command is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.params import Params, load_params
from pipeline.planning import plan_experiment, training_phases
from pipeline.sections.base import TokenBudgetSection
from unigendet.models.unified import UniGenDetModel
from unigendet.planning.memory import Machine, TrainingPhase, plan_memory
from unigendet.planning.packs import Texts
from unigendet.training.optim import select_trainable

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def planned(*arguments: object) -> dict[str, dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return {phase["phase"]: phase for phase in json.loads(result.stdout)["phases"]}


def tiny() -> Params:
    return load_params(ROOT / "profiles" / "tiny.yaml")


def test_phases_are_those_of_the_params_file() -> None:
    params = tiny()
    phases = {phase.name: phase for phase, _ in training_phases(params, Texts())}
    assert list(phases) == ["generator", "detector", "gduf", "diga"]
    diga = params.coevolve.diga
    assert phases["diga"].trainable == diga.optim.trainable
    assert phases["diga"].pack.samples == diga.generation_per_step + diga.detection_per_step
    assert phases["diga"].teacher == params.coevolve.teacher
    assert phases["diga"].teacher_pack.samples == diga.generation_per_step
    assert phases["diga"].config.alignment_head and not phases["gduf"].config.alignment_head
    assert phases["generator"].pack.vit == 0 < phases["detector"].pack.vit


def test_a_plan_knows_detectors_as_teachers() -> None:
    def with_teacher(teacher: str) -> Params:
        params = tiny()
        coevolve = params.coevolve.model_copy(update={"teacher": teacher})
        return params.model_copy(update={"coevolve": coevolve})

    phases = {phase.name: phase for phase, _ in training_phases(with_teacher("random"), Texts())}
    assert phases["diga"].teacher == "frozen"
    with pytest.raises(ValueError, match=r"coevolve\.teacher is efficientnet: plan with `live`"):
        training_phases(with_teacher("efficientnet"), Texts())


def budget(**changes: Any) -> TokenBudgetSection:
    values = {
        "packs_per_step": 2,
        "expected_num_tokens": 4000,
        "max_num_tokens": 4500,
        "max_num_tokens_per_sample": 1000,
        "prefer_buffer_before": 2000,
        "max_buffer_size": 8,
        "mixture": [{"from_step": 0, "generation": 1.0, "real": 1.0, "fake": 1.0}],
    }
    return TokenBudgetSection.model_validate(values | changes)


def with_budgets(given: TokenBudgetSection) -> Params:
    """Profile `tiny`, every training filled by tokens."""
    params = tiny()

    def filled(section: Any) -> Any:
        return section.model_copy(update={"token_budget": given})

    generator, coevolve = params.pretrain_generator, params.coevolve
    update = {
        "pretrain_generator": generator.model_copy(update={"flow": filled(generator.flow)}),
        "pretrain_detector": filled(params.pretrain_detector),
        "coevolve": coevolve.model_copy(
            update={"gduf": filled(coevolve.gduf), "diga": filled(coevolve.diga)}
        ),
    }
    return params.model_copy(update=update)


def test_packs_of_a_budget_are_planned_as_full_as_they_get() -> None:
    params = with_budgets(budget())
    phases = training_phases(params, Texts(), gpus=2)
    by_name: dict[str, list[TrainingPhase]] = {}
    for phase, _ in phases:
        by_name.setdefault(phase.name, []).append(phase)
    # Filled with images to draw, real or fake ones to judge, where the phase has them.
    assert [len(by_name[name]) for name in ("generator", "detector", "gduf")] == [1, 3, 3]
    for phase, _ in phases:
        assert 4500 - 3 <= phase.pack.tokens <= 4500
    drawing, judging, _ = by_name["gduf"]
    assert drawing.pack.flow > judging.pack.flow > 0 and judging.pack.vit > drawing.pack.vit > 0
    aligned = by_name["diga"][0]
    assert aligned.teacher_pack.samples >= aligned.pack.flow / 64
    # One GPU has both packs.
    assert training_phases(params, Texts())[0][0].pack.tokens >= 2 * 4500 - 3
    (fullest,) = (
        one
        for one in plan_experiment(params, Texts(), gpus=2, memory=2**33, sharding="ddp")
        if one.memory.phase.name == "gduf"
    )
    machine = fullest.memory.machine
    assert fullest.memory.total == max(plan_memory(p, machine).total for p in by_name["gduf"])


@pytest.mark.parametrize(
    ("given", "gpus", "message"),
    [
        (budget(), 3, "generator: a step's 2 packs cannot be shared by 3 workers"),
        (budget(max_num_tokens_per_sample=120), 1, "generator: .*raise it, or plan with fewer"),
    ],
)
def test_a_budget_that_training_could_not_keep_is_told(
    given: TokenBudgetSection, gpus: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        training_phases(with_budgets(given), Texts(), gpus)


@pytest.mark.parametrize("profile", ["tiny", "gpu-256", "bagel-7b"])
def test_what_stays_is_counted_to_the_byte_for_every_profile(profile: str) -> None:
    params = load_params(ROOT / "profiles" / f"{profile}.yaml")
    for phase, _ in training_phases(params, Texts()):
        with torch.device("meta"):
            model = UniGenDetModel(phase.config)
        learning = select_trainable(model, phase.trainable).values()
        always = plan_memory(phase, Machine(1, 2**40, "none", recompute=False)).always
        assert always["parameters"] == sum(4 * p.numel() for p in model.parameters())
        assert always["average"] == sum(4 * p.numel() for p in learning)


def test_tables_name_every_phase_and_what_fits() -> None:
    result = run("--profile", "tiny", "--memory", "1GiB")
    assert result.exit_code == 0, result.output
    for word in ("generator", "detector", "gduf", "diga", "parameters", "one checkpoint"):
        assert word in result.stdout
    assert "does not fit" in result.stdout and "what would do" in result.stdout
    assert "gduf fits" in run("--profile", "tiny", "--memory", "16GiB").stdout


def test_recomputation_as_the_profile_says_or_as_asked() -> None:
    def recomputed(*more: str) -> bool:
        return bool(planned("--memory", "80GiB", *more)["gduf"]["machine"]["recompute"])

    assert not recomputed("--profile", "gpu-256")
    assert recomputed("--profile", "gpu-256", "--recompute")
    assert recomputed("--profile", "bagel-7b", "--gpus", "8")
    assert not recomputed("--profile", "bagel-7b", "--gpus", "8", "--no-recompute")


def test_a_batch_that_the_gpus_cannot_share_is_told() -> None:
    result = run("--profile", "bagel-7b", "--gpus", "3", "--memory", "80GiB")
    assert result.exit_code == 1
    assert "cannot be shared by 3 workers" in result.stderr


def test_sharding_divides_what_ddp_repeats() -> None:
    several = ("--profile", ROOT / "profiles" / "tiny.yaml", "--memory", "8GiB", "--gpus", 2)
    shared, whole = planned(*several, "--sharding", "fsdp"), planned(*several)
    for name, phase in shared.items():
        assert phase["machine"]["sharding"] == "fsdp"
        assert whole[name]["machine"]["sharding"] == "ddp"  # as the profile says
        share = phase["bytes"]["optimizer"] / whole[name]["bytes"]["optimizer"]
        assert share == pytest.approx(0.5, rel=0.01)
    longer = planned(*several, "--answer-tokens", 200, "--caption-tokens", 100)
    assert longer["gduf"]["pack"]["tokens"] > shared["gduf"]["pack"]["tokens"]


def test_params_yaml_is_planned_where_no_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert (
        planned("--memory", "8GiB").keys()
        == planned("--memory", "8GiB", "--profile", "tiny").keys()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--memory", "80"), "write a unit"),
        (("--memory", "lots"), "write 80GiB"),
        (("--memory", "8GiB", "--profile", "tinny"), "did you mean 'tiny'"),
        (("--memory", "8GiB", "--profile", "nowhere.yaml"), "nowhere.yaml does not exist"),
        (("--memory", "8GiB", "--sharding", "fsdp"), "needs more than one GPU"),
        (("--memory", "8GiB", "--gpus", 2, "--sharding", "none"), "need sharding ddp or fsdp"),
    ],
)
def test_what_cannot_be_planned_is_one_line(arguments: tuple[object, ...], message: str) -> None:
    result = run("--profile", "tiny", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_wrong_command_line_is_exit_code_2() -> None:
    assert run("--profile", "tiny").exit_code == 2  # no memory
    assert run("--profile", "tiny", "--memory", "8GiB", "--gpus", 0).exit_code == 2


def test_help_waits_for_no_slow_package() -> None:
    code = (
        "import sys, pipeline.cli\n"
        "slow = {'torch', 'pydantic', 'ray', 'mlflow', 'diffusers'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_other_commands_are_there_too() -> None:
    result = CliRunner().invoke(app, ["--help"])
    for name in ("detect", "generate", "import", "export", "plan"):
        assert name in result.stdout


def test_the_published_recipe_fits_on_eight_gpus_of_80_gib() -> None:
    phases = planned("--profile", "bagel-7b", "--gpus", 8, "--memory", "80GiB")
    assert list(phases) == ["gduf", "diga"]  # BAGEL is generator and detector to start with
    gduf, diga = phases["gduf"], phases["diga"]
    assert gduf["fits"] and diga["fits"] and gduf["machine"]["recompute"]
    assert gduf["parameters"]["total"] + gduf["parameters"]["buffers"] == 14_623_562_850
    assert gduf["disk"]["checkpoint"] == pytest.approx(234e9, rel=3e-3)
    assert all(12_000 < phase["pack"]["tokens"] <= 16_384 for phase in phases.values())
    assert "16 GPUs with fsdp" in str(
        planned("--profile", "bagel-7b", "--gpus", 8, "--memory", "40GiB")["gduf"]["advice"]
    )
