import math

import pytest
import torch

from hopfield_cl.diffusion.steps import TrainingConfig, fingerprint, generator, gradient_steps, rows

SHORT = TrainingConfig(steps=4, batch_size=4)


def parabola():
    return {"w": torch.nn.Parameter(torch.tensor([3.0, -2.0]))}


def test_steps_go_downhill_and_end_at_the_average():
    parameters, config = parabola(), TrainingConfig(steps=100, batch_size=1, learning_rate=0.1)
    record = gradient_steps(parameters, lambda *_: parameters["w"].square().sum(), config)
    assert record.loss[0] == 13
    assert record.loss[-1] < 0.1
    raw, parameters = parameters["w"], parabola()
    plain = TrainingConfig(steps=100, batch_size=1, learning_rate=0.1, ema_decay=0.0)
    gradient_steps(parameters, lambda *_: parameters["w"].square().sum(), plain)
    assert raw.norm() > parameters["w"].norm()  # the average lags behind


def test_rows_are_drawn_without_replacement_and_the_same_each_time():
    drawn = torch.cat([rows(5, 3, step, seed=0, purpose="a") for step in range(10)])
    for epoch in drawn.split(5):
        assert sorted(epoch.tolist()) == list(range(5))
    assert torch.equal(drawn[6:9], rows(5, 3, 2, seed=0, purpose="a"))
    assert rows(2, 5, 0, seed=0, purpose="a").shape == (5,)
    other = torch.cat([rows(5, 3, step, seed=0, purpose="b") for step in range(10)])
    assert not torch.equal(drawn, other)


def test_generators_differ_by_seed_step_and_purpose():
    drawn = {
        torch.rand((), generator=generator(*arguments)).item()
        for arguments in ((0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"))
    }
    assert len(drawn) == 4


def test_a_loss_that_is_not_finite_stops_the_training():
    parameters = parabola()
    with pytest.raises(FloatingPointError, match="at step 1"):
        gradient_steps(parameters, lambda *_: parameters["w"].sum() * math.nan, SHORT)


@pytest.mark.parametrize(
    ("parameters", "error", "said"),
    [
        ([], TypeError, "parameters must be a mapping, but is a list"),
        ({}, ValueError, "parameters must hold at least one, but is empty"),
        ({"w": torch.nn.Parameter(torch.zeros(1).half())}, TypeError, "but w is in torch.float16"),
        ({"w": torch.nn.Parameter(torch.zeros(1), requires_grad=False)}, ValueError, "w does not"),
    ],
)
def test_what_cannot_be_trained_is_refused(parameters, error, said):
    with pytest.raises(error, match=said):
        gradient_steps(parameters, lambda *_: torch.zeros(()), SHORT)


def test_a_loss_that_is_no_scalar_is_refused():
    parameters = parabola()
    with pytest.raises(TypeError, match="loss must return a tensor with no dimensions"):
        gradient_steps(parameters, lambda *_: parameters["w"].square(), SHORT)


def test_a_fingerprint_changes_with_every_part():
    tensor = torch.arange(6.0)
    seen = {
        fingerprint("a", tensor),
        fingerprint("b", tensor),
        fingerprint("a", tensor + 1),
        fingerprint("a", tensor.reshape(2, 3)),
        fingerprint("a", tensor.double()),
    }
    assert len(seen) == 5
    assert fingerprint("a", tensor) == fingerprint("a", tensor.clone())
