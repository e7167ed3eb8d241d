"""What the architecture of Stable Diffusion v1.5 needs, in seconds and in memory.

    python benchmarks/stable_full_size.py --out results/benchmark_stable.csv
    python benchmarks/stable_full_size.py --device cuda --out results/benchmark_stable_cuda.csv

The weights are random: time and memory do not depend on them. One captioned image is encoded, the
U-Net trained on it as the runs train a pipeline of this size, its energy taken, and its latent
reconstructed and decoded: once where all weights are trained, once by LoRA. On a CPU all is in
float32, and there is one step; it takes minutes, and more than ten gigabytes. On a GPU the training
is in bfloat16, with repeatable algorithms only, and all else in float32; calls to warm up come
before each part, and the time of a step is the mean of several. The peak of memory is over all of
it. As it never falls, each method is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from training import clocks, peak_bytes

from hopfield_cl.data.scenes import scenes
from hopfield_cl.diffusion.energies import denoising_energy
from hopfield_cl.records.provenance import record
from hopfield_cl.runs.sd_laboratory import LARGE
from hopfield_cl.stable.finetuning import Adaptation, captioned, fine_tune
from hopfield_cl.stable.latents import as_denoiser, decode, reconstruct
from hopfield_cl.stable.pipelines import V1_5, PipelineConfig, image_size, new_pipeline

if TYPE_CHECKING:  # before hopfield_cl.stable it would talk of image processors
    from diffusers import StableDiffusionPipeline

SEED, METHODS = 0, ("full", "lora")
# Calls to warm up, and the steps that are measured after them.
CALLS = {"cpu": (0, 1), "cuda": (3, 10)}
PRECISION = {"cpu": "no", "cuda": "bf16"}
ENERGY = {"sigmas": (0.5, 5.0), "levels": 1, "noises": 2, "batch_size": 1}
RECONSTRUCTION = {"time": 199, "steps": 5}


@dataclass(frozen=True, eq=False)
class Passage:
    """What came of one image that went through a pipeline.

    Attributes
    ----------
    trained : int
        Number of parameters that were trained.
    seconds : dict
        Wall time of a "step", an "energy" and a "reconstruction".
    loss : Tensor, shape (steps,)
        Loss of each measured step.
    energy : Tensor, shape (1,)
        Energy of its latent.
    image : Tensor, shape (1, 3, H, W)
        What was reconstructed.
    """

    trained: int
    seconds: dict[str, float]
    loss: Tensor
    energy: Tensor
    image: Tensor


def pass_through(
    pipeline: StableDiffusionPipeline, method: str, *, warm_up: int = 0, steps: int = 1
) -> Passage:
    """Train a pipeline on one captioned image, take its energy, and reconstruct it."""
    device = pipeline.unet.device
    drawn = scenes(1, seed=SEED, size=image_size(pipeline))
    learned = captioned(pipeline, drawn.images, drawn.captions)
    how = Adaptation(method=method, recomputed=LARGE[method].recomputed)
    config = replace(
        LARGE[method].training, steps=steps, batch_size=1, precision=PRECISION[device.type]
    )
    if warm_up:
        fine_tune(pipeline, learned, replace(config, steps=warm_up), adaptation=how)
    # The record leaves out what comes before the first step.
    training = fine_tune(pipeline, learned, config, adaptation=how)
    seconds = {"step": training.seconds / steps}

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(SEED)

    def clocked(name: str, work: Callable[[], object]) -> object:
        for _ in range(warm_up):
            work()
        began = clocks(device.type)[0]
        result = work()
        seconds[name] = clocks(device.type)[0] - began
        return result

    points, denoiser = learned.latents.flatten(1), as_denoiser(pipeline)
    energy = clocked(
        "energy", lambda: denoising_energy(points, denoiser, generator=generator(), **ENERGY)
    )
    noise = torch.randn(learned.latents.shape, generator=generator()).to(device)
    found = clocked(
        "reconstruction",
        lambda: reconstruct(
            pipeline, learned.latents, learned.captions, noise=noise, **RECONSTRUCTION
        ),
    )
    return Passage(
        trained=sum(p.numel() for p in pipeline.unet.parameters() if p.requires_grad),
        seconds=seconds,
        loss=training.loss,
        energy=energy.value,
        image=decode(pipeline, found),
    )


def measure(config: PipelineConfig, method: str, device: str) -> dict[str, object]:
    """One row of the table, measured in this process."""
    warm_up, steps = CALLS[device]
    pipeline = new_pipeline(config, seed=SEED).to(device)
    passage = pass_through(pipeline, method, warm_up=warm_up, steps=steps)
    row = {
        "method": method,
        "parameters_millions": passage.trained / 1e6,
        **{f"{name}_seconds": round(value, 4) for name, value in passage.seconds.items()},
        "peak_gib": round(peak_bytes(device) / 2**30, 2),
    }
    if device == "cuda":
        row["steps_per_second"] = round(1 / passage.seconds["step"], 3)
    return row


def measure_apart(config: PipelineConfig, method: str, device: str) -> dict[str, object]:
    """One row of the table, measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    # On Linux a process's peak begins at that of the one which started it: here nothing is large.
    # Unlike a pool of multiprocessing, an executor fails if its process dies for want of memory.
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(measure, config, method, device).result()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="table to write, *.csv")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    device, began, rows = arguments.device, time.perf_counter(), []
    for method in METHODS:
        rows.append(measure_apart(V1_5, method, device))
        print(rows[-1], flush=True)
    if arguments.out:
        took = time.perf_counter() - began
        memory = {"cpu": "resident memory of the process", "cuda": "memory allocated on the GPU"}
        noisy = 2 * ENERGY["noises"] * (ENERGY["levels"] + 1)
        notes = (
            f"random weights, on {device}, one image; an energy takes {noisy} noisy latents "
            f"through the U-Net; peak_gib is the {memory[device]}, at its highest from the "
            "building of the pipeline to the decoding of the reconstruction"
        )
        details = {
            "architecture": asdict(V1_5),
            "calls": dict(zip(("to_warm_up", "steps_measured"), CALLS[device], strict=True)),
            "precision_of_training": PRECISION[device],
            "recomputed": {method: LARGE[method].recomputed for method in METHODS},
            "energy": ENERGY,
            "reconstruction": RECONSTRUCTION,
        }
        record(arguments.out, rows, seeds=[SEED], seconds=took, notes=notes, details=details)


if __name__ == "__main__":
    main()
