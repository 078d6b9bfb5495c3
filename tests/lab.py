"""A real JupyterLab in a headless Chromium: what a person sees who opens a notebook and runs all of its cells."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SECONDS = 120

# Nothing asks the network for news, updates or extensions; all cells are in the page, seen or not.
_SERVER_FLAGS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def find_browser() -> str | None:
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


@contextmanager
def server(notebooks: Path, scratch: Path) -> Iterator[str]:
    """Serves the folder, and yields the address of its single-document view, with ``{}`` for the notebook's name."""
    token = secrets.token_hex(16)
    _write_settings(scratch / "settings")
    port = _free_port()
    command = [sys.executable, "-m", "jupyter", "lab", *_SERVER_FLAGS, f"--ServerApp.root_dir={notebooks}"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    with (scratch / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(scratch), cwd=notebooks)
    try:
        _wait_for_port(process, port, scratch / "server.log")
        yield f"http://127.0.0.1:{port}/doc/tree/{{}}?token={token}"
    finally:
        process.terminate()  # ends its kernels too
        process.wait(timeout=60)


def _environment(scratch: Path) -> dict[str, str]:
    """A new user's: no settings, kernels or fake devices of the caller's."""
    left_out = ("XLA_FLAGS", "MPLBACKEND", "JAX_ENABLE_X64")
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return kept | {key: str(scratch / folder) for key, folder in folders.items()} | {"JAX_PLATFORMS": "cpu"}


def _write_settings(folder: Path) -> None:
    for name, values in _SETTINGS.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


@contextmanager
def page(browser: str, artifacts: Path) -> Iterator[Any]:
    """A page of the browser. Where the block fails, the artifacts have a picture of what the page showed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=list(BROWSER_FLAGS))
        try:
            opened = chromium.new_page(viewport={"width": 1180, "height": 900})
            opened.set_default_timeout(SECONDS * 1000)
            yield opened
        except BaseException:
            opened.screenshot(path=artifacts / "jupyterlab-failed.png")
            raise
        finally:
            chromium.close()


class OpenNotebook:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page: Any, address: str, name: str) -> None:
        self.page = page
        page.goto(address.format(f"{name}.ipynb"))
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_selector('#jp-main-statusbar :text("| Idle")')  # the kernel has started and is connected

    def menu(self, menu: str, item: str) -> None:
        self.page.click(f'.lm-MenuBar-itemLabel:text-is("{menu}")')
        self.page.click(f'.lm-Menu-itemLabel:text-is("{item}")')

    def clear(self) -> None:
        self.menu("Edit", "Clear Outputs of All Cells")
        self.page.wait_for_function("() => !document.querySelector('.jp-Cell-outputArea .jp-OutputArea-output')")

    def run_all(self, count: int, since: int = 0) -> None:
        """Runs all `count` code cells, of which the kernel has executed `since` before, and waits for their numbers."""
        self.menu("Run", "Run All Cells")
        numbers = [f"[{since + i + 1}]:" for i in range(count)]
        self.page.wait_for_function(
            """numbers => {
                const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.innerText);
                const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
                return failed || JSON.stringify(prompts) == JSON.stringify(numbers);
            }""",
            arg=numbers,
        )

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def shown(self, selector: str) -> int:
        """How many elements are laid out with a size; of pictures only those that were decoded."""
        return self.page.evaluate(
            """selector => [...document.querySelectorAll(selector)].filter(
                element => element.offsetWidth > 50 && element.offsetHeight > 20
                    && (element.tagName != 'IMG' || element.naturalWidth > 0)
            ).length""",
            selector,
        )

    def screenshot(self, path: Path) -> None:
        """The whole notebook, not only what fits a window."""
        path.parent.mkdir(parents=True, exist_ok=True)
        height = self.page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
        self.page.set_viewport_size({"width": 1180, "height": min(height + 120, 16_000)})
        self.page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0")
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=path)
