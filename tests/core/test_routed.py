"""Routed blocks (`mmcourse.experiments.routed`): who is not chosen is neither worked on nor seen, and nothing later decides."""
import pytest
import torch

from mmcourse.experiments import routed
from mmcourse.experiments.routed import ROUTERS, RoutedTransformer, Router, make, pass_through
from mmcourse.transformer import Block, Transformer
from mmcourse.vocabulary import OPEN

SIZE = {"width": 16, "heads": 2, "context": 64, "segment_starts": tuple(OPEN.values())}


def states(b=3, t=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, t, 16, generator=generator), torch.rand(b, t, generator=generator) < 0.5


@torch.no_grad()
def plainly(block, x, chosen, gate):
    """Row by row, token by token."""
    out = x.clone()
    for row, own, kept, counts in zip(out, x, chosen, gate):
        if kept.any():
            inside = own[kept][None]
            row[kept] = own[kept] + counts[kept][:, None] * (block(inside) - inside)[0]
    return out


def test_as_the_plain_way():
    torch.manual_seed(0)
    block, (x, chosen) = Block(16, 2), states()
    chosen[1] = False
    gate = torch.rand(x.shape[:2])
    torch.testing.assert_close(pass_through(block, x, chosen, gate), plainly(block, x, chosen, gate))


def test_all_or_nobody():
    torch.manual_seed(0)
    block, (x, _) = Block(16, 2), states()
    one = torch.ones(x.shape[:2])
    torch.testing.assert_close(pass_through(block, x, one > 0, one), block(x))
    assert pass_through(block, x, one < 0, one).equal(x)


def test_the_work_is_only_done_for_the_chosen():
    block, (x, _) = Block(16, 2), states(2, 12)
    seen = []
    block.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    chosen = torch.zeros(2, 12, dtype=torch.bool)
    chosen[0, 3:6] = chosen[1, 1:2] = True
    pass_through(block, x, chosen, torch.ones(2, 12))
    assert seen == [3]


def ids_of(b=4, t=20):
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(7, 60, (b, t), generator=generator)
    ids[:, 0], ids[:, 6] = OPEN["text"], OPEN["image"]
    return ids


@pytest.mark.parametrize("kind", ROUTERS)
def test_nothing_later_decides(kind):
    net = make(kind, 60, 0, 4, **SIZE)
    ids = ids_of()
    net.train()
    for _ in range(250):
        net(ids)
    net.eval()
    whole = net(ids)
    assert any(0 < chosen.float().mean() < 1 for chosen in net.chosen.values())
    torch.testing.assert_close(net(ids[:, :9]), whole[:, :9])


@pytest.mark.parametrize("kind", ROUTERS)
def test_in_training_the_share_goes_through(kind):
    net = make(kind, 60, 0, 4, **SIZE)
    ids = ids_of(64, 40)
    net.train()(ids)
    for chosen in net.chosen.values():
        assert chosen.float().mean().item() == pytest.approx(0.5, abs=0.06)
    ids[:, 30:] = 0
    net(ids)
    assert not any(chosen[:, 30:].any() for chosen in net.chosen.values())      # padding goes nowhere


def test_what_each_router_knows():
    torch.manual_seed(0)
    x, ids = torch.randn(2, 20, 16), ids_of(2)
    ids[1] = ids[0]
    thrown, place, learned = (Router(kind, 16, 0.5, tuple(OPEN.values()), 64).eval() for kind in ("thrown", "by place", "learned"))
    assert thrown(x, ids)[0][0].equal(thrown(x, ids)[0][1]) and thrown(x, ids)[1].eq(1).all()
    other = ids.clone()
    other[1, 8:] = torch.arange(7, 19)                                  # other tokens in the same places
    assert place(x, other)[1][0].equal(place(x, other)[1][1])
    assert not thrown(x, other)[0][0].equal(thrown(x, other)[0][1])
    assert not learned(x, ids)[1][0].equal(learned(x, ids)[1][1])
    moved = ids.clone()
    moved[1, 6] = OPEN["audio"]                                         # another kind of segment
    assert not place(x, moved)[1][0, 6:].equal(place(x, moved)[1][1, 6:]) and place(x, moved)[1][0, :6].equal(place(x, moved)[1][1, :6])


def test_the_router_learns_through_its_gate():
    net = make("learned", 60, 0, 4, **SIZE).train()
    net(ids_of()).square().mean().backward()
    assert all(router.score_head.weight.grad.abs().sum() > 0 for router in net.routers.values())


def test_unknown_routers_and_caches_are_refused():
    with pytest.raises(ValueError, match="a router is one of learned, by place, thrown, got 'guess'"):
        RoutedTransformer(60, "guess", layers=4, **SIZE)
    with pytest.raises(ValueError, match="keeps no cache"):
        make("thrown", 60, 0, 4, **SIZE).hidden(ids_of(), cache=object())


def test_dense_nets_are_plain_and_seeds_are_kept():
    assert type(make("dense", 60, 0, 3, **SIZE)) is Transformer
    a, b = (make("learned", 60, 5, 4, **SIZE) for _ in range(2))
    assert all(p.equal(q) for p, q in zip(a.parameters(), b.parameters())) and list(a.routers) == ["1", "3"]
    assert routed.ROUTERS[0] == "learned"
