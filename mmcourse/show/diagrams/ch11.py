"""Chapter 11: one stack for all three kinds of answers, from questions to weights."""
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import patches

from mmcourse.posttraining import METHODS
from mmcourse.show.diagrams import FILLS, GRADIENT, INK, PAGE, Canvas, after
from mmcourse.world.pictures import draw
from mmcourse.world.scene import Group, Scene

LINE = "#5B6670"
BLAME = "#F0C3C8"                                       # what counts less than nothing
SCENE = Scene((Group("star", 2, "left"),), "blue")
KINDS = (       # what is asked, the kind of the answers, how many tokens each has, their marks, who marks
    ("draw", "image", (8,) * 8, (1, 0, 1, 0, 0, 1, 0, 0), "a net\nlooks"),
    ("hear", "text", (2, 2, 2, 2, 2, 2, 2, 2), (1,) * 8, "the right\nword?"),
    ("say", "sound", (5, 6, 5, 7, 4, 6, 5, 6), (0, 0, 0, 0, 1, 0, 0, 0), "a net\nlistens"))
COUNTS = {"best of\neight": "rejection", "DPO": "dpo", "GRPO": "grpo"}
CELL, ROW = 1.65, 1.55                                  # of a token


def counted(method: str, marks: Sequence[float]) -> list[float]:
    """What each of these answers to one question counts in a method of `METHODS`."""
    counts = METHODS[method].count(torch.tensor([marks], dtype=torch.float32), np.random.default_rng(0))
    return counts[0].tolist()


def stack(caption: str = "") -> None:
    """Questions, eight answers to each, their marks, what each answer counts, one loss, the weights."""
    sheet = Canvas(90, 58)
    columns = dict(zip(COUNTS, (59.9, 66, 72.1)))
    for x, title in ((7, "questions"), (20.5, "the model\nanswers 8 times"), (37, "answers:\nrows of tokens"),
                     (50, "a reward\nmarks"), (66, "what each answer counts")):
        sheet.text(x, 55.8, title, size=9.5, bold=True)
    for x, title in zip(columns.values(), columns):
        sheet.text(x, 52.3, title, size=8.5)
    model = sheet.box(16.5, 9, 8, 41, "the\nmodel", size=10, bold=True)
    loss = sheet.box(78.5, 21, 10.5, 17, "one loss:\n\nmore likely\nwhat has +,\nless likely\nwhat has −", size=9)
    for i, (name, kind, lengths, marks, who) in enumerate(KINDS):
        low = 37.2 - 14.6 * i
        centre = low + 4 * ROW
        question = _question(sheet, name, 2, centre - 4.5, 9)
        sheet.arrow(after(question), (model[0], centre))
        sheet.arrow((model[0] + model[2], centre), (28.3, centre))
        for j, (length, mark) in enumerate(zip(lengths, marks, strict=True)):
            _row(sheet, 29, low + (7 - j) * ROW, kind, length, mark)
        sheet.arrow((46, centre), (51, centre))
        sheet.text(48.6, centre + 2.4, who, size=8)
        for x, method in zip(columns.values(), COUNTS.values()):
            _column(sheet, x, low, counted(method, marks))
        sheet.arrow((75.3, centre), (loss[0], 29.5 + 4 * (1 - i)))
    _given(sheet, columns)
    sheet.axes.plot([85.5, 85.5, 20.5], [loss[1], 1.6, 1.6], color=GRADIENT, linewidth=1.3, linestyle="--")
    sheet.arrow((20.5, 1.6), (20.5, 9), gradient=True)
    sheet.text(55, 2.8, "new weights", size=8.5, colour=GRADIENT, bold=True)
    sheet.show(_described(), caption)


def _question(sheet: Canvas, name: str, x: float, y: float, side: float) -> tuple[float, float, float, float]:
    """What is asked: a caption, a noisy sound, a picture."""
    if name == "draw":
        return sheet.box(x, y + 1.5, side + 1, side - 3, "“two stars\non the left\non blue”", "text", size=8)
    if name == "hear":
        box, t = sheet.box(x, y, side + 1, side, "", "sound"), np.linspace(0, 1, 240)
        noise = np.random.default_rng(0).normal(0, 0.5, len(t))
        sheet.axes.plot(x + 0.6 + (side - 0.2) * t, y + side / 2 + 2 * np.sin(2 * np.pi * t) * np.sin(40 * np.pi * t) + noise,
                        color=INK, linewidth=0.8)
        return box
    sheet.axes.imshow(draw(SCENE), extent=(x, x + side, y, y + side), aspect="auto", interpolation="nearest", zorder=2)
    sheet.axes.add_patch(patches.Rectangle((x, y), side, side, facecolor="none", edgecolor=LINE, linewidth=0.9, zorder=3))
    return x, y, side, side


def _row(sheet: Canvas, x: float, y: float, kind: str, length: int, mark: float | None) -> None:
    """An answer: opening token, tokens, closing token; and its mark."""
    for k in range(length + 2):
        fill = FILLS["learned" if k in (0, length + 1) else kind]
        sheet.axes.add_patch(patches.Rectangle((x + k * CELL, y + 0.15), CELL, ROW - 0.3, facecolor=fill, edgecolor=LINE,
                                               linewidth=0.7))
    if mark is not None:
        sheet.text(53, y + ROW / 2, f"{mark} {'✓' if mark else '✗'}", size=8)


def _column(sheet: Canvas, x: float, low: float, counts: Sequence[float]) -> None:
    """What each answer counts, a cell each: dark for more than nothing, red for less, pale for nothing."""
    for j, count in enumerate(counts):
        _count(sheet, x, low + (7 - j) * ROW, count)


def _count(sheet: Canvas, x: float, y: float, count: float) -> None:
    fill, ink = (INK, "white") if count > 0 else (BLAME, INK) if count < 0 else (FILLS["fixed"], INK)
    sheet.axes.add_patch(patches.Rectangle((x - 2.7, y), 5.4, ROW, edgecolor=LINE, linewidth=0.6, facecolor=fill))
    sheet.axes.text(x, y + ROW / 2, f"{count:+.3g}".replace("-", "−") if count else "0", ha="center", va="center", color=ink,
                    fontsize=8)


def _given(sheet: Canvas, columns) -> None:
    """Supervised training beside it: the answer is given, and counts one."""
    y = 4.6
    sheet.text(28.2, y + ROW / 2, "supervised", size=8.5, align="right", bold=True)
    _row(sheet, 29, y, "image", 8, None)
    sheet.text(48.6, y + ROW / 2, "given", size=8)
    sheet.arrow((51.2, y + ROW / 2), (56.6, y + ROW / 2))
    x = columns["best of\neight"]
    _count(sheet, x, y, *counted("sft", (1,)))
    sheet.axes.plot([x + 3.2, 81.5], [y + ROW / 2] * 2, color=PAGE, linewidth=1.3)
    sheet.arrow((81.5, y + ROW / 2), (81.5, 21))


def _described() -> str:
    """What a reader sees, in words."""
    parts = [f"{name}: marks {', '.join(map(str, marks))}" for name, _, _, marks, _ in KINDS]
    return ("From left to right. Questions: a caption to draw, a noisy sound to write down, a picture to say. The model answers "
            "each eight times; pictures, texts and sounds are all rows of tokens between an opening and a closing token. A "
            f"reward marks each answer with 1 or 0 ({'; '.join(parts)}). What an answer counts makes the method: best of eight "
            "counts one right answer 1; DPO counts a better one +1 and a worse one -1; GRPO counts the mark less the mean of the "
            "eight. Where all eight have the same mark, all of these are 0. In supervised training the answer is given and "
            "counts 1. One loss raises the probability of what counts more than 0 and lowers that of what counts less; it gives "
            "the model new weights.")
