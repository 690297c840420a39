"""The rules that a `World` is made with: which combinations are held out, and what its signs say."""
import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
GRID = 64                  # units across a picture: all lengths are in these, whatever its size in pixels

# Which answers of `SplitRule` each split wants. All that is chosen (settings, recipes, which remedy to try)
# is chosen on `validation`; `test` is read once, for a published figure. For the shipped models it came too
# late: they were developed while looking at all of `held-out`. For them scenes of test seeds (1,000 and more)
# are new, but not the combinations in them.
SPLITS = {
    "train": {"train"},
    "validation": {"validation"},
    "test": {"test"},
    "held-out": {"validation", "test"},
    "any": {"train", "validation", "test"},
}


def unit_hash(*key) -> float:
    """A number in [0, 1) that depends on the key alone: the same on every machine and in every year."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class SplitRule:
    """Which combinations nothing trains on: a hash decides, and another `salt` holds out others.

    `held_out`: their share. `test`: the share of these that is test; the rest is validation.
    """
    held_out: float = 0.1
    test: float = 0.5
    salt: str = ""

    def of(self, *key) -> str:
        """`train`, `validation` or `test`."""
        salted = (self.salt, *key) if self.salt else key
        if unit_hash(*salted) >= self.held_out:
            return "train"
        return "test" if unit_hash("test", *salted) < self.test else "validation"


def strictest(splits) -> str:
    """The split of a whole: test if any of its parts is test, else validation if any is that, else train."""
    return max(splits, key=("train", "validation", "test").index, default="train")


@dataclass(frozen=True)
class SignRule:
    """What signs say and where they stand.

    Args:
        lengths: how many letters, if they are random; with `words` those of the words. Default: 3, 4 and 5.
        words: signs say one of these; none: random letters.
        share: how often a scene has a sign; a scene without objects always has one.
        letter: the width of a letter, in units (`GRID`); it is twice as high.
        top: the upper edge of the letters, in units.
        frame: how far the board reaches beyond the letters on each side, in eighths of a letter's width.
    """
    lengths: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    share: float = 0.5
    letter: int = 8
    top: int = 48
    frame: int = 3

    def __post_init__(self):
        if bad := [word for word in self.words if not re.fullmatch("[A-Z]+", word)]:
            raise ValueError(f"signs have letters A-Z only, got {', '.join(map(repr, bad))}")
        lengths = sorted({len(word) for word in self.words}) if self.words else self.lengths or (3, 4, 5)
        object.__setattr__(self, "lengths", tuple(lengths))
        if max(lengths) * self.letter + 2 * self.border > GRID or not 0 <= self.top <= GRID - 2 * self.letter:
            raise ValueError(f"{max(lengths)} letters {self.letter} units wide, {self.top} units from the "
                             f"top, do not fit {GRID} units: make letters narrower (twice as high as wide, "
                             f"with {self.border:g} units at each side)")

    @property
    def border(self) -> float:
        """How far the board reaches beyond the letters on each side, in units."""
        return self.frame * self.letter / 8

    def left(self, n: int) -> float:
        """Where the first of `n` letters begins: near the middle, if it can at the edge of an image token."""
        return min(math.ceil((GRID - self.letter * n) / 16) * 8, GRID - self.letter * n - self.border)

    def sample(self, rng: np.random.Generator) -> str:
        """A random word of a sign."""
        if self.words:
            return self.words[rng.integers(len(self.words))]
        return "".join(LETTERS[i] for i in rng.integers(26, size=rng.choice(self.lengths)))
