"""The training of a diffusion model, and what it draws.

Every random number of a training comes from one generator on the CPU: the order of the images, the
times, and the seed of each step's noise. All processes draw the same batch and each takes its
slice, so a training is the same on one process and on several, and the whole of its randomness is
one small tensor in its checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import mse_loss

from hopfield_cl import _checks
from hopfield_cl.diffusion.models import DiffusionModel
from hopfield_cl.diffusion.steps import (
    GradientSteps,
    TrainingConfig,
    check_plan,
    new_accelerator,
    replayed,
    training_mode,
)


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """What came of a training.

    Attributes
    ----------
    loss : Tensor, shape (steps,)
        Mean squared error of each step's batch, weighted by :meth:`DiffusionModel.loss_weight`,
        without the penalty; on the CPU.
    averaged : DiffusionModel
        A copy of the model with the averaged weights, in evaluation mode.
    seconds : float
        Wall time of the steps. After a resumption, of those that led to the result: what was lost
        when the training was killed does not count.
    """

    loss: Float[Tensor, " steps"]
    averaged: DiffusionModel
    seconds: float


def train(
    model: DiffusionModel,
    images: Float[Tensor, "N C H W"],
    config: TrainingConfig,
    *,
    replay: Float[Tensor, "K C H W"] | None = None,
    penalty: Callable[[DiffusionModel], Tensor] | None = None,
    checkpoint: str | Path | None = None,
    observe: Callable[[int, DiffusionModel], None] | None = None,
) -> TrainingRecord:
    """Train a model in place to undo noise.

    A step draws images without replacement until all were seen, then starts a new order. One
    process trains on the device the model is on. Each of several processes, started by ``accelerate
    launch --multi_gpu`` or, on CPUs, by ``torchrun``, moves its model to its own device and takes
    its slice of the batch.

    Parameters
    ----------
    model : DiffusionModel
        The model, in float32; its weights are changed.
    images : Tensor of float32, shape (N, C, H, W)
        Images of the task, in [−1, 1]; copied to the model's device as a whole.
    config : TrainingConfig
        How to train.
    replay : Tensor of float32, shape (K, C, H, W), optional
        Replay buffer: round(``replay_share`` · ``batch_size``) images of each batch are drawn from
        it, in an order of its own, as often as it takes.
    penalty : callable, optional
        Takes the model and returns a scalar that is added to the loss.
    checkpoint : path, optional
        A ``.safetensors`` file for the state of the training. It is written every
        ``checkpoint_every`` steps and at the end, whole or not at all. If it is there, the training
        goes on from it, with the weights in it, and ends with the weights, bit for bit, that it
        would have had without the interruption on the same device and number of processes.
    observe : callable, optional
        Takes a step and the averaged model as it was after that step, in evaluation mode, at the
        steps ``observe_at``; called in the main process only. Steps before the checkpoint that a
        training starts from are not observed again.

    Returns
    -------
    TrainingRecord
        The losses and the averaged model.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind or out of range, if the batch cannot be divided among the
        processes, or if the checkpoint is damaged or of another training.
    FloatingPointError
        If the loss is no longer finite; the checkpoint of before stays as it is.

    References
    ----------
    Ho, Jain & Abbeel (2020), *Denoising Diffusion Probabilistic Models*, algorithm 1.
    """
    path = check_plan(config, checkpoint, observe)
    _check(model, images, replay)
    accelerator = new_accelerator(config)
    if accelerator.num_processes > 1:
        model.to(accelerator.device)
    if next(model.parameters()).device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    batches = _Batches(model, images, replay, config)
    fingerprint = "" if path is None else _fingerprint(model, images, config, replay)
    steps = _ModelSteps(model, batches, config, accelerator, fingerprint)
    with training_mode(model):
        steps.run(
            steps.loss,
            penalty=None if penalty is None else lambda: penalty(model),
            path=path,
            observe=lambda made: observe(made, steps.averaged_model()),
        )
    return TrainingRecord(
        loss=steps.finite_losses().cpu(), averaged=steps.averaged_model(), seconds=steps.seconds
    )


class _ModelSteps(GradientSteps):
    """The steps of a model's training, with what they draw from."""

    file_format = "hopfield_cl training, version 1"

    def __init__(
        self,
        model: DiffusionModel,
        batches: _Batches,
        config: TrainingConfig,
        accelerator: Accelerator,
        fingerprint: str,
    ) -> None:
        super().__init__(
            dict(model.named_parameters()),
            config,
            accelerator,
            fingerprint=fingerprint,
            average_decay=config.ema_decay,
        )
        self.model, self.batches = model, batches

    def loss(self, step: int, part: slice) -> Tensor:
        """Mean squared error of this process's slice of a batch."""
        clean, noise, times = self.batches.draw(part)
        noisy = self.model.scheduler.add_noise(clean, noise, times)
        if self.device.type == "cuda":
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            predicted = self.model(noisy, times)
        target = self.model.target(clean, noise, times)
        error = mse_loss(predicted.float(), target, reduction="none").mean((1, 2, 3))
        return (self.model.loss_weight(times) * error).mean()

    def averaged_model(self) -> DiffusionModel:
        """Copy of the model with the averaged weights, in evaluation mode."""
        averaged = copy.deepcopy(self.model)
        self.ema.copy_to(averaged.parameters())
        return averaged.eval()

    def carried(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The random state: of the generator, and where each deck is."""
        decks = self.batches.decks
        tensors = {"generator": self.batches.generator.get_state()}
        tensors |= {f"deck.{name}": deck.order for name, deck in decks.items()}
        return tensors, {"positions": {name: deck.position for name, deck in decks.items()}}

    def take(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Go on from a random state."""
        self.batches.generator.set_state(tensors["generator"])
        for name, deck in self.batches.decks.items():
            deck.order, deck.position = tensors[f"deck.{name}"], state["positions"][name]


class _Batches:
    """Clean images, noise and times, step after step, all from one generator."""

    def __init__(
        self, model: DiffusionModel, images: Tensor, replay: Tensor | None, config: TrainingConfig
    ) -> None:
        of_replay = replayed(config, replay)
        device = next(model.parameters()).device
        self.size, self.levels = config.batch_size, model.config.train_timesteps
        self.pool = images.to(device)
        self.decks = {"images": _Deck(0, len(images), config.batch_size - of_replay)}
        if replay is not None:
            self.pool = torch.cat([self.pool, replay.to(device)])
            self.decks["replay"] = _Deck(len(images), len(replay), of_replay)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.noise_generator = torch.Generator(device)

    def draw(self, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        """What a step takes: the slice of it that is this process's."""
        drawn = torch.cat([deck.draw(self.generator) for deck in self.decks.values()])
        times = torch.randint(self.levels, (self.size,), generator=self.generator)
        # Noise is drawn where it is used, from a seed of this step: it has no state to save.
        seed = torch.randint(2**63 - 1, (), generator=self.generator)
        self.noise_generator.manual_seed(int(seed))
        device = self.pool.device
        noise = torch.randn(
            self.size, *self.pool.shape[1:], generator=self.noise_generator, device=device
        )
        return self.pool[drawn[part].to(device)], noise[part], times[part].to(device)


class _Deck:
    """Rows of the pool in a random order, without replacement until all were drawn."""

    def __init__(self, first: int, count: int, per_step: int) -> None:
        self.first, self.count, self.per_step = first, count, per_step
        self.order, self.position = torch.empty(0, dtype=torch.int64), 0

    def draw(self, generator: torch.Generator) -> Int[Tensor, " per_step"]:
        drawn = torch.empty(0, dtype=torch.int64)
        while len(drawn) < self.per_step:
            if self.position == len(self.order):
                self.order, self.position = torch.randperm(self.count, generator=generator), 0
            more = self.order[self.position : self.position + self.per_step - len(drawn)]
            self.position += len(more)
            drawn = torch.cat([drawn, more])
        return drawn + self.first


def _fingerprint(
    model: DiffusionModel, images: Tensor, config: TrainingConfig, replay: Tensor | None
) -> str:
    """SHA-256 of what a training is given, its penalty and first weights apart."""
    digest = hashlib.sha256(json.dumps([asdict(model.config), asdict(config)]).encode())
    for part in (images, replay):
        if part is None:
            digest.update(b"none")
        else:
            digest.update(str(tuple(part.shape)).encode())
            digest.update(part.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _check(model: DiffusionModel, images: Tensor, replay: Tensor | None) -> None:
    if not isinstance(model, DiffusionModel):
        raise TypeError(f"model must be a DiffusionModel, but is a {type(model).__name__}.")
    for parameter in model.parameters():
        if parameter.dtype != torch.float32:
            raise TypeError(
                f"model must be in float32, but has a parameter in {parameter.dtype}; call "
                "model.float() first."
            )
    _check_images(model, images, "images")
    if replay is not None:
        _check_images(model, replay, "replay")


def _check_images(model: DiffusionModel, value: Tensor, name: str) -> None:
    _checks.images(value, name, model.config.image_shape)
    if value.dtype != torch.float32:
        raise TypeError(f"{name} must be in float32, but is in {value.dtype}; convert it.")
    low, high = (extreme.item() for extreme in torch.aminmax(value.detach()))
    if low < -1 or high > 1:
        raise ValueError(f"{name} must lie in [−1, 1], but reaches from {low} to {high}.")
