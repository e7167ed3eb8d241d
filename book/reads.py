"""Runs at the start of each kernel of the build: no recorded file is read undeclared.

A notebook that reads what was recorded or trained says so in its metadata, as staleness.py tells;
by that the build knows when to run it again.
"""

import os
import sys

_ROOT = os.environ["HOPFIELD_CL_BUILD"]
_DECLARED = tuple(filter(None, os.environ["HOPFIELD_CL_READS"].split(",")))


def _watch(event: str, arguments: tuple) -> None:
    if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    name = os.path.relpath(os.path.abspath(os.fsdecode(arguments[0])), _ROOT).replace(os.sep, "/")
    if name.split("/")[0] not in ("results", "checkpoints"):
        return
    if not any(name == d or name.startswith((f"{d}.", f"{d}/")) for d in _DECLARED):
        raise PermissionError(
            f'{name} must be declared in the notebook\'s metadata, "hopfield_cl": {{"reads": '
            f'["{os.path.splitext(name)[0]}"]}}, but is not: the build could not know when to run '
            "the notebook again."
        )


sys.addaudithook(_watch)
