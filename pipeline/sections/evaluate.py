"""Sections `evaluate` and `report`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.sections.base import Count, Fraction, Positive, Section
from unigendet.benchmarking.perturbations import parse_all
from unigendet.data.benchmarks.registry import find_benchmark


class BenchmarkSection(Section):
    """A published set, or one's own, that the final model is judged on too."""

    name: str
    """As `unigendet datasets` lists it."""
    path: Annotated[str, Field(min_length=1)]
    """Folder, file or URI. It lies outside of DVC, so a change in it re-runs nothing; metrics.json
    pins what was read."""
    split: Literal["train", "val", "test", "all"] | None
    """null: the set's test images, or those of val or train where it has no others."""
    limit: Count | None
    """At most so many images, an even share of each generator's real and fake ones."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return find_benchmark(name).name


class EvaluateSection(Section):
    """How the final model is judged."""

    batch_size: Count
    generated: Count
    """Images that each generator makes, for captions of the test set in turn."""
    steps: Count
    guidance: Positive
    timestep_shift: Positive
    bootstrap: Count
    """Resamples behind each interval."""
    grounds: tuple[str, str]
    """Two words of captions whose images a mean colour can tell apart."""
    benchmarks: tuple[BenchmarkSection, ...]
    allow_codec_shortcut: bool
    """Go on although headers of a benchmark's files tell real from fake. The report shows it."""
    perturbations: tuple[str, ...]
    """What real and fake images go through before they are judged once more: `jpeg=70`, `blur=1`
    (`unigendet.benchmarking.perturbations`). Each costs another pass without answers."""

    @field_validator("perturbations")
    @classmethod
    def _possible(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(one) for one in parse_all(texts))

    def labelled(self) -> dict[str, BenchmarkSection]:
        """The benchmarks by the names of their suites: a set that comes again is `NAME_2`."""
        found: dict[str, BenchmarkSection] = {}
        for one in self.benchmarks:
            times = 1 + sum(other.name == one.name for other in found.values())
            found[one.name if times == 1 else f"{one.name}_{times}"] = one
        return found


class GoalsSection(Section):
    """What the report holds the figures against; changing a goal computes nothing anew."""

    autoencoder_psnr_db: Positive
    """At least."""
    reconstructed_to_untrained: Positive
    """At most, as the next two: relations of kernel distances."""
    generated_to_untrained: Positive
    generated_gap: Positive
    caption_obedience: Fraction
    """At least, as the next two."""
    in_domain_balanced_accuracy: Fraction
    in_domain_auroc: Fraction


class ReportSection(Section):
    """What the page shows."""

    title: str
    examples: Count
    """Images shown with their explanation, for each suite."""
    goals: GoalsSection
