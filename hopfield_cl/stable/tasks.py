"""Captioned images in two tasks, and a judge that sees what a drawn image shows.

A source says what the images are: the book's scenes, whose density is known, or the photographs of
CIFAR-10, which are brought to the size of the pipeline. In both, task 1 is the first half of the
classes; a scene's class is its shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate

from hopfield_cl import _checks, data
from hopfield_cl.data import ImageSet
from hopfield_cl.data.scenes import FACTORS, decode, render, scenes, split, train_judge
from hopfield_cl.diffusion import quality

_SHAPES_OF_TASK_1 = FACTORS["shape"][: len(FACTORS["shape"]) // 2]
# Scenes to draw for each that is wanted: half of them show a shape of task 1, give or take.
_DRAWN_PER_SCENE, _DRAWN_BESIDES = 2.4, 50
_SMALLEST_SIZE = 8  # of a scene
_PHOTOGRAPHS = (
    *("an airplane", "an automobile", "a bird", "a cat", "a deer"),
    *("a dog", "a frog", "a horse", "a ship", "a truck"),
)
_JUDGE_STEPS = 4000  # of a classifier of photographs


@dataclass(frozen=True, eq=False)
class Examples:
    """Captioned images, with all that is known of them.

    Attributes
    ----------
    images : Tensor of float32, shape (N, 3, H, W)
        Pixel values from −1 to 1.
    captions : tuple of str
        One an image.
    labels : Tensor of int64, shape (N, F)
        Value of each factor that the source's judge tells.
    log_density : Tensor of float64, shape (N,), or None
        Logarithm of the probability of what is shown, where it is known.
    """

    images: Float[Tensor, "N 3 H W"]
    captions: tuple[str, ...]
    labels: Int[Tensor, "N F"]
    log_density: Float[Tensor, " N"] | None

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, chosen: slice | Int[Tensor, " n"]) -> Examples:
        numbers = torch.arange(len(self))[chosen].tolist()
        density = None if self.log_density is None else self.log_density[chosen]
        captions = tuple(self.captions[number] for number in numbers)
        return Examples(self.images[chosen], captions, self.labels[chosen], density)


@dataclass(frozen=True)
class CaptionedTask:
    """The captioned images of one task.

    Attributes
    ----------
    seen : Examples
        What the network learns from.
    held_out : Examples
        What it never sees.
    """

    seen: Examples
    held_out: Examples


Judge = Callable[[Float[Tensor, "N 3 H W"]], Int[Tensor, "N F"]]
"""Takes images; returns the value of each factor that they show."""


@dataclass(frozen=True)
class Source:
    """Where captioned images come from.

    Attributes
    ----------
    factors : tuple of str
        Names of what the judge tells. The first is the one that tasks are split by.
    spaces : tuple of str
        Where samples have an energy: "latent", and "caption" if captions differ within a class.
    tasks : callable
        Takes the size of the images in pixels, the numbers of seen and of held-out ones, and a
        seed; returns the two tasks.
    judge : callable
        Takes a seed and a device; returns a trained judge.
    """

    factors: tuple[str, ...]
    spaces: tuple[str, ...]
    tasks: Callable[[int, int, int, int], list[CaptionedTask]]
    judge: Callable[[int, torch.device], Judge]


def load_captioned_tasks(
    source: str, size: int, *, seen: int, held_out: int, seed: int
) -> list[CaptionedTask]:
    """Load the two tasks of a source.

    Parameters
    ----------
    source : {"scenes", "cifar10"}
        Which images. "cifar10" is read as by :func:`hopfield_cl.data.load`.
    size : int
        Height and width, in pixels, that the images are drawn in or brought to.
    seen, held_out : int
        Images of each task that are learnt from, and that are not; at least 1.
    seed : int
        Seed of which images there are.

    Returns
    -------
    list of CaptionedTask
        Two; on the CPU.

    Raises
    ------
    TypeError, ValueError
        If there is no such source, or a number is out of range or more than there are.
    ConnectionError
        If images are to be fetched and cannot be.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, but is {source!r}.")
    for value, name in ((size, "size"), (seen, "seen"), (held_out, "held_out")):
        _checks.integer_from(value, name, 1)
    _checks.integer_from(seed, "seed", 0)
    return SOURCES[source].tasks(size, seen, held_out, seed)


def _scene_tasks(size: int, seen: int, held_out: int, seed: int) -> list[CaptionedTask]:
    wanted = seen + held_out
    # Drawn as small as can be, and in full only what is wanted: large images take gigabytes.
    drawn = scenes(int(_DRAWN_PER_SCENE * wanted) + _DRAWN_BESIDES, seed=seed, size=_SMALLEST_SIZE)
    tasks = []
    for part in split(drawn, "shape", _SHAPES_OF_TASK_1):
        _check_enough(len(part), seen, held_out)
        factors, captions = part.factors[:wanted], part.captions[:wanted]
        images = render(factors, jitter=part.jitter[:wanted], size=size)
        every = Examples(images, captions, factors, part.log_density[:wanted])
        tasks.append(CaptionedTask(every[:seen], every[seen:]))
    return tasks


def _scene_judge(seed: int, device: torch.device) -> Judge:
    judge = train_judge(seed=seed).to(device)
    return lambda images: decode(judge, images)


def _photograph_tasks(size: int, seen: int, held_out: int, seed: int) -> list[CaptionedTask]:
    tasks = []
    generator = torch.Generator().manual_seed(seed)
    halves = data.split_tasks(data.load("cifar10"), len(_PHOTOGRAPHS) // 2)
    for task in halves:
        _check_enough(len(task), seen, held_out)
        chosen = torch.randperm(len(task), generator=generator)[: seen + held_out]
        labels = task.labels[chosen]
        captions = tuple(f"a photo of {_PHOTOGRAPHS[label]}" for label in labels.tolist())
        images = interpolate(task.images[chosen], (size, size), mode="bicubic").clamp(-1, 1)
        every = Examples(images, captions, labels[:, None], None)
        tasks.append(CaptionedTask(every[:seen], every[seen:]))
    return tasks


def _photograph_judge(seed: int, device: torch.device) -> Judge:
    every = data.load("cifar10")
    images = ImageSet(every.images.to(device), every.labels.to(device), every.name)
    judge = quality.train_classifier(images, seed=seed, steps=_JUDGE_STEPS)
    side = images.images.shape[-1]

    def judged(drawn: Tensor) -> Tensor:
        small = interpolate(drawn, (side, side), mode="area")
        return quality.predict(judge, small)[:, None]

    return judged


def _check_enough(count: int, seen: int, held_out: int) -> None:
    if count < seen + held_out:
        raise ValueError(
            f"seen and held_out must be at most {count} together, the images of a task, but are "
            f"{seen} and {held_out}."
        )


SOURCES = {
    "scenes": Source(tuple(FACTORS), ("latent", "caption"), _scene_tasks, _scene_judge),
    "cifar10": Source(("class",), ("latent",), _photograph_tasks, _photograph_judge),
}
