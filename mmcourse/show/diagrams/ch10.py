"""Chapter 10: the five tasks as a ladder with an example each, and how a net of two layers finds the answer."""
import numpy as np
from matplotlib import patches

from mmcourse.show.diagrams import INK, PAGE, Canvas, after, before
from mmcourse.world.glyphs import Board, draw, glyph
from mmcourse.world.pictures import INK as DARK

ONE, OTHER = 2_000_002, 2_000_010       # two glyphs of the test
LINE = "#5B6670"


# ---------------------------------------------------------------- the five tasks

def ladder(caption: str = "") -> None:
    """Five tasks, each a step above the last: what an example is, and what is asked."""
    sheet, wide, rise = Canvas(90, 48), 17.6, 2.6
    steps = (("forced labels", "what is this called?", _labels), ("a map", "from examples,\nor by heart?", _map),
             ("a new word", "a dax on blue", _words), ("a rule", "before, after", _rule),
             ("a voice", "another word,\nthe same voice", _voice))
    for i, (title, what, example) in enumerate(steps):
        x, low = 1 + i * wide, 1.5 + i * rise
        sheet.axes.plot([x, x, x + wide - 0.4], [low - rise * (i > 0), low, low], color=PAGE, linewidth=1.6)
        example(sheet, x + 1.6, low + 1.6)
        sheet.text(x + 8.3, low + 33.2, f"{i + 1}  {title}", size=10.5, bold=True)
        sheet.text(x + 8.3, low + 29.4, what, size=9)
    sheet.show("Five steps, each above the last. One: forced labels; a glyph is a dax, another one a wug, and what is the first "
               "called? Two: a map, by how many classes training has and how bursty its rows are: does a net answer from the "
               "examples or by heart? Three: a new word; a dax on red and a wug on green are shown, a dax on blue is asked for. "
               "Four: a rule; pictures before and after it, and a new picture before. Five: a voice says one word, and another "
               "word is asked for in this voice.", caption)


def _pair(sheet: Canvas, x: float, y: float, left, right) -> None:
    """A pair of halves: each is ("text", words), ("picture", pixels), ("sound", syllables) or None for what is asked for."""
    for at, half in ((x, left), (x + 7.6, right)):
        if half is None:
            sheet.box(at, y, 6.4, 6.4, "?", "fixed", size=13, bold=True)
        elif half[0] == "text":
            sheet.box(at, y, 6.4, 6.4, half[1], "text", size=9)
        elif half[0] == "picture":
            _picture(sheet, half[1], at, y, 6.4)
        else:
            _sound(sheet, half[1], at, y, 6.4)


def _picture(sheet: Canvas, pixels: np.ndarray, x: float, y: float, side: float) -> None:
    """Pixels (H, W, 3) in a square with a frame."""
    sheet.axes.imshow(pixels, extent=(x, x + side, y, y + side), aspect="auto", interpolation="nearest", zorder=2)
    sheet.axes.add_patch(patches.Rectangle((x, y), side, side, facecolor="none", edgecolor=LINE, linewidth=0.9, zorder=3))


def _sound(sheet: Canvas, syllables: int, x: float, y: float, side: float) -> None:
    """A wave in a box, always of the same pitch."""
    sheet.box(x, y, side, side, "", "sound")
    t = np.linspace(0, 1, 200)
    sheet.axes.plot(x + 0.5 + (side - 1) * t, y + side / 2 + 0.36 * side * np.sin(syllables * np.pi * t) * np.sin(18 * np.pi * t),
                    color=INK, linewidth=1.0)


def close_up(number: int) -> tuple[str, np.ndarray]:
    """A glyph on white, as a half."""
    return "picture", np.where(glyph(number)[..., None], np.array(DARK) / 255, 1.0)


def on(ground: str, number: int, at: tuple[int, int] = (1, 1)) -> tuple[str, np.ndarray]:
    """A glyph on a board, as a half."""
    return "picture", draw([Board(ground, ((number, at),))])[0].permute(1, 2, 0).numpy()


def _three(sheet: Canvas, x: float, y: float, pairs) -> None:
    """Two examples and a query below each other."""
    for i, (left, right) in enumerate(pairs):
        _pair(sheet, x, y + 8.6 * (2 - i) + 0.4, left, right)


def _labels(sheet: Canvas, x: float, y: float) -> None:
    _three(sheet, x, y, ((close_up(ONE), ("text", "dax")), (close_up(OTHER), ("text", "wug")), (close_up(ONE), None)))


def _words(sheet: Canvas, x: float, y: float) -> None:
    _three(sheet, x, y, ((("text", "dax\non red"), on("red", ONE)), (("text", "wug\non green"), on("green", OTHER)),
                         (("text", "dax\non blue"), None)))


def _rule(sheet: Canvas, x: float, y: float) -> None:
    _three(sheet, x, y, ((on("red", ONE), on("purple", ONE)), (on("green", OTHER, (0, 2)), on("purple", OTHER, (0, 2))),
                         (on("yellow", ONE, (2, 0)), None)))


def _voice(sheet: Canvas, x: float, y: float) -> None:
    _three(sheet, x, y, ((("text", "two"), ("sound", 1)), (("text", "seven"), ("sound", 2)), (("text", "cat"), None)))


def _map(sheet: Canvas, x: float, y: float) -> None:
    """An empty map: which kinds of training lead to which answers."""
    cell, n, left, low = 3.3, 4, x + 1.6, y + 6.2
    for i in range(n):
        for j in range(n):
            sheet.axes.add_patch(patches.Rectangle((left + i * cell, low + j * cell), cell, cell, facecolor="#F5F6F7",
                                                   edgecolor=LINE, linewidth=0.9))
            sheet.axes.text(left + (i + 0.5) * cell, low + (j + 0.5) * cell, "?", ha="center", va="center", color=INK, fontsize=9)
    sheet.arrow((left, low - 1.2), (left + n * cell, low - 1.2))
    sheet.text(left + n * cell / 2, low - 2.9, "burstier rows")
    sheet.arrow((left - 1.2, low), (left - 1.2, low + n * cell))
    sheet.axes.text(left - 2.5, low + n * cell / 2, "more classes", rotation=90, ha="center", va="center", color=PAGE, fontsize=8)


# ---------------------------------------------------------------- how two layers do it

def two_steps(caption: str = "") -> None:
    """Layer 1: each right half takes in what its left half shows. Layer 2: the query finds the one that carries its picture."""
    sheet, side, step = Canvas(90, 44), 6.4, 11.4
    xs = [21 + step * i for i in range(5)]
    rows = {"in": 3.5, "one": 18.5, "two": 33}
    shown = (ONE, "dax", OTHER, "wug", ONE)
    for i, (x, what) in enumerate(zip(xs, shown)):
        _step(sheet, x, rows["in"], side, what)
        sheet.text(x + side / 2, rows["in"] - 1.6, f"tag {i // 2 + 1}", size=9)
        if isinstance(what, str):                                       # it takes in the picture beside it
            _step(sheet, x, rows["one"], side, what, carries=shown[i - 1])
            sheet.arrow((xs[i - 1] + side / 2 + 1.6, rows["in"] + side + 0.3), (x + 1.2, rows["one"] - 0.4))
        else:
            _step(sheet, x, rows["one"], side, what)
        _goes_on(sheet, x + side / 2, rows["in"] + side, rows["one"])
    _find(sheet, xs, side, rows)
    for y, name, what in ((rows["in"], "what goes in", "pairs wear\nthe same tag"),
                          (rows["one"], "after layer 1", "each right half\nlooks at the half\nwith its own tag"),
                          (rows["two"], "after layer 2", "the query looks\nfor its own picture,\nand copies the word")):
        sheet.text(1, y + side / 2 + 2.6, name, size=10, bold=True, align="left")
        sheet.text(1, y + side / 2 - 1.4, what, size=9, align="left")
    sheet.show("Five steps: a picture, dax, another picture, wug, and as the query the first picture again. Both halves of a "
               "pair wear the same tag. In layer 1 each word looks at the picture with its own tag and carries it from then on. "
               "In layer 2 the query looks for the word that carries its own picture, finds dax and copies it. So the answer is "
               "dax.", caption)


def _step(sheet: Canvas, x: float, y: float, side: float, what, carries: int | None = None) -> None:
    """A step of the net: a picture or a word; a word may carry a picture."""
    if not isinstance(what, str):
        _picture(sheet, close_up(what)[1], x, y, side)
    elif carries is None:
        sheet.box(x, y, side, side, what, "text", size=10)
    else:
        sheet.box(x, y, side, side, "", "text")
        sheet.axes.text(x + side / 2, y + side - 1.3, what, ha="center", va="center", color=INK, fontsize=9)
        _picture(sheet, close_up(carries)[1], x + side / 2 - 1.7, y + 0.6, 3.4)


def _goes_on(sheet: Canvas, x: float, low: float, high: float) -> None:
    """A step is carried to the next layer as it is."""
    sheet.axes.plot([x, x], [low + 0.3, high - 0.3], color=PAGE, linewidth=0.9, linestyle=":")


def _find(sheet: Canvas, xs, side: float, rows: dict[str, float]) -> None:
    """The query's look in layer 2, and the answer."""
    low, high, query = rows["one"], rows["two"], xs[4]
    answer = sheet.box(query, high, side, side, "dax", "text", size=10, bold=True)
    _goes_on(sheet, query + side / 2, low + side, high)
    sheet.arrow((xs[1] + side / 2, low + side + 0.3), before(answer), bend=-0.28)
    sheet.text(xs[1] + 1, high + 5.2, "carries the same picture: copy its word", size=9, align="left")
    out = sheet.box(xs[4] + side + 4.5, high + 0.9, 6.2, 4.6, "“dax”", "fixed", size=10, bold=True)
    sheet.arrow(after(answer), before(out))
