"""Gradient steps on any loss: on one device or many, resumed where they were killed.

:func:`gradient_steps` trains any parameters. All that a step of it draws comes from generators
seeded by the training's seed and the number of the step (:func:`generator`): there is no random
state to carry, and what is not yet done does not depend on when the training was interrupted.
:class:`GradientSteps` is the machine beneath; a training that carries a random state, as that of
:mod:`hopfield_cl.diffusion.training` does, extends it.

The modules inside, from the ground floor up:

``config``
    How a training goes: its configuration, and what is checked and counted by it.
``streams``
    Random streams without a state, each from a seed, a step and a purpose.
``state_files``
    State files, written whole or not at all, and the fingerprint that tells them apart.
``machine``
    The machine that makes the steps, its state, and the processes it runs on.
``any_loss``
    Any parameters trained on any loss, by the machine as it is.
"""

from hopfield_cl.diffusion.steps.any_loss import StepsRecord, gradient_steps
from hopfield_cl.diffusion.steps.config import TrainingConfig, check_plan, replayed
from hopfield_cl.diffusion.steps.machine import (
    GradientSteps,
    Loss,
    new_accelerator,
    training_mode,
)
from hopfield_cl.diffusion.steps.state_files import fingerprint
from hopfield_cl.diffusion.steps.streams import generator, rows

__all__ = [
    "GradientSteps",
    "Loss",
    "StepsRecord",
    "TrainingConfig",
    "check_plan",
    "fingerprint",
    "generator",
    "gradient_steps",
    "new_accelerator",
    "replayed",
    "rows",
    "training_mode",
]
