"""Runs arms x seeds, one after the other, each a `dvc repro evaluate` in a copy of the workspace.

The copies share one DVC cache, and with it DVC's run cache: a stage that an earlier arm ran with
the same code, parameters and inputs is restored from there. So the arms of a seed share their
stage-one weights, their fakes and their test images, and an interrupted run goes on where it was.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.claims.arms import Arm, arm_params
from pipeline.claims.collect import collect, machine
from pipeline.claims.result import RESULTS, ArmResult, is_done, result_path, results_code
from pipeline.params import parse_params
from pipeline.provenance import git_revision
from pipeline.scratch import copy_workspace, stage_environment

_LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    workspace: Path
    profile: Path
    base: Mapping[str, Any]
    """Values of the profile with the weights that all arms share."""
    arms: Sequence[Arm]
    seeds: Sequence[int]
    command: str
    """As it was typed; every result carries it."""

    @property
    def results(self) -> Path:
        """Where the results of this profile lie."""
        return self.workspace / RESULTS / self.profile.stem


def run_plan(plan: Plan) -> list[str]:
    """Runs all that is not there yet; returns a line for each (arm, seed) that failed.

    Everything is checked before the first run. Raises ValueError for parameters that are wrong, for
    results of other parameters or code, and where another run of the profile is under way.
    """
    code = results_code(plan.workspace)
    todo = []
    for seed in plan.seeds:
        for arm in plan.arms:
            params, text = arm_params(plan.base, arm, seed)
            path = result_path(plan.results, arm.name, seed)
            if is_done(path, params.fingerprint(), code):
                print(f"[claims] {arm.name}, seed {seed}: there already", flush=True)
            else:
                todo.append((arm, seed, text))
    if not todo:
        return []
    home = plan.workspace / "runs" / "claims" / plan.profile.stem
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "lock", timeout=0):
            return _run_all(plan, todo, home, code)
    except Timeout:
        raise ValueError(f"another run of these claims is under way in {home}") from None


def _run_all(plan: Plan, todo: Sequence[tuple[Arm, int, str]], home: Path, code: str) -> list[str]:
    failed: list[str] = []
    began = time.perf_counter()
    revision = git_revision(plan.workspace)
    copy = _fresh_copy(plan, home)
    for number, (arm, seed, text) in enumerate(todo, start=1):
        name = f"{arm.name}, seed {seed}"
        print(f"[claims] {number} of {len(todo)}: {name}", flush=True)
        log = home / f"{arm.name}-seed{seed}.log"
        try:
            (copy / "params.yaml").write_text(text, encoding="utf-8")
            _repro(copy, plan.workspace, log)
            saved = _keep(plan, arm, seed, copy, code, revision)
            print(f"[claims] {name}: {saved}", flush=True)
        except (ValueError, OSError) as error:
            # One arm's failure must not lose the others: it is told at the end, with exit code 1.
            failed.append(f"{name}: {error}")
            print(f"[claims] {name} failed: {error}", file=sys.stderr, flush=True)
        spent = time.perf_counter() - began
        left = spent / number * (len(todo) - number)
        print(f"[claims] {_clock(spent)} so far, about {_clock(left)} left", flush=True)
    return failed


def _fresh_copy(plan: Plan, home: Path) -> Path:
    """Today's code in a folder of its own, with the cache of all earlier copies."""
    copy, cache = home / "workspace", home / "cache"
    shutil.rmtree(copy, ignore_errors=True)
    cache.mkdir(exist_ok=True)
    copy_workspace(plan.workspace, copy, params=plan.profile)
    (copy / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    return copy


def _repro(copy: Path, workspace: Path, log: Path) -> None:
    """`dvc repro evaluate` in the copy, its output in `log`; ValueError with the end of it."""
    tools = str(Path(sys.executable).parent)
    environment = stage_environment() | {
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
        # Saved state and tracked runs stay with those of the workspace.
        "UNIGENDET_HOME": str(workspace),
    }
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            ["dvc", "repro", "evaluate"],
            cwd=copy,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        raise ValueError("\n  ".join([f"dvc repro ended with {done.returncode}, see {log}", *last]))


def _keep(plan: Plan, arm: Arm, seed: int, copy: Path, code: str, revision: str) -> Path:
    params, _ = arm_params(plan.base, arm, seed)
    base = parse_params({**plan.base, "seed": 0})
    result = ArmResult(
        profile=plan.profile.stem,
        arm=arm.name,
        seed=seed,
        overrides=dict(arm.overrides),
        fingerprint=params.fingerprint(),
        base=base.fingerprint(),
        code=code,
        revision=revision,
        command=plan.command,
        machine=machine(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **collect(copy),
    )
    return result.save(plan.results).relative_to(plan.workspace)


def typed(arguments: Sequence[str]) -> str:
    """The command line as a person would type it."""
    return shlex.join(["python", "-m", "pipeline.claims", *arguments])


def _clock(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
