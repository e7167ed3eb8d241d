import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from hopfield_cl import data, denoising
from hopfield_cl.energy import energy
from hopfield_cl.memories import on_sphere
from hopfield_cl.networks.boltzmann import (
    HopfieldBoltzmannMachine,
    fit_em,
    initialise,
    likelihood_gradient,
)
from hopfield_cl.networks.learned_forgetting import (
    across_seeds,
    data_energy,
    decompose,
    first_step_rise,
    slope,
)
from hopfield_cl.records import provenance, repository
from hopfield_cl.runs.learned_forgetting import LearnedForgettingConfig, learned_forgetting_run
from hopfield_cl.runs.replay_in_closed_form import STRATEGIES

TINY = LearnedForgettingConfig(
    datasets=("digits",),
    per_task=60,
    betas=(32.0, 128.0),
    memories=(3, 90),
    rates=(0.01,),
    steps=(1, 30),
    batch_size=16,
    budgets=(5,),
    replay_memories=(60,),
    seeds=(0, 1),
    resamples=100,
)


@pytest.fixture(scope="module")
def recording():
    return learned_forgetting_run(TINY)


def part(recording, name, **wanted):
    rows = [row for row in recording.rows if row["part"] == name]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def digits(count=60):
    first, second = data.split_tasks(data.load("digits"), 5)
    pixels = [task.images.flatten(1).double() for task in (first, second)]
    return [on_sphere(part, center=pixels[0].mean(0))[:count] for part in pixels]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def machine_on(points, beta=4.0):
    machine = HopfieldBoltzmannMachine(points, beta)
    machine.logits.data.fill_(0.0)
    return machine


# Energies and their parts


def test_the_energy_of_the_data_is_that_of_the_machine_whose_memories_are_the_data():
    stored, x = 3 * gaussian(7, 4), gaussian(2, 5, 4, seed=1)
    torch.testing.assert_close(data_energy(x, stored, 4.0), machine_on(stored).energy(x))


def test_the_energy_of_the_data_is_a_normalised_density():
    stored, x = gaussian(7, 4), gaussian(5, 4, seed=1)
    constant = 0.5 * 4 * math.log(2 * math.pi / 9.0)
    expected = -(denoising.log_density(x, stored, 1 / 3.0) + constant) / 9.0
    torch.testing.assert_close(data_energy(x, stored, 9.0), expected)


def test_doubling_every_sample_does_not_shift_the_energy_of_the_data():
    stored, x = gaussian(7, 4), gaussian(5, 4, seed=1)
    twice = torch.cat([stored, stored])
    torch.testing.assert_close(data_energy(x, twice, 9.0), data_energy(x, stored, 9.0))


def test_for_data_of_length_one_it_is_the_energy_of_part_two_and_a_constant():
    old, _ = digits()
    expected = energy(old, old, 32.0) + 0.5 + math.log(60) / 32
    torch.testing.assert_close(data_energy(old, old, 32.0), expected)


def test_the_parts_add_up_to_the_learned_rise():
    old, new = digits()
    machines = [initialise(part, 10, 32.0, generator=torch.Generator().manual_seed(0))
                for part in (old, new, torch.cat([old, new]))]  # fmt: skip
    found = decompose(old, old, new, before=machines[0], after=machines[1], limit=machines[2])
    learned = machines[1].energy(old) - machines[0].energy(old)
    torch.testing.assert_close(found.learned, learned.detach())
    torch.testing.assert_close(found.intrinsic + found.capacity + found.unfinished, found.learned)
    torch.testing.assert_close(found.remainder, found.capacity + found.unfinished)


def test_a_machine_whose_memories_are_the_data_forgets_just_what_the_data_foretell():
    old, new = digits()
    before, after = machine_on(old, 32.0), machine_on(new, 32.0)
    found = decompose(old, old, new, before=before, after=after, limit=after)
    assert found.remainder.abs().max() < 1e-12


def test_training_from_the_data_lowers_the_mean_energy_of_the_data():
    old, _ = digits()
    machine = machine_on(old, 32.0)
    fit_em(machine, old, steps=50)
    assert machine.energy(old).mean() <= data_energy(old, old, 32.0).mean()


def test_a_memory_that_stays_caps_the_rise():
    x, beta = gaussian(6, 3), 5.0
    machine = HopfieldBoltzmannMachine(gaussian(4, 3, seed=1), beta)
    distance2 = (x[:, None] - machine.memories).square().sum(-1)
    cap = 0.5 * distance2 - machine.proportions().log() / beta
    assert bool((machine.energy(x)[:, None] <= cap + 1e-12).all())


# The first step


def test_the_first_step_law_is_the_derivative_along_the_gradient():
    old, new = digits()
    machine = initialise(old, 7, 32.0, generator=torch.Generator().manual_seed(0))
    machine.logits.data += 0.3 * gaussian(7)
    gradient = likelihood_gradient(machine, new)  # of the negative log-likelihood
    rises = []
    for rate in (1e-6, -1e-6):
        moved = HopfieldBoltzmannMachine(machine.memories, 32.0)
        moved.memories.data = machine.memories - rate * gradient["memories"]
        moved.logits.data = machine.logits - rate * gradient["logits"]
        rises.append(moved.energy(old).detach())
    measured = (rises[0] - rises[1]) / 2e-6
    torch.testing.assert_close(first_step_rise(old, machine, new), measured, rtol=1e-5, atol=1e-6)


def test_the_first_step_moves_no_energy_where_no_new_data_are_attended():
    far = torch.tensor([[0.0, 0.0], [30.0, 0.0]], dtype=torch.float64)
    machine = machine_on(far, 10.0)
    new = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    rise = first_step_rise(far + 0.1, machine, new)
    # Memory 2 stays; it only loses share, ½ of it per unit of rate: β⁻¹ (½·½ + ½·½).
    assert rise[1].item() == pytest.approx(0.5 / 10.0)


# Slope


def test_the_slope_of_a_line_is_found_and_its_interval_is_a_point():
    x = gaussian(30)
    estimate = slope(x, 2 * x - 1, generator=torch.Generator().manual_seed(0))
    assert [estimate.value.item(), estimate.low.item(), estimate.high.item()] == pytest.approx(
        [2, 2, 2]
    )


def test_the_interval_of_the_slope_covers_it_about_as_often_as_it_says():
    covered = 0
    for seed in range(100):
        x, noise = gaussian(2, 60, seed=seed)
        line = slope(
            x, x + noise, generator=torch.Generator().manual_seed(seed), resamples=200, level=0.9
        )
        covered += bool(line.low <= 1 <= line.high)
    assert 80 <= covered <= 97


# The run


def test_there_is_one_row_for_each_seed_and_cell_of_each_part(recording):
    assert len(part(recording, "limit")) == 2 * 2 * 2
    assert len(part(recording, "steps")) == 2 * 2 * 2 * 2
    assert len(part(recording, "replay")) == 2 * len(STRATEGIES)
    assert len({tuple(row) for row in recording.rows}) == 1  # the same columns in each


def test_the_remainder_of_each_row_is_the_sum_of_its_parts(recording):
    for row in part(recording, "steps") + part(recording, "limit"):
        remainder = row["learned"] - row["intrinsic"]
        assert remainder == pytest.approx(row["capacity"] + row["unfinished"], abs=3e-6)


def test_at_the_end_nothing_is_unfinished(recording):
    assert {row["unfinished"] for row in part(recording, "limit")} == {0.0}


def test_many_memories_trained_to_the_end_forget_what_the_data_foretell(recording):
    few, many = (part(recording, "limit", memories=m, beta=32.0) for m in TINY.memories)
    assert min(row["spearman"] for row in many) > 0.95
    assert max(row["spearman"] for row in few) < 0.9


def test_a_few_steps_at_low_temperature_are_not_foretold(recording):
    rows = part(recording, "steps", memories=90, beta=128.0, step=1)
    assert max(row["spearman"] for row in rows) < 0.3


def test_the_estimates_lie_in_their_intervals(recording):
    for row in recording.rows:
        for name in ("spearman", "slope"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]


def test_the_same_seeds_give_the_same_rows():
    short = replace(TINY, betas=(32.0,), memories=(3,), steps=(1,), replay_memories=(3,))
    assert learned_forgetting_run(short).rows == learned_forgetting_run(short).rows


def test_the_film_holds_the_memories_at_the_start_and_at_each_step(recording):
    film = recording.details["film"]
    assert film["steps"] == [0, 1, 30]
    assert recording.images.shape == (3 * film["memories"], 8, 8)


def test_the_mean_over_seeds_is_that_of_the_rows(recording):
    cell = {"part": "limit", "beta": 32.0, "memories": 90}
    values = [row["slope"] for row in part(recording, "limit", beta=32.0, memories=90)]
    assert across_seeds(recording.rows, "slope", **cell).value.item() == pytest.approx(
        sum(values) / 2
    )


def test_the_film_comes_back_from_the_sheet(recording, tmp_path):
    recording.save(tmp_path / "table.csv", seconds=1.0)
    kept = provenance.read(tmp_path / "table.csv")
    movie = kept.made["details"]["film"]
    frames = kept.pictures().squeeze(1).unflatten(0, (len(movie["steps"]), -1))
    assert frames.shape == (3, recording.details["film"]["memories"], 8, 8)
    expected = torch.tensor(recording.images).float() / 255 * 2 - 1
    torch.testing.assert_close(frames.flatten(0, 1), expected)


def test_the_recorded_table_is_that_of_the_settings():
    config = LearnedForgettingConfig()
    kept = provenance.read(repository.results("learned_forgetting.csv"))
    assert kept.made["seeds"] == list(config.seeds)
    assert kept.made["command"].endswith(" run learned-forgetting")
    limits = [row for row in kept.rows if row["part"] == "limit"]
    assert {row["memories"] for row in limits} == set(config.memories)
    assert {row["beta"] for row in limits} == set(config.betas)


# Bad input


def test_a_cell_of_several_rows_a_seed_is_refused(recording):
    with pytest.raises(ValueError, match=r"^cell must single out one row a seed"):
        across_seeds(recording.rows, "slope", part="limit")


def test_a_measure_that_a_part_has_not_is_refused(recording):
    cell = {"part": "replay", "strategy": "greedy", "budget": 5}
    with pytest.raises(ValueError, match=r"^measure must be filled in these rows, but 'capacity'"):
        across_seeds(recording.rows, "capacity", **cell)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seeds": (0,)}, "^seeds must be at least 2 different ones"),
        ({"steps": (10, 1)}, "^steps must ascend"),
        ({"betas": (0.0,)}, "^betas must be finite and above 0"),
        ({"rates": (math.nan,)}, "^rates must be finite and above 0"),
        ({"memories": ()}, "^memories must hold at least one value"),
        ({"memories": (0,)}, "^memories must be at least 1"),
        ({"budgets": (61,)}, "^budgets must be at most per_task, 60"),
        ({"resamples": 10}, "^resamples must be at least 100"),
    ],
)
def test_settings_out_of_range_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        replace(TINY, **changes)


def test_the_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        TINY.per_task = 3


def test_more_images_than_a_task_has_are_refused():
    with pytest.raises(ValueError, match=r"^per_task must be at most the images of a task, 901"):
        learned_forgetting_run(replace(TINY, per_task=2000))


def test_machines_at_two_temperatures_are_refused():
    x = gaussian(3, 2)
    before, after = machine_on(x, 4.0), machine_on(x, 5.0)
    with pytest.raises(ValueError, match=r"^after must have the β of before, 4, but has 5"):
        decompose(x, x, x, before=before, after=after, limit=before)


def test_a_constant_predictor_has_no_slope():
    with pytest.raises(ValueError, match=r"^x must vary, but is constant"):
        slope(torch.ones(5), gaussian(5).float())


@pytest.mark.parametrize("shape", [(2,), (4, 3), ()], ids=str)
def test_a_slope_needs_a_row_of_three_samples(shape):
    with pytest.raises(ValueError, match=r"^x must have shape \(N,\) with at least 3 samples"):
        slope(torch.ones(shape), torch.ones(shape))


def test_pairs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^y must hold as many samples as x, 5, but holds 4"):
        slope(gaussian(5), gaussian(4))
