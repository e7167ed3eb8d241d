"""The programs in which readers run notebooks, each started on the loopback over a folder."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client import BlockingKernelClient

START = 120  # seconds after which a program that does not answer is given up
ANSWER = 300  # seconds that a kernel may take for an answer


class Host:
    """A running program and the folder that it serves.

    Parameters
    ----------
    process : Popen
        The program.
    url : str
        Its address, with a slash at the end.
    token : str
        What it asks a visitor for.
    folder, runtime : path
        What it serves, and where it keeps the files of its connections.
    """

    def __init__(
        self, process: subprocess.Popen, url: str, token: str, folder: Path, runtime: Path
    ):
        self.process, self.url, self.token = process, url, token
        self.folder, self.runtime = folder, runtime

    def address(self, path: str) -> str:
        """Address of a page, with the token."""
        return f"{self.url}{path}{'&' if '?' in path else '?'}token={self.token}"

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask the program's own interface."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def kernels(self, notebook: str | None = None) -> list[str]:
        """Names of the running kernels, or of that of one notebook."""
        if notebook is None:
            return [kernel["id"] for kernel in self.ask("api/kernels")]
        return [s["kernel"]["id"] for s in self.ask("api/sessions") if s["path"] == notebook]

    def end(self, kernel: str) -> None:
        """Shut a kernel down."""
        self.ask(f"api/kernels/{kernel}", "DELETE")

    @contextmanager
    def python(self, kernel: str) -> Iterator[Python]:
        """A second line to a running kernel, beside that of the page."""
        client = BlockingKernelClient(connection_file=str(self.runtime / f"kernel-{kernel}.json"))
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=ANSWER)
        yield Python(client)
        client.stop_channels()


class Python:
    """A line to a kernel."""

    def __init__(self, client: BlockingKernelClient):
        self.client = client

    def run(self, code: str) -> None:
        """Run statements; fail as they do."""
        self._ask(code, {})

    def value(self, expression: str) -> Any:
        """Value of an expression, which JSON can write."""
        wanted = {"value": f"__import__('json').dumps({expression})"}
        found = self._ask("", wanted)["user_expressions"]["value"]
        assert found["status"] == "ok", found
        # The text of a string, as Python would type it.
        return json.loads(eval(found["data"]["text/plain"]))

    def _ask(self, code: str, expressions: dict[str, str]) -> dict[str, Any]:
        reply = self.client.execute(
            code, user_expressions=expressions, store_history=False, reply=True, timeout=ANSWER
        )["content"]
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", []))
        return reply


@contextmanager
def started(program: str, folder: Path, home: Path, *options: str) -> Iterator[Host]:
    """Start ``jupyter lab``, ``jupyter notebook`` or ``jupyter server``, and end it.

    Nothing of the user's own settings is read, and nothing of them changed.
    """
    token, runtime = secrets.token_hex(16), home / "runtime"
    places = {name: home / name.lower() for name in ("CONFIG", "DATA", "RUNTIME")}
    settings = places["CONFIG"] / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    # No news: it would be asked of another host.
    quiet = json.dumps({"fetchNews": "false", "checkForUpdates": False})
    (settings / "notification.jupyterlab-settings").write_text(quiet)
    environment = os.environ | {f"JUPYTER_{name}_DIR": str(path) for name, path in places.items()}
    environment |= {"JUPYTER_TOKEN": token, "IPYTHONDIR": str(home / "ipython")}
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyter", program, "--no-browser", "--ip=127.0.0.1"]
    command += ["--port=0", "--allow-root", f"--ServerApp.root_dir={folder}", *options]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        host = Host(process, _url(process, runtime, home / "log"), token, folder, runtime)
        yield host
        for kernel in host.kernels():
            host.end(kernel)
    finally:
        process.terminate()
        process.wait(30)


def _url(process: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Address of a server, as soon as it answers."""
    listing = runtime / f"jpserver-{process.pid}.json"
    end = time.monotonic() + START
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            url = json.loads(listing.read_text())["url"]
            urllib.request.urlopen(url + "login", timeout=5)
            return url
        except (OSError, ValueError):  # not written, half written, or not listening yet
            time.sleep(0.1)
    raise TimeoutError(f"the server did not answer for {START} s:\n{log.read_text()}")
