"""Chapters in JupyterLab, run from the first cell to the last, and every slider moved."""

from __future__ import annotations

import shutil

import pytest
from desk import Figure
from playwright.sync_api import expect
from site_files import ROOT

CHAPTERS = {
    "memories_as_basins": "part1",
    "outliers_forget_more": "part2",
    "spending_a_replay_budget": "part2",
    "stable_diffusion_forgets": "part3",
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs_and_all_it_shows_is_alive(open_in_lab, lab, chapter):
    shutil.copy(ROOT / "book" / CHAPTERS[chapter] / f"{chapter}.ipynb", lab.folder)
    desk = open_in_lab(chapter)
    desk.run_all()
    expect(desk.awake()).to_have_count(0)
    expect(desk.live("panel").first).to_be_attached()
    for root in desk.live().all():
        root.scroll_into_view_if_needed()
        figure = Figure(desk, root)
        for slider in root.locator("input[type=range]").all():
            figure.move(slider)
        for image in root.locator("img").all():
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
            expect(image).to_have_attribute("alt", figure.settled())
    for kernel in lab.kernels(desk.name):
        lab.end(kernel)
