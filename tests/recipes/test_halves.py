"""A batch in two processes has the loss and the gradient that it has in one, step after step."""
import copy

import pytest
import torch
from helpers import SMALL, wild_model

from mmcourse.dataset import mixture_loss
from mmcourse.recipes._halves import halved, in_two_processes


def batch(seed: int = 0) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    out = ()
    for rows, length in ((5, 7), (4, 12), (1, 20)):
        out += (torch.randint(1, SMALL.size, (rows, length), generator=rng), torch.rand(rows, length, generator=rng))
    return out


def test_every_row_is_dealt_once_and_the_second_pile_is_the_larger():
    parts = batch()
    mine, theirs = halved(parts)
    dealt = sorted(row.tolist() for ids, _ in mine + theirs for row in ids)
    assert dealt == sorted(row.tolist() for ids in parts[::2] for row in ids)
    assert sum(ids.numel() for ids, _ in mine) < sum(ids.numel() for ids, _ in theirs), "the first has the optimizer's work too"
    assert halved((torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3)))[0] == [], "one row is nobody's half"


@pytest.mark.slow                                                      # a process starts
def test_two_processes_take_the_same_steps_as_one():
    one = wild_model(scale=3.0, context=40).train()             # tame: a wild one makes much of the last digit
    two = copy.deepcopy(one)
    rates = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in (one, two)]
    with in_two_processes(two) as loss:
        for seed in range(3):
            losses = []
            for model, way, optimizer in ((one, mixture_loss, rates[0]), (two, loss, rates[1])):
                optimizer.zero_grad()
                losses.append(way(model, *batch(seed))["loss"])
                losses[-1].backward()
                optimizer.step()
            assert loss.cpu_seconds > 0 and losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
            for (name, a), b in zip(one.named_parameters(), two.parameters()):
                assert torch.allclose(a.grad, b.grad, 1e-3, 1e-4) and torch.allclose(a, b, 1e-4, 1e-6), (seed, name)


@pytest.mark.slow
def test_the_second_process_ends_with_the_block():
    import multiprocessing
    with in_two_processes(wild_model(context=40)):
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()
