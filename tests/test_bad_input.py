import inspect
import math

import matplotlib.pyplot as plt
import pytest
import torch

from hopfield_cl import _checks, data, energy, memories, plotting
from hopfield_cl.explore import Panel, Slider

ENERGY = [energy.energy, energy.attention, energy.retrieve, energy.fixed_points, energy.curvature]
CHUNKED = [energy.energy, energy.retrieve]
META = torch.device("meta")


def name_of(value):
    return getattr(value, "__name__", None) or repr(value)


def each(functions):
    return pytest.mark.parametrize("function", functions, ids=name_of)


def good(**changes):
    """Good arguments of the functions of energy.py, but for the changes."""
    generator = torch.Generator().manual_seed(0)
    arguments = {
        "x": torch.randn(3, 4, generator=generator),
        "memories": torch.randn(5, 4, generator=generator),
        "beta": 2.0,
        "weights": torch.ones(5),
    }
    return arguments | changes


def refuse(function, error, match, **changes):
    with pytest.raises(error, match=match):
        function(**good(**changes))


def spoiled(value, *shape):
    tensor = torch.ones(shape)
    tensor[-1] = value
    return tensor


def test_the_table_holds_every_function_of_energy_that_takes_memories():
    public = {
        function
        for name, function in vars(energy).items()
        if inspect.isfunction(function)
        and function.__module__ == energy.__name__
        and not name.startswith("_")
    }
    assert public == set(ENERGY)
    chunked = {f for f in public if "chunk_size" in inspect.signature(f).parameters}
    assert chunked == set(CHUNKED)


@each(ENERGY)
def test_good_arguments_are_taken(function):
    function(**good())


# x and memories

NOT_FINITE = pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)


@NOT_FINITE
@each(ENERGY)
def test_x_that_is_not_finite_is_refused(function, value):
    refuse(function, ValueError, rf"^x must be finite, but row 2 holds {value}", x=spoil_x(value))


def spoil_x(value):
    x = good()["x"]
    x[2, 1] = value
    return x


@NOT_FINITE
@each(ENERGY)
def test_memories_that_are_not_finite_are_refused(function, value):
    stored = good()["memories"]
    stored[3, 0] = value
    match = rf"^memories must be finite, but row 3 holds {value}"
    refuse(function, ValueError, match, memories=stored)


@NOT_FINITE
def test_the_row_is_named_when_memories_are_read_in_parts(value, monkeypatch):
    monkeypatch.setattr(_checks, "_ENTRIES_PER_LOOK", 8)
    stored = good()["memories"]
    stored[3, 0] = value
    match = rf"^memories must be finite, but row 3 holds {value}"
    refuse(energy.energy, ValueError, match, memories=stored)


@pytest.mark.parametrize("shape", [(0, 4), (5, 0)], ids=str)
@each(ENERGY)
def test_empty_memories_are_refused(function, shape):
    stored = torch.ones(shape)
    refuse(function, ValueError, r"^memories must hold at least one memory", memories=stored)


@pytest.mark.parametrize("shape", [(4,), (1, 5, 4), ()], ids=str)
@each(ENERGY)
def test_memories_that_are_no_matrix_are_refused(function, shape):
    stored = torch.ones(shape)
    refuse(function, ValueError, r"^memories must have shape \(N, d\)", memories=stored)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (4, 1), (0,)], ids=str)
@each(ENERGY)
def test_x_of_another_dimension_is_refused(function, shape):
    match = r"^x must have the dimension of memories in its last axis, d = 4"
    refuse(function, ValueError, match, x=torch.ones(shape))


@each(ENERGY)
def test_a_scalar_x_is_refused(function):
    refuse(function, ValueError, r"^x must have shape \(\.\.\., d\)", x=torch.tensor(1.0))


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn], ids=str
)
@pytest.mark.parametrize("name", ["x", "memories", "weights"])
@each(ENERGY)
def test_tensors_that_are_no_floating_point_numbers_are_refused(function, name, dtype):
    value = good()[name].to(dtype)
    refuse(function, TypeError, rf"^{name} must have a floating-point dtype", **{name: value})


@pytest.mark.parametrize("name", ["x", "memories", "weights"])
@each(ENERGY)
def test_lists_are_refused(function, name):
    value = good()[name].tolist()
    match = rf"^{name} must be a torch.Tensor, but is a list"
    refuse(function, TypeError, match, **{name: value})


@each(ENERGY)
def test_memories_of_another_dtype_are_refused(function):
    stored = good()["memories"].double()
    refuse(function, TypeError, r"^memories must have the dtype of x", memories=stored)


@pytest.mark.parametrize("name", ["x", "memories"])
@each(ENERGY)
def test_x_and_memories_on_two_devices_are_refused(function, name):
    value = good()[name].to(META)
    match = r"^memories must be on the device of x"
    refuse(function, ValueError, match, **{name: value})


# beta


@pytest.mark.parametrize("as_tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf], ids=str)
@each(ENERGY)
def test_beta_that_is_not_finite_and_above_zero_is_refused(function, value, as_tensor):
    beta = torch.tensor(value) if as_tensor else value
    refuse(function, ValueError, r"^beta must be finite and above 0", beta=beta)


def test_a_beta_too_large_for_a_float_is_refused():
    refuse(energy.energy, ValueError, r"^beta must be finite and above 0", beta=10**400)


@pytest.mark.parametrize("value", ["2", None, True, 1 + 1j, [2.0]], ids=repr)
@each(ENERGY)
def test_beta_that_is_no_number_is_refused(function, value):
    refuse(function, TypeError, r"^beta must be a number", beta=value)


@pytest.mark.parametrize("value", [torch.ones(1), torch.ones(5), torch.tensor(2)], ids=repr)
@each(ENERGY)
def test_beta_that_is_no_scalar_floating_point_tensor_is_refused(function, value):
    refuse(function, TypeError, r"^beta must be a number or a floating-point tensor", beta=value)


@each(ENERGY)
def test_beta_on_another_device_is_refused(function):
    beta = torch.tensor(2.0, device=META)
    refuse(function, ValueError, r"^beta must be on the CPU or on the device of x", beta=beta)


# weights


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -math.inf], ids=str)
@each(ENERGY)
def test_weights_that_are_not_finite_and_above_zero_are_refused(function, value):
    weights = spoiled(value, 5)
    match = rf"^weights must be finite and above 0, but entry 4 is {value}"
    refuse(function, ValueError, match, weights=weights)


@pytest.mark.parametrize("shape", [(4,), (6,), (5, 1), (1,), ()], ids=str)
@each(ENERGY)
def test_weights_of_another_length_are_refused(function, shape):
    refuse(function, ValueError, r"^weights must have shape \(5,\)", weights=torch.ones(shape))


@each(ENERGY)
def test_weights_of_another_dtype_are_refused(function):
    weights = torch.ones(5, dtype=torch.float64)
    refuse(function, TypeError, r"^weights must have the dtype of memories", weights=weights)


@each(ENERGY)
def test_weights_on_another_device_are_refused(function):
    weights = torch.ones(5, device=META)
    refuse(function, ValueError, r"^weights must be on the device of memories", weights=weights)


# chunk_size, tol, max_steps


@pytest.mark.parametrize("value", [0, -1])
@each(CHUNKED)
def test_chunk_size_below_one_is_refused(function, value):
    refuse(function, ValueError, r"^chunk_size must be at least 1", chunk_size=value)


@pytest.mark.parametrize("value", [2.0, "2", True], ids=repr)
@each(CHUNKED)
def test_chunk_size_that_is_no_integer_is_refused(function, value):
    refuse(function, TypeError, r"^chunk_size must be an integer", chunk_size=value)


@pytest.mark.parametrize("value", [0.0, -1e-9, math.nan, math.inf], ids=str)
def test_tol_out_of_range_is_refused(value):
    refuse(energy.fixed_points, ValueError, r"^tol must be finite and above 0", tol=value)


@pytest.mark.parametrize("value", ["small", None, True], ids=repr)
def test_tol_that_is_no_number_is_refused(value):
    refuse(energy.fixed_points, TypeError, r"^tol must be a number", tol=value)


@pytest.mark.parametrize("value", [0, -5])
def test_max_steps_below_one_is_refused(value):
    refuse(energy.fixed_points, ValueError, r"^max_steps must be at least 1", max_steps=value)


@pytest.mark.parametrize("value", [10.0, None, math.inf], ids=repr)
def test_max_steps_that_is_no_integer_is_refused(value):
    refuse(energy.fixed_points, TypeError, r"^max_steps must be an integer", max_steps=value)


# memories.py


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_cluster", 0),
        ("dim", 13),
        ("correlation", -0.1),
        ("correlation", 1.1),
        ("correlation", math.nan),
        ("outlier_overlap", -0.1),
        ("outlier_overlap", 1.1),
        ("outlier_overlap", math.nan),
    ],
)
def test_a_cluster_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must "):
        memories.cluster_with_outlier(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_cluster", 3.0),
        ("dim", "50"),
        ("correlation", None),
        ("outlier_overlap", 1j),
        ("dtype", torch.int64),
        ("dtype", torch.float8_e4m3fn),
        ("dtype", "float64"),
    ],
)
def test_a_cluster_of_the_wrong_kind_is_refused(name, value):
    with pytest.raises(TypeError, match=rf"^{name} must be "):
        memories.cluster_with_outlier(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("dim", 0), ("epsilon", -0.1), ("epsilon", math.nan), ("epsilon", math.inf)],
)
def test_a_rotation_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must "):
        memories.random_rotation(**{"dim": 3, "epsilon": 0.1, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("dim", 3.0), ("epsilon", "0.1"), ("dtype", torch.int64)]
)
def test_a_rotation_of_the_wrong_kind_is_refused(name, value):
    with pytest.raises(TypeError, match=rf"^{name} must be "):
        memories.random_rotation(**{"dim": 3, "epsilon": 0.1, name: value})


def test_a_rotation_that_overflows_is_refused():
    with pytest.raises(ValueError, match=r"^the rotation overflows"):
        memories.random_rotation(3, 1e300, dtype=torch.float32)


@pytest.mark.parametrize(
    ("vectors", "error", "match"),
    [
        ([[1.0]], TypeError, "^vectors must be a torch.Tensor"),
        (torch.ones(3, 2, dtype=torch.int64), TypeError, "^vectors must have a floating-point"),
        (torch.ones(3), ValueError, "^vectors must have shape"),
        (torch.ones(0, 3), ValueError, "^vectors must hold at least one"),
        (spoiled(math.nan, 3, 2), ValueError, "^vectors must be finite"),
        (torch.ones(3, 2), ValueError, "^vectors must differ from the center, but row 0"),
    ],
    ids=["list", "integers", "vector", "empty", "nan", "on the centre"],
)
def test_vectors_that_cannot_go_on_the_sphere_are_refused(vectors, error, match):
    with pytest.raises(error, match=match):
        memories.on_sphere(vectors)


@pytest.mark.parametrize(
    ("center", "error", "match"),
    [
        ([0.0, 0.0], TypeError, "^center must be a torch.Tensor"),
        (torch.zeros(3), ValueError, r"^center must have shape \(2,\)"),
        (torch.zeros(2, dtype=torch.float64), TypeError, "^center must have the dtype of vectors"),
        (torch.zeros(2, device=META), ValueError, "^center must be on the device of vectors"),
        (spoiled(math.inf, 2), ValueError, "^center must be finite"),
    ],
    ids=["list", "length", "dtype", "device", "infinite"],
)
def test_a_center_that_does_not_fit_is_refused(center, error, match):
    with pytest.raises(error, match=match):
        memories.on_sphere(torch.ones(3, 2), center=center)


def test_vectors_too_far_from_the_center_for_their_dtype_are_refused():
    vectors = torch.full((1, 2), 6e4, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"^the distance of vectors from the center overflows"):
        memories.on_sphere(vectors, center=-vectors[0])


# data.py


def test_an_unknown_image_set_is_refused_with_the_known_ones():
    known = "'digits', 'mnist', 'scenes', 'cifar10'"
    with pytest.raises(ValueError, match=rf"^name must be one of {known}, but is 'cats'"):
        data.load("cats")


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match=r"^name must be a string, but is a int"):
        data.load(3)


@pytest.mark.parametrize("name", ["digits", "mnist", "scenes"])
def test_a_folder_for_images_that_come_with_a_package_is_refused(name):
    with pytest.raises(ValueError, match=rf"^root must not be given for '{name}'"):
        data.load(name, root="images")


@pytest.mark.parametrize("value", [3, 4, 11])
def test_classes_per_task_that_leaves_classes_over_is_refused(value):
    with pytest.raises(ValueError, match=r"^classes_per_task must divide the 10 classes"):
        data.split_tasks(data.load("digits"), value)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2.0, TypeError), ("2", TypeError)])
def test_classes_per_task_that_is_no_count_is_refused(value, error):
    with pytest.raises(error, match=r"^classes_per_task must be "):
        data.split_tasks(data.load("digits"), value)


# plotting.py and explore


@pytest.mark.parametrize("text", ["", "  \n"], ids=repr)
@pytest.mark.parametrize("name", ["caption", "alt"])
def test_a_figure_without_caption_or_alternative_text_is_refused(name, text):
    figure = plt.figure()
    texts = {"caption": "A caption.", "alt": "A picture.", name: text}
    with pytest.raises(ValueError, match=rf"^{name} must say what the figure shows"):
        plotting.show(figure, **texts)
    plt.close(figure)


def test_an_empty_grid_of_images_is_refused():
    with pytest.raises(ValueError, match=r"^images must hold at least one"):
        plotting.image_grid(torch.zeros(0, 1, 8, 8))


def test_a_grid_with_too_few_titles_is_refused():
    with pytest.raises(ValueError, match=r"^titles must be as many as the images, 3, but are 2"):
        plotting.image_grid(torch.zeros(3, 1, 8, 8), titles=["a", "b"])


@pytest.mark.parametrize("value", [0.5, 7])
def test_a_slider_that_starts_off_its_values_is_refused(value):
    with pytest.raises(ValueError, match=rf"^start must be one of the values .* is {value}"):
        Slider("β", [1, 2, 4], start=value)


def never_drawn(**values):
    raise AssertionError("a panel that is refused draws nothing")


def test_a_panel_without_sliders_is_refused():
    with pytest.raises(ValueError, match=r"^sliders must have from 1 to 64 positions.*have 0"):
        Panel(never_drawn, {}, caption="A caption.")


def test_a_panel_with_more_frames_than_a_page_carries_is_refused():
    sliders = {name: Slider(name, range(n), start=0) for name, n in (("a", 13), ("b", 5))}
    with pytest.raises(ValueError, match=r"^sliders must have from 1 to 64 positions.*have 65"):
        Panel(never_drawn, sliders, caption="A caption.")


def test_a_panel_that_names_a_control_twice_is_refused():
    slider = {"beta": Slider("β", [1, 2], start=1)}
    with pytest.raises(ValueError, match=r"^live must not name what sliders names.*'beta'"):
        Panel(never_drawn, slider, live=slider, caption="A caption.")


def test_a_panel_without_caption_is_refused():
    slider = Slider("β", [1, 2], start=1)
    with pytest.raises(ValueError, match=r"^caption must say what the panel shows"):
        Panel(never_drawn, {"beta": slider}, caption=" ")
