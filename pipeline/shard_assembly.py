"""Second pass of the stage shard: the images that stay are copied into tars of a target size.

What goes into which tar follows from the decided rows alone, so the tars are the same bytes however
many tasks write them. Each tar is one Ray task. Nothing is decoded or encoded again.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.ray_data import each_on_ray
from pipeline.shard_parts import images_path
from unigendet.data.encoding import Encoding
from unigendet.data.manifest import SetRows, ShardEntry, put_sets, row_schema
from unigendet.data.tars import SAMPLE_FIELDS, Tar, shard_path

MEMBER_BYTES = 2048
"""About what a sample takes in a tar beside its image."""


@dataclass(frozen=True, slots=True)
class ShardOrder:
    """One tar to write."""

    set_name: str
    number: int
    out: Path
    parts: Path
    """Folder of the first pass."""
    rows_path: Path
    """Parquet with the tar's rows."""
    encoding: Encoding

    @property
    def index_path(self) -> Path:
        """Parquet with what the index says of them."""
        return self.rows_path.with_suffix(".index.parquet")


def assemble(
    rows: Any, sets: Sequence[str], *, out: Path, state: Path, shard_bytes: int, encoding: Encoding
) -> None:
    """Write the tars and the index of `rows`, which come set by set, into `out`."""
    import pyarrow
    import pyarrow.parquet

    _check_space(out, int(np.sum(rows.column("image_size").to_numpy())) + MEMBER_BYTES * len(rows))
    orders = _cut(rows, sets, out, state, shard_bytes, encoding)
    entries = {
        (order.set_name, order.number): entry for order, entry in each_on_ray(write_shard, orders)
    }
    written = {}
    for name in sets:
        own = [order for order in orders if order.set_name == name]
        tables = [pyarrow.parquet.read_table(o.index_path, partitioning=None) for o in own]
        shards = [entries[name, order.number] for order in own]
        table = pyarrow.concat_tables(tables).combine_chunks()
        written[name] = SetRows(shards, encoding, table)
    put_sets(out, written)


def _check_space(out: Path, wanted: int) -> None:
    free = shutil.disk_usage(out).free
    if free < wanted:
        raise ValueError(
            f"the shards need {wanted / 1e9:.1f} GB at {out}, only {free / 1e9:.1f} GB are free: "
            f"free some space and run the same command again, it goes on from here"
        )


def _cut(
    rows: Any, sets: Sequence[str], out: Path, state: Path, shard_bytes: int, encoding: Encoding
) -> list[ShardOrder]:
    """Rows of each tar, in files of their own: a task reads no other's."""
    import pyarrow.parquet

    folder = state / "layout"
    folder.mkdir(exist_ok=True)
    names = np.array(rows.column("set").to_pylist(), dtype=object)
    sizes = rows.column("image_size").to_numpy() + MEMBER_BYTES
    orders = []
    for name in sets:
        inside = np.flatnonzero(names == name)
        filled = np.cumsum(sizes[inside]) - sizes[inside]
        shard_of = filled // shard_bytes
        for number, place in enumerate(np.unique(shard_of).tolist()):
            places = inside[shard_of == place]
            path = folder / f"{name}-{number:05d}.parquet"
            part = rows.slice(int(places[0]), len(places))
            pyarrow.parquet.write_table(part, path)
            orders.append(ShardOrder(name, number, out, state / "parts", path, encoding))
    return orders


def write_shard(order: ShardOrder) -> ShardEntry:
    """Write one tar, and the index's rows of its samples."""
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(order.rows_path, partitioning=None)
    tar = Tar(shard_path(order.out, order.set_name, order.number), order.encoding)
    stored, places = [*SAMPLE_FIELDS, "part", "part_offset", "image_size", "image_crc32"], []
    open_part, file = "", None
    try:
        for row in rows.select(stored).to_pylist():
            if file is None or row["part"] != open_part:
                if file is not None:
                    file.close()
                open_part = row["part"]
                file = images_path(order.parts, open_part).open("rb")
            file.seek(row["part_offset"])
            image = file.read(row["image_size"])
            if zlib.crc32(image) != row["image_crc32"]:
                raise ValueError(
                    f"{file.name} was changed after it was written: "
                    f"start anew with `dvc repro -f shard`"
                )
            places.append(tar.add({name: row[name] for name in SAMPLE_FIELDS}, image))
    finally:
        if file is not None:
            file.close()
    entry = tar.finish()
    placed = pyarrow.Table.from_pylist([place | {"shard": order.number} for place in places])
    for name in placed.column_names:
        if name in rows.column_names:
            rows = rows.drop_columns(name)
        rows = rows.append_column(name, placed.column(name))
    pyarrow.parquet.write_table(rows.select(row_schema().names), order.index_path)
    return entry
