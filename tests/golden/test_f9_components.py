"""F9: the small building blocks."""

from __future__ import annotations

import re

import torch

from tests.golden.fixtures import Case, Reference, close
from unigendet.data.packing import SamplePlan, TextItem, pack
from unigendet.flow import timestep_from_raw
from unigendet.models.layers import timestep_features
from unigendet.models.positions import rope, sincos_table

FIXTURE = "F9_*/*"


def test_time_embedding(case: Case, reference: Reference) -> None:
    close(timestep_features(case["in.t"]), case["out.sinusoid"], "sinusoid")
    embedded = reference.model().time_embedder(case["in.t"])
    close(embedded, case["out.time_embedding"], "time embedding")


def test_shifted_timesteps(case: Case) -> None:
    for key in case.tensors:
        if match := re.fullmatch(r"out\.shifted\.(.+)", key):
            close(timestep_from_raw(case["in.raw"], float(match[1])), case[key], key)


def test_sincos_tables(case: Case) -> None:
    for key in case.tensors:
        if match := re.fullmatch(r"out\.sincos\.(\d+)\.(\d+)", key):
            close(sincos_table(int(match[1]), int(match[2])), case[key], key)


def test_rope(case: Case, reference: Reference) -> None:
    llm = reference.config.llm
    cos, sin = rope(case["in.rope_positions"], case["out.rope_cos"].shape[1], llm.rope_theta)
    close(cos, case["out.rope_cos"], "cos")
    close(sin, case["out.rope_sin"], "sin")


def test_text_loss_weights(case: Case, reference: Reference) -> None:
    """The weight of each place of an answer with n loss terms (n - 1 words and eos)."""
    for terms, weight in case.value("len2weight_square").items():
        if int(terms):
            plan = SamplePlan([TextItem([0] * (int(terms) - 1), loss=True)])
            batch = pack([plan], reference.config, reference.markers, torch.Generator())
            close(batch.ce_weights, torch.full((int(terms),), weight), f"{terms} terms")
