"""The world of signs: real words, a split that holds, boards that are the world's own, on the grid and off it."""
import numpy as np
import pytest
import torch

from mmcourse.world.pictures import draw
from mmcourse.world.scene import BACKGROUNDS
from mmcourse.world.signs import (
    HEIGHT,
    LENGTHS,
    MOVED,
    ROWS,
    WIDTH,
    all_pictures,
    counted,
    draw_signs,
    sign_scene,
    signs,
    word_counts,
    words_of,
)


def test_the_words():
    counts = word_counts()
    assert 2_500 < len(counts) < 3_500 and min(counts.values()) >= 1 and list(counts) == sorted(counts)
    assert all(word.isascii() and word.isalpha() and word.islower() and len(word) in LENGTHS for word in counts)
    assert {"class", "tuple", "the"} <= set(counts)


def test_counting_takes_whole_words_alone():
    found = counted("The cat's mat: a catalogue, cats... don't x_cats xx2 aaa hmm CAT rhythm; cats")
    assert found == {"mat": 1, "cats": 2, "rhythm": 1}


def test_the_split_is_a_fifth_and_a_third_of_it_for_validation():
    parts = {split: words_of(split) for split in ("train", "validation", "test")}
    everything = [word for words in parts.values() for word in words]
    assert sorted(everything) == sorted(word_counts()) and len(set(everything)) == len(everything)
    held_out = len(parts["validation"]) + len(parts["test"])
    assert 0.18 < held_out / len(everything) < 0.23 and 0.28 < len(parts["validation"]) / held_out < 0.4


def test_no_training_picture_shows_a_held_out_word():
    scenes = all_pictures("train")
    assert len(scenes) == len(words_of("train")) * len(BACKGROUNDS) * len(ROWS) == len(set(scenes))
    assert {scene.sign.lower() for scene in scenes} == set(words_of("train"))
    assert [s.sign for s in scenes[:50]] == [s.sign for s in all_pictures("train")[:50]]


@pytest.mark.parametrize("moved", [(0, 0), (3, -2)])
@pytest.mark.parametrize("row", ROWS)
def test_a_pasted_board_is_what_the_world_draws(row, moved):
    """Oracle: `draw`, which knows nothing of boards in a cache."""
    scenes = [sign_scene(word, ground, row, moved) for word in ("the", "class", "learning") for ground in ("white", "blue")]
    half = (signs().size - HEIGHT) // 2
    expected = np.stack([draw(scene, world=signs())[half:half + HEIGHT] for scene in scenes])
    made = (draw_signs(scenes).permute(0, 2, 3, 1) * 255).round().byte()
    assert torch.equal(made, torch.from_numpy(expected))


def test_boards_off_the_grid_stay_on_the_picture_and_move_both_ways():
    still, moved = (all_pictures("validation", moved=m) for m in (False, True))
    assert {scene.shift[0] for scene in still} == {0} and {scene.shift[1] for scene in still} == set(ROWS)
    assert {scene.shift[0] for scene in moved} >= set(range(-MOVED, MOVED + 1)) - {0} or len({s.shift for s in moved}) > 20
    pictures = draw_signs(moved[:200])
    assert pictures.shape == (200, 3, HEIGHT, WIDTH)
    dark = (pictures.amax(1) < 0.3).any(2)                             # rows with ink
    assert (dark.sum(1) >= 10).all(), "a board that lost its top or bottom has fewer rows of ink"


@pytest.mark.parametrize("word, said", [("w0rd", "no '0'"), ("", "type a word"), ("ab", "got 2"), ("internals!", "no '!'")])
def test_what_is_no_word_gets_a_sentence(word, said):
    with pytest.raises(ValueError, match=said):
        sign_scene(word)
