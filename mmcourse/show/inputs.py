"""Inputs that ipywidgets lacks, for the panel: a drawing board, a microphone, files of any size, a line to type in."""
from pathlib import Path

import anywidget
import traitlets

from mmcourse.world.scene import BACKGROUNDS

STATIC = Path(__file__).parent / "static"


def scripts(*names: str) -> str:
    """The files of a widget's page as one script: anywidget takes one."""
    return "\n".join((STATIC / name).read_text("utf-8") for name in names)


def css(rgb: tuple[int, int, int]) -> str:
    """(226, 88, 80) -> `#e25850`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


INKS = {"black": "#111111", "brown": "#8a5a35", **{name: css(rgb) for name, rgb in BACKGROUNDS.items()}}


class FromBrowser(anywidget.AnyWidget):
    """A widget whose page sends one file at a time, as a message: `file` holds the last one, b""
    if there is none, `name` what it is called there."""

    file = b""
    name = ""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.on_msg(self._receive)

    def _receive(self, _, content, buffers) -> None:
        self.file = bytes(buffers[0]) if buffers else b""
        self.name = str((content or {}).get("name", ""))


class Canvas(FromBrowser):
    """A drawing board: `file` is the picture as PNG. `background` is the colour behind it."""

    _esm = STATIC / "canvas.js"
    background = traitlets.Unicode(css(BACKGROUNDS["blue"])).tag(sync=True)
    ink = traitlets.Unicode(INKS["black"]).tag(sync=True)
    inks = traitlets.Dict(INKS).tag(sync=True)


class Microphone(FromBrowser):
    """Records up to `seconds` s: `file` is a WAV file at the browser's own rate."""

    _esm = scripts("wav.js", "microphone.js")
    seconds = traitlets.Float(3.0).tag(sync=True)


class Upload(FromBrowser):
    """A button that chooses a file: `kind` is `picture` or `sound`. What is too large to be sent is made smaller in the browser;
    a preview and the file's name stand beside it."""

    _esm = scripts("wav.js", "upload.js")
    kind = traitlets.Unicode("picture").tag(sync=True)


class Say(anywidget.AnyWidget):
    """A line to type in and a button that takes no second turn until `answer` has returned, with a `status` beside it. `text` is
    what stood in the line when the button (or Enter) was pressed."""

    _esm = STATIC / "say.js"
    busy = traitlets.Bool(False).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    placeholder = traitlets.Unicode("").tag(sync=True)
    text = ""

    def __init__(self, answer, **settings):
        super().__init__(**settings)
        self.answer = answer
        self.on_msg(self._receive)

    def write(self, text: str) -> None:
        """Put a text into the line, in place of what stands there."""
        self.text = text
        self.send({"text": text})

    def _receive(self, _, content, buffers) -> None:
        if not self.busy:
            self.text = str((content or {}).get("text", ""))
            self.click()

    def click(self) -> None:
        """Answer, unless that is being done."""
        if self.busy:
            return
        self.busy, self.status = True, "The model is asked ..."
        try:
            self.answer()
        finally:
            self.busy, self.status = False, ""
