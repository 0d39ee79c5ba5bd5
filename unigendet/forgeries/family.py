"""The interface of a fake-making family, and the drawing of its batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unigendet.forgeries.roles import TRAITS, Traits

Progress = Callable[[int, int, float], None]
"""Called as `progress(step, steps, loss)` after a step of fitting."""


def no_progress(step: int, steps: int, loss: float) -> None:
    """Show nothing."""


def seeded(*key: int) -> torch.Generator:
    """A generator whose draws are a function of the numbers in `key` (each at least 0) alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def draw_noise(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal draws, the same on every device, on the device of `like`."""
    return torch.randn(tuple(shape), generator=generator).to(like.device)


def training_batch(
    images: Tensor, batch_size: int, generator: torch.Generator, crop: int = 0
) -> Tensor:
    """Draw `batch_size` of `images` (N, 3, H, W) with replacement, each flipped and turned.

    Turning by a quarter needs square images; others are only flipped. `crop` above 0 cuts a square
    of that side (or of the whole side, where that is less), at one random place for the batch.
    """
    if 0 < crop < max(images.shape[2:]):
        height, width = (min(crop, side) for side in images.shape[2:])
        top = int(torch.randint(images.shape[2] - height + 1, (1,), generator=generator))
        left = int(torch.randint(images.shape[3] - width + 1, (1,), generator=generator))
        images = images[:, :, top : top + height, left : left + width]
    picks = torch.randint(len(images), (batch_size,), generator=generator)
    moves = torch.randint(8, (batch_size,), generator=generator).tolist()
    square = images.shape[-1] == images.shape[-2]
    turned = []
    for pick, move in zip(picks.tolist(), moves, strict=True):
        image = images[pick]
        if move & 1:
            image = image.flip(-1)
        if move & 2:
            image = image.flip(-2)
        if move & 4 and square:
            image = image.transpose(-1, -2)
        turned.append(image)
    return torch.stack(turned)


class Family(ABC):
    """One way of making fakes. Images are (N, 3, H, W) in [-1, 1]."""

    name: ClassVar[str]

    @property
    def traits(self) -> Traits:
        """Whether its fakes are aligned, and whose decoder they come out of."""
        return TRAITS[self.name]

    @abstractmethod
    def network(self) -> nn.Module | None:
        """The weights that `fit` learns and `save` writes; None where there is nothing to fit."""

    @abstractmethod
    def fit(
        self,
        images: Tensor,
        captions: Sequence[str],
        *,
        seed: int,
        progress: Progress = no_progress,
    ) -> float:
        """Learn from real training images; gives the mean loss of the last tenth of the steps."""

    @abstractmethod
    def make(self, images: Tensor, captions: Sequence[str], *, seed: int) -> Tensor:
        """One fake for each real image, of its shape, in [-1, 1]; a function of (inputs, seed)."""

    def weights(self) -> bytes:
        """The weights as safetensors; empty for a family that has none."""
        from safetensors.torch import save

        network = self.network()
        if network is None:
            return b""
        state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        return save(state, metadata={"family": self.name})

    def save(self, path: Path) -> None:
        """Write the weights. A family without weights writes nothing."""
        if data := self.weights():
            path.write_bytes(data)

    def load(self, path: Path) -> None:
        """Read what `save` wrote. Raises ValueError for a file of another family or shape."""
        from safetensors import safe_open
        from safetensors.torch import load_file

        network = self.network()
        if network is None:
            return
        with safe_open(path, framework="pt") as handle:
            family = (handle.metadata() or {}).get("family")
        if family != self.name:
            raise ValueError(f"{path} holds weights of family {family!r}, not of {self.name!r}")
        try:
            network.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise ValueError(
                f"{path} was fitted with another configuration of {self.name!r}: {error}"
            ) from error


def check_images(images: Tensor, captions: Sequence[str], multiple: int) -> None:
    """Raise ValueError unless `images` is (N >= 1, 3, H, W) with sides that `multiple` divides."""
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(
            f"images must be (N, 3, H, W) with N at least 1, got {tuple(images.shape)}"
        )
    if len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images")
    if images.shape[2] % multiple or images.shape[3] % multiple:
        raise ValueError(
            f"image sides must be multiples of {multiple}, got {tuple(images.shape[2:])}"
        )
