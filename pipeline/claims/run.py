"""Runs arms x seeds, each a `dvc repro evaluate` in its seed's copy of the workspace.

The copies are of the workspace as it was when the command was given: what is changed meanwhile
changes no result. They share one DVC cache, and with it DVC's run cache: a stage that an earlier
arm ran with the same code, parameters and inputs is restored from there. So the arms of a seed
share their stage-one weights, their fakes and their test images, and an interrupted run goes on
where it was.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock, Timeout

from pipeline.artifacts import read_json
from pipeline.claims.arms import Arm, arm_params, overridden
from pipeline.claims.collect import machine
from pipeline.claims.result import (
    COLLECT,
    RESULTS,
    ArmResult,
    mismatch,
    result_path,
    results_code,
)
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
    jobs: int = 1
    """Seeds at a time. Where Ray is local they share the cores out."""

    @property
    def results(self) -> Path:
        """Where the results of this profile lie."""
        return self.workspace / RESULTS / self.profile.stem

    @property
    def fingerprint(self) -> str:
        """Of the parameters that all arms and seeds share."""
        return parse_params({**self.base, "seed": 0}).fingerprint()


@dataclass(frozen=True, slots=True)
class _Order:
    """An arm and seed that has no result yet."""

    arm: Arm
    seed: int
    fingerprint: str
    text: str
    """Of its params.yaml."""


def run_plan(plan: Plan) -> list[str]:
    """Runs all that is not there yet; returns a line for each (arm, seed) that failed.

    Everything is checked before the first run. Raises ValueError for parameters that are wrong, for
    results that new ones could not stand beside, and where another run of the profile is under way.
    """
    code = results_code(plan.workspace)
    values = dict(plan.base)
    if plan.jobs > 1 and not (values["cluster"]["num_cpus"] or os.environ.get("RAY_ADDRESS")):
        share = max(1, (os.cpu_count() or 1) // plan.jobs)
        values = overridden(values, {"cluster.num_cpus": share})
    others = mismatch(
        plan.results,
        base=plan.fingerprint,
        code=code,
        arms={arm.name: arm.overrides for arm in plan.arms},
        seeds=plan.seeds,
    )
    todo = []
    for seed in plan.seeds:
        for arm in plan.arms:
            params, text = arm_params(values, arm, seed)
            if result_path(plan.results, arm.name, seed).is_file():
                print(f"[claims] {arm.name}, seed {seed}: there already", flush=True)
            else:
                todo.append(_Order(arm, seed, params.fingerprint(), text))
    if not todo:
        if others:
            print(f"[claims] nothing to run; mind that {others}", flush=True)
        return []
    if others:
        raise ValueError(others)
    home = plan.workspace / "runs" / "claims" / plan.profile.stem
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / "lock", timeout=0):
            return _run_all(plan, todo, home, code)
    except Timeout:
        raise ValueError(f"another run of these claims is under way in {home}") from None


def _run_all(plan: Plan, todo: Sequence[_Order], home: Path, code: str) -> list[str]:
    snapshot = home / "code"
    shutil.rmtree(snapshot, ignore_errors=True)
    copy_workspace(plan.workspace, snapshot, params=plan.profile)
    runner = _Runner(plan, home, code, len(todo))
    by_seed: dict[int, list[_Order]] = {}
    for order in todo:
        by_seed.setdefault(order.seed, []).append(order)
    with ThreadPoolExecutor(plan.jobs) as pool:
        try:
            list(pool.map(runner.run_seed, by_seed.values()))
        finally:
            # After an interruption; where all has ended, there is nothing to stop.
            runner.stop()
            pool.shutdown(wait=False, cancel_futures=True)
    return runner.failed


class _Runner:
    """Runs the arms of a seed in turn, in a copy of its own; seeds may run beside each other."""

    def __init__(self, plan: Plan, home: Path, code: str, total: int) -> None:
        self.failed: list[str] = []
        self._plan, self._home, self._code, self._total = plan, home, code, total
        self._revision = git_revision(plan.workspace)
        self._began = time.perf_counter()
        self._lock = Lock()
        self._ended = 0
        self._children: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run_seed(self, orders: Sequence[_Order]) -> None:
        """All arms of one seed; those that fail are in `failed`."""
        try:
            copy = _fresh_copy(self._plan, self._home, orders[0].seed)
        except (OSError, subprocess.CalledProcessError) as error:
            self._fail(f"seed {orders[0].seed}", error)
            return
        for order in orders:
            if self._stopped:
                return
            name = f"{order.arm.name}, seed {order.seed}"
            print(f"[claims] {name}: begins", flush=True)
            log = self._home / f"{order.arm.name}-seed{order.seed}.log"
            try:
                (copy / "params.yaml").write_text(order.text, encoding="utf-8")
                self._repro(copy, log)
                saved = self._keep(order, self._collect(copy, log))
                print(f"[claims] {name}: {saved}", flush=True)
            except (ValueError, OSError) as error:
                self._fail(name, error)
            self._tell_time()

    def _fail(self, name: str, error: Exception) -> None:
        """One failure must not lose the others: it is told at the end, exit code 1."""
        self.failed.append(f"{name}: {error}")
        print(f"[claims] {name} failed: {error}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Ends what runs; nothing new begins."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                # DVC, the stage and what it started, as Ctrl-C at a terminal would.
                with suppress(ProcessLookupError):  # it ended this moment
                    os.killpg(child.pid, signal.SIGINT)

    def _tell_time(self) -> None:
        with self._lock:
            self._ended += 1
            spent = time.perf_counter() - self._began
            left = spent / self._ended * (self._total - self._ended)
            print(
                f"[claims] {self._ended} of {self._total} in {_clock(spent)}, "
                f"about {_clock(left)} left",
                flush=True,
            )

    def _repro(self, copy: Path, log: Path) -> None:
        log.unlink(missing_ok=True)
        self._call(["dvc", "repro", "evaluate"], copy, log)

    def _collect(self, copy: Path, log: Path) -> dict[str, Any]:
        """The figures, made by the code of the copy."""
        found = copy / "collected.json"
        self._call([sys.executable, "-m", COLLECT, str(found)], copy, log)
        figures: dict[str, Any] = read_json(found)
        return figures

    def _call(self, command: Sequence[str], copy: Path, log: Path) -> None:
        """A command in the copy, its output added to `log`; ValueError with the end of it."""
        with log.open("a", encoding="utf-8") as file:
            with self._lock:
                if self._stopped:
                    raise ValueError("not begun")
                child = subprocess.Popen(
                    command,
                    cwd=copy,
                    env=_environment(self._plan.workspace),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._children.add(child)
            code = child.wait()
            with self._lock:
                self._children.discard(child)
        if code:
            last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
            told = shlex.join(command)
            raise ValueError("\n  ".join([f"`{told}` ended with {code}, see {log}", *last]))

    def _keep(self, order: _Order, collected: Mapping[str, Any]) -> Path:
        plan = self._plan
        result = ArmResult(
            profile=plan.profile.stem,
            arm=order.arm.name,
            seed=order.seed,
            overrides=dict(order.arm.overrides),
            fingerprint=order.fingerprint,
            base=plan.fingerprint,
            code=self._code,
            revision=self._revision,
            command=plan.command,
            machine=machine(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            **collected,
        )
        return result.save(plan.results).relative_to(plan.workspace)


def _environment(workspace: Path) -> dict[str, str]:
    tools = str(Path(sys.executable).parent)
    return stage_environment() | {
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
        # Saved state and tracked runs stay with those of the workspace.
        "UNIGENDET_HOME": str(workspace),
    }


def _fresh_copy(plan: Plan, home: Path, seed: int) -> Path:
    """The snapshot's code in a folder of its own, with the cache of all copies."""
    copy, cache = home / f"seed{seed}", home / "cache"
    shutil.rmtree(copy, ignore_errors=True)
    cache.mkdir(exist_ok=True)
    copy_workspace(home / "code", copy, params=home / "code" / "params.yaml")
    (copy / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    return copy


def typed(arguments: Sequence[str]) -> str:
    """The command line as a person would type it."""
    return shlex.join(["python", "-m", "pipeline.claims", *arguments])


def _clock(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
