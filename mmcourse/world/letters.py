"""Letters in many typefaces, black and white, 16 x 16 pixels: the smallest pictures (chapter 01)."""
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmcourse.world.rules import LETTERS

# Typefaces that ship with matplotlib.
TRAINING_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
                  "DejaVuSansMono", "DejaVuSansMono-Bold",
                  "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
                  "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
TEST_FONTS = ("cmb10", "cmss10")


@lru_cache(maxsize=4096)
def _glyph(letter: str, font: str, height: int):
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont
    face = ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf" / f"{font}.ttf"), 4 * height)
    image = Image.new("L", (64, 64), 0)                  # drawn four times as large, then shrunk
    ImageDraw.Draw(image).text((32, 32), letter, font=face, fill=255, anchor="mm")
    return image


def draw_letter(letter: str, font: str, height: int = 15, dx: int = 0, dy: int = 0) -> np.ndarray:
    """A letter in black and white: (16, 16) uint8, 1 is ink, moved by (dx, dy) pixels."""
    from PIL import Image
    shift = (1, 0, -4 * dx, 0, 1, -4 * dy)
    moved = _glyph(letter, font, height).transform((64, 64), Image.Transform.AFFINE, shift)
    return (np.asarray(moved.resize((16, 16), Image.Resampling.BOX)) > 110).astype(np.uint8)


def letter_pictures(rng: np.random.Generator, n: int, fonts=TRAINING_FONTS) -> tuple[np.ndarray, np.ndarray]:
    """`n` letters in random typefaces, sizes and places: which ones (n,) 0..25, and pictures (n, 16, 16)."""
    which = rng.integers(26, size=n)
    pictures = [draw_letter(LETTERS[i], fonts[rng.integers(len(fonts))],
                            int(rng.integers(13, 17)), *rng.integers(-1, 2, size=2).tolist()) for i in which]
    return which, np.stack(pictures)
