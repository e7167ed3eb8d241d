"""The built book, read as files. `make test` builds it first, with Sphinx's warnings as errors."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import tables
from site_files import HTML, ROOT, anchors, notebooks, pages, soup, sources

MAP_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
CHAPTER_LIMIT = 1_500_000
PROCESSOR_SECONDS = 90
SOURCE = ROOT / "_work" / "source"
CHAPTERS = [notebook for notebook in notebooks() if notebook.parent.name.startswith("part")]


def name(path: Path) -> str:
    return path.stem


def test_every_document_of_the_table_of_contents_was_built():
    assert [page for page in pages() if not page.is_file()] == []


def test_every_notebook_of_the_book_is_in_the_table_of_contents():
    assert set((ROOT / "book").rglob("*.ipynb")) == set(notebooks())


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_internal_link_leads_somewhere(page):
    broken = []
    for element in soup(page).find_all(["a", "link", "script", "img"]):
        target = element.get("href") or element.get("src") or ""
        parts = urlsplit(target)
        if parts.scheme or target in ("", "#"):
            continue
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not file.exists():
            broken.append(target)
        elif parts.fragment and file.suffix == ".html":
            anchor = unquote(parts.fragment)
            if anchor not in anchors(file):
                broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_image_says_in_words_what_it_shows(page):
    silent = [i for i in soup(page).article.find_all("img") if not (i.get("alt") or "").strip()]
    assert silent == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_no_page_loads_anything_from_another_host(page):
    asked = [
        element.get("src") or element.get("href")
        for element in soup(page).find_all(["script", "link", "img", "iframe", "source"])
        if urlsplit(element.get("src") or element.get("href") or "").scheme in ("http", "https")
    ]
    assert asked == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_no_page_shows_an_unresolved_role_or_an_error(page):
    text = soup(page).article.get_text(" ")
    assert "Traceback" not in text
    assert re.search(r"\{(glue|cite|prf|ref|doc|numref)[:}]", text) is None


@pytest.mark.parametrize("page", pages(), ids=name)
def test_no_page_weighs_more_than_a_chapter_may(page):
    assert page.stat().st_size < CHAPTER_LIMIT


@pytest.mark.parametrize("notebook", notebooks(), ids=name)
def test_a_notebook_runs_in_the_time_that_a_chapter_has(notebook):
    """Of the processor: what else the machine does counts for nothing."""
    with (SOURCE / "book" / "appendix" / "execution_times.csv").open() as file:
        took = {row["Notebook"]: row for row in csv.DictReader(file)}
    row = took[notebook.relative_to(ROOT / "book").as_posix()]
    assert float(row["Of the processor"]) < PROCESSOR_SECONDS


@pytest.mark.parametrize("notebook", notebooks(), ids=name)
def test_notebooks_hold_no_outputs(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    dirty = [c.id for c in cells if c.cell_type == "code" and (c.outputs or c.execution_count)]
    assert dirty == []


@pytest.mark.parametrize("notebook", notebooks(), ids=name)
def test_code_cells_are_short_and_end_with_the_versions(notebook):
    code = [c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code"]
    long = {c.id: n for c in code if (n := len(c.source.splitlines())) > 15}
    assert long == {}
    assert code[-1].source.strip() == "print(versions())"


@pytest.mark.parametrize("notebook", CHAPTERS, ids=name)
def test_a_chapter_has_a_theorem_a_folded_proof_and_three_exercises_with_solutions(notebook):
    article = soup(HTML / notebook.relative_to(ROOT).with_suffix(".html")).article
    assert article.select("div.theorem, div.proposition")
    assert article.select("div.proof.dropdown, div.proof details")
    assert len(article.select("div.exercise")) >= 3
    assert len(article.select("div.solution.dropdown")) >= 3
    assert article.select('figure[data-hcl="panel"]')


@pytest.mark.parametrize("file", tables.TABLES)
def test_a_table_that_follows_from_other_files_is_as_its_script_writes_it(file):
    name, make = tables.TABLES[file]
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text == tables.written(text, name, make()), "run python book/tables.py"


def test_the_map_names_files_that_exist_and_every_chapter():
    appendix = MAP_ROW.findall((ROOT / "book/appendix/map.md").read_text(encoding="utf-8"))
    assert appendix
    named = re.findall(r"`([\w/]+\.(?:py|ipynb))`", "\n".join(appendix))
    assert [path for path in named if not (ROOT / path).is_file()] == []
    chapters = {path.removesuffix(".ipynb") for path in named if path.endswith(".ipynb")}
    assert chapters == {source for source in sources() if source.startswith("book/part")}
