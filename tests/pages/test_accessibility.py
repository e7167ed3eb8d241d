"""The built book under axe-core, in both themes, opened from files with the network cut."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from site_files import pages, settle

GRAVE = {"serious", "critical"}


def grave_violations(chromium: Browser, url: str, scheme: str) -> list[str]:
    """Rule and place of each violation that keeps a reader from what the page says."""
    # The theme fades between its colours; without motion they are there at once.
    context = chromium.new_context(color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.route("http*://**", lambda route: route.abort())
    page.goto(url, wait_until="load")
    settle(page)
    found = Axe().run(page).response["violations"]
    context.close()
    return [
        f"{violation['id']}: {node['target'][-1]}: {node['failureSummary']}"
        for violation in found
        if violation["impact"] in GRAVE
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", pages(), ids=lambda path: path.stem)
def test_a_page_keeps_no_reader_out(chromium, path, scheme):
    assert grave_violations(chromium, path.as_uri(), scheme) == []


def test_a_page_that_does_keep_readers_out_is_found(chromium, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<html><title>A page</title><img src='a.png'><p>Text</p>", encoding="utf-8")
    found = grave_violations(chromium, path.as_uri(), "light")
    assert sorted(line.split(":")[0] for line in found) == ["html-has-lang", "image-alt"]
