import pytest
import torch

from hopfield_cl import denoising
from hopfield_cl.diffusion.models import ModelConfig, new_model
from hopfield_cl.diffusion.noise import noise_levels
from hopfield_cl.diffusion.sampling import (
    generate,
    reconstruct,
    reconstruction_error,
    sampling_times,
)

CONFIG = ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4)


def model():
    return new_model(CONFIG, seed=0)


def images(count=6, seed=0):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def white(count=6, seed=1):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class Exact(torch.nn.Module):
    """A "network" that knows its data: the exact denoiser, in the coordinates of the schedule."""

    def __init__(self, data):
        super().__init__()
        drawn = new_model(CONFIG, seed=0)
        self.config, self.scheduler = drawn.config, drawn.scheduler
        self.data = torch.nn.Parameter(data)
        self.levels = noise_levels(drawn)

    def forward(self, noisy, timesteps):
        sigma = self.levels[int(timesteps.flatten()[0])].item()
        points = noisy.flatten(1).double() * (1 + sigma**2) ** 0.5
        clean = denoising.denoise(points, self.data.detach().flatten(1).double(), sigma)
        return clean.float().reshape(noisy.shape)


def test_times_fall_to_the_last_step_above_no_noise():
    assert sampling_times(model(), 25) == [999 - 40 * step for step in range(25)]
    assert sampling_times(model(), 1000)[-1] == 0


def test_the_exact_denoiser_gives_stored_images_back():
    data = images(4)
    back = reconstruct(Exact(data), data, 199, noise=white(4))
    assert torch.allclose(back, data, atol=1e-4)


def test_what_the_exact_denoiser_generates_is_stored():
    data = images(4)
    drawn = generate(Exact(data), 20, generator=torch.Generator().manual_seed(3))
    nearest = torch.cdist(drawn.flatten(1), data.flatten(1)).min(1)
    assert nearest.values.max() < 0.05
    assert len(nearest.indices.unique()) > 1


def test_the_error_is_that_of_the_reconstruction():
    net, x, noise = model(), images(), white()
    errors = reconstruction_error(net, x, (199, 599), noise=noise)
    back = reconstruct(net, x, 599, noise=noise)
    assert errors.shape == (2, 6)
    assert torch.equal(errors[1], (back - x).square().mean((1, 2, 3)))


def test_more_noise_leaves_less_of_the_image():
    data = images(40)
    net = Exact(data)
    errors = reconstruction_error(net, data, (39, 399, 919), noise=white(40)).mean(1)
    assert errors[0] < 1e-6
    assert errors[1] < errors[2]


def test_the_size_of_a_batch_changes_nothing():
    net, x, noise = model(), images(), white()
    whole = reconstruct(net, x, 199, noise=noise)
    parts = reconstruct(net, x, 199, noise=noise, batch_size=4)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_a_seed_fixes_what_is_generated_and_another_changes_it():
    def drawn(seed):
        return generate(model(), 2, generator=torch.Generator().manual_seed(seed), steps=5)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_sampling_leaves_the_model_in_its_mode_without_gradients():
    net = model().train()
    drawn = generate(net, 1, generator=torch.Generator().manual_seed(0), steps=2)
    assert net.training
    assert not drawn.requires_grad
    assert drawn.abs().max() <= 1


@pytest.mark.parametrize(
    ("change", "problem", "words"),
    [
        ({"time": 200}, ValueError, "time must be one of 999"),
        ({"steps": 7}, ValueError, "steps must divide the model's 1000"),
        ({"steps": 2.0}, TypeError, "steps must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"noise": white(5)}, ValueError, "noise must have the shape of images"),
        ({"images": images()[:, :, :4]}, ValueError, "images must have shape"),
        ({"images": images().int()}, TypeError, "floating-point"),
        ({"images": images() * float("nan")}, ValueError, "images must be finite"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(change, problem, words):
    arguments = {"images": images(), "time": 199, "noise": white()} | change
    with pytest.raises(problem, match=words):
        reconstruct(model(), **arguments)


def test_no_times_and_no_images_are_refused():
    with pytest.raises(ValueError, match="times must hold"):
        reconstruction_error(model(), images(), (), noise=white())
    with pytest.raises(ValueError, match="count must be at least 1"):
        generate(model(), 0, generator=torch.Generator())
