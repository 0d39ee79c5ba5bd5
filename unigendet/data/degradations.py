"""What happens to pictures on their way: cropped, scaled, blurred, noisy, compressed.

One pipeline for real and fake: what is done to an image is drawn from (seed, key, epoch) and never
from its class, so that a detector cannot learn the handling of the one or the other. Each step
keeps the shape of the image. The single steps also serve the measurement of robustness.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unigendet.data.image_files import ImageError
from unigendet.types import Sample

Pixels = NDArray[np.uint8]
"""(H, W, 3)."""


@dataclass(frozen=True, slots=True)
class Degradations:
    """How often each step is taken, and how far it goes at most; amounts are drawn uniformly."""

    probability: float
    """Of each of the five steps, independently, in [0, 1]; 0 turns all of them off."""
    crop: float
    """Least share of each side that a crop keeps, in (0, 1]."""
    resize: float
    """Least scale that an image is brought to and back from, in (0, 1]."""
    blur: float
    """Largest standard deviation of the Gaussian, in pixels."""
    noise: float
    """Largest standard deviation of the noise, in grey levels of 255."""
    quality: int
    """Least quality of the JPEG or WebP that the image goes through, in 1..95."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in 0..1, got {self.probability}")
        if not (0 < self.crop <= 1 and 0 < self.resize <= 1):
            raise ValueError(f"crop ({self.crop}) and resize ({self.resize}) must lie in (0, 1]")
        if self.blur < 0 or self.noise < 0:
            raise ValueError(f"blur ({self.blur}) and noise ({self.noise}) must be at least 0")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"quality must lie in 1..95, got {self.quality}")

    def apply(self, sample: Sample, *, seed: int, epoch: int) -> Sample:
        """`sample` as this epoch sees it: the same for the same seed, key and epoch.

        A changed image loses its explanation, whose statements were measured on the untouched one:
        then the verdict alone is learned.
        """
        image = self.degrade(sample.image, draws(seed, sample.key, epoch))
        if image is sample.image:
            return sample
        return replace(sample, image=image, explanation="")

    def degrade(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """`image` after the steps that `rng` draws; `image` itself where it draws none."""
        # Every number is drawn whether it is used or not: a step does not depend on those before.
        taken = rng.random(5) < self.probability
        amount = rng.random(5).tolist()
        place, webp = rng.random(2).tolist(), rng.random() < 0.5
        noise_seed = int(rng.integers(2**63))
        if taken[0]:
            image = cropped(image, 1 - amount[0] * (1 - self.crop), (place[0], place[1]))
        if taken[1]:
            image = rescaled(image, 1 - amount[1] * (1 - self.resize))
        if taken[2]:
            image = blurred(image, amount[2] * self.blur)
        if taken[3]:
            image = noisy(image, amount[3] * self.noise, np.random.default_rng(noise_seed))
        if taken[4]:
            quality = round(95 - amount[4] * (95 - self.quality))
            image = compressed(image, "WEBP" if webp else "JPEG", quality)
        return image


def cropped(image: Pixels, share: float, place: tuple[float, float] = (0.5, 0.5)) -> Pixels:
    """A part with `share` of each side, enlarged to the whole; `place` in [0, 1] x [0, 1]."""
    height, width = image.shape[:2]
    left, top = place[0] * (1 - share) * width, place[1] * (1 - share) * height
    box = (left, top, left + share * width, top + share * height)
    return _resized(Image.fromarray(image), (width, height), box)


def rescaled(image: Pixels, scale: float) -> Pixels:
    """Made smaller (or larger) by `scale`, and brought back."""
    height, width = image.shape[:2]
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _resized(Image.fromarray(_resized(Image.fromarray(image), small)), (width, height))


def blurred(image: Pixels, sigma: float) -> Pixels:
    """Blurred by a Gaussian of `sigma` pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """With independent Gaussian noise of `sigma` grey levels."""
    changed = image + rng.normal(0.0, 1.0, image.shape) * sigma
    return np.asarray(changed.round().clip(0, 255), dtype=np.uint8)


def compressed(image: Pixels, kind: str, quality: int) -> Pixels:
    """Through a JPEG or WebP file of `quality` 1 to 100. Raises ImageError for a picture that the
    format cannot hold."""
    buffer = io.BytesIO()
    try:
        Image.fromarray(image).save(buffer, kind, quality=quality)
    except (OSError, ValueError) as error:
        height, width = image.shape[:2]
        raise ImageError(f"{width} x {height} pixels cannot be written as {kind}") from error
    with Image.open(buffer) as picture:
        return np.asarray(picture.convert("RGB"))


def _resized(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Pixels:
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))


def draws(seed: int, key: str, epoch: int) -> np.random.Generator:
    """The draws of one image: the same for the same three."""
    digest = hashlib.sha256(f"{seed}:{epoch}:{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
