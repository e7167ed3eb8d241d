"""Speed of choosing 500 of 5,000 memories to replay, against plain greedy and against apricot.

    python benchmarks/replay.py --out results/benchmark_replay.csv

The pool is the 5,000 images of "mnist" (d = 784), the task change a rotation, every image a
target. The peer is apricot-select (Schreiber, Bilmes & Noble 2020) with its lazy optimiser; its
feature-based function Σ_k log(1 + Σ_r a_rk) is the same objective. It is no requirement of the
book: name a Python that has it with --apricot, and it is measured; without it its row is left out.
All use two threads. Processor time tells of the work even where other processes share the cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import softplus

from hopfield_cl import data, memories, replay
from hopfield_cl.records.provenance import record

BUDGET, BETA, EPSILON, SEED, THREADS = 500, 32.0, 0.02, 0, 2
# Plain greedy takes minutes for the whole budget; each of its choices costs the same.
PLAIN_BUDGET = 20
APRICOT = """
import sys, time, numpy as np, apricot
odds, budget = np.load(sys.argv[1]).astype(np.float64), int(sys.argv[2])
def choose(odds, budget):
    return apricot.FeatureBasedSelection(budget, concave_func="log", optimizer="lazy").fit(odds)
choose(odds[:50, :50], 5)  # compiles
began, cpu = time.perf_counter(), time.process_time()
found = choose(odds, budget)
print(time.perf_counter() - began, time.process_time() - cpu, *found.ranking)
"""


def plain_greedy(log_odds: torch.Tensor, budget: int) -> torch.Tensor:
    """Greedy that computes every gain again for each choice."""
    held = log_odds.new_zeros(log_odds.shape[1])
    chosen = []
    for _ in range(budget):
        value = torch.cat([softplus(part - held).sum(1) for part in log_odds.split(500)])
        value[chosen] = -torch.inf
        chosen.append(int(value.argmax()))
        held = torch.logaddexp(held, log_odds[chosen[-1]])
    return torch.tensor(chosen)


def measure(what: str, call: Callable[[], torch.Tensor]) -> tuple[dict[str, object], torch.Tensor]:
    """A row of the table, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    seconds, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return row(what, seconds, cpu), result


def row(what: str, seconds: float, cpu: float) -> dict[str, object]:
    """A row of the table, still without its choices and gain."""
    return {
        "what": what,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "choices": "",
        "cpu_a_choice": "",
        "gain": "",
        "same_as_lazy": "",
    }


def apricot(python: str, odds: torch.Tensor) -> tuple[dict[str, object], torch.Tensor]:
    """The row of the peer, run in a Python of its own."""
    environment = os.environ | {"NUMBA_NUM_THREADS": str(THREADS)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "odds.npy"
        np.save(file, odds.numpy())
        command = [python, "-c", APRICOT, str(file), str(BUDGET)]
        run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, cpu, *ranking = run.stdout.split()
    order = torch.tensor([int(index) for index in ranking])
    return row("apricot, lazy", float(seconds), float(cpu)), order


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="table to write, *.csv")
    parser.add_argument("--apricot", metavar="PYTHON", help="a Python with apricot-select")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    began = time.perf_counter()
    pool = memories.on_sphere(data.load("mnist").images.flatten(1))
    generator = torch.Generator().manual_seed(SEED)
    turn = memories.random_rotation(784, EPSILON, generator=generator, dtype=torch.float32)
    new = pool @ turn.mT
    matrix, log_odds = measure("gain matrix", lambda: replay.replay_log_odds(pool, new, pool, BETA))
    runs = [
        measure("lazy greedy", lambda: replay.greedy_order(log_odds, BUDGET)),
        measure("plain greedy", lambda: plain_greedy(log_odds, PLAIN_BUDGET)),
    ]
    notes = (
        f"5,000 candidates × 5,000 targets, float32, {THREADS} threads; plain greedy stops early"
    )
    if arguments.apricot:
        runs.append(apricot(arguments.apricot, log_odds.exp()))
        notes += "; apricot-select in a Python of its own, in float64 and after compilation"
    else:
        notes += "; apricot-select was not at hand"
    rows, lazy = [matrix], runs[0][1]
    for line, order in runs:
        line["choices"] = len(order)
        line["cpu_a_choice"] = round(line["cpu_seconds"] / len(order), 5)
        line["gain"] = round(replay.budget_curve(order, log_odds, BETA)[-1].item(), 3)
        line["same_as_lazy"] = round((order == lazy[: len(order)]).double().mean().item(), 3)
        rows.append(line)
    for line in rows:
        print(line)
    if arguments.out:
        took = time.perf_counter() - began
        record(arguments.out, rows, seeds=[SEED], seconds=took, notes=notes)


if __name__ == "__main__":
    main()
