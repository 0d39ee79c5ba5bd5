"""Small pieces of HTML. Text goes in plain and comes out escaped; only `Markup` passes as it is."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Markup(str):
    """Text that is HTML already. Adding plain text escapes it."""

    __slots__ = ()

    def __add__(self, other: str) -> Markup:
        return Markup(str.__add__(self, text(other)))


Content = str | Markup


def text(content: Content) -> Markup:
    """Escaped unless it is `Markup`."""
    return content if isinstance(content, Markup) else Markup(escape(content))


def join(parts: Iterable[Content], by: str = "") -> Markup:
    return Markup(by.join(text(part) for part in parts))


def element(name: str, *content: Content, **attributes: str) -> Markup:
    """`<name ...>content</name>`; `class_` stands for `class`, `_` in names for `-`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{given}>{join(content)}</{name}>")


def paragraph(*content: Content, class_: str = "") -> Markup:
    return element("p", *content, class_=class_) if class_ else element("p", *content)


def section(anchor: str, title: str, *content: Content) -> Markup:
    return element("section", element("h2", title), *content, id=anchor)


def table(
    head: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    *,
    caption: Content = "",
    left: Sequence[int] = (0,),
    wrap: bool = False,
    total: bool = False,
    kind: str = "",
) -> Markup:
    """A table that scrolls sideways by itself where it is too wide.

    A row of one cell is the heading of a group of rows.

    Args:
        left: columns whose text is set to the left.
        wrap: whether those columns may break their lines.
        total: whether the last row is a sum.
        kind: `dense` sets intervals below their values, `narrow` keeps a small table small.
    """
    lines = [list(row) for row in rows]

    def cell(name: str, at: int, content: Content) -> Markup:
        if at not in left:
            return element(name, content)
        return element(name, content, class_="left wrap" if wrap else "left")

    body = []
    for at, row in enumerate(lines):
        if len(row) == 1 < len(head):
            across = element("td", row[0], colspan=str(len(head)))
            body.append(element("tr", across, class_="group"))
            continue
        inner = join(cell("td", column, content) for column, content in enumerate(row))
        last = total and at == len(lines) - 1
        body.append(element("tr", inner, class_="total") if last else element("tr", inner))
    heading = join(cell("th", column, content) for column, content in enumerate(head))
    whole = element("table", element("thead", element("tr", heading)), element("tbody", *body))
    above = paragraph(caption, class_="note") if caption else Markup("")
    return above + element("div", whole, class_=f"scroll {kind}".rstrip())


def figure(content: Content, caption: Content = "") -> Markup:
    below = element("figcaption", caption) if caption else Markup("")
    return element("figure", content, below)


def picture(image: NDArray[np.uint8], alt: str, *, class_: str = "tile") -> Markup:
    """An (H, W, 3) uint8 image as a PNG inside the page: pixels are what is judged, so lossless."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return _embedded(buffer.getvalue(), "png", alt, class_)


def photograph(image: Image.Image, alt: str, *, width: int) -> Markup:
    """A large illustration, made `width` pixels wide at most and compressed."""
    small = image.convert("RGB")
    small.thumbnail((width, 10 * width))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=86, optimize=True)
    return _embedded(buffer.getvalue(), "jpeg", alt, "")


def _embedded(data: bytes, kind: str, alt: str, class_: str) -> Markup:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    named = f' class="{class_}"' if class_ else ""
    return Markup(f'<img src="{source}" alt="{escape(alt)}"{named}>')


def gallery(labels: Sequence[str], rows: Iterable[tuple[Content, Sequence[Markup]]]) -> Markup:
    """Rows of pictures under one line of labels, each row with its caption beside or above it."""
    head = element("p", class_="blank") + join(element("span", label) for label in labels)
    body = join(paragraph(caption) + join(pictures) for caption, pictures in rows)
    return element("div", head + body, class_="gallery", style=f"--n:{len(labels)}")


def pictured_rows(rows: Iterable[tuple[str, Sequence[Markup]]]) -> Markup:
    """Few short rows of small pictures, a word before each."""
    lines = [(word, list(pictures)) for word, pictures in rows]
    columns = max((len(pictures) for _, pictures in lines), default=0)
    body = join(element("span", word) + join(pictures) for word, pictures in lines)
    return element("div", body, class_="rows", style=f"--n:{columns}")
