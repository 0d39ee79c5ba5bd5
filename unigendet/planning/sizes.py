"""Sizes of memory in words: `80GiB`, `80GB`, `80000MiB`."""

from __future__ import annotations

import re

GIB = 2**30
GB = 10**9

_UNITS = {"": 1} | {
    f"{prefix}{binary}b": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for binary, base in (("", 1000), ("i", 1024))
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of `80GiB` (2^30), `80GB` (10^9), `80000MiB`; a bare number would be bytes.

    Raises ValueError, with what to write, for anything else and for sizes below a megabyte: a
    forgotten unit must not pass for a very small GPU.
    """
    match = _SIZE.fullmatch(text)
    unit = match[2].lower() if match else ""
    if match is None or unit not in _UNITS:
        raise ValueError(f"{text!r} is no size; write 80GiB, 80GB or 80000MiB for instance")
    size = int(float(match[1]) * _UNITS[unit])
    if size < 10**6:
        raise ValueError(f"{text!r} is {size} bytes; write a unit, 80GiB for instance")
    return size


def gib(size: float) -> str:
    """`size` bytes in GiB, to three digits where they say something."""
    value = size / GIB
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def gigabytes(size: float) -> str:
    """`size` bytes in GB, as disks are sold."""
    value = size / GB
    return f"{value:.3f} GB" if value < 1 else f"{value:.1f} GB"
