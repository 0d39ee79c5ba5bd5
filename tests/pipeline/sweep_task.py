"""A search that trains nothing: its trials only report, and one of them waits to be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.cluster import ray_session
from pipeline.params import load_params
from pipeline.sweep.run import read_trial
from pipeline.sweep.search import run_search

PROGRESS = [1.0, 2.0, 0.5, 0.9, 5.0]
"""ASHA's scalar by number of trial; the last is a repeat, and so is `DIES`, which tells none."""
FAILS_AT_FIRST, WAITS, DIES = 1, 2, 5


def toy(config: dict[str, Any], home: Path) -> None:
    """Two rungs and an end; `WAITS` does not pass its first rung until there is a file `go`.

    `FAILS_AT_FIRST` fails until then, as on a disk that is full. `DIES` is killed before it
    reports, as for want of memory.
    """
    from ray import tune

    number = config["number"]
    with (home / "begun.txt").open("a") as file:
        file.write(f"{number}\n")
    if number == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == FAILS_AT_FIRST and not (home / "go").exists():
        raise OSError("No space left on device")
    found: dict[str, Any] = {"progress": PROGRESS[number], "auroc": None, "distance": None}
    for steps in (2, 4):
        tune.report({**found, "steps": steps})
        if number == WAITS and not (home / "go").exists():
            (home / "halfway").touch()
            time.sleep(600)
    ended = {"auroc": 0.9, "distance": 0.1 * number, "figures": {"auroc": 0.9}}
    tune.report({**found, **ended, "steps": 8})


def main(root: Path, home: Path) -> None:
    params = load_params(root / "profiles" / "smoke.yaml")
    steps = {"gduf_steps": 4, "diga_steps": 4, "grace_steps": 2}
    section = params.sweep.model_copy(
        update={"trials": 4, "repeats": 2, "concurrent": 1, "reduction_factor": 2.0, **steps}
    )
    with ray_session(params, root, ahead=("ray.tune",)):
        from ray import tune

        trainable = tune.with_resources(tune.with_parameters(toy, home=home), {"CPU": 1})
        results = run_search(section, 0, trainable, home / "state")
    trials = [asdict(read_trial(result)) for result in results]
    (home / "trials.json").write_text(json.dumps(trials))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
