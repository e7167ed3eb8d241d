"""The machine that makes gradient steps, on one device or many, and keeps its state."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from hopfield_cl.diffusion.steps.config import TrainingConfig
from hopfield_cl.diffusion.steps.state_files import read_state, write_state

# Reading a loss makes the host wait for the device: the bar shows a new one this often, no oftener.
_SECONDS_PER_LOOK = 0.5

Loss = Callable[[int, slice], Tensor]
"""Takes the number of a step, from 0, and this process's slice of the batch; returns a scalar."""


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
        write_state(path, tensors, state | also, file_format=self.file_format)

    def _load(self, path: Path) -> None:
        """Take all state from a file that was saved for the same training."""
        tensors, state = read_state(path, file_format=self.file_format)
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


def _scalar(value: Tensor, name: str) -> Tensor:
    """Require that what a callable of the user's returned is a scalar."""
    if not isinstance(value, Tensor) or value.ndim != 0:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must return a tensor with no dimensions, but returned {came}.")
    return value
