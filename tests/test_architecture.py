"""The architecture, executable: who imports whom, and that dvc.yaml says what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.artifacts import OUTPUTS, STAGES, StageSpec, stage_spec
from pipeline.params import Params, load_params
from pipeline.provenance import code_dependencies, import_closure, imported_modules

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {
    "stages": {"stages", "pipeline"},
    "pipeline": {"pipeline", "unigendet"},
    "unigendet": {"unigendet"},
    "benchmarks": {"benchmarks", "unigendet"},
}
FORBIDDEN = {
    "unigendet": {"ray", "mlflow", "dvc", "pydantic", "torchvision", "timm"},
    "pipeline": {"dvc", "torchvision", "timm"},
    "stages": {"dvc", "ray", "mlflow", "torch", "torchvision", "timm"},
    "benchmarks": {"ray", "mlflow", "dvc", "pydantic", "torchvision", "timm"},
}
SLOW_TO_IMPORT = {"diffusers", "transformers", "ray", "mlflow", "skimage", "sklearn", "webdataset"}
SLOW_TO_IMPORT |= {"torchmetrics", "sentence_transformers", "matplotlib", "pandas", "optuna"}

FILES = sorted(path for package in LAYERS for path in (ROOT / package).rglob("*.py"))
DVC: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())


def _third_party(path: Path, *, top_level: bool) -> set[str]:
    """First words of what a file imports: at any depth, or only where importing it imports them."""
    tree = ast.parse(path.read_text())
    nodes = list(tree.body) if top_level else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    own = {name.split(".")[0] for name in imported_modules(path, ROOT)}
    assert own <= LAYERS[package]
    assert not _third_party(path, top_level=False) & FORBIDDEN[package]


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_slow_packages_are_imported_where_they_are_used(path: Path) -> None:
    found = _third_party(path, top_level=True) & SLOW_TO_IMPORT
    assert not found, f"import {found} inside the function: it decides how fast a stage starts"


def test_every_import_of_our_own_exists() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                parts = node.module.split(".")
                if parts[0] in LAYERS:
                    stem = ROOT.joinpath(*parts)
                    assert stem.is_dir() or stem.with_suffix(".py").is_file(), f"{path}: {parts}"


def test_dvc_yaml_holds_the_stages_in_order() -> None:
    assert list(DVC["stages"]) == [spec.name for spec in STAGES]
    assert {path.stem for path in (ROOT / "stages").glob("[!_]*.py")} == set(DVC["stages"])


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_stage_matches_dvc_yaml(spec: StageSpec) -> None:
    stage = DVC["stages"][spec.name]
    assert stage["cmd"] == f"python -m stages.{spec.name}"
    assert tuple(stage["params"]) == spec.sections
    assert stage["outs"] == [f"{OUTPUTS}/{spec.out}"]
    outs = {f"{OUTPUTS}/{stage_spec(name).out}" for name in spec.inputs}
    assert {dep for dep in stage["deps"] if dep.startswith("outputs/")} == outs


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_code_dependencies_are_the_real_imports(spec: StageSpec) -> None:
    listed = {dep for dep in DVC["stages"][spec.name]["deps"] if not dep.startswith("outputs/")}
    code = {dep for dep in listed if dep.endswith(".py") or "." not in Path(dep).name}
    assert code == set(code_dependencies(spec.name, ROOT)), "set these deps in dvc.yaml"
    assert all((ROOT / dep).exists() for dep in listed)


def test_inputs_come_from_earlier_stages() -> None:
    seen: set[str] = set()
    for spec in STAGES:
        assert set(spec.inputs) <= seen
        seen.add(spec.name)


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_stage_declares_the_sections_and_inputs_that_it_reads(spec: StageSpec) -> None:
    """Read but not declared leaves a stale result; declared but not read runs for nothing."""
    sections = set(Params.model_fields) - {"cluster", "tracking"}
    declared = {section.split(".")[0] for section in spec.sections}
    own = [
        path
        for path in import_closure(f"stages.{spec.name}", ROOT, beyond_plumbing=False)
        if path.parts[0] == "pipeline"
    ]
    text = "\n".join((ROOT / path).read_text() for path in own)
    read = set(re.findall(r"\bparams\.(\w+)", text)) & sections
    if re.search(r"\b(ctx|context)\.seed\b", text):
        read.add("seed")
    inputs = set(re.findall(r"\b(?:inputs|folders)\[\"(\w+)\"\]", text))
    if spec.name == "report":
        # It shows the whole configuration, and goes through all outs in a loop.
        assert read <= declared and inputs <= set(spec.inputs)
    else:
        assert (read, inputs) == (declared, set(spec.inputs))


@pytest.mark.parametrize(
    ("section", "change", "first"),
    [
        ("coevolve", {"align_weight": 0.7}, "coevolve"),
        ("coevolve", {"rounds": 7}, "coevolve"),
        ("coevolve", {"teacher": "live"}, "sweep"),
        ("sweep", {"trials": 9}, "sweep"),
        ("evaluate", {"generated": 9}, "evaluate"),
        ("forge", {"fit_images": 9}, "forge"),
        ("shard", {"shard_mb": 9}, "shard"),
    ],
)
def test_a_parameter_re_runs_its_stage_and_what_follows(
    section: str, change: dict[str, Any], first: str
) -> None:
    before = load_params(ROOT / "params.yaml")
    after = before.model_copy(update={section: getattr(before, section).model_copy(update=change)})
    changed = [
        spec.name
        for spec in STAGES
        if before.section_values(spec.sections) != after.section_values(spec.sections)
    ]
    assert changed[0] == first


def test_every_section_decides_something() -> None:
    used = {section.split(".")[0] for spec in STAGES for section in spec.sections}
    assert used == set(Params.model_fields) - {"cluster", "tracking"}


def test_templates_are_dependencies() -> None:
    listed = {dep for stage in DVC["stages"].values() for dep in stage["deps"]}
    for path in (ROOT / "pipeline").rglob("*"):
        if path.suffix in {".html", ".css", ".j2", ".js"}:
            assert _name(path) in listed, f"{_name(path)} decides a stage's out: list it as a dep"


def test_pycache_is_no_dependency() -> None:
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    assert "__pycache__" in lines


def test_package_files_hold_no_code() -> None:
    """`__init__` files are no dependencies of stages, so they must decide nothing."""
    for path in FILES:
        if path.name == "__init__.py" and len(path.relative_to(ROOT).parts) == 2:
            body = ast.parse(path.read_text()).body
            assert all(isinstance(n, ast.Expr | ast.ImportFrom | ast.Assign) for n in body)
