"""How a training goes: its configuration, and what is checked and counted by it."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path

from hopfield_cl import _checks

_PRECISIONS = ("no", "bf16")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes
    ----------
    steps : int
        Gradient steps.
    batch_size : int
        Images of a step, over all processes together.
    learning_rate : float
        Highest learning rate of AdamW, which runs without weight decay.
    warmup : int
        Steps over which the rate rises linearly from 0.
    decay : float
        Share of the steps, at the end, over which the rate falls linearly to 0.
    ema_decay : float
        Decay of the exponential average of the weights, reached by way of 1 − (1 + step)^(−3/4).
    clip : float
        Largest norm of the gradient.
    replay_share : float
        Share of each batch that is drawn from the replay buffer, if there is one.
    precision : {"no", "bf16"}
        "no" trains in float32. "bf16" runs the network in bfloat16 (weights, moments, average and
        loss stay in float32): quicker on a GPU with a network large enough; a CPU without bfloat16
        units takes many times as long.
    seed : int
        Seed of the order of the images, the times and the noise.
    checkpoint_every : int
        Steps between two writings of the checkpoint.
    observe_at : tuple of int
        Steps after which the observer is called.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 50
    decay: float = 0.0
    ema_decay: float = 0.999
    clip: float = 1.0
    replay_share: float = 0.25
    precision: str = "no"
    seed: int = 0
    checkpoint_every: int = 500
    observe_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch_size", 1), ("checkpoint_every", 1)):
            _checks.integer_from(getattr(self, name), name, low)
        for name in ("warmup", "seed"):
            _checks.integer_from(getattr(self, name), name, 0)
        for name in ("learning_rate", "clip"):
            _checks.positive_number(getattr(self, name), name)
        for name in ("decay", "ema_decay", "replay_share"):
            _checks.number_between(getattr(self, name), name, 0, 1)
        if self.precision not in _PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(_PRECISIONS)}, but is {self.precision!r}."
            )
        if not isinstance(self.observe_at, tuple):
            raise TypeError(f"observe_at must be a tuple, but is {self.observe_at!r}.")
        for step in self.observe_at:
            _checks.integer_from(step, "observe_at", 1)
            if step > self.steps:
                raise ValueError(
                    f"observe_at must hold steps up to {self.steps}, the last, but holds {step}."
                )


def check_plan(
    config: TrainingConfig, checkpoint: str | Path | None, observe: Callable[..., None] | None
) -> Path | None:
    """Require a configuration, and a checkpoint and an observer that go with it.

    Parameters
    ----------
    config : TrainingConfig
        How is trained.
    checkpoint : path, optional
        File for the state of the training.
    observe : callable, optional
        What is called at the steps ``observe_at``.

    Returns
    -------
    Path or None
        The checkpoint.

    Raises
    ------
    TypeError, ValueError
        If one of them is not as it must be.
    """
    if not isinstance(config, TrainingConfig):
        raise TypeError(f"config must be a TrainingConfig, but is a {type(config).__name__}.")
    if (observe is None) != (not config.observe_at):
        raise ValueError(
            "observe and observe_at must be given together, but observe is "
            f"{observe!r} and observe_at is {config.observe_at}."
        )
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | Path):
        raise TypeError(f"checkpoint must be a path, but is a {type(checkpoint).__name__}.")
    path = Path(checkpoint)
    if path.suffix != ".safetensors":
        raise ValueError(f"checkpoint must end in .safetensors, but is {path}.")
    return path


def replayed(config: TrainingConfig, replay: Sized | None) -> int:
    """Count the examples of a batch that come from the replay buffer.

    Parameters
    ----------
    config : TrainingConfig
        How is trained.
    replay : sized, optional
        The replay buffer.

    Returns
    -------
    int
        round(``replay_share`` · ``batch_size``), and 0 without a buffer.

    Raises
    ------
    ValueError
        If there is a buffer and no place for it.
    """
    if replay is None:
        return 0
    count = round(config.replay_share * config.batch_size)
    if count == 0:
        raise ValueError(
            f"replay_share must leave a place in each batch of {config.batch_size} for the replay "
            f"that is given, but is {config.replay_share}."
        )
    return count
