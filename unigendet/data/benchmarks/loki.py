"""LOKI's images: `media_data/image` and `data_json/image/true_or_false.json`.

Every image is asked about twice, once "is it real?" and once "is it fake?", so that the answer says
nothing: the class is in `question_type`, `image_tf_image_{real,fake}_ask_{real,fake}_{category}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unigendet.data.benchmarks.base import BenchmarkError, BenchmarkItem, Found, Skipped
from unigendet.data.benchmarks.files import find_beside, image_files
from unigendet.data.benchmarks.listing import Listing
from unigendet.data.tables import read_json_list

QUESTIONS = ("data_json/image/true_or_false.json", "true_or_false.json")
_TRUTH = re.compile(r"image_(real|fake)_ask_(?:real|fake)(?:_(.+))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Loki:
    """One item per image; the category, `animal` for instance, stands for the generator, which the
    set does not tell. Other questions, videos and 3D scenes are passed over."""

    def scan(self, root: str) -> Iterator[Found]:
        place = find_beside(root, QUESTIONS)
        if place is None:
            raise BenchmarkError(
                f"{root}: the questions are missing: put data_json/image/true_or_false.json of the "
                "LOKI repository beside media_data (the class of an image is told nowhere else)"
            )
        asked = [record for record in read_json_list(place) if _is_about_an_image(record)]
        listing = Listing((str(record.get("image_path") or ""), record) for record in asked)
        for file in image_files(root):
            if isinstance(file, Skipped):
                listing.find(file.path)  # it is there, if unusable
                yield file
                continue
            records = listing.find(file.name)
            if not records and {"video", "3D", "3d"} & set(file.parts):
                continue
            yield _item(file.location, file.name, records)
        for path, _ in listing.unmatched():
            yield Skipped(path, "listed in true_or_false.json, but there is no such file")


def _is_about_an_image(record: dict[str, Any]) -> bool:
    return str(record.get("modality") or "image").lower() == "image"


def _item(location: str, name: str, records: list[dict[str, Any]]) -> Found:
    if not records:
        return Skipped(name, "not asked about in true_or_false.json")
    kinds = [str(record.get("question_type") or "") for record in records]
    found = [match for kind in kinds if (match := _TRUTH.search(kind))]
    if len(found) < len(kinds):
        return Skipped(name, f"its question_type {kinds[0][:60]!r} tells no class")
    classes = {match[1].lower() for match in found}
    if len(classes) > 1:
        return Skipped(name, "its questions say both real and fake")
    return BenchmarkItem(
        location=location,
        name=name,
        is_fake=classes == {"fake"},
        generator=found[0][2] or "loki",
        split="test",
        native_label=kinds[0],
    )
