"""A world of signs alone (chapter 08): real words on a board, each letter eight pixels wide, in one of three rows.

The words are those of three to eight letters in Python's manual (`mmcourse.world.corpus.prose`), frozen in
`words.txt` with how often they occur there, because manuals differ from one Python to the next;
`python -m mmcourse.experiments.spelling` counts them anew. One word in five is held out.
"""
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import regex

from mmcourse.world.pictures import draw, sign_corner
from mmcourse.world.rules import SPLITS, SignRule, SplitRule
from mmcourse.world.scene import BACKGROUNDS, Scene, World

FILE = Path(__file__).with_name("words.txt")
LENGTHS = range(3, 9)                   # letters of a word
HEIGHT, WIDTH = 32, 64                  # pixels of a picture
ROWS = (-8, 0, 8)                       # how far a board stands from the middle, in pixels
MOVED = 3                               # pixels off the token grid, each way, where boards are moved at all


def counted(text: str) -> Counter[str]:
    """The lower-case words of three to eight letters in a text, with a vowel and two different letters at
    least: how often each occurs."""
    found = Counter(regex.findall(r"(?<![\w'])[a-z]{3,8}(?![\w'])", text))
    return Counter({word: n for word, n in found.items() if set(word) & set("aeiouy") and len(set(word)) > 1})


@cache
def word_counts() -> dict[str, int]:
    """The frozen list: word -> how often Python's manual has it, in alphabetical order."""
    pairs = (line.split() for line in FILE.read_text("utf-8").splitlines() if not line.startswith("#"))
    return {word: int(n) for word, n in pairs}


@cache
def signs() -> World:
    """The world: no objects, eight grounds, the listed words in capitals; 20 % of them held out, a third of
    these for validation."""
    rule = SignRule(words=tuple(word.upper() for word in word_counts()), share=1, letter=8, top=24, frame=0)
    return World({}, BACKGROUNDS, kinds=(0,), signs=rule, split=SplitRule(held_out=0.2, test=2 / 3))


@cache
def words_of(split: str) -> tuple[str, ...]:
    """The words, in lower case, of `train`, `validation`, `test`, `held-out` or `any`."""
    return tuple(word for word in word_counts() if signs().sign_split(word.upper()) in SPLITS[split])


def check_word(word: str) -> None:
    """ValueError for what is no word of three to eight letters a to z."""
    if not isinstance(word, str) or not regex.fullmatch("[a-zA-Z]*", word):
        strange = "".join(sorted(set(regex.sub("[a-zA-Z]", "", str(word)))))
        raise ValueError(f"this world has the letters A to Z and no {strange!r}, got {word!r}")
    if len(word) not in LENGTHS:
        raise ValueError(f"a sign has {LENGTHS[0]} to {LENGTHS[-1]} letters, got {len(word)}"
                         + (f" in {word!r}" if word else ": type a word"))


def sign_scene(word: str, background: str = "white", row: int = 0, moved: tuple[int, int] = (0, 0)) -> Scene:
    """The scene of a word: `row` is one of `ROWS`, and `moved` (dx, dy) leads off the token grid, in pixels. A board
    that would fall off the picture stays on it."""
    check_word(word)
    rule, half = signs().signs, (signs().size - HEIGHT) // 2
    x, y = (int(v) for v in sign_corner(word, signs(), (moved[0], row + moved[1])))
    y = min(max(y, half), half + HEIGHT - 2 * rule.letter)
    return Scene((), background, word.upper(), shift=(x - int(rule.left(len(word))), y - rule.top))


@cache
def _board(word: str) -> tuple[np.ndarray, np.ndarray]:
    """A word's board as the world draws it: (16, 64, 3) uint8, and where it is not but shows the ground (16, 64)."""
    rule = signs().signs
    rows = slice(rule.top, rule.top + 2 * rule.letter)
    on_white, on_blue = (draw(Scene((), ground, word), world=signs())[rows] for ground in ("white", "blue"))
    return on_white, (on_white != on_blue).any(2)


def draw_signs(scenes: list[Scene]):
    """Pictures of sign scenes: a torch tensor (B, 3, 32, 64) in [0, 1], the middle half of what the world draws.

    A board is drawn once and pasted from then on: ten times as fast as `World.draw`, and the same pixels.
    """
    import torch
    pixels = np.empty((len(scenes), HEIGHT, WIDTH, 3), np.uint8)
    for picture, scene in zip(pixels, scenes):
        board, ground = (np.roll(part, scene.shift[0], 1) for part in _board(scene.sign))
        picture[:] = signs().colour(scene.background)
        top = (HEIGHT - len(board)) // 2 + scene.shift[1]
        picture[top:top + len(board)][~ground] = board[~ground]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255     # (B, H, W, 3) -> (B, 3, H, W)


def all_pictures(split: str = "train", seed: int = 0, moved: bool = False) -> list[Scene]:
    """Every picture that the words of a split have, each word on each ground in each row, in random order.

    `moved`: each board stands up to `MOVED` pixels off the token grid, by chance.
    """
    rng = np.random.default_rng((seed, 8, moved))
    scenes = [sign_scene(word, ground, row, tuple(rng.integers(-MOVED, MOVED + 1, 2).tolist()) if moved else (0, 0))
              for word in words_of(split) for ground in BACKGROUNDS for row in ROWS]
    return [scenes[i] for i in rng.permutation(len(scenes))]
