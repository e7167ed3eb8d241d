"""Elastic weight consolidation: hold on to the weights that the old task needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from hopfield_cl import _checks
from hopfield_cl.diffusion.models import DiffusionModel

# Images whose gradients are held at a time; each takes as much memory as the network itself.
_GRADIENTS_AT_ONCE = 32


def fisher_information(
    model: DiffusionModel,
    images: Float[Tensor, "N C H W"],
    *,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Mean squared gradient of the loss of one image, for each weight.

    It stands for the diagonal of the Fisher information: how much the loss on the old task rises,
    to second order, when the weight moves. Each image has one noise and one time of its own.

    Parameters
    ----------
    model : DiffusionModel
        The model after the old task.
    images : Tensor of float32, shape (N, C, H, W)
        Images of the old task, N at least 1.
    generator : torch.Generator
        Source of noise and times, on the CPU.

    Returns
    -------
    dict of Tensor
        By the name of the weight, in its shape.

    Raises
    ------
    TypeError, ValueError
        If the images are none, or not finite.

    References
    ----------
    Kirkpatrick et al. (2017), *Overcoming catastrophic forgetting in neural networks*.
    """
    _checks.images(images, "images")
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    times = torch.randint(model.config.train_timesteps, (len(images),), generator=generator)
    noise = torch.randn(images.shape, generator=generator).to(images)
    times = times.to(images.device)
    noisy = model.scheduler.add_noise(images, noise, times)
    target = model.target(images, noise, times)
    importance = model.loss_weight(times)

    def loss(
        weights: dict[str, Tensor], noisy: Tensor, time: Tensor, target: Tensor, importance: Tensor
    ) -> Tensor:
        predicted = functional_call(model, weights, (noisy[None], time[None]))[0]
        return importance * (predicted - target).square().mean()

    gradients = vmap(grad(loss), in_dims=(None, 0, 0, 0, 0))
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for part in torch.arange(len(images), device=images.device).split(_GRADIENTS_AT_ONCE):
        with sdpa_kernel(SDPBackend.MATH):  # the only attention that vmap can batch
            found = gradients(weights, noisy[part], times[part], target[part], importance[part])
        for name, gradient in found.items():
            total[name] += gradient.square().sum(0)
    return {name: value / len(images) for name, value in total.items()}


def elastic_penalty(
    model: DiffusionModel, fisher: dict[str, Tensor], strength: float
) -> Callable[[DiffusionModel], Tensor]:
    """Penalty that pulls each weight back to where it was, as hard as the old task needs it.

    Parameters
    ----------
    model : DiffusionModel
        The model after the old task; its weights are copied.
    fisher : dict of Tensor
        What :func:`fisher_information` found.
    strength : float
        The factor λ of the penalty, above 0.

    Returns
    -------
    callable
        Takes the model in training; returns ½ λ Σ F (θ − θ_old)², a scalar.

    Raises
    ------
    TypeError, ValueError
        If ``strength`` is not above 0, or ``fisher`` is of another model.

    References
    ----------
    Kirkpatrick et al. (2017), eq. (3).
    """
    _checks.positive_number(strength, "strength")
    anchor = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    if anchor.keys() != fisher.keys():
        raise ValueError("fisher must hold one entry for each weight of model, but does not.")
    importance = [strength / 2 * fisher[name] for name in anchor]

    def penalty(trained: DiffusionModel) -> Tensor:
        moved = torch._foreach_sub(list(trained.parameters()), list(anchor.values()))
        terms = torch._foreach_mul(torch._foreach_mul(moved, moved), importance)
        return torch.stack([term.sum() for term in terms]).sum()

    return penalty
