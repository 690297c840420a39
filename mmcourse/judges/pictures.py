"""Reading pictures, independently of the model: what does this picture show, as a `Scene`?

`PictureReader` compares with true drawings (analysis by synthesis). It is exact on true pictures and generous to smeared
ones, so a second opinion stands beside it: `PictureNet` (mmcourse.judges.picture_net) for objects, `read_sign` (OCR) for letters.
"""
from functools import cache, lru_cache

import numpy as np
import torch

from mmcourse.world.pictures import LETTER, SIGN_LEFT, SIGN_TOP, draw
from mmcourse.world.scene import BACKGROUNDS, LETTERS, NOUNS, Group, Scene


def _pixels(scene: Scene) -> np.ndarray:
    return draw(scene).astype(np.float32) / 255


def _nearest(x: torch.Tensor, templates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row of x (N, D) the smallest squared distance to a template (K, D), and which: (N,), (N,)."""
    x, templates = x.flatten(1), templates.flatten(1)
    distances = torch.addmm(templates.square().sum(1), x, templates.T, alpha=-2) + x.square().sum(1, keepdim=True)
    return distances.min(1)


@cache
def _templates(background: str) -> dict[str, torch.Tensor]:
    """True drawings on one ground: each half of the upper part (empty, one, two), its whole (three), the sign's letters."""
    def upper(*groups):
        return _pixels(Scene(groups, background))[:SIGN_TOP]
    blank = np.broadcast_to(np.array(BACKGROUNDS[background], dtype=np.float32) / 255, (SIGN_TOP, 64, 3))
    halves = {}
    for place, columns in (("left", slice(0, 32)), ("right", slice(32, 64))):
        drawings = [blank] + [upper(Group(noun, count, place)) for count in (1, 2) for noun in NOUNS]
        halves[place] = torch.from_numpy(np.stack([d[:, columns] for d in drawings]))      # (1 + 2 x 64, 48, 32, 3)
    three = torch.from_numpy(np.stack([upper(Group(noun, 3)) for noun in NOUNS]))          # (64, 48, 64, 3)
    thing = (Group(NOUNS[0], 1, "left"),)
    signs = {0: torch.from_numpy(_pixels(Scene(thing, background))[SIGN_TOP:])}
    for n in SIGN_LEFT:                                                                    # (26, 16, 64, 3) for each length
        signs[n] = torch.from_numpy(np.stack([_pixels(Scene(thing, background, c * n))[SIGN_TOP:] for c in LETTERS]))
    return {**halves, "three": three, **{f"sign{n}": s for n, s in signs.items()}}


class PictureReader:
    """Reads pictures of the unjittered world: (B, 3, 64, 64) float in [0, 1] -> a list of `Scene` (or None if empty)."""

    def read(self, images: torch.Tensor) -> list[Scene | None]:
        """The scene whose true drawing is nearest in squared error, part by part."""
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, 64, 64):
            raise ValueError(f"the reader takes pictures of shape (B, 3, 64, 64), got {tuple(images.shape)}")
        backgrounds = self.read_grounds(images)
        pictures = images.permute(0, 2, 3, 1)                          # (B, 3, 64, 64) -> (B, 64, 64, 3)
        out: list[Scene | None] = [None] * len(images)
        for background in set(backgrounds):
            rows = [i for i, g in enumerate(backgrounds) if g == background]
            for i, groups, sign in zip(rows, self._groups(pictures[rows], background), self._signs(pictures[rows], background),
                                       strict=True):
                out[i] = Scene(groups, background, sign) if groups else None
        return out

    def read_grounds(self, images: torch.Tensor) -> list[str]:
        """The ground whose colour is nearest to the median of the pixels that objects and signs never cover."""
        strips = torch.cat([images[:, :, :SIGN_TOP, :3], images[:, :, :SIGN_TOP, 61:]], 3).flatten(2)      # (B, 3, 288)
        colours = torch.tensor(list(BACKGROUNDS.values())) / 255
        nearest = torch.cdist(strips.median(2).values, colours).argmin(1)
        return [list(BACKGROUNDS)[i] for i in nearest.tolist()]

    def _groups(self, pictures: torch.Tensor, background: str) -> list[tuple[Group, ...]]:
        t = _templates(background)
        left, i_left = _nearest(pictures[:, :SIGN_TOP, :32], t["left"])
        right, i_right = _nearest(pictures[:, :SIGN_TOP, 32:], t["right"])
        three, i_three = _nearest(pictures[:, :SIGN_TOP], t["three"])
        out = []
        for a, b, c, i, j, k in zip(*(v.tolist() for v in (left, right, three, i_left, i_right, i_three)), strict=True):
            if c < a + b:
                out.append((Group(NOUNS[k], 3),))
            elif i == j and i > len(NOUNS):                            # two on the left and the same two on the right
                out.append((Group(NOUNS[i - 1 - len(NOUNS)], 4),))
            else:
                out.append(tuple(Group(NOUNS[(m - 1) % len(NOUNS)], 1 + (m > len(NOUNS)), place)
                                 for m, place in ((i, "left"), (j, "right")) if m))
        return out

    def _signs(self, pictures: torch.Tensor, background: str) -> list[str]:
        t, lower = _templates(background), pictures[:, SIGN_TOP:]
        best = (lower - t["sign0"]).square().flatten(1).sum(1)
        words = [""] * len(lower)
        for n, x in SIGN_LEFT.items():
            board = t[f"sign{n}"]
            outside = (lower - board[0]).square()
            outside[:, :, x:x + LETTER * n] = 0                        # here the letters stand
            error, letters = outside.flatten(1).sum(1), []
            for i in range(n):
                columns = slice(x + LETTER * i, x + LETTER * (i + 1))
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
        raise ImportError("the second reader of signs needs rapidocr-onnxruntime: pip install -e '.[test]'") from None
    return RapidOCR()


def read_sign(image: torch.Tensor) -> str:
    """The sign's word, read by an OCR engine that knows nothing of this world: (3, 64, 64) -> letters A-Z, or "".

    Recognition only, cropped to the board: on untrimmed pictures the engine reads true signs worse than noisy ones.
    """
    lower = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)[SIGN_TOP:]       # (16, 64, 3)
    bright = (lower.min(2) > 150) & (np.ptp(lower.astype(int), axis=2) < 40)
    dark = lower.max(2) < 110
    columns = np.flatnonzero((dark[3:13].any(0)) & (bright[3:13].sum(0) + dark[3:13].sum(0) >= 5))
    if len(columns) < 4:
        return ""
    crop = lower[2:14, max(columns[0], 0):columns[-1] + 1]
    from PIL import Image
    big = Image.fromarray(crop).resize((crop.shape[1] * 4, crop.shape[0] * 4), Image.Resampling.BICUBIC)
    result, _ = _ocr()(np.asarray(big)[..., ::-1].copy(), use_det=False, use_cls=False, use_rec=True)
    text = result[0][0] if result else ""
    return "".join(c for c in text.upper() if c in LETTERS)
