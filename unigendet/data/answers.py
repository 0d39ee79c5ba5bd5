"""Reference answers that are written only after the images were sharded.

What stage forge makes, and what came with an explanation of its own, carries its answer. That of
any other image is kept by key in a file beside the forged shards, so that images are stored once.
`read_answers` gives what the loader takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

ANSWERS_FILE = "explanations.json"


def write_answers(folder: Path, answers: Mapping[str, Mapping[str, str]]) -> None:
    """Write `answers` (set name -> key -> answer) into `folder`."""
    text = json.dumps(answers, ensure_ascii=False, sort_keys=True, indent=1)
    (folder / ANSWERS_FILE).write_text(text, encoding="utf-8")


def read_answers(folder: Path, set_name: str) -> dict[str, str]:
    """Answers of one set of the shards by key. Raises ValueError where there are none for it."""
    path = folder / ANSWERS_FILE
    try:
        sets = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: run the stage forge first") from None
    if set_name not in sets:
        raise ValueError(f"{path} has answers for {', '.join(sorted(sets))}, not for {set_name!r}")
    answers: dict[str, str] = sets[set_name]
    return answers
