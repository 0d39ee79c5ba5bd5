"""Training as a Ray Train job: workers run a `TrainingSession`, resumable from the state folder.

The worker's session folder is local; after every checkpoint it is copied into Ray Train's storage
(`state/ray`), which knows complete checkpoints only. A worker that dies is started again by Ray; a
stage that was killed finds the same storage when it is started again. Start-up of a worker costs
many seconds, nearly all imports, so a stage runs all its phases in one worker.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pipeline.stage import StageContext
from pipeline.tracking import Run

if TYPE_CHECKING:
    from unigendet.training.loop import LogRow
    from unigendet.training.session import Progress, TrainingSession

Job = TypeVar("Job")

_LOCAL = "local"
_STORAGE = "ray"
_RUN_NAME = "train"
_PATIENCE = 6 * 3600
"""Seconds that workers wait for one which draws or validates alone. Ray notices a dead one."""


@dataclass(frozen=True, slots=True)
class _WorkerOrder(Generic[Job]):
    """All that a worker gets; picklable."""

    task: Callable[[TrainingSession, Job], None]
    job: Job
    run: Run
    state: Path
    threads: int
    device: str
    sharding: Literal["ddp", "fsdp"]
    loaders: int


def train_on_ray(ctx: StageContext, task: Callable[[TrainingSession, Job], None], job: Job) -> Path:
    """Run `task(session, job)` on Ray Train workers and return the finished session's folder.

    `task` is a function of a module and `job` picklable. A failed worker is started again up to
    `cluster.max_failures` times and goes on from the last checkpoint, as does a whole new process
    on the same `ctx.state`. Raises `ValueError` with a worker's own words where a person has to set
    something right.
    """
    # Ray Train asks its workers for news in this interval, and a report waits for the question.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")
    # Else every printed line comes twice, once as a log record.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    cluster = ctx.params.cluster
    # A worker imports for half a minute; on a busy machine Ray Train's own limit is too short.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
    if not os.environ.get("RAY_ADDRESS"):
        # This machine is not taken away with notice as a cloud's is: spare the watching process.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    with ctx.ray("ray.train.torch"):
        import ray
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources: dict[str, float] = ray.cluster_resources()
        cpus = cluster.cpus_per_worker or max(1, int(resources["CPU"]) // cluster.workers)
        # Asking Ray and not torch spares the driver an import of seconds.
        device = cluster.device
        if device == "auto":
            device = "cuda" if resources.get("GPU", 0) >= cluster.workers else "cpu"
        order = _WorkerOrder(
            *(task, job, ctx.run, ctx.state, cpus, device),
            sharding=cluster.sharding,
            loaders=cluster.loaders,
        )
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"order": order},
            torch_config=TorchConfig(timeout_s=_PATIENCE),
            scaling_config=ScalingConfig(
                num_workers=cluster.workers,
                use_gpu=device == "cuda",
                resources_per_worker={"CPU": cpus},
            ),
            run_config=RunConfig(
                name=_RUN_NAME,
                storage_path=str(ctx.state / _STORAGE),
                failure_config=FailureConfig(max_failures=cluster.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        result = trainer.fit()
        if result.return_value is not None:
            raise ValueError(result.return_value)
        assert result.checkpoint is not None, "the session reported no checkpoint"
        if result.metrics and result.metrics["first_step_at"]:
            ctx.mark_started(result.metrics["first_step_at"])
        finished = ctx.state / "finished"
        shutil.rmtree(finished, ignore_errors=True)
        result.checkpoint.to_directory(str(finished))
    return finished


def _worker(config: dict[str, Any]) -> str | None:
    """What each worker runs; a message where a person has to set something right."""
    import torch
    from ray import train
    from ray.train.torch import get_device

    from unigendet import parallel
    from unigendet.training.session import TrainingSession

    # The progress lines are printed; Ray Train's log records would bury them.
    logging.disable(logging.INFO)
    order: _WorkerOrder[Any] = config["order"]
    context = train.get_context()
    torch.set_num_threads(order.threads)
    # The workers of one machine share a folder, which one of them writes.
    folder = order.state / _LOCAL / f"machine-{context.get_node_rank()}"
    leader = context.get_local_rank() == 0
    if leader:
        shutil.rmtree(folder, ignore_errors=True)
        restored = train.get_checkpoint()
        if restored is not None:
            restored.to_directory(str(folder))
    parallel.wait_for_all()
    writer = MetricWriter(order.run) if parallel.rank() == 0 else None
    session = TrainingSession(
        folder,
        # Several workers of one machine see all of its GPUs: Ray knows which is whose.
        device=get_device() if order.device == "cuda" else order.device,
        sharding=order.sharding,
        loaders=order.loaders,
        leader=leader,
        on_log=writer.put if writer else _ignore,
        on_progress=lambda progress: _report(session, progress, writer),
    )
    try:
        order.task(session, order.job)
    except (ValueError, OSError, ArithmeticError) as error:
        # Trying again would not help, so one worker tells why instead of failing. Several have to
        # fail together, since the others wait for this one.
        if session.world > 1:
            raise
        traceback.print_exc()
        return str(error)
    finally:
        if writer:
            writer.close()
    return None


def _report(session: TrainingSession, progress: Progress, writer: MetricWriter | None) -> None:
    """Hand the session's folder to Ray's storage, which joins the files of all machines."""
    from ray import train

    if writer:
        writer.flush()
    metrics = {
        "phase": progress.name,
        "step": progress.step,
        "first_step_at": session.first_step_at,
    }
    if session.rank == 0:
        train.report(metrics, checkpoint=train.Checkpoint.from_directory(str(session.folder)))
    elif session.leader:
        # Of another machine only its parts of the checkpoints are its own.
        with tempfile.TemporaryDirectory(dir=session.folder.parent) as parts:
            checkpoints = session.folder / "loop"
            if checkpoints.is_dir():
                shutil.copytree(checkpoints, Path(parts, "loop"), copy_function=os.link)
            train.report(metrics, checkpoint=train.Checkpoint.from_directory(parts))
    else:
        train.report(metrics)


def _ignore(_: LogRow) -> None:
    return None


class MetricWriter:
    """Logs rows to MLflow from a thread: neither its import nor its writes hold training up."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._rows: queue.Queue[LogRow | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="mlflow", daemon=True)
        self._thread.start()

    def put(self, row: LogRow) -> None:
        """Queue a row; raises what went wrong with an earlier one."""
        self._raise()
        self._rows.put(row)

    def flush(self) -> None:
        """Wait until what is queued is written: a checkpoint must not be ahead of its metrics."""
        self._rows.join()
        self._raise()

    def close(self) -> None:
        """Write what is queued, end the thread, and raise what went wrong."""
        self._rows.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise RuntimeError(f"MLflow at {self._run.uri} took no metrics") from self._error

    def _write(self) -> None:
        while (row := self._rows.get()) is not None:
            try:
                if self._error is None:
                    self._log(row)
            except Exception as error:  # the thread's end of the line: `_raise` hands it on
                self._error = error
            finally:
                self._rows.task_done()

    def _log(self, row: LogRow) -> None:
        values = {f"{row.phase}/{name}": value for name, value in row.terms.items()}
        values[f"{row.phase}/lr"] = row.lr
        values[f"{row.phase}/grad_norm"] = row.grad_norm
        self._run.log_metrics(values, row.step)
