"""Section `coevolve`: rounds of GDUF, DIGA and fresh fakes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.sections.base import (
    Count,
    CountOrZero,
    Fraction,
    NonNegative,
    OptimSection,
    Section,
    TokenBudgetSection,
    check_mixture,
)
from pipeline.sections.detector import EvenCount
from pipeline.sections.generator import SampleGridSection
from unigendet.data.composition import GENERATION, samples_per_step
from unigendet.teachers.layers import EFFICIENTNET_LAYERS, depth

AutoWeight = Literal["auto"] | NonNegative
TeacherName = Literal["frozen", "live", "random", "efficientnet", "dinov2"]
TeacherLayer = Literal["last", "last_input"] | CountOrZero

_WEIGHTS = ("flow_weight", "det_weight", "text_weight", "align_weight", "tap_layer")


class GdufSection(Section):
    """A GDUF phase: what is in a step's batch, and how it is learned."""

    generation_per_step: Count
    detection_per_step: EvenCount
    token_budget: TokenBudgetSection | None
    """Fills packs by tokens; the numbers per step then only say which streams there are."""
    optim: OptimSection

    @model_validator(mode="after")
    def _mixture_fits(self) -> GdufSection:
        per_step = samples_per_step(self.generation_per_step, self.detection_per_step)
        check_mixture(self.token_budget, per_step)
        return self


class DigaSection(Section):
    """A DIGA phase. Detection samples in it, if any, keep the verdict while the generator moves."""

    generation_per_step: Count
    detection_per_step: Annotated[int, Field(ge=0, multiple_of=2)]
    token_budget: TokenBudgetSection | None
    """Fills packs by tokens; the numbers per step then only say which streams there are."""
    align_schedule: Literal["constant", "linear", "cosine"]
    """Whether `align_weight` stays as it is, or decays to 0 at `align_until`."""
    align_until: Annotated[float, Field(gt=0, le=1)]
    """Share of the phase's steps that is aligned; after it the weight is 0."""
    optim: OptimSection

    @model_validator(mode="after")
    def _mixture_fits(self) -> DigaSection:
        per_step = samples_per_step(self.generation_per_step, self.detection_per_step)
        check_mixture(self.token_budget, per_step, always=[GENERATION])
        return self


class CoevolveSection(Section):
    """Rounds of co-evolution. A weight is a number, or `auto` for the sweep's best."""

    rounds: Count
    joint: bool
    """Whether generation and detection learn together (GDUF); false trains each side of the weights
    by itself, with the same samples and steps: what GDUF is compared with."""
    flow_weight: AutoWeight
    det_weight: AutoWeight
    text_weight: AutoWeight
    align_weight: AutoWeight
    tap_layer: Literal["auto"] | CountOrZero
    teacher: TeacherName
    """DIGA's: the detector as GDUF left it (`frozen`) or as it is at each step (`live`); to compare
    with, a detector of random weights, an ImageNet network, or DINOv2 (REPA's choice)."""
    teacher_path: str
    """Of `dinov2` its folder, as Hugging Face publishes it; empty for all others."""
    teacher_layer: TeacherLayer
    """Whose output is learned: of the teacher's own layers `last`, `last_input` (what the last one
    reads), or a number from 0."""
    teacher_centred: bool
    """Whether the mean of the teacher's features over real images is taken off them; not as
    published, where a detector's mean alone is nearly all of their direction."""
    smsa: bool
    """Whether the detector reads the generator's latents from here on (SMSA); off: the ablation."""
    text_dropout: Fraction
    gduf: GdufSection
    diga: DigaSection
    fresh_fakes: CountOrZero
    """Images the improved generator adds to the training fakes after each round but the last; those
    of earlier rounds stay."""
    fresh_share: Fraction
    """Share of a batch's fakes that is fresh, from the second round on, of all rounds alike; the
    rest replays the forged families. 96 fresh ones drawn like 960 forged ones would be 0.09."""
    fresh_fakes_steps: Count
    fresh_fakes_guidance: NonNegative
    validation_images: Count
    samples: SampleGridSection
    """How the model draws after each half-round, and how many pictures are shown."""
    matrix_images: CountOrZero
    """Images of the validation captions that each generator draws and each detector judges (who
    fools whom); the pictures are of them. 0 leaves the matrix out, and with it the need to keep the
    weights of every half-round until the end."""

    @model_validator(mode="after")
    def _separate_tasks_are_counted(self) -> CoevolveSection:
        if not self.joint and self.gduf.token_budget is not None:
            raise ValueError(
                "joint: false needs gduf.token_budget: null, since a budget filled by one task "
                "alone would give it more samples than it has in GDUF"
            )
        return self

    @model_validator(mode="after")
    def _teacher_is_there(self) -> CoevolveSection:
        if (self.teacher == "dinov2") != bool(self.teacher_path):
            raise ValueError(
                "`teacher_path` is the folder of `teacher: dinov2`, and empty for all others"
            )
        if self.teacher == "live" and self.teacher_centred:
            raise ValueError(
                "`teacher: live` needs `teacher_centred: false`: its mean moves at every step"
            )
        if self.teacher == "efficientnet":
            depth(self.teacher_layer, EFFICIENTNET_LAYERS)
        return self

    @model_validator(mode="after")
    def _fresh_fakes_are_used(self) -> CoevolveSection:
        if (self.fresh_fakes > 0) != (self.fresh_share > 0):
            raise ValueError(
                f"fresh_fakes ({self.fresh_fakes}) and fresh_share ({self.fresh_share:g}) go "
                "together: set both above 0, or both to 0 for none"
            )
        return self

    @model_validator(mode="after")
    def _pictures_are_of_the_matrix(self) -> CoevolveSection:
        least = max(2, self.samples.count)
        if self.matrix_images and self.matrix_images < least:
            raise ValueError(
                f"matrix_images must be 0 or at least {least} (samples.count of them are shown, "
                f"and a distance needs 2), not {self.matrix_images}"
            )
        return self

    def automatic(self) -> list[str]:
        """The weights that the sweep is to find."""
        return [name for name in _WEIGHTS if getattr(self, name) == "auto"]
