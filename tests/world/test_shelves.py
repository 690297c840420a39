"""The shelves of chapter 12: their bits, pictures and reader."""
import math
from collections import Counter

import numpy as np
import pytest
import torch

from mmcourse.world import shelves
from mmcourse.world.shelves import (
    PLACES,
    THINGS,
    WALLS,
    Shelf,
    cells,
    draw_shelves,
    random_shelf,
    read_shelves,
    shelf_split,
    tiles_of,
)


@pytest.fixture(scope="module")
def some():
    rng = np.random.default_rng(0)
    return [random_shelf(rng) for _ in range(200)]


def test_what_is_drawn_is_read_again(some):
    pictures = draw_shelves(some)
    assert pictures.shape == (200, 3, 48, 48) and 0 <= pictures.min() and pictures.max() <= 1
    assert read_shelves(pictures) == some


def test_a_little_noise_changes_nothing(some):
    noisy = draw_shelves(some) + 0.1 * torch.randn(200, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert read_shelves(noisy) == some


def test_noise_alone_is_read_as_no_shelf_in_particular(some):
    read = read_shelves(torch.rand(200, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    assert sum(a.things == b.things for a, b in zip(read, some)) < 10


def test_the_bits_add_up_to_one_over_all_shelves():
    chance = sum(math.comb(PLACES, n) * len(THINGS)**n * len(WALLS) * 2**-Shelf((1,) * n + (0,) * (PLACES - n), "white").bits
                 for n in range(PLACES + 1))
    assert math.isclose(chance, 1)


def test_every_number_of_things_is_as_likely():
    rng = np.random.default_rng(1)
    counts = Counter(random_shelf(rng).count for _ in range(3000))
    del counts[0]                       # there are four empty shelves only, not all of them in this split
    assert len(counts) == PLACES and 250 < min(counts.values()) and max(counts.values()) < 400


def test_splits_hold_different_shelves():
    rng = np.random.default_rng(2)
    drawn = {split: [random_shelf(rng, split) for _ in range(150)] for split in shelves.SPLITS}
    for split, own in drawn.items():
        assert all(shelf_split(shelf) == split for shelf in own)


def test_no_two_compartments_look_alike():
    known = cells().flatten(2)
    for wall in known:
        apart = torch.cdist(wall, wall).square() / wall.shape[1]
        assert (apart + torch.eye(len(wall))).min() > 0.003


def test_tiles_are_in_reading_order(some):
    tiles = tiles_of(draw_shelves(some[:1]))[0]
    known = cells()[WALLS.index(some[0].wall)].flatten(1)
    assert all(tile.equal(known[thing]) for tile, thing in zip(tiles, some[0].things))


def test_a_split_that_there_is_not():
    with pytest.raises(ValueError, match="a split is one of train, validation, test, got 'dev'"):
        random_shelf(np.random.default_rng(0), "dev")
