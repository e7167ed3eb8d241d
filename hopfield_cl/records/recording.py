"""The result of a full-scale run, until it is written, and the small images that it shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hopfield_cl.records import provenance

_GREYS = 16


@dataclass(frozen=True)
class Recording:
    """What a run found.

    Attributes
    ----------
    rows : list of dict
        One for each step, strategy and budget: these three, then each measure and its standard
        error over seeds as ``name_error``, then ``images``, the numbers of its examples' images.
    images : array of uint8, shape (T, h, w)
        Each image that occurs, once.
    details : dict
        Labels of axes and measures, names of the examples, and the images that do not vary.
    seeds : tuple of int
        Seeds of all random numbers.
    notes : str
        What a reader must know besides.
    per_seed : list of dict
        Rows of a second table, from which the first follows, if there is one: one for each seed.
    """

    rows: list[dict[str, object]]
    images: UInt8[np.ndarray, "T h w ..."]
    details: dict[str, object]
    seeds: tuple[int, ...]
    notes: str
    per_seed: list[dict[str, object]] = field(default_factory=list)

    def save(self, table: str | Path, *, seconds: float) -> None:
        """Write table, provenance and images; see :func:`hopfield_cl.records.provenance.record`.

        Parameters
        ----------
        table : path
            The CSV file; the others go beside it, a table of each seed under its name and _seeds.
        seconds : float
            How long the run took.
        """
        if self.per_seed:
            table = Path(table)
            each = table.with_name(f"{table.stem}_seeds.csv")
            options = {"seeds": self.seeds, "seconds": seconds, "notes": self.notes}
            provenance.record(each, self.per_seed, **options)
        provenance.record(
            table,
            self.rows,
            seeds=self.seeds,
            seconds=seconds,
            notes=self.notes,
            details=self.details,
            images=self.images,
        )


class Gallery:
    """Small images, each kept once, in few shades: equal to the eye, a third of the bytes.

    Attributes
    ----------
    shape : tuple of int
        Height, width and, in colour, channels of the images; empty before the first.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.shape: tuple[int, ...] = ()

    def add(self, images: Float[Tensor, "E C H W"]) -> list[int]:
        """Keep images in [−1, 1]; return their numbers."""
        shades = ((images.clamp(-1, 1) + 1) / 2 * (_GREYS - 1)).round() * (255 / (_GREYS - 1))
        pixels = shades.to(torch.uint8).cpu().movedim(1, -1)
        pixels = pixels.squeeze(-1).numpy() if pixels.shape[-1] == 1 else pixels.numpy()
        self.shape = pixels.shape[1:]
        return [
            self._numbers.setdefault(image.tobytes(), len(self._numbers))
            for image in np.ascontiguousarray(pixels)
        ]

    def images(self) -> UInt8[np.ndarray, "T h w ..."]:
        """All that were kept, in the order of their numbers."""
        return np.frombuffer(b"".join(self._numbers), np.uint8).reshape(-1, *self.shape)
