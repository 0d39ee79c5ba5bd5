"""Reference answers of real images, which are written only after the images were sharded.

A fake's sample carries its own answer. A real image's is kept by key in a file beside the fakes'
shards, so that the real images are stored once. `read_answers` gives what the loader takes.
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
    """Answers of one set of real images by key. Raises ValueError where there are none for it."""
    path = folder / ANSWERS_FILE
    try:
        sets = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: run the stage forge first") from None
    if set_name not in sets:
        raise ValueError(f"{path} has answers for {', '.join(sorted(sets))}, not for {set_name!r}")
    answers: dict[str, str] = sets[set_name]
    return answers
