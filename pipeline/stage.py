"""What surrounds every stage: strict parameters, whole outs, saved state, tracking, timings."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from pipeline.artifacts import (
    OUTPUTS,
    TRACKED_RUN,
    StageInputs,
    StageSpec,
    StageTimings,
    stage_spec,
)
from pipeline.params import Params, load_params
from pipeline.provenance import code_digest, fingerprint, git_revision
from pipeline.state import StageState, hold_state, interrupted_siblings
from pipeline.tracking import Origin, Run, stage_run, tracked_run_id
from pipeline.workspace import persistent_root

_DVC_FLAGS = frozenset("fsmdpPRkqvi")


@dataclass(slots=True)
class StageContext:
    """All that a stage's function gets."""

    name: str
    params: Params
    workspace: Path
    """The repository, or the temporary copy of it that DVC runs an experiment in."""
    inputs: StageInputs
    out: Path
    """An empty folder; it becomes the out when the function returns, and else is removed."""
    state: Path
    """A folder that outlives an interruption; deleted when the out is there."""
    resumed: bool
    """Whether an earlier attempt was interrupted and may have left something in `state`."""
    run: Run
    fingerprint: str
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of each `timed` block; blocks of one name add up."""
    _started_at: float | None = None

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return self.params.seed

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where tensors live: `cluster.device`, or CUDA where there is one for `auto`."""
        wanted = self.params.cluster.device
        if wanted != "auto":
            return wanted
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def log(self, message: str) -> None:
        """Prints one line that says which stage it is from."""
        print(f"[{self.name}] {message}", flush=True)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the seconds of the block to the phase."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - began

    def mark_started(self, at: float | None = None) -> None:
        """The stage's own work begins (`at`: a `time.time()`, from a worker): start-up ends here.

        Only the first call counts. Training calls it at the first step.
        """
        if self._started_at is None:
            self._started_at = time.time() if at is None else at

    def ray(self, *ahead: str) -> AbstractContextManager[None]:
        """Ray is connected inside the block (`pipeline.cluster.ray_session`)."""
        from pipeline.cluster import ray_session

        return ray_session(self.params, self.workspace, ahead=ahead)

    def timings(self, attempts: int) -> StageTimings:
        """What the stage took so far."""
        born = psutil.Process().create_time()
        now = time.time()
        started = now if self._started_at is None else self._started_at
        phases = {name: round(seconds, 2) for name, seconds in self.phases.items()}
        return StageTimings(
            self.name, round(started - born, 2), round(now - born, 2), phases, attempts
        )


def run_stage(
    name: str, function: Callable[[StageContext], None], workspace: Path | None = None
) -> int:
    """Runs one stage in `workspace` (default: the current folder) and returns its exit code.

    What a person can set right is told in one line, with the traceback in a file.
    """
    root = (workspace or Path.cwd()).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _run(stage_spec(name), function, root)
    except (ValueError, OSError) as error:
        return _explained(name, root, error, str(error))
    except RuntimeError as error:
        # torch and safetensors report a full disk in words only.
        if not _disk_full(error):
            raise
        return _explained(name, root, error, str(error))
    return 0


def _run(spec: StageSpec, function: Callable[[StageContext], None], root: Path) -> None:
    home = persistent_root(root)
    params = load_params(root / "params.yaml")
    _check_space(home, params.cluster.min_free_gb)
    inputs = StageInputs(root, spec)
    inputs.check()
    hashes = inputs.hashes()
    values = params.section_values(spec.sections)
    digest = fingerprint(spec.name, values, hashes, code_digest(f"stages.{spec.name}", root))
    with hold_state(home, spec.name, digest, fresh=started_with_force()) as state:
        _announce(spec.name, home, digest, state)
        runs = {
            stage: tracked_run_id(inputs[stage])
            for stage in spec.inputs
            if (inputs[stage] / TRACKED_RUN).is_file()
        }
        origin = Origin(spec.name, git_revision(root), digest, hashes, runs)
        with (
            whole_or_nothing(root / OUTPUTS / spec.out) as out,
            stage_run(params, root, origin, state.folder) as run,
        ):
            context = StageContext(
                name=spec.name,
                params=params,
                workspace=root,
                inputs=inputs,
                out=out,
                state=state.folder,
                resumed=state.resumed,
                run=run,
                fingerprint=digest,
            )
            run.log_params(values)
            function(context)
            if not any(out.iterdir()):
                raise ValueError(f"the stage wrote nothing into {out}")
            timings = context.timings(state.attempts)
            timings.save(out)
            run.log_metrics({"startup_s": timings.startup_s, "total_s": timings.total_s}, step=0)
            run.save(out)
        state.delete()
    print(f"[{spec.name}] done in {timings.total_s:.0f} s -> {OUTPUTS / spec.out}", flush=True)


def _announce(name: str, home: Path, digest: str, state: StageState) -> None:
    print(f"[{name}] fingerprint {digest}", flush=True)
    if state.resumed:
        print(f"[{name}] attempt {state.attempts}: going on from {state.folder}", flush=True)
    if others := interrupted_siblings(home, name, digest):
        print(
            f"[{name}] {len(others)} interrupted run(s) with other code, parameters or inputs stay "
            f"unused in {home / 'runs' / name} (`make clean` removes them)",
            flush=True,
        )


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    _remove(partial)
    partial.mkdir()
    try:
        yield partial
        old = target.with_name(f".{target.name}.old")
        _remove(old)
        if target.exists():
            os.replace(target, old)
        os.replace(partial, target)
        _remove(old)
    finally:
        # Gone already where all went well.
        _remove(partial)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def started_with_force() -> bool:
    """Whether `dvc ... -f` (or `UNIGENDET_FRESH=1`) asks to start anew instead of going on.

    DVC tells its stages nothing of the flag, so it is read off the command line that started us.
    """
    if os.environ.get("UNIGENDET_FRESH") == "1":
        return True
    for parent in psutil.Process().parents():
        try:
            words = parent.cmdline()
        except psutil.Error:
            continue
        if any(Path(word).name == "dvc" for word in words[:3]):
            return any(word == "--force" or _short_force(word) for word in words)
    return False


def _short_force(word: str) -> bool:
    letters = word[1:]
    return word.startswith("-") and "f" in letters and set(letters) <= _DVC_FLAGS


def _check_space(folder: Path, wanted_gb: float) -> None:
    free = shutil.disk_usage(folder).free / 1e9
    if free < wanted_gb:
        raise ValueError(
            f"only {free:.1f} GB free at {folder}, the parameters ask for cluster.min_free_gb = "
            f"{wanted_gb:g}: free some space, or lower it"
        )


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _explained(name: str, root: Path, error: Exception, message: str) -> int:
    """Prints what went wrong, for people, and keeps the traceback in a file."""
    if _disk_full(error):
        message = (
            f"no space left on the disk ({message}): nothing was exported; free some space and run "
            "the same command again, it goes on from its last checkpoint"
        )
    print(f"[{name}] error: {message}", file=sys.stderr, flush=True)
    if not _disk_full(error):
        trace = persistent_root(root) / "runs" / name / "error.txt"
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        print(f"[{name}] details: {trace}", file=sys.stderr, flush=True)
    return 1
