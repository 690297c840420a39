"""Boards: glyphs without end that no split shares, hard edges, the same thing the same everywhere, what no board can show."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcourse.world.glyphs import (
    GLYPHS,
    HELD_OUT,
    LETTER,
    PATCH,
    PIECES,
    SIDE,
    SPLIT,
    TEST,
    THING,
    VALIDATION,
    Board,
    Thing,
    bits_of,
    draw,
    every_shape,
    glyph,
    glyph_shape,
    glyph_split,
    hard,
    inked,
    overlap,
    pieces,
    placements,
    random_board,
    shapes,
    thing_sprite,
)
from mmcourse.world.pictures import INK, sprite
from mmcourse.world.scene import BACKGROUNDS, NOUNS

SOME = (0, 1, 77_777, VALIDATION + 5, TEST + 5, "cat", "bicycle", "letter R")
PLACES = [(row, column) for row in range(3) for column in range(3)]


def pixels(board: Board) -> np.ndarray:
    return draw([board])[0].permute(1, 2, 0).numpy()


# ---------------------------------------------------------------- glyphs

def test_a_line_is_cut_at_the_lattices_points():
    assert pieces((0, 0), (2, 2)) == [((0, 0), (1, 1)), ((1, 1), (2, 2))]
    assert pieces((3, 0), (0, 0)) == [((2, 0), (3, 0)), ((1, 0), (2, 0)), ((0, 0), (1, 0))]
    assert pieces((1, 3), (2, 0)) == [((1, 3), (2, 0))] and len(PIECES) == len(set(PIECES)) == 86


def test_the_splits_share_no_shape_and_no_mirror_image():
    parts = {split: set(found) for split, found in shapes().items()}
    assert set(parts) == set(SPLIT) == set(GLYPHS) and sum(map(len, parts.values())) == len(every_shape()) == 240_802
    mirrored = {split: {every_shape()[shape] for shape in part} for split, part in parts.items()}
    assert mirrored == parts and not parts["train"] & (parts["validation"] | parts["test"])
    assert not parts["validation"] & parts["test"]
    assert {split: round(len(part) / 240_802, 3) for split, part in parts.items()} == SPLIT


def test_a_number_says_its_split_and_the_split_its_shapes():
    numbers = (0, HELD_OUT - 1, VALIDATION, TEST - 1, TEST, 2_999_999)
    assert [glyph_split(n) for n in numbers] == ["train", "train", "validation", "validation", "test", "test"]
    assert all(glyph_shape(n) in set(shapes()[glyph_split(n)]) for n in numbers)
    assert glyph_shape(VALIDATION) == glyph_shape(VALIDATION + len(shapes()["validation"]))     # once through, and again


def test_a_glyph_is_the_same_always():
    """Another order would put other glyphs under the numbers that nets were trained and tables measured on."""
    assert [int(glyph(n).sum()) for n in (0, 1, 2, VALIDATION, TEST)] == [81, 93, 38, 82, 80]


@pytest.mark.parametrize("split", SPLIT)
def test_other_numbers_are_other_drawings(split):
    """Of 5,000 glyphs of a split one or two look like another; no two have one shape."""
    numbers = GLYPHS[split][:5000]
    assert len({glyph_shape(n) for n in numbers}) == 5000
    assert len({glyph(n).tobytes() for n in numbers[:1500]}) >= 1498


def test_hardly_a_held_out_drawing_was_seen_in_training():
    """Two shapes can cover the same pixels. Of all 24,000 of validation 1.5 % look like one of the 192,000 of training."""
    seen = {glyph(n).tobytes() for n in range(2500)}
    assert np.mean([glyph(n).tobytes() in seen for n in GLYPHS["test"][:1000]]) <= 0.01


@given(st.lists(st.sampled_from([(x, y) for y in range(4) for x in range(4)]), min_size=4, max_size=5, unique=True))
def test_a_line_drawn_backwards_is_the_same_glyph(points):
    shape, back = bits_of(points), bits_of(points[::-1])
    flipped = bits_of([(3 - x, y) for x, y in points])
    assert shape == back and every_shape()[shape] == flipped and every_shape()[flipped] == shape


def test_a_mirrored_glyph_is_the_drawing_of_the_mirrored_shape():
    by_shape = {glyph_shape(n): n for n in range(len(shapes()["train"]))}
    for number in range(20):
        twin = by_shape[every_shape()[glyph_shape(number)]]
        assert np.array_equal(thing_sprite(number, mirrored=True), thing_sprite(twin))


@pytest.mark.parametrize("number", [-1, 3_000_000, 1.0, True, None, float("nan")])
def test_what_is_no_glyphs_number_gets_a_sentence(number):
    with pytest.raises(ValueError, match="whole number from 0 to 2,999,999"):
        glyph(number)


# ---------------------------------------------------------------- things

@pytest.mark.parametrize("what", [*SOME, *NOUNS[::9], *LETTER[::7]])
def test_a_thing_has_hard_edges_and_enough_ink(what):
    layer = thing_sprite(what)
    assert layer.shape == (THING, THING, 4) and layer.dtype == np.float32 and 0 <= layer.min() <= layer.max() <= 1
    assert set(np.unique(layer[..., 3])) <= {0, 1} and not layer[layer[..., 3] == 0].any()
    assert 15 < layer[..., 3].sum() < THING**2 and inked(what).any()
    if not isinstance(what, str) or what in LETTER:
        assert np.allclose(layer[layer[..., 3] > 0][:, :3] * 255, INK)
    with pytest.raises(ValueError, match="read-only"):
        layer += 1


def test_hard_edges_keep_the_colour_and_half_is_enough():
    soft = np.float32([[[0.4, 0.2, 0, 0.8], [0.25, 0.5, 0, 0.5], [0.2, 0.2, 0.2, 0.49]]])
    assert np.allclose(hard(soft), [[[0.5, 0.25, 0, 1], [0.5, 1, 0, 1], [0, 0, 0, 0]]])
    apple = sprite("apple", THING)
    assert np.array_equal(thing_sprite("apple")[..., 3] > 0, apple[..., 3] >= 0.5)


@pytest.mark.parametrize("what", SOME)
def test_mirrored_is_left_for_right(what):
    assert np.array_equal(thing_sprite(what, mirrored=True), thing_sprite(what)[:, ::-1])
    assert np.array_equal(inked(what, mirrored=True), inked(what)[:, ::-1])


def test_inked_patches_are_those_with_any_ink():
    expected = [[thing_sprite(3)[r:r + PATCH, c:c + PATCH, 3].any() for c in (0, PATCH)] for r in (0, PATCH)]
    assert inked(3).tolist() == expected


# ---------------------------------------------------------------- boards

@pytest.mark.parametrize("what", SOME)
def test_a_thing_is_drawn_alike_on_every_ground_and_at_every_place(what):
    alpha = thing_sprite(what)[..., 3] > 0
    for ground, colour in BACKGROUNDS.items():
        for row, column in PLACES:
            picture = pixels(Board(ground, [(what, (row, column))]))
            region = picture[PATCH * row:PATCH * row + THING, PATCH * column:PATCH * column + THING]
            assert np.array_equal(region[alpha], thing_sprite(what)[alpha][:, :3])
            region[alpha] = plain = np.float32(colour) / 255            # a view: the thing is gone from the picture
            assert np.array_equal(picture, np.broadcast_to(plain, picture.shape))


def test_a_batch_is_its_boards():
    rng = np.random.default_rng(0)
    boards = [random_board(rng) for _ in range(20)]
    batch = draw(boards)
    assert batch.shape == (20, 3, SIDE, SIDE) and batch.dtype == torch.float32 and 0 <= batch.min() <= batch.max() <= 1
    assert torch.equal(batch, torch.cat([draw([board]) for board in boards])) and draw([]).shape == (0, 3, SIDE, SIDE)


def test_boards_are_values():
    board = Board("blue", [("cat", (2, 0), True), (np.int64(7), (0, np.int64(1)))])
    assert board == Board("blue", (Thing(7, (0, 1)), Thing("cat", (2, 0), True))) and len({board, replace(board)}) == 1
    assert board.things[0] == (7, (0, 1), False) and type(board.things[0].what) is int
    moved = replace(board, ground="red", things=[board.things[0]._replace(at=(0, 2)), board.things[1]])
    assert moved.ground == "red" and moved.things[0].at == (0, 2) and moved != board


def test_placements_are_all_that_do_not_overlap():
    assert [len(placements(n)) for n in range(6)] == [1, 9, 16, 8, 1, 0]
    assert placements(4) == (((0, 0), (0, 2), (2, 0), (2, 2)),)
    patches = {at: {(at[0] + r, at[1] + c) for r in (0, 1) for c in (0, 1)} for at in PLACES}
    assert all(overlap(a, b) == bool(patches[a] & patches[b]) for a in PLACES for b in PLACES)


@pytest.mark.parametrize("split", SPLIT)
def test_random_boards_are_of_their_split(split):
    boards = [random_board(np.random.default_rng((3, i)), split) for i in range(300)]
    assert boards[:5] == [random_board(np.random.default_rng((3, i)), split) for i in range(5)]
    things = [thing for board in boards for thing in board.things]
    assert {len(board.things) for board in boards} == {1, 2, 3} and {board.ground for board in boards} == set(BACKGROUNDS)
    assert {glyph_split(thing.what) for thing in things if not isinstance(thing.what, str)} == {split}
    assert {thing.mirrored for thing in things} == {True, False} and {thing.at for thing in things} == set(PLACES)
    assert {type(thing.what) for thing in things} == {int, str} and random_board(np.random.default_rng(0), n=4)


@pytest.mark.parametrize("things, said", [
    ([("cta", (0, 0))], "no thing 'cta'.*did you mean 'cat'"),
    ([("letter", (0, 0))], "did you mean 'letter"),
    ([(-5, (0, 0))], "0 to 2,999,999, got -5"),
    ([(1.5, (0, 0))], "got 1.5"),
    ([("cat", (0, 3))], "row 0, column 3 does not fit.*0 to 2"),
    ([("cat", (-1, 0))], "row -1"),
    ([("cat", 1)], "two whole numbers; got 1"),
    ([("cat", (1, 1, 1))], r"got \(1, 1, 1\)"),
    ([("cat", (1.5, 0))], r"got \(1.5, 0\)"),
    (["cat"], r"\(what, \(row, column\)\).*got 'cat'"),
    ([("cat", (0, 0), False, 1)], "a thing is"),
    ([("cat", (0, 0), "yes")], "True or False, got 'yes'"),
    ([("cat", (0, 0)), (7, (1, 1))], r"'cat' at \(0, 0\) and 7 at \(1, 1\) overlap.*two rows"),
    ([("cat", (0, 0))] * 5, "room for 4 things, got 5"),
    ("cat", "a thing is"),
])
def test_what_no_board_can_show_gets_a_sentence(things, said):
    with pytest.raises(ValueError, match=said):
        Board("blue", things)


@pytest.mark.parametrize("ground", ["pink", "", None, 3, ["blue"]])
def test_an_unknown_ground_gets_a_sentence(ground):
    with pytest.raises(ValueError, match="no ground .*white, grey"):
        Board(ground)
