"""A notebook as it lies open before a reader, and the figures that its cells show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nbformat
from hosts import Host
from playwright.sync_api import Browser, Locator, Page, expect

# A kernel starts and imports the package on a busy machine.
PATIENCE = 60_000
NOTEBOOK = "window.jupyterapp?.shell?.currentWidget"
IDLE = f"{NOTEBOOK}?.context?.sessionContext?.session?.kernel?.status === 'idle'"
ACTIVE = "window.jupyterapp.shell.currentWidget.content.activeCellIndex"
CELLS = f"""{NOTEBOOK}.content.widgets.map(
  ({{ model }}) => [model.id, model.type, model.sharedModel.source])"""
RAN = f"""{NOTEBOOK}.content.widgets.filter(({{ model }}) => model.type === "code")
  .map(({{ model }}) => [model.executionCount, model.outputs.toJSON().map(
    ({{ output_type, evalue, name, text }}) =>
      output_type === "error" ? evalue : name === "stderr" ? text : "")])"""

# One cell a figure: each is large, and a notebook keeps off the page what is out of sight.
IMPORTS = """from hopfield_cl import plotting
from hopfield_cl.explore import Budget, Cooling, Landscape, Outlier, Panel, Record, Slider

def draw(size, how):
    made, axes = plotting.subplots(figsize=(4, 2))
    axes.plot([0, size], linestyle="-" if how == "whole" else ":")
    return made, f"A line to {size:g}, {how}."

sizes = Slider("size", [1.0, 2.0, 4.0], start=2.0)
ways = Slider("line", ["whole", "dotted"], start="whole")"""
FIGURES = {
    "landscape": "Landscape()",
    "outlier": "Outlier()",
    "budget": "Budget()",
    "cooling": "Cooling()",
    "record": "Record()",
    "panel": 'Panel(draw, {"size": sizes, "how": ways}, caption="Move the end of the line.")',
}
# What Python sets each trait to; then each control must show it.
SET = {
    "landscape": {"beta": 16.0, "masses": "smoothed"},
    "outlier": {"outlier_overlap": 0.5, "correlation": 0.5, "beta": 16.0, "epsilon": 0.1},
    "budget": {"budget": 5, "strategy": "greedy", "mass": "counted", "rotation": 7, "beta": 16.0},
    "cooling": {"sigma": 1.0, "sample": 3},
    "record": {"budget": 250.0, "step": 0.5, "strategy": "random", "measure": "rise_left"},
    "panel": {"size": 4.0, "how": "dotted"},
}


def notebook(*cells: str) -> nbformat.NotebookNode:
    """A notebook of code cells."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    return made


def figure_notebook(name: str) -> nbformat.NotebookNode:
    """A notebook that shows one figure, which Python calls ``figure``."""
    return notebook(IMPORTS, f"figure = {FIGURES[name]}\nfigure", "1 + 1")


def all_figures() -> nbformat.NotebookNode:
    """A notebook that shows each figure, which Python calls by its name."""
    return notebook(IMPORTS, *(f"{name} = {made}\n{name}" for name, made in FIGURES.items()))


class Desk:
    """A page on which a notebook is open, and what went wrong on it.

    Parameters
    ----------
    chromium : Browser
        The browser.
    host : Host
        The program that serves the notebook.
    path : str
        The page: in JupyterLab ``lab/tree/NAME.ipynb``.
    """

    def __init__(self, chromium: Browser, host: Host, path: str):
        self.host, self.name = host, path.rsplit("/", 1)[-1].split("?")[0]
        self.page: Page = chromium.new_page(viewport={"width": 1280, "height": 1600})
        self.page.set_default_timeout(PATIENCE)
        self.troubles: list[str] = []
        self.forgiven: tuple[str, ...] = ()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", self._watch)
        self.page.goto(host.address(path))

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.troubles.append(message.text)

    def _watch(self, request: Any) -> None:
        if request.url.startswith("http") and not request.url.startswith(self.host.url):
            self.troubles.append(request.url)

    def wait(self, condition: str, argument: Any = None) -> None:
        """Wait until a condition holds on the page."""
        self.page.wait_for_function(condition, arg=argument, timeout=PATIENCE)

    def ready(self) -> None:
        """Wait until the notebook's kernel waits for work."""
        self.wait(IDLE)

    def command(self, name: str, **arguments: Any) -> None:
        """Do what an entry of a menu does, and wait until it is done."""
        self.page.evaluate(
            "([name, given]) => window.jupyterapp.commands.execute(name, given).then(() => null)",
            [name, arguments],
        )

    def run_all(self) -> None:
        """Run all cells, and see that each came to its end without an error or a warning."""
        self.command("notebook:run-all-cells")
        self.wait(IDLE)
        ran = self.page.evaluate(RAN)
        assert all(count for count, _ in ran)
        assert [said for _, outputs in ran for said in outputs if said] == []
        expect(self.page.get_by_text("Click to show javascript error")).to_have_count(0)

    def restart(self) -> None:
        """Restart the kernel, as the button does once the reader has agreed."""
        self.page.evaluate(f"{NOTEBOOK}.context.sessionContext.restartKernel()")
        self.wait(IDLE)

    def choose(self, number: int) -> None:
        """Make a cell the active one."""
        self.page.evaluate(f"number => {{ {ACTIVE} = number; }}", number)

    def close_tab(self) -> None:
        """Close the tab in front."""
        self.page.evaluate("window.jupyterapp.shell.currentWidget.close()")

    def forgive(self, *texts: str) -> None:
        """Let the page say what is not this package's doing."""
        self.forgiven += texts

    def active(self) -> int:
        """Number of the active cell."""
        return self.page.evaluate(ACTIVE)

    def cells(self) -> list[list[str]]:
        """Each cell's name, kind and text."""
        return self.page.evaluate(CELLS)

    def live(self, kind: str = "") -> Locator:
        """The views that hear a kernel, of one kind of figure or of all."""
        return self.page.locator(f".hk[data-hcl-live]{_labelled(kind)}")

    def awake(self, kind: str = "") -> Locator:
        """The figures that need no kernel and are in sight, of one kind or of all."""
        return self.page.locator(f"[data-hcl-asleep] .hk{_labelled(kind)}").filter(visible=True)

    def close(self) -> None:
        """Close the page; nothing must have gone wrong."""
        self.page.close()
        ours = [said for said in self.troubles if not any(own in said for own in self.forgiven)]
        assert ours == [], ours


def _labelled(kind: str) -> str:
    return f'[aria-label^="{kind.capitalize()}:"]' if kind else ""


class Figure:
    """A figure in sight, live or not.

    Parameters
    ----------
    desk : Desk
        Where it is.
    root : Locator
        Its outermost element.
    """

    def __init__(self, desk: Desk, root: Locator):
        self.page, self.root = desk.page, root
        expect(root).to_have_count(1, timeout=PATIENCE)

    def settled(self) -> str:
        """Wait until all that was asked for is drawn; what the figure says then."""
        expect(self.root).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
        return self.root.locator("p").first.inner_text()

    def control(self, trait: str) -> Locator:
        """The slider or choice that moves a trait."""
        return self.root.locator(f"[data-trait={trait}]")

    def controls(self) -> list[str]:
        """Traits that have a slider or a choice."""
        found = self.root.locator("[data-trait]").evaluate_all(
            "all => all.map(e => e.dataset.trait)"
        )
        assert found
        return found

    def shown(self, trait: str) -> str:
        """What a control shows."""
        self.settled()
        control = self.control(trait)
        return control.get_attribute("aria-valuetext") or control.input_value()

    def move_first(self) -> None:
        """Move the first slider."""
        self.move(self.root.locator("input[type=range]").first)

    def move(self, slider: Locator) -> None:
        """Move a slider by the keyboard to its other end and back; each time the figure says so."""
        self.settled()
        at_end = slider.input_value() == slider.get_attribute("max")
        for key in ("Home", "End") if at_end else ("End", "Home"):
            before = self.settled()
            slider.press(key)
            until(self.settled, lambda says, before=before: says != before, self.page)
            expect(slider).to_be_focused()


def same(shown: str, value: object) -> bool:
    """Whether a control shows a value: a word, or a number to three digits."""
    if isinstance(value, str):
        return shown == value
    return abs(float(shown.split()[0].replace("−", "-")) - value) <= 5e-3 * abs(value)


def until(look: Callable[[], Any], wanted: Callable[[Any], bool], page: Page) -> Any:
    """Look again and again until what is seen is as it should be; return it."""
    for _ in range(PATIENCE // 50):
        found = look()
        if wanted(found):
            return found
        page.wait_for_timeout(50)
    raise AssertionError(f"it stayed at {found!r}")
