"""What a run was made with, in one line."""

from __future__ import annotations

import platform

import torch

import hopfield_cl


def versions() -> str:
    """Return the versions and the machine that a notebook's numbers depend on.

    Returns
    -------
    str
        Package, PyTorch and Python versions, device and number of threads.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return (
        f"hopfield_cl {hopfield_cl.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {device}, {torch.get_num_threads()} threads"
    )
