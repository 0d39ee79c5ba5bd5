"""Words and numbers for a class, and names of class folders, told apart without guessing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from unigendet.data.benchmarks.base import normalised

WORDS = {"real": False, "fake": True}
NUMBERS = {"0": False, "1": True}
TRUTH = {"false": False, "true": True}
ANY = {**WORDS, **NUMBERS, **TRUTH, "0_real": False, "1_fake": True}
"""Where 1 and true mean fake."""

REAL_FOLDERS = frozenset(("real", "reals", "0real", "nature"))
"""What a user calls a folder of real images, normalised."""
FAKE_FOLDERS = frozenset(("fake", "fakes", "1fake", "ai", "generated", "synthetic"))
SUBJECTS = frozenset(("nature",))
"""Class folders whose name may also be what photographs show: below another class folder, and where
there is no other, they say nothing."""
_LIKE_FAKES = re.compile(
    r"(?<![a-z])((deep)?fake|(ai)?generated|synthe(tic|si[sz]ed)|ai(gc)?(?![a-z]))", re.IGNORECASE
)


def parse_class(value: object, accepted: Mapping[str, bool]) -> bool:
    """Whether `value` means fake. Raises ValueError that says what is accepted."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = str(value).strip().lower() if value is not None else ""
    if word.endswith(".0"):  # pandas writes whole numbers beside gaps so
        word = word[:-2]
    if word not in accepted:
        meanings = ", ".join(
            f"{text} = {'fake' if fake else 'real'}" for text, fake in accepted.items()
        )
        raise ValueError(f"the label {str(value)[:40]!r} is not understood; accepted: {meanings}")
    return accepted[word]


def folder_of_fakes(parts: Sequence[str], own: str) -> str | None:
    """The folder of a path below the one called `own` that must be one of fakes, or looks like one
    (`ai_images`) and is not below a folder of real images, where it only names a subject."""
    called = [part for part in (own, *parts) if normalised(part) in FAKE_FOLDERS]
    if called:
        return called[0]
    if any(normalised(part) in REAL_FOLDERS - SUBJECTS for part in (own, *parts)):
        return None
    return next((part for part in parts if _LIKE_FAKES.search(part)), None)
