import nbformat
import pytest
from desk import FIGURES, Desk, all_figures, figure_notebook
from hosts import started

LAB = ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over a folder with a notebook for each figure, and one with all of them."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in FIGURES:
        nbformat.write(figure_notebook(name), folder / f"{name}.ipynb")
    nbformat.write(all_figures(), folder / "all.ipynb")
    with started("lab", folder, tmp_path_factory.mktemp("home"), *LAB) as host:
        yield host


@pytest.fixture
def open_in_lab(chromium, lab):
    """Open a notebook in JupyterLab; at the end nothing must have gone wrong."""
    opened: list[Desk] = []

    def start(name: str) -> Desk:
        opened.append(Desk(chromium, lab, f"lab/tree/{name}.ipynb?reset"))
        opened[-1].ready()
        return opened[-1]

    yield start
    for desk in opened:
        desk.close()
