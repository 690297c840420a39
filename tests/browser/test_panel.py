"""Chapter 00's conversation as its user meets it: typed, put together, drawn, uploaded and recorded turns, in a real browser."""
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
    """The conversation on the page: its tabs, its line, its turns."""

    def __init__(self, tab):
        self.tab, self.page = tab, tab.page
        index = next(i for i, c in enumerate(tab.cells) if "show.panel.panel(" in source(c))
        for i in needed(tab.cells, index):
            tab.run(i)
        self.box = tab.cell(index)
        self.page.evaluate("index => window.jupyterapp.shell.currentWidget.content.widgets[index].node.scrollIntoView()", index)
        self.box.get_by_role("tab", name="Draw").wait_for(timeout=SOON)
        self.line, self.turns = self.box.get_by_label("what to say"), self.box.locator(".mmcourse-turns .widget-html")

    def open(self, name: str) -> None:
        """Choose a tab."""
        self.box.get_by_role("tab", name=name).click()

    def say(self, text: str = "", want: str = "text", enter: bool = False) -> str:
        """Take a turn and wait for the answer; returns what was wrong with it, "" if nothing."""
        self.box.get_by_label("answer in").select_option(want)
        self.line.fill(text)
        button = self.box.get_by_role("button", name="Send")
        self.line.press("Shift+Enter") if enter else button.click()
        self.page.wait_for_timeout(300)
        for _ in range(600):                                            # until the button can be pressed again
            if button.is_enabled():
                break
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(500)
        return " ".join(self.box.get_by_role("alert").all_inner_texts())

    def last(self) -> tuple[str, list[str]]:
        """The last turn: its text, and what was shown and played in it, `you` before `model`."""
        turn = self.turns.last
        return turn.inner_text(), turn.locator("b, img, audio").evaluate_all(
            "all => all.map(e => e.tagName === 'B' ? e.innerText : e.tagName === 'IMG' && !e.naturalWidth ? 'broken' : e.tagName)")


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


def test_every_kind_of_turn_is_answered(open_chapter):
    tab = open_chapter("00_start_here.ipynb")
    panel = Panel(tab)

    assert "nothing to send yet" in panel.say() and panel.turns.count() == 0
    assert panel.say("a cat", "picture", enter=True) == "" and panel.line.input_value() == ""
    said, shown = panel.last()
    assert "a cat" in said and shown == ["you", "model", "IMG"]
    panel.box.get_by_role("button", name="say giraffe").click()
    panel.page.wait_for_timeout(500)
    assert panel.line.input_value() == "say giraffe"
    assert panel.say("say giraffe", "sound") == "" and panel.last()[1] == ["you", "model", "AUDIO"]
    assert panel.turns.last.locator("audio").evaluate(
        "a => a.readyState ? a.duration : new Promise(done => { a.onloadedmetadata = () => done(a.duration); })") > 0, "it can be played"

    panel.open("Put together")
    assert panel.say("make the ground green") == "" and panel.last()[1] == ["you", "IMG", "model"]
    assert panel.box.get_by_role("tab", name="Nothing").get_attribute("aria-selected") == "true"

    panel.open("Draw")
    assert "nothing drawn yet" in panel.say("describe it") and panel.line.input_value() == "describe it"
    assert panel.turns.count() == 3, "the conversation is as it was"
    panel.box.get_by_label("drawing board").scroll_into_view_if_needed()
    board = panel.box.get_by_label("drawing board").bounding_box()
    panel.page.mouse.move(board["x"] + 80, board["y"] + 80)
    panel.page.mouse.down()
    panel.page.mouse.move(board["x"] + 200, board["y"] + 160, steps=8)
    panel.page.mouse.up()
    panel.page.wait_for_timeout(500)
    assert panel.say("describe it") == "" and panel.last()[1] == ["you", "IMG", "model"]

    panel.open("Record")
    panel.box.get_by_role("button", name="● record").click()
    panel.page.wait_for_timeout(1200)
    panel.box.get_by_text("stop").click()
    panel.box.get_by_text("recorded.").wait_for(timeout=10_000)
    assert panel.say("write down what I say") == "" and panel.last()[1] == ["you", "AUDIO", "model"]
    assert panel.page.evaluate("""() => {
        const turns = document.querySelector('.mmcourse-turns');
        return turns.scrollHeight > turns.clientHeight && Math.abs(turns.scrollTop) < 2;
    }"""), "the newest turn is seen, and the others by scrolling up"
    uploads(panel)
    fits(panel, width=900)

    panel.box.get_by_role("button", name="new conversation").click()
    panel.page.wait_for_timeout(500)
    assert panel.turns.count() == 0
    assert tab.complaints() == []


def uploads(panel: Panel) -> None:
    panel.open("Upload a picture")
    upload(panel, "noise.png", png(300, 200), "image/png")
    assert panel.say() == "" and panel.last()[1] == ["you", "IMG", "model"]
    panel.open("Upload a sound")
    upload(panel, "tone.wav", wav(0.6), "audio/wav")
    assert panel.say() == "" and panel.last()[1] == ["you", "AUDIO", "model"]
    panel.open("Upload a sound")
    upload(panel, "long.wav", wav(200), "audio/wav")                    # 3.2 MB: the page makes it a WAV file of its own
    panel.box.get_by_text("long.wav (3.2 MB, 200.0 s)").wait_for(timeout=20_000)
    assert panel.say() == "" and "200.0 s is more than I listen to at once" in panel.last()[0]


def fits(panel: Panel, width: int) -> None:
    """Nothing of the panel is wider than the panel, no tab's title is cut off, and the line has room for a sentence."""
    panel.page.set_viewport_size({"width": width, "height": 1000})
    panel.page.wait_for_timeout(500)
    assert panel.line.bounding_box()["width"] > 300
    for name in ("Put together", "Draw", "Upload a picture", "Nothing"):
        panel.open(name)
        panel.page.wait_for_timeout(500)
        too_wide = panel.box.locator(".mmcourse-panel").evaluate("""box => [...box.querySelectorAll('*')]
            .filter(e => e.getBoundingClientRect().right > box.getBoundingClientRect().right + 2).map(e => e.outerHTML.slice(0, 80))""")
        cut_off = panel.box.locator(".lm-TabBar-tabLabel").evaluate_all(
            "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)")
        assert too_wide == cut_off == [], name
