"""Text of strangers (captions, file names) made fit to be shown."""

from __future__ import annotations


def plain(text: str, limit: int = 200) -> str:
    r"""One line without control, escape or direction characters, which are written as `\x1b`.

    What is longer than `limit` characters is cut, and ends with `…`.
    """
    cut = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def plain_lines(text: str) -> str:
    """A message of our own, with its line breaks, that may quote a stranger's text."""
    return "\n".join(plain(line, 2000) for line in text.split("\n"))
