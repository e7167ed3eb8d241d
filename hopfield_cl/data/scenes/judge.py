"""A judge: a small network that reads the factors off an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from hopfield_cl import _checks
from hopfield_cl.data.scenes._arguments import check_seed
from hopfield_cl.data.scenes.drawing import CELLS, render
from hopfield_cl.data.scenes.factors import FACTORS, JITTER

_JUDGE_SIZE = 64
_JUDGE_WIDTHS = (16, 32, 64)
_SEEN_IN_WHOLE = ("place", "background", "texture")
_SEEN_IN_PART = ("shape", "colour", "size")
_JUDGE_RATE = 4e-3
_JUDGE_NOISE = 0.2


class Judge(nn.Module):
    """Two convolutional networks that tell the factors of a scene.

    Images of any size are brought to 64 × 64 pixels. One network sees the whole at half of that
    resolution and tells place, background and texture; the other sees the 32 × 32 pixels around one
    of the nine places and tells shape, colour and size. The weights are drawn from PyTorch's
    default generator; :func:`train_judge` trains a judge.

    Attributes
    ----------
    whole, part : torch.nn.Sequential
        The networks, from 3 × 32 × 32 pixels to one logit for each value of each of their factors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whole = _network(sum(len(FACTORS[factor]) for factor in _SEEN_IN_WHOLE))
        self.part = _network(sum(len(FACTORS[factor]) for factor in _SEEN_IN_PART))

    def forward(
        self, images: Float[Tensor, "B 3 H W"], place: Int[Tensor, " B"] | None = None
    ) -> dict[str, Float[Tensor, "B V"]]:
        """Logits of the values of each factor.

        Parameters
        ----------
        images : Tensor, shape (B, 3, H, W)
            Images in [−1, 1].
        place : Tensor of int64, shape (B,), optional
            Place at which to look for the shape; where the first network finds it if not given.

        Returns
        -------
        dict of Tensor, shape (B, V)
            One for each of :data:`FACTORS`, V being the number of its values.
        """
        seen = _resized(images, _JUDGE_SIZE)
        logits = _by_factor(self.whole(_resized(seen, _JUDGE_SIZE // 2)), _SEEN_IN_WHOLE)
        if place is None:
            place = logits["place"].argmax(1)
        logits |= _by_factor(self.part(_window(seen, place)), _SEEN_IN_PART)
        return {factor: logits[factor] for factor in FACTORS}


def train_judge(*, seed: int, steps: int = 200, batch_size: int = 64) -> Judge:
    """Train a judge on scenes whose factors are all equally likely.

    So it has no leaning towards what is usual: a rare scene is judged as well as a common one. Half
    of what it sees is blurred, and all has some noise, as generated images have.

    Parameters
    ----------
    seed : int
        Seed of its weights and of what it sees, from 0 to 2⁶⁴ − 1; the same seed gives the same
        judge on the same machine with the same number of threads. PyTorch's default generator is
        left as it was.
    steps : int
        Gradient steps, at least 1, each on new scenes. 200 give above 99.9 % for each factor of new
        scenes.
    batch_size : int
        Scenes in a step, at least 2.

    Returns
    -------
    Judge
        On the CPU, in evaluation mode.

    Raises
    ------
    TypeError, ValueError
        If a number is not of its kind or out of range.

    References
    ----------
    Ioffe & Szegedy (2015), *Batch Normalization*; Smith & Topin (2018) for the rate that rises and
    falls once.
    """
    check_seed(seed)
    _checks.integer_from(steps, "steps", 1)
    _checks.integer_from(batch_size, "batch_size", 2)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        judge = Judge().train()
    optimiser = torch.optim.AdamW(judge.parameters(), _JUDGE_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _JUDGE_RATE, total_steps=steps + 1)
    for _ in range(steps):
        drawn = torch.rand(batch_size, len(FACTORS), generator=generator, dtype=torch.float64)
        factors = (drawn * torch.tensor([len(values) for values in FACTORS.values()])).long()
        jitter = torch.rand(batch_size, len(JITTER), generator=generator)
        images = _degrade(render(factors, jitter=jitter, size=_JUDGE_SIZE), generator)
        logits = judge(images, factors[:, list(FACTORS).index("place")])
        optimiser.zero_grad(set_to_none=True)
        pairs = zip(logits.values(), factors.T, strict=True)
        sum(cross_entropy(some, truth) for some, truth in pairs).backward()
        optimiser.step()
        schedule.step()
    return judge.eval()


def decode(
    judge: Judge, images: Float[Tensor, "N 3 H W"], *, batch_size: int = 256
) -> Int[Tensor, "N 6"]:
    """Find the factors that images show, as a judge sees them.

    ``(decode(judge, images) == parse(prompts)).double().mean(0)`` is, for full captions as prompts,
    the share of them that each factor of the images obeys.

    Parameters
    ----------
    judge : Judge
        A trained judge; it is left in the mode it was in.
    images : Tensor of float32, shape (N, 3, H, W)
        Images in [−1, 1] of any size, on the device of the judge.
    batch_size : int
        Images at a time; changes the result by no more than rounding.

    Returns
    -------
    Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind or the images have another shape.
    """
    if not isinstance(judge, Judge):
        raise TypeError(f"judge must be a Judge, but is a {type(judge).__name__}.")
    _checks.float_tensor(images, "images")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(
            "images must have shape (N, 3, H, W) with N at least 1, but has shape "
            f"{tuple(images.shape)}."
        )
    _checks.same_kind(images, "images", next(judge.parameters()), "the judge")
    _checks.finite(images, "images")
    _checks.integer_from(batch_size, "batch_size", 1)
    was_training = judge.training
    judge.eval()
    with torch.no_grad():
        found = [
            torch.stack([logits.argmax(1) for logits in judge(batch).values()], dim=1)
            for batch in images.split(batch_size)
        ]
    judge.train(was_training)
    return torch.cat(found)


def _network(values: int) -> nn.Sequential:
    layers, wide, side = [], 3, _JUDGE_SIZE // 2
    for wider in _JUDGE_WIDTHS:
        convolution = nn.Conv2d(wide, wider, 4, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(wider), nn.ReLU()]
        wide, side = wider, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide * side**2, values))


def _by_factor(logits: Tensor, factors: Sequence[str]) -> dict[str, Tensor]:
    parts = logits.split([len(FACTORS[factor]) for factor in factors], dim=1)
    return dict(zip(factors, parts, strict=True))


def _resized(images: Tensor, size: int) -> Tensor:
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def _window(images: Tensor, place: Tensor) -> Tensor:
    """Half of the image's height and width, around the middle of a place."""
    side = images.shape[-1]
    starts = torch.tensor([round(side * (cell - 0.25)) for cell in CELLS], device=images.device)
    steps = torch.arange(side // 2, device=images.device)
    rows, columns = (starts[third, None] + steps for third in (place // 3, place % 3))
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    picked = images.movedim(1, -1)[sample, rows[:, :, None], columns[:, None, :]]
    return picked.movedim(-1, 1).contiguous()


def _degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur each second image by half its resolution; add noise of random strength to all."""
    images = images.clone()
    images[::2] = _resized(_resized(images[::2], _JUDGE_SIZE // 2), _JUDGE_SIZE)
    strength = _JUDGE_NOISE * torch.rand(len(images), 1, 1, 1, generator=generator)
    return images + strength * torch.randn(images.shape, generator=generator)
