"""A world to learn in from examples (chapter 10): boards of 4x4 patches, and on them things that nobody has seen before.

A *glyph* is a bent line through four or five points of a 4x4 lattice, in dark ink, known by a whole number. There are
240,802, more than anybody learns by heart; one in ten is for validation, one in ten for the test. (Pictograms that were
turned, sheared and recoloured were tried and left out: through 16 tokens only two of three could be told apart.) Beside
them stand the course's 64 nouns and the letters A to Z.

A board has 32x32 pixels, 4x4 patches of 8x8: 16 tokens. A thing covers 2x2 of them. What makes learning from examples
possible is that *the same thing has the same tokens on every ground and at every place*. So things stand on the grid of
patches, and their edges are hard: a pixel is the thing's or the ground's, and no mixture of both.
"""
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from itertools import combinations, permutations
from math import gcd
from numbers import Integral
from operator import index, or_
from typing import NamedTuple

import numpy as np

from mmcourse.world.letters import draw_letter
from mmcourse.world.pictures import INK, sprite
from mmcourse.world.rules import LETTERS
from mmcourse.world.scene import BACKGROUNDS, NOUNS

PATCH = 8                               # pixels across a token's patch
SIDE = 4 * PATCH                        # pixels across a board
THING = 2 * PATCH                       # pixels across a thing
PLACES = range(3)                       # rows and columns, in patches, at which a thing may begin
AT = tuple((row, column) for row in PLACES for column in PLACES)        # every such place
GROUNDS = tuple(BACKGROUNDS)
MOST = 4                                # things on a board

VALIDATION = 1_000_000                  # the first glyph of validation
TEST = 2_000_000                        # the first glyph of the test
HELD_OUT = VALIDATION                   # from here on glyphs that nothing is trained on
GLYPHS = {"train": range(HELD_OUT), "validation": range(VALIDATION, TEST), "test": range(TEST, 3_000_000)}
SPLIT = {"train": 0.8, "validation": 0.1, "test": 0.1}                  # shares of all shapes

LATTICE = 4                             # points of the lattice in a row
CORNERS = (4, 5)                        # points that a line goes through
MARGIN, STEP = 2, 4                     # pixels from the edge to the first point, and from each point to the next
PEN = 1.0                               # pixels from a line's middle to its edge

LETTER = tuple(f"letter {letter}" for letter in LETTERS)
FONT = "DejaVuSansMono-Bold"            # the letters of the course's signs
SHARES = {"glyph": 0.6, "noun": 0.3, "letter": 0.1}     # what stands on random boards

Point = tuple[int, int]
Line = tuple[Point, Point]


# ---------------------------------------------------------------- glyphs

def pieces(start: Point, end: Point) -> list[Line]:
    """A straight line cut at every point of the lattice on it: (0, 0), (2, 2) -> (0, 0)-(1, 1), (1, 1)-(2, 2)."""
    (x, y), n = start, gcd(end[0] - start[0], end[1] - start[1])
    dx, dy = (end[0] - x) // n, (end[1] - y) // n
    points = [(x + i * dx, y + i * dy) for i in range(n + 1)]
    return [(min(pair), max(pair)) for pair in zip(points, points[1:])]


POINTS = tuple((x, y) for y in range(LATTICE) for x in range(LATTICE))
PIECES = tuple(sorted({piece for ends in permutations(POINTS, 2) for piece in pieces(*ends)}))  # 86


def bits_of(path: Sequence[Point]) -> int:
    """The shape of a line through points: a whole number, of which bit i says whether it has `PIECES[i]`.

    So a line that is drawn backwards, or goes over itself, is one shape with the plain one.
    """
    return reduce(or_, [1 << PIECES.index(piece) for line in zip(path, path[1:]) for piece in pieces(*line)])


@cache
def every_shape() -> dict[int, int]:
    """All shapes (240,802), each with its mirror image."""
    numbers, half = range(len(POINTS)), len(PIECES)     # two numbers in one: the shape, and above it its mirror image
    flipped = [(LATTICE - 1 - x, y) for x, y in POINTS]
    lines = [[bits_of([POINTS[a], POINTS[b]]) | bits_of([flipped[a], flipped[b]]) << half if a != b else 0
              for b in numbers] for a in numbers]
    found = {reduce(or_, [lines[a][b] for a, b in zip(path, path[1:])])
             for n in CORNERS for path in permutations(numbers, n) if path[0] < path[-1]}
    return {shape & (1 << half) - 1: shape >> half for shape in found}


@cache
def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of each split in random order. A shape and its mirror image are in one split.

    So no shape of training is in another split, not even mirrored. (Drawn with 16 pixels, though, two shapes can look
    alike: 1.5 % of the held-out ones have a double in training.)
    """
    rng, twins = np.random.default_rng(10), sorted({tuple(sorted(pair)) for pair in every_shape().items()})
    order = rng.permutation(len(twins))
    cuts = np.cumsum([round(share * len(twins)) for share in SPLIT.values()])[:-1]
    parts = {split: [shape for i in part for shape in sorted({*twins[i]})]
             for split, part in zip(SPLIT, np.split(order, cuts))}
    return {split: tuple(part[i] for i in rng.permutation(len(part))) for split, part in parts.items()}


def glyph_split(number: int) -> str:
    """Whose a glyph is: `train`, `validation` or `test`; ValueError for what is no glyph's number."""
    for split, numbers in GLYPHS.items():
        if isinstance(number, Integral) and not isinstance(number, bool) and number in numbers:
            return split
    raise ValueError(f"a glyph is known by a whole number from 0 to {GLYPHS['test'][-1]:,}, got {number!r}")


def glyph_shape(number: int) -> int:
    """The shape of a glyph. The numbers of a split run through its shapes, and when all were there begin again."""
    split = glyph_split(number)
    return shapes()[split][(number - GLYPHS[split][0]) % len(shapes()[split])]


def glyph(number: int) -> np.ndarray:
    """Where a glyph has ink: (16, 16) bool. A pixel is inked if its middle is within the pen's reach of a piece."""
    shape = glyph_shape(number)
    ends = np.array([piece for i, piece in enumerate(PIECES) if shape >> i & 1])
    ends = MARGIN + STEP * ends                                         # (L, 2, 2): piece, end, x and y in pixels
    start, along = ends[:, :1], np.diff(ends, axis=1)                   # (L, 1, 2)
    pixels = np.stack(np.meshgrid(*2 * [np.arange(THING) + 0.5]), -1).reshape(1, -1, 2)
    share = ((pixels - start) * along).sum(-1) / (along**2).sum(-1)     # (L, 256): how far along the nearest point lies
    nearest = start + share.clip(0, 1)[..., None] * along
    distance = np.sqrt(((pixels - nearest)**2).sum(-1)).min(0)          # (256,)
    return (distance <= PEN).reshape(THING, THING)


# ---------------------------------------------------------------- things

def thing_kind(what: int | str) -> str:
    """`glyph`, `noun` or `letter`; ValueError for what no board can show."""
    if not isinstance(what, str):
        glyph_split(what)
        return "glyph"
    if what in NOUNS or what in LETTER:
        return "noun" if what in NOUNS else "letter"
    near = difflib.get_close_matches(what, [*NOUNS, *LETTER], 2, 0.5)
    raise ValueError(f"there is no thing {what!r}: take a noun (cat), a letter ('letter A') or a glyph's number"
                     + (f"; did you mean {' or '.join(map(repr, near))}?" if near else ""))


def hard(soft: np.ndarray) -> np.ndarray:
    """A sprite (S, S, 4) without half-tones: a pixel that is half the thing's or more is all the thing's."""
    alpha = soft[..., 3:]
    on = (alpha >= 0.5).astype(np.float32)
    return np.concatenate([on * soft[..., :3] / np.maximum(alpha, 0.5), on], -1)


@lru_cache(maxsize=8192)
def thing_sprite(what: int | str, mirrored: bool = False) -> np.ndarray:
    """How a thing looks, (16, 16, 4) float32: its colour in [0, 1], and 1 where it is, 0 where the ground is."""
    kind = thing_kind(what)
    if kind == "noun":
        out = hard(sprite(what, THING))
    else:
        ink = glyph(what) if kind == "glyph" else draw_letter(what[-1], FONT)
        out = ink[..., None] * np.float32([*(c / 255 for c in INK), 1])
    out = out[:, ::-1] if mirrored else out
    out.setflags(write=False)                                           # it lies in a cache: nobody may paint on it
    return out


def inked(what: int | str, mirrored: bool = False) -> np.ndarray:
    """Which of a thing's four patches it stands in, (2, 2) bool. The others are ground, and have its token."""
    alpha = thing_sprite(what, mirrored)[..., 3]
    return alpha.reshape(2, PATCH, 2, PATCH).any((1, 3))                # (16, 16) -> (2, 2)


# ---------------------------------------------------------------- boards

class Thing(NamedTuple):
    """A thing on a board.

    `what`: a glyph's number, one of the 64 nouns, or `letter A` ... `letter Z`. `at`: the row and column of its upper
    left patch, 0 ... 2 each. `mirrored`: with left and right exchanged.
    """
    what: int | str
    at: tuple[int, int]
    mirrored: bool = False


@dataclass(frozen=True)
class Board:
    """A picture as a value: a ground by name, and up to four things that do not overlap.

    (Four leave no patch to the ground. It is in the picture, but its tokens no longer tell it: take three at most where
    the ground matters.)

    Things may be given as plain tuples, `Board("blue", [(7, (0, 1)), ("cat", (2, 0), True)])`, in any order: they are
    kept from top to bottom and from left to right, so that boards with the same things at the same places are equal.
    `dataclasses.replace` makes the next board of a rule: another ground, a thing moved, doubled or mirrored.
    """
    ground: str
    things: tuple[Thing, ...] = ()

    def __post_init__(self):
        if self.ground not in GROUNDS:                                  # in a tuple: whatever it is, hashable or not
            raise ValueError(f"there is no ground {self.ground!r}: take one of {', '.join(GROUNDS)}")
        things = sorted(map(as_thing, self.things), key=lambda thing: thing.at)
        if len(things) > MOST:
            raise ValueError(f"a board has room for {MOST} things, got {len(things)}: leave some out")
        for one, other in combinations(things, 2):
            if overlap(one.at, other.at):
                raise ValueError(f"{one.what!r} at {one.at} and {other.what!r} at {other.at} overlap: a thing covers "
                                 "2x2 patches, so let them begin two rows or two columns apart")
        object.__setattr__(self, "things", tuple(things))


def as_thing(thing) -> Thing:
    """A tuple as a `Thing`; ValueError that says what of it no board can show."""
    if not isinstance(thing, (tuple, list)) or len(thing) not in (2, 3):
        raise ValueError(f"a thing is (what, (row, column)), and True behind it if it is mirrored; got {thing!r}")
    what, at, mirrored = Thing(*thing)
    if not isinstance(mirrored, (bool, np.bool_)):
        raise ValueError(f"{what!r} is mirrored or not: True or False, got {mirrored!r}")
    try:
        row, column = map(index, at)
    except (TypeError, ValueError):
        raise ValueError(f"the place of {what!r} is (row, column), two whole numbers; got {at!r}") from None
    if row not in PLACES or column not in PLACES:
        raise ValueError(f"{what!r} at row {row}, column {column} does not fit on the board: a thing covers 2x2 of "
                         f"the 4x4 patches, so it begins in row and column {PLACES[0]} to {PLACES[-1]}")
    return Thing(int(what) if thing_kind(what) == "glyph" else what, (row, column), bool(mirrored))


def overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether things at two places (row, column) share a patch."""
    return max(abs(a - b) for a, b in zip(one, other)) < 2


@cache
def placements(n: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Every way to place `n` things without overlap, each as places (row, column) in order: 9 for one, one for four."""
    return tuple(some for some in combinations(AT, n) if not any(overlap(*two) for two in combinations(some, 2)))


def random_what(rng: np.random.Generator, split: str = "train") -> int | str:
    """A random thing: a glyph of a split, a noun or a letter, as often as `SHARES` says."""
    kind = rng.choice(list(SHARES), p=list(SHARES.values()))
    if kind == "glyph":
        return int(rng.integers(GLYPHS[split].start, GLYPHS[split].stop))
    return str(rng.choice(NOUNS if kind == "noun" else LETTER))


def random_board(rng: np.random.Generator, split: str = "train", n: int | None = None) -> Board:
    """A random board with `n` random things (None: one to three), each mirrored half of the time."""
    ways = placements(int(rng.integers(1, 4)) if n is None else n)
    places = ways[rng.integers(len(ways))]
    things = [Thing(random_what(rng, split), at, bool(rng.random() < 0.5)) for at in places]
    return Board(str(rng.choice(GROUNDS)), tuple(things))


def draw(boards: Sequence[Board]):
    """The pictures of boards: a torch tensor (B, 3, 32, 32), float32 in [0, 1]."""
    import torch
    pixels = np.empty((len(boards), SIDE, SIDE, 3), np.float32)
    for picture, board in zip(pixels, boards):
        picture[:] = np.float32(BACKGROUNDS[board.ground]) / 255
        for what, at, mirrored in board.things:
            top, left = (PATCH * place for place in at)
            layer = thing_sprite(what, mirrored)
            np.copyto(picture[top:top + THING, left:left + THING], layer[..., :3], where=layer[..., 3:] > 0)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)                 # (B, H, W, 3) -> (B, 3, H, W)
