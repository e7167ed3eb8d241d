"""The progress bars of the libraries below, held back while a pipeline is written or read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

_LIBRARIES = (diffusers_logging, transformers_logging)


@contextmanager
def without_bars() -> Iterator[None]:
    """Have diffusers and transformers show no progress bars of their own."""
    shown = [library for library in _LIBRARIES if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
