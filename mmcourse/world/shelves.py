"""A small world that goes from empty to crowded: a shelf of nine compartments. How many bits a shelf is worth is known exactly.

Each compartment is empty or holds one of eight pictograms or eight letters; the wall has one of four colours. A picture is 48x48
pixels, 16x16 for a compartment. How many things there are is drawn first, every number being as likely; then where, and what.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from mmcourse.world.pictures import INK, _letter, sprite
from mmcourse.world.rules import unit_hash
from mmcourse.world.scene import BACKGROUNDS

PICTOGRAM_THINGS = ("apple", "cat", "fish", "frog", "heart", "house", "star", "tree")
LETTERS = tuple("AEHKMRST")
THINGS = PICTOGRAM_THINGS + LETTERS
WALLS = ("white", "blue", "orange", "grey")
SIDE, CELL = 3, 16                      # compartments, and pixels, along a side
PLACES = SIDE * SIDE
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Shelf:
    """What stands where: for each compartment, in reading order, 0 (empty) or 1 + a number of `THINGS`; and the wall's colour."""
    things: tuple[int, ...]
    wall: str

    @property
    def count(self) -> int:
        """How many things there are."""
        return sum(thing > 0 for thing in self.things)

    @property
    def bits(self) -> float:
        """-log2 of the chance that this shelf is drawn: for its wall, how many things, where, and what."""
        return (math.log2(len(WALLS)) + math.log2(PLACES + 1) + math.log2(math.comb(PLACES, self.count))
                + self.count * math.log2(len(THINGS)))


def shelf_split(shelf: Shelf) -> str:
    """Of `SPLITS`: one shelf in five is held out, for validation or for the test."""
    at = unit_hash("shelf", *map(str, shelf.things), shelf.wall)
    return "train" if at < 0.8 else "validation" if at < 0.9 else "test"


def random_shelf(rng: np.random.Generator, split: str = "train", count: int | None = None) -> Shelf:
    """A shelf of a split, with `count` things or any number of them. ValueError for a split that there is not."""
    if split not in SPLITS:
        raise ValueError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
    while True:
        n = int(rng.integers(PLACES + 1)) if count is None else count
        things = np.zeros(PLACES, int)
        things[rng.permutation(PLACES)[:n]] = 1 + rng.integers(len(THINGS), size=n)
        shelf = Shelf(tuple(things.tolist()), WALLS[rng.integers(len(WALLS))])
        if shelf_split(shelf) == split:
            return shelf


@cache
def cells() -> torch.Tensor:
    """What a compartment may look like: (walls, 1 + things, 3, 16, 16) in [0, 1], the empty one first."""
    out = np.empty((len(WALLS), 1 + len(THINGS), CELL, CELL, 3), np.float32)
    for wall, colour in enumerate(WALLS):
        out[wall] = np.array(BACKGROUNDS[colour], np.float32) / 255
        for i, thing in enumerate(THINGS, 1):
            if thing in PICTOGRAM_THINGS:
                painted = sprite(thing, CELL)                           # (16, 16, 4), premultiplied
                out[wall, i] = painted[..., :3] + (1 - painted[..., 3:]) * out[wall, i]
            else:
                ink = np.pad(_letter(thing, CELL // 2), ((0, 0), (CELL // 4, CELL // 4)))[..., None]   # (16, 16, 1)
                out[wall, i] = ink * np.array(INK, np.float32) / 255 + (1 - ink) * out[wall, i]
    return torch.from_numpy(out).permute(0, 1, 4, 2, 3).contiguous()    # channels before pixels


def draw_shelves(shelves: Sequence[Shelf]) -> torch.Tensor:
    """Their pictures: (B, 3, 48, 48) in [0, 1]."""
    walls = torch.tensor([WALLS.index(shelf.wall) for shelf in shelves])
    tiles = cells()[walls[:, None], torch.tensor([shelf.things for shelf in shelves])]      # (B, 9, 3, 16, 16)
    tiles = tiles.view(-1, SIDE, SIDE, 3, CELL, CELL).permute(0, 3, 1, 4, 2, 5)             # (B, 3, rows, 16, columns, 16)
    return tiles.reshape(-1, 3, SIDE * CELL, SIDE * CELL)


def read_shelves(pictures: torch.Tensor) -> list[Shelf]:
    """The shelf whose picture is nearest to each of (B, 3, 48, 48), by squared error: exact, as compartments do not overlap."""
    tiles = tiles_of(pictures)
    known = cells().flatten(2)                                                              # (walls, 17, 768)
    errors = torch.stack([torch.cdist(tiles, each.expand(len(tiles), *each.shape)).square() for each in known], 1)
    best, things = errors.min(-1)                                                           # (B, walls, 9)
    walls = best.sum(-1).argmin(1)
    return [Shelf(tuple(row[wall].tolist()), WALLS[wall]) for row, wall in zip(things, walls.tolist())]


def tiles_of(pictures: torch.Tensor) -> torch.Tensor:
    """The compartments of pictures (B, 3, 48, 48), in reading order: (B, 9, 768)."""
    tiles = pictures.unflatten(3, (SIDE, CELL)).unflatten(2, (SIDE, CELL))                  # (B, 3, rows, 16, columns, 16)
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)
