"""Find the browser that the page tests drive, or install it where that is allowed.

python tests/browser.py   find, else install Debian's package; under CI=true, fail without one
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = (
    "The page tests need Chromium or Chrome: install one, or name its executable in $CHROMIUM."
)


def find() -> str | None:
    """Path of an installed browser, from $CHROMIUM or the search path."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def install() -> None:
    """Install Debian's package, which only root may do."""
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Return 0 if there is a browser, or if there need not be one."""
    if find() is None and shutil.which("apt-get") and os.geteuid() == 0:
        print("Installing Chromium for the page tests", flush=True)
        install()
    browser = find()
    print(f"Browser: {browser}" if browser else MISSING, flush=True)
    return 1 if browser is None and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
