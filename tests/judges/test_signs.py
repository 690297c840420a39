"""Readers of signs: they read what is there, can be wrong, and count letters as a naive Levenshtein does."""
from functools import cache

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.judges.signs import (
    BLANK,
    OTHER_FONTS,
    SignReader,
    edit_distance,
    ocr_word,
    other_signs,
    reader_loss,
)
from mmcourse.recipes.sign_judge import batch
from mmcourse.world.signs import all_pictures, draw_signs, sign_scene


@pytest.fixture(scope="module")
def judge():
    return checkpoints.load("sign_judge")


@cache
def naive(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(naive(a[1:], b) + 1, naive(a, b[1:]) + 1, naive(a[1:], b[1:]) + (a[0] != b[0]))


def test_edit_distance_is_the_naive_one():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abc"), rng.integers(7))) for _ in range(60)]
    for a, b in zip(words, words[1:]):
        assert edit_distance(a, b) == naive(a, b) == edit_distance(b, a)


def test_the_judge_reads_true_signs_and_never_learned_from_the_worlds_typeface(judge):
    assert "DejaVuSansMono-Bold" not in OTHER_FONTS
    scenes = all_pictures("validation")[:128]
    read = judge.read(draw_signs(scenes))
    assert np.mean([a == s.sign.lower() for a, s in zip(read, scenes)]) > 0.95
    assert judge.read(draw_signs(scenes)[:0]) == []


def test_the_judge_can_be_wrong(judge):
    torch.manual_seed(0)
    scenes = all_pictures("validation")[:64]
    pictures, words = draw_signs(scenes), [s.sign.lower() for s in scenes]
    assert np.mean([a == b for a, b in zip(SignReader().eval().read(pictures), words)]) < 0.05
    assert np.mean([a == b for a, b in zip(judge.read(torch.rand_like(pictures)), words)]) < 0.05
    swapped = pictures.clone()
    swapped[:, :, :, 24:32], swapped[:, :, :, 32:40] = pictures[:, :, :, 32:40], pictures[:, :, :, 24:32]
    assert np.mean([a == b for a, b in zip(judge.read(swapped), words)]) < 0.2, "it reads letters, not words that it knows"


def test_random_signs_have_letters_where_they_say():
    images, columns = other_signs(np.random.default_rng(0), 32)
    assert images.shape == (32, 3, 32, 64) and columns.shape == (32, 8) and 0 <= images.min() and images.max() <= 1
    lengths = (columns != BLANK).sum(1)
    assert lengths.min() >= 3 and lengths.max() <= 8
    for row in columns:
        letters = (row != BLANK).nonzero()[:, 0]
        assert letters[-1] - letters[0] + 1 == len(letters), "letters of a word stand side by side"
    again, _ = batch(np.random.default_rng(5))
    assert torch.equal(again, batch(np.random.default_rng(5))[0])


def test_the_loss_can_be_learned_from():
    torch.manual_seed(0)
    net = SignReader(width=8)
    loss = reader_loss(net, *other_signs(np.random.default_rng(0), 4))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(27), abs=0.6) and all(p.grad is not None for p in net.parameters())


def test_the_audit_reads_a_sign_and_nothing_where_nothing_is():
    pytest.importorskip("rapidocr_onnxruntime")
    words = ["class", "button", "learning", "anchor", "tuple", "element"]
    pictures = draw_signs([sign_scene(word, ground) for word, ground in zip(words, ("white", "blue", "red", "grey", "green", "orange"))])
    assert sum(ocr_word(picture) == word for picture, word in zip(pictures, words)) >= 5
    assert ocr_word(torch.full((3, 32, 64), 0.9)) == ""
