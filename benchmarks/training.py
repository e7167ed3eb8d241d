"""Speed of training against a bare loop, and time and memory of a model's energies.

    python benchmarks/training.py --out results/benchmark_training.csv
    python benchmarks/training.py --device cuda --setting cifar10 --out results/benchmark_cuda.csv

The bare loop has the same network, batch size and optimiser as ``train`` in a setting of the book,
and does nothing but forward, backward and step, on one batch made noisy beforehand. ``train`` also
draws images, times and noise, clips the gradient, averages the weights, shows its bar, and writes
a checkpoint once a block. Both run in turn, block after block, in one run: the bare loop has its
blocks where ``train`` calls its observer. A ratio is the median over blocks. On the CPU both are
in float32 on one thread, and there are ratios of wall time and of processor time. On a GPU
``train`` runs in bfloat16, channels last and with repeatable algorithms only, the bare loop in
float32 and with any. The energies are measured in a process each, after a call on a few images.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from hopfield_cl.diffusion.continual import SETTINGS, Setting
from hopfield_cl.diffusion.energies import denoising_energy, flow_energy
from hopfield_cl.diffusion.models import DiffusionModel, new_model
from hopfield_cl.diffusion.noise import as_denoiser
from hopfield_cl.diffusion.training import train
from hopfield_cl.records.provenance import record

SEED, IMAGES, SIGMAS = 0, 512, (0.5, 50.0)
ENERGIES = {"flow_energy": flow_energy, "denoising_energy": denoising_energy}


def random_images(setting: Setting, count: int, device: str) -> Tensor:
    """Uniform noise in [−1, 1]: how long a step takes does not depend on the picture."""
    generator = torch.Generator().manual_seed(SEED)
    return (2 * torch.rand(count, *setting.model.image_shape, generator=generator) - 1).to(device)


def clocks(device: str) -> tuple[float, float]:
    """Wall time and processor time, when all work so far is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def bare_loop(setting: Setting, device: str) -> Callable[[], None]:
    """One step of it."""
    model: DiffusionModel = new_model(setting.model, seed=SEED).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0, fused=True)
    clean = random_images(setting, setting.first.batch_size, device)
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    times = torch.randint(setting.model.train_timesteps, (len(clean),), generator=generator)
    times = times.to(device)
    noisy = model.scheduler.add_noise(clean, noise, times)
    target = model.target(clean, noise, times)

    def step() -> None:
        loss = mse_loss(model(noisy, times), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@contextmanager
def any_algorithm() -> Iterator[None]:
    """Lift the restriction to repeatable algorithms under which ``train`` calls its observer."""
    deterministic = torch.backends.cudnn.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = deterministic
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def measure_training(setting: Setting, device: str, blocks: int, block: int) -> list[dict]:
    """Rows of the table about steps of training."""
    step, spent = bare_loop(setting, device), {"train": [], "bare": []}
    for _ in range(3):
        step()

    def observe(now: int, averaged: DiffusionModel) -> None:
        middle = clocks(device)
        spent["train"].append([b - a for a, b in zip(began[-1], middle, strict=True)])
        with any_algorithm():
            for _ in range(block):
                step()
            end = clocks(device)
        spent["bare"].append([b - a for a, b in zip(middle, end, strict=True)])
        began.append(clocks(device))

    model = new_model(setting.model, seed=SEED).to(device)
    # The first block, in which all is set up, does not count.
    steps = (blocks + 1) * block
    config = replace(
        setting.first,
        steps=steps,
        warmup=0,
        precision="bf16" if device == "cuda" else "no",
        checkpoint_every=block,
        observe_at=tuple(range(block, steps + 1, block)),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        began = [clocks(device)]
        train(
            model,
            random_images(setting, IMAGES, device),
            config,
            checkpoint=path,
            observe=observe,
        )
    pairs = list(zip(spent["train"], spent["bare"], strict=True))[1:]
    rows = []
    for clock, name in enumerate(["wall", "processor"] if device == "cpu" else ["wall"]):
        for which, part in enumerate(spent):
            milliseconds = [1e3 * pair[which][clock] / block for pair in pairs]
            rows.append(row(f"{part}: a step, {name} time", milliseconds, "ms"))
        ratios = [ours[clock] / bare[clock] for ours, bare in pairs]
        rows.append(row(f"train to bare, {name} time", ratios, "ratio"))
    rate = [block / ours[0] for ours, _ in pairs]
    return [*rows, row("train: rate", rate, "steps/s")]


def row(measure: str, values: list[float], unit: str) -> dict[str, object]:
    """One row of the table."""
    low, middle, high = min(values), statistics.median(values), max(values)
    numbers = {"median": middle, "lowest": low, "highest": high}
    return {"measure": measure, **{k: round(v, 4) for k, v in numbers.items()}, "unit": unit}


def peak_bytes(device: str) -> int:
    """Most memory this process has held so far, on the device or, on the CPU, at all."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_energy(name: str, setting: Setting, device: str, count: int) -> list[dict]:
    """Rows of the table about one energy, measured in this process."""
    model = new_model(setting.model, seed=SEED).to(device).eval()
    images = random_images(setting, count, device).flatten(1)

    def energy(points: Tensor) -> None:
        generator = torch.Generator().manual_seed(SEED)
        ENERGIES[name](points, as_denoiser(model), sigmas=SIGMAS, generator=generator)

    energy(images[:2])
    before, began = peak_bytes(device), clocks(device)[0]
    energy(images)
    took, extra = clocks(device)[0] - began, (peak_bytes(device) - before) / 2**20
    what = f"{name} of {count:,} images"
    return [row(f"{what}: time", [took], "s"), row(f"{what}: extra memory", [extra], "MiB")]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="table to write, *.csv")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--setting", choices=list(SETTINGS), default="mnist")
    parser.add_argument("--blocks", type=int, default=8, help="blocks of each loop")
    parser.add_argument("--block", type=int, default=50, help="steps of a block")
    parser.add_argument("--images", type=int, default=1000, help="images whose energy is taken")
    parser.add_argument("--energy", choices=list(ENERGIES), help="measure one energy")
    arguments = parser.parse_args()
    setting, device = SETTINGS[arguments.setting], arguments.device
    torch.set_num_threads(1)
    if arguments.energy:
        print(json.dumps(measure_energy(arguments.energy, setting, device, arguments.images)))
        return
    began = time.perf_counter()
    rows = measure_training(setting, device, arguments.blocks, arguments.block)
    for name in ENERGIES:
        options = ["--energy", name, "--device", device, "--setting", arguments.setting]
        command = [sys.executable, __file__, *options, "--images", str(arguments.images)]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows += json.loads(run.stdout)
    for line in rows:
        print(line, flush=True)
    if arguments.out:
        notes = (
            f"setting {arguments.setting} on {device}, batches of {setting.first.batch_size}, "
            f"{arguments.blocks} blocks of {arguments.block} steps of each loop, one checkpoint a "
            "block; lowest and highest over blocks; extra memory is by how much the call raised "
            "the peak of its process"
        )
        took = time.perf_counter() - began
        record(arguments.out, rows, seeds=[SEED], seconds=took, notes=notes)


if __name__ == "__main__":
    main()
