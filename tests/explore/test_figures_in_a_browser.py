"""The interactive figures in headless Chromium: their numbers, their controls, their manners."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from hopfield_cl.explore import Budget, Cooling, Landscape, Outlier, Panel, Record, Slider
from hopfield_cl.plotting import subplots
from hopfield_cl.records import provenance

FIGURES = [Landscape, Outlier, Budget, Cooling, Record]
# Relative, but for numbers that pass through zero: those are compared with this size.
RELATIVE, SMALLEST = 1e-9, 1e-3
PATIENCE = 60_000
RESULTS = Path(__file__).parents[2] / "results"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<title>Figures</title><body style="margin:16px">{}</body></html>"""


class Reader:
    """A page with figures, opened from a file with the network cut, and what went wrong on it."""

    def __init__(self, chromium: Browser, path, html: str, *, fragment: str = "", **context):
        path.write_text(PAGE.format(html), encoding="utf-8")
        self.page: Page = chromium.new_context(**context).new_page()
        self.troubles: list[str] = []
        page, troubles = self.page, self.troubles
        page.on("request", lambda r: troubles.append(r.url) if r.url.startswith("http") else None)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.route("http*://**", lambda route: route.abort())
        page.goto(path.as_uri() + fragment)
        self.settle()

    def settle(self) -> None:
        """Wait until each figure has drawn all that it was asked for."""
        for figure in self.page.locator(".hk").all():
            expect(figure).to_have_attribute("aria-busy", "false", timeout=PATIENCE)

    def sentence(self, number: int = 0) -> str:
        self.settle()
        return self.page.locator(".hk").nth(number).locator("p").first.inner_text()

    def state(self, name: str) -> float:
        """Position of a slider."""
        return float(self.page.locator(f"[data-trait={name}]").input_value())


@pytest.fixture
def open_figures(chromium, tmp_path):
    opened: list[Reader] = []

    def start(*figures, **options) -> Reader:
        html = "\n".join(figure.html() for figure in figures)
        opened.append(Reader(chromium, tmp_path / "page.html", html, **options))
        return opened[-1]

    yield start
    troubles = [trouble for reader in opened for trouble in reader.troubles]
    for reader in opened:
        reader.page.context.close()
    assert troubles == []


def each_figure(function):
    return pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.__name__)(function)


# Equal numbers


def somewhere(draw: random.Random) -> list[float]:
    return [draw.uniform(-1.4, 1.4), draw.uniform(-1.4, 1.4)]


def log_uniform(draw: random.Random, low: float, high: float) -> float:
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def parameters(figure, draw: random.Random) -> dict:
    """A random state of a figure."""
    if figure is Outlier:
        return {
            "outlier_overlap": draw.random(),
            "correlation": draw.uniform(0.05, 0.95),
            "beta": log_uniform(draw, 2, 32),
            "epsilon": draw.uniform(0.01, 0.2),
        }
    if figure is Budget:
        return {
            "outlier_overlap": draw.random(),
            "beta": log_uniform(draw, 2, 32),
            "epsilon": draw.uniform(0.01, 0.2),
            "rotation": draw.randint(1, 20),
            "budget": draw.randint(0, 15),
            "strategy": draw.choice(["highest", "greedy", "random", "lowest"]),
        }
    memories = [somewhere(draw) for _ in range(draw.randint(1, 7))]
    if figure is Cooling:
        sigma = log_uniform(draw, 0.1, 1.5)
        return {"memories": memories, "sigma": sigma, "sample": draw.randint(1, 20)}
    return {
        "memories": memories,
        "beta": log_uniform(draw, 1, 64),
        "masses": draw.choice(["equal", "smoothed"]),
        "query": somewhere(draw),
    }


def flat(value) -> list[float]:
    """All numbers of nested dictionaries and lists, in order."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in flat(value[key])]
    if isinstance(value, list):
        return [number for item in value for number in flat(item)]
    return [value]


@pytest.mark.parametrize(
    ("figure", "count"),
    [(Landscape, 20), (Outlier, 20), (Budget, 40), (Cooling, 3)],
    ids=["Landscape", "Outlier", "Budget", "Cooling"],
)
def test_python_and_the_browser_compute_the_same_numbers(chromium, figure, count):
    draw = random.Random(0)
    table = [parameters(figure, draw) for _ in range(count)]
    url = "data:text/javascript;base64," + base64.b64encode(figure._esm.encode()).decode()
    page = chromium.new_page()
    rows = page.evaluate(
        "async ([url, table]) => { const { compute } = await import(url);"
        " return table.map((row) => compute(row)); }",
        [url, table],
    )
    page.close()
    for row, there in zip(table, rows, strict=True):
        here = figure(**row).compute()
        assert here.keys() == there.keys()
        for name in here:
            expected, found = np.array(flat(here[name])), np.array(flat(there[name]))
            assert expected.shape == found.shape, (name, row)
            error = np.abs(found - expected) / np.maximum(np.abs(expected), SMALLEST)
            assert error.max(initial=0) <= RELATIVE, (name, row)


# Controls


@each_figure
def test_each_slider_follows_the_keyboard_and_says_its_value(open_figures, figure):
    reader = open_figures(figure())
    sliders = reader.page.locator("input[type=range]").all()
    assert sliders
    for slider in sliders:
        assert slider.get_attribute("aria-label")
        texts = []
        for key in ("Home", "ArrowRight", "End"):
            slider.press(key)
            sentence = reader.sentence()  # waits, so that the slider has its new text too
            texts.append((slider.get_attribute("aria-valuetext"), sentence))
        assert len({text for text, _ in texts}) == 3
        assert texts[0][1] != texts[2][1]


@each_figure
def test_reset_returns_to_the_start(open_figures, figure):
    reader = open_figures(figure())
    slider = reader.page.locator("input[type=range]").first
    before, value = reader.sentence(), slider.input_value()
    slider.press("End")
    assert reader.sentence() != before
    reader.page.get_by_role("button", name="Reset").click()
    assert reader.sentence() == before
    assert slider.input_value() == value


@each_figure
def test_everything_to_press_is_large_enough_and_shows_its_focus(open_figures, figure):
    page = open_figures(figure(), viewport={"width": 390, "height": 800}).page
    for control in page.locator(".hk button, .hk select, .hk input").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 44
    for control in page.locator(".hk button, .hk input").all():
        control.focus()
        page.keyboard.press("Shift")  # a key, so that focus shows
        assert control.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"


def at(handle) -> tuple[float, float]:
    box = handle.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_memory_is_dragged_with_the_pointer(open_figures):
    reader = open_figures(Landscape())
    before, handle = reader.sentence(), reader.page.locator(".hk-handle").nth(4)
    x, y = at(handle)
    reader.page.mouse.move(x, y)
    reader.page.mouse.down()
    reader.page.mouse.move(x - 60, y + 40, steps=5)
    reader.page.mouse.up()
    after = reader.sentence()
    assert after != before
    assert at(handle) == pytest.approx((x - 60, y + 40), abs=1)


def test_a_memory_is_moved_added_and_removed_with_the_keyboard(open_figures):
    reader = open_figures(Landscape())
    handles = reader.page.locator(".hk-handle")
    box = reader.page.locator("canvas").bounding_box()
    x, y = at(handles.nth(1))
    for key, expected in {
        "ArrowRight": (x + 0.05 / 3 * box["width"], y),
        "End": (box["x"] + box["width"] * (0.5 + 1.4 / 3), y),
        "Home": (box["x"] + box["width"] * (0.5 - 1.4 / 3), y),
    }.items():
        handles.nth(1).press(key)
        reader.sentence()
        assert at(handles.nth(1)) == pytest.approx(expected, abs=1)
    assert "−1.40" in handles.nth(1).get_attribute("aria-label")
    handles.nth(1).press("Delete")
    assert "4 memories" in reader.sentence()
    assert handles.nth(1).evaluate("element => element === document.activeElement")
    for _ in range(3):
        reader.page.get_by_role("button", name="Add a memory").press("Enter")
    assert "7 memories" in reader.sentence()
    assert reader.page.get_by_role("button", name="Add a memory").is_disabled()


def test_a_tap_drops_the_query(open_figures):
    reader = open_figures(Landscape())
    box = reader.page.locator("canvas").bounding_box()
    reader.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"])
    assert "query at (0.00, −1.20)" in reader.sentence()


def test_cooling_runs_and_a_reader_who_wants_no_motion_gets_its_end_at_once(open_figures):
    reader = open_figures(Cooling(), reduced_motion="reduce")
    reader.page.get_by_role("button", name="Cool").click()
    assert reader.sentence().startswith("At σ = 0.1 ")
    assert reader.state("sigma") == 0
    moving = open_figures(Cooling(), reduced_motion="no-preference")
    moving.page.clock.install()  # so that a slow machine skips no frame
    moving.page.get_by_role("button", name="Cool").click()
    moving.page.clock.run_for(300)
    assert 0 < moving.state("sigma") < 57
    moving.page.get_by_role("button", name="Reset").click()
    moving.page.clock.run_for(100)
    assert moving.sentence().startswith("At σ = 0.5 ")


# Recorded tables


def test_the_browser_takes_the_same_numbers_from_a_table(chromium):
    made, draw = Record(), random.Random(0)
    lists = {"step": "steps", "strategy": "strategies", "budget": "budgets", "measure": "measures"}
    states = [
        {name: draw.choice(list(made.data[key])) for name, key in lists.items()} for _ in range(20)
    ]
    url = "data:text/javascript;base64," + base64.b64encode(Record._esm.encode()).decode()
    page = chromium.new_page()
    rows = page.evaluate(
        "async ([url, states, data]) => { const { compute } = await import(url);"
        " return states.map((state) => compute({ ...state, data })); }",
        [url, states, made.data],
    )
    page.close()
    assert rows == [Record(**state).compute() for state in states]


def test_a_record_says_the_numbers_of_the_chosen_cell(open_figures):
    table = provenance.read(RESULTS / "replay_mnist.csv")
    state = {"step": 0.5, "strategy": "random", "budget": 125, "measure": "rise_left"}
    row = next(r for r in table.rows if all(r[k] == v for k, v in state.items() if k in r))
    reader = open_figures(Record(**state))
    assert f"{row['rise_left']:.3g} ± {row['rise_left_error']:.2g}" in reader.sentence()
    reader.page.get_by_label("strategy").select_option("highest")
    assert "highest, budget 125" in reader.sentence()
    reader.page.locator("[data-trait=budget]").press("Home")
    assert "highest, budget 0" in reader.sentence()
    reader.page.get_by_label("measure").select_option("retrieved")
    assert "images retrieved" in reader.sentence()


def test_a_mark_of_a_record_is_chosen_with_the_pointer(open_figures):
    reader = open_figures(Record(budget=50, step=1.0))
    x, _ = at(reader.page.locator(".hk-stage text", has_text=re.compile("^250$")))
    top = reader.page.locator(".hk-stage svg").first.bounding_box()["y"]
    reader.page.mouse.click(x, top + 40)  # above all marks: the nearest is the highest one
    sentence = reader.sentence()
    assert "budget 250" in sentence
    best = sentence.split("from the highest: ")[1].split(" ")[0]
    assert f", {best}, budget 250" in sentence


TILES = """([side, size]) => [...document.querySelectorAll("canvas")].map((canvas) => {
  const { width, height } = canvas, step = height / size * (size - 2) / side;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const middle = (cell) => Math.floor((cell + 0.5) * step);
  return Array.from({ length: side * side },
    (_, k) => data[4 * (middle(Math.floor(k / side)) * width + middle(k % side))]);
})"""


def test_a_record_shows_the_images_of_the_chosen_cell_and_of_no_replay(open_figures):
    made = Record(strategy="greedy", budget=500, step=1.0)
    table = provenance.read(RESULTS / "replay_mnist.csv")
    layout = table.made["images"]
    sheet = np.asarray(Image.open(io.BytesIO(table.sheet)))

    def tile(number):
        top = number // layout["columns"] * layout["height"]
        left = number % layout["columns"] * layout["width"]
        return sheet[top : top + layout["height"], left : left + layout["width"]]

    reader = open_figures(made)
    page = reader.page
    # The sheet may come after the first drawing.
    page.wait_for_function(
        """() => {
          const canvas = document.querySelector("canvas"), blank = canvas.cloneNode();
          return canvas.toDataURL() !== blank.toDataURL();
        }"""
    )
    reader.settle()
    size = page.locator("canvas").first.bounding_box()["height"]
    shown = page.evaluate(TILES, [layout["width"], size])
    found = made.compute()
    fixed = [numbers[0] for numbers in made.data["rows"].values()]
    expected = [*fixed, found["images_without"][0], found["images"][0]]
    assert len(shown) == len(expected)
    for pixels, number in zip(shown, expected, strict=True):
        assert np.array_equal(np.reshape(pixels, (layout["height"], -1)), tile(number))


@pytest.mark.parametrize("table", ["replay_mnist.csv", "sd_replay.csv"])
def test_no_two_strategies_of_a_record_share_a_colour_or_a_mark(open_figures, table):
    made = Record(RESULTS / table)
    page = open_figures(made).page
    marks = page.evaluate("""() => [...document.querySelectorAll("svg[width='34']")].map((key) => {
      const [line, mark] = key.querySelectorAll("path");
      return [line.getAttribute("stroke"), mark.getAttribute("d")];
    })""")
    assert len(marks) == len(made.data["strategies"])
    for kind in zip(*marks, strict=True):
        assert len(set(kind)) == len(kind)


def test_a_record_without_images_shows_its_curves_alone(open_figures, tmp_path):
    rows = [
        {"step": 1, "strategy": name, "budget": budget, "mse": budget, "mse_error": 1}
        for name in ("top", "none")
        for budget in (0, 64)
    ]
    provenance.record(tmp_path / "run.csv", rows[:-1], seeds=[0], seconds=1.0)
    reader = open_figures(Record(tmp_path / "run.csv", budget=0))
    assert reader.page.locator("canvas").count() == 0
    assert "mse 0 ± 1. At this budget, from the highest: top 0, none 0." in reader.sentence()
    reader.page.locator("[data-trait=budget]").press("End")
    assert "; at budget 0 it is 0 ± 1" in reader.sentence()
    reader.page.get_by_label("strategy").select_option("none")
    assert reader.sentence().endswith("budget 64: not recorded.")


# Panels


def panel():
    """A panel over numbers and words, with a control that only a kernel moves."""

    def draw(size, how, more):
        made, axes = subplots(figsize=(3, 1))
        axes.plot([0, size], linestyle="-" if how == "whole" else ":")
        return made, f"A line to {size:g}, {how}, {more}."

    sliders = {
        "size": Slider("size", [1.0, 2.0, 4.0], start=2.0),
        "how": Slider("line", ["whole", "dotted"], start="whole"),
    }
    live = {"more": Slider("more", [1, 2], start=2)}
    return Panel(draw, sliders, live=live, caption="Move the end of the line.")


def test_a_panel_shows_the_picture_of_each_position_and_reset_the_first(open_figures):
    reader = open_figures(panel())
    image, seen = reader.page.locator("img"), set()
    for size, key in (("1", "Home"), ("4", "End")):
        for how, other in (("whole", "Home"), ("dotted", "End")):
            reader.page.locator("[data-trait=size]").press(key)
            reader.page.locator("[data-trait=how]").press(other)
            assert reader.sentence() == f"A line to {size}, {how}, 2."
            assert image.get_attribute("alt") == reader.sentence()
            seen.add(image.get_attribute("src"))
    assert len(seen) == 4
    reader.page.get_by_role("button", name="Reset").click()
    assert reader.sentence() == "A line to 2, whole, 2."


def test_a_panel_says_what_it_holds_and_how_to_run_it(open_figures):
    reader = open_figures(panel())
    note = reader.page.get_by_text(
        "6 pictures, drawn when this page was built. Held here: more = 2."
    )
    note.click()
    assert reader.page.get_by_text("type make lab").is_visible()
    assert reader.page.locator("[data-trait=more]").count() == 0


def test_a_link_brings_a_panel_back_and_a_broken_one_leaves_it(open_figures):
    reader = open_figures(panel(), fragment=link(panel={"size": 4, "how": "dotted"}))
    assert reader.sentence() == "A line to 4, dotted, 2."
    wild = {"size": 1e9, "how": "constructor", "more": 7}
    reader = open_figures(panel(), fragment=link(panel=wild))
    assert reader.sentence() == "A line to 4, whole, 2."


def test_a_control_with_one_position_is_not_shown(open_figures):
    made = Panel(
        lambda x: (subplots(figsize=(2, 1))[0], f"x is {x}."),
        {"x": Slider("x", [1], start=1)},
        caption="One.",
    )
    reader = open_figures(made)
    assert reader.sentence() == "x is 1."
    assert reader.page.locator("input").count() == 0


# Links


def link(**states) -> str:
    return "#" + "&".join(f"{key}={quote(json.dumps(state))}" for key, state in states.items())


def test_a_copied_link_brings_back_the_state_of_its_figure_and_no_other(open_figures):
    reader = open_figures(Outlier(), Outlier(), Cooling())
    reader.page.locator("[data-trait=beta]").nth(1).press("End")
    reader.page.get_by_role("button", name="Copy link").nth(1).click()
    reader.page.locator("[data-trait=sigma]").press("Home")
    reader.page.get_by_role("button", name="Copy link").nth(2).click()
    url = reader.page.evaluate("location.href")
    fragment = url[url.index("#") :]
    assert fragment == "#outlier-2=%7B%22beta%22%3A32%7D&cooling=%7B%22sigma%22%3A0.1%7D"
    again = open_figures(Outlier(), Outlier(), Cooling(), fragment=fragment)
    assert [again.sentence(k) for k in range(3)] == [reader.sentence(k) for k in range(3)]
    assert again.sentence(0) != again.sentence(1)


def test_a_link_followed_on_the_page_itself_moves_the_figure(open_figures):
    reader = open_figures(Outlier())
    before = reader.sentence()
    reader.page.evaluate("fragment => { location.hash = fragment }", link(outlier={"epsilon": 0.2}))
    assert reader.sentence() != before
    assert reader.state("epsilon") == 38


@pytest.mark.parametrize(
    "fragment",
    [
        "#a-section",
        "#outlier=",
        "#outlier=%7B",
        "#outlier=%E0%A4%A",
        link(outlier=None),
        link(outlier=[1]),
        link(outlier={"beta": "8", "nothing": 1, "__proto__": {}}),
        link(cooling={"sigma": 0.2}),
    ],
)
def test_a_broken_or_foreign_link_changes_nothing(open_figures, fragment):
    reader = open_figures(Outlier(), fragment=fragment)
    assert reader.sentence().startswith("At s = 0, c = 0.35, β = 8 ")


def test_what_a_link_asks_beyond_the_limits_is_made_to_fit(open_figures):
    wild = {"beta": 1e9, "masses": "none", "memories": [[9, -9]] * 20, "query": [5]}
    reader = open_figures(Landscape(), fragment=link(landscape=wild))
    sentence = reader.sentence()
    assert sentence.startswith("At β = 64, 7 memories make 1 basin")
    assert "query at (1.40, 0.00)" in sentence


# Manners


@each_figure
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_fits_a_phone_in_both_themes_with_readable_ink(open_figures, figure, scheme):
    reader = open_figures(figure(), viewport={"width": 390, "height": 800}, color_scheme=scheme)
    root = "document.documentElement"
    assert reader.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") <= 0
    ink = reader.page.locator(".hk").evaluate("element => getComputedStyle(element).color")
    assert ink == {"light": "rgb(34, 34, 34)", "dark": "rgb(226, 226, 226)"}[scheme]


@pytest.mark.parametrize(
    ("element", "attribute", "value", "scheme"),
    [
        ("documentElement", "data-theme", "dark", "dark"),
        ("documentElement", "data-theme", "light", "light"),
        ("body", "data-jp-theme-light", "false", "dark"),
        ("body", "data-jp-theme-light", "true", "light"),
        ("body", "class", "vscode-dark", "dark"),
        ("documentElement", "theme", "dark", "dark"),
    ],
)
def test_the_theme_of_the_page_comes_before_that_of_the_system(
    open_figures, element, attribute, value, scheme
):
    other = {"light": "dark", "dark": "light"}[scheme]
    page = open_figures(Outlier(), color_scheme=other).page
    page.evaluate(
        "([element, name, value]) => document[element].setAttribute(name, value)",
        [element, attribute, value],
    )
    found = page.locator(".hk").evaluate("element => getComputedStyle(element).colorScheme")
    assert found == scheme


@each_figure
def test_a_figure_is_a_named_group_with_a_sentence_that_is_read_out(open_figures, figure):
    reader = open_figures(figure())
    group = reader.page.get_by_role("group")
    assert group.get_attribute("aria-label").startswith(f"{figure.__name__}: ")
    spoken = group.locator("[aria-live=polite]")
    expect(spoken).to_have_text(reader.sentence(), timeout=PATIENCE)
    for drawing in group.locator("svg, canvas").all():
        assert drawing.evaluate("element => !!element.closest('[aria-hidden=true]')")


@each_figure
def test_a_print_shows_the_figure_without_its_controls(open_figures, figure):
    page = open_figures(figure(), color_scheme="dark").page
    page.emulate_media(media="print")
    assert page.locator(".hk svg").first.is_visible()
    assert page.locator(".hk p").is_visible()
    for control in page.locator(".hk input, .hk-tools").all():
        assert not control.is_visible()
    found = page.locator(".hk").evaluate("element => getComputedStyle(element).colorScheme")
    assert found == "light"


# With a kernel


LIVE = """async ([url, values]) => {
  const { default: module } = await import(url);
  const heard = {}, saved = [];
  const model = {
    get: (name) => values[name],
    set: (name, value) => {
      values[name] = value;
      (heard[`change:${name}`] ?? []).forEach((f) => f());
    },
    on: (event, f) => (heard[event] ??= []).push(f),
    off: (event, f) => { heard[event] = heard[event].filter((g) => g !== f); },
    save_changes: () => saved.push(structuredClone(values)),
  };
  const el = document.body.appendChild(document.createElement("div"));
  const close = module.render({ model, el });
  Object.assign(window, { model, saved, heard, close });
}"""


@each_figure
def test_a_live_view_hears_python_tells_it_and_ends_cleanly(chromium, figure):
    made = figure()
    url = "data:text/javascript;base64," + base64.b64encode(figure._esm.encode()).decode()
    page = chromium.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_style_tag(content=figure._css)
    values = made.state() | {"start": made.start, "data": made.data, "caption": made.caption}
    page.evaluate(LIVE, [url, values])
    settled = page.locator(".hk[aria-busy=false]")
    settled.wait_for()
    slider = page.locator("input[type=range]").first
    name, before = slider.get_attribute("data-trait"), page.locator(".hk p").inner_text()
    slider.press("End")
    saved = page.evaluate("saved.at(-1)")
    setattr(made, name, saved[name])  # what the view sends, Python takes
    assert saved[name] != values[name]
    page.evaluate("([name, value]) => model.set(name, value)", [name, values[name]])
    settled.wait_for()
    assert page.locator(".hk p").inner_text() == before
    assert page.locator(".hk figcaption").inner_text() == made.caption
    page.get_by_role("button", name="Copy as Python").click()
    page.evaluate("close()")
    assert page.evaluate("Object.values(heard).flat().length") == 0
    page.close()
    assert errors == []
