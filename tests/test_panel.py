import base64
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
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
    """What the page's script is called with."""
    script = page(panel).script.text
    return json.loads(re.search(r"render\(document\.getElementById\(.*?\), (.*)\);$", script)[1])


def corner(content):
    """Grey value of the first pixel."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))[0, 0]


# Without a kernel


def test_the_page_carries_one_frame_for_each_position_the_last_slider_fastest(panel):
    sentences = [frame["sentence"] for frame in state(panel)["frames"]]
    assert sentences == [f"size {d}, shade {s}" for d in (1, 2, 4) for s in (0.25, 0.5)]


def test_each_frame_is_the_picture_of_its_position(panel):
    for number, frame in enumerate(state(panel)["frames"]):
        content = base64.b64decode(frame["image"].removeprefix("data:image/png;base64,"))
        assert corner(content) == pytest.approx(255 * number / 8, abs=2)


def test_the_page_starts_where_the_sliders_start(panel):
    assert [slider["start"] for slider in state(panel)["sliders"]] == [1, 1]


def test_the_page_writes_positions_and_labels_as_the_sliders_do(panel):
    sliders = state(panel)["sliders"]
    assert [slider["label"] for slider in sliders] == ["size d", "shade s"]
    assert [slider["texts"] for slider in sliders] == [["1", "2", "4"], ["0.25", "0.50"]]


def test_the_page_shows_the_caption_as_text(panel):
    assert page(panel).figure.figcaption.text == r"Move \(d\) & look."


def test_the_script_finds_its_own_panel_among_several(panel):
    first, second = page(panel), page(panel)
    assert first.figure["id"] != second.figure["id"]
    for one in (first, second):
        assert f'getElementById("{one.figure["id"]}")' in one.script.text


def test_the_page_asks_for_nothing_from_outside(panel):
    html = panel.html()
    assert not re.search(r"https?:|\bfetch\b|XMLHttpRequest|\bimport\b|\bsrc=", html)


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "a < b", '“quoted” "so" \\n'])
def test_no_sentence_breaks_out_of_the_script(text):
    def draw_with_text(k):
        return plotting.subplots()[0], text

    panel = Panel(draw_with_text, {"k": Slider("k", [0], start=0)}, caption="A caption.")
    assert state(panel)["frames"][0]["sentence"] == text
    script = panel.html().split('<script type="module">')[1].removesuffix("</script>")
    assert not re.search(r"</script|<!--|<script", script.split(", {")[-1], re.IGNORECASE)


def test_drawing_the_page_leaves_no_figure_open(panel):
    plt.close("all")
    panel.html()
    assert plt.get_fignums() == []


def test_the_page_holds_a_live_control_at_its_start_and_says_so():
    def draw_three(size, shade, beta):
        return draw(size, shade)[0], f"β {beta}"

    live = {"beta": Slider("inverse temperature β", [1, 8], start=8)}
    sliders = {"size": Slider("d", [1, 2], start=1), "shade": Slider("s", [0.25], start=0.25)}
    held = state(Panel(draw_three, sliders, live=live, caption="A caption."))
    assert [frame["sentence"] for frame in held["frames"]] == ["β 8", "β 8"]
    assert held["held"] == ["inverse temperature β = 8"]


def test_positions_may_be_words():
    slider = Slider("strategy", ["greedy", "random"], start="random")
    assert slider.options() == [("greedy", "greedy"), ("random", "random")]


# With a kernel


def test_a_live_control_moves_with_a_kernel():
    def draw_with_beta(size, beta):
        return draw(size, 0.25)[0], f"β {beta}"

    sliders, live = {"size": Slider("d", [1], start=1)}, {"beta": Slider("β", [1, 8], start=8)}
    panel = Panel(draw_with_beta, sliders, live=live, caption="A caption.")
    panel.controls["beta"].value = 1
    assert panel.sentence.value == "β 1"


def test_a_live_panel_starts_with_the_start_of_its_sliders(panel):
    assert panel.sentence.value == "size 2, shade 0.5"
    assert corner(panel.image.value) == pytest.approx(255 * 3 / 8, abs=2)


def test_moving_a_slider_draws_its_position(panel):
    panel.controls["size"].value = 4
    assert panel.sentence.value == "size 4, shade 0.5"
    assert corner(panel.image.value) == pytest.approx(255 * 5 / 8, abs=2)
    panel.controls["shade"].value = 0.25
    assert panel.sentence.value == "size 4, shade 0.25"
    assert corner(panel.image.value) == pytest.approx(255 * 4 / 8, abs=2)


def test_a_panel_that_was_shown_answers_from_its_drawn_pictures(panel):
    panel.html()
    panel.draw = None  # nothing is drawn any more
    panel.controls["size"].value = 4
    assert panel.sentence.value == "size 4, shade 0.5"
    assert corner(panel.image.value) == pytest.approx(255 * 5 / 8, abs=2)


def test_the_live_picture_is_named_by_its_sentence(panel):
    panel.controls["size"].value = 1
    assert panel.image.get_state()["tooltip"] == "size 1, shade 0.5"


def test_live_sentence_and_caption_are_text_not_markup():
    def draw_with_markup(k):
        return plotting.subplots()[0], "1 < 2 & <b>"

    panel = Panel(draw_with_markup, {"k": Slider("k", [0], start=0)}, caption="<i> & so on")
    assert panel.sentence.value == "1 &lt; 2 &amp; &lt;b&gt;"
    assert panel.view.children[-1].value == "&lt;i&gt; &amp; so on"


def test_one_output_serves_both_a_notebook_and_a_page(panel):
    bundle = panel._repr_mimebundle_()
    live = bundle["application/vnd.jupyter.widget-view+json"]
    assert live["model_id"] == panel.view.model_id
    assert BeautifulSoup(bundle["text/html"], "html.parser").script is not None


def test_a_live_panel_shows_its_controls_picture_sentence_and_caption(panel):
    assert panel.view.children[:2] == tuple(panel.controls.values())
    assert panel.view.children[2:4] == (panel.image, panel.sentence)
    assert [control.description for control in panel.view.children[:2]] == ["size d", "shade s"]


def test_a_panel_of_as_many_frames_as_a_page_carries_is_made():
    drawn = []

    def count(a, b):
        drawn.append((a, b))
        return plotting.subplots(figsize=(1, 1))[0], "counted"

    sliders = {name: Slider(name, range(8), start=0) for name in ("a", "b")}
    assert len(state(Panel(count, sliders, caption="A caption."))["frames"]) == 64
    assert len(set(drawn)) == 64
