"""Results of the parts of a long run, kept in files, so that a run that was killed goes on."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


class Workspace:
    """A folder of finished parts.

    It is named after the settings, the version of the run and that of PyTorch: when one of them
    changes, nothing that was made before is read.

    Parameters
    ----------
    folder : path
        Where workspaces lie.
    settings : object
        What the parts depend on; its ``repr`` must say all of it.
    version : int
        Number that a run states, and raises when it computes something else under the same
        settings.

    Attributes
    ----------
    folder : Path
        The workspace itself.
    """

    def __init__(self, folder: str | Path, settings: object, *, version: int) -> None:
        key = f"{settings!r}\nversion {version}\ntorch {torch.__version__}"
        digest = hashlib.sha256(key.encode()).hexdigest()
        self.folder = Path(folder) / digest[:16]
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """How long the parts that were asked for took to compute, whenever that was."""
        return self._seconds

    def path(self, name: str) -> Path:
        """Where a part lies, or a training's own checkpoint."""
        path = self.folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def part(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Read a part, or compute and keep it.

        Parameters
        ----------
        name : str
            Its name, with slashes for folders.
        compute : callable
            Takes nothing; returns tensors by name. It must not depend on anything random that the
            settings do not fix.

        Returns
        -------
        dict of Tensor
            The tensors, on the CPU.

        Raises
        ------
        safetensors.SafetensorError
            If the file of the part is no whole safetensors file; delete it.
        """
        path = self.path(name)
        if not path.exists():
            began = time.perf_counter()
            tensors = {key: value.detach().cpu().contiguous() for key, value in compute().items()}
            unfinished = path.with_suffix(f".{os.getpid()}.tmp")
            save_file(tensors, unfinished, {"seconds": f"{time.perf_counter() - began:.6f}"})
            os.replace(unfinished, path)
        with safe_open(path, framework="pt") as file:
            self._seconds += float(file.metadata()["seconds"])
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
