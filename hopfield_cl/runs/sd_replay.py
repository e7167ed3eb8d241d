"""The replay run of chapter 12: what a budget saves of task 1, and by whose measure of rarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from hopfield_cl import _checks, intervals
from hopfield_cl.diffusion.continual import choose
from hopfield_cl.records.recording import Gallery, Recording
from hopfield_cl.records.workspace import Workspace
from hopfield_cl.replay import select_replay
from hopfield_cl.runs.sd_laboratory import (
    PromptLaboratory,
    PromptRunConfig,
    laboratories,
    small,
)
from hopfield_cl.stable.tasks import SOURCES

_BY_LATENT = ("greedy", "highest", "random", "lowest")
_DIGITS = 6
_GROUPS = 5  # of the held-out samples, by energy

_LABELS = {
    "step": "gradient steps on task 2",
    "budget": "replay budget (images)",
    "strategy": "strategy",
    "mitigated": "share of forgetting avoided, latents",
    "rise": "rise in error (latent² units)",
    "rise_top": "the same, top energy fifth (latent² units)",
    "rise_bottom": "the same, lowest energy fifth (latent² units)",
    "rise_pixel": "rise in error (pixel² units)",
    "obeyed_class": "share of prompts whose class is drawn",
    "obeyed_all": "share of prompts obeyed in all factors",
    "new_error": "error on held-out latents of task 2 (latent² units)",
    "examples": "energy −log p (nats)",
}
_MEASURES = tuple(_LABELS)[3:-1]

# What was measured, by strategy and budget.
_Arms = dict[tuple[str, int], dict[str, Tensor]]


@dataclass(frozen=True)
class PromptReplayConfig(PromptRunConfig):
    """Settings of :func:`prompt_replay_run`.

    Attributes
    ----------
    model, dataset, method, seeds, seen, held_out, time, prompts, guidance,
    examples
        As for :class:`hopfield_cl.runs.sd_laboratory.PromptRunConfig`.
    budgets : tuple of int
        Samples of task 1 that are replayed, at least 1.
    """

    budgets: tuple[int, ...] = (50,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.budgets, tuple) or not self.budgets:
            raise ValueError(f"budgets must be a tuple of at least one, but is {self.budgets!r}.")
        for budget in self.budgets:
            _checks.integer_from(budget, "budgets", 1)
            if budget > self.seen:
                raise ValueError(f"budgets must be at most seen, {self.seen}, but hold {budget}.")


def prompt_replay_run(
    config: PromptReplayConfig = PromptReplayConfig(),
    *,
    device: str | torch.device = "cpu",
    work: str | Path = "_work/runs",
) -> Recording:
    """Fine-tune on task 1, then on task 2 under each strategy and budget.

    All arms of a seed share the network after task 1, the order of task 2, the number of gradient
    steps, the share of each batch that is replayed, and all noise. "greedy", "highest", "random"
    and "lowest" go by the energy of latents, "caption" takes the highest energy of captions in
    CLIP's space, "rarest" the lowest true density, where it is known; "joint" replays from all of
    task 1.

    Parameters
    ----------
    config : PromptReplayConfig
        Settings.
    device : str or torch.device
        Where to compute.
    work : path
        Folder for finished parts; a run that was killed goes on from them.

    Returns
    -------
    Recording
        Its rows are means over seeds; ``per_seed`` holds each arm of each seed.

    Raises
    ------
    ValueError, ConnectionError
        If the pipeline or the images are not there, or the settings do not fit them.

    References
    ----------
    Takeda, Oizumi & Karakida (2026) for the strategies by energy.
    """
    arms = [("none", 0), *((s, b) for b in config.budgets for s in strategies_of(config))]
    arms.append(("joint", config.seen))
    samples: list[dict[tuple[str, int], Tensor]] = []
    pictures: dict[tuple[str, int], list[int]] = {}
    details: dict[str, object] = {"labels": _LABELS, "measures": list(_MEASURES), "sigma": []}
    per_seed, gallery = [], Gallery()
    labs = laboratories(config, device=device, work=work)
    with tqdm(total=len(config.seeds) * (len(arms) + 1), desc="replay", unit="arm") as bar:
        for lab in labs:
            found = {("before", 0): lab.before()}
            bar.update()
            for strategy, budget in arms:
                rows = None if strategy == "none" else chosen(lab, strategy, budget)
                found[strategy, budget] = lab.after(strategy, rows)
                bar.update()
            fifths = lab.energies("latent", "held out").argsort().cpu().tensor_split(_GROUPS)
            samples.append({arm: _measures(found, arm, fifths) for arm in arms})
            per_seed += _seed_rows(lab, found, fifths)
            details["sigma"].append(lab.sigma)
            if not pictures:
                pictures = {arm: gallery.add(one["pictures"]) for arm, one in found.items()}
                details |= _shown(lab, gallery, pictures["before", 0])
    steps = lab.learning.training.steps
    return Recording(
        [{"step": steps} | _mean(samples, pictures, cell) for cell in _cells(config)],
        gallery.images(),
        details,
        config.seeds,
        _notes(config, lab.workspace),
        per_seed,
    )


def strategies_of(config: PromptRunConfig) -> tuple[str, ...]:
    """Name the strategies that a run compares.

    Parameters
    ----------
    config : PromptRunConfig
        The run: only where the density is known can the rarest be replayed.

    Returns
    -------
    tuple of str
    """
    known = "caption" in SOURCES[config.dataset].spaces
    return (*_BY_LATENT, "caption", "rarest") if known else _BY_LATENT


def chosen(lab: PromptLaboratory, strategy: str, budget: int) -> Tensor:
    """Choose which seen samples of task 1 to replay.

    Parameters
    ----------
    lab : PromptLaboratory
        One seed of a run.
    strategy : str
        One of :func:`strategies_of`, or "joint" for all of them.
    budget : int
        How many.

    Returns
    -------
    Tensor of int64, shape (budget,)
        Their rows, in order of choice.
    """
    if strategy == "joint":
        return torch.arange(lab.config.seen)
    if strategy in _BY_LATENT:
        return choose(lab.pool, budget, strategy, generator=lab.generator("choose")).cpu()
    rarity = (
        lab.energies("caption", "seen") if strategy == "caption" else -lab.tasks[0].seen.log_density
    )
    return select_replay(rarity, budget, "highest").cpu()


def _cells(config: PromptReplayConfig) -> list[tuple[str, int]]:
    """Strategy and budget of each row; budget 0 is no replay, whatever the strategy."""
    return [(name, budget) for name in strategies_of(config) for budget in (0, *config.budgets)]


def _mean(
    samples: list[dict[tuple[str, int], Tensor]],
    pictures: dict[tuple[str, int], list[int]],
    cell: tuple[str, int],
) -> dict[str, object]:
    """Means over seeds for one strategy and budget."""
    strategy, budget = cell
    arm = cell if budget else ("none", 0)
    estimate = intervals.mean(torch.stack([one[arm] for one in samples]))
    row: dict[str, object] = {"strategy": strategy, "budget": budget}
    for place, name in enumerate(_MEASURES):
        row[name] = round(estimate.value[place].item(), _DIGITS)
        row[f"{name}_error"] = round(estimate.standard_error[place].item(), _DIGITS)
    return row | {"images": " ".join(map(str, pictures[arm]))}


def _measures(found: _Arms, arm: tuple[str, int], fifths: Sequence[Tensor]) -> Tensor:
    """The measures of the record figure, for one seed."""
    before, none, now = found["before", 0], found["none", 0], found[arm]

    def rise(measured: dict[str, Tensor], name: str, places: Tensor | slice) -> Tensor:
        return measured[name][places].mean() - before[name][places].mean()

    # A share only of the whole: in a fifth that forgets nearly nothing it would have no meaning.
    everywhere = slice(None)
    forgotten, left = (rise(measured, "latent", everywhere) for measured in (none, now))
    values = [
        1 - left / forgotten,
        left,
        rise(now, "latent", fifths[-1]),
        rise(now, "latent", fifths[0]),
        rise(now, "pixel", everywhere),
        now["obeyed"][:, 0].double().mean(),
        now["obeyed"].all(1).double().mean(),
        now["new"].mean(),
    ]
    return torch.stack([value.double() for value in values])


def _seed_rows(
    lab: PromptLaboratory, found: _Arms, fifths: Sequence[Tensor]
) -> list[dict[str, object]]:
    """One row an arm: mean errors, by fifths of energy, and shares of prompts obeyed."""
    rows = []
    for (strategy, budget), measured in found.items():
        row: dict[str, object] = {"seed": lab.seed, "strategy": strategy, "budget": budget}
        values = {"latent": measured["latent"].mean(), "pixel": measured["pixel"].mean()}
        for number, places in enumerate(fifths, start=1):
            values[f"latent_fifth{number}"] = measured["latent"][places].mean()
        values["new_task"] = measured["new"].mean()
        factors = SOURCES[lab.config.dataset].factors
        shares = measured["obeyed"].double().mean(0)
        values |= {f"obeyed_{name}": share for name, share in zip(factors, shares, strict=True)}
        values["obeyed_all"] = measured["obeyed"].all(1).double().mean()
        rows.append(row | {name: round(value.item(), _DIGITS) for name, value in values.items()})
    return rows


def _shown(lab: PromptLaboratory, gallery: Gallery, before: list[int]) -> dict[str, object]:
    """What is shown of the first seed, and how it was made."""
    energies = lab.energies("latent", "held out")[lab.shown.to(lab.device)].tolist()
    prompts = lab.tasks[0].held_out[lab.shown]
    return {
        "examples": [f"{value:.0f}".replace("-", "−") for value in energies],
        "rows": {
            "the image": gallery.add(small(prompts.images)),
            "drawn before task 2": before,
        },
        "prompts": list(prompts.captions),
        "time": lab.config.time,
        "guidance": lab.config.guidance,
        "model": Path(lab.config.model).name,
        "method": lab.config.method,
        "training": asdict(lab.learning.training),
    }


def _notes(config: PromptReplayConfig, workspace: Workspace) -> str:
    return (
        f"{config.dataset}, {config.method} fine-tuning; errors are standard errors over "
        f"{len(config.seeds)} seeds, which differ in data, order and noise but start from the same "
        "pipeline; a share of forgetting avoided compares an arm with no replay under the same "
        f"seed; parts took {workspace.seconds:.0f} s in all; images are drawn for held-out prompts "
        f"of seed {config.seeds[0]}, from the highest energy to the lowest"
    )
