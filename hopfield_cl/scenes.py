"""Captioned colour images whose distribution is known, and a judge of what an image shows.

A scene is one coloured shape on a textured background. Six factors say what it shows and seven
numbers between 0 and 1, its jitter, say how. The factors f are drawn with probability

    P(f) = (1/Z) Π_k m_k(f_k) · s(shape, colour) · s(background, texture),

a product of marginal weights m_k, in which some values are rarer than others, and of two
interactions: s is 1/10 for the two colours that a shape seldom takes (a circle is seldom green or
cyan) and for the texture that a background seldom takes (white is seldom dotted), and 1 for all
others. A seldom pair of either kind makes a rare scene, both together a very rare one. The shapes
are equally likely, and so are tasks of equally many shapes. The jitter is uniform on the unit cube
and independent of the factors, so log P(f) is also the log-density of factors and jitter together,
which determine the image. It says nothing of a density of pixels.

Sample i comes from block i of a counter-based generator under the key ``seed``: it is the same
however many samples are drawn, in whatever portions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from hopfield_cl import _checks

FACTORS = MappingProxyType(
    {
        "shape": ("circle", "square", "triangle", "star", "cross", "ring"),
        "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
        "size": ("small", "large"),
        "place": (
            *("top left", "top", "top right"),
            *("left", "centre", "right"),
            *("bottom left", "bottom", "bottom right"),
        ),
        "background": ("white", "grey", "black", "brown"),
        "texture": ("plain", "striped", "checked", "dotted"),
    }
)
"""Each factor's name and its values' names, in the order of the columns of ``factors``."""

JITTER = ("across", "down", "radius", "angle", "phase across", "phase down", "tone")
"""What the columns of ``jitter`` move: the shape, the texture, the background's brightness."""

# The density: weights of the values of each factor, and how much rarer a seldom pair is.
_WEIGHTS = (
    (1,) * 6,
    (1,) * 8,
    (1, 1),
    (1, 1, 1, 1, 2, 1, 1, 1, 1),
    (4, 3, 2, 1),
    (4, 2, 2, 2),
)
_SELDOM = 0.1
# Shape j seldom takes the colours j + 3 and j + 4 (mod 8); background j the texture 3 − j.
_SELDOM_COLOURS = (3, 4)

# What is drawn, in sRGB from 0 to 1 and in widths of the image.
_COLOURS = (
    (0.88, 0.08, 0.08),
    (1.00, 0.52, 0.02),
    (1.00, 0.90, 0.10),
    (0.10, 0.62, 0.15),
    (0.05, 0.82, 0.88),
    (0.08, 0.20, 0.92),
    (0.50, 0.12, 0.68),
    (1.00, 0.52, 0.76),
)
_GROUNDS = ((0.96, 0.96, 0.96), (0.55, 0.55, 0.55), (0.05, 0.05, 0.05), (0.40, 0.24, 0.10))
# The second tone of a texture, as a step from the first.
_SECOND_TONE = (-0.18, -0.14, 0.20, -0.11)
_TONE = 0.03
_CELLS = (0.28, 0.5, 0.72)
_SHIFT = 0.02
_RADII = ((0.115, 0.130), (0.180, 0.195))
_LARGEST_ANGLE = math.pi / 15
_STRIPE, _CHECK, _DOT, _DOT_RADIUS = 0.18, 0.28, 0.18, 0.05

_DRAWS = 8  # numbers a sample takes: one for the factors, seven for the jitter
_LARGEST_SEED = 2**64 - 1
_SMALLEST_SIZE = 8
# Pixels drawn at a time: keeps the temporaries small at any count.
_PIXELS_PER_BLOCK = 2**17

_JUDGE_SIZE = 64
_JUDGE_WIDTHS = (16, 32, 64)
_SEEN_IN_WHOLE = ("place", "background", "texture")
_SEEN_IN_PART = ("shape", "colour", "size")
_JUDGE_RATE = 4e-3
_JUDGE_NOISE = 0.2


@dataclass(frozen=True)
class SceneSet:
    """Scenes with all that is known of them.

    Attributes
    ----------
    images : Tensor of float32, shape (N, 3, H, W)
        Pixel values from −1 to 1.
    factors : Tensor of int64, shape (N, 6)
        What each image shows: indices into the values of :data:`FACTORS`.
    jitter : Tensor of float32, shape (N, 7)
        How it shows it, each number from 0 to 1, in the order of :data:`JITTER`.
    captions : tuple of str
        The factors in words.
    log_density : Tensor of float64, shape (N,)
        Natural logarithm of the probability of the factors, and of the density of factors and
        jitter together. The lower, the more of an outlier.
    """

    images: Float[Tensor, "N 3 H W"]
    factors: Int[Tensor, "N 6"]
    jitter: Float[Tensor, "N 7"]
    captions: tuple[str, ...]
    log_density: Float[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.captions)


def scenes(count: int, *, seed: int, size: int = 64, start: int = 0) -> SceneSet:
    """Draw scenes from the generating distribution.

    Parameters
    ----------
    count : int
        Number of scenes, at least 1. At 64 pixels a thousand of them take 49 MB; :func:`stream`
        draws them in portions.
    seed : int
        From 0 to 2⁶⁴ − 1.
    size : int
        Height and width in pixels, at least 8. The scene is the same at any size.
    start : int
        Number of the first scene. ``scenes(10, seed=s, start=5)`` are the last ten of
        ``scenes(15, seed=s)``.

    Returns
    -------
    SceneSet
        On the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is no integer or out of range.

    References
    ----------
    Salmon et al. (2011), *Parallel Random Numbers: As Easy as 1, 2, 3*, for the generator, Philox.
    """
    _check_draw(count, seed, size, start)
    factors, jitter = _draw(count, seed, start)
    images = render(factors, jitter=jitter, size=size)
    return SceneSet(images, factors, jitter, captions(factors), log_probability(factors))


def stream(
    count: int, batch_size: int, *, seed: int, size: int = 64, start: int = 0
) -> Iterator[SceneSet]:
    """Draw scenes batch by batch: no more than one batch is in memory.

    Parameters
    ----------
    count : int
        Number of scenes in all, at least 1.
    batch_size : int
        Scenes in a batch, at least 1; the last one may have fewer.
    seed, size, start
        As for :func:`scenes`.

    Returns
    -------
    iterator of SceneSet
        One after the other they are ``scenes(count, ...)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is no integer or out of range.
    """
    _check_draw(count, seed, size, start)
    _checks.integer_from(batch_size, "batch_size", 1)
    return (
        scenes(min(batch_size, count - done), seed=seed, size=size, start=start + done)
        for done in range(0, count, batch_size)
    )


def probabilities() -> Float[Tensor, "6 8 2 9 4 4"]:
    """Probability of each combination of factors.

    Returns
    -------
    Tensor of float64, shape (6, 8, 2, 9, 4, 4)
        P(f), one axis a factor, in the order of :data:`FACTORS`; the entries sum to 1.
    """
    table = torch.ones((), dtype=torch.float64)
    for weights in _WEIGHTS:
        table = table[..., None] * torch.tensor(weights, dtype=torch.float64)
    axes = [torch.arange(length) for length in table.shape]
    shape, colour, _, _, background, texture = torch.meshgrid(*axes, indexing="ij")
    seldom_colour = torch.isin((colour - shape) % len(_COLOURS), torch.tensor(_SELDOM_COLOURS))
    seldom_texture = background + texture == len(_GROUNDS) - 1
    table = table * _SELDOM ** (seldom_colour.double() + seldom_texture.double())
    return table / table.sum()


def log_probability(factors: Int[Tensor, "N 6"]) -> Float[Tensor, " N"]:
    """Logarithm of the probability of factors, log P(f).

    Parameters
    ----------
    factors : Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`.

    Returns
    -------
    Tensor of float64, shape (N,)
        In nats.

    Raises
    ------
    TypeError, ValueError
        If the factors are no such matrix or an index is out of range.
    """
    _check_factors(factors, lowest=0)
    return probabilities().log().to(factors.device)[tuple(factors.T)]


def render(
    factors: Int[Tensor, "N 6"], *, jitter: Float[Tensor, "N 7"] | None = None, size: int = 64
) -> Float[Tensor, "N 3 size size"]:
    """Draw the images that factors describe.

    Each edge is as wide as a pixel: a pixel's coverage is read off its distance to the edge.

    Parameters
    ----------
    factors : Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`, as :func:`parse` finds them in full captions.
    jitter : Tensor of float32, shape (N, 7), optional
        Numbers from 0 to 1 in the order of :data:`JITTER`. All ½ if not given: each shape upright,
        in the middle of its cell and of its range of sizes.
    size : int
        Height and width in pixels, at least 8.

    Returns
    -------
    Tensor of float32, shape (N, 3, size, size)
        Images in [−1, 1], on the device of the factors.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind, a shape or device does not fit, or a value is out of
        range.
    """
    _check_factors(factors, lowest=0)
    _checks.integer_from(size, "size", _SMALLEST_SIZE)
    if jitter is None:
        jitter = torch.full((len(factors), len(JITTER)), 0.5, device=factors.device)
    _check_jitter(jitter, factors)
    block = max(1, _PIXELS_PER_BLOCK // size**2)
    pairs = zip(factors.split(block), jitter.split(block), strict=True)
    return torch.cat([_draw_block(some, how, size) for some, how in pairs])


def captions(factors: Int[Tensor, "N 6"]) -> tuple[str, ...]:
    """Say factors in words: "a small red star on a striped grey background, top left".

    Parameters
    ----------
    factors : Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`; −1 for what shall not be said: "a red shape",
        "a star on a grey background".

    Returns
    -------
    tuple of str
        One caption a row.

    Raises
    ------
    TypeError, ValueError
        If the factors are no such matrix or an index is out of range.
    """
    _check_factors(factors, lowest=-1)
    return tuple(_caption(row) for row in factors.tolist())


def parse(captions: Sequence[str]) -> Int[Tensor, "N 6"]:
    """Read the factors from captions; the inverse of :func:`captions`.

    Parameters
    ----------
    captions : sequence of str
        Captions of the form "a [size] [colour] SHAPE [on a [texture] [background] background][,
        place]", in which SHAPE is the name of one or the word "shape".

    Returns
    -------
    Tensor of int64, shape (N, 6)
        Indices into the values of :data:`FACTORS`; −1 for what a caption does not say.

    Raises
    ------
    TypeError, ValueError
        If ``captions`` is no sequence of strings, is empty, or one has another form.
    """
    if isinstance(captions, str) or not isinstance(captions, Sequence):
        raise TypeError(
            f"captions must be a sequence of strings, but is a {type(captions).__name__}."
        )
    if not captions:
        raise ValueError("captions must hold at least one caption, but is empty.")
    return torch.tensor([_factors_said(caption) for caption in captions], dtype=torch.int64)


def split(drawn: SceneSet, factor: str, values: Sequence[str]) -> tuple[SceneSet, SceneSet]:
    """Split scenes into two tasks by one factor.

    The log-densities stay those of the whole distribution; within a task they differ from its own
    by a constant, the log-probability of the task.

    Parameters
    ----------
    drawn : SceneSet
        What to split.
    factor : str
        A name in :data:`FACTORS`.
    values : sequence of str
        Names of the factor's values in the first task; all others go to the second.

    Returns
    -------
    first, second : SceneSet
        In the order of ``drawn``; one of them may be empty.

    Raises
    ------
    TypeError, ValueError
        If ``drawn`` is no set of scenes, or there is no such factor or value.
    """
    if not isinstance(drawn, SceneSet):
        raise TypeError(f"drawn must be a SceneSet, but is a {type(drawn).__name__}.")
    if factor not in FACTORS:
        raise ValueError(f"factor must be one of {', '.join(FACTORS)}, but is {factor!r}.")
    if isinstance(values, str):
        raise TypeError(f"values must be a sequence of names, but is the string {values!r}.")
    known, wanted = FACTORS[factor], list(values)
    unknown = [value for value in wanted if value not in known]
    if unknown:
        raise ValueError(f"values must be some of {', '.join(known)}, but hold {unknown[0]!r}.")
    column = drawn.factors[:, list(FACTORS).index(factor)]
    chosen = torch.isin(column, column.new_tensor([known.index(value) for value in wanted]))
    return _part(drawn, chosen), _part(drawn, ~chosen)


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
    _check_seed(seed)
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


def _draw(count: int, seed: int, start: int) -> tuple[Tensor, Tensor]:
    """Factors (count, 6) and jitter (count, 7) of the samples from ``start`` on."""
    # One step of Philox's counter gives four numbers.
    counter = start * _DRAWS // 4
    raw = np.random.Philox(key=seed, counter=counter).random_raw(count * _DRAWS)
    uniform = torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53).reshape(count, _DRAWS)
    table = probabilities()
    # Rounding may leave the last sum below 1.
    cumulative = table.flatten().cumsum(0)[:-1].contiguous()
    combination = torch.searchsorted(cumulative, uniform[:, 0].contiguous(), right=True)
    factors = torch.stack(torch.unravel_index(combination, table.shape), dim=1)
    return factors, uniform[:, 1:].float()


def _draw_block(factors: Tensor, jitter: Tensor, size: int) -> Float[Tensor, "N 3 size size"]:
    shape, colour, large, place, background, texture = factors.T
    across, down, radius, angle, phase_across, phase_down, tone = jitter.T[:, :, None, None]
    centres = (torch.arange(size, device=factors.device) + 0.5) / size
    x, y = centres[None, None, :], centres[None, :, None]

    def table(values: Sequence) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=factors.device)

    # The background, in two tones.
    first = table(_GROUNDS)[background] + _TONE * (2 * tone[:, 0] - 1)
    second = first + table(_SECOND_TONE)[background, None]
    ground = _mix(first, second, _by_kind(texture, _TEXTURES, x, y, phase_across, phase_down), size)

    # The shape, in coordinates that are turned with it and in which its radius is 1.
    cells = table(_CELLS)
    x = x - cells[place % 3, None, None] - _SHIFT * (2 * across - 1)
    y = y - cells[place // 3, None, None] - _SHIFT * (2 * down - 1)
    low, high = table(_RADII)[large, :, None, None].unbind(1)
    unit = low + (high - low) * radius
    turn = _LARGEST_ANGLE * (2 * angle - 1)
    u = (turn.cos() * x + turn.sin() * y) / unit
    v = (turn.cos() * y - turn.sin() * x) / unit
    depth = unit * _by_kind(shape, _SHAPES, u, v)
    return 2 * _mix(ground, table(_COLOURS)[colour], depth, size).clamp(0, 1) - 1


def _mix(below: Tensor, above: Tensor, depth: Tensor, size: int) -> Tensor:
    """Lay a colour over another; ``depth`` is the distance inside its edge, negative outside."""
    cover = (0.5 + size * depth[:, None]).clamp(0, 1)
    under = below if below.ndim == 4 else below[:, :, None, None]
    return under + cover * (above[:, :, None, None] - under)


def _by_kind(kinds: Tensor, functions: Sequence, *arguments: Tensor) -> Tensor:
    """Evaluate for each row the function of its kind, each function once on all its rows."""
    rows = torch.broadcast_tensors(*arguments)
    value = torch.empty_like(rows[0])
    for kind, function in enumerate(functions):
        chosen = (kinds == kind).nonzero()[:, 0]
        value[chosen] = function(*(row[chosen] for row in rows))
    return value


# Shapes: distance inside the edge of a shape of radius about 1, at (u, v) with v pointing down. The
# radii make them look equally large. Outside a corner it is the distance to the nearer edge's line,
# which leaves corners sharp.


def _disc(u: Tensor, v: Tensor) -> Tensor:
    return 0.92 - torch.hypot(u, v)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return 0.22 - (torch.hypot(u, v) - 0.80).abs()


def _cross(u: Tensor, v: Tensor) -> Tensor:
    long, wide = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    # In the bar that points our way, or in the middle of both.
    return torch.minimum(1.04 - long, 0.36 - wide)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return 0.82 - torch.maximum(u.abs(), v.abs())


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return _star_polygon(u, v, points=3, outer=1.20, inner=0.60)


def _star(u: Tensor, v: Tensor) -> Tensor:
    return _star_polygon(u, v, points=5, outer=1.22, inner=0.52)


def _star_polygon(u: Tensor, v: Tensor, *, points: int, outer: float, inner: float) -> Tensor:
    """A star with one tip up; with inner = outer · cos(π/points) it is a regular polygon."""
    half = math.pi / points
    # Folded onto half of one tip, all edges are the one from (outer, 0) to the next inner corner.
    angle = torch.remainder(torch.atan2(u, -v) + half, 2 * half) - half
    radius = torch.hypot(u, v)
    along, aside = radius * angle.cos(), radius * angle.abs().sin()
    step_along, step_aside = inner * math.cos(half) - outer, inner * math.sin(half)
    length = math.hypot(step_along, step_aside)
    return (step_along * aside - step_aside * (along - outer)) / length


# Textures: distance inside the part that has the second tone, at (x, y) and phases from 0 to 1.


def _plain(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    return torch.full_like(x, -1.0)


def _striped(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    return _wave((x + y) / math.sqrt(2), across, _STRIPE)


def _checked(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    columns, rows = _wave(x, across, _CHECK), _wave(y, down, _CHECK)
    return (columns * rows).sign() * torch.minimum(columns.abs(), rows.abs())


def _dotted(x: Tensor, y: Tensor, across: Tensor, down: Tensor) -> Tensor:
    columns, rows = (_from_middle(z, p, _DOT) for z, p in ((x, across), (y, down)))
    return _DOT_RADIUS - torch.hypot(columns, rows)


def _from_middle(position: Tensor, phase: Tensor, period: float) -> Tensor:
    """Distance to the nearest middle of a period."""
    return period * (torch.remainder(position / period + phase, 1) - 0.5).abs()


def _wave(position: Tensor, phase: Tensor, period: float) -> Tensor:
    """Distance inside the middle half of each period, negative in the other half."""
    return period / 4 - _from_middle(position, phase, period)


_SHAPES = (_disc, _square, _triangle, _star, _cross, _ring)
_TEXTURES = (_plain, _striped, _checked, _dotted)


def _caption(row: Sequence[int]) -> str:
    said = [
        values[index] if index >= 0 else ""
        for index, values in zip(row, FACTORS.values(), strict=True)
    ]
    shape, colour, size, place, background, texture = said
    thing = " ".join(word for word in (size, colour, shape or "shape") if word)
    words = [f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"]
    if background or texture:
        ground = " ".join(word for word in (texture, background, "background") if word)
        words.append(f"on a {ground}")
    return " ".join(words) + (f", {place}" if place else "")


def _one_of(factor: str) -> str:
    return f"(?P<{factor}>{'|'.join(FACTORS[factor])})"


_GRAMMAR = re.compile(
    f"an? (?:{_one_of('size')} )?(?:{_one_of('colour')} )?(?:{_one_of('shape')}|shape)"
    f"(?: on a (?:{_one_of('texture')} )?(?:{_one_of('background')} )?background)?"
    f"(?:, {_one_of('place')})?"
)


def _factors_said(caption: str) -> list[int]:
    if not isinstance(caption, str):
        raise TypeError(f"captions must hold strings, but holds a {type(caption).__name__}.")
    found = _GRAMMAR.fullmatch(caption)
    if found is None:
        raise ValueError(
            f"captions must read like 'a small red star on a striped grey background, top left', "
            f"but one is {caption!r}."
        )
    return [
        -1 if found[factor] is None else values.index(found[factor])
        for factor, values in FACTORS.items()
    ]


def _part(drawn: SceneSet, chosen: Tensor) -> SceneSet:
    said = tuple(drawn.captions[i] for i in chosen.nonzero()[:, 0].tolist())
    tensors = (drawn.images, drawn.factors, drawn.jitter)
    images, factors, jitter = (tensor[chosen] for tensor in tensors)
    return SceneSet(images, factors, jitter, said, drawn.log_density[chosen])


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
    starts = torch.tensor([round(side * (cell - 0.25)) for cell in _CELLS], device=images.device)
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


def _check_draw(count: int, seed: int, size: int, start: int) -> None:
    _checks.integer_from(count, "count", 1)
    _check_seed(seed)
    _checks.integer_from(size, "size", _SMALLEST_SIZE)
    _checks.integer_from(start, "start", 0)


def _check_seed(seed: int) -> None:
    _checks.integer_from(seed, "seed", 0)
    if seed > _LARGEST_SEED:
        raise ValueError(f"seed must be at most 2⁶⁴ − 1, but is {seed}.")


def _check_factors(factors: Tensor, *, lowest: int) -> None:
    if not isinstance(factors, Tensor) or factors.dtype != torch.int64:
        kind = factors.dtype if isinstance(factors, Tensor) else type(factors).__name__
        raise TypeError(f"factors must be a torch.Tensor of int64, but is of {kind}.")
    if factors.ndim != 2 or factors.shape[1] != len(FACTORS) or len(factors) == 0:
        raise ValueError(
            f"factors must have shape (N, {len(FACTORS)}) with N at least 1, one scene a row, but "
            f"has shape {tuple(factors.shape)}."
        )
    for column, (name, values) in zip(factors.T, FACTORS.items(), strict=True):
        low, high = int(column.min()), int(column.max())
        if low < lowest or high >= len(values):
            raise ValueError(
                f"factors must have a {name} from {lowest} to {len(values) - 1}, but holds "
                f"{low if low < lowest else high}."
            )


def _check_jitter(jitter: Tensor, factors: Tensor) -> None:
    if not isinstance(jitter, Tensor) or jitter.dtype != torch.float32:
        kind = jitter.dtype if isinstance(jitter, Tensor) else type(jitter).__name__
        raise TypeError(f"jitter must be a torch.Tensor of float32, but is of {kind}.")
    if jitter.shape != (len(factors), len(JITTER)):
        raise ValueError(
            f"jitter must have shape ({len(factors)}, {len(JITTER)}), one row for each row of "
            f"factors, but has shape {tuple(jitter.shape)}."
        )
    if jitter.device != factors.device:
        raise ValueError(
            f"jitter must be on the device of factors, {factors.device}, but is on {jitter.device}."
        )
    inside = (jitter >= 0) & (jitter <= 1)  # false for NaN
    if not bool(inside.all()):
        raise ValueError(f"jitter must lie between 0 and 1, but holds {jitter[~inside][0].item()}.")
