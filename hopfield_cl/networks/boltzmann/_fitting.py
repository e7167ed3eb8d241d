"""What every fit and every gradient asks of its machine and its samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hopfield_cl import _checks
from hopfield_cl.networks.boltzmann._tensors import wide
from hopfield_cl.networks.boltzmann.machine import HopfieldBoltzmannMachine


def check_fit(machine: Any, data: Tensor, steps: int, weights: Tensor | None) -> None:
    """Refuse a machine or samples that no fit can use."""
    if not isinstance(machine, HopfieldBoltzmannMachine):
        raise TypeError(
            f"machine must be a HopfieldBoltzmannMachine, but is a {type(machine).__name__}."
        )
    if not learned_parameters(machine):
        raise ValueError("machine must learn something, but was made with learned=().")
    _checks.memory_set(data, "data")
    _checks.points_and_memories(data, machine.memories)
    _checks.integer_from(steps, "steps", 1)
    _checks.weights(weights, data, memories_name="data")


def learned_parameters(machine: HopfieldBoltzmannMachine) -> dict[str, torch.nn.Parameter]:
    """Parameters that training changes, by name."""
    return {name: value for name, value in machine.named_parameters() if value.requires_grad}


def sample_masses(data: Tensor, weights: Tensor | None) -> Tensor:
    """Mass of each sample; 1 each if not given."""
    return wide(data).new_ones(len(data)) if weights is None else wide(weights)
