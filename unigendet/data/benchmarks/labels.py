"""Words and numbers for a class, told apart without guessing."""

from __future__ import annotations

from collections.abc import Mapping

WORDS = {"real": False, "fake": True}
NUMBERS = {"0": False, "1": True}
TRUTH = {"false": False, "true": True}
ANY = {**WORDS, **NUMBERS, **TRUTH, "0_real": False, "1_fake": True}
"""Where 1 and true mean fake."""


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
