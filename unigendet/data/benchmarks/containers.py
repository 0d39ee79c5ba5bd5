"""Images inside of tar and parquet files, found and read one at a time.

Members are bytes: nothing is extracted, unpickled or run.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from unigendet.data.opener import MAX_FILE_BYTES, OpenError, open_binary, read_part, told

PICKLED = (".pkl", ".pickle", ".pyd", ".pth", ".pt", ".joblib", ".npy", ".npz")
"""Endings of members that loaders unpickle, or may be made to."""
MAX_GROUP_BYTES = 8 << 30
"""A row group's columns are read at once and may unpack to this much."""


@dataclass(frozen=True, slots=True)
class TarSpan:
    """Where a member's bytes lie in an uncompressed tar."""

    offset: int
    size: int

    def read(self, location: str) -> bytes:
        """The member. Raises OpenError where the tar cannot be read, or is cut off."""
        return read_part(location, self.offset, self.size)


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """The image bytes of one row of a parquet file: plain, or in a struct with `bytes`."""

    group: int
    row: int
    """Within the row group."""
    column: str

    def read(self, location: str) -> bytes:
        """The bytes. Raises OpenError where the cell has none."""
        value = _column(location, self.group, self.column)[self.row].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise OpenError("the row has no image bytes")
        return value


@dataclass(frozen=True, slots=True)
class TarMember:
    """A plain file in a tar, or why it is not read."""

    name: str
    span: TarSpan
    problem: str = ""


def tar_members(location: str) -> Iterator[TarMember]:
    """Every member but folders, in order. A damaged tar ends with a member that says so."""
    with open_binary(location) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    if not info.isdir():
                        span = TarSpan(info.offset_data, info.size)
                        yield TarMember(info.name, span, _problem(info))
                    vars(tar)["members"].clear()  # a million members must not be kept
        except (tarfile.TarError, EOFError, ValueError) as error:
            yield TarMember("", TarSpan(0, 0), f"the tar is damaged ({error})")


def _problem(info: tarfile.TarInfo) -> str:
    parts = info.name.replace("\\", "/").split("/")
    if info.name.startswith("/") or ".." in parts:
        return "the member's name leads out of the archive"
    if not info.isreg() or info.issparse():
        return "the member is a link or a device, not a plain file"
    if info.name.lower().endswith(PICKLED):
        return "pickled members are never opened"
    if info.size > MAX_FILE_BYTES:
        return f"the member is larger than {MAX_FILE_BYTES >> 20} MiB"
    return ""


@dataclass(frozen=True, slots=True)
class ParquetRow:
    """One row without its image."""

    group: int
    row: int
    values: dict[str, Any]


class ParquetTable:
    """A parquet file of which the named columns are read row by row, images left aside."""

    def __init__(self, location: str) -> None:
        self.location = location
        with open_binary(location) as file:
            schema = _open_parquet(file, location).schema_arrow
        self.columns: dict[str, str] = {field.name: str(field.type) for field in schema}
        """Arrow type of each column by name."""

    def image_column(self, preferred: tuple[str, ...]) -> str | None:
        """The first of `preferred` that holds bytes."""
        names = (name for name in preferred if name in self.columns)
        return next((name for name in names if "binary" in self.columns[name]), None)

    def rows(self, columns: list[str]) -> Iterator[ParquetRow]:
        """Every row with its values in `columns`."""
        with open_binary(self.location) as file:
            table = _open_parquet(file, self.location)
            for group in range(table.num_row_groups):
                for place, values in enumerate(
                    _read_group(table, self.location, group, columns).to_pylist()
                    if columns
                    else [{}] * table.metadata.row_group(group).num_rows
                ):
                    yield ParquetRow(group, place, values)


def _open_parquet(file: Any, location: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise OpenError(
            f"{location}: reading parquet needs the package pyarrow "
            "(pip install 'unigendet[pipeline]')"
        ) from None
    with told(location):
        try:
            return pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise OpenError(f"{location}: no parquet file, or a damaged one ({reason})") from None


@lru_cache(maxsize=1)
def _column(location: str, group: int, column: str) -> Any:
    """One column of one row group: rows are read in order, so the last group serves the next."""
    with open_binary(location) as file:
        return _read_group(_open_parquet(file, location), location, group, [column])[column]


def _read_group(table: Any, location: str, group: int, columns: list[str]) -> Any:
    """Some columns of a row group. Raises OpenError for one that would fill the memory."""
    import pyarrow

    about = table.metadata.row_group(group)
    chunks = (about.column(place) for place in range(about.num_columns))
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema.split(".")[0] in columns
    )
    if size > MAX_GROUP_BYTES:
        raise OpenError(
            f"{location}: row group {group} unpacks to {size >> 20:,} MiB; "
            "write the file again with smaller row groups"
        )
    with told(location):
        try:
            return table.read_row_group(group, columns=columns)
        except (pyarrow.ArrowException, OSError) as error:
            raise OpenError(f"{location}: damaged ({str(error).splitlines()[0]})") from None
