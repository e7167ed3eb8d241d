"""The built book, as the page tests read it."""

from __future__ import annotations

import functools
from pathlib import Path

import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"


def sources() -> list[str]:
    """Documents named in the table of contents, without their endings."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


def notebooks() -> list[Path]:
    """Notebooks named in the table of contents."""
    paths = [ROOT / f"{source}.ipynb" for source in sources()]
    return [path for path in paths if path.exists()]


def pages() -> list[Path]:
    """Built pages of the book's documents."""
    return [HTML / f"{source}.html" for source in sources()]


SETTLED = """async () => {
  await document.fonts.ready;
  await window.MathJax?.startup?.promise;  // the whole page is typeset
  const drawn = () => [...document.querySelectorAll(".hk[aria-busy=true]")]
    .every((figure) => !figure.checkVisibility());
  while (!drawn()) await new Promise(requestAnimationFrame);
  return true;
}"""


def settle(page: Page) -> None:
    """Wait until the page's fonts, its mathematics and its figures are there."""
    page.wait_for_function(SETTLED, timeout=60_000)


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """Names of all places on a page that a link may lead to."""
    return frozenset(element["id"] for element in soup(page).find_all(id=True))


@functools.cache
def soup(page: Path) -> BeautifulSoup:
    """A page, parsed."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
