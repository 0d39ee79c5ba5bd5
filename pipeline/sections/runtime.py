"""Sections `cluster` and `tracking`: where a stage runs, never what it computes.

No stage lists them under `params:` in dvc.yaml, so changing them re-runs nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.sections.base import Count, CountOrZero, NonNegative, Section


class ClusterSection(Section):
    """The local Ray that a stage starts where `RAY_ADDRESS` names none."""

    num_cpus: CountOrZero
    """Cores that Ray may use; 0 takes every core of the machine."""
    object_store_mb: Annotated[int, Field(ge=80)]
    device: Literal["auto", "cpu", "cuda"]
    workers: Count
    """Processes that train one model together, each on its share of a step's images."""
    sharding: Literal["ddp", "fsdp"]
    """How several workers hold a model: each the whole of it, or a part (FSDP2)."""
    cpus_per_worker: CountOrZero
    """Cores of one training worker; 0 shares out all cores that Ray has."""
    loaders: CountOrZero
    """Processes of each training worker that make batches ahead; 0 makes them in the worker."""
    max_failures: CountOrZero
    """How often Ray Train starts a failed worker again before the stage fails."""
    min_free_gb: NonNegative
    """A stage refuses to start with less free disk space than this, in GB."""


class TrackingSection(Section):
    """MLflow. `MLFLOW_TRACKING_URI` in the environment wins over `uri`."""

    uri: str
    """A relative `sqlite:///` path lies in the repository, also for `dvc exp run --temp`."""
    experiment: Annotated[str, Field(min_length=1)]
