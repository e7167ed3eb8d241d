"""Any parameters trained on any loss, by the machine as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hopfield_cl.diffusion.steps.config import TrainingConfig, check_plan
from hopfield_cl.diffusion.steps.machine import GradientSteps, Loss, new_accelerator


@dataclass(frozen=True, eq=False)
class StepsRecord:
    """What came of gradient steps.

    Attributes
    ----------
    loss : Tensor, shape (steps,)
        Loss of each step, over all processes; on the CPU.
    seconds : float
        Wall time of the steps that led to the result.
    """

    loss: Float[Tensor, " steps"]
    seconds: float


def gradient_steps(
    parameters: Mapping[str, nn.Parameter],
    loss: Loss,
    config: TrainingConfig,
    *,
    fingerprint: str = "",
    checkpoint: str | Path | None = None,
    observe: Callable[[int], None] | None = None,
) -> StepsRecord:
    """Train parameters in place; in the end they have their averaged values.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        What is trained, by name, in float32 and on one device. Several processes all start from the
        values that the main one has.
    loss : callable
        Takes the number of a step, from 0, and the slice of the batch that is this process's;
        returns its mean loss, a scalar. It is called under autocast if the precision is "bf16".
    config : TrainingConfig
        How to train. An ``ema_decay`` of 0 keeps no average, and saves its memory.
    fingerprint : str
        Identifies the training, ``config`` apart: a checkpoint of another is refused.
    checkpoint : path, optional
        A ``.safetensors`` file for the state of the training, as in
        :func:`hopfield_cl.diffusion.training.train`.
    observe : callable, optional
        Takes the number of steps made, at the steps ``observe_at``, while the parameters have their
        averaged values; called in the main process only.

    Returns
    -------
    StepsRecord
        The losses and the time.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind, if the batch cannot be divided among the processes, or if
        the checkpoint is damaged or of another training.
    FloatingPointError
        If the loss is no longer finite; the checkpoint of before stays as it is.
    """
    path = check_plan(config, checkpoint, observe)
    _check_parameters(parameters)
    steps = GradientSteps(
        parameters,
        config,
        new_accelerator(config),
        fingerprint=hashlib.sha256(json.dumps([fingerprint, asdict(config)]).encode()).hexdigest(),
        average_decay=config.ema_decay or None,
    )

    def cast(step: int, part: slice) -> Tensor:
        with steps.autocast():
            return loss(step, part)

    def observed(made: int) -> None:
        with steps.averaged():
            observe(made)

    steps.run(cast, path=path, observe=observed)
    record = StepsRecord(loss=steps.finite_losses().cpu(), seconds=steps.seconds)
    if steps.ema is not None:
        steps.ema.copy_to(steps.parameters.values())
    return record


def _check_parameters(parameters: Mapping[str, nn.Parameter]) -> None:
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping, but is a {type(parameters).__name__}.")
    if not parameters:
        raise ValueError("parameters must hold at least one, but is empty.")
    device = next(iter(parameters.values())).device
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise TypeError(
                f"parameters must be in float32, but {name} is in {parameter.dtype}; convert it."
            )
        if parameter.device != device:
            raise ValueError(
                f"parameters must be on one device, but {name} is on {parameter.device} and the "
                f"first on {device}; move one of them."
            )
        if not parameter.requires_grad:
            raise ValueError(
                f"parameters must require a gradient, but {name} does not; call "
                "requires_grad_(True) or leave it out."
            )
