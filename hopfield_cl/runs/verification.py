"""What was recorded, checked: every file against its hash, and some rows computed again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from hopfield_cl.data.scenes import scenes
from hopfield_cl.diffusion.checkpoints import load_model, verify_model
from hopfield_cl.records import provenance
from hopfield_cl.records.workspace import Workspace
from hopfield_cl.runs.ddpm_forgetting import ForgettingConfig
from hopfield_cl.runs.ddpm_laboratory import VERSION, Laboratory
from hopfield_cl.runs.replay_in_closed_form import ReplayConfig, replay_run
from hopfield_cl.runs.sd_laboratory import PromptRunConfig, laboratories
from hopfield_cl.runs.sd_small import SmallConfig
from hopfield_cl.stable.latents import decode, encode
from hopfield_cl.stable.pipelines import SMALL_SD, image_size, load_pipeline, verify_pipeline

_WITHOUT_CHANCE = ("greedy", "highest", "lowest")
# Of numbers computed again, relative and absolute: more than another machine makes of them.
_TOLERANCE = 1e-4
# A network's arithmetic in float32 differs between machines.
_TOLERANCE_OF_A_NETWORK = 1e-2
_SAMPLES = 8
_OF_A_PIPELINE = "vae"


def verify_all(folder: str | Path, checkpoints: str | Path) -> Iterator[str]:
    """Check every table and every model, and compute some rows again.

    Parameters
    ----------
    folder : path
        Where the recorded tables lie.
    checkpoints : path
        Where the saved models lie, each in a folder of its own.

    Returns
    -------
    iterator of str
        A line for each thing that is as it was recorded, as soon as that is known.

    Raises
    ------
    FileNotFoundError
        If a file that belongs to a table or a model is missing.
    ValueError
        If a file is not what was recorded, or a row comes out otherwise.
    """
    folder, checkpoints = Path(folder), Path(checkpoints)
    # A provenance whose table is gone counts too.
    files = [*folder.glob("*.csv"), *folder.glob("*.json")]
    for table in sorted({path.with_suffix(".csv") for path in files}):
        provenance.verify(table)
        yield f"{table}: as it was recorded"
    for model in sorted(path for path in checkpoints.glob("*") if path.is_dir()):
        check = verify_pipeline if (model / _OF_A_PIPELINE).is_dir() else verify_model
        check(model)
        yield f"{model}: as it was saved"
    for table, recompute in RECOMPUTE.items():
        if (folder / table).is_file():
            yield f"{table}: {recompute(folder / table, checkpoints)}"


def _replay_again(table: Path, checkpoints: Path) -> str:
    """Rows in which nothing is drawn: all of task 1 replaced, replay chosen by rank or by gain."""

    def cell(row: dict[str, object]) -> tuple[float, str, int]:
        return float(row["step"]), row["strategy"], int(row["budget"])

    recorded = {cell(row): row for row in provenance.read(table).rows}
    config = ReplayConfig(steps=(1.0,), budgets=(0, 125), seeds=(0, 1), probes=1, examples=1)
    rows = [row for row in replay_run(config).rows if row["strategy"] in _WITHOUT_CHANCE]
    found = {cell(row): row for row in rows}
    measures = ("taken_back", "taken_back_top", "rise_left", "rise_left_top")
    return _compared(table, found, recorded, measures, _TOLERANCE)


def _forgetting_again(table: Path, checkpoints: Path) -> str:
    """The first held-out samples, reconstructed by the networks that were saved."""
    recorded = provenance.read(table)
    seed = int(recorded.made["seeds"][0])
    config = ForgettingConfig()
    unused = Workspace("unused", config.setting, version=VERSION)
    lab = Laboratory(config, seed, unused, torch.device("cpu"))
    probe = lab.probes["held out"][:_SAMPLES]
    measures = []
    found: dict[object, dict[str, object]] = {place: {} for place in range(_SAMPLES)}
    for when, task in (("before", 1), ("after", 2)):
        errors = probe.errors(load_model(checkpoints / f"ddpm_mnist_task{task}"))
        for time, values in zip(config.times, errors.tolist(), strict=True):
            measures.append(f"error_{time}_{when}")
            for place, value in enumerate(values):
                found[place][measures[-1]] = value
    rows = [row for row in recorded.rows if row["seed"] == seed and row["set"] == "held out"]
    return _compared(table, found, dict(enumerate(rows)), measures, _TOLERANCE_OF_A_NETWORK)


def _small_again(table: Path, checkpoints: Path) -> str:
    """The error of the autoencoder that was saved, over the scenes that were judged."""
    recorded, config = provenance.read(table), SmallConfig()
    pipeline = load_pipeline(checkpoints / SMALL_SD)
    images = scenes(config.judged, seed=config.seeds[0], size=image_size(pipeline)).images
    error = (decode(pipeline, encode(pipeline, images)) - images).square().mean().item()
    measure = "autoencoder_error"
    where = ("autoencoder",)
    return _compared(
        table,
        {where: {measure: error}},
        {where: recorded.made["details"]},
        (measure,),
        _TOLERANCE_OF_A_NETWORK,
    )


def _prompts_again(table: Path, checkpoints: Path) -> str:
    """Density and energies of the first held-out samples, by the pipeline that was saved."""
    recorded = provenance.read(table)
    config = PromptRunConfig(model=str(checkpoints / SMALL_SD))
    lab = next(laboratories(config, device="cpu", work="unused"))
    columns = {"log_density": lab.tasks[0].held_out.log_density}
    for space in ("latent", "caption"):
        columns[f"energy_{space}"] = lab.energies(space, "held out")
        columns[f"energy_{space}_task2"] = lab.energies(space, "held out", of_task=1)
    listed = {name: values[:_SAMPLES].tolist() for name, values in columns.items()}
    found = {
        place: {name: values[place] for name, values in listed.items()} for place in range(_SAMPLES)
    }
    rows = [row for row in recorded.rows if row["seed"] == lab.seed]
    return _compared(table, found, dict(enumerate(rows)), tuple(columns), _TOLERANCE_OF_A_NETWORK)


def _compared(
    table: Path,
    found: dict[object, dict[str, object]],
    recorded: dict[object, dict[str, object]],
    measures: Sequence[str],
    tolerance: float,
) -> str:
    """Say how far rows computed again are off, or refuse the table."""
    furthest = 0.0
    for cell, row in found.items():
        if cell not in recorded:
            raise ValueError(f"{table} must hold a row for {cell}, but does not.")
        for measure in measures:
            there = recorded[cell][measure]
            if not math.isclose(row[measure], there, rel_tol=tolerance, abs_tol=_TOLERANCE):
                raise ValueError(
                    f"{table} must hold {measure} = {row[measure]:g} at {cell}, as was computed "
                    f"again, but holds {there:g}."
                )
            furthest = max(furthest, abs(row[measure] - there))
    return f"{len(found)} rows computed again, {', '.join(measures)} at most {furthest:.1e} off"


# By table: computes some of its rows again, with the folder of the models; returns what it computed
# and how far it is off, or raises ValueError.
RECOMPUTE: dict[str, Callable[[Path, Path], str]] = {
    "replay_mnist.csv": _replay_again,
    "ddpm_forgetting.csv": _forgetting_again,
    "small_sd.csv": _small_again,
    "sd_forgetting.csv": _prompts_again,
}
