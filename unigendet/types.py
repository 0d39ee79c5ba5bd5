"""The contracts between the rooms of `unigendet`: samples, packs, losses, evaluation records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AttentionMode = Literal["causal", "full", "noise"]
"""How the tokens of one block see each other (specification 3)."""

_Contract = TypeVar("_Contract")


def moved(contract: _Contract, device: torch.device | str) -> _Contract:
    """A copy of a frozen dataclass with its tensors, and those of its parts, on `device`."""
    from torch import Tensor  # here: whoever only reads images does without torch

    values: dict[str, Any] = {}
    for field in fields(contract):  # type: ignore[arg-type]
        value = getattr(contract, field.name)
        if isinstance(value, Tensor):
            value = value.to(device, non_blocking=True)
        elif isinstance(value, AttentionPlan | AttentionBucket | PackedBatch):
            value = moved(value, device)
        elif isinstance(value, tuple) and value and isinstance(value[0], AttentionBucket):
            value = tuple(moved(bucket, device) for bucket in value)
        values[field.name] = value
    return type(contract)(**values)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with all that is known of it; what a shard stores and a loader yields."""

    key: str
    """Unique within its set."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    source_id: str
    """The real image (or map tile) that this image is or was made from; splits and bootstraps
    group by it."""
    split: str
    """`train`, `val` or `test`."""
    domain: str
    """The source it comes from, `blue_marble` or `everyday` for instance."""
    caption: str
    fake: bool
    generator: str = "real"
    """The family that made it; `real` for a real image."""
    explanation: str = ""
    """Reference answer, empty until evidence has been measured."""


@dataclass(frozen=True, slots=True)
class Markers:
    """Ids of the four marker tokens (specification 2)."""

    bos: int
    eos: int
    vision_start: int
    vision_end: int


@dataclass(frozen=True, slots=True)
class Split:
    """One block of a sample: a text or an image with its markers."""

    length: int
    """In tokens, markers included."""
    mode: AttentionMode


@dataclass(frozen=True, slots=True)
class AttentionBucket:
    """Sequences of similar length, padded to `length` and attended to in one call."""

    batch: int
    length: int
    mask: Tensor | None
    """(batch or 1, 1, length, length) bool, True where the query (row) sees the key (column);
    None where everything sees everything. A padded query sees every key, a padded key is seen by
    padded queries only, so that no softmax is empty."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How N token rows are gathered into padded buckets and back. Made once for all layers."""

    gather: Tensor
    """(P,) int64: the row that stands at each place of the buckets, one bucket after another."""
    scatter: Tensor
    """(N,) int64: the place of each row; `gather[scatter]` is `arange(N)`."""
    buckets: tuple[AttentionBucket, ...]
    order: Tensor
    """(N,) int64: the row at each place of the pack, sample after sample."""
    sample: Tensor
    """(N,) int64, by place of the pack: number of the sample."""
    block: Tensor
    """(N,) int64, by place of the pack: number of the block, counted through all samples."""
    mode: Tensor
    """(N,) int64, by place of the pack: how the block's tokens see, as a place in `MODES`."""

    def to(self, device: torch.device | str) -> Self:
        return moved(self, device)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Samples laid one after another, and every random draw that the step needs (specification 2).

    "Place" is a token's index in the packed sequence of L tokens. The model works in another
    order, text, then ViT, then latent tokens, each by rising place: then an expert's tokens are
    one slice. "Row" is the index in that order. Nt + Nv + Nl = L.
    """

    text_ids: Tensor
    """(Nt,) int64: ids of words and markers."""
    text_indexes: Tensor
    """(Nt,) int64: their places."""
    position_ids: Tensor
    """(L,) int64: RoPE position by place."""
    vit_tokens: Tensor
    """(Nv, patch * patch * 3) float32: flattened patches (row, column, channel)."""
    vit_indexes: Tensor
    """(Nv,) int64: their places."""
    vit_position_ids: Tensor
    """(Nv,) int64: index into the ViT's position tables."""
    vit_shapes: tuple[tuple[int, int], ...]
    """(rows, columns) of each ViT image in patches."""
    pixels: Tensor
    """(n, 3, H, W) float32 in [-1, 1]: the images for the autoencoder, zero-padded to one size."""
    posterior_noise: Tensor
    """(n, z, H / downsample, W / downsample) float32: the draw of the posterior sample."""
    latent_shapes: tuple[tuple[int, int], ...]
    """(rows, columns) of each latent in latent patches."""
    latent_indexes: Tensor
    """(Nl,) int64: places of the latent tokens, clean ones too."""
    latent_position_ids: Tensor
    """(Nl,) int64: index into the latent position table."""
    latent_images: Tensor
    """(Nl,) int64: the image, of n, that each latent token belongs to."""
    raw_timesteps: Tensor
    """(n,) float32: a N(0, 1) draw per image to generate, -inf for a clean one."""
    noise: Tensor
    """(Nl, p * p * z) float32: flow noise, one row per latent token, clean ones too."""
    flow_indexes: Tensor
    """(Nf,) int64: places whose velocity is trained."""
    flow_rows: Tensor
    """(Nf,) int64: the same tokens, as indexes into the latent tokens (0 .. Nl - 1)."""
    ce_indexes: Tensor
    """(Nc,) int64: places with a next-token loss, rising."""
    ce_rows: Tensor
    """(Nc,) int64: the same as rows."""
    ce_labels: Tensor
    """(Nc,) int64: the next token there."""
    ce_weights: Tensor
    """(Nc,) float32: 1 / sqrt(n + 1) in an answer of n words; used where re-weighting is on."""
    det_rows: Tensor
    """(Nd,) int64: the row that each verdict is read at, the bos of the answer."""
    det_labels: Tensor
    """(Nd,) int64 in the verdict head's order: 0 = fake, 1 = real (`SamplePlan.fake` inverted)."""
    sample_lens: tuple[int, ...]
    splits: tuple[tuple[Split, ...], ...]
    """Per sample, its blocks."""
    attention: AttentionPlan
    """Over the L rows."""
    vit_attention: AttentionPlan
    """Over the Nv ViT tokens, each image its own sequence."""

    @property
    def sequence_length(self) -> int:
        return int(self.position_ids.shape[0])

    def to(self, device: torch.device | str) -> Self:
        """A copy whose tensors are on `device`."""
        return moved(self, device)


@dataclass(frozen=True, slots=True)
class AlignmentBatch:
    """What a DIGA step reads (specification 7)."""

    generation: PackedBatch
    """Pass 1: text, then the image to generate."""
    teacher: PackedBatch
    """Pass 2: one sample per image of pass 1 and in its order: clean VAE image, text, ViT image."""
    step: int = 0
    """Of the phase, 0-based: what the schedule of the alignment weight reads."""

    def grids(self) -> list[tuple[int, int]]:
        """(rows, columns) in tokens of each image that the student generates.

        Raises ValueError where the teacher does not see as many images.
        """
        batch = self.generation
        generated = (batch.raw_timesteps > -float("inf")).tolist()
        found = [shape for shape, own in zip(batch.latent_shapes, generated, strict=True) if own]
        if len(found) != len(self.teacher.sample_lens):
            raise ValueError(
                f"The student generates {len(found)} images but the teacher sees "
                f"{len(self.teacher.sample_lens)}; a DIGA batch pairs them one to one."
            )
        return found

    def to(self, device: torch.device | str) -> Self:
        """A copy whose tensors are on `device`."""
        return moved(self, device)


@dataclass(frozen=True, slots=True)
class HiddenState:
    """Tokens of a pack between two layers, in row order, by expert."""

    und: Tensor
    """(Nt + Nv, hidden): text, then ViT tokens."""
    gen: Tensor
    """(Nl, hidden): latent tokens."""


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a training forward gives. A part that the batch does not ask for has no rows."""

    hidden: HiddenState
    """After the last layer that was run and the experts' final norms."""
    taps: Mapping[int, HiddenState]
    """By layer index: the residual stream after that layer, before any norm."""
    timesteps: Tensor
    """(n,) float32 in [0, 1] per image, shifted; exactly 0 for a clean one."""
    x_t: Tensor
    """(Nl, p * p * z): the noised latent tokens."""
    velocity: Tensor
    """(Nf, p * p * z): predicted, at the places with a flow loss."""
    target: Tensor
    """(Nf, p * p * z): noise - data there."""
    ce_logits: Tensor
    """(Nc, vocabulary)."""
    det_logits: Tensor
    """(Nd, 2), class 0 = fake, 1 = real."""
    projected: Tensor | None = None
    """(Nf, head width): the alignment head on the tap asked for, at the tokens of `velocity`."""


class Encoder(Protocol):
    """The part of the autoencoder that the model's inputs need."""

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (n, z, h, w) of pixels: a draw by `noise`, or the mean without."""


class Teacher(Protocol):
    """What DIGA's student learns to predict beside its own task."""

    @property
    def width(self) -> int:
        """Channels of a feature."""

    def __call__(self, batch: AlignmentBatch) -> Tensor:
        """(Nf, width): a feature for each token that the student generates, without gradient."""


class Losses(Protocol):
    """What an objective returns to the training loop."""

    @property
    def total(self) -> Tensor:
        """The scalar to minimise."""

    def scalars(self) -> Mapping[str, float]:
        """Every term by its name, for logs."""


class Objective(Protocol):
    """A training objective. It draws nothing at random: the batch carries every draw."""

    def __call__(self, model: Any, batch: Any) -> Losses: ...


@dataclass(frozen=True, slots=True)
class EvalRecord:
    """One image as the detector judged it. No sample is ever dropped."""

    key: str
    source_id: str
    suite: str
    """`in_domain`, `cross_generator`, `cross_dataset`, or a benchmark's label."""
    generator: str
    fake: bool
    score: float
    """P(fake) in [0, 1]."""
    answer: str
    """The decoded explanation."""
    reference: str
    answer_fake: bool | None
    """The verdict that the answer states; None where it cannot be parsed, which counts as wrong."""
