"""Figures and panels in Notebook 7 and in Voila, which use the same widgets in other pages."""

from __future__ import annotations

import nbformat
import pytest
from desk import FIGURES, PATIENCE, Desk, Figure, all_figures, notebook, same, until
from hosts import Host, Python, started
from playwright.sync_api import Browser, expect

SERVED = {
    "notebook": ("notebook", "notebooks/all.ipynb"),
    "voila": ("server", "voila/render/all.ipynb"),
}


@pytest.fixture(scope="module", params=SERVED)
def place(request, chromium, tmp_path_factory):
    """All figures, run and on the screen, with a line to their kernel."""
    program, path = SERVED[request.param]
    folder = tmp_path_factory.mktemp("notebooks")
    nbformat.write(all_figures(), folder / "all.ipynb")
    options = ["--JupyterNotebookApp.expose_app_in_browser=True"] if program == "notebook" else []
    with started(program, folder, tmp_path_factory.mktemp("home"), *options) as host:
        # What the program itself says, and asks of other hosts, where there is no figure at all.
        nbformat.write(notebook("'no figure'"), folder / "none.ipynb")
        none = ran(chromium, host, path.replace("all.ipynb", "none.ipynb"))
        expect(none.page.get_by_text("'no figure'").last).to_be_visible()
        none.page.close()
        for kernel in host.kernels():
            host.end(kernel)
        desk = ran(chromium, host, path)
        desk.forgive(*none.troubles)
        expect(desk.live()).to_have_count(len(FIGURES), timeout=PATIENCE)
        with host.python(host.kernels()[0]) as python:
            yield desk, python
        desk.close()


def ran(chromium: Browser, host: Host, path: str) -> Desk:
    """Open a notebook and, but in Voila, which does so itself, run it."""
    desk = Desk(chromium, host, path)
    if "voila" not in path:
        desk.ready()
        desk.run_all()
    return desk


@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_follows_keyboard_and_python(place, kind):
    desk, python = place
    figure = Figure(desk, desk.live(kind))
    figure.move_first()
    heard(figure, python, kind)
    trait = figure.controls()[0]
    start = python.value(f"{kind}.start[{trait!r}]")
    python.run(f"{kind}.{trait} = {start!r}")
    until(lambda: figure.shown(trait), lambda shown: same(shown, start), desk.page)
    for select in figure.root.locator("select").all():
        select.press("End")
        heard(figure, python, kind, select.get_attribute("data-trait"))


def heard(figure: Figure, python: Python, kind: str, trait: str | None = None) -> None:
    """See that Python knows what a control shows."""
    name = trait or figure.controls()[0]
    shown = figure.shown(name)
    until(lambda: python.value(f"{kind}.{name}"), lambda value: same(shown, value), figure.page)


def test_only_the_live_half_is_in_sight(place):
    desk, _ = place
    expect(desk.awake()).to_have_count(0)
    for root in desk.live().all():
        expect(root).to_be_visible()


def test_the_picture_of_a_panel_has_its_alternative_text(place):
    desk, _ = place
    figure = Figure(desk, desk.live("panel"))
    image = figure.root.locator("img")
    expect(image).to_have_attribute("alt", figure.settled())
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_the_keys_of_a_slider_change_no_cell(place):
    desk, _ = place
    if "voila" in desk.page.url:
        expect(desk.page.locator(".jp-InputArea-editor")).to_have_count(0)  # no cell to change
        return
    before = desk.cells()
    for kind in FIGURES:
        for tag in ("input", "button"):
            control = desk.live(kind).locator(tag).filter(visible=True).last
            control.focus()
            for key in ("d", "d", "m", "b", "a", "x", "ArrowDown", "ArrowUp"):
                desk.page.keyboard.press(key)
                expect(control).to_be_focused()
    assert desk.cells() == before
