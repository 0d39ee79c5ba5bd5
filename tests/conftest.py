"""Options of the test runner, threads, and what runs first."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before anything imports torch. Its models are tiny here, and several tests run at a time: threads
# that wait for each other took two thirds of the processors.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        help="folder with the golden fixtures; by default the subset in tests/golden/data",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes first: meanwhile other processes run the other tests."""
    longest = ("test_smoke.py", "test_ray_train.py", "test_dvc.py", "test_sharding_kills.py")
    order = {name: place for place, name in enumerate(longest)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a test, or the code that it runs, sets in the environment ends with the test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
