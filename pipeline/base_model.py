"""A model folder that training begins from instead of from scratch, made by `unigendet import`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.sections.model import ModelSection


def check_base(folder: Path, model: ModelSection) -> None:
    """Hold section `model` against the folder's configuration before anything starts.

    The vocabulary and the alignment head are the folder's own business. Raises `ValueError` naming
    every key that differs, or the file that the folder lacks.
    """
    from unigendet.models.pretrained import read_config

    found = read_config(folder)
    wanted = replace(
        model.config(found.llm.vocab_size, alignment_head=found.alignment_head),
        alignment_width=found.alignment_width,
    )
    differing = list(_differing(asdict(wanted), asdict(found), "model"))
    if differing:
        raise ValueError(
            f"section `model` is not the model in {folder}: {'; '.join(differing)}. Set these keys "
            "to the folder's values, or name another folder in `pretrain_generator.base`"
        )


def _differing(wanted: Mapping[str, Any], found: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in wanted.items():
        if isinstance(value, dict):
            yield from _differing(value, found[key], f"{where}.{key}")
        elif value != found[key]:
            yield f"{where}.{key} is {value!r}, there {found[key]!r}"
