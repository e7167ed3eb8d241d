"""The built book in headless Chromium, opened from files with the network cut."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page
from site_files import pages, settle

CHAPTERS = [page for page in pages() if page.parent.name.startswith("part")]


def name(path) -> str:
    return path.stem


def open_page(chromium: Browser, path, width: int) -> tuple[Page, list[str]]:
    """Open a page; collect its console errors and what it asks of other hosts."""
    page = chromium.new_page(viewport={"width": width, "height": 900})
    troubles: list[str] = []
    page.on("request", lambda r: troubles.append(r.url) if r.url.startswith("http") else None)
    page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.route("http*://**", lambda route: route.abort())
    page.goto(path.as_uri(), wait_until="load")
    settle(page)
    return page, troubles


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", pages(), ids=name)
def test_a_page_opens_without_error_or_request_and_fits_its_width(chromium, path, width):
    page, troubles = open_page(chromium, path, width)
    root = "document.documentElement"
    sideways = page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
    page.close()
    assert troubles == []
    assert sideways <= 0


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_mathematics_is_typeset_without_error(chromium, path):
    page, _ = open_page(chromium, path, 1280)
    page.wait_for_selector("mjx-container", state="attached")
    errors = page.locator("mjx-merror, [data-mjx-error]").count()
    page.evaluate("document.querySelectorAll('article pre').forEach((code) => code.remove())")
    raw = page.evaluate("document.querySelector('article').innerText.match(/\\$[^$]{1,80}\\$/g)")
    page.close()
    assert errors == 0
    assert raw is None


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_the_caption_of_a_table_is_as_wide_as_the_table_on_a_phone(chromium, path):
    page, _ = open_page(chromium, path, 390)
    narrow = page.evaluate(
        """() => [...document.querySelectorAll(".hcl-table caption")].filter((caption) =>
          caption.checkVisibility()
          && caption.offsetWidth < 0.9 * caption.closest("table").offsetWidth).length"""
    )
    page.close()
    assert narrow == 0


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_each_slider_moves_the_picture_and_the_sentence(chromium, path):
    page, troubles = open_page(chromium, path, 390)
    panels = page.locator("figure[data-hcl=panel]")
    assert panels.count() > 0
    for panel in panels.all():
        image, sentence = panel.locator("img"), panel.locator("p").first
        for slider in panel.locator("input[type=range]").all():
            seen = []
            for key in ("Home", "End"):
                slider.press(key)
                settle(page)
                seen.append((image.get_attribute("src"), sentence.inner_text()))
                assert slider.get_attribute("aria-valuetext")
            assert seen[0][0] != seen[1][0]
            assert seen[0][1] != seen[1][1]
            assert image.get_attribute("alt") == seen[1][1]
    page.close()
    assert troubles == []
