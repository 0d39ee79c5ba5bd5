"""`UniGenDet`: the same result alone, in any batch, from an array, a Pillow image or a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unigendet.data.image_files import ImageError
from unigendet.inference import UniGenDet
from unigendet.sampling import Guidance


def test_detection_does_not_depend_on_the_batch(
    small: UniGenDet, pictures: list[np.ndarray]
) -> None:
    together = small.detect(pictures, max_tokens=8)
    alone = [small.detect([picture], max_tokens=8)[0] for picture in pictures]
    in_pairs = small.detect(pictures, max_tokens=8, batch_size=2)
    assert len({round(found.score, 4) for found in together}) > 1
    for a, b, c in zip(together, alone, in_pairs, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-5) == pytest.approx(c.score, abs=1e-5)
        assert a.explanation == b.explanation == c.explanation
        assert a.fake is (a.score > 0.5)


def test_the_score_is_the_probability_of_the_published_fake_class(
    small: UniGenDet, pictures: list[np.ndarray]
) -> None:
    head = small.model.fake_cls_head[-1]
    bias = head.bias.detach().clone()
    try:
        head.bias.data = torch.tensor([50.0, 0.0])
        assert all(found.fake for found in small.detect(pictures, explain=False))
        head.bias.data = torch.tensor([0.0, 50.0])
        assert not any(found.fake for found in small.detect(pictures, explain=False))
    finally:
        head.bias.data = bias


def test_every_way_to_name_an_image_is_the_same(
    small: UniGenDet, pictures: list[np.ndarray], picture_files: list[Path]
) -> None:
    by_array = small.detect(pictures, explain=False)
    assert small.detect(picture_files, explain=False) == by_array
    assert small.detect([str(path) for path in picture_files], explain=False) == by_array
    assert small.detect([Image.fromarray(p) for p in pictures], explain=False) == by_array
    assert all(found.explanation == "" for found in by_array)


def test_latents_change_what_the_detector_sees(
    small: UniGenDet, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_latents = small.detect(pictures, explain=False)
    monkeypatch.setattr(small.model, "config", replace(small.config, smsa=False))
    without = small.detect(pictures, explain=False)
    assert [found.score for found in with_latents] != [found.score for found in without]


def test_detect_reports_progress_and_takes_no_images(
    small: UniGenDet, pictures: list[np.ndarray]
) -> None:
    seen: list[tuple[int, int]] = []
    small.detect(
        pictures,
        explain=False,
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert small.detect([]) == []


def test_detect_refuses_bad_input(small: UniGenDet, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(ImageError, match=r"broken\.png"):
        small.detect([broken])
    with pytest.raises(ValueError, match="list"):
        small.detect(str(broken))
    with pytest.raises(ImageError, match=r"images\[0\]: .*uint8"):
        small.detect([np.zeros((8, 8), dtype=np.uint8)])
    with pytest.raises(ImageError, match=r"images\[2\]: .*no pixels"):
        good = Image.new("RGB", (8, 8))
        small.detect([good, good, Image.new("RGB", (0, 8))], batch_size=1, explain=False)
    with pytest.raises(ValueError, match="batch_size"):
        small.detect([np.zeros((8, 8, 3), dtype=np.uint8)], batch_size=0)


def test_generation_depends_on_prompt_seed_and_place_alone(small: UniGenDet) -> None:
    prompts = ["pale desert", "dark forest", ""]
    images = small.generate(prompts, steps=3, seed=4)
    assert [image.shape for image in images] == [(32, 32, 3)] * 3
    assert all(image.dtype == np.uint8 for image in images)
    again = small.generate(prompts, steps=3, seed=4, batch_size=2)
    for image, other in zip(images, again, strict=True):
        assert np.abs(image.astype(int) - other).max() <= 1
    assert (
        np.abs(images[0].astype(int) - small.generate(["pale desert"], steps=3, seed=4)[0]).max()
        <= 1
    )
    assert (images[0] != small.generate(prompts, steps=3, seed=5)[0]).any()
    assert (images[0] != small.generate(["dark forest"], steps=3, seed=4)[0]).any()


def test_sizes_and_guidance(small: UniGenDet) -> None:
    (image,) = small.generate(["pale desert"], size=(16, 24), steps=2)
    assert image.shape == (16, 24, 3)
    plain = small.generate(["pale desert"], steps=2, guidance=1.0)[0]
    strong = small.generate(["pale desert"], steps=2, guidance=Guidance(8.0, renorm="channel"))[0]
    assert (plain != strong).any()


def test_generate_reports_every_step(small: UniGenDet) -> None:
    seen: list[int] = []
    small.generate(
        ["a", "b", "c"], steps=2, batch_size=2, progress=lambda done, total: seen.append(done)
    )
    assert seen == [2, 4, 5, 6]
    assert small.generate([]) == []


def test_generate_refuses_bad_input(small: UniGenDet) -> None:
    for size, message in (
        ((30, 32), "multiples of 8"),
        ((64, 8), "at most 32"),
        ((0, 8), "multiples"),
    ):
        with pytest.raises(ValueError, match=message):
            small.generate(["a"], size=size)
    with pytest.raises(ValueError, match="at least 1 step"):
        small.generate(["a"], steps=0)
    with pytest.raises(ValueError, match="list"):
        small.generate("a")


def test_damaged_weights_are_refused(model_folder: Path, pictures: list[np.ndarray]) -> None:
    loaded = UniGenDet.from_pretrained(model_folder)
    with torch.no_grad():
        loaded.model.language_model.model.norm.weight.fill_(torch.nan)
        loaded.model.language_model.model.norm_moe_gen.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="no numbers"):
        loaded.detect(pictures[:1], explain=False)
    with pytest.raises(ValueError, match="no numbers"):
        loaded.generate(["a"], steps=1)


def test_from_pretrained_gives_the_same_results(
    small: UniGenDet, model_folder: Path, pictures: list[np.ndarray]
) -> None:
    loaded = UniGenDet.from_pretrained(model_folder)
    assert loaded.config == small.config
    assert loaded.detect(pictures, max_tokens=6) == small.detect(pictures, max_tokens=6)
    assert (loaded.generate(["a"], steps=2)[0] == small.generate(["a"], steps=2)[0]).all()


@pytest.mark.parametrize("device", ["tpu-ish", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(model_folder: Path, device: str) -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        UniGenDet.from_pretrained(model_folder, device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(
    small: UniGenDet, model_folder: Path, pictures: list[np.ndarray]
) -> None:
    loaded = UniGenDet.from_pretrained(model_folder, "cuda")
    for a, b in zip(
        loaded.detect(pictures, explain=False), small.detect(pictures, explain=False), strict=True
    ):
        assert a.score == pytest.approx(b.score, abs=1e-3)
    drawn = loaded.generate(["a"], steps=2)[0].astype(int)
    assert np.abs(drawn - small.generate(["a"], steps=2)[0]).max() <= 3
