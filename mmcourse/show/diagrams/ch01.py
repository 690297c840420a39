"""Chapter 01: a patch of four pixels as a number, and a letter as 64 of them."""

import numpy as np
from matplotlib import patches

from mmcourse.bits import patch_tokens
from mmcourse.show.diagrams import GRADIENT, INK, Canvas

INKED, PAPER = "#A9B9C9", "#F5F6F7"     # both light enough for dark numbers on them
WEIGHTS = ((8, 4), (2, 1))
UNIT = 4.1                              # the side of a patch on the letter
EXAMPLE = 11                            # the patch that is worked out by hand


def pixels(sheet: Canvas, x: float, y: float, ink, names, side: float) -> None:
    """A 2 x 2 patch with its upper left corner at (x, y), and a name on each pixel."""
    for row, column in np.ndindex(2, 2):
        corner = x + column * side, y - (row + 1) * side
        colour = INKED if ink[row][column] else PAPER
        sheet.axes.add_patch(patches.Rectangle(corner, side, side, facecolor=colour, edgecolor="#5B6670", linewidth=0.9))
        sheet.axes.text(corner[0] + side / 2, corner[1] + side / 2, str(names[row][column]), ha="center", va="center",
                        color=INK, fontsize=13)


def patch(letter: np.ndarray, caption: str = "") -> None:
    """The weights of a patch, one patch worked out, and a letter (16, 16) with the number of each of its patches on it."""
    numbers = patch_tokens(letter).reshape(8, 8)
    sheet = Canvas(82, 8 * UNIT + 4)
    top, left = 8 * UNIT + 2, 82 - 8 * UNIT - 1
    sheet.text(8, top - 1, "the weights", size=9)
    pixels(sheet, 2, top - 3, ((0, 0), (0, 0)), WEIGHTS, 6)
    sheet.text(30, top - 1, "a patch", size=9)
    worked = [[EXAMPLE // weight % 2 for weight in row] for row in WEIGHTS]
    pixels(sheet, 24, top - 3, worked, WEIGHTS, 6)
    parts = [str(w) if ink else "0" for pair, row in zip(WEIGHTS, worked) for w, ink in zip(pair, row)]
    sheet.text(19, top - 19, f"{' + '.join(parts)} = {EXAMPLE}", size=12, bold=True)
    sheet.text(19, top - 24, "each pixel of ink adds its weight,\npaper adds nothing: 0 to 15", size=9)
    sheet.axes.imshow(letter, extent=(left, left + 8 * UNIT, top - 8 * UNIT, top), vmin=0, vmax=1, aspect="auto",
                      cmap=_two(PAPER, INKED), interpolation="nearest")
    sheet.axes.set(xlim=(0, 82), ylim=(0, 8 * UNIT + 4))
    for row, column in np.ndindex(8, 8):
        here = numbers[row, column] == EXAMPLE
        corner = left + column * UNIT, top - (row + 1) * UNIT
        sheet.axes.add_patch(patches.Rectangle(corner, UNIT, UNIT, fill=False, edgecolor=GRADIENT if here else "#8A949E",
                                               linewidth=2 if here else 0.6, zorder=3 if here else 2))
        sheet.axes.text(corner[0] + UNIT / 2, corner[1] + UNIT / 2, str(numbers[row, column]), ha="center", va="center",
                        color=INK, fontsize=9, zorder=4)
    sheet.show(f"Left: a patch of two by two pixels with the weights 8, 4, 2 and 1. Middle: ink on 8, 2 and 1 gives {EXAMPLE}. "
               "Right: a letter of 16 by 16 pixels, cut into 64 patches, each with its number.", caption)


def _two(paper: str, ink: str):
    from matplotlib.colors import ListedColormap

    return ListedColormap([paper, ink])
