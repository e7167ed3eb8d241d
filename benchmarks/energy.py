"""Speed and memory of the energy and of retrieval, against a limit and a naive peer.

    python benchmarks/energy.py --out results/benchmark_energy.csv

The limit is the bare matrix product of memories and queries into a buffer that exists already: any
exact energy computes at least this. The peer is ``logsumexp`` (for retrieval, ``softmax``) of the
whole score matrix. All are timed in turn, round after round, so that a ratio compares neighbours in
time; the table holds the median ratio over the rounds. Each size runs in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from tqdm.auto import tqdm

from hopfield_cl.energy import energy, retrieve
from hopfield_cl.records.provenance import record

QUERIES, BETA, SEED = 256, 1.0, 0
SIZES = [(count, dim) for dim in (64, 784) for count in (10_000, 100_000, 1_000_000)]
# A round of the smallest size takes milliseconds: more rounds there, for a steady median.
MULTIPLICATIONS, FEWEST_ROUNDS, MOST_ROUNDS = 2e11, 7, 101


def peak_bytes() -> int:
    """Most memory this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def extra_peak(call: Callable[[], object]) -> float:
    """By how much a call raises the peak of memory, in MiB."""
    before = peak_bytes()
    call()
    return (peak_bytes() - before) / 2**20


def seconds(call: Callable[[], object]) -> float:
    """Duration of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(count: int, dim: int) -> dict[str, object]:
    """One row of the table."""
    generator = torch.Generator().manual_seed(SEED)
    # Scores of unit variance, as after on_sphere with β about d: neither one memory nor all count.
    memories = torch.empty(count, dim).normal_(generator=generator)
    queries = torch.empty(QUERIES, dim).normal_(generator=generator) / dim**0.5
    few = memories[:1000]
    energy(queries, few, BETA), retrieve(queries, few, BETA)  # libraries and threads are loaded
    extra = extra_peak(lambda: (energy(queries, memories, BETA), retrieve(queries, memories, BETA)))

    scores = torch.empty(count, QUERIES)
    naive = torch.logsumexp(BETA * queries @ memories.mT, -1)
    log_z = BETA * (0.5 * queries.square().sum(-1) - energy(queries, memories, BETA))
    torch.testing.assert_close(log_z, naive, rtol=1e-5, atol=1e-4)
    calls = {
        "product": lambda: torch.mm(memories, queries.mT, out=scores),
        "energy": lambda: energy(queries, memories, BETA),
        "retrieve": lambda: retrieve(queries, memories, BETA),
        "naive_energy": lambda: torch.logsumexp(BETA * queries @ memories.mT, -1),
        "naive_retrieve": lambda: torch.softmax(BETA * queries @ memories.mT, -1) @ memories,
    }
    rounds = int(MULTIPLICATIONS / (count * dim * QUERIES))
    rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, rounds))
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))

    def ratio(name: str, against: str) -> float:
        pairs = zip(times[name], times[against], strict=True)
        return round(statistics.median(one / other for one, other in pairs), 3)

    return {
        "dim": dim,
        "memories": count,
        "product_ms": round(1e3 * statistics.median(times["product"]), 2),
        "energy_to_product": ratio("energy", "product"),
        "energy_to_naive": ratio("energy", "naive_energy"),
        "retrieve_to_product": ratio("retrieve", "product"),
        "retrieve_to_naive": ratio("retrieve", "naive_retrieve"),
        "extra_mib": round(extra, 1),
        "rounds": rounds,
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="table to write, *.csv")
    parser.add_argument("--size", nargs=2, type=int, metavar=("N", "D"), help="measure one size")
    arguments = parser.parse_args()
    if arguments.size:
        print(json.dumps(measure(*arguments.size)))
        return
    began = time.perf_counter()
    rows = []
    for count, dim in tqdm(SIZES, desc="sizes"):
        command = [sys.executable, __file__, "--size", str(count), str(dim)]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(run.stdout))
        print(rows[-1], flush=True)
    if arguments.out:
        notes = f"{QUERIES} queries, float32, medians over rounds; *_to_* are ratios of durations"
        took = time.perf_counter() - began
        record(arguments.out, rows, seeds=[SEED], seconds=took, notes=notes)


if __name__ == "__main__":
    main()
