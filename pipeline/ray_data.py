"""Many independent pieces of work on Ray Data, as many at a time as there are CPUs."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Order = TypeVar("Order")
Result = TypeVar("Result")


def each_on_ray(
    task: Callable[[Order], Result], orders: Sequence[Order]
) -> Iterator[tuple[Order, Result]]:
    """`task` of every order, a Ray Data task each; pairs of order and result in any order.

    A result should be small: what is large goes to the disk and not through Ray's object store, so
    that memory does not grow with the number of orders. A ValueError or OSError of the task is
    raised here as it was there, for people to read; Ray would wrap it beyond recognition.
    """
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    # In a list, a reference is not resolved for a task that does not ask for it.
    shared = [ray.put(order) for order in orders]
    rows = ray.data.range(len(orders), override_num_blocks=len(orders)).map_batches(
        _run_batch,
        batch_size=1,
        batch_format="numpy",
        fn_kwargs={"task": task, "orders": shared},
    )
    for row in rows.iter_rows():
        outcome = pickle.loads(row["outcome"])
        if isinstance(outcome, Exception):
            raise outcome
        yield orders[row["id"]], outcome


def _run_batch(
    batch: dict[str, Any], task: Callable[[Any], Any], orders: list[Any]
) -> dict[str, Any]:
    import numpy as np
    import ray

    outcomes = [pickle.dumps(_outcome(task, ray.get(orders[int(at)]))) for at in batch["id"]]
    return {"id": batch["id"], "outcome": np.array(outcomes, dtype=object)}


def _outcome(task: Callable[[Any], Any], order: Any) -> Any:
    try:
        return task(order)
    except (ValueError, OSError) as error:
        error.add_note("".join(traceback.format_exception(error)))
        return error
