"""The training loop of a diffusion model: on one device or many, resumed where it was killed.

Every random number of a training comes from one generator on the CPU: the order of the images, the
times, and the seed of each step's noise. All processes draw the same batch and each takes its
slice, so a training is the same on one process and on several, and the whole of its randomness is
one small tensor in its checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm.auto import tqdm

from hopfield_cl import _checks
from hopfield_cl.diffusion.models import DiffusionModel

_PRECISIONS = ("no", "bf16")
_FORMAT = "hopfield_cl training, version 1"
# Reading a loss makes the host wait for the device: the bar shows a new one this often, no oftener.
_SECONDS_PER_LOOK = 0.5


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
    _check(model, images, config, replay)
    if (observe is None) != (not config.observe_at):
        raise ValueError(
            "observe and observe_at must be given together, but observe is "
            f"{observe!r} and observe_at is {config.observe_at}."
        )
    path = None if checkpoint is None else _checked_path(checkpoint)
    # Half precision is chosen by the autocast of each step: accelerate would fix it for the life
    # of the Python process.
    accelerator = Accelerator(mixed_precision="no", device_placement=False)
    if config.batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size must be a multiple of {accelerator.num_processes}, the number of "
            f"processes, but is {config.batch_size}."
        )
    if accelerator.num_processes > 1:
        model.to(accelerator.device)
    training = _Training(model, images, replay, config, accelerator)
    fingerprint = "" if path is None else _fingerprint(model, images, config, replay)
    if path is not None and path.exists():
        training.load(path, fingerprint)
    accelerator.wait_for_everyone()
    was_training = model.training
    model.train()
    try:
        with _repeatable(training.device):
            for step in training.steps(penalty):
                if (
                    observe is not None
                    and step in config.observe_at
                    and accelerator.is_main_process
                ):
                    observe(step, training.averaged())
                last = step == config.steps
                if path is not None and (last or step % config.checkpoint_every == 0):
                    training.save(path, fingerprint)
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
    accelerator.wait_for_everyone()
    return TrainingRecord(
        loss=training.finite_losses().cpu(), averaged=training.averaged(), seconds=training.seconds
    )


class _Training:
    """A training under way: all that changes from step to step, and how it is saved and read."""

    def __init__(
        self,
        model: DiffusionModel,
        images: Tensor,
        replay: Tensor | None,
        config: TrainingConfig,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.accelerator, self.model = config, accelerator, model
        self.device = next(model.parameters()).device
        if self.device.type == "cuda":
            model.to(memory_format=torch.channels_last)
        self.network: nn.Module = accelerator.prepare_model(model)
        self.parameters = dict(model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=0.0, fused=True
        )
        self.ema = EMAModel(
            self.parameters.values(),
            decay=config.ema_decay,
            use_ema_warmup=True,
            power=3 / 4,
            foreach=True,
        )
        replayed = 0 if replay is None else _replayed(config)
        self.pool = images.to(self.device)
        self.decks = {"images": _Deck(0, len(images), config.batch_size - replayed)}
        if replay is not None:
            self.pool = torch.cat([self.pool, replay.to(self.device)])
            self.decks["replay"] = _Deck(len(images), len(replay), replayed)
        share = config.batch_size // accelerator.num_processes
        self.slice = slice(
            share * accelerator.process_index, share * (accelerator.process_index + 1)
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.noise_generator = torch.Generator(self.device)
        self.losses = torch.zeros(config.steps, device=self.device)
        self.step, self.seconds = 0, 0.0

    def steps(self, penalty: Callable[[DiffusionModel], Tensor] | None) -> Iterator[int]:
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
                self._advance(penalty)
                if not hidden and began - shown_at > _SECONDS_PER_LOOK:
                    mean = self.losses[shown : self.step].mean().item()
                    bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                    shown, shown_at = self.step, began
                bar.update()
                if self.step == self.config.steps and self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)  # the clock is to see the work done
                self.seconds += time.perf_counter() - began
                yield self.step

    def _advance(self, penalty: Callable[[DiffusionModel], Tensor] | None) -> None:
        clean, noise, times = self._batch()
        noisy = self.model.scheduler.add_noise(clean, noise, times)
        if self.device.type == "cuda":
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        ):
            predicted = self.network(noisy, times)
        target = self.model.target(clean, noise, times)
        error = mse_loss(predicted.float(), target, reduction="none").mean((1, 2, 3))
        loss = (self.model.loss_weight(times) * error).mean()
        self.losses[self.step] = loss.detach()
        if penalty is not None:
            loss = loss + _checked_penalty(penalty(self.model))
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(self.config, self.step)
        self.optimizer.step()
        self.ema.step(self.parameters.values())
        self.step += 1

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Clean images, noise and times of a step: the slice of them that this process takes."""
        size, levels = self.config.batch_size, self.model.config.train_timesteps
        drawn = torch.cat([deck.draw(self.generator) for deck in self.decks.values()])
        times = torch.randint(levels, (size,), generator=self.generator)
        # Noise is drawn where it is used, from a seed of this step: it has no state to save.
        seed = torch.randint(2**63 - 1, (), generator=self.generator)
        self.noise_generator.manual_seed(int(seed))
        noise = torch.randn(
            size, *self.pool.shape[1:], generator=self.noise_generator, device=self.device
        )
        clean = self.pool[drawn[self.slice].to(self.device)]
        return clean, noise[self.slice], times[self.slice].to(self.device)

    def averaged(self) -> DiffusionModel:
        """Copy of the model with the averaged weights, in evaluation mode."""
        averaged = copy.deepcopy(self.model)
        self.ema.copy_to(averaged.parameters())
        return averaged.eval()

    def finite_losses(self) -> Tensor:
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

    def save(self, path: Path, fingerprint: str) -> None:
        """Write all state to a file: whole, or not at all."""
        losses = self.finite_losses()
        if not self.accelerator.is_main_process:
            return
        tensors = {"generator": self.generator.get_state(), "losses": losses}
        tensors |= {f"deck.{name}": deck.order for name, deck in self.decks.items()}
        for part, values in self._parts().items():
            tensors |= {f"{part}.{name}": value for name, value in values.items()}
        state = {
            "fingerprint": fingerprint,
            "step": self.step,
            "seconds": self.seconds,
            "positions": {name: deck.position for name, deck in self.decks.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_file(
            {name: value.detach().contiguous() for name, value in tensors.items()},
            partial,
            metadata={"format": _FORMAT, "state": json.dumps(state)},
        )
        _to_disk(partial)
        os.replace(partial, path)
        _to_disk(path.parent)

    def load(self, path: Path, fingerprint: str) -> None:
        """Take all state from a file that :meth:`save` wrote for the same training."""
        tensors, metadata = _read(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError(
                f"checkpoint must be the state of a training, but {path} is something else; name "
                "another file or remove it."
            )
        state = json.loads(metadata["state"])
        if state["fingerprint"] != fingerprint:
            raise ValueError(
                f"checkpoint must belong to this training, but {path} is of one with another "
                "model, config, images or replay; name another file or remove it."
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.generator.set_state(tensors["generator"])
        self.losses[: self.step] = tensors["losses"].to(self.device)
        for name, deck in self.decks.items():
            deck.order, deck.position = tensors[f"deck.{name}"], state["positions"][name]
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
        return {
            "weights": self.parameters,
            "first_moment": {n: moments[p]["exp_avg"] for n, p in self.parameters.items()},
            "second_moment": {n: moments[p]["exp_avg_sq"] for n, p in self.parameters.items()},
            "average": dict(zip(self.parameters, self.ema.shadow_params, strict=True)),
        }


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


def _replayed(config: TrainingConfig) -> int:
    """Images of a batch that come from the replay buffer."""
    return round(config.replay_share * config.batch_size)


def _learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    rising = 1.0 if step >= config.warmup else (step + 1) / config.warmup
    falling_steps = config.decay * config.steps
    falling = 1.0 if falling_steps == 0 else min(1.0, (config.steps - step) / falling_steps)
    return config.learning_rate * min(rising, falling)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, only algorithms that give the same bits each time; on a CPU all of them do."""
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


def _check(
    model: DiffusionModel, images: Tensor, config: TrainingConfig, replay: Tensor | None
) -> None:
    for value, name, kind in (
        (model, "model", DiffusionModel),
        (config, "config", TrainingConfig),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, but is a {type(value).__name__}.")
    for parameter in model.parameters():
        if parameter.dtype != torch.float32:
            raise TypeError(
                f"model must be in float32, but has a parameter in {parameter.dtype}; call "
                "model.float() first."
            )
    _check_images(model, images, "images")
    if replay is not None:
        _check_images(model, replay, "replay")
        if _replayed(config) == 0:
            raise ValueError(
                f"replay_share must leave a place in each batch of {config.batch_size} for the "
                f"replay that is given, but is {config.replay_share}."
            )


def _check_images(model: DiffusionModel, value: Tensor, name: str) -> None:
    _checks.float_tensor(value, name)
    if value.dtype != torch.float32:
        raise TypeError(f"{name} must be in float32, but is in {value.dtype}; convert it.")
    shape = model.config.image_shape
    if value.ndim != 4 or value.shape[1:] != shape or len(value) == 0:
        raise ValueError(
            f"{name} must have shape (N, {', '.join(map(str, shape))}) with N at least 1, but has "
            f"shape {tuple(value.shape)}."
        )
    _checks.finite(value, name)
    low, high = (extreme.item() for extreme in torch.aminmax(value.detach()))
    if low < -1 or high > 1:
        raise ValueError(f"{name} must lie in [−1, 1], but reaches from {low} to {high}.")


def _checked_path(checkpoint: str | Path) -> Path:
    if not isinstance(checkpoint, str | Path):
        raise TypeError(f"checkpoint must be a path, but is a {type(checkpoint).__name__}.")
    path = Path(checkpoint)
    if path.suffix != ".safetensors":
        raise ValueError(f"checkpoint must end in .safetensors, but is {path}.")
    return path


def _checked_penalty(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 0:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"penalty must return a tensor with no dimensions, but returned {came}.")
    return value
