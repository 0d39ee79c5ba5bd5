"""Names of the half-rounds of co-evolution, for folders, files and people."""

from __future__ import annotations

from typing import Literal

START = "start"
"""The model that co-evolution begins with, before its first half-round."""


def phase_name(kind: Literal["gduf", "diga", "fakes"], round_number: int) -> str:
    """Name of a phase in the history and of its result; rounds count from 1."""
    return f"round{round_number}_{kind}"


def phase_label(name: str) -> str:
    """`start`, `GDUF 1`, `DIGA 1` and so on."""
    if name == START:
        return START
    number, kind = name.removeprefix("round").split("_")
    return f"{kind.upper()} {number}"
