"""Small copies of published layouts: real image files of a few pixels, with the usual traps."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner, Result

from unigendet import cli


def picture(text: str, kind: str = "PNG", side: int = 8) -> bytes:
    """An image that differs with `text`."""
    seed = zlib.crc32(text.encode())
    image = Image.new("RGB", (side, side), (seed & 255, seed >> 8 & 255, seed >> 16 & 255))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def put(folder: Path, *names: str, kind: str | None = None) -> None:
    """Write an image under each name, of the kind its ending says."""
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        ending = path.suffix.lower().lstrip(".").replace("tiff", "tif")
        path.write_bytes(picture(name, kind or kinds.get(ending, "PNG")))


def write(folder: Path, name: str, content: str | bytes | Sequence[Any]) -> Path:
    """Write a text, bytes or JSON."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]], group: int = 2) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path, row_group_size=group)
    return path


def cells(count: int, kind: str = "PNG") -> list[dict[str, Any]]:
    """Image cells as Hugging Face writes them."""
    return [{"bytes": picture(str(n), kind), "path": f"{n}.png"} for n in range(count)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["datasets", *map(str, arguments)])


def check(name: str, place: object, *, code: int = 0) -> dict[str, Any]:
    """What `unigendet datasets check NAME PATH --json` prints."""
    result = run("check", name, place, "--json")
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert set(found) == {
        *("name", "n_real", "n_fake", "generators", "formats", "skipped", "missing")
    }
    counted = found["n_real"] + found["n_fake"]
    assert sum(found["formats"].values()) == counted
    assert sum(sum(n.values()) for n in found["generators"].values()) == counted
    return found


def counts(found: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(real, fake) by generator."""
    return {name: (n["real"], n["fake"]) for name, n in found["generators"].items()}


def skipped(found: Mapping[str, Any]) -> dict[str, str]:
    return {left["path"]: left["reason"] for left in found["skipped"]}
