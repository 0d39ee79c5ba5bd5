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
    import numpy as np
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    # One array in shared memory: a task maps it and unpacks its own order only. Unpickling can run
    # anything, which is safe here: both ends are this program's own processes in one Ray cluster,
    # whose own messages are pickles too, and nothing unpickled comes from a file or from a user.
    packed = [pickle.dumps(order) for order in orders]
    ends = np.cumsum([0, *map(len, packed)])
    shared = ray.put((np.frombuffer(b"".join(packed), np.uint8), ends))
    del packed
    rows = ray.data.range(len(orders), override_num_blocks=len(orders)).map_batches(
        _run_batch,
        batch_size=1,
        batch_format="numpy",
        # In a list, so that Ray Data does not resolve the reference.
        fn_kwargs={"task": task, "shared": [shared]},
    )
    for row in rows.iter_rows():
        outcome = pickle.loads(row["outcome"])
        if isinstance(outcome, Exception):
            raise outcome
        yield orders[row["id"]], outcome


def _run_batch(
    batch: dict[str, Any], task: Callable[[Any], Any], shared: list[Any]
) -> dict[str, Any]:
    import numpy as np
    import ray

    packed, ends = ray.get(shared[0])
    orders = [pickle.loads(packed[ends[at] : ends[at + 1]]) for at in batch["id"]]
    outcomes = [pickle.dumps(_outcome(task, order)) for order in orders]
    return {"id": batch["id"], "outcome": np.array(outcomes, dtype=object)}


def _outcome(task: Callable[[Any], Any], order: Any) -> Any:
    try:
        return task(order)
    except (ValueError, OSError) as error:
        error.add_note("".join(traceback.format_exception(error)))
        return error
