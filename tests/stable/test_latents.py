import math

import pytest
import torch
from tiny_pipeline import TINY

from hopfield_cl.data.scenes import scenes
from hopfield_cl.diffusion.energies import denoising_energy, flow_energy
from hopfield_cl.stable.latents import (
    as_denoiser,
    decode,
    encode,
    generate,
    reconstruct,
    reconstruction_error,
    sampling_times,
)
from hopfield_cl.stable.pipelines import latent_shape, new_pipeline

PROMPTS = ["a red star", "a small circle, top", ""]


@pytest.fixture(scope="module")
def pipeline():
    made = new_pipeline(TINY, seed=0)
    made.vae.register_to_config(scaling_factor=1.7)
    return made


@pytest.fixture(scope="module")
def images():
    return scenes(3, seed=0, size=16).images


@pytest.fixture
def noise(pipeline):
    return torch.randn(3, *latent_shape(pipeline), generator=seeded(1))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Knowing(torch.nn.Module):
    """A U-Net that knows the one clean latent and so finds the noise exactly."""

    def __init__(self, unet, scheduler, clean):
        super().__init__()
        self.config, self.device, self.dtype = unet.config, unet.device, unet.dtype
        self.kept, self.clean = scheduler.alphas_cumprod, clean

    def forward(self, noisy, time, condition, return_dict):
        kept = self.kept[time].reshape(-1, 1, 1, 1)
        return ((noisy - kept.sqrt() * self.clean) / (1 - kept).sqrt(),)


@pytest.fixture
def knowing(pipeline, images):
    """The pipeline with such a U-Net, and the latent."""
    made = new_pipeline(TINY, seed=0)
    clean = encode(pipeline, images)[:1]
    made.register_modules(unet=Knowing(made.unet, made.scheduler, clean))
    return made, clean


def halved():
    made = new_pipeline(TINY, seed=0)
    return made.to(torch.bfloat16)


# Images and latents


def test_latents_are_the_autoencoders_means_times_its_scaling_factor(pipeline, images):
    latents = encode(pipeline, images, batch_size=2)
    assert latents.shape == (3, *latent_shape(pipeline))
    with torch.no_grad():
        expected = 1.7 * pipeline.vae.encode(images).latent_dist.mean
        shown = pipeline.vae.decode(expected / 1.7).sample.clamp(-1, 1)
    torch.testing.assert_close(latents, expected)
    torch.testing.assert_close(decode(pipeline, latents), shown)


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        (torch.zeros(2, 3, 8, 8), ValueError, r"images must have shape \(N, 3, 16, 16\)"),
        (torch.zeros(0, 3, 16, 16), ValueError, "N at least 1"),
        (torch.zeros(3, 16, 16), ValueError, "images must have shape"),
        (torch.full((1, 3, 16, 16), math.nan), ValueError, "images must be finite"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), TypeError, "floating-point dtype"),
        (None, TypeError, "images must be a torch.Tensor"),
    ],
)
def test_images_of_another_size_or_kind_are_refused(pipeline, bad, error, said):
    with pytest.raises(error, match=said):
        encode(pipeline, bad)


# Drawing


def test_an_image_is_drawn_in_as_many_steps_as_there_are_noise_levels(pipeline):
    own = pipeline.scheduler
    levels = own.config.num_train_timesteps
    drawn = generate(
        pipeline, ["a circle"], generator=torch.Generator().manual_seed(0), steps=levels
    )
    assert drawn.isfinite().all()
    assert pipeline.scheduler is own
    with pytest.raises(ValueError, match=f"steps must be at most {levels}"):
        generate(pipeline, ["a circle"], generator=torch.Generator(), steps=levels + 1)


def test_what_is_drawn_depends_on_prompt_and_generator_only(pipeline):
    first = generate(pipeline, PROMPTS, generator=seeded(0), steps=2)
    again = generate(pipeline, PROMPTS, generator=seeded(0), steps=2, batch_size=2)
    assert first.shape == (3, 3, 16, 16)
    assert first.abs().max() <= 1
    torch.testing.assert_close(first, again, atol=1e-5, rtol=0)
    other = generate(pipeline, PROMPTS, generator=seeded(1), steps=2)
    assert not torch.allclose(first, other, atol=1e-3)


def test_the_package_draws_what_the_pipeline_itself_draws(pipeline):
    noise = torch.randn(3, *latent_shape(pipeline), generator=seeded(0))
    shown = pipeline(
        PROMPTS, latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="pt"
    ).images
    drawn = generate(pipeline, PROMPTS, generator=seeded(0), steps=3)
    torch.testing.assert_close((drawn + 1) / 2, shown, atol=1e-5, rtol=0)


# Reconstruction


def test_a_network_that_knows_the_latent_brings_it_back_from_any_time(knowing, noise):
    pipeline, clean = knowing
    assert sampling_times(pipeline, 25)[0] == 999
    for time in (39, 519, 999):
        found = reconstruct(pipeline, clean, ["a star"], time, noise=noise[:1])
        torch.testing.assert_close(found, clean, atol=2e-4, rtol=0)


def test_a_halved_network_undoes_noise_at_the_levels_of_full_precision(images, noise):
    made = halved()
    latents = encode(made, images)
    kept = made.scheduler.alphas_cumprod
    seen = []
    hook = made.unet.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found = reconstruct(made, latents, PROMPTS, 199, noise=noise, steps=5)
    hook.remove()
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    expected = kept[199].sqrt() * latents.float() + (1 - kept[199]).sqrt() * noise
    torch.testing.assert_close(seen[0], expected.bfloat16())


def test_the_error_is_that_of_the_reconstruction_at_each_time(pipeline, images, noise):
    latents, options = encode(pipeline, images), {"noise": noise, "steps": 5}
    errors = reconstruction_error(pipeline, latents, PROMPTS, [199, 599], batch_size=2, **options)
    found = reconstruct(pipeline, latents, PROMPTS, 599, **options)
    expected = (found - latents).square().mean((1, 2, 3))
    torch.testing.assert_close(errors[1], expected, rtol=1e-4, atol=1e-6)
    assert errors.shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time": 500}, "time must be one of 999, 799"),
        ({"steps": 7}, "steps must divide the pipeline's 1000"),
        ({"prompts": PROMPTS[:2]}, "must be as many, but are 3, 3 and 2"),
        ({"noise": torch.zeros(3, 4, 2, 2)}, "noise must have shape"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_a_reconstruction_that_does_not_fit_is_refused(pipeline, noise, change, said):
    asked = {"prompts": PROMPTS, "time": 199, "noise": noise, "steps": 5} | change
    prompts, time = asked.pop("prompts"), asked.pop("time")
    with pytest.raises(ValueError, match=said):
        reconstruct(pipeline, noise, prompts, time, **asked)


def test_an_error_at_no_time_is_refused(pipeline, noise):
    with pytest.raises(ValueError, match="at least one noise time"):
        reconstruction_error(pipeline, noise, PROMPTS, [], noise=noise)


# Energies


def test_a_network_that_knows_the_latent_is_the_exact_denoiser(knowing, noise):
    pipeline, clean = knowing
    x = (clean + 0.5 * noise).flatten(1)
    # Between whole times the schedule of the test's network is read at the next one below.
    level = 1 / pipeline.scheduler.alphas_cumprod[300].double() - 1
    found = as_denoiser(pipeline, "a star")
    pipeline.unet.register_forward_pre_hook(
        lambda _, given: (given[0], given[1].round().long(), given[2])
    )
    denoised = found(x, level.sqrt().item())
    torch.testing.assert_close(denoised, clean.flatten(1).expand_as(x), atol=1e-3, rtol=0)


def test_the_energies_of_chapter_nine_take_the_pipeline_as_their_denoiser(pipeline, images):
    latents = encode(pipeline, images).flatten(1)
    denoiser, sigmas = as_denoiser(pipeline), (0.2, 5.0)
    energies = (
        flow_energy(latents, denoiser, sigmas=sigmas, steps=2, generator=seeded(0)),
        denoising_energy(
            latents, denoiser, sigmas=sigmas, levels=2, noises=2, generator=seeded(0)
        ).value,
    )
    for energy in energies:
        assert energy.shape == (3,)
        assert energy.isfinite().all()
