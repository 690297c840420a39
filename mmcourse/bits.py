"""What a token can carry and what it does carry: nominal and measured bits, two tokenizers without training.

Sources: Shannon 1948 and 1951 (entropy, and prediction as its measure), ITU-T G.711 (mu-law).
"""
import math
import string
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmcourse.world.scene import BACKGROUNDS, NOUNS, Scene, held_out_pair

# Typefaces that ship with matplotlib; the last two are for testing alone.
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
         "DejaVuSansMono", "DejaVuSansMono-Bold",
         "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
         "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta", "cmb10", "cmss10")
TEST_FONTS = FONTS[-2:]


# ---------------------------------------------------------------- nominal bits

def token_bits(tokens: float, vocab_size: int) -> float:
    """The most that `tokens` tokens can say, in bits: log2 of the number of different rows of them."""
    if vocab_size < 1 or tokens < 0:
        raise ValueError(f"at least one word and no negative number of tokens, got {vocab_size} and {tokens}")
    return tokens * math.log2(vocab_size)


def stack_rate(frame_rate: float, levels: int, codebook_size: int) -> float:
    """Bits a second of a residual quantizer: `levels` codes in each of `frame_rate` frames a second."""
    return frame_rate * levels * math.log2(codebook_size)


def picture_budget(size: int, patch: int, vocab_size: int, channels: int = 3) -> dict:
    """Tokens and bits of a square picture cut into patches; raw: 8 bits a channel. Else ValueError."""
    if size % patch:
        raise ValueError(f"patches of {patch} pixels do not fill {size} pixels: choose a divisor")
    tokens, raw = (size // patch) ** 2, size * size * channels * 8
    bits = tokens * math.log2(vocab_size)
    return {"tokens": tokens, "bits": bits, "raw bits": raw, "times smaller": raw / bits}


def sound_budget(seconds: float, frame_ms: float, levels: int, vocab_size: int, rate: int = 8000) -> dict:
    """Tokens and bits of a sound in frames of `levels` codes; raw: 16 bits a sample."""
    frames, raw = math.ceil(seconds * 1000 / frame_ms), seconds * rate * 16
    bits = frames * levels * math.log2(vocab_size)
    return {"tokens": frames * levels, "bits": bits, "raw bits": raw, "times smaller": raw / bits}


# ---------------------------------------------------------------- two exact tokenizers

def patch_words(pictures: np.ndarray) -> np.ndarray:
    """Pictures (..., H, W) of 0 and 1 -> words (..., H/2 * W/2), 0..15: each 2x2 patch is four bits."""
    *batch, height, width = pictures.shape
    grid = pictures.reshape(*batch, height // 2, 2, width // 2, 2).swapaxes(-3, -2)    # (..., H/2, W/2, 2, 2)
    return grid.reshape(*batch, height * width // 4, 4).astype(np.int64) @ np.array([8, 4, 2, 1])


def unpatch(words: np.ndarray, width: int) -> np.ndarray:
    """The exact inverse of `patch_words`: words (..., n) -> pictures (..., H, width) of 0 and 1."""
    *batch, n = words.shape
    bits = (words[..., None] >> np.array([3, 2, 1, 0])) & 1                              # (..., n, 4)
    grid = bits.reshape(*batch, n * 2 // width, width // 2, 2, 2).swapaxes(-3, -2)  # (..., H/2, 2, W/2, 2)
    return grid.reshape(*batch, n * 4 // width, width)


def mu_law(samples: np.ndarray, mu: int = 255) -> np.ndarray:
    """Sound in [-1, 1] -> words 0..mu: fine steps for quiet samples, coarse for loud (ITU-T G.711, 1972)."""
    squeezed = np.sign(samples) * np.log1p(mu * np.abs(samples)) / np.log1p(mu)          # still in [-1, 1]
    return np.floor((squeezed + 1) / 2 * mu + 0.5).astype(np.int64)


def mu_law_inverse(words: np.ndarray, mu: int = 255) -> np.ndarray:
    """Words 0..mu -> the sound in the middle of each step, in [-1, 1]."""
    squeezed = 2 * words / mu - 1
    return np.sign(squeezed) * ((1 + mu) ** np.abs(squeezed) - 1) / mu


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


def letter_pictures(rng: np.random.Generator, n: int, fonts=FONTS[:-2]) -> tuple[np.ndarray, np.ndarray]:
    """`n` letters in random typefaces, sizes and places: which ones (n,) 0..25, and pictures (n, 16, 16)."""
    which = rng.integers(26, size=n)
    pictures = [draw_letter(string.ascii_uppercase[i], fonts[rng.integers(len(fonts))],
                            int(rng.integers(13, 17)), *rng.integers(-1, 2, size=2).tolist()) for i in which]
    return which, np.stack(pictures)


# ---------------------------------------------------------------- measured bits

def entropy_bits(counts) -> float:
    """The mean surprise of a draw, in bits, if things happen as often as was counted (Shannon, 1948)."""
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not counts.sum() > 0 or counts.min() < 0:
        raise ValueError(f"counts are a flat row, none negative, not all zero, got {str(counts)[:60]}")
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def surprise_bits(logits, ids):
    """How surprised a model is by each token, in bits: logits (T, V), the tokens that came (T,) -> (T,)."""
    return -logits.log_softmax(-1).gather(1, ids[:, None])[:, 0] / math.log(2)


def segment_bits(transformer, vocabulary, segment, given=()) -> np.ndarray:
    """Surprise of each token of a segment, in bits, after the segments in `given`: (n + 1,).

    The opening token is free (whoever asks sets it); the last entry is the closing token: an end is news.
    """
    import torch
    before, row = vocabulary.pack(given), vocabulary.pack([*given, segment])
    with torch.no_grad():
        logits = transformer(torch.tensor([row[:-1]]))[0]                                # (T, V)
    return surprise_bits(logits, torch.tensor(row[1:]))[len(before):].numpy()


@lru_cache(maxsize=4)
def _accepted(split: str) -> float:
    """The share of the draws (ground, nouns) that `sample_scene` keeps."""
    n = [sum(not held_out_pair(noun, background) for noun in NOUNS) for background in BACKGROUNDS]
    k = len(NOUNS)
    train = float(np.mean([m / k / 2 + m * (m - 1) / (k * (k - 1)) / 2 for m in n]))
    return {"train": train, "held-out": 1 - train, "any": 1.0}[split]


def scene_bits(scene: Scene, split: str = "train") -> float:
    """What a scene is worth: -log2 of the probability that `sample_scene(rng, split)` draws it, jitter apart.

    Its mean over many draws is the entropy of the world: no predictor of captions or pictures needs less.
    Held-out signs are taken as one in ten exactly; the hash makes it so to a fraction of a percent.
    """
    k, groups = len(NOUNS), scene.groups
    p = 1 / len(BACKGROUNDS) / 2 / (k if len(groups) == 1 else k * (k - 1)) / _accepted(split)
    if len(groups) == 1:
        p *= (0.5, 0.2, 0.15, 0.15)[groups[0].count - 1] / (2 if groups[0].place else 1)
    else:
        p *= math.prod(0.7 if group.count == 1 else 0.3 for group in groups)
    p *= 0.5
    if scene.sign:
        p *= 26.0 ** -len(scene.sign) / 3 / {"train": 0.9, "held-out": 0.1, "any": 1.0}[split]
    return -math.log2(p)
