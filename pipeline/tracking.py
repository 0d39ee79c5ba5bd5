"""MLflow: one run per stage under a parent run that is found by its tags.

Each stage is a process of its own, so none of them owns the parent: the first stage that needs it
makes it, the others find it by git revision and params fingerprint. One process writes to a run:
the stage's driver. A stage that was interrupted goes on in the run it had.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from pipeline.artifacts import TRACKED_RUN, read_json, write_json
from pipeline.params import Params
from pipeline.workspace import persistent_root

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.tracking import MlflowClient

PARENT_TAG: Final = "mlflow.parentRunId"
NAME_TAG: Final = "mlflow.runName"
REVISION_TAG: Final = "unigendet.revision"
PARAMS_TAG: Final = "unigendet.params"
STAGE_TAG: Final = "unigendet.stage"
FINGERPRINT_TAG: Final = "unigendet.fingerprint"
_PARAM_LIMIT = 6000
_NAME_LIMIT = 250
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Run:
    """The MLflow run of one stage. Picklable: it holds ids and no connection."""

    uri: str
    run_id: str
    parent_id: str

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs finite values of one step; names may hold `/`. What else MLflow does not take in a
        name, a generator called `ff++` for instance, becomes `_`."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(_plain(name), float(value), now, step) for name, value in metrics.items()]
        _client(self.uri).log_batch(self.run_id, metrics=entries)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Logs nested values under dotted names, so that two runs compare in the UI."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)[:_PARAM_LIMIT]) for name, value in _flat(values)]
        client = _client(self.uri)
        for start in range(0, len(entries), _BATCH):
            client.log_batch(self.run_id, params=entries[start : start + _BATCH])

    def log_figure(self, name: str, figure: Figure | Path) -> None:
        """Logs a matplotlib figure, or a picture file, under `figures/`."""
        if isinstance(figure, Path):
            _client(self.uri).log_artifact(self.run_id, str(figure), "figures")
        else:
            _client(self.uri).log_figure(self.run_id, figure, f"figures/{name}.png")

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Logs a file, or a folder with all that it holds."""
        log = _client(self.uri).log_artifacts if path.is_dir() else _client(self.uri).log_artifact
        log(self.run_id, str(path), folder or None)

    def set_tag(self, name: str, value: str) -> None:
        """Sets a tag of this run."""
        _client(self.uri).set_tag(self.run_id, name, value)

    def save(self, folder: Path) -> None:
        """Writes the run's id into an out folder, for the stages that read it."""
        write_json(folder / TRACKED_RUN, {"run_id": self.run_id, "parent_id": self.parent_id})


def tracked_run_id(folder: Path) -> str:
    """The run that made an out folder."""
    return str(read_json(folder / TRACKED_RUN)["run_id"])


@dataclass(frozen=True, slots=True)
class Origin:
    """What a stage's run says about where it comes from."""

    stage: str
    revision: str
    fingerprint: str
    input_hashes: Mapping[str, str]
    input_runs: Mapping[str, str]
    """MLflow run of each input, by stage name: what this one builds on, skipped stages too."""


@contextmanager
def stage_run(params: Params, workspace: Path, origin: Origin, memory: Path) -> Iterator[Run]:
    """The run of one stage, finished or failed when the block ends.

    `memory` is a folder that outlives the process: a run noted there is taken up again.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    home = persistent_root(workspace)
    uri = tracking_uri(params, home)
    with FileLock(str(home / "runs" / "tracking.lock")):
        # Making the database, an experiment or a parent is not safe beside another process.
        experiment = _experiment(uri, params.tracking.experiment, home)
        parent = _parent(uri, experiment, params, origin.revision)
        run = Run(uri, _resumed(uri, memory) or _new(uri, experiment, parent, origin), parent)
    run.save(memory)
    client = _client(uri)
    for stage, run_id in {**origin.input_runs, origin.stage: run.run_id}.items():
        client.set_tag(parent, f"unigendet.run.{stage}", run_id)
    try:
        yield run
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
        client.set_terminated(run.run_id, "KILLED" if interrupted else "FAILED")
        raise
    client.set_terminated(run.run_id, "FINISHED")
    client.set_terminated(parent, "FINISHED")


@contextmanager
def nested_run(parent: Run, name: str, *, status: str = "FINISHED") -> Iterator[Run]:
    """A run below a stage's run, a trial's for instance; `status` is MLflow's word for its end."""
    client = _client(parent.uri)
    experiment = client.get_run(parent.run_id).info.experiment_id
    made = client.create_run(experiment, tags={PARENT_TAG: parent.run_id}, run_name=name)
    run_id = str(made.info.run_id)
    yield Run(parent.uri, run_id, parent.run_id)
    client.set_terminated(run_id, status)


def tracking_uri(params: Params, home: Path) -> str:
    """Where MLflow keeps its runs; `MLFLOW_TRACKING_URI` wins, relative SQLite is in `home`."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    prefix = "sqlite:///"
    if uri.startswith(prefix):
        return prefix + str(home / uri.removeprefix(prefix))
    if "://" not in uri:
        raise ValueError(
            f"tracking uri {uri!r}: give sqlite:///FILE, or http(s)://HOST:PORT of an MLflow server"
        )
    return uri


def _plain(name: str) -> str:
    return posixpath.normpath(re.sub(r"[^\w./ -]", "_", name)).lstrip("/.")[:_NAME_LIMIT]


def check_shared(uri: str, node_addresses: list[str]) -> None:
    """Raises `ValueError` where several machines would share a SQLite file."""
    if uri.startswith("sqlite:") and len(set(node_addresses)) > 1:
        raise ValueError(
            f"the cluster has {len(set(node_addresses))} machines and MLflow would write {uri}, "
            "a file of one of them: start an MLflow server and set MLFLOW_TRACKING_URI"
        )


def _client(uri: str) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _experiment(uri: str, name: str, home: Path) -> str:
    client = _client(uri)
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    # An absolute place: else artifacts land in the folder that the writer happens to be in.
    place = (home / "mlartifacts" / name).as_uri() if uri.startswith("sqlite:") else None
    return str(client.create_experiment(name, artifact_location=place))


def _parent(uri: str, experiment: str, params: Params, revision: str) -> str:
    client = _client(uri)
    digest = params.fingerprint()
    found = client.search_runs(
        [experiment],
        f"tags.`{REVISION_TAG}` = '{revision}' and tags.`{PARAMS_TAG}` = '{digest}' "
        f"and tags.`{STAGE_TAG}` = 'all'",
        max_results=1,
    )
    if found:
        return str(found[0].info.run_id)
    name = os.environ.get("DVC_EXP_NAME") or f"{revision[:7]} {digest}"
    tags = {REVISION_TAG: revision, PARAMS_TAG: digest, STAGE_TAG: "all"}
    run_id = str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)
    Run(uri, run_id, run_id).log_params(params.model_dump(mode="json"))
    return run_id


def _new(uri: str, experiment: str, parent: str, origin: Origin) -> str:
    tags = {
        PARENT_TAG: parent,
        REVISION_TAG: origin.revision,
        STAGE_TAG: origin.stage,
        FINGERPRINT_TAG: origin.fingerprint,
        **{f"unigendet.input.{stage}.sha256": sha for stage, sha in origin.input_hashes.items()},
        **{f"unigendet.input.{stage}.run": run_id for stage, run_id in origin.input_runs.items()},
    }
    run = _client(uri).create_run(experiment, tags=tags, run_name=origin.stage)
    return str(run.info.run_id)


def _resumed(uri: str, memory: Path) -> str | None:
    """The run noted in `memory`, running again, if this tracking store still has it."""
    from mlflow.exceptions import MlflowException

    if not (memory / TRACKED_RUN).is_file():
        return None
    run_id = tracked_run_id(memory)
    try:
        _client(uri).update_run(run_id, status="RUNNING")
    except MlflowException:
        return None
    return run_id


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
