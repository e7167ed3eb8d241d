import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_pipeline import TINY, same, weights

from hopfield_cl.data.scenes import scenes
from hopfield_cl.diffusion.steps import TrainingConfig
from hopfield_cl.stable import pretraining
from hopfield_cl.stable.finetuning import (
    Adaptation,
    Captioned,
    captioned,
    fine_tune,
    merge_adapter,
)
from hopfield_cl.stable.latents import encode, generate
from hopfield_cl.stable.pipelines import has_adapter, new_pipeline, save_pipeline
from hopfield_cl.stable.pretraining import train_autoencoder, train_text_to_image

CONFIG = TrainingConfig(steps=4, batch_size=4, warmup=0, learning_rate=1e-3)
METHODS = ("full", "lora")


@pytest.fixture(scope="module")
def fresh():
    return new_pipeline(TINY, seed=0)


@pytest.fixture
def pipeline(fresh):
    return copy.deepcopy(fresh)


@pytest.fixture(scope="module")
def learned(fresh):
    drawn = scenes(10, seed=0, size=16)
    return captioned(fresh, drawn.images, drawn.captions)


def first(examples, count):
    return Captioned(examples.latents[:count], examples.captions[:count])


def bare(pipeline):
    """Weights without an adapter's, under the names they have when none is attached."""
    return {
        name.replace("base_layer.", ""): value
        for name, value in weights(pipeline).items()
        if "lora" not in name
    }


# Fine-tuning


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parts_stay_bit_for_bit_and_the_rest_learns(fresh, pipeline, learned, method):
    record = fine_tune(pipeline, learned, CONFIG, adaptation=Adaptation(method=method))
    assert record.loss.shape == (4,)
    before, after = bare(fresh), bare(pipeline)
    assert before.keys() == after.keys()
    frozen = [name for name in before if method == "lora" or not name.startswith("unet")]
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert has_adapter(pipeline) == (method == "lora")
    drawn = [
        generate(p, ["a star"], generator=torch.Generator().manual_seed(0), steps=2)
        for p in (fresh, pipeline)
    ]
    assert not torch.equal(*drawn)
    assert not pipeline.unet.training


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_on_what_it_learns(pipeline, learned, method):
    config = TrainingConfig(
        steps=30, batch_size=16, warmup=0, learning_rate=2e-2, ema_decay=0.0, seed=1
    )
    loss = fine_tune(pipeline, learned, config, adaptation=Adaptation(method=method)).loss
    assert loss[-8:].mean() < loss[:8].mean() - 0.03


@pytest.mark.parametrize("method", METHODS)
def test_recomputed_activations_give_the_same_steps(fresh, learned, method):
    ends = []
    for recomputed in ("nothing", "activations"):
        pipeline = copy.deepcopy(fresh)
        how = Adaptation(method=method, recomputed=recomputed)
        ends.append(fine_tune(pipeline, learned, CONFIG, adaptation=how).loss)
    torch.testing.assert_close(*ends, atol=1e-6, rtol=1e-5)


def test_a_merged_adapter_draws_the_same_and_can_be_saved(pipeline, learned, tmp_path):
    config = TrainingConfig(steps=6, batch_size=4, warmup=0, learning_rate=2e-2, ema_decay=0.0)
    fine_tune(pipeline, learned, config, adaptation=Adaptation(method="lora"))
    with pytest.raises(ValueError, match="call merge_adapter first"):
        save_pipeline(tmp_path, pipeline, training={})
    with pytest.raises(ValueError, match="call merge_adapter first"):
        fine_tune(pipeline, learned, CONFIG)

    def drawn():
        return generate(pipeline, ["a star"], generator=torch.Generator().manual_seed(0), steps=2)

    before = drawn()
    merge_adapter(pipeline)
    assert not has_adapter(pipeline)
    torch.testing.assert_close(drawn(), before, atol=1e-4, rtol=0)
    save_pipeline(tmp_path / "merged", pipeline, training={})
    with pytest.raises(ValueError, match="must have an adapter"):
        merge_adapter(pipeline)


def test_replay_takes_its_share_of_every_batch(fresh, pipeline, learned):
    # The replayed latents are so large that the loss says how many of them came.
    strange = Captioned(0 * learned.latents[:2] + 1e4, learned.captions[:2])
    config = TrainingConfig(steps=3, batch_size=4, replay_share=0.5, learning_rate=1e-9)
    plain = fine_tune(copy.deepcopy(fresh), learned, config).loss
    mixed = fine_tune(pipeline, learned, config, replay=strange).loss
    assert (mixed != plain).all()
    none = TrainingConfig(steps=3, batch_size=4, replay_share=0.1)
    with pytest.raises(ValueError, match="replay_share must leave a place"):
        fine_tune(pipeline, learned, none, replay=strange)


def test_an_observer_sees_the_averaged_network_and_disturbs_nothing(fresh, learned):
    seen = []

    def look(step, pipeline):
        torch.rand(5)
        seen.append((step, pipeline.unet.training, copy.deepcopy(pipeline)))

    observed = TrainingConfig(**{**vars(CONFIG), "observe_at": (2, 4)})
    pipelines = [copy.deepcopy(fresh) for _ in range(2)]
    fine_tune(pipelines[0], learned, observed, observe=look)
    fine_tune(pipelines[1], learned, CONFIG)
    assert same(*pipelines)
    assert [entry[:2] for entry in seen] == [(2, False), (4, False)]
    assert same(seen[1][2], pipelines[0])
    with pytest.raises(ValueError, match="observe and observe_at must be given together"):
        fine_tune(pipelines[0], learned, observed)


def test_half_precision_trains_an_adapter_beside_halved_weights(pipeline, learned):
    pipeline.to(torch.bfloat16)
    config = TrainingConfig(steps=2, batch_size=2, precision="bf16")
    lora = Adaptation(method="lora")
    with pytest.raises(TypeError, match="unless precision is 'bf16'"):
        fine_tune(pipeline, learned, CONFIG, adaptation=lora)
    assert fine_tune(pipeline, learned, config, adaptation=lora).loss.isfinite().all()
    pipeline.unet.unload_lora()
    with pytest.raises(TypeError, match="must be in float32 where it is trained"):
        fine_tune(pipeline, learned, config)


def test_halved_weights_see_the_noise_levels_of_full_precision(pipeline, learned, monkeypatch):
    seen = []
    draw = pipeline.scheduler.add_noise
    monkeypatch.setattr(
        pipeline.scheduler,
        "add_noise",
        lambda *given: seen.append(given[0].dtype) or draw(*given),
    )
    pipeline.to(torch.bfloat16)
    half = Captioned(learned.latents.bfloat16(), learned.captions)
    config = TrainingConfig(steps=1, batch_size=2, precision="bf16")
    fine_tune(pipeline, half, config, adaptation=Adaptation(method="lora"))
    assert seen == [torch.float32]


def test_an_adapter_of_another_rank_is_not_trained_unasked(pipeline, learned):
    fine_tune(pipeline, learned, CONFIG, adaptation=Adaptation(method="lora", rank=4))
    with pytest.raises(ValueError, match="rank must be 4, that of the adapter that is attached"):
        fine_tune(pipeline, learned, CONFIG, adaptation=Adaptation(method="lora", rank=2))


def test_an_adapter_does_not_go_on_beside_other_weights(pipeline, learned, tmp_path):
    how = {"adaptation": Adaptation(method="lora"), "checkpoint": tmp_path / "state.safetensors"}
    fine_tune(pipeline, learned, CONFIG, **how)
    with pytest.raises(ValueError, match="checkpoint must belong to this training"):
        fine_tune(new_pipeline(TINY, seed=7), learned, CONFIG, **how)


def test_an_autoencoder_under_another_loss_does_not_go_on(pipeline, tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    train_autoencoder(pipeline, CONFIG, checkpoint=path)
    monkeypatch.setattr(pretraining, "_COLOUR_WEIGHT", 1.0)
    with pytest.raises(ValueError, match="checkpoint must belong to this training"):
        train_autoencoder(pipeline, CONFIG, checkpoint=path)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"pipeline": None}, TypeError, "pipeline must be a StableDiffusionPipeline"),
        ({"learned": None}, TypeError, "learned must be Captioned"),
        ({"config": None}, TypeError, "config must be a TrainingConfig"),
        ({"checkpoint": "state.pt"}, ValueError, "must end in .safetensors"),
    ],
)
def test_a_training_that_does_not_fit_is_refused(pipeline, learned, change, error, said):
    asked = {"pipeline": pipeline, "learned": learned, "config": CONFIG, "checkpoint": None}
    asked |= change
    with pytest.raises(error, match=said):
        fine_tune(
            asked["pipeline"],
            asked["learned"],
            asked["config"],
            checkpoint=asked["checkpoint"],
        )


def test_captions_and_latents_that_do_not_fit_are_refused(fresh, learned):
    with pytest.raises(ValueError, match="one for each of the 1 captions"):
        Captioned(learned.latents, ("a star",))
    with pytest.raises(TypeError, match="captions must be a tuple"):
        Captioned(learned.latents, ["a star"] * 10)
    small = Captioned(torch.zeros(1, 4, 2, 2), ("a star",))
    with pytest.raises(ValueError, match="learned must hold latents of the pipeline's shape"):
        fine_tune(fresh, small, CONFIG)
    with pytest.raises(ValueError, match="method must be one of full, lora"):
        Adaptation(method="half")
    with pytest.raises(ValueError, match="rank must be at least 1"):
        Adaptation(rank=0)


# Pretraining


def test_the_autoencoder_learns_and_sets_its_scaling_factor_to_unit_variance(pipeline):
    config = TrainingConfig(steps=80, batch_size=8, warmup=0, learning_rate=1e-2)
    record = train_autoencoder(pipeline, config)
    assert record.loss[-20:].mean() < 0.7 * record.loss[:20].mean()
    drawn = scenes(256, seed=5, size=16)
    with torch.no_grad():
        found = pipeline.vae.encode(drawn.images).latent_dist.sample(torch.Generator())
    assert (pipeline.vae.config.scaling_factor * found).var().item() == pytest.approx(1, abs=0.1)


def test_text_and_image_learn_together_and_the_autoencoder_stays(fresh, pipeline):
    config = TrainingConfig(steps=30, batch_size=16, warmup=0, learning_rate=5e-3)
    record = train_text_to_image(pipeline, config, pool=100)
    assert record.loss[-10:].mean() < record.loss[:10].mean()
    before, after = weights(fresh), weights(pipeline)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"text_encoder", "unet"}


# Resumption


@pytest.mark.parametrize("what", ["full", "lora", "autoencoder", "text to image"])
def test_a_training_that_was_interrupted_ends_bit_for_bit_the_same(fresh, learned, what, tmp_path):
    config = TrainingConfig(steps=6, batch_size=4, warmup=2, decay=0.5, checkpoint_every=2)

    def run(pipeline, **options):
        if what == "autoencoder":
            return train_autoencoder(pipeline, config, **options)
        if what == "text to image":
            return train_text_to_image(pipeline, config, pool=10, **options)
        how, replay = Adaptation(method=what), first(learned, 3)
        return fine_tune(pipeline, learned, config, replay=replay, adaptation=how, **options)

    class InterruptionError(Exception):
        pass

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 5:
            raise InterruptionError

    whole, parts, calls = copy.deepcopy(fresh), copy.deepcopy(fresh), []
    record = run(whole)
    checkpoint = tmp_path / "state.safetensors"
    module = parts.vae.encoder if what == "autoencoder" else parts.unet
    hook = module.register_forward_pre_hook(interrupt)
    with pytest.raises(InterruptionError):
        run(parts, checkpoint=checkpoint)
    hook.remove()
    again = copy.deepcopy(fresh)
    resumed = run(again, checkpoint=checkpoint)
    assert torch.equal(record.loss, resumed.loss)
    assert same(whole, again)
    finished = copy.deepcopy(fresh)
    assert run(finished, checkpoint=checkpoint).seconds == resumed.seconds
    assert same(whole, finished)


CHILD = """
import sys
from test_finetuning import CHILD_CONFIG, TINY, captioned, fine_tune, new_pipeline, scenes
pipeline = new_pipeline(TINY, seed=0)
drawn = scenes(6, seed=0, size=16)
learned = captioned(pipeline, drawn.images, drawn.captions)
print("ready", flush=True)
fine_tune(pipeline, learned, CHILD_CONFIG, checkpoint=sys.argv[1])
"""
CHILD_CONFIG = TrainingConfig(steps=2000, batch_size=2, checkpoint_every=3)


def test_killed_by_the_system_it_leaves_a_checkpoint_that_can_be_used(fresh, tmp_path):
    checkpoint, here = tmp_path / "state.safetensors", Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, checkpoint],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert child.stdout.readline() == b"ready\n"
        while not checkpoint.exists():
            assert child.poll() is None
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    drawn = scenes(6, seed=0, size=16)
    learned = captioned(fresh, drawn.images, drawn.captions)
    other = TrainingConfig(steps=2000, batch_size=2, checkpoint_every=4)
    with pytest.raises(ValueError, match="checkpoint must belong to this training"):
        fine_tune(copy.deepcopy(fresh), learned, other, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        fine_tune(copy.deepcopy(fresh), learned, CHILD_CONFIG, checkpoint=checkpoint)


def test_encoding_is_what_captioned_holds(fresh, learned):
    drawn = scenes(10, seed=0, size=16)
    torch.testing.assert_close(learned.latents, encode(fresh, drawn.images))
    assert learned.captions == drawn.captions
    with pytest.raises(TypeError, match="is a single one"):
        captioned(fresh, drawn.images, "a star")
