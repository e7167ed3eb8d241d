"""Speed of fitting the Boltzmann machine by EM, against scikit-learn's GaussianMixture.

    python benchmarks/boltzmann.py --out results/benchmark_boltzmann.csv

The data are the 5,000 images of "mnist" (d = 784). scikit-learn has no mixture with one variance
for all components and directions; here its "spherical" one is given that in three lines, which cost
it next to nothing. Both start from the same means, equal proportions and one variance, and then
make the same steps; the table says by how much their likelihoods differ. "sweep" is one step of EM,
measured as the difference between two lengths of fit; "fit" is a whole fit, from the same start
until the mean log-likelihood is within 0.1 of what it is after SWEEPS steps. Both are timed in
turn, round after round; a ratio is the median over rounds of scikit-learn's time over ours.
scikit-learn keeps the dtype of the data; the row with two dtypes compares our float32 with the
float64 in which it is most often used. All run on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from hopfield_cl import data, memories
from hopfield_cl.networks.boltzmann import HopfieldBoltzmannMachine, fit_em, initialise
from hopfield_cl.records.provenance import record

COUNTS, BETA, SEED, SWEEPS, ROUNDS = [500, 50], 1000.0, 0, 15, 5
LEARNED = ("memories", "weights", "beta")
DTYPES = [
    (torch.float32, np.float32),
    (torch.float64, np.float64),
    (torch.float32, np.float64),
]
CASES = [(count, *dtypes) for count in COUNTS for dtypes in DTYPES]


class TiedSpherical(GaussianMixture):
    """scikit-learn's mixture with one variance for all components."""

    def _m_step(self, points: np.ndarray, log_resp: np.ndarray, **more: object) -> None:
        super()._m_step(points, log_resp, **more)
        # It needs reg_covar for components that hold one sample; one variance for all does not.
        self.covariances_[:] = self.weights_ @ self.covariances_ - self.reg_covar
        self.precisions_cholesky_ = 1 / np.sqrt(self.covariances_)


def ours(start: HopfieldBoltzmannMachine, points: torch.Tensor, steps: int) -> list[float]:
    """Mean log-likelihood before each step and after the last."""
    machine = HopfieldBoltzmannMachine(start.memories, BETA, learned=LEARNED)
    machine.load_state_dict(start.state_dict())
    return fit_em(machine, points, steps=steps, tol=0.0).log_likelihood.tolist()


def theirs(start: HopfieldBoltzmannMachine, points: np.ndarray, steps: int) -> list[float]:
    """Mean log-likelihood before each step and after the last."""
    means = start.memories.detach().numpy().astype(points.dtype)
    mixture = TiedSpherical(
        len(means),
        covariance_type="spherical",
        means_init=means,
        weights_init=np.full(len(means), 1 / len(means), dtype=means.dtype),
        precisions_init=np.full(len(means), BETA, dtype=means.dtype),
        tol=0.0,
        max_iter=steps,
    )
    return [float(value) for value in mixture.fit(points).lower_bounds_]


def durations(call: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time of one call."""
    began, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - cpu


def first_to_reach(values: list[float], level: float) -> int:
    """Number of steps after which the likelihood is at least the level."""
    return next(step for step, value in enumerate(values) if value >= level)


def measure(count: int, dtype: torch.dtype, their_dtype: type) -> dict[str, object]:
    """One row of the table."""
    points = memories.on_sphere(data.load("mnist").images.flatten(1).to(dtype))
    generator = torch.Generator().manual_seed(SEED)
    start = initialise(points, count, BETA, generator=generator, learned=LEARNED)
    theirs_points = points.numpy().astype(their_dtype)
    fits = {
        "ours": lambda steps: ours(start, points, steps),
        "theirs": lambda steps: theirs(start, theirs_points, steps),
    }
    values = {name: fit(SWEEPS) for name, fit in fits.items()}
    apart = max(abs(a - b) for a, b in zip(values["ours"], values["theirs"], strict=False))
    level = values["theirs"][-1] - 0.1
    needed = {name: max(1, first_to_reach(value, level)) for name, value in values.items()}
    times = {(name, what): [] for name in fits for what in ("sweep", "fit")}
    for _ in range(ROUNDS):
        for name, fit in fits.items():
            short, long = (durations(lambda s=steps, f=fit: f(s)) for steps in (2, 7))
            sweep = [(b - a) / 5 for a, b in zip(short, long, strict=True)]
            times[name, "sweep"].append(sweep)
            times[name, "fit"].append(durations(lambda f=fit, n=name: f(needed[n])))

    def ratio(what: str, clock: int) -> float:
        pairs = zip(times["theirs", what], times["ours", what], strict=True)
        return round(statistics.median(one[clock] / other[clock] for one, other in pairs), 2)

    def milliseconds(name: str, what: str) -> float:
        return round(1e3 * statistics.median(wall for wall, _ in times[name, what]), 1)

    return {
        "memories": count,
        "dtype": str(dtype).removeprefix("torch."),
        "sklearn_dtype": their_dtype.__name__,
        "sweep_ms": milliseconds("ours", "sweep"),
        "sklearn_sweep_ms": milliseconds("theirs", "sweep"),
        "sweep_ratio": ratio("sweep", 0),
        "sweep_cpu_ratio": ratio("sweep", 1),
        "log_likelihood": round(level, 3),
        "largest_difference": float(f"{apart:.1e}"),
        "steps": needed["ours"],
        "sklearn_steps": needed["theirs"],
        "fit_ms": milliseconds("ours", "fit"),
        "sklearn_fit_ms": milliseconds("theirs", "fit"),
        "fit_ratio": ratio("fit", 0),
        "fit_cpu_ratio": ratio("fit", 1),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="table to write, *.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    began = time.perf_counter()
    rows = []
    for case in tqdm(CASES, desc="cases"):
        with threadpool_limits(1):
            rows.append(measure(*case))
        print(rows[-1], flush=True)
    if arguments.out:
        notes = (
            "5,000 images, d = 784, one thread, both from the same start; *_ratio are times of "
            "scikit-learn over ours, medians over rounds; largest_difference is that of the mean "
            "log-likelihoods, in nats, over all steps"
        )
        took = time.perf_counter() - began
        record(arguments.out, rows, seeds=[SEED], seconds=took, notes=notes)


if __name__ == "__main__":
    main()
