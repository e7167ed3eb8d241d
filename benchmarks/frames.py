"""Frame times of the interactive figures while a pointer drags, on the built pages.

    python benchmarks/frames.py --out results/benchmark_frames.csv     (after make book)

Headless Chromium opens each chapter from its file. The pointer drags each slider to and fro, and in
the landscape a memory around, without a pause. Between two calls of requestAnimationFrame lies one
frame; the table holds the median and the 95th percentile over the frames of a drag, and how long
the page's own thread worked for one frame. At 60 frames a second a frame lasts 16.7 ms.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Locator, Page, sync_playwright

from hopfield_cl.records.provenance import record

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
import browser  # noqa: E402  the tests know where Chromium is

PAGES = {
    "landscape": "part1/memories_as_basins",
    "cooling": "part1/from_energy_to_diffusion",
    "outlier": "part2/outliers_forget_more",
    "budget": "part2/spending_a_replay_budget",
    "record": "part2/spending_a_replay_budget",
}
MOVES = 240
START = """() => {
  window.deltas = [];
  let last = 0;
  const tick = (now) => {
    if (last) deltas.push(now - last);
    last = now;
    window.ticking = requestAnimationFrame(tick);
  };
  window.ticking = requestAnimationFrame(tick);
}"""
STOP = "() => { cancelAnimationFrame(ticking); return deltas; }"


def drag(page: Page, figure: str, control: str, place: Locator, reach: float) -> dict[str, object]:
    """Frame times while the pointer drags a control to and fro."""
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    page.mouse.move(x, y)
    page.mouse.down()
    worked = busy()
    page.evaluate(START)
    for k in range(MOVES):
        page.mouse.move(x + reach * math.sin(k / 25), y + 0.2 * reach * math.sin(k / 17))
    frames = np.array(page.evaluate(STOP))
    worked = 1000 * (busy() - worked) / len(frames)
    page.mouse.up()
    return {
        "figure": figure,
        "control": control,
        "frames": len(frames),
        "median_ms": round(float(np.median(frames)), 1),
        "p95_ms": round(float(np.percentile(frames, 95)), 1),
        "main_thread_ms": round(worked, 2),
    }


def measure(page: Page, figure: str) -> list[dict[str, object]]:
    """A row for each control of a figure."""
    page.goto((ROOT / "_build/html/book" / f"{PAGES[figure]}.html").as_uri())
    page.wait_for_timeout(2500)
    root = page.locator(f'figure[data-hcl="{figure}"]')
    rows = []
    if figure == "landscape":
        rows.append(drag(page, figure, "a memory", root.locator(".hk-handle").nth(4), 60))
    for slider in root.locator("input[type=range]").all():
        width = slider.bounding_box()["width"]
        rows.append(drag(page, figure, slider.get_attribute("data-trait"), slider, 0.48 * width))
    return rows


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="table to write, *.csv")
    out = parser.parse_args().out
    began = time.perf_counter()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser.find(),
            args=["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"],
        )
        page = chromium.new_page(viewport={"width": 1280, "height": 1000})
        rows = [row for figure in PAGES for row in measure(page, figure)]
        version = chromium.version
        chromium.close()
    for row in rows:
        print(row)
    if out:
        notes = f"Chromium {version}, headless, without a graphics card"
        record(out, rows, seeds=[], seconds=time.perf_counter() - began, notes=notes)


if __name__ == "__main__":
    main()
