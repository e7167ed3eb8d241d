import json
import math
import re

import numpy as np
import pytest
import torch
import traitlets
from bs4 import BeautifulSoup

from hopfield_cl.energy import fixed_points
from hopfield_cl.explore import Cooling, Landscape, Outlier, _random
from hopfield_cl.explore.base import InteractiveFigure, module, stylesheet
from hopfield_cl.memories import cluster_with_outlier
from hopfield_cl.plotting import COLORS

FIGURES = [Landscape, Outlier, Cooling]
MOST_BYTES = 25_000


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
    assert embedded(made) == made.state() | {"start": made.start}
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
def test_one_output_serves_both_a_notebook_and_a_page(figure):
    made = figure()
    data, _ = made._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    assert BeautifulSoup(data["text/html"], "html.parser").script is not None


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
    [(Landscape(), "beta"), (Outlier(), "epsilon"), (Cooling(memories=[[0.5, 0.1]]), "sigma")],
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
        (Cooling, "sigma", 0.0),
        (Cooling, "sample", 0),
        (Cooling, "sample", 1.5),
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
