"""The table of sets whose folders say the class."""

from __future__ import annotations

import re

from unigendet.data.benchmarks.tree import TreeLayout

_REAL = frozenset(("0real", "real"))
_FAKE = frozenset(("1fake", "fake"))


def _names(text: str) -> dict[str, tuple[str, ...]]:
    """Generators, separated by blanks; `a|b|c` are spellings of one, the first as published."""
    return {name: tuple(others) for name, *others in (word.split("|") for word in text.split())}


ARFORENSICS = TreeLayout(
    "arforensics",
    _REAL,
    _FAKE,
    generators=_names("Infinity Janus_Pro RAR Switti VAR LlamaGen Open_MAGVIT2"),
    split_generators={"train": "LlamaGen", "val": "LlamaGen"},
    nearest=True,
)
"""`{train,val}/{0_real,1_fake}`, made by LlamaGen; `test/{generator}/{0_real,1_fake}`. An early
upload has MAR where Switti belongs: MAR is then read under its own name and Switti is missing."""

FORENSYNTHS = TreeLayout(
    "forensynths",
    _REAL,
    _FAKE,
    generators=_names(
        "progan|progan_train|progan_val stylegan biggan cyclegan stargan gaugan deepfake "
        "seeingdark san crn imle stylegan2 whichfaceisreal"
    ),
    split_generators={"train": "progan", "val": "progan"},
    any_class_inside=True,
)
"""`test/{generator}/[class/]{0_real,1_fake}`; the published training images are ProGAN's, in class
folders without its name."""

AIGCDETECT = TreeLayout(
    "aigcdetectbenchmark",
    _REAL,
    _FAKE,
    generators=_names(
        "progan stylegan biggan cyclegan stargan gaugan stylegan2 whichfaceisreal ADM Glide "
        "Midjourney stable_diffusion_v_1_4|sdv14 stable_diffusion_v_1_5|sdv15 VQDM wukong "
        "DALLE2 SDXL|sd_xl"
    ),
    any_class_inside=True,
)
"""`{generator}/[class/]{0_real,1_fake}`; SDXL was added later and is not missed."""

GENIMAGE = TreeLayout(
    "genimage",
    frozenset(("nature",)),
    frozenset(("ai",)),
    generators=_names(
        "ADM BigGAN glide Midjourney stable_diffusion_v_1_4|sdv14|sd14|sdv4|stable_diffusion_14 "
        "stable_diffusion_v_1_5|sdv15|sd15|sdv5|stable_diffusion_15 VQDM wukong"
    ),
    inner={
        "imagenetai0419sdv4": "stable_diffusion_v_1_4",
        "imagenetai0424sdv5": "stable_diffusion_v_1_5",
        "imagenetmidjourney": "Midjourney",
        "imagenetai0508adm": "ADM",
        "imagenetai0424wukong": "wukong",
        "imagenetglide": "glide",
        "imagenetai0419vqdm": "VQDM",
        "imagenetai0419biggan": "BigGAN",
    },
)
"""`{generator}/{inner}/{train,val}/{ai,nature}`: ai is fake, although it comes first."""

UNIVERSALFAKEDETECT = TreeLayout(
    "universalfakedetect",
    _REAL,
    _FAKE,
    generators=_names(
        "guided ldm_200 ldm_200_cfg ldm_100 glide_100_27 glide_50_27 glide_100_10 dalle "
        "imagenet laion"
    ),
    companions=re.compile("imagenet|laion"),
    pairs={"guided": "imagenet", "*": "laion"},
    nearest=True,
)
"""`diffusion_datasets/{generator}/1_fake`, and the reals in `{imagenet,laion}/0_real`: `guided` is
judged against imagenet, all others against laion (`pairs`). A real image is counted once, under
the name of its source."""

CHAMELEON = TreeLayout(
    "chameleon", frozenset(("0real",)), frozenset(("1fake",)), default_generator="chameleon"
)
"""`test/{0_real,1_fake}`, with no other folder names. Nothing tells the generators."""

SYNTHBUSTER = TreeLayout(
    "synthbuster",
    real_source=re.compile("reals?|0real|.*raise.*"),
    generators=_names(
        "dalle2 dalle3 firefly glide midjourney-v5|midjourney5 SD1.3|stable-diffusion-1-3|sdv13 "
        "SD1.4|stable-diffusion-1-4|sdv14 SD2|stable-diffusion-2|sdv2|sd20 "
        "SDXL|stable-diffusion-xl|sd-xl"
    ),
    fakes_without_class="known",
    companions=re.compile("(real)?raise.*"),
)
"""One folder of fakes per generator. The reals, RAISE-1k, come apart: put them into a folder whose
name has RAISE in it, in the set or beside it."""

DRCT2M = TreeLayout(
    "drct2m",
    real_source=re.compile("(ms)?coco(2014|2017)?"),
    generators=_names(
        "ldm-text2im-large-256 stable-diffusion-v1-4 stable-diffusion-v1-5 stable-diffusion-2-1 "
        "stable-diffusion-xl-base-1.0 stable-diffusion-xl-refiner-1.0 sd-turbo sdxl-turbo "
        "lcm-lora-sdv1-5 lcm-lora-sdxl sd-controlnet-canny sd21-controlnet-canny "
        "controlnet-canny-sdxl-1.0|sdxl-controlnet-canny-1.0 stable-diffusion-inpainting "
        "stable-diffusion-2-inpainting stable-diffusion-xl-1.0-inpainting-0.1"
    ),
    fakes_without_class="any",
    companions=re.compile("(ms)?coco(2014|2017)?"),
)
"""Real `MSCOCO/{train2017,val2017}`, fake `DRCT-2M/{generator}/{train2017,val2017}`: the 16 class
numbers of the paper are one class, fake."""

DMIMAGE = TreeLayout(
    "dmimage",
    real_source=re.compile("real.*"),
    generators=_names(
        "biggan_256 biggan_512 dalle-mini_valid dalle_2 eg3d glide_text2img_valid "
        "guided-diffusion_class2image_ImageNet guided-diffusion_noise2image_LSUNbedrooms "
        "guided-diffusion_noise2image_LSUNcats guided-diffusion_noise2image_LSUNhorses "
        "latent-diffusion_class2image_ImageNet latent-diffusion_noise2image_FFHQ "
        "latent-diffusion_noise2image_LSUNbedrooms latent-diffusion_noise2image_LSUNchurches "
        "latent-diffusion_text2img_valid progan_lsun stable_diffusion_256 "
        "stylegan2_afhqv2_512x512 stylegan2_ffhq_1024x1024 stylegan2_ffhq_256x256 "
        "stylegan2_lsundog_256x256 stylegan3_r_afhqv2_512x512 stylegan3_r_ffhqu_1024x1024 "
        "stylegan3_r_ffhqu_256x256 stylegan3_t_afhqv2_512x512 stylegan3_t_ffhqu_1024x1024 "
        "stylegan3_t_ffhqu_256x256 taming-transformers_class2image_ImageNet "
        "taming-transformers_noise2image_FFHQ taming-transformers_segm2image_valid"
    ),
    fakes_without_class="any",
    companions=re.compile("real(coco|imagenet|ucid).*"),
)
"""`Testset/{folder}/img`: `real_*` folders are real, all others fake. The CSV files, with a crop
box and a JPEG quality per image, are the paper's post-processing and are not applied."""

SID_SET = TreeLayout(
    "sid_set",
    frozenset(("real",)),
    frozenset(("fullsynthetic", "tampered")),
    class_is_generator=True,
)
"""`{train,validation}/{real,full_synthetic,tampered,masks}`: tampered is fake, and is kept apart
by name; masks are no images."""

SYNTHSCARS = TreeLayout(
    "synthscars", only_below="images", all_fake=True, default_generator="synthscars"
)
"""`{train,test}/{images,annoations}` (sic): fakes only."""

COMMUNITY_FORENSICS = TreeLayout("community_forensics", _REAL, _FAKE, nearest=True)
"""The local form, `{generator}/{real,fake}`."""
