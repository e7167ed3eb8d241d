"""The forgetting run of chapter 12: which samples and which prompts are forgotten, one by one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from hopfield_cl.records.recording import Gallery, Recording
from hopfield_cl.runs.sd_laboratory import (
    PromptLaboratory,
    PromptRunConfig,
    laboratories,
    small,
)
from hopfield_cl.stable.tasks import SOURCES

_SIGNIFICANT = 9  # figures in the table
_RECORDED = PromptRunConfig()


def prompt_forgetting_run(
    config: PromptRunConfig = _RECORDED,
    *,
    device: str | torch.device = "cpu",
    work: str | Path = "_work/runs",
) -> Recording:
    """Fine-tune on task 1, then on task 2, and measure every held-out sample of task 1.

    Its energies in the space of latents and in that of captions stand beside the density it was
    drawn from; the error of its reconstruction before and after task 2, in latents and in pixels,
    beside whether its caption, as a prompt, is obeyed before and after.

    Parameters
    ----------
    config : PromptRunConfig
        Settings.
    device : str or torch.device
        Where to compute.
    work : path
        Folder for finished parts; a run that was killed goes on from them.

    Returns
    -------
    Recording
        One row a sample and seed.

    Raises
    ------
    ValueError, ConnectionError
        If the pipeline or the images are not there, or the settings do not fit them.

    References
    ----------
    Takeda, Oizumi & Karakida (2026), for energy against reconstruction error.
    """
    rows, gallery, details = [], Gallery(), {}
    labs = laboratories(config, device=device, work=work)
    for lab in tqdm(labs, total=len(config.seeds), desc="forgetting", unit="seed"):
        found = {"before": lab.before(), "after": lab.after()}
        rows += _rows(lab, found)
        if not details:
            shown = lab.tasks[0].held_out[lab.shown]
            details["rows"] = {"the image": gallery.add(small(shown.images))} | {
                f"drawn {when} task 2": gallery.add(one["pictures"]) for when, one in found.items()
            }
            details["prompts"] = list(shown.captions)
        details.setdefault("sigma", []).append(lab.sigma)
    details |= {"factors": list(SOURCES[config.dataset].factors), "time": config.time}
    details |= {
        "model": Path(config.model).name,
        "method": config.method,
        "guidance": config.guidance,
    }
    notes = (
        f"{config.dataset}, {config.method} fine-tuning; energies in nats at the likeliest noise "
        f"level of seen samples; parts took {lab.workspace.seconds:.0f} s in all; images are drawn "
        f"for held-out prompts of seed {config.seeds[0]}, from the highest energy to the lowest"
    )
    return Recording(rows, gallery.images(), details, config.seeds, notes)


def _rows(lab: PromptLaboratory, found: dict[str, dict[str, Tensor]]) -> list[dict[str, object]]:
    held_out = lab.tasks[0].held_out
    columns: dict[str, Tensor] = {}
    if held_out.log_density is not None:
        columns["log_density"] = held_out.log_density
    for space in SOURCES[lab.config.dataset].spaces:
        columns[f"energy_{space}"] = lab.energies(space, "held out")
        columns[f"energy_{space}_task2"] = lab.energies(space, "held out", of_task=1)
    for when, measured in found.items():
        columns[f"latent_{when}"] = measured["latent"]
        columns[f"pixel_{when}"] = measured["pixel"]
    listed = {name: values.tolist() for name, values in columns.items()}
    prompts, factors = lab.config.prompts, SOURCES[lab.config.dataset].factors
    rows = []
    for place, caption in enumerate(held_out.captions):
        row: dict[str, object] = {"seed": lab.seed, "index": place, "caption": caption}
        row |= {name: float(f"{all_[place]:.{_SIGNIFICANT}g}") for name, all_ in listed.items()}
        for when, measured in found.items():
            for number, factor in enumerate(factors):
                seen = int(measured["obeyed"][place, number]) if place < prompts else ""
                row[f"{factor}_{when}"] = seen
        rows.append(row)
    return rows
