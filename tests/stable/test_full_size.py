"""Stable Diffusion v1.5's architecture, with random weights: does everything run at its size?

Slow, and several gigabytes: it runs with ``pytest --slow``, or where there is a CUDA GPU. The
benchmark that measures the same passage is tried on a tiny pipeline, always.
"""

import math
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_pipeline import TINY

from hopfield_cl.records import provenance
from hopfield_cl.stable.pipelines import V1_5, latent_shape, new_pipeline

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import stable_full_size

# The numbers of parameters of the published weights.
PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
METHODS = ["lora", "full"]
ADAPTED = re.compile(r"(to_q|to_k|to_v|to_out\.0)\.weight$")


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


@pytest.fixture
def tiny():
    return new_pipeline(TINY, seed=0)


@pytest.mark.slow
def test_the_architecture_has_the_parameters_of_the_published_weights(pipeline):
    assert latent_shape(pipeline) == (4, 64, 64)
    for part, count in PARAMETERS.items():
        assert sum(p.numel() for p in getattr(pipeline, part).parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_step_an_energy_and_a_reconstruction_run_at_the_size_of_v1_5(pipeline, method):
    passage = stable_full_size.pass_through(pipeline, method)
    assert passage.loss.isfinite().all()
    assert passage.energy.isfinite().all()
    assert passage.image.shape == (1, 3, 512, 512)
    if method == "lora":
        pipeline.unet.unload_lora()


# The benchmark


@pytest.mark.parametrize("method", METHODS)
def test_each_clock_sees_its_own_part_and_not_the_warm_up(tiny, monkeypatch, method):
    now, calls = [0.0], []

    def called(unet, given):
        # The first call takes a hundred seconds, each other call one, and nothing else any.
        now[0] += 1.0 if calls else 100.0
        calls.append((unet.training, len(given[0])))

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    tiny.unet.register_forward_pre_hook(called)
    passage = stable_full_size.pass_through(tiny, method, warm_up=1, steps=4)
    # Two noise levels with two noises and their mirror images; one step of five lies below t.
    assert calls == [(True, 1)] * 5 + [(False, 4)] * 4 + [(False, 1)] * 2
    assert passage.seconds == {"step": 1.0, "energy": 2.0, "reconstruction": 1.0}
    assert passage.loss.shape == (4,)


def test_the_benchmark_records_a_row_for_each_method(tiny, monkeypatch, tmp_path):
    table = tmp_path / "stable.csv"
    monkeypatch.setattr(stable_full_size, "V1_5", TINY)
    # What is changed here only shows that nothing is measured in this process.
    monkeypatch.setattr(stable_full_size, "pass_through", None)
    monkeypatch.setattr(sys, "argv", ["stable_full_size.py", "--out", str(table)])
    stable_full_size.main()
    full, lora = provenance.read(table).rows
    assert (full["method"], lora["method"]) == ("full", "lora")
    sizes = {name: weight.shape for name, weight in tiny.unet.named_parameters()}
    assert full["parameters_millions"] == sum(map(math.prod, sizes.values())) / 1e6
    # A rank of 4: as many numbers for each input and each output of an adapted matrix.
    adapted = [shape for name, shape in sizes.items() if ADAPTED.search(name)]
    assert lora["parameters_millions"] == 4 * sum(map(sum, adapted)) / 1e6 > 0
    for row in (full, lora):
        assert all(row[f"{part}_seconds"] > 0 for part in ("step", "energy", "reconstruction"))
        assert row["peak_gib"] > 0
        assert "steps_per_second" not in row


def test_the_record_says_what_was_timed(monkeypatch, tmp_path):
    table = tmp_path / "stable.csv"
    monkeypatch.setattr(sys, "argv", ["stable_full_size.py", "--out", str(table)])
    asked = []

    def measured(*arguments):
        asked.append(arguments)
        return {"method": arguments[1]}

    monkeypatch.setattr(stable_full_size, "measure_apart", measured)
    stable_full_size.main()
    assert asked == [(V1_5, "full", "cpu"), (V1_5, "lora", "cpu")]
    made = provenance.read(table).made
    assert made["details"]["reconstruction"] == {"time": 199, "steps": 5}
    assert made["details"]["architecture"]["image_size"] == 512
    assert "8 noisy latents" in made["notes"]
