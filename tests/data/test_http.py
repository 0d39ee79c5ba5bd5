"""Sources over HTTP: a folder, parquet files and tars on a server of this machine."""

from __future__ import annotations

import io
import re
import tarfile
import threading
import zlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from unigendet.data import http_files, opener
from unigendet.data.benchmarks import containers
from unigendet.data.image_files import ImageError
from unigendet.data.opener import (
    OpenError,
    file_state,
    is_file,
    is_folder,
    open_binary,
    read_bytes,
    walk,
)
from unigendet.data.sources.base import Source
from unigendet.data.sources.registry import open_stored
from unigendet.types import Sample

pytest.importorskip("aiohttp")


class Ranged(SimpleHTTPRequestHandler):
    """A static server with byte ranges, as all but the simplest have them."""

    refused = 0
    """Parts that begin below this byte are refused."""

    def log_message(self, *_: object) -> None: ...

    def send_head(self) -> io.BytesIO | None:  # type: ignore[override]
        path = Path(self.translate_path(self.path))
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file():
            return super().send_head()  # type: ignore[return-value]
        whole = path.read_bytes()
        start, stop = (int(found[1]), int(found[2]) + 1) if found else (0, len(whole))
        part = whole[start:stop]
        if found and start < self.refused:
            self.send_error(403)
            return None
        self.send_response(206 if found else 200)
        self.send_header("ETag", f'"{zlib.crc32(whole)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(whole)}")
        self.end_headers()
        return io.BytesIO(part)


class Plain(SimpleHTTPRequestHandler):
    """`python -m http.server`: whole files only."""

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(params=[Ranged, Plain], ids=["with ranges", "without"])
def served(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, str]]:
    """A folder, and its address. All but the smallest files are fetched in parts, if they can."""
    monkeypatch.setattr(http_files, "WHOLE", 500)
    folder = tmp_path / "set"
    folder.mkdir()
    handler = partial(request.param, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/set"
        server.shutdown()
        thread.join()


def encoded(seed: int, kind: str = "JPEG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((80, 60)).save(buffer, kind)
    return buffer.getvalue()


def opened(name: str, place: object) -> Source:
    return open_stored(name, str(place), image_size=32, val_share=0.1, test_share=0.1, seed=0)


def same_samples(name: str, folder: Path, address: str) -> list[Sample]:
    """What the source reads over HTTP, once that is what it reads from the disk."""
    local, remote = opened(name, folder), opened(name, address)
    there = [remote.read(item) for item in remote.items() if not item.problem]
    here = [local.read(item) for item in local.items() if not item.problem]
    assert len(there) == len(here) > 0
    for one, other in zip(there, here, strict=True):
        assert np.array_equal(one.image, other.image)
        assert (one.key, one.caption, one.fake) == (other.key, other.caption, other.fake)
    return there


def test_a_folder(served: tuple[Path, str]) -> None:
    folder, address = served
    for n, split in enumerate(("train", "train", "val", "test")):
        (folder / split).mkdir(exist_ok=True)
        (folder / split / f"{n} a.jpg").write_bytes(encoded(n))
    (folder / "train" / "0 a.txt").write_text("a boat")
    samples = same_samples("folder", folder, address)
    assert [sample.split for sample in samples] == ["test", "train", "train", "val"]
    assert "a boat" in {sample.caption for sample in samples}


def test_parquet_files_with_the_images_inside(served: tuple[Path, str]) -> None:
    folder, address = served
    rows = [
        {"image": {"bytes": encoded(n)}, "caption": f"picture {n}", "label": n % 2}
        for n in range(6)
    ]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "a.parquet", row_group_size=4)
    samples = same_samples("parquet", folder, address)
    assert [sample.fake for sample in samples] == [False, True] * 3


@pytest.mark.parametrize("served", [Ranged], indirect=True)
def test_a_server_that_refuses_in_the_middle_is_named(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    rows = [{"image": {"bytes": encoded(n, "PNG")}, "caption": f"{n}"} for n in range(60)]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "a.parquet", row_group_size=4)
    source = opened("parquet", address)
    first = source.items()[0]
    containers._column.cache_clear()
    # The table of contents, at the end, is still there.
    monkeypatch.setattr(Ranged, "refused", (folder / "a.parquet").stat().st_size // 2)
    with pytest.raises(ImageError, match=r"a\.parquet.*the server refuses it"):
        source.read(first)


def test_tars(served: tuple[Path, str]) -> None:
    folder, address = served
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for n in range(4):
            for name, data in ((f"{n:09d}.jpg", encoded(n)), (f"{n:09d}.txt", b"a picture")):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    assert {s.caption for s in same_samples("laion", folder, address)} == {"a picture"}


def test_files_and_what_is_not_there(served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "b").mkdir()
    names = ("a.txt", "b/50% #1?.txt", "b/caf\u00e9 x.txt")
    for name in names:
        (folder / name).write_bytes(b"one" * 1000)
    found = [name for name, _ in walk(address)]
    assert [name.removeprefix(f"{address}/") for name in found] == [
        *("a.txt", "b/50%25 %231%3F.txt", "b/caf\u00e9 x.txt")
    ]
    assert is_folder(address) and is_folder(f"{address}/b") and not is_file(address)
    for place in found:
        assert read_bytes(place) == b"one" * 1000 and is_file(place) and not is_folder(place)
        with open_binary(place) as file:
            file.seek(1)
            assert file.read(2) == b"ne"
    before = file_state(f"{address}/a.txt")
    assert before == file_state(f"{address}/a.txt")
    (folder / "a.txt").write_bytes(b"another")
    assert file_state(f"{address}/a.txt") != before
    with pytest.raises(OpenError, match=r"none\.txt: there is no such file"):
        read_bytes(f"{address}/none.txt")
    assert not is_folder(f"{address}/none") and not is_file(f"{address}/none")
    with pytest.raises(ValueError, match="nowhere"):
        opened("folder", f"{address}/nowhere")
    with pytest.raises(OpenError, match=r"127\.0\.0\.1:9/set/a\.txt"):  # nobody listens there
        read_bytes("http://127.0.0.1:9/set/a.txt")


def test_what_a_server_refuses_is_told(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "a.txt").write_bytes(b"one")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", lambda self: self.send_error(403))
    with pytest.raises(OpenError, match=r"a\.txt: the server refuses it \(403"):
        read_bytes(f"{address}/a.txt")


def test_a_large_file_of_which_no_parts_are_sent_is_told(
    served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "a.tar").write_bytes(bytes(3 << 20))
    monkeypatch.setattr(opener, "MAX_FILE_BYTES", 2 << 20)
    monkeypatch.setattr(http_files, "_gives_parts", lambda *_: False)
    with pytest.raises(OpenError, match=r"a\.tar: cannot be read \(3 MiB, of which .* no parts"):
        open_binary(f"{address}/a.tar")


def test_a_file_whose_size_is_not_told_is_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unsized(Plain):
        def end_headers(self) -> None:
            self._headers_buffer = [
                line for line in self._headers_buffer if not line.startswith(b"Content-Length")
            ]
            super().end_headers()

    (tmp_path / "a.txt").write_bytes(b"one" * 100_000)
    handler = partial(Unsized, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/a.txt"
        assert read_bytes(address) == b"one" * 100_000
        monkeypatch.setattr(opener, "MAX_FILE_BYTES", 200_000)
        with pytest.raises(
            OpenError, match=r"a\.txt: cannot be read \(more than 0 MiB, whose size"
        ):
            open_binary(address)
        server.shutdown()
        thread.join()
