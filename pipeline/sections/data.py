"""Sections `data` (what the images are) and `shard` (how they are written)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.sections.base import Count, Fraction, NonNegative, Positive, Section
from unigendet.data.degradations import Degradations
from unigendet.data.duplicates import MAX_DISTANCE
from unigendet.data.encoding import Encoding


class DegradationSection(Section):
    """`unigendet.data.degradations.Degradations` as it is written in params.yaml."""

    probability: Fraction
    crop: Fraction
    resize: Fraction
    blur: NonNegative
    noise: NonNegative
    quality: Annotated[int, Field(ge=1, le=95)]

    @model_validator(mode="after")
    def _possible(self) -> DegradationSection:
        self.config()
        return self

    def config(self) -> Degradations:
        """The same values as the loader takes them."""
        return Degradations(**self.model_dump())


class DataSection(Section):
    """Where the real images come from. Sizes in pixels of the output image."""

    source: Literal[
        "blue_marble",
        "folder",
        "laion",
        "fakeclue",
        "community_forensics",
        "openfake",
        "parquet",
        "manifest",
    ]
    """Blue Marble, or one of `unigendet.data.sources.registry.NAMES`."""
    folder: str
    """Path or URI of the images, for every source but Blue Marble; empty for that. A relative path
    starts at the repository, also where a run has a temporary workspace."""
    val_share: Fraction
    test_share: Fraction
    """Not Blue Marble: shares of the sources that nothing puts into a split."""
    split_seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Not Blue Marble: draws those splits, and the `crops`. Apart from the experiment's `seed`, or
    runs of several seeds would be tested on different images, and on ones they were tuned on."""
    image_size: Count
    fit: Literal["square", "stretch", "within"]
    """Not Blue Marble: the centre square, the whole picture pressed into a square, or the whole
    picture in its own shape, its longer side at most `image_size` (which `forge` refuses)."""
    crops: Count
    """Folder only: images made of each picture, the centre square and others of half to all of its
    short side; they share a source."""
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
    degradations: DegradationSection
    """What happens to the images that detectors are trained on."""

    @model_validator(mode="after")
    def _fits(self) -> DataSection:
        if (self.source != "blue_marble") != bool(self.folder):
            raise ValueError(
                "`folder` is the path or URI of the images, and empty for `source: blue_marble`"
            )
        if self.crops > 1 and (self.source, self.fit) != ("folder", "square"):
            raise ValueError("crops above 1 need `source: folder` and `fit: square`")
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share + test_share must leave something for train")
        if self.source == "blue_marble" and self.band_width < self.image_size:
            raise ValueError("band_width must hold a tile (image_size)")
        if self.train_stride > self.image_size:
            raise ValueError("train_stride must be at most image_size, or land is left out")
        return self


class ShardSection(Section):
    """How the images are checked and written."""

    shard_mb: Positive
    """Size that a tar is meant to have, in MiB."""
    format: Literal["png", "jpeg", "webp"]
    """How every image is stored, real and fake alike. PNG is lossless."""
    quality: Annotated[int, Field(ge=1, le=100)]
    """Of JPEG and WebP."""
    near_duplicates: Annotated[int, Field(ge=0, le=MAX_DISTANCE)]
    """Bits of 64 that the perceptual hashes of one picture may differ in; 0: equal pixels only."""
    quarantine_share: Fraction
    """Share of the images that may be unusable; beyond it the stage fails."""
    allow_codec_shortcut: bool
    """Go on although the files' headers tell real from fake. The report shows it."""
    vocab_size: Annotated[int, Field(ge=260)]
    """Entries of the tokenizer that is trained on the captions and prompts, markers included. A
    base model brings its own; this is then the size of its table, for `unigendet plan`."""

    def encoding(self) -> Encoding:
        """The same values as the shards take them."""
        return Encoding(self.format, self.quality)
