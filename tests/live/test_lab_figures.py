"""Each figure and a panel in JupyterLab with a kernel: pointer, keyboard, Python, and back."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from desk import FIGURES, PATIENCE, SET, Desk, Figure, same, until
from hosts import Python
from playwright.sync_api import expect

# In a notebook's command mode these delete, insert, cut, copy, change, merge and leave cells.
SHORTCUTS = ["d", "d", "a", "b", "x", "c", "v", "m", "y", "r", "1", "Shift+m", "j", "k"]
GRAVE = {"serious", "critical"}


class Bench:
    """A figure in a notebook that ran, and a line to its kernel."""

    def __init__(self, kind: str, desk: Desk, python: Python):
        self.kind, self.desk, self.python = kind, desk, python
        self.figure = Figure(desk, desk.live())

    def value(self, trait: str) -> object:
        """A trait in Python."""
        return self.python.value(f"figure.{trait}")

    def agreed(self, trait: str) -> object:
        """A trait in Python, once it is what its control shows."""
        shown = self.figure.shown(trait)
        return until(lambda: self.value(trait), lambda found: same(shown, found), self.desk.page)

    def reset(self) -> None:
        self.figure.root.get_by_role("button", name="Reset").click()
        for trait, first in self.python.value("figure.start").items():
            until(lambda trait=trait: self.value(trait), lambda v, f=first: v == f, self.desk.page)
        self.figure.settled()


@pytest.fixture(scope="module", params=FIGURES)
def opened(request, chromium, lab):
    """Each figure once for all tests of this file."""
    desk = Desk(chromium, lab, f"lab/tree/{request.param}.ipynb?reset")
    desk.ready()
    desk.run_all()
    with lab.python(lab.kernels(desk.name)[0]) as python:
        yield Bench(request.param, desk, python)
    desk.close()


def only(kind):
    """Run a test on one figure."""
    return pytest.mark.parametrize("opened", [kind], indirect=True)


@pytest.fixture
def bench(opened):
    """A figure at its start."""
    opened.reset()
    return opened


def kinds(bench, kind):
    """Controls of one kind, by trait."""
    found = {trait: bench.figure.control(trait) for trait in bench.figure.controls()}
    tag = {"slider": "INPUT", "choice": "SELECT"}[kind]
    return {t: c for t, c in found.items() if c.evaluate("element => element.tagName") == tag}


def test_a_slider_follows_the_keyboard_and_python_hears_it(bench):
    for trait, slider in kinds(bench, "slider").items():
        heard = []
        for key in ("Home", "ArrowRight", "End"):
            slider.press(key)
            heard.append(bench.agreed(trait))
        assert len(set(heard)) == min(3, int(slider.get_attribute("max")) + 1)
        assert float(slider.input_value()) == float(slider.get_attribute("max"))
        expect(slider).to_be_focused()


def test_a_slider_follows_the_pointer_and_python_hears_it(bench):
    for trait, slider in kinds(bench, "slider").items():
        heard = []
        for share in (0.15, 0.5, 0.85):
            box = slider.bounding_box()
            slider.click(position={"x": share * box["width"], "y": box["height"] / 2})
            heard.append(bench.agreed(trait))
        assert len(set(heard)) >= 2  # some sliders have but three positions
        assert heard[0] != heard[2]


def test_a_choice_follows_the_keyboard_and_python_hears_it(bench):
    for trait, select in kinds(bench, "choice").items():
        select.press("End")
        last = bench.agreed(trait)
        select.press("Home")
        first = bench.agreed(trait)
        select.press("ArrowDown")
        assert len({first, last, bench.agreed(trait)}) >= 2
        assert first != last


def test_a_choice_is_made_and_python_hears_it(bench):
    for trait, select in kinds(bench, "choice").items():
        for value in select.locator("option").evaluate_all("all => all.map(e => e.value)"):
            select.select_option(value)
            assert bench.agreed(trait) == value


def test_the_keys_of_a_focused_control_change_nothing_else_in_the_notebook(bench):
    before = bench.desk.cells()
    chosen = bench.desk.active()
    controls = bench.figure.root.locator("input, select, button").filter(visible=True).all()
    assert len(controls) >= 3
    for control in controls:
        if control.is_disabled():
            continue
        control.focus()
        expect(control).to_be_focused()
        for key in ["ArrowUp", "ArrowDown", "Home", "End", *SHORTCUTS]:
            bench.desk.page.keyboard.press(key)
            expect(control).to_be_focused()
    assert bench.desk.cells() == before
    assert bench.desk.active() == chosen


def test_what_python_sets_is_shown(bench):
    said = bench.figure.settled()
    for trait, value in SET[bench.kind].items():
        assert bench.value(trait) != value
        bench.python.run(f"figure.{trait} = {value!r}")
        until(
            lambda trait=trait: bench.figure.shown(trait),
            lambda s, v=value: same(s, v),
            bench.desk.page,
        )
    assert bench.figure.settled() != said


def test_a_button_answers_the_keyboard(bench):
    trait, value = next(iter(SET[bench.kind].items()))
    start = bench.value(trait)
    for key in ("Enter", " "):
        bench.python.run(f"figure.{trait} = {value!r}")
        until(lambda: bench.figure.shown(trait), lambda shown: same(shown, value), bench.desk.page)
        bench.figure.root.get_by_role("button", name="Reset").press(key)
        assert bench.agreed(trait) == start


def test_a_state_is_copied_as_python(bench):
    if bench.kind == "panel":
        expect(bench.figure.root.get_by_role("button", name="Copy")).to_have_count(0)
        return
    trait, value = next(iter(SET[bench.kind].items()))
    bench.python.run(f"figure.{trait} = {value!r}")
    until(lambda: bench.figure.shown(trait), lambda shown: same(shown, value), bench.desk.page)
    bench.desk.page.evaluate("navigator.clipboard.writeText = (text) => { window.copied = text; }")
    bench.figure.root.get_by_role("button", name="Copy as Python").click()
    text = bench.desk.page.evaluate("window.copied")
    assert bench.python.value(f"({text}).{trait}") == value


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_a_figure_takes_the_theme_and_keeps_no_reader_out(bench, theme):
    page = bench.desk.page
    bench.desk.command("apputils:change-theme", theme=theme)
    scheme = theme.rsplit(" ", 1)[1].lower()
    page.wait_for_function(
        """scheme => getComputedStyle(document.querySelector(".hk[data-hcl-live]")).colorScheme
          === scheme""",
        arg=scheme,
    )
    # The theme's own ink, once its style is there.
    ink = """() => {
      const style = (element) => getComputedStyle(element);
      const probe = document.body.appendChild(document.createElement("i"));
      probe.style.color = "var(--jp-content-font-color1)";
      const wanted = style(probe).color;
      probe.remove();
      return style(document.querySelector(".hk[data-hcl-live]")).color === wanted;
    }"""
    page.wait_for_function(ink)
    bench.figure.settled()
    found = Axe().run(page, context=".hk[data-hcl-live]").response["violations"]
    assert [v["id"] for v in found if v["impact"] in GRAVE] == []
    images = bench.figure.root.locator("img")
    assert images.count() == (1 if bench.kind == "panel" else 0)


@only("panel")
def test_a_picture_of_a_panel_says_what_it_shows_and_changes_with_its_sliders(bench):
    image = bench.figure.root.locator("img")
    seen = set()
    for size in ("1.0", "4.0"):
        for how in ("whole", "dotted"):
            bench.python.run(f"figure.size, figure.how = {size}, {how!r}")
            expect(image).to_have_attribute("alt", f"A line to {size[0]}, {how}.", timeout=PATIENCE)
            until(
                lambda: image.evaluate("i => i.complete && i.naturalWidth"), bool, bench.desk.page
            )
            seen.add(image.screenshot())
            assert bench.figure.settled() == image.get_attribute("alt")
    assert len(seen) == 4


@only("landscape")
def test_a_memory_is_moved_by_pointer_and_keyboard_and_python_hears_it(bench):
    page, handle = bench.desk.page, bench.figure.root.locator(".hk-handle").nth(4)
    before = bench.value("memories")
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y + 40, steps=5)
    page.mouse.up()
    dragged = until(lambda: bench.value("memories"), lambda found: found != before, page)
    handle.press("ArrowLeft")
    moved = until(lambda: bench.value("memories"), lambda found: found != dragged, page)
    assert moved[3][0] < before[3][0]
    assert [m for k, m in enumerate(moved) if k != 3] == [m for k, m in enumerate(before) if k != 3]
    handle.press("Delete")
    until(lambda: len(bench.value("memories")), lambda count: count == len(before) - 1, page)
