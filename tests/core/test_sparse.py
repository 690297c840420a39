"""The sparse autoencoder finds directions that were planted, and changes a model by what it is told to and nothing else."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import wild_model

from mmcourse.experiments.inside import states
from mmcourse.experiments.sparse import (
    SparseAutoencoder,
    explained,
    largest,
    moved,
    normed,
    only,
    sparse_loss,
)
from mmcourse.optim import Optim
from mmcourse.training import Run, train


def planted(n: int, dice: torch.Generator, directions: torch.Tensor) -> torch.Tensor:
    """Sums of two of the directions each."""
    which = torch.rand(n, len(directions), generator=dice).topk(2).indices
    return (directions[which] * (1 + torch.rand(n, 2, 1, generator=dice))).sum(1)


def test_the_largest_stay():
    f = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 0.0, 0.0, 0.0]])
    assert largest(f, 2).tolist() == [[0, 3, 0, 2], [5, 0, 0, 0]] and largest(f, 4).equal(f)


def test_a_state_is_the_middle_and_a_few_directions_of_one_length():
    model, x = SparseAutoencoder(8, 32, 3), torch.randn(2, 5, 8)
    model.middle.data.normal_()
    model.directions.data.mul_(torch.rand(32, 1) + 0.5)
    f = model.encode(x)
    assert f.shape == (2, 5, 32) and f.ge(0).all() and f.gt(0).sum(-1).max() <= 3
    units = model.directions / model.directions.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model(x), model.middle + torch.einsum("btf,fc->btc", f, units))


def test_planted_directions_are_found():
    dice = torch.Generator().manual_seed(1)
    directions = F.normalize(torch.randn(24, 16, generator=dice), dim=1)
    x, fresh = planted(4000, dice, directions), planted(500, dice, directions)
    model = SparseAutoencoder(16, 48, 2)
    before = explained(model, fresh)
    train(model, lambda rng: (x[rng.integers(len(x), size=256)],), sparse_loss, steps=600,
          optim=Optim(lr=3e-3, warmup=20, weight_decay=0.0), run=Run(progress=False))
    nearest = (directions @ F.normalize(model.directions, dim=1).T).max(1).values
    assert explained(model, fresh) > 0.9 > before and nearest.gt(0.9).float().mean() > 0.8


def test_dead_features_learn_from_what_is_left_over():
    model, x = SparseAutoencoder(8, 16, 2, quiet=0), torch.randn(64, 8)
    model.reader.weight.data[8:] *= 1e-3                                # never among the two largest
    model.reader.bias.data[:8] = 1
    found = sparse_loss(model, x)
    assert found["dead"] >= 0.5 and found["loss"] > found["missed"] and model.silent[8:].eq(1).all()
    found["loss"].backward()
    assert model.directions.grad[8:].abs().sum(1).gt(0).any() and model.reader.weight.grad[8:].abs().sum(1).gt(0).any()


def test_alive_features_leave_the_plain_loss():
    model, x = SparseAutoencoder(8, 16, 2), torch.randn(64, 8)
    found = sparse_loss(model, x)
    assert found["dead"] == 0 and found["loss"].equal(found["missed"])
    assert explained(model, x) == pytest.approx(1 - found["missed"].item(), abs=1e-5)


def test_no_move_changes_nothing_and_a_move_is_added_in_its_place():
    model, ids = wild_model(layers=3), torch.randint(20, (2, 7))
    sparse, delta = SparseAutoencoder(model.width, 32, 4), torch.randn(model.width)
    delta -= delta.mean()
    with torch.no_grad():
        plain, before = model(ids), states(model, ids)
        with moved(model, "blocks.1", sparse, lambda f: torch.zeros(())):
            assert torch.equal(model(ids), plain)
        with moved(model, "blocks.1", sparse, lambda f: 0.01 * delta):
            after = states(model, ids)
            assert not torch.equal(model(ids), plain)
        assert torch.equal(model(ids), plain)
    assert torch.equal(after["blocks.0"], before["blocks.0"])
    spread = before["blocks.1"].std(-1, keepdim=True, correction=0)
    torch.testing.assert_close(after["blocks.1"], before["blocks.1"] + spread * 0.01 * delta)


def test_what_is_moved_is_seen_as_features():
    model, ids = wild_model(layers=2), torch.randint(20, (2, 7))
    sparse, seen = SparseAutoencoder(model.width, 32, 4), []

    def move(f):
        seen.append(f)
        return torch.zeros(())
    with moved(model, "blocks.0", sparse, move):
        model(ids)
    torch.testing.assert_close(seen[0], sparse.encode(normed(states(model, ids)["blocks.0"])))


def test_each_row_has_its_own_features():
    f = torch.rand(2, 3, 6) + 0.1
    kept = only(f, torch.tensor([[0, 2], [5, 5]]))
    assert np.array_equal(kept.gt(0).nonzero()[:, 2].unique(), [0, 2, 5]) and torch.equal(kept[0, :, 2], f[0, :, 2])
    assert kept[0, :, 5].eq(0).all() and kept[1, :, :5].eq(0).all() and torch.equal(kept[1, :, 5], f[1, :, 5])
