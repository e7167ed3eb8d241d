"""The run of chapter 11: what each way to spend a replay budget saves, and what else is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from hopfield_cl import _checks, intervals
from hopfield_cl.diffusion.continual import STRATEGIES, choose, learn_next, replay_pool
from hopfield_cl.diffusion.models import DiffusionModel
from hopfield_cl.diffusion.regularise import elastic_penalty, fisher_information
from hopfield_cl.diffusion.sampling import generate, reconstruct
from hopfield_cl.records.recording import Gallery, Recording
from hopfield_cl.records.workspace import Workspace
from hopfield_cl.runs.ddpm_laboratory import VERSION, Laboratory, RunConfig

_DIGITS = 6  # decimals in the tables
_GROUPS = 5  # fifths of the samples, by energy
_LABELS = {
    "step": "gradient steps on task 2",
    "budget": "replay budget (images)",
    "strategy": "strategy",
    "mitigated": "share of forgetting avoided, held-out",
    "mitigated_top": "the same, top energy fifth",
    "mitigated_bottom": "the same, lowest energy fifth",
    "mitigated_seen": "the same, seen images",
    "old_share": "share of generated images that are of task 1",
    "new_error": "error on held-out images of task 2 (pixel² units)",
    "examples": "energy −log p (nats)",
}
_MEASURES = tuple(_LABELS)[3:-1]


@dataclass(frozen=True)
class ReplayRunConfig(RunConfig):
    """Settings of :func:`ddpm_replay_run`.

    Attributes
    ----------
    dataset, seeds, times, probes, generated
        As for :class:`hopfield_cl.runs.ddpm_laboratory.RunConfig`.
    budgets : tuple of float
        Budgets, as shares of the seen images of task 1, above 0 and at most 1.
    stages : tuple of float
        Shares of the gradient steps on task 2 after which the network is measured, rising to 1.
    penalties : tuple of float
        Strengths λ of elastic weight consolidation, the baseline without replay.
    fisher_images : int
        Images from which its importances are estimated.
    examples : int
        Samples whose images are shown.
    """

    budgets: tuple[float, ...] = (0.005, 0.02, 0.065, 0.2)
    stages: tuple[float, ...] = (0.25, 1.0)
    penalties: tuple[float, ...] = (1e2, 1e4, 1e6)
    fisher_images: int = 512
    examples: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        for budget in self.budgets:
            _checks.number_between(budget, "budgets", 1e-6, 1.0)
        for stage in self.stages:
            _checks.number_between(stage, "stages", 1e-6, 1.0)
        if list(self.stages) != sorted(self.stages) or self.stages[-1] != 1:
            raise ValueError(f"stages must rise to 1, but are {self.stages}.")
        for penalty in self.penalties:
            _checks.positive_number(penalty, "penalties")
        _checks.integer_from(self.fisher_images, "fisher_images", 1)
        _checks.integer_from(self.examples, "examples", 1)

    @property
    def steps(self) -> list[int]:
        """Gradient steps on task 2 after which the network is measured."""
        return [max(1, round(stage * self.setting.later.steps)) for stage in self.stages]


def ddpm_replay_run(
    config: ReplayRunConfig = ReplayRunConfig(),
    *,
    device: str | torch.device = "cpu",
    work: str | Path = "_work/runs",
) -> Recording:
    """Train on task 1, then on task 2 under each strategy and budget, and with what else is done.

    All arms of a seed share the network after task 1, the order of the task-2 images, the number of
    gradient steps, the share of each batch that is replayed, and the noise in which samples are
    reconstructed. "joint" replays from all of task 1 and is the limit of every strategy;
    "generative" replays images that the network after task 1 draws; "elastic" holds on to weights
    and replays nothing.

    Parameters
    ----------
    config : ReplayRunConfig
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
    TypeError, ValueError
        If the settings do not fit the image set.

    References
    ----------
    Takeda, Oizumi & Karakida (2026) for the strategies by energy; Shin et al. (2017) for generative
    replay; Kirkpatrick et al. (2017) for elastic weight consolidation.
    """
    workspace = Workspace(work, config.setting, version=VERSION)
    gallery = Gallery()
    labs = [Laboratory(config, seed, workspace, torch.device(device)) for seed in config.seeds]
    arms = [_arms(lab) for lab in labs]
    with tqdm(total=len(labs) * len(arms[0]), desc="replay", unit="arm") as bar:
        found = [_measure_all(lab, own, bar) for lab, own in zip(labs, arms, strict=True)]
    per_seed = [row for lab, one in zip(labs, found, strict=True) for row in _seed_rows(lab, one)]
    rows = _means(config, labs, found, gallery)
    first = labs[0]
    shown, probe = _examples(first), first.probes["held out"]
    energies = first.energies(first.sigma, "held out")[shown].tolist()
    before = reconstruct(
        first.first, probe.images[shown], config.times[0], noise=probe.noise[shown]
    )
    details = {
        "labels": _LABELS,
        "measures": list(_MEASURES),
        "examples": [f"{value:.0f}".replace("-", "−") for value in energies],
        "rows": {
            "the image": gallery.add(probe.images[shown]),
            "reconstructed before task 2": gallery.add(before),
        },
        "sigma": [lab.sigma for lab in labs],
        "times": list(config.times),
        "replay_share": config.setting.later.replay_share,
    }
    notes = (
        f"{config.dataset}; errors are standard errors over {len(config.seeds)} seeds; a share of "
        "forgetting avoided compares an arm with no replay under the same seed; parts took "
        f"{workspace.seconds:.0f} s in all; images are held-out samples of seed {config.seeds[0]}, "
        f"reconstructed from time {config.times[0]}, from the highest energy to the lowest"
    )
    return Recording(rows, gallery.images(), details, config.seeds, notes, per_seed)


# What to do with the model after a number of gradient steps.
_Observers = dict[int, Callable[[DiffusionModel], None]]
# An arm: its strategy, its budget (images, or the strength of a penalty), and how it trains.
_Arm = tuple[str, float, Callable[[_Observers], None]]


def _budget_sizes(lab: Laboratory) -> list[int]:
    count = len(lab.tasks[0].seen)
    return [max(1, round(share * count)) for share in lab.config.budgets]


def _arms(lab: Laboratory) -> list[_Arm]:
    arms: list[_Arm] = [("none", 0, partial(_train, lab, lambda: {}))]
    for budget in _budget_sizes(lab):
        for strategy in STRATEGIES:
            replayed = partial(_chosen_images, lab, strategy, budget)
            arms.append((strategy, budget, partial(_train, lab, replayed)))
    everything = len(lab.tasks[0].seen)
    arms.append(("joint", everything, partial(_train, lab, lambda: {"replay": lab.images(0)})))
    arms.append(("generative", everything, partial(_train, lab, partial(_dreamt, lab))))
    for strength in lab.config.penalties:
        held = partial(_held, lab, strength)
        arms.append(("elastic", strength, partial(_train, lab, held)))
    return arms


def _train(
    lab: Laboratory,
    options: Callable[[], dict[str, object]],
    observe: _Observers,
) -> None:
    images = lab.images(1)
    learn_next(lab.first, images, lab.setting, seed=lab.seed, observe=observe, **options())


def _chosen(lab: Laboratory, strategy: str, budget: int) -> Tensor:
    """Which seen images of task 1 a strategy replays."""

    def compute() -> dict[str, Tensor]:
        pool = replay_pool(lab.images(0), lab.images(1), lab.sigma)
        most = max(_budget_sizes(lab))
        orders = {
            name: choose(pool, most, name, generator=lab.generator("choose"))
            for name in ("greedy", "highest", "random", "lowest")
        }
        for size in _budget_sizes(lab):  # strata depend on the budget
            generator = lab.generator("choose")
            orders[f"stratified {size}"] = choose(pool, size, "stratified", generator=generator)
        return orders

    sizes = "_".join(str(size) for size in _budget_sizes(lab))
    orders = lab.part(f"orders_{sizes}", compute)
    order = orders[f"stratified {budget}"] if strategy == "stratified" else orders[strategy]
    return order[:budget]


def _chosen_images(lab: Laboratory, strategy: str, budget: int) -> dict[str, Tensor]:
    return {"replay": lab.images(0)[_chosen(lab, strategy, budget).to(lab.device)]}


def _dreamt(lab: Laboratory) -> dict[str, Tensor]:
    count = len(lab.tasks[0].seen)
    images = lab.part(
        "dreamt",
        lambda: {"images": generate(lab.first, count, generator=lab.generator("generate"))},
    )
    return {"replay": images["images"].to(lab.device)}


def _held(lab: Laboratory, strength: float) -> dict[str, object]:
    images = lab.images(0)[: lab.config.fisher_images]
    fisher = lab.part(
        f"fisher_{len(images)}",
        lambda: fisher_information(lab.first, images, generator=lab.generator("fisher")),
    )
    fisher = {name: value.to(lab.device) for name, value in fisher.items()}
    return {"penalty": elastic_penalty(lab.first, fisher, strength)}


def _measure_all(lab: Laboratory, arms: list[_Arm], bar: tqdm) -> dict[tuple, dict[str, Tensor]]:
    """Measures of each (strategy, budget, step), and of the network before task 2."""
    config = lab.config
    settings = (*config.times, config.probes, config.generated, config.examples, *config.steps)
    tag = "_".join(str(value) for value in settings)
    before = lab.part(f"arms/before_{tag}", lambda: _measures(lab, lab.first))
    found = {("before", 0, 0): before}
    for strategy, budget, train in arms:
        kept = lab.part(
            f"arms/{strategy}_{budget:g}_{tag}", partial(_run_arm, lab, strategy, budget, train)
        )
        for step in lab.config.steps:
            ending = f" {step}"
            found[strategy, budget, step] = {
                name.removesuffix(ending): value
                for name, value in kept.items()
                if name.endswith(ending)
            }
        bar.update()
    return found


def _run_arm(lab: Laboratory, strategy: str, budget: float, train: Callable) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def observe(step: int, model: DiffusionModel) -> None:
        found.update({f"{name} {step}": value for name, value in _measures(lab, model).items()})
        if strategy == "none" or strategy in STRATEGIES:
            where = slice(None)
            if strategy in STRATEGIES:
                where = _chosen(lab, strategy, int(budget)).to(lab.device)
            found[f"replayed {step}"] = lab.every_seen[where].errors(model)

    train({step: partial(observe, step) for step in lab.config.steps})
    return found


def _measures(lab: Laboratory, model: DiffusionModel) -> dict[str, Tensor]:
    measures = {name: probe.errors(model) for name, probe in lab.probes.items()}
    measures["new"] = lab.later_probe.errors(model)
    judged = lab.judged(model, lab.tasks[0].seen.labels.unique().tolist())
    measures |= {"shares": judged.shares, "precision": judged.precision}
    measures |= {"recall": judged.recall, "distance": judged.distance}
    shown, probe = _examples(lab), lab.probes["held out"][_examples(lab)]
    if lab.seed == lab.config.seeds[0] and len(shown):
        time = lab.config.times[0]
        measures["pictures"] = reconstruct(model, probe.images, time, noise=probe.noise)
    return measures


def _examples(lab: Laboratory) -> Tensor:
    ranked = lab.energies(lab.sigma, "held out").argsort(descending=True)
    return ranked[torch.linspace(0, len(ranked) - 1, lab.config.examples).round().long()]


def _fifths(lab: Laboratory, name: str) -> list[Tensor]:
    """Places of the samples in each fifth by energy, from the lowest."""
    return list(lab.energies(lab.sigma, name).argsort().cpu().tensor_split(_GROUPS))


def _seed_rows(lab: Laboratory, found: dict[tuple, dict[str, Tensor]]) -> list[dict[str, object]]:
    """One row an arm and step: mean errors, by fifths of energy, and what it generates."""
    old = lab.tasks[0].seen.labels.unique()
    rows = []
    last = lab.config.steps[-1]
    for (strategy, budget, step), measured in found.items():
        row: dict[str, object] = {"seed": lab.seed, "step": step, "strategy": strategy}
        row["budget"] = budget
        for name in ("seen", "held out"):
            key = name.replace(" ", "_")
            for time, errors in zip(lab.config.times, measured[name], strict=True):
                row[f"{key}_{time}"] = errors.mean()
            for number, places in enumerate(_fifths(lab, name), start=1):
                row[f"{key}_fifth{number}"] = measured[name][0, places].mean()
        row["new_task"] = measured["new"].mean()
        row |= dict.fromkeys(("replayed", "replayed_none"), "")
        if strategy in STRATEGIES and step == last:
            chosen = _chosen(lab, strategy, int(budget))
            row["replayed"] = measured["replayed"][0].mean()
            row["replayed_none"] = found["none", 0, last]["replayed"][0, chosen].mean()
        row["old_share"] = measured["shares"][old].sum()
        for name in ("precision", "recall", "distance"):
            value = measured[name]
            row[name] = "" if value.isnan() else value
        rows.append(
            {
                name: round(value.item(), _DIGITS) if isinstance(value, Tensor) else value
                for name, value in row.items()
            }
        )
    return rows


def _means(
    config: ReplayRunConfig,
    labs: list[Laboratory],
    found: list[dict[tuple, dict[str, Tensor]]],
    gallery: Gallery,
) -> list[dict[str, object]]:
    """Means over seeds for each strategy, budget and step; budget 0 is no replay."""
    rows = []
    for step in config.steps:
        for strategy in STRATEGIES:
            for budget in (0, *_budget_sizes(labs[0])):
                key = (strategy, budget, step) if budget else ("none", 0, step)
                samples = [_gains(lab, one, key) for lab, one in zip(labs, found, strict=True)]
                estimate = intervals.mean(torch.stack(samples))
                row: dict[str, object] = {"step": step, "strategy": strategy, "budget": budget}
                for place, name in enumerate(_MEASURES):
                    row[name] = round(estimate.value[place].item(), _DIGITS)
                    row[f"{name}_error"] = round(estimate.standard_error[place].item(), _DIGITS)
                row["images"] = " ".join(map(str, gallery.add(found[0][key]["pictures"])))
                rows.append(row)
    return rows


def _gains(lab: Laboratory, found: dict[tuple, dict[str, Tensor]], key: tuple) -> Tensor:
    """The measures of the record figure, for one seed."""
    before, none, arm = found["before", 0, 0], found["none", 0, key[2]], found[key]

    def avoided(name: str, places: Tensor | slice) -> Tensor:
        was, forgotten, is_now = (x[name][0, places].mean() for x in (before, none, arm))
        return (forgotten - is_now) / (forgotten - was)

    fifths = _fifths(lab, "held out")
    everywhere = slice(None)
    old = lab.tasks[0].seen.labels.unique()
    values = [
        avoided("held out", everywhere),
        avoided("held out", fifths[-1]),
        avoided("held out", fifths[0]),
        avoided("seen", everywhere),
        arm["shares"][old].sum(),
        arm["new"].mean(),
    ]
    return torch.stack([value.double() for value in values])
