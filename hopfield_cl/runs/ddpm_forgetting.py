"""The run of chapter 10: which samples a diffusion model forgets, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from hopfield_cl import _checks
from hopfield_cl.diffusion.checkpoints import save_model
from hopfield_cl.diffusion.continual import learn_next
from hopfield_cl.diffusion.energies import denoising_energy, flow_energy
from hopfield_cl.diffusion.models import DiffusionModel
from hopfield_cl.diffusion.noise import as_denoiser
from hopfield_cl.diffusion.quality import accuracy
from hopfield_cl.diffusion.sampling import reconstruct
from hopfield_cl.records.recording import Gallery, Recording
from hopfield_cl.records.workspace import Workspace
from hopfield_cl.runs.ddpm_laboratory import VERSION, Laboratory, RunConfig

_SIGNIFICANT = 6  # figures in the table
_LARGEST_SIGMA = 80.0  # where the data are all but noise
# Fewer than by default: the range from the likeliest σ up is short, and the network smooth.
_FLOW_STEPS, _LEVELS = 10, 16
_BATCH = 64


@dataclass(frozen=True)
class ForgettingConfig(RunConfig):
    """Settings of :func:`forgetting_run`.

    Attributes
    ----------
    dataset, seeds, times, probes, generated
        As for :class:`hopfield_cl.runs.ddpm_laboratory.RunConfig`.
    factors : tuple of float
        Noise levels at which the data set's energy is measured, as multiples of the likeliest; it
        must hold 1.
    examples : int
        Samples whose images are shown.
    """

    times: tuple[int, ...] = (599, 199, 399, 799)
    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    examples: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for factor in self.factors:
            _checks.positive_number(factor, "factors")
        if 1.0 not in self.factors:
            raise ValueError(f"factors must hold 1.0, but is {self.factors}.")
        _checks.integer_from(self.examples, "examples", 1)


def forgetting_run(
    config: ForgettingConfig = ForgettingConfig(),
    *,
    device: str | torch.device = "cpu",
    work: str | Path = "_work/runs",
    models: str | Path | None = None,
) -> Recording:
    """Train on task 1, then on task 2 without replay, and measure each sample of task 1.

    Parameters
    ----------
    config : ForgettingConfig
        Settings.
    device : str or torch.device
        Where to compute.
    work : path
        Folder for finished parts; a run that was killed goes on from them.
    models : path, optional
        Folder to save the networks of the first seed to, each in a folder of its own.

    Returns
    -------
    Recording
        Its rows are samples: seed, set (seen or held out), class, place in the data; energy of the
        data set at each noise level, and under task 2; energy by the probability flow and by the
        denoising error, before and after; error of reconstruction from each time, before and after.

    Raises
    ------
    TypeError, ValueError
        If the settings do not fit the image set.

    References
    ----------
    Takeda, Oizumi & Karakida (2026), for energy against the error of reconstruction.
    """
    workspace = Workspace(work, config.setting, version=VERSION)
    gallery, rows, sigmas, accuracies, shares = Gallery(), [], [], [], {}
    pictures: dict[str, list[int]] = {}
    for seed in tqdm(config.seeds, desc="forgetting", unit="seed"):
        lab = Laboratory(config, seed, workspace, torch.device(device))
        found = _measured(lab)
        rows += [row for name in lab.probes for row in _rows(lab, name, found)]
        sigmas.append(lab.sigma)
        judged = _judged(lab)
        accuracies.append(judged.pop("accuracy").item())
        for name, value in judged.items():
            shares.setdefault(name, []).append(value.tolist())
        if seed == config.seeds[0]:
            pictures = _pictures(lab, gallery)
            if models is not None:
                _save(lab, Path(models))
    details = {
        "sigma": sigmas,
        "times": list(config.times),
        "factors": list(config.factors),
        "judge_accuracy": accuracies,
        "class_shares": shares,
        "rows": pictures,
    }
    notes = (
        f"{config.dataset}; one row a sample of task 1; energies in nats, errors in pixel units "
        f"squared per pixel (pixels from −1 to 1); parts took {workspace.seconds:.0f} s in all; "
        "images are held-out samples of the first seed, from the highest energy to the lowest"
    )
    return Recording(rows, gallery.images(), details, config.seeds, notes)


def _second(lab: Laboratory) -> DiffusionModel:
    """The network after task 2, nothing replayed."""
    return lab.model(
        "second", lambda: learn_next(lab.first, lab.images(1), lab.setting, seed=lab.seed)
    )


def _save(lab: Laboratory, models: Path) -> None:
    """Keep the networks after each task, with how they were trained."""
    setting = lab.setting
    for task, (model, how) in enumerate(
        ((lab.first, setting.first), (_second(lab), setting.later)), start=1
    ):
        training = asdict(how) | {"seed": lab.seed, "dataset": setting.dataset, "task": task}
        training["classes"] = lab.tasks[task - 1].seen.labels.unique().tolist()
        save_model(models / f"ddpm_{setting.dataset}_task{task}", model, training=training)


def _measured(lab: Laboratory) -> dict[str, dict[str, Tensor]]:
    found = {}
    for name, probe in lab.probes.items():
        for when, model in (("before", lambda: lab.first), ("after", lambda: _second(lab))):
            key = f"{name.replace(' ', '_')}_{when}"
            times = "_".join(str(time) for time in probe.times)
            found[f"errors {key}"] = lab.part(
                f"errors_{key}_{times}", lambda p=probe, m=model: {"value": p.errors(m())}
            )
            found[f"energies {key}"] = lab.part(
                f"energies_{key}", lambda p=probe, m=model: _energies(lab, m(), p.images)
            )
    return found


def _energies(lab: Laboratory, model: DiffusionModel, images: Tensor) -> dict[str, Tensor]:
    points, denoiser = images.flatten(1), as_denoiser(model)
    sigmas = (lab.sigma, _LARGEST_SIGMA)
    options = {"sigmas": sigmas, "batch_size": _BATCH}
    flow = flow_energy(
        points, denoiser, **options, steps=_FLOW_STEPS, generator=lab.generator("energy")
    )
    error = denoising_energy(
        points, denoiser, **options, levels=_LEVELS, generator=lab.generator("energy")
    )
    return {"flow": flow, "denoising": error.value}


def _judged(lab: Laboratory) -> dict[str, Tensor]:
    """Accuracy of the judge, and the share of each class among generated images."""

    def compute() -> dict[str, Tensor]:
        classes = lab.tasks[0].seen.labels.unique().tolist()
        held_out = [task.held_out for task in lab.tasks]
        right = [accuracy(lab.judge, part) * len(part) for part in held_out]
        return {
            "before": lab.judged(lab.first, classes).shares,
            "after": lab.judged(_second(lab), classes).shares,
            "accuracy": torch.tensor(sum(right) / sum(len(part) for part in held_out)),
        }

    return lab.part(f"judged_{lab.config.generated}", compute)


def _rows(
    lab: Laboratory, name: str, found: Mapping[str, Mapping[str, Tensor]]
) -> list[dict[str, object]]:
    key = name.replace(" ", "_")
    task = lab.tasks[0]
    images = task.seen if name == "seen" else task.held_out
    columns = {"index": lab.chosen[name], "label": images.labels[lab.chosen[name]]}
    for factor in lab.config.factors:
        columns[f"energy_{factor:g}"] = lab.energies(factor * lab.sigma, name)
    columns["energy_task2"] = lab.energies(lab.sigma, name, of_task=1)
    for when in ("before", "after"):
        for kind in ("flow", "denoising"):
            columns[f"{kind}_{when}"] = found[f"energies {key}_{when}"][kind]
        errors = found[f"errors {key}_{when}"]["value"]
        for time, values in zip(lab.config.times, errors, strict=True):
            columns[f"error_{time}_{when}"] = values
    listed = {column: values.tolist() for column, values in columns.items()}
    return [
        {"seed": lab.seed, "set": name}
        | {column: _short(values[place]) for column, values in listed.items()}
        for place in range(len(columns["index"]))
    ]


def _short(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.{_SIGNIFICANT}g}")


def _pictures(lab: Laboratory, gallery: Gallery) -> dict[str, list[int]]:
    probe = lab.probes["held out"]
    ranked = lab.energies(lab.sigma, "held out").argsort(descending=True)
    shown = ranked[torch.linspace(0, len(ranked) - 1, lab.config.examples).round().long()]
    probe, time = probe[shown], lab.config.times[0]
    rows = {"the image": probe.images}
    for title, model in (("before task 2", lab.first), ("after task 2", _second(lab))):
        rows[title] = reconstruct(model, probe.images, time, noise=probe.noise)
    return {title: gallery.add(images) for title, images in rows.items()}
