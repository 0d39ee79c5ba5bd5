"""Answers in words: the verdict first, then what shows it."""

from __future__ import annotations

import re

REAL_ANSWER = "This is a real image."
FAKE_ANSWER = "This is a fake image."

_VERDICT = re.compile(
    r"\b(?:this|the|it)\s+(?:is\s+(?:an?|the)\s+(?P<a>real|fake)\s+(?:image|picture|photo)"
    r"|(?:image|picture|photo)?\s*is\s+(?P<b>real|fake))\b",
    re.IGNORECASE,
)


def answer_text(fake: bool, evidence: str = "") -> str:
    """The published answer format: the verdict, then what shows it."""
    return f"{FAKE_ANSWER if fake else REAL_ANSWER} {evidence}".strip()


def parse_verdict(answer: str) -> bool | None:
    """Whether the answer says fake. None where it says neither or both: an unparsed answer."""
    verdicts = {(m["a"] or m["b"]).lower() == "fake" for m in _VERDICT.finditer(answer)}
    return verdicts.pop() if len(verdicts) == 1 else None


def given_answer(fake: bool, explanation: str) -> str:
    """What is learnt of an explanation that came with an image: itself, its verdict put first where
    it states none. Empty where there is none, or where it states both verdicts.

    Raises ValueError where it states the opposite of the image's label.
    """
    if not explanation:
        return ""
    stated = parse_verdict(explanation)
    if stated is (not fake):
        told = ("real", "fake")[fake]
        raise ValueError(f"its label says {told}, its explanation the opposite")
    answer = explanation if stated is fake else answer_text(fake, explanation)
    return answer if parse_verdict(answer) is fake else ""
