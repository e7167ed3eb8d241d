"""What a replay budget protects in the network that stores the data: the run of Part II.

It takes a frozen configuration and gives a ``Recording``: rows with the axes step, strategy and
budget and measures with their standard errors over seeds, small images, and labels for all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus
from tqdm.auto import tqdm

from hopfield_cl import _checks, data, intervals
from hopfield_cl.energy import energy, fixed_points
from hopfield_cl.forgetting import intrinsic_forgetting
from hopfield_cl.memories import on_sphere
from hopfield_cl.records.recording import Gallery, Recording
from hopfield_cl.replay import greedy_order, replay_log_odds, select_replay

_BY_ENERGY = ("highest", "stratified", "random", "lowest")
STRATEGIES = ("greedy", *_BY_ENERGY)
# Retrieval counts as over when a step is shorter than this; images have length one.
_TOL, _MAX_STEPS = 1e-3, 200
# Basins that are shared give equal energies but for rounding; ties go to the lower index.
_DECIMALS = 9
_DIGITS = 6  # decimals in the table; a spread below them is rounding

_LABELS = {
    "step": "share of task 1 replaced",
    "budget": "replay budget (images)",
    "strategy": "strategy",
    "taken_back": "share of the rise taken back, net of mass",
    "taken_back_top": "the same, top energy tenth",
    "rise_left": "mean rise left (‖x‖² units)",
    "rise_left_top": "the same, top energy tenth (‖x‖² units)",
    "retrieved": "share of images retrieved",
    "distance2": "squared distance to the image (‖x‖² units)",
    "examples": "energy E (‖x‖² units)",
}
_MEASURES = tuple(_LABELS)[3:-1]


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of :func:`replay_run`.

    Attributes
    ----------
    dataset : str
        Image set, as for :func:`hopfield_cl.data.load`; the first half of its classes is task 1.
    beta : float
        Inverse temperature, in 1/‖x‖². 32 as for the images of chapter 7, and so not chosen for
        what comes out here: most images have a basin of their own, some share one.
    steps : tuple of float
        Shares of task 1 whose place task 2 has taken, above 0 and at most 1.
    budgets : tuple of int
        Numbers of task-1 images replayed, from 0 to their number.
    seeds : tuple of int
        One for each repetition, at least 2: who is replaced when, what is hidden, random choices.
    probes : int
        Task-1 images a seed from whose half retrieval starts, at least 1.
    examples : int
        Task-1 images that are shown, at equal steps from the highest energy to the lowest.
    tolerance : float
        Distance, in ‖x‖, up to which an image counts as retrieved where it was before the change;
        a quarter is less than that from most images to their nearest neighbour.
    """

    dataset: str = "mnist"
    beta: float = 32.0
    steps: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    budgets: tuple[int, ...] = (0, 12, 25, 50, 125, 250, 500)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    probes: int = 60
    examples: int = 8
    tolerance: float = 0.25

    def __post_init__(self) -> None:
        _checks.beta(self.beta)
        _checks.positive_number(self.tolerance, "tolerance")
        for name in ("probes", "examples"):
            _checks.integer_from(getattr(self, name), name, 1)
        for name, fewest in (("steps", 1), ("budgets", 1), ("seeds", 2)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(set(values)) != len(values):
                raise ValueError(f"{name} must be a tuple of different values, but is {values!r}.")
            if len(values) < fewest:
                raise ValueError(f"{name} must hold at least {fewest}, but holds {len(values)}.")
        for value in self.steps:
            _checks.number_between(value, "steps", 0.0, 1.0)
            if value == 0:
                raise ValueError("steps must be above 0, but one is 0.")
        for name in ("budgets", "seeds"):
            for value in getattr(self, name):
                _checks.integer_from(value, name, 0)


def replay_run(
    config: ReplayConfig = ReplayConfig(), *, device: str | torch.device = "cpu"
) -> Recording:
    """Replace task 1 by task 2, step by step, and replay under each strategy and budget.

    The memories of task 1 are the images of the first half of the classes, measured from the mean
    image and scaled to length one. At step s, a share s of them, drawn at random, has given way to
    as large a share of task 2. Replay adds task-1 images to what is there, with mass one.

    Measured on all task-1 samples, at their fixed points ξ_k in the old network: the mean rise left
    after replay, the same for the tenth of the highest energy, and the share of the rise that
    replay takes back net of mass (what the same images take back without a change of task).
    Measured by retrieval from images half of whose pixels are hidden: the share that ends where it
    did in the old network before, within ``tolerance``, and the squared distance of where it ends
    from the image itself.

    Parameters
    ----------
    config : ReplayConfig
        Settings.
    device : str or torch.device
        Where to compute, in float64.

    Returns
    -------
    Recording

    Raises
    ------
    ValueError
        If a budget, the probes and examples, or the tasks do not fit the image set.

    References
    ----------
    Takeda, Oizumi & Karakida (2026) for the strategies by energy; chapter 7 for the others.
    """
    setting = _Setting.load(config, torch.device(device))
    cells = len(config.seeds) * len(config.steps) * (len(STRATEGIES) * len(config.budgets))
    with tqdm(total=cells, desc="replay", unit="cell") as bar:
        runs = [_one_seed(setting, seed, bar) for seed in config.seeds]
    gallery = Gallery()
    constant = {
        "the image": gallery.add(setting.pictures(setting.old[setting.examples])),
        "half of it hidden": gallery.add(setting.pictures(runs[0].hidden)),
        "retrieved by the old network": gallery.add(setting.pictures(runs[0].before)),
    }
    rows = []
    for cell in runs[0].measured:
        samples = torch.stack([run.measured[cell] for run in runs])
        estimate = intervals.mean(samples)
        row = dict(zip(("step", "strategy", "budget"), cell, strict=True))
        for name, value, error in zip(
            _MEASURES, estimate.value.tolist(), estimate.standard_error.tolist(), strict=True
        ):
            row |= {name: round(value, _DIGITS), f"{name}_error": round(error, _DIGITS)}
        row["images"] = " ".join(
            str(number) for number in gallery.add(setting.pictures(runs[0].shown[cell]))
        )
        rows.append(row)
    kept = intervals.mean(torch.stack([run.kept for run in runs]))
    energies = setting.energies[setting.examples].tolist()
    details = {
        "labels": _LABELS,
        "measures": list(_MEASURES),
        "examples": [f"{value:.3f}".replace("-", "−") for value in energies],
        "rows": constant,
        "beta": config.beta,
        "retrieved_before": kept.value.item(),
        "retrieved_before_error": kept.standard_error.item(),
    }
    notes = (
        f"{config.dataset}, {len(setting.old)} task-1 images, beta = {config.beta:g}, float64; "
        f"errors are standard errors over {len(config.seeds)} seeds, and 0 where a strategy "
        f"without chance meets the whole of task 2; images are of seed {config.seeds[0]}, at equal "
        "steps of rank from the highest energy to the lowest"
    )
    return Recording(rows, gallery.images(), details, config.seeds, notes)


@dataclass(frozen=True)
class _Setting:
    """What all seeds share."""

    config: ReplayConfig
    old: Float[Tensor, "N d"]
    second: Float[Tensor, "M d"]
    points: Float[Tensor, "N d"]  # old fixed points, the targets
    energies: Float[Tensor, " N"]
    log_odds: Float[Tensor, "N N"]  # in the old network: what mass alone gives
    top: Int[Tensor, " T"]
    examples: Int[Tensor, " E"]
    center: Float[Tensor, " d"]
    lengths: Float[Tensor, " N"]
    shape: tuple[int, int]

    @classmethod
    def load(cls, config: ReplayConfig, device: torch.device) -> _Setting:
        images = data.load(config.dataset)
        first, second = data.split_tasks(images, len(images.labels.unique()) // 2)
        pixels = [task.images.flatten(1).double().to(device) for task in (first, second)]
        center = torch.cat(pixels).mean(0)
        old, later = (on_sphere(part, center=center) for part in pixels)
        count = len(old)
        for name, wanted in (
            ("budgets", max(config.budgets)),
            ("probes and examples", config.probes + config.examples),
        ):
            if wanted > count:
                raise ValueError(
                    f"{name} must ask for at most the {count} images of task 1, but ask for "
                    f"{wanted}."
                )
        points = fixed_points(old, old, config.beta, tol=_TOL, max_steps=_MAX_STEPS).points
        energies = energy(points, old, config.beta).round(decimals=_DECIMALS)
        ranked = select_replay(energies, count, "highest")
        shown = torch.linspace(0, count - 1, config.examples).round().long().to(device)
        return cls(
            config=config,
            old=old,
            second=later,
            points=points,
            energies=energies,
            log_odds=replay_log_odds(points, old, old, config.beta),
            top=ranked[: math.ceil(count / 10)],
            examples=ranked[shown],
            center=center,
            lengths=(pixels[0] - center).norm(dim=1),
            shape=images.images.shape[-2:],
        )

    def pictures(self, points: Float[Tensor, "E d"]) -> Float[Tensor, "E 1 h w"]:
        """The examples' images at points on the sphere."""
        flat = self.center + self.lengths[self.examples][:, None] * points
        return flat.unflatten(1, (1, *self.shape))

    def settle(self, starts: Tensor, memories: Tensor) -> Tensor:
        found = fixed_points(starts, memories, self.config.beta, tol=_TOL, max_steps=_MAX_STEPS)
        return found.points


@dataclass(frozen=True)
class _Seed:
    """What one seed gives: measures and shown images by (step, strategy, budget)."""

    measured: dict[tuple[float, str, int], Float[Tensor, " measures"]]
    shown: dict[tuple[float, str, int], Float[Tensor, "E d"]]
    hidden: Float[Tensor, "E d"]
    before: Float[Tensor, "E d"]
    kept: Float[Tensor, ""]  # share retrieved before the change


def _one_seed(setting: _Setting, seed: int, bar: tqdm) -> _Seed:
    config, old = setting.config, setting.old
    generator = torch.Generator().manual_seed(seed)

    def shuffled(count: int) -> Tensor:
        return torch.randperm(count, generator=generator).to(old.device)

    leaving, coming, drawn = shuffled(len(old)), shuffled(len(setting.second)), shuffled(len(old))
    probes = drawn[~torch.isin(drawn, setting.examples)][: config.probes]
    starting = torch.cat([setting.examples, probes])
    coin = torch.rand(len(starting), old.shape[1], generator=generator).to(old.device)
    starts = torch.where(coin < 0.5, 0.0, old[starting])
    count = len(setting.examples)
    home = setting.settle(old[starting], old)
    before = setting.settle(starts, old)
    chosen = {
        (strategy, budget): select_replay(setting.energies, budget, strategy, generator=generator)
        for strategy in _BY_ENERGY
        for budget in config.budgets
    }
    measured, shown = {}, {}
    for step in config.steps:
        gone = round(step * len(old))
        come = round(step * len(setting.second))
        new = torch.cat([old[leaving[gone:]], setting.second[coming[:come]]])
        rise = intrinsic_forgetting(setting.points, old, new, config.beta)
        log_odds = replay_log_odds(setting.points, new, old, config.beta)
        order = greedy_order(log_odds, max(config.budgets))
        sets = {("greedy", budget): order[:budget] for budget in config.budgets} | chosen
        unreplayed = setting.settle(starts, new)
        for (strategy, budget), members in sets.items():
            ends = unreplayed
            if budget:
                ends = setting.settle(starts, torch.cat([new, old[members]]))
            whole = _gains(log_odds[members], config.beta)
            mass_only = _gains(setting.log_odds[members], config.beta)
            left, net, top = rise - whole, whole - mass_only, setting.top
            back = (ends - home).norm(dim=1) <= config.tolerance
            distance2 = (ends - old[starting]).square().sum(1)
            cell = step, strategy, budget
            measured[cell] = torch.stack(
                [
                    net.sum() / rise.sum(),
                    net[top].sum() / rise[top].sum(),
                    left.mean(),
                    left[top].mean(),
                    back[count:].double().mean(),
                    distance2[count:].mean(),
                ]
            )
            shown[cell] = ends[:count]
            bar.update()
    kept = ((before - home).norm(dim=1) <= config.tolerance)[count:].double().mean()
    return _Seed(measured, shown, starts[:count], before[:count], kept)


def _gains(log_odds: Float[Tensor, "S K"], beta: float) -> Float[Tensor, " K"]:
    """What a set of memories takes off each target's energy: β⁻¹ log(1 + Σ_r a_rk)."""
    return softplus(log_odds.logsumexp(0), threshold=40.0) / beta
