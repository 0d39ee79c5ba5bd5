"""Guidance and Euler steps against their formulas."""

from __future__ import annotations

import pytest
import torch

from unigendet.data.packing import ImageItem, TextItem
from unigendet.inference import UniGenDet
from unigendet.sampling import (
    Guidance,
    Renorm,
    SamplerConfig,
    flow_steps,
    guidance_contexts,
    guided_velocity,
)

PICTURE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(9)) * 2 - 1
SHAPES = [(2, 2), (4, 3)]
IMAGES = torch.tensor([0] * 4 + [1] * 12)


def _velocities() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    cond, text, image = (torch.randn(16, 5, generator=generator) for _ in range(3))
    return cond, text, image


def test_timesteps_run_from_noise_to_data() -> None:
    plain = SamplerConfig(steps=4, timestep_shift=1.0).timesteps()
    torch.testing.assert_close(plain, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    shifted = SamplerConfig(steps=4, timestep_shift=3.0).timesteps()
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))


@pytest.mark.parametrize("renorm", ["image", "global", "channel", "text_channel"])
def test_guidance_never_lengthens(renorm: Renorm) -> None:
    cond, text, image = _velocities()
    guided = guided_velocity(cond, text, image, IMAGES, Guidance(4.0, 1.0, renorm=renorm))
    straight = text + 4 * (cond - text)
    cosine = torch.cosine_similarity(guided, straight)
    torch.testing.assert_close(cosine, torch.ones(16))  # every token keeps its direction
    assert guided.norm() <= cond.norm() * (1 + 1e-6)


def test_renorm_per_image_does_not_couple_images() -> None:
    cond, text, image = _velocities()
    changed = cond.clone()
    changed[4:] *= 100
    for renorm, coupled in (("image", False), ("global", True), ("channel", False)):
        guidance = Guidance(4.0, 1.0, renorm=renorm)  # type: ignore[arg-type]
        before = guided_velocity(cond, text, image, IMAGES, guidance)[:4]
        after = guided_velocity(changed, text, image, IMAGES, guidance)[:4]
        assert torch.allclose(before, after) is not coupled, renorm
    one = torch.zeros(16, dtype=torch.int64)
    for left, right in (("image", "global"),):  # the same thing for a single image
        torch.testing.assert_close(
            *(
                guided_velocity(cond, text, image, one, Guidance(4.0, 1.5, renorm=kind))
                for kind in (left, right)
            )
        )


def test_renorm_min_keeps_a_share_of_the_length() -> None:
    cond, text, image = _velocities()
    straight = text + 50 * (cond - text)
    guided = guided_velocity(cond, text, image, IMAGES, Guidance(50.0, 1.0, renorm_min=0.9))
    torch.testing.assert_close(guided, straight * 0.9)


def test_image_guidance_is_the_second_step_away() -> None:
    cond, text, image = _velocities()
    off = Guidance(3.0, 1.0, renorm="global", renorm_min=1.0)
    on = Guidance(3.0, 1.5, renorm="global", renorm_min=1.0)  # renorm_min 1: no shortening
    a = text + 3 * (cond - text)
    torch.testing.assert_close(guided_velocity(cond, text, image, IMAGES, off), a)
    torch.testing.assert_close(
        guided_velocity(cond, text, image, IMAGES, on), image + 1.5 * (a - image)
    )


def test_steps_are_euler_steps(small: UniGenDet) -> None:
    markers = small.tokenizer.markers
    items = [[TextItem([5, 6])], [TextItem([7])]]
    contexts = guidance_contexts(small.model, small.vae, markers, items)
    noise = torch.randn(16, 16, generator=torch.Generator().manual_seed(2))
    config = SamplerConfig(5, 2.0, Guidance(3.0, interval=(0.5, 0.9)))
    before = contexts.cond.lengths.tolist(), contexts.text.lengths.tolist()
    steps = list(flow_steps(small.model, markers, contexts, noise, SHAPES, config))
    assert (contexts.cond.lengths.tolist(), contexts.text.lengths.tolist()) == before
    times = config.timesteps()
    x = noise
    for step, t, t_next in zip(steps, times, times[1:], strict=False):
        assert step.t == pytest.approx(float(t))
        torch.testing.assert_close(step.x_t, x)
        x = x - step.velocity * (t - t_next)
        torch.testing.assert_close(step.x_next, x)
        assert (step.text is not None) is (0.5 < float(t) <= 0.9)
        if step.text is None:
            torch.testing.assert_close(step.velocity, step.cond)
    assert any(step.text is not None for step in steps)
    assert any(step.text is None for step in steps)


def test_guidance_off_is_the_conditional_flow(small: UniGenDet) -> None:
    markers = small.tokenizer.markers
    contexts = guidance_contexts(small.model, small.vae, markers, [[TextItem([5, 6])]])
    noise = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))

    def result(guidance: Guidance) -> torch.Tensor:
        config = SamplerConfig(3, 1.0, guidance)
        return list(flow_steps(small.model, markers, contexts, noise, [(2, 2)], config))[-1].x_next

    plain = result(Guidance(1.0))
    torch.testing.assert_close(result(Guidance(1.0, image_scale=4.0)), plain)
    torch.testing.assert_close(result(Guidance(5.0, interval=(0.0, 0.0))), plain)
    assert not torch.allclose(result(Guidance(5.0)), plain)


def test_contexts_of_terms(small: UniGenDet) -> None:
    """Text guidance leaves the last text out, image guidance every image."""
    text, vae, vit = TextItem([5, 6, 7]), ImageItem("vae", PICTURE), ImageItem("vit", PICTURE)
    image = 2 * (2 + 4)  # 2 x 2 latent patches, 2 x 2 ViT patches, markers
    cases = [
        ([text], [5, 0, None]),
        ([vae, vit, text], [image + 5, image, 5]),
        ([text, vae, vit], [image + 5, image + 5, 5]),
        ([text, vae, vit, text], [image + 10, image + 5, 10]),
        ([], [0, 0, None]),
    ]
    for items, lengths in cases:
        contexts = guidance_contexts(small.model, small.vae, small.tokenizer.markers, [items])
        found = [contexts.cond, contexts.text, contexts.image]
        assert [None if c is None else int(c.lengths) for c in found] == lengths
    together = guidance_contexts(
        small.model, small.vae, small.tokenizer.markers, [items for items, _ in cases]
    )
    assert together.cond.lengths.tolist() == [lengths[0] for _, lengths in cases]
    assert together.image is not None and together.image.lengths.tolist() == [5, 5, 5, 10, 0]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="interval"):
        Guidance(interval=(0.8, 0.2))
    with pytest.raises(ValueError, match="renorm_min"):
        Guidance(renorm_min=2.0)
    with pytest.raises(ValueError, match="at least 1 step"):
        SamplerConfig(steps=0)
    with pytest.raises(ValueError, match="timestep_shift"):
        SamplerConfig(timestep_shift=0.0)
