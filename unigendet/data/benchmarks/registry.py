"""Every set that can be read, by name: one row each."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from unigendet.data.benchmarks import layouts, rows
from unigendet.data.benchmarks.base import BenchmarkError, Layout, normalised
from unigendet.data.benchmarks.fakeclue import FakeClue
from unigendet.data.benchmarks.folder import Folder
from unigendet.data.benchmarks.laion import METADATA as LAION_METADATA
from unigendet.data.benchmarks.laion import Laion
from unigendet.data.benchmarks.loki import QUESTIONS, Loki
from unigendet.data.benchmarks.manifest import Manifest
from unigendet.data.benchmarks.tree import TreeLayout
from unigendet.data.benchmarks.unbiased import METADATA, UnbiasedGenImage


@dataclass(frozen=True)
class Expected:
    """What the published set has, to say what a folder lacks."""

    generators: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    """`train`, `val`, `test`; asked for only where the folder given is above the splits."""
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    reals: tuple[str, ...] = ()
    """Sources of real images, where they lie apart."""


@dataclass(frozen=True)
class Benchmark:
    """A set: how to read it, what belongs to it, where it comes from."""

    name: str
    title: str
    layout: Layout
    on_disk: str
    native: str
    """The set's own labels."""
    expected: Expected = Expected()
    one_class: bool = False
    """Real or fake only, by the set's nature."""
    paper: str = ""
    """arXiv number."""
    licence: str = "not stated"

    def judged_against(self, generator: str, reals: Collection[str]) -> list[str]:
        """The names, of those that real images carry, that a generator's fakes stand against: its
        own where its folder has reals, else the source that the set pairs it with, else all."""
        layout = self.layout
        source = layout.real_source_of(generator) if isinstance(layout, TreeLayout) else None
        for name in (generator, source):
            own = [real for real in reals if name and normalised(real) == normalised(name)]
            if own:
                return own
        return sorted(reals)


def _published(layout: TreeLayout, *optional: str) -> tuple[str, ...]:
    return tuple(name for name in layout.generators if name not in optional)


_ROWS = (
    Benchmark(
        "fakeclue",
        "FakeClue: categories, with explanations",
        FakeClue(),
        "{train,test}/{category}/{fake,real}/[sub]/, data_json/{train,test}.json",
        "1 = real, 0 = fake",
        Expected(splits=("train", "test"), files=("data_json/train.json", "data_json/test.json")),
        paper="2503.14905",
        licence="Apache-2.0",
    ),
    Benchmark(
        "dmimage",
        "DMimage: GANs and diffusion models",
        layouts.DMIMAGE,
        "Testset/{folder}/img/; real_* folders are real",
        "folder",
        Expected(
            _published(layouts.DMIMAGE),
            reals=("real_coco_valid", "real_imagenet_valid", "real_ucid"),
        ),
        paper="2211.00680",
        licence="GRIP-UNINA, non-profit",
    ),
    Benchmark(
        "arforensics",
        "ARForensics: autoregressive generators",
        layouts.ARFORENSICS,
        "{train,val}/{0_real,1_fake}/, test/{generator}/{0_real,1_fake}/",
        "1 = fake",
        Expected(_published(layouts.ARFORENSICS), ("train", "val", "test")),
        paper="2510.05891",
        licence="MIT",
    ),
    Benchmark(
        "genimage",
        "GenImage: eight generators",
        layouts.GENIMAGE,
        "{generator}/{inner}/{train,val}/{ai,nature}/",
        "folder: ai = fake, nature = real",
        Expected(_published(layouts.GENIMAGE), ("train", "val")),
        paper="2306.08571",
        licence="CC BY-NC-SA 4.0",
    ),
    Benchmark(
        "unbiased_genimage",
        "Unbiased GenImage: 450 to 550 pixels, JPEG quality 96",
        UnbiasedGenImage(),
        "GenImage's folders and metadata.csv",
        "folder: ai = fake, nature = real",
        Expected(files=(METADATA,)),
        paper="2403.17608",
        licence="as GenImage",
    ),
    Benchmark(
        "forensynths",
        "ForenSynths (CNNDetection): GANs and others",
        layouts.FORENSYNTHS,
        "test/{generator}/[class/]{0_real,1_fake}/",
        "1 = fake",
        Expected(_published(layouts.FORENSYNTHS)),
        paper="1912.11035",
        licence="CC BY-NC-SA",
    ),
    Benchmark(
        "aigcdetectbenchmark",
        "AIGCDetectBenchmark: 16 generators",
        layouts.AIGCDETECT,
        "{generator}/[class/]{0_real,1_fake}/",
        "1 = fake",
        Expected(_published(layouts.AIGCDETECT, "SDXL")),
        paper="2311.12397",
    ),
    Benchmark(
        "universalfakedetect",
        "UniversalFakeDetect: diffusion models",
        layouts.UNIVERSALFAKEDETECT,
        "diffusion_datasets/{imagenet,laion}/0_real/, diffusion_datasets/{generator}/1_fake/",
        "1 = fake",
        Expected(
            _published(layouts.UNIVERSALFAKEDETECT, "imagenet", "laion"),
            reals=("imagenet", "laion"),
        ),
        paper="2302.10174",
    ),
    Benchmark(
        "chameleon",
        "Chameleon (AIDE): images that deceive people",
        layouts.CHAMELEON,
        "test/{0_real,1_fake}/",
        "1 = fake",
        Expected(splits=("test",)),
        paper="2406.19435",
        licence="by e-mail, academic",
    ),
    Benchmark(
        "loki",
        "LOKI: the image part",
        Loki(),
        "media_data/image/, data_json/image/true_or_false.json",
        "question_type, image_{real,fake}; never the answer",
        Expected(files=QUESTIONS[:1]),
        paper="2410.09732",
        licence="Apache-2.0",
    ),
    Benchmark(
        "synthbuster",
        "Synthbuster, with RAISE-1k as the reals",
        layouts.SYNTHBUSTER,
        "{generator}/*.png; RAISE-1k/ in it or beside it",
        "folder",
        Expected(_published(layouts.SYNTHBUSTER), reals=("RAISE-1k",)),
        licence="CC BY-NC-SA 4.0",
    ),
    Benchmark(
        "community_forensics",
        "Community Forensics: thousands of generators",
        rows.Either(layouts.COMMUNITY_FORENSICS, rows.COMMUNITY_FORENSICS),
        "*.parquet with the images inside, or {generator}/{real,fake}/",
        "1 = fake",
        paper="2411.04125",
        licence="CC BY 4.0; Small and Eval CC BY-NC-SA 4.0",
    ),
    Benchmark(
        "openfake",
        "OpenFake: recent generators",
        rows.OPENFAKE,
        "{core,reddit}/*.parquet with the images inside",
        "the words real and fake",
        Expected(splits=("train", "val", "test"), folders=("core", "reddit")),
        paper="2509.09495",
        licence="CC BY-NC 4.0",
    ),
    Benchmark(
        "drct2m",
        "DRCT-2M: diffusion models and MSCOCO",
        layouts.DRCT2M,
        "MSCOCO/{train2017,val2017}/, DRCT-2M/{generator}/{train2017,val2017}/",
        "0 = real, 1 to 16 = fake",
        Expected(_published(layouts.DRCT2M), ("train", "val"), reals=("MSCOCO",)),
        licence="not found",
    ),
    Benchmark(
        "sid_set",
        "SID-Set (SIDA): whole and tampered",
        rows.Either(layouts.SID_SET, rows.SID_SET),
        "{train,validation}/{real,full_synthetic,tampered,masks}/, or *.parquet",
        "real, full_synthetic, tampered; the last two = fake",
        Expected(("full_synthetic", "tampered"), ("train", "val"), reals=("real",)),
        paper="2412.04292",
        licence="see its page",
    ),
    Benchmark(
        "synthscars",
        "SynthScars (LEGION): fakes with marked flaws",
        layouts.SYNTHSCARS,
        "{train,test}/{images,annoations}/ (sic)",
        "all fake",
        Expected(splits=("train", "test")),
        one_class=True,
        paper="2503.15264",
    ),
    Benchmark(
        "opensdi",
        "OpenSDI: whole and partial diffusion images",
        rows.OPENSDI,
        "*.parquet with the images inside, {generator}-00000-of-00019.parquet",
        "1 = fake",
        paper="2503.19653",
        licence="CC BY-SA 4.0",
    ),
    Benchmark(
        "manifest",
        "your own table of images and classes",
        Manifest(),
        "CSV, TSV, JSON, JSONL or parquet with the columns path and label",
        "1, true, fake = fake; 0, false, real = real",
        licence="yours",
    ),
    Benchmark(
        "parquet",
        "your own parquet files with the images inside, for training",
        rows.OWN,
        "*.parquet with a column of image bytes; without a column label all are real",
        "1, true, fake = fake; 0, false, real = real",
        one_class=True,
        licence="yours",
    ),
    Benchmark(
        "folder",
        "your own folder: class folders, or captioned photographs",
        Folder(),
        "{0_real,1_fake}/, {real,fake}/, {nature,ai}/ ...; without class folders all are real",
        "folder",
        licence="yours",
    ),
    Benchmark(
        "laion",
        "LAION downloads, for training",
        Laion(),
        f"images/ and {LAION_METADATA}; or img2dataset's tars, parquet files or folders",
        "all real",
        one_class=True,
        licence="links only",
    ),
)
BENCHMARKS = {row.name: row for row in _ROWS}


def find_benchmark(name: str) -> Benchmark:
    """The set called `name`. Raises BenchmarkError that names the nearest ones."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), BENCHMARKS, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise BenchmarkError(f"there is no set {name!r}: {hint}known are {', '.join(BENCHMARKS)}")
