"""Kinds of pictures that are not read, by their ending or first bytes: they are named."""

from __future__ import annotations

_RAW = "a camera's raw file"
_HEIC, _JPEG2000, _JXL = "HEIC", "JPEG 2000", "JPEG XL"
_SUFFIXES = {
    **dict.fromkeys((".nef", ".nrw", ".cr2", ".cr3", ".crw", ".dng", ".arw", ".sr2"), _RAW),
    **dict.fromkeys((".orf", ".raf", ".rw2", ".rwl", ".pef", ".srw", ".3fr", ".iiq", ".x3f"), _RAW),
    **dict.fromkeys((".heic", ".heif", ".hif"), _HEIC),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpx", ".jpf"), _JPEG2000),
    **{".jxl": _JXL, ".psd": "PSD", ".svg": "SVG"},
}
_STARTS = {
    **dict.fromkeys((b"\x00\x00\x00\x0cjP  \r\n", b"\xff\x4f\xff\x51"), _JPEG2000),
    **dict.fromkeys((b"\x00\x00\x00\x0cJXL \r\n", b"\xff\x0a"), _JXL),
    b"8BPS": "PSD",
}
_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")
"""What HEIC files say of themselves from their fifth byte on."""


def unread_ending(suffix: str) -> str:
    """Why a file of this ending (lower case, with its dot) is left out; empty where it is not."""
    return _reason(_SUFFIXES.get(suffix))


def unread_start(head: bytes) -> str:
    """The same for a file that begins with the `HEAD_BYTES` bytes of `image_header`."""
    if head[4:12] in _BRANDS:
        return _reason(_HEIC)
    return _reason(next((kind for start, kind in _STARTS.items() if head.startswith(start)), None))


def _reason(kind: str | None) -> str:
    return f"{kind} is not read: convert it to PNG or TIFF" if kind else ""
