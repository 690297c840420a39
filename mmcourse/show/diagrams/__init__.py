"""Drawings of architectures, made by code: boxes, arrows and stacks of tokens on a see-through ground.

`Canvas` is the pencil; each chapter's drawings are functions of its own module (`show.diagrams.ch03.vqvae()`).
Boxes are light with dark writing, and whatever stands on the page itself is of a middle grey: both can be read on a
white page and on a black one.
"""

from __future__ import annotations

import base64
import importlib
import io
from collections.abc import Sequence

from matplotlib import patches
from matplotlib import pyplot as plt

from mmcourse.show import _in_notebook, _say

INK = "#16202A"  # writing inside boxes
PAGE = "#7A7F85"  # writing and arrows on the page: 4 to 1 on white and 5 to 1 on JupyterLab's black
GRADIENT = "#D1495B"  # the way back: what a gradient takes
FILLS = {
    "text": "#BFDDF2",  # Okabe and Ito's sky blue, orange, green and purple, paled: one colour a kind, in all chapters
    "image": "#F8DBA0",
    "sound": "#B5E3D3",
    "token": "#EBCBDD",
    "learned": "#DDE2E8",  # has weights
    "fixed": "#F5F6F7",  # has none
}


def __getattr__(name: str):
    """`show.diagrams.ch03` is imported when it is first named."""
    if name.startswith("ch") and name[2:].isdigit():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Canvas:
    """A sheet of `width` x `height` units; one unit is one tenth of an inch, the origin is the lower left corner.

    A notebook shows 7 to 9 inches: keep `width` at 90 or less, and sizes of type at 8 points or more.
    """

    def __init__(self, width: float, height: float):
        self.figure, self.axes = plt.subplots(figsize=(width / 10, height / 10), layout="none")
        self.figure.subplots_adjust(0, 0, 1, 1)
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def box(self, x: float, y: float, width: float, height: float, text: str = "", kind: str = "learned", *,
            size: float = 9, bold: bool = False) -> tuple[float, float, float, float]:
        """A box with its lower left corner at (x, y) and `text` in its middle; returns (x, y, width, height)."""
        self.axes.add_patch(patches.FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.7",
                                                   facecolor=FILLS[kind], edgecolor="#5B6670", linewidth=0.9))
        self.axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, fontsize=size,
                       fontweight="bold" if bold else "normal", linespacing=1.25)
        return x, y, width, height

    def tokens(self, x: float, y: float, names: Sequence[object], kind: str = "token", *, width: float = 4.5,
               height: float = 3.4, size: float = 8) -> tuple[float, float, float, float]:
        """A row of cells, one for each token; returns the (x, y, width, height) of them all."""
        for i, name in enumerate(names):
            self.axes.add_patch(patches.Rectangle((x + i * width, y), width, height, facecolor=FILLS[kind],
                                                  edgecolor="#5B6670", linewidth=0.9))
            self.axes.text(x + (i + 0.5) * width, y + height / 2, str(name), ha="center", va="center", color=INK,
                           fontsize=size)
        return x, y, width * len(names), height

    def arrow(self, start: tuple[float, float], end: tuple[float, float], text: str = "", *, bend: float = 0,
              gradient: bool = False, dashed: bool = False, size: float = 8, offset: tuple[float, float] = (0, 1.1)
              ) -> None:
        """An arrow from `start` to `end`, `text` at its middle plus `offset`; `gradient` colours the way back."""
        colour = GRADIENT if gradient else PAGE
        self.axes.annotate("", xy=end, xytext=start, arrowprops={
            "arrowstyle": "-|>,head_length=0.45,head_width=0.22", "color": colour, "linewidth": 1.3,
            "linestyle": "--" if dashed or gradient else "-", "shrinkA": 0, "shrinkB": 0,
            "connectionstyle": f"arc3,rad={bend}"})
        if text:
            self.text((start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1], text, size=size,
                      colour=colour)

    def text(self, x: float, y: float, text: str, *, size: float = 8, colour: str = PAGE, align: str = "center",
             bold: bool = False) -> None:
        """Writing on the page, its middle at (x, y) (`align`: or its left or right end)."""
        self.axes.text(x, y, text, ha=align, va="center", fontsize=size, color=colour, linespacing=1.25,
                       fontweight="bold" if bold else "normal")

    def show(self, description: str, caption: str = "") -> None:
        """Show the sheet; `description` is its alternative text: say there what a reader would see."""
        if _in_notebook():
            from IPython.display import display
            from PIL import Image

            file = io.BytesIO()
            self.figure.savefig(file, format="png", dpi=110, transparent=True)
            # 64 colours: a quarter of the size; the see-through ground stays one of them
            small = Image.open(file).quantize(64, method=Image.Quantize.FASTOCTREE)
            file = io.BytesIO()
            small.save(file, "PNG", optimize=True)
            display({"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": description}, raw=True,
                    metadata={"image/png": {"alt": description}})
        plt.close(self.figure)
        _say(caption or ("" if _in_notebook() else description))


def after(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """The middle of a box's right side: where an arrow leaves."""
    return box[0] + box[2], box[1] + box[3] / 2


def before(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """The middle of a box's left side: where an arrow arrives."""
    return box[0], box[1] + box[3] / 2


def above(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """The middle of a box's upper side."""
    return box[0] + box[2] / 2, box[1] + box[3]


def below(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """The middle of a box's lower side."""
    return box[0] + box[2] / 2, box[1]
