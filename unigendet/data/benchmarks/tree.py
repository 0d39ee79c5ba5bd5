"""Sets whose folders say the class: one table row each (`layouts.py`), one reader for all.

A folder's name decides, never its place in the alphabet. The path may be the set's root, a split
or a generator below it, or a folder above; names are compared without case and signs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from unigendet.data.benchmarks.base import (
    REAL,
    UNKNOWN,
    BenchmarkItem,
    Found,
    Skipped,
    normalised,
    split_of,
)
from unigendet.data.benchmarks.files import ImageFile, image_files, own_names
from unigendet.data.opener import is_folder, list_folder, parent

_NEVER = re.compile(r"(?!)")
PLAIN = frozenset(
    ("img", "imgs", "image", "images", "data", "dataset", "datasets", "diffusiondatasets")
)
"""Folders that hold others and name nothing."""

_BARE = frozenset(("real", "reals", "0real"))


@dataclass(frozen=True)
class Class:
    """What a path says of an image."""

    is_fake: bool
    native: str
    depth: int
    """Index of the folder that says it."""


@dataclass(frozen=True)
class TreeLayout:
    """A set as a table row. All folder names but `generators` are given normalised."""

    name: str
    real: frozenset[str] = frozenset()
    """Class folders of real images."""
    fake: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    """Those of `real` and `fake` that say nothing below another class folder."""
    real_source: re.Pattern[str] = _NEVER
    """Folders that hold real images only, for sets whose reals are apart."""
    generators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Published name -> other spellings."""
    inner: Mapping[str, str] = field(default_factory=dict)
    """Folders below a generator's that tell it too -> its published name."""
    fakes_without_class: str = "none"
    """Which generator folders hold fakes without a class folder: none, known or any."""
    class_is_generator: bool = False
    """The class folder's name says how the image was made."""
    split_generators: Mapping[str, str] = field(default_factory=dict)
    """The generator of a split that has no generator folders."""
    default_generator: str = ""
    """Of sets that have no generator folders at all."""
    nearest: bool = False
    """The generator's folder is the one right above the class folder."""
    generator_below: bool = False
    """A generator's folder may also lie below the class folder."""
    any_class_inside: bool = False
    """Folders between the generator's and the class folder are named after what is shown, which may
    be a `train`: a split is told above the generator's, best by the given folder."""
    only_below: str = ""
    """Images lie below a folder of this name only."""
    companions: re.Pattern[str] = _NEVER
    """Folders beside the given one where the reals may be."""
    pairs: Mapping[str, str] = field(default_factory=dict)
    """Generator (`*`: any other) -> the source of the reals that it is judged against."""
    all_fake: bool = False
    """Every image is fake by the set's nature."""

    def scan(self, root: str) -> Iterator[Found]:
        """Every image below `root`; where it has no real ones, those of a folder beside it too."""
        context = self.context(root)
        has_real = False
        for found in image_files(root):
            item = self.place(found, context) if isinstance(found, ImageFile) else found
            has_real = has_real or (isinstance(item, BenchmarkItem) and not item.is_fake)
            yield item
        if not has_real:
            yield from self._beside(root, context)

    def _beside(self, root: str, context: tuple[str, ...]) -> Iterator[Found]:
        """Reals of a sibling folder, one or two levels up."""
        above = parent(root)
        for _ in range(2):
            if above is None or not is_folder(above):
                return
            names = [entry.name for entry in list_folder(above) if entry.is_folder]
            wanted = [name for name in names if self._is_companion(name, context)]
            for name in wanted:
                for found in image_files(f"{above}/{name}"):
                    if isinstance(found, Skipped):
                        yield Skipped(f"../{name}/{found.path}", found.reason)
                        continue
                    parts = (name, *found.parts)
                    moved = replace(found, parts=parts, name=f"../{name}/{found.name}")
                    item = self.place(moved, ())
                    if isinstance(item, Skipped) or not item.is_fake:
                        yield item
            if wanted:
                return
            above = parent(above)

    def _is_companion(self, name: str, context: tuple[str, ...]) -> bool:
        plain = normalised(name)
        if not self.companions.fullmatch(plain) or name == context[0]:
            return False
        own = next((known for part in context if (known := self._published(part))), None)
        return not self.pairs or own is None or plain == self.real_source_of(own)

    def real_source_of(self, generator: str) -> str | None:
        """The source of the reals that a generator is judged against, where they lie apart."""
        return self.pairs.get(self.published(generator), self.pairs.get("*"))

    def context(self, root: str) -> tuple[str, ...]:
        """The given folder's own name, and those above it that may belong to the set."""
        names = own_names(root)
        within = 1
        while within < len(names) and (
            split_of(names[within]) or self._is_inner(names[within - 1])
        ):
            within += 1
        return names[:within]

    def _is_inner(self, name: str) -> bool:
        """Whether a folder's name tells something, but no generator."""
        return bool(split_of(name)) or normalised(name) in PLAIN | self.real | self.fake

    def place(self, file: ImageFile, context: tuple[str, ...]) -> BenchmarkItem | Skipped:
        """What the folders say of one image."""
        plain = [normalised(part) for part in file.parts]
        around = [normalised(name) for name in context]
        if self.only_below and self.only_below not in (*plain, *around[:1]):
            return Skipped(file.name, f"not below a folder named `{self.only_below}`")
        split = self._split(plain, around)
        found = self._class(plain, around)
        if isinstance(found, str):
            return Skipped(file.name, found)
        return BenchmarkItem(
            location=file.location,
            name=file.name,
            is_fake=found.is_fake,
            generator=self._generator(file.parts, plain, context, found, split),
            split=split,
            native_label=file.parts[found.depth] if 0 <= found.depth < len(plain) else found.native,
            original=file.original,
        )

    def _split(self, plain: list[str], around: list[str]) -> str:
        told = [*plain, *around]
        if self.any_class_inside:
            ends = [at for at, part in enumerate(plain) if self._published(part)]
            above = [at for at, part in enumerate(around) if self._published(part)]
            outside = around[above[0] + 1 :] if above else around
            inside = [] if above else plain[: ends[0]] if ends else plain
            told = [*outside[:1], *inside, *outside]
        return next((split for part in told if (split := split_of(part))), "test")

    def _class(self, plain: list[str], around: list[str]) -> Class | str:
        words = self.fake | self.real
        if (words - self.subjects).intersection((*plain, *around[:1])):
            words -= self.subjects
        told = [
            Class(part in self.fake, part, depth)
            for depth, part in enumerate(plain)
            if part in words
        ]
        if len({found.is_fake for found in told}) > 1:
            return "its folders say both real and fake"
        if told:
            return told[0]
        if around and around[0] in self.fake | self.real:
            return Class(around[0] in self.fake, around[0], -1)
        sources = [depth for depth, part in enumerate(plain) if self.real_source.fullmatch(part)]
        if sources:  # the name of the source rather than the bare word
            named = [depth for depth in sources if plain[depth] not in _BARE]
            depth = (named or sources)[-1]
            return Class(False, plain[depth], depth)
        if self.all_fake:
            return Class(True, "fake", len(plain))
        if self.fakes_without_class != "none":
            known = [depth for depth, part in enumerate(plain) if self._published(part)]
            if known or any(map(self._published, around)):
                return Class(True, "fake", known[0] if known else -1)
            at = self._named(plain, len(plain))
            if self.fakes_without_class == "any" and at is not None:
                return Class(True, "fake", at)
            return "not below the folder of a published generator or of real images"
        return f"not below a folder named {_listed(self.real)} or {_listed(self.fake)}"

    def _generator(
        self,
        parts: tuple[str, ...],
        plain: list[str],
        context: tuple[str, ...],
        found: Class,
        split: str,
    ) -> str:
        if self.default_generator:
            return self.default_generator
        if self.class_is_generator:
            return parts[found.depth] if found.depth >= 0 else context[0]
        if found.native and self.real_source.fullmatch(found.native):
            return parts[found.depth]
        end = found.depth if plain[found.depth : found.depth + 1] == [found.native] else len(plain)
        end = max(end, 0)
        # The folder's own spelling is kept; an inner folder only stands in where there is none.
        around = () if self.nearest and self._named(plain, end) is not None else context
        told = [part for part in (*parts[:end], *around) if self._published(part)]
        own = next((part for part in told if normalised(part) not in self.inner), None)
        within = next((part for part in parts[:end] if self._published(part)), None)
        if within is None and split in self.split_generators:
            return self.split_generators[split]
        if told:
            return own or self.inner[normalised(told[0])]
        named = self._named(plain, end)
        if named is not None:
            return parts[named]
        if self.generator_below and 0 <= found.depth < len(parts) - 1:
            return parts[found.depth + 1]
        if len(context) > 1 and split_of(context[1]) and not self._is_inner(context[0]):
            return context[0]
        return UNKNOWN if found.is_fake else REAL

    def _named(self, plain: list[str], end: int) -> int | None:
        """Index of the folder that must be the generator's: after the split, else the first."""
        names = [
            depth
            for depth in range(end)
            if plain[depth] not in PLAIN
            and not split_of(plain[depth])
            and not plain[depth].startswith(normalised(self.name))
        ]
        split = max((depth for depth in range(end) if split_of(plain[depth])), default=-1)
        after = [depth for depth in names if depth > split]
        if self.nearest:
            return names[-1] if names else None
        return next(iter(after or names), None)

    def _published(self, name: str) -> str | None:
        """The published name of a generator's folder."""
        plain = normalised(name)
        if plain in self.inner:
            return self.inner[plain]
        for published, others in self.generators.items():
            if plain == normalised(published) or plain in map(normalised, others):
                return published
        return None

    def published(self, generator: str) -> str:
        """The published spelling of a generator, or the name itself."""
        return self._published(generator) or generator


def _listed(names: frozenset[str]) -> str:
    """Class folders as they are published: `0_real`, not `0real`."""
    return "/".join(re.sub(r"^(\d)", r"\1_", name) for name in sorted(names))
