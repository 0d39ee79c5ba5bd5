"""Golden fixtures become test cases: one test per fixture file that exists in the folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.fixtures import Case, Reference
from unigendet.data.tokenizer import Tokenizer
from unigendet.models.unified import UniGenDetModel
from unigendet.models.vae import LatentAutoencoder

_COMMITTED = Path(__file__).parent / "data"


def _folder(config: pytest.Config) -> Path:
    given = config.getoption("golden", None)
    if given is None:
        return _COMMITTED
    folder = Path(given)
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder}: there is no such folder")
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `case` runs on every fixture that the module's FIXTURE names.

    FIXTURE is a pattern such as `F2_*/case_*`.
    """
    if "case" in metafunc.fixturenames:
        paths = sorted(_folder(metafunc.config).glob(metafunc.module.FIXTURE + ".json"))
        metafunc.parametrize("case", [Case(path) for path in paths], ids=lambda case: case.name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A fixture that the folder does not hold is not collected at all."""
    absent = [item for item in items if _without_case(item)]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def _without_case(item: pytest.Item) -> bool:
    skips = item.iter_markers("skip")
    return any("empty parameter set" in mark.kwargs.get("reason", "") for mark in skips)


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder with the fixtures."""
    return _folder(request.config)


@pytest.fixture(scope="session")
def reference(golden: Path) -> Reference:
    """The tiny configuration and weights that all fixtures were made with."""
    if not (golden / "F1_state_dict" / "state_dict_tiny.json").exists():
        pytest.skip(f"{golden} has no F1_state_dict, which every numeric fixture needs")
    return Reference(golden / "F1_state_dict")


@pytest.fixture(scope="session")
def golden_model(reference: Reference) -> UniGenDetModel:
    """The published tiny model. Shared: no test may change it."""
    return reference.model().eval()


@pytest.fixture(scope="session")
def golden_vae(reference: Reference) -> LatentAutoencoder:
    """The published tiny autoencoder. Shared: no test may change it."""
    vae = LatentAutoencoder(reference.config.vae).eval()
    vae.load_published_state_dict(reference.weights("vae_tiny"))
    return vae


@pytest.fixture(scope="session")
def golden_tokenizer(golden: Path) -> Tokenizer:
    """The fixtures' tokenizer."""
    if not (golden / "tokenizer").is_dir():
        pytest.skip(f"{golden} has no tokenizer")
    return Tokenizer.load(golden / "tokenizer")


@pytest.fixture
def matching() -> Callable[[Case, str], list[str]]:
    """The keys of a case that fully match a pattern."""
    return lambda case, pattern: [key for key in case.tensors if re.fullmatch(pattern, key)]
