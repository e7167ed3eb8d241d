from pathlib import Path

import browser
import pytest
from hypothesis import settings
from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]

# The same examples in every run: a change that breaks a property breaks it for everyone.
settings.register_profile("book", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("book")

# Files that take minutes start first, so that no worker is left alone with one at the end.
LONG = ("live/test_lab_chapters", "live/test_lab_figures", "live", "test_cli", "runs", "pages")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    def rank(item):
        path = item.path.relative_to(HERE).as_posix()
        return next((k for k, start in enumerate(LONG) if path.startswith(start)), len(LONG))

    items.sort(key=rank)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run what takes minutes and gigabytes")


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium."""
    executable = browser.find()
    if executable is None:
        pytest.skip(browser.MISSING)  # tests/browser.py has failed before, where CI=true
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()
