"""Robustness: what is done to real and fake images alike before they are judged once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from unigendet.data.degradations import Pixels, blurred, compressed, cropped, draws, noisy, rescaled


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to perturb, and how strong it may be."""

    least: float
    most: float
    untouched: float
    """Where its curve begins: the strength, never asked for, that stands for the image as it is."""
    strength: str
    """What the strength is, for people."""
    whole: bool = False


KINDS = {
    "jpeg": Kind(1, 99, 100, "JPEG quality", whole=True),
    "webp": Kind(1, 99, 100, "WebP quality", whole=True),
    "blur": Kind(0.05, 20, 0, "blur, sigma in pixels"),
    "noise": Kind(0.1, 128, 0, "noise, sigma in grey levels"),
    "resize": Kind(0.05, 0.99, 1, "scale, brought there and back"),
    "crop": Kind(0.05, 0.99, 1, "share of each side that is kept"),
}


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One kind at one strength, written `jpeg=70`."""

    kind: str
    strength: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that says what there is."""
        name, equals, number = text.replace(" ", "").partition("=")
        known = KINDS.get(name)
        if known is None or not equals:
            kinds = ", ".join(f"{one} ({kind.strength})" for one, kind in KINDS.items())
            raise ValueError(
                f"a perturbation is KIND=STRENGTH, jpeg=70 for instance: {kinds}; got {text!r}"
            )
        try:
            strength = float(number)
        except ValueError:
            strength = float("nan")
        if not known.least <= strength <= known.most or (known.whole and strength % 1):
            whole = "a whole number " if known.whole else ""
            raise ValueError(
                f"{text}: {known.strength}, must be {whole}from {known.least:g} to {known.most:g}"
            )
        return cls(name, strength)

    def __str__(self) -> str:
        return f"{self.kind}={self.strength:g}"

    def apply(self, image: Pixels, key: str) -> Pixels:
        """(H, W, 3) in the same shape. Noise is drawn from `key`, never from the class.

        Raises ImageError for a picture that cannot be changed so: JPEG holds up to 65,500 pixels a
        side, WebP 16,383.
        """
        return _STEPS[self.kind](image, self.strength, key)


def parse_all(texts: Sequence[str]) -> tuple[Perturbation, ...]:
    """In their order. Raises ValueError for one that is none, or is there twice."""
    found = tuple(Perturbation.parse(text) for text in texts)
    if len(set(found)) < len(found):
        raise ValueError(f"a perturbation is named twice: {', '.join(map(str, found))}")
    return found


_STEPS: dict[str, Callable[[Pixels, float, str], Pixels]] = {
    "jpeg": lambda image, quality, key: compressed(image, "JPEG", round(quality)),
    "webp": lambda image, quality, key: compressed(image, "WEBP", round(quality)),
    "blur": lambda image, sigma, key: blurred(image, sigma),
    "noise": lambda image, sigma, key: noisy(image, sigma, draws(0, key, 0)),
    "resize": lambda image, scale, key: rescaled(image, scale),
    "crop": lambda image, share, key: cropped(image, share),
}
