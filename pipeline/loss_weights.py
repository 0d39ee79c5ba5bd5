"""Which loss weights and tap layer are in force: numbers of params.yaml, or the sweep's best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.sections.coevolve import CoevolveSection
from unigendet.config import LossWeights


@dataclass(frozen=True, slots=True)
class AlignmentWeights:
    """What a sweep searches: the weights of the loss terms and the layer that is aligned."""

    flow_weight: float
    det_weight: float
    text_weight: float
    align_weight: float
    tap_layer: int
    """Index of the student's layer, 0 for the first."""

    def gduf(self) -> LossWeights:
        """Weights of a GDUF phase, where nothing is aligned."""
        return LossWeights(
            flow=self.flow_weight, text=self.text_weight, det=self.det_weight, align=0.0
        )

    def diga(self) -> LossWeights:
        """Weights of a DIGA phase."""
        return LossWeights(
            flow=self.flow_weight,
            text=self.text_weight,
            det=self.det_weight,
            align=self.align_weight,
        )


def save_best(path: Path, best: AlignmentWeights, **details: float | int | str) -> None:
    """Write `best.yaml`: the weights, and how they were found."""
    yaml = YAML()
    with path.open("w", encoding="utf-8") as file:
        yaml.dump({**asdict(best), **details}, file)


def load_best(path: Path) -> AlignmentWeights:
    """Read `best.yaml`. Raises ValueError naming the file where it is missing or incomplete."""
    try:
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        return AlignmentWeights(
            **{field.name: values[field.name] for field in fields(AlignmentWeights)}
        )
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run the stage sweep, or give every weight") from None
    except (YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no weights of a sweep ({error!r}): run it again") from None


def resolve(section: CoevolveSection, best: Path) -> tuple[AlignmentWeights, Mapping[str, str]]:
    """The weights in force, and for each whether it is from `params.yaml` or from the sweep.

    `auto` reads the sweep's `best.yaml`, a number wins. The file is not opened where no weight is
    `auto`.
    """
    given = {field.name: getattr(section, field.name) for field in fields(AlignmentWeights)}
    automatic = [name for name, value in given.items() if value == "auto"]
    if automatic:
        swept = asdict(load_best(best))
        given.update({name: swept[name] for name in automatic})
    origin = {name: "sweep" if name in automatic else "params" for name in given}
    return AlignmentWeights(**given), origin


def check_layer(tap_layer: int, num_layers: int) -> None:
    """Raise ValueError where the tap layer is none of the model's."""
    if not 0 <= tap_layer < num_layers:
        raise ValueError(f"tap_layer {tap_layer} is none of the model's layers 0..{num_layers - 1}")
