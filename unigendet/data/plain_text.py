"""Text of strangers (captions, file names) made fit to be shown."""

from __future__ import annotations


def plain(text: str, limit: int = 200) -> str:
    """One line without control, escape or direction characters, which are written as `\\x1b`.

    What is longer than `limit` characters is cut, and says so.
    """
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
