"""Sections `evaluate` and `report`."""

from __future__ import annotations

from pipeline.sections.base import Count, Fraction, Positive, Section


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
