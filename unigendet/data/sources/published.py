"""Published sets as a source of samples: LAION, FakeClue, and tables with the images inside.

Any layout of `unigendet.data.benchmarks` will do. The set's own test images stay test images; what
it lacks of val and test is drawn from its train images by hashing `source_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unigendet.data.benchmarks.base import REAL, BenchmarkItem, Skipped, normalised
from unigendet.data.benchmarks.check import items as scan
from unigendet.data.benchmarks.registry import find_benchmark
from unigendet.data.benchmarks.samples import read_fitted, to_sample
from unigendet.data.opener import location
from unigendet.data.plain_text import plain
from unigendet.data.source_ids import with_sources
from unigendet.data.sources.base import SourceItem
from unigendet.data.sources.stored import check_settings, source_item, unusable
from unigendet.data.splits import SPLITS, hashed_split
from unigendet.data.verdicts import given_answer
from unigendet.types import Sample

TAKEN = frozenset(("reconstruction", "flow", "ddpm", "gan", "vqar", "inpaint", "all", REAL))
"""Names that mean something else where figures are counted by generator: the families of stage
forge (`unigendet.forgeries.roles`), all of them together, and real images."""


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """The set `name` at `place`, a path or a URI, scaled by the rule `fit` to `image_size` pixels.

    What the set has or lists and cannot be used is an item with a `problem`.
    """

    name: str
    place: str
    image_size: int = 64
    val_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    fit: str = "square"
    """How an image is brought to its size: a rule of `unigendet.data.transforms.FITS`."""
    reals_only: bool = False
    """Leave the fakes out. With them, a sample carries its generator and the set's explanation,
    which states the verdict."""

    def __post_init__(self) -> None:
        find_benchmark(self.name)
        check_settings(self.fit, self.val_share, self.test_share)

    @property
    def domain(self) -> str:
        return self.name

    def items(self) -> list[SourceItem]:
        """Every image, and all that is left out. Raises ValueError where there is no image."""
        found = list(scan(find_benchmark(self.name), self.place))
        left_out = [item for item in found if isinstance(item, Skipped)]
        kept = [
            item
            for item in found
            if isinstance(item, BenchmarkItem) and not (self.reals_only and item.is_fake)
        ]
        if not kept:
            told = "".join(f", first {plain(a.path)} ({a.reason})" for a in left_out[:1])
            kind = "real image" if self.reals_only else "image"
            raise ValueError(
                f"{self.place} holds no {kind} of {self.name}; {len(left_out)} left out{told}"
            )
        drawn = _drawn(kept)
        items = [self._item(item, drawn) for item in with_sources(kept)]
        root = location(self.place)
        for number, left in enumerate(left_out):
            name = f"left-out-{number}/{left.path}"
            items.append(unusable(f"{root}/{left.path}", name, left.reason, self.name))
        return items

    def _item(self, item: BenchmarkItem, drawn: Sequence[str]) -> SourceItem:
        """With its source, and a split of `drawn` where the set calls it a training image."""
        source_id = item.source_id or f"{self.name}/{item.name}"
        split = item.split
        by_hashing = split == "train" and bool(drawn)
        if by_hashing:
            shares = {"val": self.val_share, "test": self.test_share}
            wanted = {name: shares[name] for name in drawn}
            wanted["train"] = 1.0 - sum(wanted.values())
            split = hashed_split(source_id, wanted, seed=self.seed)
        return source_item(replace(item, split=split, source_id=source_id), drawn=by_hashing)

    def read(self, item: SourceItem) -> Sample:
        """Decode one image. Raises ImageError naming the file where it is damaged or no image, and
        ValueError where its explanation contradicts its label."""
        stored = item.stored
        assert stored is not None
        image = read_fitted(stored, self.image_size, self.fit)
        generator = stored.generator
        if normalised(generator) in TAKEN:
            generator = f"{generator} of {self.name}"
        explanation = given_answer(stored.is_fake, stored.explanation)
        told = replace(stored, generator=generator, explanation=explanation)
        return to_sample(told, self.domain, image)


def _drawn(items: Sequence[BenchmarkItem]) -> list[str]:
    """Splits that the set lacks, in a fixed order."""
    there = {item.split for item in items}
    return [split for split in SPLITS if split not in there and split != "train"]
