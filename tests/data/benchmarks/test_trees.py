"""Sets whose folders say the class, each in miniature with its traps."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.data.benchmarks.miniature import check, counts, picture, put, run, skipped, write
from unigendet.data.benchmarks.base import BenchmarkItem, normalised
from unigendet.data.benchmarks.check import items
from unigendet.data.benchmarks.layouts import UNIVERSALFAKEDETECT
from unigendet.data.benchmarks.registry import find_benchmark
from unigendet.data.benchmarks.unbiased import UnbiasedGenImage
from unigendet.data.image_header import jpeg_quality
from unigendet.data.sources.folder import ImageFolder


def splits(name: str, place: Path) -> Counter[str]:
    found = items(find_benchmark(name), str(place))
    return Counter(item.split for item in found if isinstance(item, BenchmarkItem))


def test_forensynths_with_and_without_class_folders(tmp_path: Path) -> None:
    put(tmp_path, "test/progan/airplane/0_real/a.png", "test/progan/cat/1_fake/a.png")
    put(tmp_path, "test/progan/cat/0_real/b.png", "test/biggan/0_real/a.JPEG")
    put(tmp_path, "test/biggan/1_fake/a.png", "test/biggan/1_fake/b.webp")
    for place in (tmp_path, tmp_path / "test"):
        found = check("forensynths", place)
        assert counts(found) == {"biggan": (1, 2), "progan": (2, 1)}
        assert found["formats"] == {"PNG": 4, "JPEG": 1, "WEBP": 1}
        assert "stargan" in found["missing"] and "progan" not in found["missing"]
    alone = check("forensynths", tmp_path / "test" / "progan")
    assert counts(alone) == {"progan": (2, 1)} and alone["missing"] == []


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    """`train` is one of the 20 LSUN classes of ProGAN's test images."""
    root = tmp_path / "CNN_synth_testset"
    for name in ("car", "train"):
        put(root, f"progan/{name}/0_real/a.png", f"progan/{name}/1_fake/a.png")
    put(root, "biggan/0_real/a.png", "biggan/1_fake/a.png")
    for benchmark in ("aigcdetectbenchmark", "forensynths"):
        assert splits(benchmark, root) == {"test": 6}
        assert splits(benchmark, root / "progan") == {"test": 4}
        assert counts(check(benchmark, root)) == {"biggan": (1, 1), "progan": (2, 2)}
    root.rename(tmp_path / "test")
    put(tmp_path, "train/train/0_real/a.png", "train/car/1_fake/a.png", "val/train/1_fake/a.png")
    put(tmp_path, "test/newgan/train/0_real/a.png")
    assert splits("forensynths", tmp_path / "test") == {"test": 7}
    assert splits("forensynths", tmp_path / "test/progan") == {"test": 4}
    assert splits("forensynths", tmp_path / "val") == {"val": 1}
    shutil.rmtree(tmp_path / "test/newgan")
    assert splits("forensynths", tmp_path) == {"test": 6, "train": 2, "val": 1}
    assert counts(check("forensynths", tmp_path)) == {"biggan": (1, 1), "progan": (3, 4)}


def test_what_is_no_image_is_not_counted(tmp_path: Path) -> None:
    gan = tmp_path / "GAUGAN"
    put(gan, "0_real/a.png", "1_fake/b.png", "1_fake/.hidden.png", "1_fake/masks/m.png")
    put(tmp_path, "__MACOSX/GAUGAN/0_real/._a.png", "teaser.png")
    put(gan, "0_real/no_ending", "0_real/wrong.txt", kind="JPEG")
    put(gan, "1_fake/png_called.jpg", kind="PNG")
    write(gan, "0_real/.DS_Store", b"\0\0")
    write(gan, "0_real/list.csv", "a,b\n")
    write(gan, "1_fake/empty.jpg", b"")
    write(gan, "1_fake/page.jpg", "<html>not found</html>")
    whole = picture("whole", "JPEG", side=64)
    write(gan, "1_fake/cut.jpg", whole[: len(whole) - 40])
    png = picture("whole", "PNG", side=64)
    write(gan, "1_fake/cut.png", png[: len(png) // 2])
    found = check("aigcdetectbenchmark", tmp_path)
    assert counts(found) == {"GAUGAN": (3, 2)}
    assert found["formats"] == {"PNG": 3, "JPEG": 2}
    left = skipped(found)
    assert set(left) == {
        *("GAUGAN/1_fake/empty.jpg", "GAUGAN/1_fake/page.jpg", "GAUGAN/1_fake/cut.jpg"),
        *("GAUGAN/1_fake/cut.png", "teaser.png"),
    }
    assert "empty" in left["GAUGAN/1_fake/empty.jpg"]
    assert "not an image" in left["GAUGAN/1_fake/page.jpg"]
    assert "damaged" in left["GAUGAN/1_fake/cut.jpg"] + left["GAUGAN/1_fake/cut.png"]
    assert "0_real" in left["teaser.png"]
    assert "gaugan" not in found["missing"] and "SDXL" not in found["missing"]


def test_pictures_of_kinds_that_are_not_read_are_named(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    for name, mode in (("c.ppm", "RGB"), ("d.PGM", "L"), ("e.pbm", "1"), ("f.pnm", "RGB")):
        Image.new(mode, (8, 8)).save(tmp_path / name, "PPM")
    Image.new("RGB", (8, 8)).save(tmp_path / "no_ending", "PPM")
    Image.new("RGB", (8, 8)).save(tmp_path / "d.jp2", "JPEG2000")
    Image.new("RGB", (8, 8)).save(tmp_path / "bare", "JPEG2000")
    for ending in ("heic", "HEIF", "jxl", "psd", "svg", "rw2", "PEF", "srw", "nef"):
        write(tmp_path, f"b.{ending}", b"II*\0 any bytes")
    starts = {"ftypheic": "heic", "ftypheix": "heix", "ftypmif1": "mif1"}
    for start, name in starts.items():
        write(tmp_path, name, b"\0\0\0\x18" + start.encode() + bytes(8))
    write(tmp_path, "notes.md", "P4 and P5 are files")
    found = check("folder", tmp_path)
    assert found["formats"] == {"PPM": 5, "JPEG": 1}
    left = skipped(found)
    assert len(left) == 9 + 2 + 3
    assert all("is not read: convert it" in reason for reason in left.values())
    assert "HEIC" in left["heix"] and "JPEG 2000" in left["bare"] and "raw file" in left["b.rw2"]
    told = {item.stored.name: item.problem for item in ImageFolder(tmp_path).items() if item.stored}
    assert {name: problem for name, problem in told.items() if problem} == left


def test_genimage_is_not_read_by_the_alphabet(tmp_path: Path) -> None:
    inner = "Midjourney/imagenet_midjourney"
    put(tmp_path, f"{inner}/train/ai/1.png", f"{inner}/train/ai/2.png", f"{inner}/val/ai/3.png")
    put(tmp_path, f"{inner}/train/nature/n01.JPEG")
    put(tmp_path, "imagenet_ai_0419_sdv4/val/ai/4.png", "imagenet_ai_0419_sdv4/val/nature/5.JPEG")
    found = check("genimage", tmp_path)
    assert counts(found) == {"Midjourney": (1, 3), "stable_diffusion_v_1_4": (1, 1)}
    assert set(found["missing"]) == {
        *("ADM", "BigGAN", "glide", "stable_diffusion_v_1_5", "VQDM", "wukong")
    }
    assert counts(check("genimage", tmp_path / inner)) == {"Midjourney": (1, 3)}
    put(tmp_path, "sd15/imagenet_ai_0424_sdv5/val/ai/1.png")
    put(tmp_path, "sd15/imagenet_ai_0424_sdv5/val/nature/1.png")
    for part in ("", "imagenet_ai_0424_sdv5"):
        part_of = check("genimage", tmp_path / "sd15" / part)
        assert part_of["n_real"] == part_of["n_fake"] == 1 and not set(part_of["missing"]) & {"ADM"}
    assert counts(check("genimage", tmp_path / "sd15")) == {"sd15": (1, 1)}
    below = check("genimage", tmp_path / "imagenet_ai_0419_sdv4")
    assert counts(below) == {"stable_diffusion_v_1_4": (1, 1)}


def test_unbiased_genimage_keeps_one_size_and_quality(tmp_path: Path) -> None:
    def save(name: str, kind: str, side: int, quality: int = 96) -> None:
        path = tmp_path / "wukong" / "imagenet_ai_0424_wukong" / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((side, side), 40).convert("RGB").save(path, kind, quality=quality)

    save("nature/a.JPEG", "JPEG", 500)
    save("nature/b.JPEG", "JPEG", 500, quality=80)
    save("nature/c.JPEG", "JPEG", 300)
    save("ai/a.png", "PNG", 512)
    save("ai/b.png", "PNG", 256)
    found = check("unbiased_genimage", tmp_path)
    assert counts(found) == {"wukong": (1, 1)} and found["missing"] == ["metadata.csv"]
    reasons = {name.split("/val/")[1]: reason for name, reason in skipped(found).items()}
    assert reasons == {
        "nature/b.JPEG": "JPEG quality 80, not 96",
        "nature/c.JPEG": "300 x 300 pixels, not 450 to 550",
        "ai/b.png": "256 x 256 pixels, not 450 to 550",
    }
    items = [i for i in UnbiasedGenImage().scan(str(tmp_path)) if isinstance(i, BenchmarkItem)]
    for item in items:
        assert jpeg_quality(io.BytesIO(item.read_bytes()), item.name) == 96
    columns = "filename,generator,width,height,compression_rate\n"
    rows = "val/nature/b.JPEG,nature,500,500,96\nval/nature/a.JPEG,nature,500,500,75\n"
    write(tmp_path, "metadata.csv", columns + rows)
    found = check("unbiased_genimage", tmp_path)
    assert counts(found) == {"wukong": (1, 1)} and found["missing"] == []
    assert any(name.endswith("a.JPEG") for name in skipped(found))


def test_arforensics(tmp_path: Path) -> None:
    for generator in ("Infinity", "janus_pro", "MAR"):
        put(tmp_path, *(f"test/{generator}/{c}/a.png" for c in ("0_real", "1_fake")))
    put(tmp_path, "train/0_real/a.jpg", "train/1_fake/a.png", "train/1_fake/b.png")
    found = check("arforensics", tmp_path)
    assert counts(found) == {
        **{"Infinity": (1, 1), "janus_pro": (1, 1), "MAR": (1, 1)},
        "LlamaGen": (1, 2),
    }
    assert "Switti" in found["missing"] and "val" in found["missing"]
    assert not {"Janus_Pro", "test", "train"} & set(found["missing"])
    assert counts(check("arforensics", tmp_path / "test" / "MAR")) == {"MAR": (1, 1)}
    assert counts(check("arforensics", tmp_path / "train")) == {"LlamaGen": (1, 2)}
    put(tmp_path, "var/test/MAR/0_real/a.png", "var/test/MAR/1_fake/a.png")
    assert counts(check("arforensics", tmp_path / "var" / "test")) == {"MAR": (1, 1)}


def test_universalfakedetect_counts_a_real_image_once(tmp_path: Path) -> None:
    sets = tmp_path / "diffusion_datasets"
    put(sets, "imagenet/0_real/a.png", "laion/0_real/a.jpg", "laion/0_real/b.jpg")
    put(sets, "guided/1_fake/a.png", "ldm_200/1_fake/a.png", "dalle/1_fake/a.png")
    expected = {"dalle": (0, 1), "guided": (0, 1), "ldm_200": (0, 1)}
    expected |= {"imagenet": (1, 0), "laion": (2, 0)}
    for place in (tmp_path, sets):
        found = check("universalfakedetect", place)
        assert counts(found) == expected
        assert set(found["missing"]) == {
            *("ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10")
        }
    # One generator's folder is judged against the reals that belong to it.
    assert counts(check("universalfakedetect", sets / "guided")) == {
        **{"guided": (0, 1), "imagenet": (1, 0)}
    }
    assert counts(check("universalfakedetect", sets / "dalle")) == {
        **{"dalle": (0, 1), "laion": (2, 0)}
    }
    assert UNIVERSALFAKEDETECT.real_source_of("GUIDED") == "imagenet"
    assert UNIVERSALFAKEDETECT.real_source_of("glide_50_27") == "laion"


def test_chameleon_asks_for_its_two_names(tmp_path: Path) -> None:
    put(tmp_path, "test/0_real/a.jpg", "test/1_fake/a.jpg", "test/1_fake/b.png")
    for place in (tmp_path, tmp_path / "test"):
        assert counts(check("chameleon", place)) == {"chameleon": (1, 2)}
    put(tmp_path / "other", "test/1_real/a.jpg", "test/0_fake/a.jpg")
    found = check("chameleon", tmp_path / "other", code=1)
    assert (found["n_real"], found["n_fake"], len(found["skipped"])) == (0, 0, 2)


def test_synthbuster_needs_raise(tmp_path: Path) -> None:
    fakes = tmp_path / "synthbuster"
    put(fakes, "dalle2/a.png", "SD1.3/a.png", "stable-diffusion-xl/a.png", "Firefly/a.png")
    result = run("check", "synthbuster", fakes)
    assert result.exit_code == 1 and "RAISE-1k" in result.stderr
    assert "RAISE-1k" in check("synthbuster", fakes, code=1)["missing"]
    put(tmp_path, "RAISE-1k/r1.TIF", "RAISE-1k/r2.tif")
    write(tmp_path, "RAISE-1k/r3.NEF", b"II*\0raw")
    for place in (fakes, tmp_path):
        found = check("synthbuster", place)
        assert counts(found) == {
            **{"dalle2": (0, 1), "SD1.3": (0, 1), "stable-diffusion-xl": (0, 1)},
            **{"Firefly": (0, 1), "RAISE-1k": (2, 0)},
        }
        assert found["formats"] == {"PNG": 4, "TIFF": 2}
        assert set(found["missing"]) == {"dalle3", "glide", "midjourney-v5", "SD1.4", "SD2"}
    put(fakes, "holiday/a.png")
    left = skipped(check("synthbuster", fakes))
    assert list(left) == ["holiday/a.png", "../RAISE-1k/r3.NEF"]
    assert "raw file" in left["../RAISE-1k/r3.NEF"]


def test_dmimage(tmp_path: Path) -> None:
    put(tmp_path, *(f"Testset/{n}/img/a.png" for n in ("biggan_256", "dalle_2", "new_gan")))
    put(tmp_path, "Testset/real_coco_valid/img/a.jpg", "Testset/real_ucid/b.tif")
    write(tmp_path, "Testset/biggan_256/biggan_256.csv", "filename,x\na.png,1\n")
    for place in (tmp_path, tmp_path / "Testset"):
        found = check("dmimage", place)
        assert counts(found) == {
            **{"biggan_256": (0, 1), "dalle_2": (0, 1), "new_gan": (0, 1)},
            **{"real_coco_valid": (1, 0), "real_ucid": (1, 0)},
        }
        assert {"real_imagenet_valid", "eg3d"} < set(found["missing"])
        assert not {"biggan_256", "real_ucid"} & set(found["missing"])
    only = check("dmimage", tmp_path / "Testset" / "dalle_2")
    assert counts(only) == {"dalle_2": (0, 1), "real_coco_valid": (1, 0), "real_ucid": (1, 0)}


def test_drct2m(tmp_path: Path) -> None:
    put(tmp_path, "MSCOCO/train2017/1.jpg", "MSCOCO/val2017/2.jpg")
    put(tmp_path, *(f"DRCT-2M/{g}/val2017/2.png" for g in ("sd-turbo", "my-model")))
    put(tmp_path, "DRCT-2M/sd-turbo/train2017/1.png")
    expected = {"MSCOCO": (2, 0), "sd-turbo": (0, 2), "my-model": (0, 1)}
    assert counts(check("drct2m", tmp_path)) == expected
    assert counts(check("drct2m", tmp_path / "DRCT-2M")) == expected
    assert counts(check("drct2m", tmp_path / "DRCT-2M" / "sd-turbo")) == {
        **{"MSCOCO": (2, 0), "sd-turbo": (0, 2)}
    }


def test_sid_set_keeps_three_ways_and_no_masks(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        put(tmp_path / split, "real/a.jpg", "full_synthetic/a.png", "tampered/a.png", "masks/a.png")
    found = check("sid_set", tmp_path)
    assert counts(found) == {"real": (2, 0), "full_synthetic": (0, 2), "tampered": (0, 2)}
    assert found["missing"] == [] and found["skipped"] == []
    assert check("sid_set", tmp_path / "train")["n_fake"] == 2


def test_synthscars_is_all_fake(tmp_path: Path) -> None:
    put(tmp_path, "train/images/a.png", "test/images/b.jpg", "train/annoations/mask.png")
    put(tmp_path, "train/annotations/mask2.png", "train/other/c.png")
    found = check("synthscars", tmp_path)
    assert counts(found) == {"synthscars": (0, 2)}
    assert list(skipped(found)) == ["train/other/c.png"]
    assert counts(check("synthscars", tmp_path / "train" / "images")) == {"synthscars": (0, 1)}


def test_names_in_any_script_stay_apart(tmp_path: Path) -> None:
    names = (
        "\u6a21\u578b\u4e00",
        "\u6a21\u578b\u4e8c",
        "\u041c\u043e\u0434\u0435\u043b\u044c",
        "caf\u00e9",
        "\u0915\u093f",
        "\u0915\u093e",
    )
    assert len({normalised(name) for name in names}) == len(names)
    assert normalised("\U0001f642") != normalised("\U0001f643") != ""
    assert normalised("Stra\u00dfe_1") == normalised("STRASSE 1")
    assert normalised("Cafe\u0301-\uff32") == normalised("caf\u00e9 r")
    assert normalised("Stable_Diffusion-v1.4") == "stablediffusionv14"
    first, second = names[:2]
    put(tmp_path, *(f"{name}/{c}/a.png" for name in names[:2] for c in ("0_real", "1_fake")))
    kinds = find_benchmark("community_forensics").judged_against(first, {first, second})
    assert kinds == [first]
    assert counts(check("community_forensics", tmp_path)) == {first: (1, 1), second: (1, 1)}


def test_community_forensics_folders(tmp_path: Path) -> None:
    put(tmp_path, "wrap/genA/real/a.png", "wrap/genA/fake/a.png", "wrap/genB/Fake/b.png")
    assert counts(check("community_forensics", tmp_path)) == {"genA": (1, 1), "genB": (0, 1)}


@pytest.mark.parametrize("nested", ["test/test", "data/arforensics/test", "x/images"])
def test_doubled_and_wrapped_folders(tmp_path: Path, nested: str) -> None:
    put(tmp_path / nested, "VAR/0_real/0_real/a.png", "VAR/1_fake/1_fake/a.png")
    assert counts(check("arforensics", tmp_path)) == {"VAR": (1, 1)}


def test_one_class_or_contradicting_folders_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "test/progan/1_fake/a.png", "test/progan/1_fake/0_real/b.png")
    found = check("forensynths", tmp_path, code=1)
    assert (found["n_real"], found["n_fake"]) == (0, 1)
    assert "both real and fake" in skipped(found)["test/progan/1_fake/0_real/b.png"]
    assert "without real ones" in run("check", "forensynths", tmp_path).stderr


def test_real_images_linked_into_several_generators_are_each_one_s(tmp_path: Path) -> None:
    put(tmp_path, "coco/a.png", "coco/b.png", "set/genC/0_real/c.png", "set/genD/0_real/d.png")
    for name in ("genA", "genB", "genC", "genD", "genE"):
        put(tmp_path / "set", f"{name}/1_fake/a.png")
    for name in ("genA", "genB"):
        (tmp_path / "set" / name / "0_real").symlink_to(tmp_path / "coco")
    (tmp_path / "set/genE/0_real").symlink_to("../genC/0_real")
    (tmp_path / "set/genD/0_real/e.png").symlink_to(tmp_path / "coco/a.png")
    found = check("community_forensics", tmp_path / "set")
    assert counts(found) == {
        **{"genA": (2, 1), "genB": (2, 1), "genC": (1, 1), "genD": (2, 1), "genE": (1, 1)}
    }
    listed = list(items(find_benchmark("community_forensics"), str(tmp_path / "set")))
    reals = [item for item in listed if isinstance(item, BenchmarkItem) and not item.is_fake]
    assert len({item.key for item in reals}) == 8
    assert {item.name: item.original for item in reals} == {
        **{f"gen{g}/0_real/{n}.png": f"{tmp_path}/coco/{n}.png" for g in "AB" for n in "ab"},
        **{"genC/0_real/c.png": "", "genE/0_real/c.png": "genC/0_real/c.png"},
        **{"genD/0_real/d.png": "", "genD/0_real/e.png": f"{tmp_path}/coco/a.png"},
    }


def test_a_folder_is_not_walked_below_itself(tmp_path: Path) -> None:
    put(tmp_path, "store/progan/0_real/a.png", "store/progan/1_fake/a.png")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "progan" / "1_fake" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = check("forensynths", tmp_path / "set")
    assert counts(found) == {"progan": (1, 1)}
    assert "no such file" in skipped(found)["test/progan/1_fake/gone.png"]
