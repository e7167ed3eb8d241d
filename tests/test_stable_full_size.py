"""Stable Diffusion v1.5's architecture, with random weights: does everything run at its size?

Slow, and several gigabytes: it runs with ``pytest --slow``, or where there is a CUDA GPU.
"""

import resource
import time

import pytest
import torch

from hopfield_cl.diffusion.energies import denoising_energy
from hopfield_cl.diffusion.steps import TrainingConfig
from hopfield_cl.scenes import scenes
from hopfield_cl.stable.finetuning import Adaptation, captioned, fine_tune
from hopfield_cl.stable.latents import as_denoiser, decode, reconstruct
from hopfield_cl.stable.pipelines import V1_5, latent_shape, new_pipeline

# The numbers of parameters of the published weights.
PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


@pytest.fixture(scope="module")
def device(request):
    if torch.cuda.is_available():
        return "cuda"
    if not request.config.getoption("--slow", default=False):
        pytest.skip("several minutes and gigabytes on a CPU; run with --slow")
    return "cpu"


@pytest.fixture(scope="module")
def pipeline(device):
    return new_pipeline(V1_5, seed=0).to(device)


@pytest.mark.slow
def test_the_architecture_has_the_parameters_of_the_published_weights(pipeline):
    for part, count in PARAMETERS.items():
        assert sum(p.numel() for p in getattr(pipeline, part).parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_step_an_energy_and_a_reconstruction_run_at_the_size_of_v1_5(
    pipeline, device, method, capsys
):
    drawn, seconds = scenes(1, seed=0, size=512), {}

    def clocked(name, work):
        began = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - began
        return result

    learned = clocked("encode", lambda: captioned(pipeline, drawn.images, drawn.captions))
    assert learned.latents.shape[1:] == latent_shape(pipeline) == (4, 64, 64)
    # No average: it would take as much memory again as the weights.
    config = TrainingConfig(steps=1, batch_size=1, ema_decay=0.0)
    how = Adaptation(method=method, recomputed="activations")
    record = clocked("step", lambda: fine_tune(pipeline, learned, config, adaptation=how))
    assert record.loss.isfinite().all()
    options = {"sigmas": (0.5, 5.0), "levels": 1, "noises": 2}
    energy = clocked(
        "energy",
        lambda: denoising_energy(
            learned.latents.flatten(1),
            as_denoiser(pipeline),
            generator=torch.Generator().manual_seed(0),
            batch_size=1,
            **options,
        ),
    )
    assert energy.value.isfinite().all()
    noise = torch.randn(learned.latents.shape, generator=torch.Generator().manual_seed(0))
    found = clocked(
        "reconstruction",
        lambda: reconstruct(
            pipeline, learned.latents, drawn.captions, 199, noise=noise.to(device), steps=5
        ),
    )
    assert decode(pipeline, found).shape == (1, 3, 512, 512)
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    with capsys.disabled():
        times = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(f"\nv1.5, {method}, on {device}: {times}; peak {peak:.1f} GiB")
    if method == "lora":
        pipeline.unet.unload_lora()
