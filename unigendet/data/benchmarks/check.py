"""A folder read as a benchmark without decoding it: counts, what was left out, what is missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from unigendet.data.benchmarks.base import (
    BenchmarkError,
    BenchmarkItem,
    Found,
    Skipped,
    normalised,
    split_of,
)
from unigendet.data.benchmarks.files import archives, find_beside
from unigendet.data.benchmarks.registry import Benchmark
from unigendet.data.benchmarks.tree import TreeLayout
from unigendet.data.image_files import ImageError
from unigendet.data.image_header import ImageHeader
from unigendet.data.opener import OpenError, base_name, is_file, is_folder, location

Progress = Callable[[int], object]


@dataclass
class Report:
    """What was read. Counts are of readable images, each counted once."""

    name: str
    counts: Counter[tuple[str, bool, str, str]] = field(default_factory=Counter)
    """By (generator, is fake, format, `WIDTHxHEIGHT`)."""
    splits: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    """Folder names met, normalised."""
    labelled: bool = False
    """Whether the set told a class; captioned photographs are real without saying so."""
    complete: bool = True
    """False where reading stopped at a limit."""
    problem: str = ""
    """Why the folder cannot be used as it is; empty where it can."""

    def add(self, item: BenchmarkItem, header: ImageHeader) -> None:
        """Count one readable image."""
        size = f"{header.width}x{header.height}"
        self.counts[item.generator, item.is_fake, header.format, size] += 1
        self.splits[item.split] += 1
        self.folders.update(map(normalised, item.name.split("/")[:-1]))
        self.labelled = self.labelled or bool(item.native_label)

    def count(self, is_fake: bool) -> int:
        return sum(n for key, n in self.counts.items() if key[1] == is_fake)

    @property
    def formats(self) -> dict[str, int]:
        """Images by native format, most frequent first."""
        found: Counter[str] = Counter()
        for (_, _, kind, _), n in self.counts.items():
            found[kind] += n
        return dict(found.most_common())

    @property
    def generators(self) -> dict[str, dict[str, int]]:
        """Real and fake images by generator."""
        found: dict[str, dict[str, int]] = defaultdict(lambda: {"real": 0, "fake": 0})
        for (generator, is_fake, _, _), n in self.counts.items():
            found[generator]["fake" if is_fake else "real"] += n
        return dict(sorted(found.items()))

    def to_json(self) -> dict[str, Any]:
        """The report as one object."""
        return {
            "name": self.name,
            "n_real": self.count(False),
            "n_fake": self.count(True),
            "generators": self.generators,
            "formats": self.formats,
            "skipped": [{"path": left.path, "reason": left.reason} for left in self.skipped],
            "missing": self.missing,
        }


def items(benchmark: Benchmark, place: str) -> Iterator[Found]:
    """Everything the set has below `place`, in a fixed order; nothing is opened but tables.

    Raises BenchmarkError or OpenError where the place is absent or its labels cannot be trusted.
    """
    return benchmark.layout.scan(_root(benchmark, place))


def _root(benchmark: Benchmark, place: str) -> str:
    root = location(place)
    if not (is_folder(root) or is_file(root)):
        raise OpenError(f"{place}: there is no such file or folder")
    if is_file(root) and isinstance(benchmark.layout, TreeLayout):
        raise OpenError(f"{place} is a file; {benchmark.name} is a folder: {benchmark.on_disk}")
    return root


def read_headers(found: Iterator[Found]) -> Iterator[tuple[BenchmarkItem, ImageHeader] | Skipped]:
    """Items with their header; one whose image is broken becomes what was left out."""
    for item in found:
        if isinstance(item, Skipped):
            yield item
            continue
        try:
            yield item, item.header()
        except (ImageError, OpenError) as error:
            reason = str(error).removeprefix(f"{item.name}: ").removeprefix(f"{item.location}: ")
            yield Skipped(item.name, reason)


def check(
    benchmark: Benchmark,
    place: str,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read the folder and count. `limit` stops after so many images; `progress` is told how many.

    Raises OpenError where there is no such place. Everything else that is wrong with the folder is
    the report's `problem`.
    """
    root = _root(benchmark, place)
    report = Report(benchmark.name)
    try:
        for done, found in enumerate(read_headers(benchmark.layout.scan(root)), start=1):
            if isinstance(found, Skipped):
                report.skipped.append(found)
            else:
                report.add(*found)
            if progress is not None:
                progress(done)
            if done == limit:
                report.complete = False
                return report
    except (BenchmarkError, OpenError) as error:
        report.problem = str(error)
    report.missing = _missing(benchmark, root, report)
    report.problem = report.problem or _problem(benchmark, root, report)
    return report


def _missing(benchmark: Benchmark, root: str, report: Report) -> list[str]:
    """Generators, sources, splits, folders and files of the published set that are not here."""
    layout = getattr(benchmark.layout, "folders", benchmark.layout)
    published = layout.published if isinstance(layout, TreeLayout) else str
    expected, own = benchmark.expected, base_name(root)
    found = {normalised(published(name)) for name in report.generators}
    gone = [part for part in expected.generators if normalised(part) not in found]
    names = layout.context(root) if isinstance(layout, TreeLayout) else ()
    if any(published(name) in expected.generators for name in names):
        gone = []  # the folder of one generator was given: the others were not asked for
    reals = {normalised(name) for name, n in report.generators.items() if n["real"]}
    for source in expected.reals:
        whole = normalised(source)
        named = any(whole in name or name in whole for name in reals)
        if not (named or (reals and len(expected.reals) == 1)):
            gone.append(source)
    if split_of(own) is None and is_folder(root):
        gone += [split for split in expected.splits if split not in report.splits]
        gone += [folder for folder in expected.folders if folder not in report.folders]
    if is_folder(root):
        gone += [
            name
            for name in expected.files
            if find_beside(root, (name,)) is None and _concerns(name, own)
        ]
    return gone


def _concerns(file: str, own: str) -> bool:
    """Whether a split's folder, if that was given, needs the file."""
    split = split_of(base_name(file).split(".", 1)[0])
    return None in (split, split_of(own)) or split == split_of(own)


def _problem(benchmark: Benchmark, root: str, report: Report) -> str:
    real, fake = report.count(False), report.count(True)
    if not real and not fake:
        return nothing_found(benchmark, root, len(report.skipped))
    if benchmark.one_class or not report.labelled or (real and fake):
        return ""
    return one_class_problem(benchmark, real + fake, bool(fake))


def nothing_found(benchmark: Benchmark, root: str, left_out: int) -> str:
    """What to say of a place without any image of the set."""
    layout = f"published layout: {benchmark.on_disk}"
    packed = archives(root) if is_folder(root) else []
    if packed and not left_out:
        return f"no images, but archives ({', '.join(packed)}): unpack them first. {layout}"
    left = f"; {left_out} files were left out" if left_out else ""
    return f"{root} holds no image of {benchmark.name}{left}. {layout}"


def one_class_problem(benchmark: Benchmark, images: int, is_fake: bool) -> str:
    """What to say of a set that has but one class, and what would bring the other."""
    have, lack = ("fake", "real") if is_fake else ("real", "fake")
    told = f"all {images} images are {have}: without {lack} ones no detector can be judged. "
    if benchmark.one_class:
        return told + "The set has no others"
    apart = benchmark.expected.reals if is_fake else ()
    hint = f"put {' and '.join(apart)} into the folder or beside it. " if apart else ""
    return f"{told}{hint}published layout: {benchmark.on_disk}"
