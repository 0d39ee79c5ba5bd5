"""Shards: what is written is read back, by us and by webdataset, and damage is told."""

from __future__ import annotations

import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from unigendet.data.encoding import Encoding, decode_stored
from unigendet.data.hashing import perceptual_hash, pixel_sha256
from unigendet.data.image_header import header_facts
from unigendet.data.manifest import ShardError, file_sha256, read_index
from unigendet.data.shards import ShardDataset, ShardWriter, one_size
from unigendet.data.tars import encode
from unigendet.types import Sample


def make_sample(number: int, fake: bool = False) -> Sample:
    rng = np.random.default_rng(number)
    return Sample(
        key=f"s-{number:03d}",
        image=rng.integers(0, 256, (16, 12, 3), dtype=np.uint8),
        source_id=f"source/{number // 2}",
        split="train",
        domain="test",
        caption=f"número {number}",
        fake=fake,
        generator="gan" if fake else "real",
        explanation="This is a fake image." if fake else "",
    )


@pytest.fixture
def samples() -> list[Sample]:
    return [make_sample(number, fake=number % 3 == 0) for number in range(10)]


@pytest.fixture
def folder(tmp_path: Path, samples: list[Sample]) -> Path:
    with ShardWriter(tmp_path, "train", shard_bytes=8000) as writer:
        for sample in samples:
            writer.write(sample)
    return tmp_path


def equal(left: Sample, right: Sample) -> bool:
    fields = [name for name in Sample.__slots__ if name != "image"]
    same = all(getattr(left, name) == getattr(right, name) for name in fields)
    return same and np.array_equal(left.image, right.image)


def test_every_sample_comes_back_exactly_once_in_order(folder: Path, samples: list[Sample]) -> None:
    dataset = ShardDataset(folder, "train")
    assert len(dataset) == len(samples)
    assert all(equal(a, b) for a, b in zip(dataset, samples, strict=True))
    assert equal(dataset[7], samples[7]) and equal(dataset[-1], samples[-1])
    assert [s.key for s in dataset[2:5]] == ["s-002", "s-003", "s-004"]
    with pytest.raises(IndexError):
        dataset[10]


def test_the_index_counts_classes_sources_and_shards(folder: Path) -> None:
    index = read_index(folder)["train"]
    assert index.class_balance == {"real": 6, "fake": 4}
    assert index.generators == {"gan": 4, "real": 6}
    assert index.source_count == 5
    assert [shard.count for shard in index.shards] == [4, 4, 2]
    for shard in index.shards:
        path = folder / shard.path
        assert (path.stat().st_size, file_sha256(path)) == (shard.bytes, shard.sha256)


def test_webdataset_reads_the_tars(folder: Path, samples: list[Sample]) -> None:
    import webdataset

    urls = [str(folder / shard.path) for shard in read_index(folder)["train"].shards]
    pipeline = (
        webdataset.WebDataset(urls, shardshuffle=False)
        .decode("rgb8")
        .to_tuple("__key__", "png", "json")
    )
    read = list(pipeline)
    assert [key for key, _, _ in read] == [sample.key for sample in samples]
    for (_, image, meta), sample in zip(read, samples, strict=True):
        assert np.array_equal(image, sample.image)
        assert meta["fake"] == sample.fake and meta["caption"] == sample.caption


def test_members_hold_nothing_executable(folder: Path) -> None:
    for shard in read_index(folder)["train"].shards:
        with tarfile.open(folder / shard.path) as tar:
            assert {Path(member.name).suffix for member in tar} == {".png", ".json"}


def test_the_same_samples_give_the_same_bytes(tmp_path: Path, samples: list[Sample]) -> None:
    digests = []
    for name in ("a", "b"):
        with ShardWriter(tmp_path / name, "train") as writer:
            for sample in samples:
                writer.write(sample)
        digests.append(read_index(tmp_path / name)["train"].shards[0].sha256)
    assert digests[0] == digests[1]


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "train-00001.tar").unlink()
    with pytest.raises(ShardError, match=r"train-00001\.tar is missing"):
        ShardDataset(folder, "train", verify=False)


def test_a_truncated_shard_is_named(folder: Path) -> None:
    path = folder / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(ShardError, match=r"train-00001\.tar has \d+ bytes .* cut short"):
        ShardDataset(folder, "train", verify=False)


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "train-00002.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ShardError, match=r"train-00002\.tar was changed"):
        ShardDataset(folder, "train")


def rewrite_metadata(index: Path, old: bytes, new: bytes) -> None:
    table = pq.read_table(index)
    changed = table.schema.metadata[b"unigendet"].replace(old, new)
    pq.write_table(table.replace_schema_metadata({b"unigendet": changed}), index)


def test_index_problems_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no set `val`; it has train"):
        ShardDataset(folder, "val")
    with pytest.raises(ShardError, match=r"index\.parquet is missing"):
        ShardDataset(tmp_path / "nowhere", "train")
    index = folder / "index.parquet"
    whole = index.read_bytes()
    rewrite_metadata(index, b"train-00000.tar", b"../train-00000.tar")
    with pytest.raises(ShardError, match="outside its folder"):
        ShardDataset(folder, "train")
    for damaged in (whole[:-50], whole[:100], b"", b"{}", whole.replace(b"key", b"yek")):
        index.write_bytes(damaged)
        with pytest.raises(ShardError, match="no valid index"):
            ShardDataset(folder, "train")
    index.write_bytes(whole)
    rewrite_metadata(index, b'"version": 2', b'"version": 9')
    with pytest.raises(ShardError, match="version 9"):
        ShardDataset(folder, "train")
    index.write_bytes(whole)
    rewrite_metadata(index, b"unheard of", b"x")
    ShardDataset(folder, "train")


def test_the_index_is_a_table_for_anyone(folder: Path, samples: list[Sample]) -> None:
    table = pq.read_table(folder / "index.parquet").to_pylist()
    assert [row["key"] for row in table] == [sample.key for sample in samples]
    for row, sample in zip(table, samples, strict=True):
        assert (row["set"], row["width"], row["height"]) == ("train", 12, 16)
        assert (row["caption"], row["fake"]) == (sample.caption, sample.fake)
        assert row["pixel_sha256"] == pixel_sha256(sample.image)
        assert row["perceptual_hash"] == perceptual_hash(sample.image)
        assert row["original_format"] is None
        data = (folder / f"train-{row['shard']:05d}.tar").read_bytes()
        image = data[row["image_offset"] : row["image_offset"] + row["image_size"]]
        assert np.array_equal(decode_stored(image), sample.image)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_lossy_encodings_are_a_policy_of_the_set(
    tmp_path: Path, samples: list[Sample], kind: str
) -> None:
    ramp = np.linspace(0, 255, 48 * 40 * 3).reshape(48, 40, 3).astype(np.uint8)
    with ShardWriter(tmp_path, "train", encoding=Encoding(kind, 90)) as writer:
        writer.write(replace(samples[0], image=ramp))
    dataset = ShardDataset(tmp_path, "train")
    assert dataset.encoding == Encoding(kind, 90)
    assert header_facts(dataset.image_file(0)).format == kind.upper()
    assert np.abs(dataset[0].image.astype(int) - ramp).mean() < 6
    assert dataset.entries[0].pixel_sha256 == pixel_sha256(ramp)
    with tarfile.open(tmp_path / "train-00000.tar") as tar:
        assert Path(tar.getnames()[0]).suffix == {"jpeg": ".jpg", "webp": ".webp"}[kind]


def test_unknown_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="png, jpeg, webp, not as 'bmp'"):
        Encoding("bmp")
    with pytest.raises(ValueError, match=r"1\.\.100"):
        Encoding("jpeg", 0)


def test_an_error_leaves_nothing_half_written(tmp_path: Path, samples: list[Sample]) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train", shard_bytes=4000) as writer:
        for sample in samples[:5]:
            writer.write(sample)
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_bad_samples_are_refused(tmp_path: Path, samples: list[Sample]) -> None:
    real, fake = samples[1], samples[0]
    with pytest.raises(ValueError, match="fake=True does not fit"):
        encode(replace(real, fake=True))
    with pytest.raises(ValueError, match="fake=False does not fit"):
        encode(replace(fake, fake=False))
    with pytest.raises(ValueError, match="cannot name a tar member"):
        encode(replace(real, key="../x"))
    with pytest.raises(ValueError, match="uint8"):
        encode(replace(real, image=real.image.astype(np.float32)))
    with (
        pytest.raises(ValueError, match="two samples have the key"),
        ShardWriter(tmp_path, "train") as writer,
    ):
        writer.write(real)
        writer.write(real)
    with pytest.raises(ValueError, match="nothing was written"), ShardWriter(tmp_path, "train"):
        pass


def test_sets_live_side_by_side_and_a_dataset_travels(folder: Path, samples: list[Sample]) -> None:
    with ShardWriter(folder, "val") as writer:
        writer.write(samples[0])
    assert set(read_index(folder)) == {"train", "val"}
    dataset = pickle.loads(pickle.dumps(ShardDataset(folder, "train")))
    assert equal(dataset[3], samples[3])
    assert ShardDataset(folder, "train").images().shape == (10, 16, 12, 3)


def test_parts_of_a_set_count_their_own_samples(folder: Path, samples: list[Sample]) -> None:
    whole = ShardDataset(folder, "train")
    real, fake = whole.only(fake=False), pickle.loads(pickle.dumps(whole.only(fake=True)))
    reals, fakes = ([s for s in samples if s.fake == kind] for kind in (False, True))
    assert (len(whole), len(real), len(fake)) == (10, len(reals), len(fakes)) == (10, 6, 4)
    assert equal(real[3], reals[3]) and equal(fake[3], fakes[3])
    assert real.manifest.class_balance == {"real": 6, "fake": 0}
    assert [sample.key for sample in real.part([4, 2])] == [reals[4].key, reals[2].key]
    assert not real.only(fake=True)


def test_one_size(folder: Path, samples: list[Sample]) -> None:
    with ShardWriter(folder, "tall") as writer:
        writer.write(replace(samples[0], image=np.zeros((20, 12, 3), np.uint8)))
    sets = [ShardDataset(folder, name) for name in ("train", "tall")]
    assert [one_size([data]) for data in sets] == [(16, 12), (20, 12)]
    with pytest.raises(ValueError, match=r"train, tall have 2 sizes \(10 of 12 x 16, 1 of 12 x 20"):
        one_size(sets)
