"""Ray Tune: Optuna proposes, ASHA stops, and an interrupted search goes on.

Optuna has two objectives and ASHA a scalar of its own, so neither metric stands in `TuneConfig`.
ASHA is asynchronous: which trials it stops depends on which arrive first. A trial that it stopped
is told to Optuna as pruned. Ray saves the searcher and the trials but not the scheduler, so ASHA's
decisions are noted in a file and played back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.sections.sweep import SweepSection
from pipeline.sweep.space import first_guess, search_space
from pipeline.sweep.trial import AUROC, DISTANCE, NUMBER, PROGRESS, REPEAT, STEPS

_NAME = "sweep"
_NOTES = "asha.jsonl"


def run_search(section: SweepSection, seed: int, trainable: Any, folder: Path) -> Sequence[Any]:
    """Ray Tune's results of all trials and repeats, from `folder` on where there is a beginning.

    Args:
        trainable: reports as `pipeline.sweep.trial` does, its resources with it.
        folder: on a disk that all machines see; it outlives an interruption.
    """
    from ray import tune

    kept = str(folder / _NAME)
    space = search_space(section)
    if tune.Tuner.can_restore(kept):
        print("[sweep] going on with the trials of the interrupted sweep", flush=True)
        # Without `resume_errored` a trial that failed for want of memory or disk would fail again
        # at once, whatever was mended.
        tuner = tune.Tuner.restore(kept, trainable, resume_errored=True, param_space=space)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _NOTES).write_text("", encoding="utf-8")
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=section.trials + section.repeats,
                # A process that has done a trial takes the next one without new imports.
                reuse_actors=True,
                search_alg=proposals(section, seed),
                scheduler=halving(section, folder / _NOTES),
            ),
            run_config=tune.RunConfig(
                name=_NAME,
                storage_path=str(folder),
                verbose=0,
                callbacks=[announcer(section)],
            ),
        )
    return list(tuner.fit())


def proposals(section: SweepSection, seed: int) -> Any:
    """The searcher: the first guess, then Optuna's proposals, then the first guess's repeats.

    It holds at most `section.concurrent` trials at a time, and keeps that count when restored,
    which Ray's own limiter does not.
    """
    from ray.tune.search.optuna import OptunaSearch

    guess = first_guess(section)

    class Proposals(OptunaSearch):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                metric=[AUROC, DISTANCE],
                mode=["max", "min"],
                points_to_evaluate=[guess],
                seed=seed,
            )
            self._given, self._running = 0, set[str]()

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            if len(self._running) >= section.concurrent:
                return None
            number = self._given
            repeat = max(0, number - section.trials + 1)
            weights = guess if repeat else super().suggest(trial_id)
            self._given += 1
            self._running.add(trial_id)
            return {**weights, NUMBER: number, REPEAT: repeat}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            self._running.discard(trial_id)
            if trial_id in self._ot_trials:
                whole = result and result.get(AUROC) is not None
                super().on_trial_complete(trial_id, result if whole else None, error)

    return Proposals()


def halving(section: SweepSection, notes: Path) -> Any:
    """The scheduler: ASHA over `progress`. The first guess and its repeats always reach their end.

    The guess is what others are measured against, and the repeats measure noise and compete with
    nobody.
    """
    from ray.tune.schedulers import ASHAScheduler

    go_on = str(ASHAScheduler.CONTINUE)

    class Halving(ASHAScheduler):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(
                time_attr=STEPS,
                metric=PROGRESS,
                mode="min",
                max_t=section.steps,
                grace_period=section.grace_steps,
                reduction_factor=section.reduction_factor,
            )
            self._decided: dict[tuple[str, int], str] = {}
            self._played_back = False

        def on_trial_add(self, controller: Any, trial: Any) -> None:
            if not self._played_back:
                self._played_back = True
                self._play_back(controller)
            super().on_trial_add(controller, trial)

        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if trial.config[REPEAT] or result[STEPS] >= section.steps:
                return go_on
            key = (trial.trial_id, result[STEPS])
            if key not in self._decided:
                found = str(super().on_trial_result(controller, trial, result))
                self._decided[key] = go_on if trial.config[NUMBER] == 0 else found
                note = [*key, result[PROGRESS], self._decided[key]]
                with notes.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(note) + "\n")
            return self._decided[key]

        def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
            """Nothing: a last report is no rung."""

        def _play_back(self, controller: Any) -> None:
            # A line without its end was being written when the process was killed.
            whole, end, torn = notes.read_text(encoding="utf-8").rpartition("\n")
            if torn:
                notes.write_text(whole + end, encoding="utf-8")
            for line in whole.splitlines():
                trial_id, step, value, decision = json.loads(line)
                past = SimpleNamespace(trial_id=trial_id)
                super().on_trial_add(controller, past)
                super().on_trial_result(controller, past, {STEPS: step, PROGRESS: value})
                self._decided[trial_id, step] = decision

    return Halving()


def announcer(section: SweepSection) -> Any:
    """A Ray Tune callback that prints how each trial ended and the time left."""
    from ray import tune

    total = section.trials + section.repeats

    class Announcer(tune.Callback):  # type: ignore[misc]
        began, here = 0.0, 0

        def on_trial_start(self, **_: Any) -> None:
            self.began = self.began or time.time()

        def on_trial_complete(self, trials: Sequence[Any], trial: Any, **_: Any) -> None:
            self._tell(trials, trial, _ended(trial))

        def on_trial_error(self, trials: Sequence[Any], trial: Any, **_: Any) -> None:
            self._tell(trials, trial, f"{_name(trial)} failed")

        def _tell(self, trials: Sequence[Any], trial: Any, what: str) -> None:
            # Others may have ended before an interruption: their time is not in `began`.
            self.here += 1
            over = [one for one in trials if one.status in ("TERMINATED", "ERROR")]
            done = len(over) + (trial not in over)
            left = (time.time() - self.began) / self.here * (total - done)
            minutes, seconds = divmod(round(left), 60)
            print(
                f"[sweep] {what}, {done} of {total} over, {minutes}:{seconds:02d} left",
                flush=True,
            )

    return Announcer()


def _name(trial: Any) -> str:
    repeat = f" (repeat {trial.config[REPEAT]} of trial 0)" if trial.config[REPEAT] else ""
    return f"trial {trial.config[NUMBER]}{repeat}"


def _ended(trial: Any) -> str:
    found, name = trial.last_result, _name(trial)
    if found.get(AUROC) is None:
        return f"{name} stopped early at step {found.get(STEPS)}"
    return f"{name} done: AUROC {found[AUROC]:.4f}, distance {found[DISTANCE]:.4f}"
