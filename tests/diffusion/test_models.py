import math

import numpy as np
import pytest
import torch

from hopfield_cl.denoising import denoise
from hopfield_cl.diffusion.models import DiffusionModel, ModelConfig, new_model
from hopfield_cl.diffusion.noise import as_denoiser, noise_levels, time_at

SMALL = {"image_size": 8, "patch": 2, "widths": (8, 16), "groups": 4}
PREDICTIONS = ["epsilon", "v_prediction", "sample"]


def a_batch(model, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean = 2 * torch.rand(count, *model.config.image_shape, generator=generator) - 1
    noise = torch.randn(clean.shape, generator=generator)
    return clean, noise, torch.randint(1000, (count,), generator=generator)


class Oracle(DiffusionModel):
    """A model that predicts exactly what it should for data with one point."""

    def __init__(self, point, prediction):
        super().__init__(ModelConfig(**SMALL, prediction=prediction))
        self.point = point

    def forward(self, noisy, timesteps):
        levels = noise_levels(self).log().numpy()
        sigma = np.exp(np.interp(timesteps.numpy(), np.arange(len(levels)), levels))
        sigma = torch.from_numpy(sigma).to(noisy.dtype)[:, None, None, None]
        alpha = (1 + sigma**2).rsqrt()
        noise = (noisy / alpha - self.point) / sigma
        return {
            "epsilon": noise,
            "sample": self.point.expand_as(noisy),
            "v_prediction": alpha * (noise - sigma * self.point),
        }[self.config.prediction]


# Models


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_model_gives_back_images_of_the_shape_it_gets(patch, prediction):
    model = new_model(ModelConfig(**SMALL | {"patch": patch}, prediction=prediction), seed=0)
    clean, _, times = a_batch(model)
    assert model(clean, times).shape == clean.shape


def test_colour_attention_and_one_time_for_all_images_work():
    model = new_model(ModelConfig(**SMALL, channels=3, attention=(1,)), seed=0).eval()
    clean, _, _ = a_batch(model)
    for_all = model(clean, torch.tensor(7))
    torch.testing.assert_close(for_all, model(clean, torch.full((3,), 7)))
    assert "AttnDownBlock2D" in model.unet.config.down_block_types


def test_the_seed_decides_the_weights_and_leaves_the_default_generator_alone():
    before = torch.get_rng_state()
    first, same, other = (new_model(ModelConfig(**SMALL), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    values = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, same, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_together_with_the_noisy_image_gives_back_the_clean_one(prediction):
    model = new_model(ModelConfig(**SMALL, prediction=prediction), seed=0)
    clean, noise, times = a_batch(model)
    noisy = model.scheduler.add_noise(clean, noise, times)
    target = model.target(clean, noise, times)
    alpha = model.scheduler.alphas_cumprod[times].sqrt()[:, None, None, None]
    rest = (1 - alpha**2).sqrt()
    recovered = {
        "epsilon": (noisy - rest * target) / alpha,
        "sample": target,
        "v_prediction": alpha * noisy - rest * target,
    }[prediction]
    torch.testing.assert_close(recovered, clean, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"image_size": 0}, ValueError, "image_size must be at least 1"),
        ({"image_size": 10}, ValueError, "image_size must be a multiple of 4"),
        ({"channels": 1.0}, TypeError, "channels must be an integer"),
        ({"widths": [8, 16]}, TypeError, "widths must be a tuple"),
        ({"widths": ()}, ValueError, "widths must hold at least one width"),
        ({"widths": (8, 18)}, ValueError, "widths must be multiples of groups, 4, but one is 18"),
        ({"attention": (2,)}, ValueError, "attention must name resolutions below 2"),
        ({"prediction": "score"}, ValueError, "prediction must be one of epsilon"),
        ({"schedule": "cosine"}, ValueError, "schedule must be one of"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_configuration_is_refused(change, error, sentence):
    with pytest.raises(error, match=sentence):
        ModelConfig(**SMALL | change)


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (0.5, TypeError)])
def test_a_bad_seed_is_refused(seed, error):
    with pytest.raises(error, match="seed must be"):
        new_model(ModelConfig(**SMALL), seed=seed)


# Noise


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear", "scaled_linear"])
def test_noise_levels_are_what_the_scheduler_adds_to_a_scaled_image_and_they_rise(schedule):
    model = new_model(ModelConfig(**SMALL, schedule=schedule), seed=0)
    levels = noise_levels(model)
    assert levels.dtype == torch.float64
    assert levels.shape == (1000,)
    assert (levels.diff() > 0).all()
    times = torch.tensor([0, 10, 500, 900])
    one, none = torch.ones(4, 1), torch.zeros(4, 1)
    ratio = model.scheduler.add_noise(none, one, times) / model.scheduler.add_noise(
        one, none, times
    )
    torch.testing.assert_close(levels[times].float(), ratio.flatten())


def test_the_time_of_a_levels_noise_is_that_level_and_between_two_it_lies_between():
    model = new_model(ModelConfig(**SMALL), seed=0)
    levels = noise_levels(model)
    for time in (0, 1, 400, 999):
        assert time_at(model, levels[time].item()) == pytest.approx(time, abs=1e-6)
    assert time_at(model, math.sqrt(levels[400] * levels[401])) == pytest.approx(400.5)


@pytest.mark.parametrize(
    ("sigma", "error"),
    [(0.0, ValueError), (1e9, ValueError), (math.nan, ValueError), ("1", TypeError)],
)
def test_a_noise_level_off_the_schedule_is_refused(sigma, error):
    model = new_model(ModelConfig(**SMALL), seed=0)
    with pytest.raises(error, match="sigma must"):
        time_at(model, sigma)
    if isinstance(sigma, float):
        with pytest.raises(error, match="sigma must"):
            as_denoiser(model)(torch.zeros(1, 64), sigma)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.1, 1.0, 7.3])
def test_a_model_that_predicts_exactly_is_the_exact_denoiser(prediction, sigma):
    generator = torch.Generator().manual_seed(0)
    point = torch.rand(1, 8, 8, generator=generator, dtype=torch.float64)
    x = 3 * torch.randn(4, 64, generator=generator, dtype=torch.float64)
    denoiser = as_denoiser(Oracle(point, prediction))
    expected = denoise(x, point.reshape(1, 64), sigma)
    torch.testing.assert_close(denoiser(x, sigma), expected, rtol=0, atol=1e-9)


def test_the_denoiser_is_differentiable_in_its_point():
    denoiser = as_denoiser(new_model(ModelConfig(**SMALL), seed=0).double())
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    along, up = torch.randn(2, 2, 64, generator=torch.Generator().manual_seed(1)).double()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad((denoiser(x, 1.0) * along).sum(), x)
    with torch.no_grad():
        apart = (denoiser(x + 1e-5 * up, 1.0) - denoiser(x - 1e-5 * up, 1.0)) / 2e-5
    torch.testing.assert_close((gradient * up).sum(), (apart * along).sum(), rtol=1e-6, atol=0)
