import base64
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import traitlets
from bs4 import BeautifulSoup
from PIL import Image

from hopfield_cl import plotting
from hopfield_cl.explore import Panel, Slider


def draw(size, shade):
    """A plain picture whose grey value tells which frame it is."""
    figure, axes = plotting.subplots(figsize=(2, 1))
    figure.set_facecolor(str(frame_number(size, shade) / 8))
    axes.set_axis_off()
    return figure, f"size {size}, shade {shade}"


def frame_number(size, shade):
    return [1, 2, 4].index(size) * 2 + [0.25, 0.5].index(shade)


@pytest.fixture
def panel():
    sliders = {
        "size": Slider("size d", [1, 2, 4], start=2),
        "shade": Slider("shade s", [0.25, 0.5], start=0.5, text=".2f"),
    }
    return Panel(draw, sliders, caption="Move $d$ & look.")


def page(panel):
    return BeautifulSoup(panel.html(), "html.parser")


def state(panel):
    """What the page's script starts with."""
    return json.loads(re.search(r"staticModel\((\{.*\})\), el: ", page(panel).script.text)[1])


def told(panel):
    """What the page's script draws from."""
    return state(panel)["data"]


def corner(content):
    """Grey value of the first pixel."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))[0, 0]


# Without a kernel


def test_the_page_carries_one_frame_for_each_position_the_last_slider_fastest(panel):
    sentences = [frame["sentence"] for frame in told(panel)["frames"]]
    assert sentences == [f"size {d}, shade {s}" for d in (1, 2, 4) for s in (0.25, 0.5)]


def test_each_frame_is_the_picture_of_its_position(panel):
    for number, frame in enumerate(told(panel)["frames"]):
        content = base64.b64decode(frame["picture"].removeprefix("data:image/png;base64,"))
        assert corner(content) == pytest.approx(255 * number / 8, abs=2)


def test_the_page_starts_where_the_sliders_start(panel):
    assert state(panel)["start"] == {"size": 2, "shade": 0.5}


def test_the_page_writes_positions_and_labels_as_the_sliders_do(panel):
    sliders = told(panel)["sliders"]
    assert [slider["label"] for slider in sliders] == ["size d", "shade s"]
    assert [slider["texts"] for slider in sliders] == [["1", "2", "4"], ["0.25", "0.50"]]


def test_the_page_shows_the_caption_as_text(panel):
    assert page(panel).figure.figcaption.text == r"Move \(d\) & look."


def test_the_script_finds_its_own_panel_among_several(panel):
    first, second = page(panel), page(panel)
    assert first.figure.div["id"] != second.figure.div["id"]
    for one in (first, second):
        assert f'getElementById("{one.figure.div["id"]}")' in one.script.text


def test_the_page_asks_for_nothing_from_outside(panel):
    html = panel.html()
    assert not re.search(r"https?:|\bfetch\b|XMLHttpRequest|\bimport\b|\bsrc=", html)


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "a < b", '“quoted” "so" \\n'])
def test_no_sentence_breaks_out_of_the_script(text):
    def draw_with_text(k):
        return plotting.subplots()[0], text

    panel = Panel(draw_with_text, {"k": Slider("k", [0], start=0)}, caption="A caption.")
    assert told(panel)["frames"][0]["sentence"] == text
    script = panel.html().split('<script type="module">')[1].removesuffix("</script>")
    assert not re.search(r"</script|<!--|<script", script, re.IGNORECASE)


def test_drawing_the_page_leaves_no_figure_open(panel):
    plt.close("all")
    panel.html()
    assert plt.get_fignums() == []


def test_the_page_holds_a_live_control_at_its_start_and_says_so():
    def draw_three(size, shade, beta):
        return draw(size, shade)[0], f"β {beta}"

    live = {"beta": Slider("inverse temperature β", [1, 8], start=8)}
    sliders = {"size": Slider("d", [1, 2], start=1), "shade": Slider("s", [0.25], start=0.25)}
    held = told(Panel(draw_three, sliders, live=live, caption="A caption."))
    assert [frame["sentence"] for frame in held["frames"]] == ["β 8", "β 8"]
    assert held["held"] == ["inverse temperature β = 8"]


def test_positions_may_be_words():
    slider = Slider("strategy", ["greedy", "random"], start="random")
    assert slider.texts() == ["greedy", "random"]


def test_positions_are_numbers_and_texts_of_pythons_own():
    slider = Slider("n", np.array([1, 2]), start=np.float64(2.0))
    assert slider.values == (1, 2)
    assert {type(value) for value in (*slider.values, slider.start)} == {int}
    with pytest.raises(TypeError, match=r"^values must be numbers or texts, but hold \[1\]\.$"):
        Slider("n", [[1]], start=[1])


# With a kernel


def test_a_live_control_moves_with_a_kernel():
    def draw_with_beta(size, beta):
        return draw(size, 0.25)[0], f"β {beta}"

    sliders, live = {"size": Slider("d", [1], start=1)}, {"beta": Slider("β", [1, 8], start=8)}
    panel = Panel(draw_with_beta, sliders, live=live, caption="A caption.")
    panel.beta = 1
    assert panel.sentence == "β 1"


def test_a_live_panel_starts_with_the_start_of_its_sliders(panel):
    assert panel.sentence == "size 2, shade 0.5"
    assert corner(panel.picture) == pytest.approx(255 * 3 / 8, abs=2)


def test_moving_a_slider_draws_its_position(panel):
    panel.size = 4
    assert panel.sentence == "size 4, shade 0.5"
    assert corner(panel.picture) == pytest.approx(255 * 5 / 8, abs=2)
    panel.set_state({"shade": 0.25})  # as a view does
    assert panel.sentence == "size 4, shade 0.25"
    assert corner(panel.picture) == pytest.approx(255 * 4 / 8, abs=2)


def test_a_position_is_that_of_the_list_whatever_number_a_view_sends():
    panel = Panel(
        lambda x: (draw(1, 0.25)[0], repr(x)),
        {"x": Slider("x", [1.0, 2.0], 1.0)},
        caption="A caption.",
    )
    panel.set_state({"x": 2})
    assert panel.sentence == "2.0"


def test_a_position_that_no_slider_has_is_refused(panel):
    with pytest.raises(traitlets.TraitError, match=r"^shade of this Panel must be one of 0\.25"):
        panel.shade = 0.3


def test_a_panel_that_was_shown_answers_from_its_drawn_pictures(panel, monkeypatch):
    panel.html()
    monkeypatch.setattr(panel, "_draw", None)  # nothing is drawn any more
    panel.size = 4
    assert panel.sentence == "size 4, shade 0.5"
    assert corner(panel.picture) == pytest.approx(255 * 5 / 8, abs=2)


def test_a_view_sees_picture_sentence_caption_and_controls(panel):
    synced = panel.get_state()
    assert synced["sentence"] == "size 2, shade 0.5"
    assert corner(synced["picture"]) == pytest.approx(255 * 3 / 8, abs=2)
    assert synced["caption"] == "Move $d$ & look."
    assert [slider["label"] for slider in synced["data"]["sliders"]] == ["size d", "shade s"]
    assert "frames" not in synced["data"]  # a kernel draws them when it is asked


def test_one_slider_may_not_have_the_name_of_something_else():
    for name in ("caption", "html", "picture"):
        with pytest.raises(ValueError, match="must not have the name of another attribute"):
            Panel(draw, {name: Slider("x", [1], start=1)}, caption="A caption.")


def test_a_panel_of_as_many_frames_as_a_page_carries_is_made():
    drawn = []

    def count(a, b):
        drawn.append((a, b))
        return plotting.subplots(figsize=(1, 1))[0], "counted"

    sliders = {name: Slider(name, range(8), start=0) for name in ("a", "b")}
    assert len(told(Panel(count, sliders, caption="A caption."))["frames"]) == 64
    assert len(set(drawn)) == 64
