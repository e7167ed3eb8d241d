import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

from hopfield_cl import plotting


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, in order."""
    outputs = []
    monkeypatch.setattr(plotting, "display", outputs.append)
    return outputs


def line(**options):
    figure, axes = plotting.subplots(**options)
    axes.plot([0, 1], [1, 0])
    return figure


def picture(data_url):
    kind, content = data_url.split(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


# Showing a figure


def test_a_shown_figure_is_a_picture_with_its_alternative_text_and_caption(shown):
    plotting.show(line(), caption="Energy falls.", alt="A line that falls.")
    figure = BeautifulSoup(shown[0].data, "html.parser").figure
    assert figure.img["alt"] == "A line that falls."
    assert figure.figcaption.text == "Energy falls."
    assert picture(figure.img["src"]).format == "PNG"
    assert len(shown) == 1


def test_a_shown_figure_fits_narrow_pages_and_is_sharp_on_wide_ones(shown):
    plotting.show(line(figsize=(5, 3)), caption="A caption.", alt="A picture.")
    img = BeautifulSoup(shown[0].data, "html.parser").img
    assert img["width"] == "500"
    assert "max-width:100%" in img["style"]
    assert picture(img["src"]).width > 1.5 * 500


def test_a_shown_figure_is_closed(shown):
    plotting.show(line(), caption="A caption.", alt="A picture.")
    assert shown
    assert plt.get_fignums() == []


def test_caption_and_alternative_text_are_text_not_markup(shown):
    caption, alt = 'At $\\beta < 1$ & "small" <b>', '1 < 2 & "quoted" <i>'
    plotting.show(line(), caption=caption, alt=alt)
    figure = BeautifulSoup(shown[0].data, "html.parser").figure
    assert figure.figcaption.text == 'At \\(\\beta < 1\\) & "small" <b>'
    assert figure.img["alt"] == alt
    assert figure.find(["b", "i"]) is None


def test_a_caption_lets_the_page_set_its_mathematics():
    caption = BeautifulSoup(plotting.figcaption("At $\\beta = 1$."), "html.parser").figcaption
    assert {"tex2jax_process", "mathjax_process"} <= set(caption["class"])


@pytest.mark.parametrize("dpi", [50, 180])
def test_pictures_have_the_size_of_the_figure(dpi):
    image = picture(plotting.data_url(plotting.small_png(line(figsize=(4, 2)), dpi=dpi)))
    assert image.size == (4 * dpi, 2 * dpi)
    assert plt.get_fignums() == []


def test_the_small_picture_looks_like_the_whole_one():
    def pixels(image):
        return np.asarray(image.convert("RGB"), dtype=float)

    whole = pixels(Image.open(io.BytesIO(plotting.png(line(), dpi=100))))
    small = pixels(Image.open(io.BytesIO(plotting.small_png(line(), dpi=100))))
    error = np.abs(whole - small)  # of 255; a palette of 256 colours rounds a few soft edges
    assert error.max() <= 16
    assert error.mean() <= 0.1


# Tables


def test_a_shown_table_has_its_columns_rows_and_caption_as_text(shown):
    rows = [("1 < 2", "$E$"), ("<b>", "no")]
    plotting.show_table(["Claim", "Holds"], rows, caption="What $E$ does.")
    table = BeautifulSoup(shown[0].data, "html.parser").table
    assert [cell.text for cell in table.select("th[scope=col]")] == ["Claim", "Holds"]
    assert [cell.text for cell in table.select("td")] == ["1 < 2", r"\(E\)", "<b>", "no"]
    assert [cell["data-column"] for cell in table.select("td")] == ["Claim", "Holds"] * 2
    assert table.caption.text == r"What \(E\) does."


def test_a_table_without_caption_or_with_a_ragged_row_is_refused():
    with pytest.raises(ValueError, match=r"^caption must say what the table shows"):
        plotting.show_table(["a"], [("1",)], caption=" ")
    with pytest.raises(ValueError, match=r"^rows must have 2 entries each, but row 1 has 1"):
        plotting.show_table(["a", "b"], [("1", "2"), ("3",)], caption="A caption.")


# Style


def test_the_style_ends_with_its_context():
    before = plt.rcParams["axes.spines.top"]
    assert before is True
    with plotting.style():
        assert plt.rcParams["axes.spines.top"] is False
    assert plt.rcParams["axes.spines.top"] is before


def test_subplots_have_the_style_and_leave_it_behind():
    before = plt.rcParams.copy()
    figure, axes = plotting.subplots(1, 2)
    assert len(figure.axes) == len(axes) == 2
    assert not axes[0].spines["top"].get_visible()
    assert axes[0].plot([0, 1])[0].get_color() == plotting.COLORS["blue"]
    assert plt.rcParams == before


def test_options_of_subplots_are_passed_on():
    figure, axes = plotting.subplots(2, 2, sharex=True, figsize=(3, 2))
    assert axes.shape == (2, 2)
    assert figure.get_size_inches().tolist() == [3, 2]
    assert axes[0, 0].get_shared_x_axes().joined(axes[0, 0], axes[1, 1])


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_cluster_and_outlier_stand_out_from_white_paper():
    # WCAG 2.1, 1.4.11: graphics need a contrast of 3 to 1.
    for color in (plotting.CLUSTER, plotting.OUTLIER):
        assert 1.05 / (luminance(color) + 0.05) >= 3


# Images


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, 10, (1, 1)), (7, 3, (3, 3)), (12, 4, (3, 4))]
)
def test_a_grid_has_a_place_for_every_image(count, columns, shape):
    figure = plotting.image_grid(torch.zeros(count, 1, 8, 8), columns=columns)
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    assert sum(len(axes.images) for axes in figure.axes) == count
    assert not any(axes.axison for axes in figure.axes)


def test_a_grid_puts_titles_over_their_images():
    figure = plotting.image_grid(torch.zeros(3, 8, 8), titles=["a", "b", "c"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3)], ids=["H W", "1 H W"])
def test_a_grey_image_is_drawn_from_black_at_minus_one_to_white_at_one(shape):
    values = torch.linspace(-1, 1, 6)
    _, axes = plotting.subplots()
    plotting.draw_image(axes, values.reshape(shape))
    drawn = axes.images[0]
    assert drawn.get_clim() == (-1, 1)
    np.testing.assert_array_equal(drawn.get_array(), values.reshape(2, 3).numpy())
    assert drawn.cmap(drawn.norm([-1.0, 1.0]))[:, :3].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_a_colour_image_is_drawn_with_its_channels_last_and_cut_to_the_range():
    image = torch.tensor([-1.0, 0.0, 3.0])[:, None, None].expand(3, 2, 2)
    _, axes = plotting.subplots()
    plotting.draw_image(axes, image)
    expected = np.broadcast_to([0.0, 0.5, 1.0], (2, 2, 3))
    np.testing.assert_allclose(axes.images[0].get_array(), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_images_that_carry_a_gradient_or_another_dtype_are_drawn(dtype):
    _, axes = plotting.subplots()
    plotting.draw_image(axes, torch.zeros(4, 4, dtype=dtype, requires_grad=True))
    assert axes.images[0].get_array().shape == (4, 4)
