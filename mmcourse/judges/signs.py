"""Who reads signs (chapter 08): a small net that never saw the world's typeface, and an OCR engine.

The net, `SignReader`, was trained on random letters in fifteen other typefaces (the world's own in its lighter
weight among them), so that it neither knows the world's words nor forgives what only the world's font excuses.
The OCR engine (RapidOCR) knows nothing of the world at all; it is the audit, on pictures cropped to their ink,
because on margins it prefers noise.
"""
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import device_of
from mmcourse.judges.pictures import recognize
from mmcourse.vqvae import ChannelNorm, ResidualBlock, check_images
from mmcourse.world.letters import TEST_FONTS, TRAINING_FONTS
from mmcourse.world.rules import LETTERS
from mmcourse.world.signs import HEIGHT, LENGTHS, MOVED, ROWS, WIDTH, signs

CELL = 8                                # pixels across a letter's cell; twice as high
OTHER_FONTS = tuple(font for font in (*TRAINING_FONTS, *TEST_FONTS) if font != "DejaVuSansMono-Bold")   # the world's
VARIANTS = 8                            # sizes of each letter in each typeface
BLANK = len(LETTERS)                    # the class of a column without a letter


class SignReader(nn.Module):
    """Which letter stands in each of eight columns: (B, 3, 32, 64) in [0, 1] -> logits (B, 8, 27), the last
    class for none."""

    def __init__(self, width: int = 48):
        super().__init__()
        self.config = {"width": width}
        self.grid = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=(2, 1), padding=2), nn.SiLU(),              # (B, 24, 16, 64)
            nn.Conv2d(24, width, (4, 4), stride=2, padding=1),                     # (B, C, 8, 32)
            ResidualBlock(width),
            nn.Conv2d(width, 2 * width, (2, 4), stride=(2, 4)),                    # (B, 2C, 4, 8)
            ResidualBlock(2 * width), ResidualBlock(2 * width),
            ChannelNorm(2 * width), nn.SiLU())
        self.letter = nn.Linear(8 * width, BLANK + 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grid = self.grid(images * 2 - 1)                                           # (B, 2C, 4, 8)
        return self.letter(grid.permute(0, 3, 1, 2).flatten(2))                    # (B, 8, 8C) -> (B, 8, 27)

    @torch.no_grad()
    def read(self, images: torch.Tensor) -> list[str]:
        """The word on each picture, in lower case: the letters of the columns that have one."""
        check_images(images)
        found = torch.cat([self(part).argmax(-1) for part in images.to(device_of(self)).split(256)]) if len(images) else []
        return ["".join(LETTERS[i] for i in row if i != BLANK).lower() for row in
                (found.tolist() if len(images) else [])]


def reader_loss(net: SignReader, images: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the letter in each column (B, 8), `BLANK` for none."""
    return F.cross_entropy(net(images).flatten(0, 1), columns.flatten())


@lru_cache(maxsize=1)
def _cells() -> np.ndarray:
    """Ink coverage of every letter in every other typeface and size: (26, fonts * VARIANTS, 16, 8)."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont
    rng, out = np.random.default_rng(8), np.zeros((26, len(OTHER_FONTS) * VARIANTS, 2 * CELL, CELL), np.float32)
    for f, font in enumerate(OTHER_FONTS):
        face = ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf" / f"{font}.ttf"), 96)
        for i, letter in enumerate(LETTERS):
            image = Image.new("L", (256, 256), 0)
            ImageDraw.Draw(image).text((128, 128), letter, font=face, fill=255, anchor="mm")
            ink = image.crop(image.getbbox())
            for v in range(VARIANTS):
                high = int(rng.integers(9, 13))
                wide = int(np.clip(round(ink.width * high / ink.height * rng.uniform(0.75, 1.1)), 2, CELL))
                y = (2 * CELL - high) // 2 + int(rng.integers(-1, 2))
                x = (CELL - wide) // 2
                small = np.asarray(ink.resize((wide, high), Image.Resampling.BOX), np.float32) / 255
                cell = out[i, f * VARIANTS + v]
                cell[y:y + high, x:x + wide] = small
                cell[:, 1:] = np.maximum(cell[:, 1:], rng.uniform(0, 0.9) * (v % 2) * cell[:, :-1])   # bolder
    return out


def other_signs(rng: np.random.Generator, n: int, moved: int = MOVED) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` signs of random letters in random other typefaces, up to `moved` pixels off the grid, a little blurred
    or noisy at times: pictures (n, 3, 32, 64) and the letter of each column (n, 8)."""
    cells, columns = _cells(), np.full((n, WIDTH // CELL), BLANK)
    pictures = np.empty((n, HEIGHT, WIDTH, 3), np.float32)
    for picture, column in zip(pictures, columns):
        letters = rng.integers(26, size=rng.choice(LENGTHS))
        left, font = int(signs().signs.left(len(letters))), int(rng.integers(len(OTHER_FONTS)))
        column[left // CELL:left // CELL + len(letters)] = letters
        word = np.concatenate([cells[i, font * VARIANTS + rng.integers(VARIANTS)] for i in letters], 1)
        board = np.ones((2 * CELL, word.shape[1], 3), np.float32) * rng.uniform(0.85, 1, 3).astype(np.float32)
        ink = rng.uniform(0, 0.3, 3).astype(np.float32)
        board += (ink - board) * word[..., None]
        board[[1, -2]] = ink                                            # the lines above and below
        picture[:] = rng.uniform(0.35, 1, 3) if rng.random() < 0.8 else rng.uniform(0.9, 1)
        dx, dy = rng.integers(-moved, moved + 1, 2) if moved else (0, 0)
        x = int(np.clip(left + dx, 0, WIDTH - word.shape[1]))
        y = int(np.clip((HEIGHT - 2 * CELL) // 2 + rng.choice(ROWS) + dy, 0, HEIGHT - 2 * CELL))
        picture[y + 1:y + 2 * CELL - 1, x:x + word.shape[1]] = board[1:-1]
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)                        # (n, H, W, 3) -> (n, 3, H, W)
    blur = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = torch.from_numpy(rng.uniform(0, 0.6, (n, 1, 1, 1)) * (rng.random((n, 1, 1, 1)) < 0.5)).float()
    noise = torch.from_numpy(rng.normal(0, 1, images.shape) * rng.uniform(0, 0.06, (n, 1, 1, 1))).float()
    return (images + share * (blur - images) + noise).clamp(0, 1), torch.from_numpy(columns)


def ocr_word(image: torch.Tensor) -> str:
    """The word on a picture (3, 32, 64) as an OCR engine reads it, cropped to the ink: lower case, or ""."""
    pixels = (image.permute(1, 2, 0).clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8)
    dark = pixels.max(2) < 110
    rows = np.flatnonzero(dark.sum(1) >= 0.8 * max(dark.sum(1).max(), 1))           # the board's two lines
    if len(rows) and rows[-1] - rows[0] >= 8:
        pixels, dark = pixels[rows[0] + 1:rows[-1]], dark[rows[0] + 1:rows[-1]]
    columns = np.flatnonzero(dark.any(0))
    if not len(columns):
        return ""
    return recognize(pixels[:, columns[0]:columns[-1] + 1]).lower()


def edit_distance(a: str, b: str) -> int:
    """How many letters to change, add or leave out make `a` into `b` (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
