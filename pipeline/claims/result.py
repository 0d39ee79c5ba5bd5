"""What one (arm, seed) leaves behind: a JSON under docs/results/, so that days add up."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.artifacts import STAGES, read_json
from pipeline.claims.arms import FULL
from pipeline.provenance import import_closure

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
    if not isinstance(raw, dict) or set(raw) != names:
        raise ValueError(f"{path} is no result of `make claims`: delete it, then run that again")
    return ArmResult(**raw)


def load_results(folder: Path) -> list[ArmResult]:
    """All results of a profile, checked to be comparable.

    Raises ValueError where two are of different parameters, or where the arms of a seed differ in
    code or, leave-one-out aside, in the images that they were judged on.
    """
    found = [load_result(path) for path in sorted(folder.glob("*-seed*.json"))]
    _same(found, "base", "of other parameters or loss weights")
    for seed in sorted({one.seed for one in found}):
        arms = [one for one in found if one.seed == seed]
        _same(arms, "code", "made by other code")
        _same([one for one in arms if not moves_roles(one)], "pool", "judged on other images")
    return found


def moves_roles(result: ArmResult) -> bool:
    """Whether the arm has families of its own in its test pool (leave-one-out)."""
    return any(key.startswith(("forge.", "data.", "shard.")) for key in result.overrides)


def _same(results: Sequence[ArmResult], what: str, said: str) -> None:
    for one in results[1:]:
        if getattr(one, what) != getattr(results[0], what):
            first, other = (f"{r.arm} of seed {r.seed}" for r in (results[0], one))
            raise ValueError(
                f"results that cannot be compared: {other} was {said} than {first}. Delete the "
                "older one's JSON (git keeps it) and run `make claims` again"
            )


def is_done(path: Path, fingerprint: str, code: str) -> bool:
    """Whether this result is there already; a `ValueError` where a different one is."""
    if not path.is_file():
        return False
    found = load_result(path)
    for what, wanted in (("parameters", fingerprint), ("code", code)):
        if wanted != (found.fingerprint if what == "parameters" else found.code):
            raise ValueError(
                f"{path} is of other {what}: check out revision {found.revision[:12]} to add to "
                "those results, or delete them (git keeps them) to begin anew with today's"
            )
    return True


def results_code(root: Path) -> str:
    """Digest of all code that decides figures, plumbing left out, as DVC sees it."""
    paths = {
        path
        for spec in STAGES
        if spec.name not in _NO_RESULT
        for path in import_closure(f"stages.{spec.name}", root, beyond_plumbing=False)
    }
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.as_posix().encode() + b"\0" + (root / path).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def by_seed(results: Sequence[ArmResult], arm: str = FULL) -> dict[int, ArmResult]:
    """Seed -> result of one arm."""
    return {one.seed: one for one in results if one.arm == arm}
