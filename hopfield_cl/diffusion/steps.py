"""Gradient steps on any loss: on one device or many, resumed where they were killed.

:func:`gradient_steps` trains any parameters. All that a step of it draws comes from generators
seeded by the training's seed and the number of the step (:func:`generator`): there is no random
state to carry, and what is not yet done does not depend on when the training was interrupted.
:class:`GradientSteps` is the machine below; a training that carries a random state, as that of
:mod:`hopfield_cl.diffusion.training` does, extends it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from hopfield_cl import _checks

_PRECISIONS = ("no", "bf16")
# Reading a loss makes the host wait for the device: the bar shows a new one this often, no oftener.
_SECONDS_PER_LOOK = 0.5

Loss = Callable[[int, slice], Tensor]
"""Takes the number of a step, from 0, and this process's slice of the batch; returns a scalar."""


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


def generator(
    seed: int, step: int, purpose: str, *, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Make the source of the random numbers of one purpose in one step.

    Parameters
    ----------
    seed : int
        Seed of the training.
    step : int
        Number of the step, or of the epoch.
    purpose : str
        What is drawn: different purposes are independent.
    device : str or torch.device
        Where it draws.

    Returns
    -------
    torch.Generator
        The same for the same arguments.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` or ``step`` is no integer from 0.
    """
    _checks.integer_from(seed, "seed", 0)
    _checks.integer_from(step, "step", 0)
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def rows(count: int, per_step: int, step: int, *, seed: int, purpose: str) -> Int[Tensor, " n"]:
    """Rows of a pool that a step takes: without replacement until all were taken.

    Parameters
    ----------
    count : int
        Rows of the pool; at least 1.
    per_step : int
        Rows of a step; may be 0.
    step : int
        Number of the step, from 0.
    seed, purpose
        As for :func:`generator`.

    Returns
    -------
    Tensor of int64, shape (per_step,)
        Row numbers. After ``count`` rows a new random order begins, in the middle of a step if need
        be.

    Raises
    ------
    TypeError, ValueError
        If a number is no integer or out of range.
    """
    for value, name, low in ((count, "count", 1), (per_step, "per_step", 0), (step, "step", 0)):
        _checks.integer_from(value, name, low)
    first, last = step * per_step, (step + 1) * per_step
    orders = [
        torch.randperm(count, generator=generator(seed, epoch, purpose))
        for epoch in range(first // count, max(first, last - 1) // count + 1)
    ]
    return torch.cat(orders)[first % count :][:per_step]


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


def fingerprint(*parts: object) -> str:
    """Identify what a training is given.

    Parameters
    ----------
    *parts : object
        Tensors, by their bytes; all else by what JSON makes of it.

    Returns
    -------
    str
        A SHA-256.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(str((tuple(part.shape), str(part.dtype))).encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()


@contextmanager
def training_mode(*modules: nn.Module) -> Iterator[None]:
    """Put modules in training mode, and in the end back in the mode they were in.

    Parameters
    ----------
    *modules : Module
        Networks.

    Returns
    -------
    context manager
    """
    before = [module.training for module in modules]
    for module in modules:
        module.train()
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.train(mode)


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


def new_accelerator(config: TrainingConfig) -> Accelerator:
    """Find out about the processes that train together.

    Parameters
    ----------
    config : TrainingConfig
        How is trained.

    Returns
    -------
    Accelerator

    Raises
    ------
    ValueError
        If the batch cannot be divided among the processes.
    """
    # Half precision is chosen by the autocast of each step: accelerate would fix it for the life
    # of the Python process.
    accelerator = Accelerator(mixed_precision="no", device_placement=False)
    if config.batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size must be a multiple of {accelerator.num_processes}, the number of "
            f"processes, but is {config.batch_size}."
        )
    return accelerator


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


class GradientSteps:
    """Gradient steps under way: all that changes from one to the next, how it is saved and read.

    A training that carries more than this from step to step extends :meth:`carried` and
    :meth:`take`, and names its files by a ``file_format`` of its own.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        What is trained, by name.
    config : TrainingConfig
        How to train.
    accelerator : Accelerator
        The processes, from :func:`new_accelerator`.
    fingerprint : str
        Identifies the training: a checkpoint of another is refused.
    average_decay : float or None
        Decay of the average of the parameters; None keeps none.

    Attributes
    ----------
    step : int
        Number of steps made.
    seconds : float
        Wall time of the steps made. After a resumption, of those that led to the result: what was
        lost when the training was killed does not count.
    ema : EMAModel or None
        The average.
    """

    file_format = "hopfield_cl gradient steps, version 1"

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainingConfig,
        accelerator: Accelerator,
        *,
        fingerprint: str,
        average_decay: float | None,
    ) -> None:
        self.parameters, self.config, self.accelerator = dict(parameters), config, accelerator
        self.fingerprint = fingerprint
        self.device = next(iter(self.parameters.values())).device
        share = config.batch_size // accelerator.num_processes
        self._slice = slice(
            share * accelerator.process_index, share * (accelerator.process_index + 1)
        )
        if accelerator.num_processes > 1:
            _in_one_message([p.data for p in self.parameters.values()], broadcast)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )
        self.ema = None
        if average_decay is not None:
            self.ema = EMAModel(
                self.parameters.values(),
                decay=average_decay,
                use_ema_warmup=True,
                power=3 / 4,
                foreach=True,
            )
        self.losses = torch.zeros(config.steps, device=self.device)
        self.step, self.seconds = 0, 0.0

    def carried(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What else is saved: tensors, and what JSON can hold."""
        return {}, {}

    def take(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Take back what :meth:`carried` gave, from among all that was saved."""

    def run(
        self,
        loss: Loss,
        *,
        penalty: Callable[[], Tensor] | None = None,
        path: Path | None,
        observe: Callable[[int], None],
    ) -> None:
        """Make the steps that are left.

        Parameters
        ----------
        loss : callable
            As for :func:`gradient_steps`, but it casts by itself.
        penalty : callable, optional
            Returns a scalar that is added to the loss, but not to the record of it.
        path : Path or None
            Where the state is kept.
        observe : callable
            Takes the number of steps made, at the steps ``observe_at``, in the main process only.
        """
        if path is not None and path.exists():
            self._load(path)
        self.accelerator.wait_for_everyone()
        try:
            with _repeatable(self.device):
                for made in self._go(loss, penalty):
                    if made in self.config.observe_at and self.accelerator.is_main_process:
                        observe(made)
                    last = made == self.config.steps
                    if path is not None and (last or made % self.config.checkpoint_every == 0):
                        self._save(path)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.wait_for_everyone()

    def autocast(self) -> AbstractContextManager[None]:
        """Have a network run in half precision, if that is asked for."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Lend the parameters their averaged values."""
        if self.ema is None:
            yield
            return
        own = [parameter.detach().clone() for parameter in self.parameters.values()]
        self.ema.copy_to(self.parameters.values())
        try:
            yield
        finally:
            for parameter, value in zip(self.parameters.values(), own, strict=True):
                parameter.data.copy_(value)

    def finite_losses(self) -> Float[Tensor, " made"]:
        """Losses of the steps so far, over all processes; a lost training is stopped here."""
        losses = self.accelerator.reduce(self.losses[: self.step], "mean")
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            first = int(bad[0])
            raise FloatingPointError(
                f"The loss is {losses[first].item()} at step {first + 1}: the training has "
                f"diverged; lower learning_rate, {self.config.learning_rate}, or clip, "
                f"{self.config.clip}."
            )
        return losses

    def _go(self, loss: Loss, penalty: Callable[[], Tensor] | None) -> Iterator[int]:
        """Make one step after the other, and say how many were made."""
        hidden = not self.accelerator.is_main_process
        with tqdm(
            total=self.config.steps,
            initial=self.step,
            desc="training",
            unit="step",
            leave=False,
            disable=hidden,
        ) as bar:
            shown, shown_at = self.step, time.perf_counter()
            while self.step < self.config.steps:
                began = time.perf_counter()
                self._advance(loss, penalty)
                if not hidden and began - shown_at > _SECONDS_PER_LOOK:
                    mean = self.losses[shown : self.step].mean().item()
                    bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                    shown, shown_at = self.step, began
                bar.update()
                if self.step == self.config.steps and self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)  # the clock is to see the work done
                self.seconds += time.perf_counter() - began
                yield self.step

    def _advance(self, loss: Loss, penalty: Callable[[], Tensor] | None) -> None:
        value = _scalar(loss(self.step, self._slice), "loss")
        self.losses[self.step] = value.detach()
        if penalty is not None:
            value = value + _scalar(penalty(), "penalty")
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        if self.accelerator.num_processes > 1:
            _in_one_message(
                [p.grad for p in self.parameters.values()],
                lambda together: self.accelerator.reduce(together, "mean"),
            )
        nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(self.config, self.step)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.step(self.parameters.values())
        self.step += 1

    def _save(self, path: Path) -> None:
        """Write all state to a file: whole, or not at all."""
        losses = self.finite_losses()
        if not self.accelerator.is_main_process:
            return
        carried, also = self.carried()
        tensors = {"losses": losses, **carried}
        for part, values in self._parts().items():
            tensors |= {f"{part}.{name}": value for name, value in values.items()}
        state = {"fingerprint": self.fingerprint, "step": self.step, "seconds": self.seconds}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_file(
            {name: value.detach().contiguous() for name, value in tensors.items()},
            partial,
            metadata={"format": self.file_format, "state": json.dumps(state | also)},
        )
        _to_disk(partial)
        os.replace(partial, path)
        _to_disk(path.parent)

    def _load(self, path: Path) -> None:
        """Take all state from a file that was saved for the same training."""
        tensors, metadata = _read(path)
        if metadata.get("format") != self.file_format:
            raise ValueError(
                f"checkpoint must be the state of a training, but {path} is something else; name "
                "another file or remove it."
            )
        state = json.loads(metadata["state"])
        own = {f"weights.{name}": value.shape for name, value in self.parameters.items()}
        saved = {name: x.shape for name, x in tensors.items() if name.startswith("weights.")}
        if state["fingerprint"] != self.fingerprint or saved != own:
            raise ValueError(
                f"checkpoint must belong to this training, but {path} is of one with another "
                "model, config or data; name another file or remove it."
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.losses[: self.step] = tensors["losses"].to(self.device)
        self.take(tensors, state)
        if self.ema is not None:
            self.ema.optimization_step = self.step
        for parameter in self.parameters.values():
            # Made by zeros_like, the moments lie in memory as the parameter does.
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step), device=self.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        with torch.no_grad():
            for part, values in self._parts().items():
                for name, value in values.items():
                    value.copy_(tensors[f"{part}.{name}"])

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        """Tensors of the size of the model, by part and by the name of the parameter."""
        moments = self.optimizer.state
        parts = {
            "weights": self.parameters,
            "first_moment": {n: moments[p]["exp_avg"] for n, p in self.parameters.items()},
            "second_moment": {n: moments[p]["exp_avg_sq"] for n, p in self.parameters.items()},
        }
        if self.ema is not None:
            parts["average"] = dict(zip(self.parameters, self.ema.shadow_params, strict=True))
        return parts


def _in_one_message(tensors: Sequence[Tensor], send: Callable[[Tensor], Tensor]) -> None:
    """Send tensors to the other processes as one, and give them the values that come back."""
    together = send(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = together.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    rising = 1.0 if step >= config.warmup else (step + 1) / config.warmup
    falling_steps = config.decay * config.steps
    falling = 1.0 if falling_steps == 0 else min(1.0, (config.steps - step) / falling_steps)
    return config.learning_rate * min(rising, falling)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, algorithms that give the same bits each time where there are some.

    On a CPU all of them do. The backward pass of attention has none on a GPU and only warns.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, filling = torch.backends.cudnn, torch.utils.deterministic
    before = (
        cudnn.deterministic,
        cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        filling.fill_uninitialized_memory,
    )
    # cuBLAS is repeatable on one stream, which is all that is used here; this tells PyTorch so.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True, warn_only=True)
        filling.fill_uninitialized_memory = False
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before[:2]
        torch.use_deterministic_algorithms(before[2], warn_only=before[3])
        filling.fill_uninitialized_memory = before[4]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint must be a whole safetensors file, but {path} cannot be read ({error}); "
            "remove it to start anew."
        ) from error


def _to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _scalar(value: Tensor, name: str) -> Tensor:
    """Require that what a callable of the user's returned is a scalar."""
    if not isinstance(value, Tensor) or value.ndim != 0:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must return a tensor with no dimensions, but returned {came}.")
    return value
