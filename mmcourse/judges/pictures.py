"""Reading pictures, independently of the model: what does this picture show, as a `Scene`?

`PictureReader` compares with true drawings (analysis by synthesis). It is exact on true pictures and generous
to smeared ones, so a second opinion stands beside it: `PictureNet` (mmcourse.judges.picture_net) for objects,
`read_sign` (OCR) for letters.
"""
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from mmcourse.world.pictures import SIGN_TOP, paint, sign_corner
from mmcourse.world.scene import GRID, LETTERS, WORLD, Group, Scene, World

UNCOVERED = 3               # units at the left and right edge that no object reaches


def _nearest(x: torch.Tensor, templates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row of x (N, D) the smallest squared distance to a template (K, D), and which: (N,), (N,)."""
    x, templates = x.flatten(1), templates.flatten(1)
    distances = torch.addmm(templates.square().sum(1), x, templates.T, alpha=-2)
    return (distances + x.square().sum(1, keepdim=True)).min(1)


@dataclass(frozen=True)
class Layout:
    """Where things are in a world's pictures, in pixels: `upper` rows hold objects, `sign` rows the sign."""
    size: int
    upper: slice
    sign: slice
    letter: int

    @classmethod
    def of(cls, world: World) -> "Layout":
        """Without signs, objects may be looked for everywhere, and the sign in no row."""
        size, letter = world.size, world.signs.letter * world.size // GRID
        top = round(world.signs.top * size / GRID) if world.has_signs else size
        return cls(size, slice(0, top), slice(top, min(top + 2 * letter, size)), letter)


@dataclass(frozen=True)
class Templates:
    """True drawings on one background, as floats in [0, 1].

    left, right: the upper part of each half: empty, one of each noun, two of each. three: of the whole.
    blank: the sign's rows without a sign. signs: of each length, one sign for each letter of the alphabet.
    """
    left: torch.Tensor              # (1 + K or 1 + 2K, upper rows, size / 2, 3) for K nouns
    right: torch.Tensor
    three: torch.Tensor             # (K, upper rows, size, 3), or none: (0, ...)
    blank: torch.Tensor             # (sign rows, size, 3)
    signs: dict[int, torch.Tensor]  # (26, sign rows, size, 3)


@lru_cache(maxsize=64)
def _templates(world: World, background: str) -> Templates:
    layout = Layout.of(world)
    empty = np.full((layout.size, layout.size, 3), world.colour(background), dtype=np.float32) / 255

    def drawn(groups: tuple[Group, ...] = (), sign: str = "") -> np.ndarray:
        return paint(Scene(groups, background, sign), world=world).astype(np.float32) / 255

    def upper(pictures: list[np.ndarray], columns: slice = slice(None)) -> torch.Tensor:
        shape = (-1, layout.upper.stop, len(range(layout.size)[columns]), 3)
        parts = np.array([picture[layout.upper, columns] for picture in pictures], np.float32)
        return torch.from_numpy(parts.reshape(shape))

    half, most = layout.size // 2, len(world.counts)
    sides = {}
    for place, columns in (("left", slice(0, half)), ("right", slice(half, None))):
        alone = [drawn((Group(noun, count, place),)) for count in (1, 2)[:most] for noun in world.nouns]
        sides[place] = upper([empty, *alone], columns)
    three = upper([drawn((Group(noun, 3),)) for noun in world.nouns] if most > 2 else [])
    signs = {n: torch.from_numpy(np.stack([drawn(sign=c * n)[layout.sign] for c in LETTERS]))
             for n in (world.signs.lengths if world.has_signs else ())}
    return Templates(sides["left"], sides["right"], three, torch.from_numpy(empty[layout.sign]), signs)


class PictureReader:
    """Reads pictures of a world, unjittered: (B, 3, size, size) in [0, 1] -> for each a `Scene`, or None."""

    def __init__(self, world: World = WORLD):
        self.world, self.layout = world, Layout.of(world)

    def read(self, images: torch.Tensor) -> list[Scene | None]:
        """The scene whose true drawing is nearest in squared error, part by part."""
        size = self.layout.size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(f"the reader takes pictures of shape (B, 3, {size}, {size}), "
                             f"got {tuple(images.shape)}")
        images = images.cpu()                                          # where the templates are
        backgrounds = self.read_backgrounds(images)
        pictures = images.permute(0, 2, 3, 1)                          # (B, 3, S, S) -> (B, S, S, 3)
        out: list[Scene | None] = [None] * len(images)
        for background in set(backgrounds):
            rows = [i for i, name in enumerate(backgrounds) if name == background]
            templates, here = _templates(self.world, background), pictures[rows]
            for i, groups, sign in zip(rows, self._groups(here, templates), self._signs(here, templates)):
                alone = bool(sign) and 0 in self.world.kinds
                out[i] = Scene(groups, background, sign) if groups or alone else None
        return out

    def read_backgrounds(self, images: torch.Tensor) -> list[str]:
        """The background whose colour is nearest to the median of the pixels that nothing ever covers."""
        edge = max(1, UNCOVERED * self.layout.size // GRID)
        rows = [y for y in range(self.layout.size) if y not in range(self.layout.size)[self.layout.sign]]
        strips = torch.cat([images[:, :, rows, :edge], images[:, :, rows, -edge:]], 3).flatten(2)  # (B, 3, n)
        colours = torch.tensor(list(self.world.backgrounds.values())) / 255
        nearest = torch.cdist(strips.median(2).values, colours).argmin(1)
        return [list(self.world.backgrounds)[i] for i in nearest.tolist()]

    def _groups(self, pictures: torch.Tensor, templates: Templates) -> list[tuple[Group, ...]]:
        if not max(self.world.kinds):
            return [()] * len(pictures)
        nouns, k, half = self.world.nouns, len(self.world.nouns), self.layout.size // 2
        upper = pictures[:, self.layout.upper]
        left, i_left = _nearest(upper[:, :, :half], templates.left)
        right, i_right = _nearest(upper[:, :, half:], templates.right)
        none = torch.full_like(left, torch.inf), i_left
        three, i_three = _nearest(upper, templates.three) if len(templates.three) else none
        out = []
        for a, b, c, i, j, m in zip(*(v.tolist() for v in (left, right, three, i_left, i_right, i_three))):
            if c < a + b:
                out.append((Group(nouns[m], 3),))
            elif i == j and i > k and len(self.world.counts) > 3:      # the same two on both sides
                out.append((Group(nouns[i - 1 - k], 4),))
            else:
                sides = [(number, place) for number, place in ((i, "left"), (j, "right")) if number]
                out.append(tuple(Group(nouns[(n - 1) % k], 1 + (n > k), place) for n, place in sides))
        return out

    def _signs(self, pictures: torch.Tensor, templates: Templates) -> list[str]:
        words = [""] * len(pictures)
        lower, letter = pictures[:, self.layout.sign], self.layout.letter
        best = (lower - templates.blank).square().flatten(1).sum(1)
        for n, board in templates.signs.items():
            x = round(sign_corner("A" * n, self.world)[0] * self.layout.size / GRID)
            outside = (lower - board[0]).square()
            outside[:, :, x:x + letter * n] = 0                        # here the letters stand
            error, letters = outside.flatten(1).sum(1), []
            for i in range(n):
                columns = slice(x + letter * i, x + letter * (i + 1))
                distance, which = _nearest(lower[:, :, columns], board[:, :, columns])
                error, letters = error + distance, letters + [which.tolist()]
            for row in (error < best).nonzero().flatten().tolist():
                words[row] = "".join(LETTERS[column[row]] for column in letters)
            best = torch.minimum(best, error)
        return words


@lru_cache(maxsize=1)
def _ocr():
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError:
        raise ImportError("the second reader of signs needs rapidocr-onnxruntime: "
                          "pip install -e '.[test]'") from None
    return RapidOCR()


def recognize(crop: np.ndarray) -> str:
    """The letters A-Z that the OCR engine sees in pixels (H, W, 3) uint8 that are cropped to their ink, made four times
    as large; recognition only."""
    from PIL import Image
    big = Image.fromarray(crop).resize((crop.shape[1] * 4, crop.shape[0] * 4), Image.Resampling.BICUBIC)
    result, _ = _ocr()(np.asarray(big)[..., ::-1].copy(), use_det=False, use_cls=False, use_rec=True)
    text = result[0][0] if result else ""
    return "".join(c for c in text.upper() if c in LETTERS)


def read_sign(image: torch.Tensor) -> str:
    """The sign's word, read by an OCR engine that knows nothing of the world: (3, 64, 64) -> A-Z, or "".

    For pictures of the course's world. Recognition only, cropped to the board: on untrimmed pictures the
    engine reads true signs worse than noisy ones.
    """
    lower = (image.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)[SIGN_TOP:]       # (16, 64, 3)
    bright = (lower.min(2) > 150) & (np.ptp(lower.astype(int), axis=2) < 40)
    dark = lower.max(2) < 110
    columns = np.flatnonzero((dark[3:13].any(0)) & (bright[3:13].sum(0) + dark[3:13].sum(0) >= 5))
    if len(columns) < 4:
        return ""
    crop = lower[2:14, max(columns[0], 0):columns[-1] + 1]
    return recognize(crop)
