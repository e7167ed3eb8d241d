"""What figures live through in JupyterLab: restart, second run, second view, being reopened."""

from __future__ import annotations

import nbformat
from desk import FIGURES, Desk, Figure, figure_notebook, same, until
from hosts import Python
from nbclient import NotebookClient
from playwright.sync_api import expect

UNTRUSTED = "In a notebook that was run elsewhere, run the cell, or trust the notebook."


def heard(desk: Desk, python: Python, kind: str) -> None:
    """Move the first slider to its end, and see that Python hears of it."""
    figure = Figure(desk, desk.live(kind))
    trait = figure.controls()[0]
    figure.control(trait).press("End")
    shown = figure.shown(trait)
    until(lambda: python.value(f"{kind}.{trait}"), lambda value: same(shown, value), desk.page)


def test_figures_outlive_a_restart_a_second_run_and_being_closed(open_in_lab, lab):
    desk = open_in_lab("all")
    desk.run_all()
    for kind in FIGURES:
        Figure(desk, desk.live(kind)).settled()
    expect(desk.awake()).to_have_count(0)

    # After a restart no one hears the views: the figures that need no kernel take their place.
    desk.restart()
    expect(desk.live()).to_have_count(0)
    for kind in FIGURES:
        Figure(desk, desk.awake(kind)).move_first()

    # A run brings them to life, and so does a second one.
    for _ in range(2):
        desk.run_all()
        expect(desk.awake()).to_have_count(0)
        with lab.python(lab.kernels(desk.name)[0]) as python:
            for kind in FIGURES:
                heard(desk, python, kind)

    # Saved, and opened again when its kernel is gone.
    desk.command("docmanager:save")
    desk.page.close()
    for kernel in lab.kernels(desk.name):
        lab.end(kernel)
    again = open_in_lab("all")
    again.forgive("widget model not found")  # what ipywidgets writes into the console
    before = again.cells()
    for kind in FIGURES:
        Figure(again, again.awake(kind)).move_first()
        for key in ("d", "d", "m", "b"):
            again.page.keyboard.press(key)
    assert again.cells() == before
    expect(again.live()).to_have_count(0)
    expect(again.page.get_by_text("Error displaying widget").filter(visible=True)).to_have_count(0)
    again.run_all()
    expect(again.awake()).to_have_count(0)


def test_one_figure_seen_twice_moves_twice_and_a_closed_view_hears_no_more(open_in_lab):
    desk = open_in_lab("outlier")
    desk.run_all()
    first = Figure(desk, desk.live())
    first.settled()
    desk.page.evaluate("window.stays = document.querySelector('.hk[data-hcl-live]'), 0")
    desk.choose(1)
    desk.command("notebook:create-output-view")
    expect(desk.live()).to_have_count(2)
    second = Figure(desk, desk.live().filter(visible=True).last)
    second.settled()
    assert desk.page.evaluate(
        """() => {
          window.goes = [...document.querySelectorAll(".hk[data-hcl-live]")]
            .find((view) => view !== window.stays);
          return !!window.goes;
        }"""
    )
    for trait in first.controls():
        desk.page.evaluate(
            """trait => {
              const slider = window.stays.querySelector(`[data-trait=${trait}]`);
              slider.value = slider.max;
              slider.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            trait,
        )
        desk.wait(
            """trait => [window.stays, window.goes].every((view) => {
              const slider = view.querySelector(`[data-trait=${trait}]`);
              return slider.value === slider.max;
            })""",
            trait,
        )
    desk.close_tab()
    desk.wait("() => !window.goes.isConnected")
    desk.wait("() => window.goes.getAttribute('aria-busy') === 'false'")
    slider = first.root.locator("input[type=range]").first
    slider.press("Home")
    first.settled()
    # A view that still heard the change would have asked for a drawing.
    assert desk.page.evaluate("window.goes.getAttribute('aria-busy')") == "false"


def test_a_notebook_that_was_run_elsewhere_says_how_to_wake_its_figures(open_in_lab, lab):
    made = figure_notebook("outlier")
    NotebookClient(made, timeout=120).execute()
    nbformat.write(made, lab.folder / "foreign.ipynb")
    desk = open_in_lab("foreign")
    expect(desk.page.get_by_text(UNTRUSTED).first).to_be_visible()
    expect(desk.page.get_by_text("Error displaying widget")).to_have_count(0)
    expect(desk.page.locator(".hk")).to_have_count(0)
    desk.run_all()
    Figure(desk, desk.live()).settled()
    expect(desk.page.get_by_text(UNTRUSTED)).to_have_count(0)
