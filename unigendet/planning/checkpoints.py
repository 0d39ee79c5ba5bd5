"""What training and its results take on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from unigendet.planning.activations import WIDE
from unigendet.planning.parameters import ParameterCounts


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """Bytes on the disk, file headers not counted."""

    weights: int
    """float32 weights and fixed tables, of frozen parts too."""
    optimizer: int
    """AdamW's two moments, float32."""
    average: int
    """The running average, float32."""
    copies: int
    """Checkpoints that lie there at once, the one being written included."""
    model_fp32: int
    """A model folder as a phase leaves it, autoencoder included."""
    model_bf16: int
    """The same in bfloat16."""

    @property
    def checkpoint(self) -> int:
        """One checkpoint to go on training from."""
        return self.weights + self.optimizer + self.average

    @property
    def disk(self) -> int:
        """What a phase needs at once: its checkpoints, and in the end its model."""
        return self.copies * self.checkpoint + self.model_fp32


def plan_checkpoints(counts: ParameterCounts, autoencoder: int, copies: int) -> CheckpointPlan:
    """The disk that a phase takes; `counts` of the whole model, `autoencoder` its elements."""
    everything = counts.total + counts.buffers
    return CheckpointPlan(
        weights=WIDE * everything,
        optimizer=2 * WIDE * counts.trainable,
        average=WIDE * counts.trainable,
        copies=copies,
        model_fp32=WIDE * (everything + autoencoder),
        model_bf16=2 * (everything + autoencoder),
    )
