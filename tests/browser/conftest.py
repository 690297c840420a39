"""The chapters in JupyterLab, in a real browser: a server of its own, on copies, with nothing of the user's.

Needs Chromium and `pip install playwright` (no part of the test extra: the browser cannot come with pip); the tests are
skipped without, unless `MMCOURSE_BROWSER=required`, as in CI: then they fail.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from mmcourse.cli import notebooks
from mmcourse.cli.lab import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("MMCOURSE_BROWSER") == "required"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")        # the fake microphone beeps
SOON = 120_000                                                                           # ms: loading torch takes a while
SHOTS = Path(os.environ.get("MMCOURSE_SCREENSHOTS") or Path(__file__).parents[2] / "screenshots")
# Nobody's fault: JupyterLab asks for these and does without.
HARMLESS = re.compile(r"favicon|/lsp/status|ResizeObserver loop|\.map\b|Failed to load resource.*40[34].*(workspaces|translations|settings)")


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """(folder, address) of a JupyterLab whose root holds copies of all chapters; its settings are a new user's."""
    folder = tmp_path_factory.mktemp("lab")
    for path in notebooks.all_notebooks():
        shutil.copy(path, folder)
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))          # all cells of a page are there to be looked at
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MMCOURSE_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1",
                   "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data"),
                   "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
                   "IPYTHONDIR": str(folder / "ipython")}
    subprocess.run([sys.executable, "-m", "jupyter", "trust", *map(str, folder.glob("*.ipynb"))], env=environment, check=True,
                   capture_output=True)                                 # as `mmcourse lab` does
    log = (folder / "server.log").open("w")
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root",
                               "--IdentityProvider.token=t", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None",
                               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                               "--LabApp.expose_app_in_browser=True"],
                              env=environment, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=t", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield folder, f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium."""
    if CHROMIUM is None and not REQUIRED:
        pytest.skip("no Chromium on this machine")
    if not REQUIRED:
        pytest.importorskip("playwright", reason="pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Page:
    """A page that notes what a user would not want: errors in its console, requests to other machines."""

    def __init__(self, chromium, **settings):
        self.context = chromium.new_context(viewport={"width": 1280, "height": 1000}, permissions=["microphone"], **settings)
        self.page, self.errors, self.remote = self.context.new_page(), [], []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("request", lambda r: self._note(r.url))

    def _note(self, url: str) -> None:
        if not re.match(r"(?:https?|wss?)://127\.0\.0\.1[:/]|data:|blob:|file:|about:", url):
            self.remote.append(url)

    def complaints(self) -> list[str]:
        """What went wrong unseen, so far."""
        return [f"console: {text[:300]}" for text in self.errors if not HARMLESS.search(text)] + [f"asked {url}" for url in self.remote]


class Lab(Page):
    """One notebook, open in JupyterLab. Cells go by their index, as in the file."""

    def __init__(self, chromium, folder, base, name, **settings):
        super().__init__(chromium, **settings)
        self.cells = json.loads((folder / name).read_text("utf-8"))["cells"]
        self.page.goto(f"{base}/lab/tree/{name}?token=t&reset", timeout=SOON)
        self.page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content?.widgets?.length > 0", timeout=SOON)
        self.page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'",
                                    timeout=SOON)

    def run(self, index: int) -> None:
        """Run a cell as Shift+Enter does and wait for its end; AssertionError if it ends in an error."""
        failed = self.page.evaluate("""async index => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            notebook.activeCellIndex = index;
            await window.jupyterapp.commands.execute('notebook:run-cell');
            return notebook.model.cells.get(index).outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.evalue);
        }""", index)
        assert not failed, f"cell {index}: {failed[0]}"

    def cell(self, index: int):
        """The cell on the page."""
        return self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{index}'], "
                                 f".jp-Notebook .jp-WindowedPanel-viewport > :nth-child({index + 1})").first

    def close(self) -> None:
        """Shut the kernel down, so that the next chapter has the machine to itself."""
        self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.context.close()


@pytest.fixture
def open_chapter(chromium, lab, request):
    """A function (name, **settings of the browser) -> Lab; everything is closed afterwards, with a picture if the test failed."""
    opened = []

    def open_(name, **settings):
        opened.append(Lab(chromium, *lab, name, **settings))
        return opened[-1]

    yield open_
    for tab in opened:
        if getattr(request.node, "failed", False):
            SHOTS.mkdir(parents=True, exist_ok=True)
            tab.page.screenshot(path=SHOTS / f"{re.sub(r'[^A-Za-z0-9]+', '_', request.node.name)}.png")
        tab.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report
