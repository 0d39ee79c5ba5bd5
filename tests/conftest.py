"""Options of the test runner."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        help="folder with the golden fixtures; by default the subset in tests/golden/data",
    )
