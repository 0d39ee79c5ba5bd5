"""params.yaml, loaded strictly: an unknown, missing or wrong key is an error that names it.

`dvc exp run -S section.key=value` rewrites the file before a stage reads it, so the file is the
only source of values: no overlay, no default, no environment variable.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.loss_weights import check_layer
from pipeline.sections.base import Section
from pipeline.sections.coevolve import CoevolveSection
from pipeline.sections.data import DataSection, ShardSection
from pipeline.sections.detector import DetectorSection
from pipeline.sections.evaluate import EvaluateSection, ReportSection
from pipeline.sections.forge import ForgeSection
from pipeline.sections.generator import GeneratorSection
from pipeline.sections.model import ModelSection
from pipeline.sections.runtime import ClusterSection, TrackingSection
from pipeline.sections.sweep import SweepSection
from unigendet.teachers.layers import depth


class Params(Section):
    """The whole experiment: one section per stage, and what they share."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    model: ModelSection
    data: DataSection
    cluster: ClusterSection
    tracking: TrackingSection
    shard: ShardSection
    pretrain_generator: GeneratorSection
    forge: ForgeSection
    pretrain_detector: DetectorSection
    sweep: SweepSection
    coevolve: CoevolveSection
    evaluate: EvaluateSection
    report: ReportSection

    @model_validator(mode="after")
    def _weights_come_from_somewhere(self) -> Params:
        asked = self.coevolve.automatic()
        if asked and not self.sweep.enabled:
            raise ValueError(
                f"coevolve.{asked[0]} is auto, but sweep.enabled is false: "
                "give every weight a number"
            )
        if asked and not self.coevolve.joint:
            raise ValueError(
                f"coevolve.{asked[0]} is auto, but coevolve.joint is false, and the sweep's trials "
                "train both tasks together: give every weight a number"
            )
        return self

    @model_validator(mode="after")
    def _the_model_has_those_layers(self) -> Params:
        layers = self.model.llm.num_hidden_layers
        if self.coevolve.teacher in ("frozen", "live", "random"):
            depth(self.coevolve.teacher_layer, layers)
        tapped = self.sweep.tap_layers if self.sweep.enabled else ()
        given = self.coevolve.tap_layer
        for layer in tapped if given == "auto" else (*tapped, given):
            check_layer(layer, layers)
        return self

    @model_validator(mode="after")
    def _every_family_takes_such_images(self) -> Params:
        self.forge.config().vqar.check_side(self.data.image_size)
        return self

    def section_values(self, sections: Sequence[str]) -> dict[str, Any]:
        """The values of the named sections, or of keys in them (`a.b`), as JSON-able objects."""
        values = self.model_dump(mode="json")
        return {name: reduce(getitem, name.split("."), values) for name in sections}

    def fingerprint(self) -> str:
        """Twelve hex digits of everything that decides results (not `cluster`, not `tracking`)."""
        values = self.model_dump(mode="json", exclude={"cluster", "tracking"})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def load_params(path: Path) -> Params:
    """Reads a whole params file; a `ValueError` names every wrong key and the nearest valid one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; `make use PROFILE=tiny` writes one") from None
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number and a key given twice is an error.
        raw = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} must hold the sections of an experiment, but holds {raw!r:.60}")
    return parse_params(raw, where=str(path))


def parse_params(raw: dict[Any, Any], *, where: str = "params") -> Params:
    """Checks values as read from YAML. Raises `ValueError` with one line for each wrong key."""
    try:
        # Through JSON, since pydantic's strict mode then takes a list where a tuple is declared.
        return Params.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        # A union reports one problem for each of its members: say it once per key.
        lines = dict.fromkeys(_explain(problem) for problem in error.errors())
        raise ValueError("\n  ".join([f"{where}: {len(lines)} wrong", *lines])) from None


def _explain(problem: Any) -> str:
    location: tuple[str | int, ...] = problem["loc"]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        valid = _keys_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near else f"valid keys: {', '.join(valid)}"
        return f"`{key}` is no parameter; {hint}"
    if problem["type"] == "missing":
        return f"`{key}` is missing"
    value = problem["input"]
    shown = "" if isinstance(value, dict) else f" (it is {value!r:.60})"
    names = _real_path(location)
    return f"`{names}`: {problem['msg']}{shown}" if names else str(problem["msg"])


def _real_path(location: Sequence[str | int]) -> str:
    """The key without the labels that pydantic adds for the members of a union."""
    parts: list[str] = []
    section: type[BaseModel] | None = Params
    for part in location:
        if section is not None and part in section.model_fields:
            parts.append(str(part))
            section = _section_of(section.model_fields[str(part)].annotation)
        elif isinstance(part, int):
            parts.append(str(part))
    return ".".join(parts)


def _keys_at(location: Sequence[str | int]) -> list[str]:
    section: type[BaseModel] | None = Params
    for part in location:
        if section is not None:
            section = _section_of(section.model_fields[str(part)].annotation)
    return list(section.model_fields) if section is not None else []


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def main(arguments: Sequence[str]) -> int:
    """`python -m pipeline.params FILE...`: checks whole params files before anything starts."""
    for name in arguments or ["params.yaml"]:
        try:
            params = load_params(Path(name))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"{name}: valid, fingerprint {params.fingerprint()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
