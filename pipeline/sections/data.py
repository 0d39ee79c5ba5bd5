"""Sections `data` (what the images are) and `shard` (how they are written)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.sections.base import Count, Fraction, Section


class DataSection(Section):
    """Where the real images come from. Sizes in pixels of the output image."""

    source: Literal["blue_marble", "folder"]
    folder: str
    """The folder of images for `source: folder`; empty otherwise."""
    val_share: Fraction
    test_share: Fraction
    """Folder: shares of the sources that neither the captions nor a subfolder put into a split."""
    image_size: Count
    shrink: Annotated[float, Field(ge=1)]
    """Blue Marble: by how much the mosaic is made smaller before it is cut."""
    band_width: Count
    """Blue Marble: width of a training band; a val or test band is one tile wide."""
    first_column: Annotated[int, Field(ge=0)]
    """Blue Marble: where the first band begins; another column draws other val and test tiles."""
    band_gap: Annotated[int, Field(ge=8)]
    """Blue Marble: unused columns between bands, at least the resampling filter's reach."""
    train_stride: Count
    """Blue Marble: distance of neighbouring training tiles; below `image_size` they overlap."""
    everyday_crops: Count
    """Crops taken of each everyday photograph."""

    @model_validator(mode="after")
    def _fits(self) -> DataSection:
        if (self.source == "folder") != bool(self.folder):
            raise ValueError("`folder` names the images for `source: folder`, and is empty else")
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share + test_share must leave something for train")
        if self.source == "blue_marble" and self.band_width < self.image_size:
            raise ValueError("band_width must hold a tile (image_size)")
        if self.train_stride > self.image_size:
            raise ValueError("train_stride must be at most image_size, or land is left out")
        return self


class ShardSection(Section):
    """How the images are written."""

    samples_per_shard: Count
    vocab_size: Annotated[int, Field(ge=260)]
    """Entries of the tokenizer that is trained on the captions and prompts, markers included."""
