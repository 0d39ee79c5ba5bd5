"""What one (arm, seed) leaves behind: a JSON under docs/results/, so that days add up."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.artifacts import STAGES, read_json
from pipeline.claims.arms import FULL
from pipeline.provenance import import_closure

COLLECT = "pipeline.claims.collect"
"""The module that makes figures of a run's outs, itself a command."""
RESULTS = Path("docs") / "results"
_NO_RESULT = {"report"}
"""Stages whose code decides no figure."""

Scores = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""Set (`home` or `everyday`) -> generator (`real` or a family) -> source id -> P(fake)s."""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm at one seed."""

    profile: str
    arm: str
    seed: int
    overrides: Mapping[str, Any]
    fingerprint: str
    """Of this experiment's parameters."""
    base: str
    """Of the profile's parameters with the weights in force, without arm and seed."""
    code: str
    """Digest of the code that decides figures."""
    pool: str
    """Digest of the real and forged images, the same for every arm that is compared."""
    revision: str
    command: str
    machine: Mapping[str, Any]
    finished: str
    seconds: Mapping[str, float]
    """Of each stage when it ran; a stage that another arm had run was not run again."""
    weights: Mapping[str, float]
    trained_on: Sequence[str]
    """Families that the detector learned from; the others of `scores` it never saw."""
    own_decoder: Sequence[str]
    """Families whose images come out of the project's own autoencoder."""
    figures: Mapping[str, Mapping[str, float | None]]
    """By group: `detection`, `generation`, `forgetting`, `validation`."""
    scores: Scores
    """P(fake) of every judged image, 7 decimals: what the bootstrap over sources needs. Never of
    fakes by this arm's own generator: a worse one would make a better-looking detector."""
    below_floor: Sequence[str] = ()
    """Families too poor to count among the unseen ones. The first results do not say: theirs that
    count for claims were good enough."""

    def save(self, folder: Path) -> Path:
        """Writes `<arm>-seed<k>.json`, whole or not at all; the scores take one line."""
        values = asdict(self)
        scores = json.dumps(values.pop("scores"), separators=(",", ":"), allow_nan=False)
        head = json.dumps(values, indent=2, allow_nan=False).removesuffix("\n}")
        folder.mkdir(parents=True, exist_ok=True)
        path = result_path(folder, self.arm, self.seed)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(f'{head},\n  "scores": {scores}\n}}\n', encoding="utf-8")
        os.replace(partial, path)
        return path


def result_path(folder: Path, arm: str, seed: int) -> Path:
    """Where the result of an arm and seed lies."""
    return folder / f"{arm}-seed{seed}.json"


def load_result(path: Path) -> ArmResult:
    """Reads one; a `ValueError` names the file where it is broken or of another form."""
    raw = read_json(path)
    names = {field.name for field in fields(ArmResult)}
    needed = {field.name for field in fields(ArmResult) if field.default is MISSING}
    if not isinstance(raw, dict) or not needed <= raw.keys() <= names:
        raise ValueError(f"{path} is no result of `make claims`: delete it, then run that again")
    result = ArmResult(**raw)
    if path != result_path(path.parent, result.arm, result.seed):
        raise ValueError(f"{path} is of {result.arm} at seed {result.seed}: its name must say so")
    return result


def load_results(folder: Path) -> list[ArmResult]:
    """All results of a profile, checked to be comparable.

    Raises ValueError where two are of different parameters, where an arm changes other things in
    another seed, or where the arms of a seed differ in code or, those that change the data aside,
    in the images that they were judged on.
    """
    found = _every(folder)
    _same(folder, found, "base", "of other parameters or loss weights")
    for arm in sorted({one.arm for one in found}):
        of_arm = [one for one in found if one.arm == arm]
        _same(folder, of_arm, "overrides", f"of another arm called {arm}")
    for seed in sorted({one.seed for one in found}):
        arms = [one for one in found if one.seed == seed]
        _same(folder, arms, "code", "made by other code")
        pooled = [one for one in arms if not moves_roles(one)]
        _same(folder, pooled, "pool", "judged on other images")
    return found


def mismatch(
    folder: Path,
    *,
    base: str,
    code: str,
    arms: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
) -> str:
    """Which result that is there cannot stand beside those of a new run, and the ways out, or "".

    Args:
        base: fingerprint of the run's parameters, as `ArmResult.base`.
        code: digest of the code that would make them.
        arms: name -> overrides.
    """
    for one in _every(folder):
        differs = [
            what
            for what, other in (
                ("parameters or loss weights", one.base != base),
                ("changes of this arm", one.arm in arms and one.overrides != arms[one.arm]),
                ("code", one.seed in seeds and one.code != code),
            )
            if other
        ]
        if differs:
            return (
                f"{result_path(folder, one.arm, one.seed)} is of other {', '.join(differs)}. To "
                f"add to those results, clone the repository again, check out revision "
                f"{short(one.revision)} there and copy {RESULTS / folder.name} into it; to begin "
                "anew with today's, delete them here (git keeps them)"
            )
    return ""


def short(revision: str) -> str:
    """Twelve digits of a revision, and whether it had uncommitted changes."""
    return revision[:12] + "+" * revision.endswith("+")


def _every(folder: Path) -> list[ArmResult]:
    return [load_result(path) for path in sorted(folder.glob("*-seed*.json"))]


def moves_roles(result: ArmResult) -> bool:
    """Whether the arm has data of its own, or families of its own in its test pool."""
    return any(key.startswith(("forge.", "data.", "shard.")) for key in result.overrides)


def _same(folder: Path, results: Sequence[ArmResult], what: str, said: str) -> None:
    newest = max(results, key=lambda one: one.finished, default=None)
    others = [one for one in results if getattr(one, what) != getattr(newest, what)]
    if newest is None or not others:
        return
    told = [
        f"  {result_path(folder, one.arm, one.seed)} (revision {short(one.revision)}, "
        f"{one.finished})"
        for one in (newest, *others)
    ]
    raise ValueError(
        "\n".join(
            [
                f"results that cannot be compared: the newest of them is {said} than the others",
                *told,
                "Delete the older ones (git keeps them) and run `make claims` again",
            ]
        )
    )


def results_code(root: Path) -> str:
    """Digest of all code that decides figures, plumbing left out, as DVC sees it."""
    modules = [f"stages.{spec.name}" for spec in STAGES if spec.name not in _NO_RESULT]
    paths = {
        path
        for module in (*modules, COLLECT)
        for path in import_closure(module, root, beyond_plumbing=False)
    }
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.as_posix().encode() + b"\0" + (root / path).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def by_seed(results: Sequence[ArmResult], arm: str = FULL) -> dict[int, ArmResult]:
    """Seed -> result of one arm."""
    return {one.seed: one for one in results if one.arm == arm}
