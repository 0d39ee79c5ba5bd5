"""Sources of training images that lie somewhere, by name."""

from __future__ import annotations

from unigendet.data.sources.base import Source
from unigendet.data.sources.folder import ImageFolder
from unigendet.data.sources.published import PublishedSet

PUBLISHED = ("laion", "fakeclue", "community_forensics", "openfake", "parquet", "manifest")
"""Sets that are made to be trained on, or a user's own; the others are for evaluation."""
NAMES = ("folder", *PUBLISHED)


def open_stored(
    name: str,
    place: str,
    *,
    image_size: int,
    val_share: float,
    test_share: float,
    seed: int,
    fit: str = "square",
    crops: int = 1,
    reals_only: bool = False,
) -> Source:
    """The source `name` at `place`, a path or a URI. Raises ValueError for another name.

    `fit` is a rule of `unigendet.data.transforms.FITS`; `crops` are those of `ImageFolder`, and 1
    for all others; `reals_only` leaves the fakes of a labelled set out.
    """
    if name == "folder":
        return ImageFolder(place, image_size, val_share, test_share, seed, fit, crops)
    if crops != 1:
        raise ValueError(f"crops ({crops}) are cut from pictures of the source folder alone")
    if name not in PUBLISHED:
        raise ValueError(f"there is no training source {name!r}; known are {', '.join(NAMES)}")
    return PublishedSet(name, place, image_size, val_share, test_share, seed, fit, reals_only)
