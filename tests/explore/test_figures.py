import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from bs4 import BeautifulSoup

from hopfield_cl.energy import energy, fixed_points
from hopfield_cl.explore import Budget, Cooling, Landscape, Outlier, Record, _random, base, budget
from hopfield_cl.explore.base import InteractiveFigure, module, stylesheet
from hopfield_cl.memories import cluster_with_outlier
from hopfield_cl.plotting import COLORS
from hopfield_cl.records import provenance, repository

FIGURES = [Landscape, Outlier, Budget, Cooling, Record]
MOST_BYTES = 25_000
RESULTS = Path(__file__).parents[2] / "results"


def each_figure(function):
    return pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.__name__)(function)


def page(figure):
    return BeautifulSoup(figure.html(), "html.parser")


def embedded(figure):
    """The state that the page's script starts with."""
    return json.loads(re.search(r"staticModel\((\{.*?\})\), el: ", page(figure).script.text)[1])


# The module and the page


@each_figure
def test_a_module_is_small_and_imports_and_asks_for_nothing(figure):
    source = figure._esm
    assert len(source.encode()) < MOST_BYTES
    assert not re.search(
        r"https?://|\bfetch\b|XMLHttpRequest|\bimport\s*[\w({*\"']|WebSocket", source
    )


@each_figure
def test_a_module_does_not_end_the_script_that_holds_it(figure):
    assert not re.search(r"</script|<!--|<script", figure._esm, re.IGNORECASE)


@each_figure
def test_a_page_carries_the_module_the_state_and_the_caption(figure):
    made = figure()
    assert made._esm in made.html()
    assert embedded(made) == made.state() | {"start": made.start, "data": made.data}
    assert page(made).figcaption.text == figure.default_caption


def test_the_script_finds_its_own_figure_among_several():
    first, second = page(Landscape()), page(Landscape())
    assert first.figure.div["id"] != second.figure.div["id"]
    for one in (first, second):
        assert f'getElementById("{one.figure.div["id"]}")' in one.script.text


def test_the_page_shows_a_caption_as_text_and_its_mathematics_set():
    made = Outlier(caption="Move $s$ & <look>.")
    assert page(made).figcaption.text == "Move \\(s\\) & <look>."


def test_the_page_asks_for_nothing_from_outside():
    assert not re.search(r"https?:|\bsrc=|@import|url\(", Cooling().html())


def test_the_colours_are_those_of_the_book():
    assert f"const COLORS = {json.dumps(COLORS)};" in module("kit.js")
    assert all(f"--{name}:{color};" in stylesheet() for name, color in COLORS.items())


@each_figure
def test_a_cell_shows_the_widget_and_asleep_the_figure_of_the_page(figure, monkeypatch):
    shown = []
    monkeypatch.setattr(base, "display", lambda output, **options: shown.append((output, options)))
    made = figure()
    made._ipython_display_()
    (widget, options), (html, _) = shown
    assert options["raw"]
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    assert "text/html" not in widget  # a notebook shows one part of an output only
    asleep = BeautifulSoup(html.data, "html.parser").figure
    assert asleep["data-hcl-asleep"] == made.mark == made.get_state()["mark"]
    assert f'[data-hcl-live="{made.mark}"]' in asleep.style.text


@each_figure
def test_where_no_script_may_run_a_figure_says_how_to_wake_it(figure):
    made = figure()
    data, _ = made._repr_mimebundle_()
    for text in (data["text/plain"], page(made).figure.div.text):
        assert "run the cell, or trust the notebook" in text


def test_two_figures_have_two_marks():
    assert Outlier().mark != Outlier().mark


@each_figure
def test_a_module_needs_no_name_of_a_notebook(figure):
    assert not re.search(
        r"\b(require|define|Jupyter|IPython|google|acquireVsCodeApi)\b", figure._esm
    )
    assert not re.search(r"^\s*import\b|\bimport\(", figure._esm, re.MULTILINE)


# The state


@each_figure
def test_the_view_sees_the_whole_state_and_where_reset_leads(figure):
    made = figure()
    synced = made.get_state()
    assert made.state().items() <= synced.items()
    assert synced["start"] == made.state()
    assert synced["caption"] == figure.default_caption
    assert {"_esm", "_css"} <= synced.keys()


def test_reset_leads_to_the_state_with_which_a_figure_was_made():
    made = Landscape(beta=3.0)
    made.beta = 5.0
    assert made.start["beta"] == 3.0
    assert embedded(made)["beta"] == 5.0


def test_a_view_can_set_what_python_reads():
    made = Outlier()
    made.set_state({"epsilon": 0.1})
    assert made.epsilon == 0.1


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (Landscape(), "beta"),
        (Outlier(), "epsilon"),
        (Budget(), "epsilon"),
        (Cooling(memories=[[0.5, 0.1]]), "sigma"),
    ],
)
def test_compute_tells_the_numbers_of_the_present_state(made, name):
    before, old = made.compute(), getattr(made, name)
    setattr(made, name, old * 1.1)
    assert made.compute() != before
    setattr(made, name, old)
    assert made.compute() == before
    json.dumps(before, allow_nan=False)


# Bad input


@pytest.mark.parametrize(
    ("figure", "name", "value"),
    [
        (Landscape, "beta", 0.0),
        (Landscape, "beta", math.nan),
        (Landscape, "beta", "8"),
        (Landscape, "beta", True),
        (Landscape, "masses", "none"),
        (Landscape, "memories", []),
        (Landscape, "memories", [[0.0, 0.0]] * 8),
        (Landscape, "memories", [[0.0, 1.5]]),
        (Landscape, "memories", [[0.0, math.nan]]),
        (Landscape, "memories", [0.0, 1.0]),
        (Landscape, "memories", "far"),
        (Landscape, "query", [0.0]),
        (Landscape, "query", [[0.0, 0.0]]),
        (Outlier, "outlier_overlap", -0.1),
        (Outlier, "epsilon", 1.0),
        (Budget, "budget", 16),
        (Budget, "budget", 2.5),
        (Budget, "strategy", "best"),
        (Budget, "rotation", 0),
        (Budget, "mass", "none"),
        (Cooling, "sigma", 0.0),
        (Cooling, "sample", 0),
        (Cooling, "sample", 1.5),
        (Record, "step", 0.3),
        (Record, "strategy", "best"),
        (Record, "budget", "12"),
        (Record, "measure", "none"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(figure, name, value):
    with pytest.raises(traitlets.TraitError, match=name):
        figure(**{name: value})
    made = figure()
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(made, name, value)


def test_an_unknown_keyword_is_refused_with_those_that_are_known():
    with pytest.raises(TypeError, match="gamma is no keyword of Outlier; it takes caption, beta"):
        Outlier(gamma=1.0)


def test_a_figure_without_compute_says_so():
    with pytest.raises(NotImplementedError, match="InteractiveFigure does not say"):
        InteractiveFigure().compute()


@pytest.mark.parametrize("points", [((0.1, 0.2), (0.3, 0.4)), np.array([[0.1, 0.2], [0.3, 0.4]])])
def test_memories_may_be_tuples_or_arrays(points):
    assert Landscape(memories=points).memories == [[0.1, 0.2], [0.3, 0.4]]


# Numbers


def test_an_isolated_memory_has_its_own_basin_and_near_ones_share():
    made = Landscape(beta=8.0, memories=[[-1.0, 0.1], [-1.0, -0.1], [1.0, 0.0]])
    found = made.compute()
    assert found["memory_basin"] == [0, 0, 1]
    assert found["fixed_point_curvature"][1] > found["fixed_point_curvature"][0] > 0
    assert set(found["grid_basin"]) == {0, 1}


def test_two_symmetric_memories_split_the_plane_in_halves():
    found = Landscape(beta=20.0, memories=[[-1.0, 0.0], [1.0, 0.0]]).compute(grid=8)
    assert np.reshape(found["grid_basin"], (8, 8)).tolist() == [[0] * 4 + [1] * 4] * 8


def test_a_memory_that_lies_on_a_ridge_is_counted_where_it_falls():
    # Of equal masses, a short memory has no basin: its own place is a saddle or a slope.
    found = Landscape(beta=20.0, memories=[[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).compute(grid=4)
    assert len(found["fixed_points"]) == 2
    assert min(found["fixed_point_curvature"]) > 0


def test_masses_of_smoothed_data_give_a_short_memory_its_basin():
    memories = [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    made = Landscape(beta=20.0, memories=memories, masses="smoothed")
    assert made.compute(grid=4)["memory_basin"] == [0, 1, 2]


def test_the_energy_falls_along_the_path_of_the_query_to_a_fixed_point():
    found = Landscape().compute(grid=4)
    assert (np.diff(found["path_energy"]) < 0).all()
    ends = np.array(found["fixed_points"]) - found["path"][-1]
    assert np.linalg.norm(ends, axis=1).min() < 1e-3


def test_the_outlier_s_numbers_are_those_of_the_theory():
    found = Outlier(epsilon=0.02).compute()
    assert found["energy"][0] == pytest.approx(-0.509232, abs=1e-6)
    assert found["energy"][-1] == pytest.approx(-0.500514, abs=1e-6)
    assert found["law"][0] == pytest.approx(0.0042693, abs=1e-7)
    assert found["law"][-1] == pytest.approx(0.0048556, abs=1e-7)
    assert found["curvature"][0] == pytest.approx(0.516, abs=1e-3)
    assert found["curvature"][-1] == pytest.approx(0.953, abs=1e-3)


def test_the_measured_rise_agrees_with_the_law_within_its_error():
    found = Outlier(epsilon=0.02).compute()
    score = (np.array(found["rise"]) - found["law"]) / found["rise_error"]
    assert np.abs(score).max() < 4


def test_an_outlier_inside_the_cluster_forgets_less():
    found = Outlier(outlier_overlap=0.8).compute()
    assert found["rise"][-1] < found["cluster_rise"]


def test_the_figure_measures_at_the_fixed_points_of_the_package():
    memories = cluster_with_outlier(12, 50, 0.35, 0.3)
    points = fixed_points(memories, memories, 8.0).points
    found = Outlier(outlier_overlap=0.3).compute()
    assert found["norm2"] == pytest.approx(points.square().sum(-1).tolist(), abs=1e-8)


OUTLIER, TWINS = 12, {13, 14}


def test_highest_energy_takes_the_outlier_and_greedy_mostly_one_of_two_near_duplicates():
    assert Budget(budget=1).compute()["chosen"] == [OUTLIER]
    twins = {"highest": [], "greedy": []}
    for strategy, counts in twins.items():
        for rotation in range(1, 21):
            found = Budget(strategy=strategy, rotation=rotation).compute()
            counts.append(len(TWINS & set(found["chosen"])))
    assert set(twins["highest"]) == {0}
    assert set(twins["greedy"]) <= {0, 1}
    assert twins["greedy"][0] == 1  # the state that the figure opens with, and its caption
    assert sum(twins["greedy"]) > 15


def test_memories_that_symmetry_makes_equal_are_taken_by_index():
    assert Budget(budget=13).compute()["chosen"] == [OUTLIER, *range(12)]
    assert Budget(budget=15, strategy="lowest").compute()["chosen"] == [13, 14, *range(13)]
    # In one basin for all, the choice of greedy among the cluster is a tie as well.
    merged = Budget(budget=15, strategy="greedy", beta=3.0).compute()
    assert set(merged["basin"]) == {0}
    assert [k for k in merged["chosen"] if k < OUTLIER] == list(range(12))


def test_what_replay_leaves_of_a_rise_is_what_the_energies_say():
    made = Budget(budget=4, strategy="greedy", rotation=3)
    found, old = made.compute(), budget._pool(0.0)
    new = old @ budget._rotation(3, made.epsilon).mT
    points = fixed_points(old, old, made.beta, tol=1e-13).points
    grown = torch.cat([new, old[found["chosen"]]])
    left = energy(points, grown, made.beta) - energy(points, old, made.beta)
    told = np.array(found["rise"]) - found["net"] - found["mass"]
    assert told == pytest.approx(left.numpy(), abs=1e-12)


@pytest.mark.parametrize("strategy", ["highest", "greedy", "random", "lowest"])
def test_the_curve_at_the_present_budget_is_the_sum_over_the_bars(strategy):
    found = Budget(budget=5, strategy=strategy).compute()
    assert found["net_of_mass"][strategy][0][5] == pytest.approx(sum(found["net"]))
    total = sum(found["net"]) + sum(found["mass"])
    assert found["with_mass"][strategy][0][5] == pytest.approx(total)


def test_no_choice_beats_greedy_by_more_than_its_guarantee_and_all_end_alike():
    curves = Budget().compute()["with_mass"]
    rows = np.array([row for draws in curves.values() for row in draws])
    assert (curves["greedy"][0] >= (1 - 1 / math.e) * rows).all()
    assert rows[:, -1] == pytest.approx(rows[0, -1])
    assert (rows[:, 0] == 0).all()
    assert len(curves["random"]) == 20


def test_bars_are_grouped_by_the_fixed_point_that_memories_share():
    assert Budget().compute()["basin"] == [*range(13), 13, 13]
    assert Budget(beta=6.5).compute()["basin"] == [0] * 12 + [12, 13, 13]


def test_basins_are_born_one_after_another_and_a_cooled_sample_ends_at_a_memory():
    made = Cooling(sigma=0.1)
    found = made.compute()
    counts = [len(at["modes"]) for at in found["births"]]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] == len(made.memories)
    sigma, *end = found["path"][-1]
    assert sigma == 0.1
    assert np.linalg.norm(np.array(made.memories) - end, axis=1).min() < 0.1


# Recorded tables


def table_of(folder, rows, **options):
    path = folder / "run.csv"
    provenance.record(path, rows, **({"seeds": [0, 1], "seconds": 2.0} | options))
    return path


def cell(step, strategy, budget, **changes):
    row = {"step": step, "strategy": strategy, "budget": budget}
    return row | {"mse": step * budget, "mse_error": 0.5, "images": "0 1"} | changes


def small_table(folder, **options):
    """Two steps, two strategies and two budgets, of which one cell was not recorded."""
    rows = [cell(s, name, b) for s in (2, 1) for name in ("top", "none") for b in (64, 0)]
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    return table_of(folder, rows[:-1], images=images, **options)


def test_a_record_shows_the_numbers_of_its_table():
    recorded = provenance.read(RESULTS / "replay_mnist.csv")
    for row in recorded.rows[::7]:
        state = {axis: row[axis] for axis in ("step", "strategy", "budget")}
        for measure in Record().data["measures"]:
            found = Record(measure=measure, **state).compute()
            assert found["chosen"] == [row[measure], row[f"{measure}_error"]]
            assert found["images"] == [int(word) for word in row["images"].split()]
            of_budget = found["curves"][row["strategy"]]
            assert found["chosen"] in of_budget
            assert found["without"] == of_budget[0]


def test_the_page_of_the_book_s_record_is_light():
    assert len(Record().html().encode()) < 300_000


def test_a_record_reads_any_table_with_its_three_axes(tmp_path):
    made = Record(small_table(tmp_path))
    assert made.state() == {"step": 2, "strategy": "top", "budget": 64, "measure": "mse"}
    assert (made.data["steps"], made.data["budgets"]) == ([1, 2], [0, 64])
    curve = [[0, 0.5], [128, 0.5]]
    assert made.compute()["curves"] == {"top": curve, "none": curve}
    made.step, made.strategy, made.budget = 1, "none", 0
    assert made.compute()["chosen"] == made.compute()["images"] == []
    assert made.data["sheet"]["url"].startswith("data:image/png;base64,")


def test_labels_of_the_maker_come_before_those_of_the_table(tmp_path):
    recorded = {"labels": {"mse": "error", "step": "epoch"}}
    made = Record(small_table(tmp_path, details=recorded), labels={"mse": "squared error"})
    assert made.data["measures"] == {"mse": "squared error"}
    assert made.data["labels"]["step"] == "epoch"
    assert made.data["labels"]["top"] == "top"


def test_a_record_says_how_it_was_made(tmp_path):
    line = Record(small_table(tmp_path)).data["made"]
    made = provenance.read(tmp_path / "run.csv").made
    for part in (made["command"], made["commit"][:7], made["date"], "2 s", "2 seeds"):
        assert part in line


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"step": 1, "budget": 2}], "must have a column strategy, but has"),
        ([{"step": 1, "strategy": "a", "budget": 2, "mse": 3}], "must have measures"),
        ([cell(1, "a", 2), cell(1, "a", 2)], "must have one row for each cell"),
    ],
    ids=["axis", "measure", "twice"],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, rows, match):
    with pytest.raises(ValueError, match=match):
        Record(table_of(tmp_path, rows))


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the table must lie in .*none\.csv"):
        Record(tmp_path / "none.csv")


# Random numbers


def test_the_generator_is_mulberry32():
    # From the reference implementation in JavaScript, seed 1.
    expected = [0.6270739405881613, 0.002735721180215478, 0.5274470399599522]
    assert _random.uniforms(1, 3).tolist() == expected


def test_its_normal_numbers_are_normal():
    values = _random.normals(3, 40_001)
    assert values.dtype == torch.float64
    assert values.shape == (40_001,)
    assert float(values.mean()) == pytest.approx(0, abs=4 / 200)
    assert float(values.var()) == pytest.approx(1, abs=4 * math.sqrt(2) / 200)
    assert float(values[:-1].reshape(-1, 2).prod(1).mean()) == pytest.approx(0, abs=4 / 141)


def test_a_recorded_table_of_the_book_is_named_without_the_path_of_a_machine():
    figure = Record(table=repository.results("replay_mnist.csv"))
    assert figure.data["given"] == ['repository.results("replay_mnist.csv")']
