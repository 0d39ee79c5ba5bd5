"""What web servers lack of a file system, for `unigendet.data.opener`.

A folder is a page that lists links, as nginx, Apache and `python -m http.server` write it. Names
are shown as they are on the server's disk, but for `%`, `#`, `?` and `/`, which stay encoded: so a
name put behind its folder's address is an address again. `files` is fsspec's HTTP file system.
"""

from __future__ import annotations

import io
import re
import sys
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

WHOLE = 1 << 20
"""Larger files are fetched in parts, where the server sends parts; in bytes."""
_STAYS_ENCODED = re.compile(r"(%(?:23|25|2[Ff]|3[Ff]))")
_GIVES_PARTS: dict[str, bool] = {}
_STATE = ("size", "ETag", "Last-Modified", "Content-MD5", "Digest")


def is_http(place: str) -> bool:
    """Whether a canonical location is one of these."""
    return place.startswith(("http://", "https://"))


def is_page(files: Any, address: str) -> bool | None:
    """Whether there is a page, which is a folder, or else a file; None where there is neither."""
    try:
        return bool(files.info(address).get("mimetype") == "text/html")
    except OSError:
        return None


def entries(files: Any, address: str) -> list[tuple[str, bool]]:
    """Name of each entry of a folder, and whether that is a folder."""
    start = f"{address.rstrip('/')}/"
    found = {}
    for row in files.ls(address, detail=True):
        name = row["name"].removeprefix(start)
        plain = name.rstrip("/")
        # Links that sort the list, that lead elsewhere, or deeper than one folder.
        if plain and not re.search(r"[/?#]", plain):
            found[_decoded(plain)] = name.endswith("/")
    return sorted(found.items())


def _decoded(name: str) -> str:
    try:
        parts = [unquote(part, errors="strict") for part in _STAYS_ENCODED.split(name)[::2]]
    except UnicodeDecodeError:
        return name
    kept = [*_STAYS_ENCODED.findall(name), ""]
    return "".join(part + stays for part, stays in zip(parts, kept, strict=True))


def is_refusal(error: BaseException | None) -> bool:
    """Whether it is a server's answer of an error."""
    client = sys.modules.get("aiohttp")  # loaded where there was an answer
    return client is not None and isinstance(error, client.ClientError)


def state(files: Any, address: str) -> object:
    """What the server says of a file that changes with it."""
    info = files.info(address)
    return [info.get(name) for name in _STATE]


def open_file(files: Any, address: str, most: int) -> BinaryIO:
    """A file, opened for seeking. One that the server only gives whole may have `most` bytes."""
    size = files.info(address).get("size")
    if size is not None and size > WHOLE and _gives_parts(files, address):
        return cast(BinaryIO, files.open(address, "rb"))
    if size is not None and size > most:
        raise OSError(
            f"{size >> 20} MiB, of which the server sends no parts (byte ranges): "
            "copy it to a disk, or serve it otherwise"
        )
    return io.BytesIO(files.cat_file(address) if size is not None else _some(files, address, most))


def _some(files: Any, address: str, most: int) -> bytes:
    """A file whose size the server does not tell: it may go on for ever."""
    data = bytearray()
    with files.open(address, "rb") as file:
        while part := file.read(1 << 16):
            data += part
            if len(data) > most:
                raise OSError(f"more than {most >> 20} MiB, whose size the server does not tell")
    return bytes(data)


def _gives_parts(files: Any, address: str) -> bool:
    """Asked once of each server."""
    server = urlsplit(address).netloc
    if server not in _GIVES_PARTS:
        try:
            with files.open(address, "rb", block_size=1 << 16) as file:
                file.seek(1)
                file.read(1)
            _GIVES_PARTS[server] = True
        except ValueError:
            _GIVES_PARTS[server] = False
    return _GIVES_PARTS[server]
