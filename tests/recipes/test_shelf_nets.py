"""The nets of the shelves: one recipe, each net trained once and kept, the same for the recipe and for the study."""
import pytest
import torch

from mmcourse import checkpoints
from mmcourse import recipes as all_recipes
from mmcourse.experiments.shelf_nets import TOKENS, asked, shelves_of
from mmcourse.recipes import shelf_nets
from mmcourse.recipes.shelf_nets import Steps

TINY = Steps(2, 2, 2, 2, 2, shelves=500)


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(all_recipes, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(shelf_nets, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(shelf_nets, "measure", lambda nets, real=shelf_nets.measure: real(nets, 5))
    for net in (shelf_nets.tokenizer, shelf_nets.tokens_of, shelf_nets.painter, shelf_nets.large, shelf_nets.writer):
        net.cache_clear()
    yield tmp_path
    for net in (shelf_nets.tokenizer, shelf_nets.tokens_of, shelf_nets.painter, shelf_nets.large, shelf_nets.writer):
        net.cache_clear()


def test_the_recipe_ships_three_nets_that_work(here):
    history = shelf_nets.main([], here, TINY)
    nets, (shelves, pictures) = checkpoints.load("shelf_nets", here), shelves_of("validation", 3)
    assert history.cpu_minutes > 0 and checkpoints.manifest(here)["shelf_nets"]["steps"] == 6
    ids = nets.tokenizer.encode(pictures)
    assert nets.paint(ids[:, :4]).shape == nets.paint(ids[:, :4], 2, words=asked(shelves)).shape == pictures.shape
    assert ids.shape == (3, TOKENS)


def test_what_is_trained_once_is_kept(here, monkeypatch):
    first = shelf_nets.writer(0, TINY)
    for net in (shelf_nets.tokenizer, shelf_nets.tokens_of, shelf_nets.writer):
        net.cache_clear()
    monkeypatch.setattr(shelf_nets, "train", lambda *args, **more: pytest.fail("trained again"))
    monkeypatch.setattr(shelf_nets, "train_tokenizer", lambda *args, **more: pytest.fail("trained again"))
    again = shelf_nets.writer(0, TINY)
    assert first.minutes == again.minutes > 0
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))


def test_seeds_and_sizes_are_different_nets(here):
    one, other, large = (shelf_nets.writer(*of) for of in ((0, TINY), (1, TINY), (0, TINY, "large")))
    assert not torch.equal(one.head.weight, other.head.weight)
    assert large.head.weight.shape[1] == 2 * one.head.weight.shape[1]


def test_steps_for_all_three(here):
    shelf_nets.main(["--steps", "1"], here, TINY)
    assert checkpoints.manifest(here)["shelf_nets"]["steps"] == 3
