"""Chapter 00's panel as its user meets it: JupyterLab in a real browser, with a mouse and a microphone.

Needs Chromium and `pip install playwright` (not part of the test extra: the browser cannot come with pip); skipped without.
"""
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing

import nbformat
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")        # the fake microphone beeps
SOON = 120_000                                                                           # ms: loading torch takes a while


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a notebook with the panel, on a JupyterLab of its own."""
    folder = tmp_path_factory.mktemp("lab")
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    book.cells = [nbformat.v4.new_code_cell("import mmcourse as mm\nfrom mmcourse import show\n"
                                            "mm.setup()\nshow.panel.panel(mm.load('reference'))")]
    nbformat.write(book, folder / "panel.ipynb")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1", "JUPYTER_CONFIG_DIR": str(folder / "config")}
    server = subprocess.Popen([sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root",
                               "--IdentityProvider.token=t", f"--ServerApp.root_dir={folder}"], env=environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=t", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/panel.ipynb?token=t"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def page(lab):
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_context(viewport={"width": 1200, "height": 1400}, permissions=["microphone"]).new_page()
        page.goto(lab, timeout=SOON)
        page.get_by_text("| Idle").first.wait_for(timeout=SOON)         # the kernel is there
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click(timeout=SOON)
        page.keyboard.press("Shift+Enter")
        page.get_by_role("tab", name="Draw").wait_for(timeout=SOON)
        yield page
        browser.close()


def ask(page, want):
    """Press Ask and give back what is then shown: the captions, as one text."""
    page.locator("select").filter(has=page.locator("option", has_text="sound")).last.select_option(want)
    page.get_by_role("button", name="Ask").click()
    answer = page.locator(".jp-OutputArea .jp-OutputArea img, .jp-OutputArea .jp-OutputArea p")
    answer.first.wait_for(timeout=SOON)
    page.wait_for_timeout(1500)
    return page.locator(".jp-OutputArea .jp-OutputArea").last.inner_text(), page.locator(".jp-OutputArea .jp-OutputArea img").count()


def test_a_drawing_and_a_recording_are_answered(page):
    page.get_by_role("tab", name="Draw").click()
    said, pictures = ask(page, "text")
    assert "nothing drawn yet" in said and pictures == 0
    board = page.get_by_label("drawing board")
    box = board.bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 160, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    said, pictures = ask(page, "text")
    assert pictures == 1 and "picture in, text out" in said.lower(), said

    page.get_by_role("tab", name="Record").click()
    page.get_by_text("record a word").click()
    page.wait_for_timeout(1200)
    page.get_by_text("stop").click()
    page.get_by_text("recorded.").wait_for(timeout=10_000)
    said, pictures = ask(page, "picture")
    assert pictures >= 1 and "sound in, picture out" in said.lower(), said
