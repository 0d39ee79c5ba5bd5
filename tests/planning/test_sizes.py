"""Sizes as people write them."""

from __future__ import annotations

import pytest

from unigendet.planning.sizes import gib, gigabytes, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GiB", 80 * 2**30),
        ("80GB", 80 * 10**9),
        ("80000MiB", 80000 * 2**20),
        ("0.5 tib", 2**39),
        (" 141 gb ", 141 * 10**9),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "80G", "80 gigabytes", "-1GB", "1e3MB", "nan", "8.GB"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="write 80GiB, 80GB or 80000MiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["80", "0GiB", "1kB"])
def test_a_forgotten_unit_is_no_small_gpu(text: str) -> None:
    with pytest.raises(ValueError, match="write a unit"):
        parse_size(text)


def test_sizes_are_shown_with_three_digits() -> None:
    assert [gib(2**30 * value) for value in (0.25, 12.3456, 234)] == ["0.250", "12.35", "234.0"]
    assert gigabytes(234e9) == "234.0 GB"
