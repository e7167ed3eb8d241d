import pytest
import torch

from hopfield_cl.diffusion.models import ModelConfig, new_model
from hopfield_cl.diffusion.regularise import elastic_penalty, fisher_information

CONFIG = ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4)


def images(count):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_information_is_the_mean_squared_gradient_of_single_images():
    model, x = new_model(CONFIG, seed=0), images(3)
    found = fisher_information(model, x, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    times = torch.randint(1000, (3,), generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    expected = {name: 0 for name, _ in model.named_parameters()}
    for i in range(3):
        time, clean, eps = times[i : i + 1], x[i : i + 1], noise[i : i + 1]
        noisy = model.scheduler.add_noise(clean, eps, time)
        error = (model(noisy, time) - model.target(clean, eps, time)).square().mean()
        model.zero_grad()
        (model.loss_weight(time)[0] * error).backward()
        for name, weight in model.named_parameters():
            expected[name] = expected[name] + weight.grad.square() / 3
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-10)


def test_the_penalty_is_zero_where_it_began_and_grows_with_the_square_of_the_way():
    model = new_model(CONFIG, seed=0)
    fisher = {name: torch.ones_like(weight) for name, weight in model.named_parameters()}
    penalty = elastic_penalty(model, fisher, 2.0)
    assert penalty(model).item() == 0
    count = sum(weight.numel() for weight in model.parameters())
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1
    assert penalty(model).item() == pytest.approx(0.01 * count, rel=1e-3)


def test_the_penalty_pulls_back():
    model = new_model(CONFIG, seed=0)
    fisher = {name: torch.ones_like(weight) for name, weight in model.named_parameters()}
    penalty = elastic_penalty(model, fisher, 1.0)
    with torch.no_grad():
        next(model.parameters()).add_(0.5)
    penalty(model).backward()
    assert torch.allclose(next(model.parameters()).grad, torch.tensor(0.5))


def test_bad_input_is_refused_in_a_sentence():
    model = new_model(CONFIG, seed=0)
    with pytest.raises(ValueError, match="images must have shape"):
        fisher_information(model, images(3)[:0], generator=torch.Generator())
    with pytest.raises(ValueError, match="strength must be finite and above 0"):
        elastic_penalty(model, {}, 0.0)
    with pytest.raises(ValueError, match="fisher must hold one entry"):
        elastic_penalty(model, {}, 1.0)
