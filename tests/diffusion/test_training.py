import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import mse_loss

from hopfield_cl.diffusion.models import DiffusionModel, ModelConfig, new_model
from hopfield_cl.diffusion.steps import TrainingConfig, machine, state_files
from hopfield_cl.diffusion.training import train

SMALL = ModelConfig(image_size=8, patch=2, widths=(8, 16), groups=4)
SHORT = TrainingConfig(steps=12, batch_size=8, checkpoint_every=4, decay=0.5, seed=5)


def pictures(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, 1, 8, 8, generator=generator) - 1


def fresh(seed=0, **changes):
    return new_model(replace(SMALL, **changes), seed=seed)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Spy(DiffusionModel):
    """A model that writes down the clean images, the noise and the times it is trained on."""

    def __init__(self, **changes):
        super().__init__(replace(SMALL, **changes))
        self.seen = []

    def target(self, clean, noise, timesteps):
        self.seen.append((clean, noise, timesteps))
        return super().target(clean, noise, timesteps)


def numbered(count, first=0):
    """Images that are one grey level each, by which they are told apart."""
    return ((torch.arange(count) + first) / 100)[:, None, None, None].expand(-1, 1, 8, 8).clone()


def numbers(clean):
    return (100 * clean[:, 0, 0, 0]).round().int().tolist()


# What a step does


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_one_step_lowers_the_loss_on_a_fixed_batch(prediction):
    model, images = fresh(prediction=prediction), pictures(32)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    times = torch.arange(32) * 31

    @torch.no_grad()
    def loss():
        noisy = model.scheduler.add_noise(images, noise, times)
        return mse_loss(model(noisy, times), model.target(images, noise, times)).item()

    before = loss()
    train(model, images, TrainingConfig(steps=1, batch_size=32, warmup=0))
    assert loss() < before


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loop_makes_the_steps_of_one_written_out(prediction):
    twin, spy = fresh(prediction=prediction), Spy(prediction=prediction)
    spy.load_state_dict(twin.state_dict())
    record = train(spy, pictures(), replace(SHORT, steps=4, warmup=2, clip=0.1))
    optimizer = torch.optim.AdamW(twin.parameters(), weight_decay=0.0)
    losses = []
    for rate, (clean, noise, times) in zip((1e-3, 2e-3, 2e-3, 1e-3), spy.seen, strict=True):
        noisy = twin.scheduler.add_noise(clean, noise, times)
        errors = (twin(noisy, times) - twin.target(clean, noise, times)).square()
        loss = (twin.loss_weight(times) * errors.mean((1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    assert record.loss.tolist() == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(weights(spy), weights(twin), rtol=0, atol=1e-5)


def test_the_average_is_an_exponential_one_that_starts_with_the_first_step():
    model, seen = fresh(), []
    config = replace(SHORT, steps=6, ema_decay=0.6, observe_at=tuple(range(1, 7)))

    def observe(step, averaged):
        assert not averaged.training
        assert model.training
        seen.append((step, weights(model), weights(averaged)))

    record = train(model, pictures(), config, observe=observe)
    assert [step for step, _, _ in seen] == list(range(1, 7))
    expected = seen[0][1]
    for step, raw, averaged in seen:
        decay = min(0.6, 1 - step**-0.75)
        expected = decay * expected + (1 - decay) * raw
        torch.testing.assert_close(averaged, expected, rtol=0, atol=1e-6)
    assert torch.equal(weights(record.averaged), seen[-1][2])
    assert not record.averaged.training
    assert not torch.equal(weights(record.averaged), weights(model))


def test_the_rate_rises_over_the_warmup_and_falls_to_nothing_over_the_last_share():
    config = TrainingConfig(steps=100, learning_rate=1.0, warmup=10, decay=0.4)
    rates = [machine._learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10:60] == [1.0] * 50
    assert rates[60:] == pytest.approx([k / 40 for k in range(40, 0, -1)])


def test_images_come_without_replacement_until_all_were_seen_and_noise_is_fresh():
    model = Spy()
    train(model, numbered(20), replace(SHORT, steps=10, batch_size=6))
    drawn = [number for clean, _, _ in model.seen for number in numbers(clean)]
    epochs = [drawn[start : start + 20] for start in (0, 20, 40)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    noise = torch.stack([noise for _, noise, _ in model.seen])
    assert noise.mean().abs() < 0.05
    assert noise.std() == pytest.approx(1, abs=0.05)
    assert len(noise.flatten().unique()) > 0.99 * noise.numel()
    times = torch.cat([times for _, _, times in model.seen])
    assert 0 <= times.min() < 100
    assert 900 < times.max() < 1000


def test_the_replay_share_of_each_batch_is_drawn_from_the_buffer_as_often_as_it_takes():
    model = Spy()
    config = replace(SHORT, steps=9, replay_share=0.25)
    train(model, numbered(20), config, replay=numbered(3, first=50))
    replayed = []
    for clean, _, _ in model.seen:
        from_buffer = [number for number in numbers(clean) if number >= 50]
        assert len(from_buffer) == 2
        replayed += from_buffer
    epochs = [sorted(replayed[start : start + 3]) for start in range(0, 18, 3)]
    assert epochs == [[50, 51, 52]] * 6
    alone = Spy()
    train(alone, numbered(20), replace(config, replay_share=1.0), replay=numbered(1, first=50))
    assert all(numbers(clean) == [50] * 8 for clean, _, _ in alone.seen)


def test_a_penalty_is_added_to_the_loss_but_not_to_its_record():
    plain, shifted, held = fresh(), fresh(), fresh()
    start = [p.detach().clone() for p in held.parameters()]

    def pull(model):
        pairs = zip(model.parameters(), start, strict=True)
        return 100 * sum((p - s).square().sum() for p, s in pairs)

    without = train(plain, pictures(), SHORT)
    constant = train(shifted, pictures(), SHORT, penalty=lambda model: torch.tensor(7.0))
    assert torch.equal(without.loss, constant.loss)
    assert torch.equal(weights(plain), weights(shifted))
    train(held, pictures(), SHORT, penalty=pull)
    first = torch.cat([s.flatten() for s in start])
    assert (weights(held) - first).norm() < 0.8 * (weights(plain) - first).norm()


def test_the_seed_decides_all_and_nothing_outside_is_touched():
    before = torch.get_rng_state()
    models = [fresh().eval() for _ in range(3)]
    records = [
        train(model, pictures(), replace(SHORT, seed=seed))
        for model, seed in zip(models, (1, 1, 2), strict=True)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(records[0].loss, records[1].loss)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))
    assert all(not model.training for model in models)
    assert all(p.grad is None for model in models for p in model.parameters())


def test_observing_changes_nothing():
    plain, watched = fresh(), fresh()
    record = train(plain, pictures(), SHORT)

    def observe(step, averaged):
        torch.rand(step)
        for parameter in averaged.parameters():
            parameter.data.zero_()

    config = replace(SHORT, observe_at=(1, 5, 12))
    seen = train(watched, pictures(), config, observe=observe)
    assert torch.equal(record.loss, seen.loss)
    assert torch.equal(weights(record.averaged), weights(seen.averaged))


def test_bfloat16_comes_close_to_float32_and_one_process_can_have_both():
    losses = [
        train(fresh(), pictures(), replace(SHORT, precision=precision)).loss
        for precision in ("no", "bf16", "no")
    ]
    assert torch.equal(losses[0], losses[2])
    assert not torch.equal(losses[0], losses[1])
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.02)


# Checkpoints


def interrupt_at(step):
    def observe(now, averaged):
        if now == step:
            raise KeyboardInterrupt

    return observe


def test_after_ctrl_c_the_training_goes_on_from_its_last_checkpoint(tmp_path):
    config, replay = replace(SHORT, observe_at=(7,)), pictures(3, seed=9)
    whole, broken = fresh(), fresh()
    expected = train(whole, pictures(), config, replay=replay, observe=lambda step, model: None)
    options = {"replay": replay, "checkpoint": tmp_path / "deep" / "state.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        train(broken, pictures(), config, observe=interrupt_at(7), **options)
    assert len(load_file(options["checkpoint"])["losses"]) == 4
    continued = fresh(seed=99)
    record = train(continued, pictures(), config, observe=interrupt_at(4), **options)
    assert torch.equal(record.loss, expected.loss)
    assert torch.equal(weights(continued), weights(whole))
    assert torch.equal(weights(record.averaged), weights(expected.averaged))
    assert os.listdir(tmp_path / "deep") == ["state.safetensors"]


def test_a_finished_training_returns_its_record_at_once(tmp_path):
    path = tmp_path / "state.safetensors"
    first = train(fresh(), pictures(), SHORT, checkpoint=path)
    written = path.stat().st_mtime_ns

    def penalty(model):
        pytest.fail("a step was made")

    model = fresh()
    again = train(model, pictures(), SHORT, checkpoint=path, penalty=penalty)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(again.loss, first.loss)
    assert torch.equal(weights(again.averaged), weights(first.averaged))
    assert again.seconds == first.seconds > 0


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        calls, write = [], state_files.save_file

        def full(tensors, file, metadata):
            calls.append(file)
            if len(calls) == 2:
                file.write_bytes(b"half of it")
                raise OSError("no space left on device")
            write(tensors, file, metadata)

        patch.setattr(state_files, "save_file", full)
        with pytest.raises(OSError, match="no space left"):
            train(fresh(), pictures(), SHORT, checkpoint=path)
    assert len(load_file(path)["losses"]) == 4
    model, whole = fresh(), fresh()
    train(model, pictures(), SHORT, checkpoint=path)
    train(whole, pictures(), SHORT)
    assert torch.equal(weights(model), weights(whole))


@pytest.mark.parametrize(
    "change",
    [
        {"config": replace(SHORT, seed=6)},
        {"config": replace(SHORT, steps=13)},
        {"images": pictures(seed=1)},
        {"images": pictures(19)},
        {"replay": pictures(1)},
        {"model": fresh(prediction="epsilon")},
    ],
    ids=["seed", "steps", "images", "fewer", "replay", "model"],
)
def test_the_checkpoint_of_another_training_is_refused(tmp_path, change):
    path = tmp_path / "state.safetensors"
    given = {"model": fresh(), "images": pictures(), "config": SHORT, "checkpoint": path}
    train(**given)
    content = path.read_bytes()
    with pytest.raises(ValueError, match="checkpoint must belong to this training"):
        train(**given | change)
    assert path.read_bytes() == content


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    train(fresh(), pictures(), SHORT, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        train(fresh(), pictures(), SHORT, checkpoint=path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"must be the state of a training, but .* something"):
        train(fresh(), pictures(), SHORT, checkpoint=path)


# Processes of their own. They branch off from one that has read the package once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["hopfield_cl.diffusion.training"])
KILLED = replace(SHORT, steps=60, checkpoint_every=7, observe_at=tuple(range(1, 61)))


def to_be_killed(path, steps):
    torch.set_num_threads(1)
    options = {"replay": pictures(3, seed=9), "checkpoint": path}
    train(fresh(), pictures(), KILLED, observe=lambda step, model: steps.send(step), **options)


def test_killed_at_any_moment_and_started_again_it_ends_in_the_same_bits(tmp_path):
    path, steps = tmp_path / "state.safetensors", []
    here, there = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=to_be_killed, args=(path, there))
    child.start()
    there.close()  # so that a child that fails is heard of
    last, moment = random.randint(8, 45), random.uniform(0, 0.03)
    while here.recv() < last:
        pass
    time.sleep(moment)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    kept = len(load_file(path)["losses"])
    assert 0 < kept < 60
    assert kept % 7 == 0
    given = {"images": pictures(), "config": KILLED, "replay": pictures(3, seed=9)}
    resumed, whole, unbroken = fresh(), fresh(), tmp_path / "unbroken.safetensors"
    one = train(resumed, **given, checkpoint=path, observe=lambda step, model: steps.append(step))
    assert steps == list(range(kept + 1, 61))
    other = train(whole, **given, checkpoint=unbroken, observe=lambda step, model: None)
    when = f"killed {moment} s after step {last}"
    assert torch.equal(weights(resumed), weights(whole)), when
    assert torch.equal(weights(one.averaged), weights(other.averaged)), when
    assert torch.equal(one.loss, other.loss), when
    states = load_file(path), load_file(unbroken)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), when


SHARED = replace(SHORT, steps=10, clip=0.05)


def one_of_two(rank, port, path):
    """A process as ``torchrun --nproc_per_node 2`` starts it on a machine without a GPU."""
    launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in (launched | ranks).items()})
    torch.set_num_threads(1)
    model = fresh()
    with pytest.raises(ValueError, match="batch_size must be a multiple of 2"):
        train(model, pictures(), replace(SHARED, batch_size=7))
    record = train(model, pictures(), SHARED, replay=pictures(3, seed=9), checkpoint=path)
    results = {"raw": weights(model), "averaged": weights(record.averaged), "loss": record.loss}
    save_file(results, f"{path}.{rank}")


def test_two_processes_train_as_one_does_with_the_same_batch(tmp_path):
    path = tmp_path / "state.safetensors"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [PROCESSES.Process(target=one_of_two, args=(rank, port, path)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(600)
    assert [process.exitcode for process in pair] == [0, 0]
    first, second = (load_file(f"{path}.{rank}") for rank in range(2))
    model = fresh()
    given = {"images": pictures(), "config": SHARED, "replay": pictures(3, seed=9)}
    record = train(model, **given)
    alone = {"raw": weights(model), "averaged": weights(record.averaged), "loss": record.loss}
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, rtol=0, atol=1e-5)
    # The state that two processes saved is one that a single one can go on from.
    assert torch.equal(train(fresh(), **given, checkpoint=path).loss, first["loss"])


# Bad input


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 2.0}, TypeError, "steps must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate must be finite and above 0"),
        ({"warmup": -1}, ValueError, "warmup must be at least 0"),
        ({"decay": 1.5}, ValueError, "decay must lie between 0 and 1"),
        ({"ema_decay": float("nan")}, ValueError, "ema_decay must lie between 0 and 1"),
        ({"clip": 0}, ValueError, "clip must be finite and above 0"),
        ({"replay_share": "all"}, TypeError, "replay_share must be a number"),
        ({"precision": "fp16"}, ValueError, "precision must be one of no, bf16"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"observe_at": [1]}, TypeError, "observe_at must be a tuple"),
        ({"observe_at": (0,)}, ValueError, "observe_at must be at least 1"),
        ({"observe_at": (13,)}, ValueError, "observe_at must hold steps up to 12"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_bad_configuration_is_refused(change, error, sentence):
    with pytest.raises(error, match=sentence):
        replace(SHORT, **change)


def broken(value):
    images = pictures()
    images[3, 0, 2, 2] = value
    return images


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"model": torch.nn.Linear(2, 2)}, TypeError, "model must be a DiffusionModel"),
        ({"model": fresh().double()}, TypeError, "model must be in float32"),
        ({"config": {"steps": 3}}, TypeError, "config must be a TrainingConfig"),
        ({"images": pictures().numpy()}, TypeError, "images must be a torch.Tensor"),
        ({"images": pictures().double()}, TypeError, "images must be in float32"),
        ({"images": pictures()[0]}, ValueError, r"images must have shape \(N, 1, 8, 8\)"),
        ({"images": pictures()[:0]}, ValueError, "with N at least 1"),
        ({"images": broken(float("nan"))}, ValueError, "images must be finite, but row"),
        ({"images": broken(1.5)}, ValueError, r"images must lie in \[−1, 1\], but reaches"),
        ({"replay": pictures()[:, :, :4]}, ValueError, "replay must have shape"),
        ({"replay": broken(-2.0)}, ValueError, "replay must lie in"),
        (
            {"replay": pictures(), "config": replace(SHORT, replay_share=0.01)},
            ValueError,
            "replay_share must leave a place in each batch of 8",
        ),
        ({"penalty": lambda model: 0.5}, TypeError, "penalty must return a tensor"),
        ({"penalty": lambda model: torch.zeros(2)}, TypeError, r"returned shape \(2,\)"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be a path"),
        ({"checkpoint": "state.pt"}, ValueError, "checkpoint must end in .safetensors"),
        ({"observe": print}, ValueError, "observe and observe_at must be given together"),
        (
            {"config": replace(SHORT, observe_at=(1,))},
            ValueError,
            "observe and observe_at must be given together",
        ),
    ],
)
def test_bad_arguments_are_refused_and_change_no_weight(change, error, sentence):
    given = {"model": fresh(), "images": pictures(), "config": SHORT} | change
    before = [p.detach().clone() for p in given["model"].parameters()]
    with pytest.raises(error, match=sentence):
        train(**given)
    after = given["model"].parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_training_that_diverges_stops_and_leaves_its_checkpoint(tmp_path):
    path = tmp_path / "state.safetensors"
    config = replace(SHORT, learning_rate=1e15, warmup=0)
    with pytest.raises(FloatingPointError, match=r"The loss is nan at step .* lower learning_rate"):
        train(fresh(), pictures(), config)

    def penalty(model):
        losses.append(None)
        return next(model.parameters()).sum() * (float("nan") if len(losses) > 5 else 0.0)

    losses = []
    with pytest.raises(FloatingPointError, match="The loss is nan at step 7"):
        train(fresh(), pictures(), SHORT, penalty=penalty, checkpoint=path)
    kept = load_file(path)
    assert len(kept["losses"]) == 4
    assert all(torch.isfinite(value).all() for value in kept.values())
