"""The nets of the shelves (`mmcourse.experiments.shelf_nets`) and the budget (`mmcourse.experiments.budgets`)."""
import numpy as np
import pytest
import torch

from mmcourse.experiments import shelf_nets
from mmcourse.experiments.budgets import BudgetNet, budget_loss, first_good, needed, practise, quality, spent
from mmcourse.experiments.shelf_nets import (
    ASKED,
    BATCH,
    TOKENS,
    WORDS,
    Dropping,
    ShelfNets,
    as_asked,
    as_pictures,
    asked,
    make_tokenizer,
    plain_patches,
    shelves_of,
    things_right,
    unlike_anything,
)
from mmcourse.nested import first
from mmcourse.world.shelves import THINGS, WALLS, Shelf, draw_shelves, read_shelves

ONE = Shelf((0, 3, 0, 1, 0, 0, 0, 0, 16), "blue")
MOVED = Shelf((3, 0, 0, 1, 16, 0, 0, 0, 0), "blue")
OTHER = Shelf((3, 0, 0, 2, 16, 0, 0, 0, 0), "blue")


def test_what_is_asked_for_says_what_and_not_where():
    assert asked([ONE]).equal(asked([MOVED])) and not asked([ONE]).equal(asked([OTHER]))
    assert asked([ONE]).shape == (1, ASKED) and asked([Shelf((16,) * 9, "grey")]).max() == WORDS - 1
    assert len({tuple(asked([Shelf((0,) * 9, wall)])[0].tolist()) for wall in WALLS}) == len(WALLS)


def test_as_asked_counts_wall_and_things():
    more = Shelf((3, 5, 0, 1, 16, 0, 0, 0, 0), "blue")
    assert as_asked([ONE, MOVED, OTHER, more, Shelf(ONE.things, "grey")], [ONE] * 5) == [1, 1, 2 / 3, 3 / 4, 0]
    empty = Shelf((0,) * 9, "blue")
    assert as_asked([empty, empty, ONE], [empty, ONE, empty]) == [1, 0, 0]


def test_things_right_by_kind():
    found = things_right([MOVED], [ONE])
    assert found == {"compartments": 5 / 9, "pictograms": 0.5, "letters": 0.0, "whole": 0.0}
    assert things_right([ONE], [ONE]) == dict.fromkeys(found, 1.0)


def test_a_plain_picture_of_no_tokens_knows_nothing():
    net = make_tokenizer()
    ids = torch.randint(0, 512, (3, TOKENS), generator=torch.Generator().manual_seed(0))
    none = plain_patches(net, ids, first(torch.zeros(3), TOKENS))
    assert none[0].allclose(none[1], atol=1e-5)
    torch.testing.assert_close(as_pictures(plain_patches(net, ids, first(torch.full((3,), 4), TOKENS))), net.decode(ids[:, :4]))


def test_unlike_anything_tells_shelves_from_blur_and_noise():
    _, pictures = shelves_of("validation", 30)
    assert unlike_anything(pictures) == 0
    assert unlike_anything(torch.rand(4, 3, 48, 48)) == 1
    assert unlike_anything((pictures + pictures.flip(0)) / 2) > 0.3


@pytest.mark.parametrize("how", shelf_nets.HOW)
def test_what_is_dropped(how):
    batch = Dropping(how, TOKENS)
    assert batch(np.random.default_rng(0))[1].all()                     # nothing at first
    batch.whole = False
    _, kept = batch(np.random.default_rng(0))
    in_order = kept.int().diff(dim=1).le(0).all(1)
    if how == "fixed":
        assert kept.all()
        return
    assert kept.any(1).all() and kept[:BATCH // 2].all() and not kept[BATCH // 2:].all(1).all()
    assert in_order.all() == (how == "nested")


def test_a_way_of_dropping_that_there_is_not():
    with pytest.raises(ValueError, match="nested, random order, fixed, got 'tail'"):
        Dropping("tail", TOKENS)


def test_shelf_nets_paint_both_ways():
    nets, (_, pictures) = ShelfNets(width=16), shelves_of("validation", 2)
    ids = nets.tokenizer.encode(pictures)
    for passes in (0, 2):
        assert nets.paint(ids[:, :3], passes).shape == pictures.shape
    assert nets.paint(ids[:, :3], 2, seed=1).equal(nets.paint(ids[:, :3], 2, seed=1))
    assert not nets.paint(ids[:, :3], 2, seed=1).equal(nets.paint(ids[:, :3], 2, seed=2))


# ---------------------------------------------------------------- the budget

def test_quality_is_what_the_reader_and_the_pixels_say():
    net, (shelves, pictures) = make_tokenizer(), shelves_of("validation", 5)
    right, errors = quality(net, shelves)
    assert right.shape == errors.shape == (5, TOKENS)
    made = net.decode(net.encode(pictures)[:, :4])
    assert errors[:, 3].allclose((made - pictures).square().mean((1, 2, 3)))
    found = read_shelves(made)[0]
    assert right[0, 3] == pytest.approx(np.mean([a == b for a, b in zip(found.things, shelves[0].things)]))


def test_a_budget_learns_who_needs_more():
    """Shelves with many things need 10 tokens, those with few need 2: known here, learned from the reward alone."""
    shelves = [Shelf((1 + i % len(THINGS),) * n + (0,) * (9 - n), "white") for i in range(20) for n in (1, 8)]
    patches = shelf_nets.to_patches(draw_shelves(shelves), 16)
    need = torch.tensor([2 if shelf.count == 1 else 10 for shelf in shelves])
    right = (torch.arange(1, 13) / need[:, None]).clamp(max=1)
    net, history = practise(patches, right, price=0.04, steps=400)
    with torch.no_grad():
        lengths = 1 + net(patches).argmax(1)
    tokens, share = spent(lengths, right)
    assert share > 0.95 and 5.5 < tokens < 7
    assert history.column("reward")[-1] > history.column("reward")[0]
    # dealt to others, the same lengths are right half of the time
    assert spent(lengths.roll(1), right)[1] < 0.8


def test_dear_tokens_are_saved():
    patches, right = torch.randn(8, 9, 768), torch.linspace(0.5, 1, 12).expand(8, 12)
    cheap, dear = (practise(patches, right, price, steps=60)[0](patches).argmax(1).float().mean() for price in (0.0, 0.5))
    assert dear == 0 < cheap
    with pytest.raises(ValueError, match="0 or more"):
        practise(patches, right, -0.1, steps=1)


def test_equal_rewards_teach_nothing():
    net = BudgetNet(tokens=4, dim=12)
    budget_loss(net, torch.randn(3, 9, 12), torch.ones(3, 4))["loss"].backward()
    assert all(p.grad.abs().max() == 0 for p in net.parameters())


def test_first_good_and_needed():
    errors = torch.tensor([[0.5, 0.1, 0.2], [0.5, 0.4, 0.3]])
    assert first_good(errors, 0.1).tolist() == [2, 3]
    assert needed(0.5, [0.2, 0.4, 0.6], [1, 2, 3]) == pytest.approx(2.5)
