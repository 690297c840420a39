"""Chapter 00's panel as its user meets it: typed, put together, drawn, uploaded and recorded questions, in a real browser."""
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmcourse.cli.notebooks import source

sys.path.insert(0, str(Path(__file__).parent))
from conftest import SOON  # noqa: E402
from slices import needed  # noqa: E402

pytestmark = pytest.mark.slow


class Panel:
    """The panel on the page: its tabs, its button, its answer."""

    def __init__(self, tab):
        self.tab, self.page = tab, tab.page
        index = next(i for i, c in enumerate(tab.cells) if "show.panel.panel(" in source(c))
        for i in needed(tab.cells, index):
            tab.run(i)
        self.box = tab.cell(index)
        self.page.evaluate("index => window.jupyterapp.shell.currentWidget.content.widgets[index].node.scrollIntoView()", index)
        self.box.get_by_role("tab", name="Draw").wait_for(timeout=SOON)

    def open(self, name: str) -> None:
        """Choose a tab."""
        self.box.get_by_role("tab", name=name).click()

    def ask(self, want: str) -> tuple[str, list[str]]:
        """Press Ask and wait: (what is then said, the pictures)."""
        before = self._shown()
        self.box.locator("select").filter(has=self.page.locator("option", has_text="sound")).last.select_option(want)
        button = self.box.get_by_role("button", name="Ask")
        button.click()
        self.page.wait_for_timeout(300)
        for _ in range(600):                                            # until the button can be pressed again
            if button.is_enabled() and self._shown() != before and "…" not in self._shown()[0][:40]:
                break
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(500)
        return self._shown()

    def _shown(self) -> tuple[str, list[str]]:
        out = self.box.locator(".jp-OutputArea .jp-OutputArea").last
        return out.inner_text(), out.locator("img").evaluate_all("all => all.map(i => i.src)")


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(int(8000 * seconds)) / 8), 8000, format="WAV")
    return file.getvalue()


def upload(panel: Panel, name: str, content: bytes, kind: str) -> None:
    with panel.page.expect_file_chooser() as chooser:
        panel.box.locator("button.widget-upload:visible").click()
    chooser.value.set_files({"name": name, "mimeType": kind, "buffer": content})
    panel.page.wait_for_timeout(1500)


def test_every_way_to_ask_is_answered(open_chapter):
    tab = open_chapter("00_start_here.ipynb")
    panel = Panel(tab)

    said, typed = panel.ask("picture")
    assert len(typed) == 1 and "text in, picture out" in said.lower(), said

    panel.open("Put together")
    said, composed = panel.ask("text")
    assert len(composed) == 1 and composed != typed and "picture in, text out" in said.lower(), said

    panel.open("Draw")
    said, pictures = panel.ask("text")
    assert "nothing drawn yet" in said and not pictures
    board = panel.box.get_by_label("drawing board").bounding_box()
    panel.page.mouse.move(board["x"] + 80, board["y"] + 80)
    panel.page.mouse.down()
    panel.page.mouse.move(board["x"] + 200, board["y"] + 160, steps=8)
    panel.page.mouse.up()
    panel.page.wait_for_timeout(500)
    said, drawn = panel.ask("text")
    assert len(drawn) == 1 and "picture in, text out" in said.lower(), said

    panel.open("Record")
    panel.box.get_by_text("record a word").click()
    panel.page.wait_for_timeout(1200)
    panel.box.get_by_text("stop").click()
    panel.box.get_by_text("recorded.").wait_for(timeout=10_000)
    said, heard = panel.ask("picture")
    assert heard and "sound in, picture out" in said.lower(), said

    panel.open("Upload a picture")
    upload(panel, "noise.png", png(300, 200), "image/png")
    said, uploaded = panel.ask("text")
    assert len(uploaded) == 1 and "picture in, text out" in said.lower(), said
    panel.open("Upload a sound")
    upload(panel, "tone.wav", wav(0.6), "audio/wav")
    said, _ = panel.ask("text")
    assert "sound in, text out" in said.lower(), said
    upload(panel, "long.wav", wav(200), "audio/wav")                    # 3.2 MB: the page makes it a WAV file of its own
    panel.box.get_by_text("long.wav (3.2 MB, 200.0 s)").wait_for(timeout=20_000)
    said, _ = panel.ask("text")
    assert "sound in, text out" in said.lower() and "200.0 s is more than one word" in said, said
    assert tab.complaints() == []
