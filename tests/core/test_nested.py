"""The nested tokenizer (`mmcourse.nested`): what is dropped is not seen, and bad input is refused."""
import numpy as np
import pytest
import torch

from mmcourse.nested import NestedTokenizer, first, nested_loss
from mmcourse.painters import to_patches


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return NestedTokenizer(tokens=5, levels=(4, 4), side=2, patch=8, width=16, layers=1, heads=2).eval()


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_shapes(net, pictures):
    ids = net.encode(pictures)
    assert ids.shape == (3, 5) and ids.dtype == torch.int64 and ids.max() < net.vocab_size == 16
    for k in range(1, 6):
        made = net.decode(ids[:, :k])
        assert made.shape == pictures.shape and 0 <= made.min() and made.max() <= 1


def test_first_keeps_the_first():
    assert first(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


def test_what_is_dropped_changes_nothing(net, pictures):
    codes, _ = net.codes(to_patches(pictures, 8))
    kept = first(torch.tensor([2, 2, 2]), 5)
    other = codes.clone()
    other[:, 2:] = torch.randn(3, 3, 2)
    assert net.rebuild(codes, kept).equal(net.rebuild(other, kept))
    other[:, 1] = -codes[:, 1]
    assert not net.rebuild(codes, kept).equal(net.rebuild(other, kept))


def test_decoding_a_beginning_is_rebuilding_with_the_tail_dropped(net, pictures):
    from mmcourse.painters import from_patches
    codes, ids = net.codes(to_patches(pictures, 8))
    rebuilt = from_patches(net.rebuild(codes, first(torch.tensor([3, 3, 3]), 5)), 2, 8)
    torch.testing.assert_close(net.decode(ids[:, :3]), rebuilt)


def test_every_register_sees_the_whole_picture(net, pictures):
    x = to_patches(pictures, 8).requires_grad_()
    codes, _ = net.codes(x)
    for j in range(5):
        (gradient,) = torch.autograd.grad(codes[0, j].sum(), x, retain_graph=True)
        assert (gradient[0].abs().sum(1) > 0).all()


def test_the_loss_teaches_encoder_and_decoder(pictures):
    net = NestedTokenizer(tokens=5, levels=(4, 4), side=2, patch=8, width=16, layers=1, heads=2)
    nested_loss(net, to_patches(pictures, 8), first(torch.tensor([1, 3, 5]), 5)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_it_can_learn_four_pictures():
    from mmcourse.optim import Optim
    from mmcourse.training import Run, train
    torch.manual_seed(0)
    net = NestedTokenizer(tokens=2, levels=(4, 4), side=2, patch=4, width=32, layers=1, heads=2)
    patches = to_patches(torch.rand(4, 3, 8, 8).round(), 4)
    train(net, lambda rng: (patches, first(torch.from_numpy(rng.integers(1, 3, 4)), 2)), nested_loss, steps=150,
          optim=Optim("muon", lr=3e-3, warmup=5), run=Run(progress=False))
    with torch.no_grad():
        assert nested_loss(net, patches, first(torch.full((4,), 2), 2)) < patches.square().mean()     # ten times the error


@pytest.mark.parametrize(("images", "sentence"), [
    (torch.rand(1, 3, 16, 24), r"shape \(B, 3, 16, 16\), got \(1, 3, 16, 24\)"), (torch.rand(3, 16, 16), "got"),
    (np.zeros((1, 3, 16, 16)), "got")])
def test_pictures_of_another_size(net, images, sentence):
    with pytest.raises(ValueError, match=sentence):
        net.encode(images)


@pytest.mark.parametrize(("ids", "error", "sentence"), [
    (torch.zeros(2, 6, dtype=torch.long), ValueError, "number of tokens is at most 5, got 6"),
    (torch.zeros(2, 0, dtype=torch.long), ValueError, "not empty"), (torch.zeros(2, 3), TypeError, "whole numbers"),
    (torch.full((2, 3), 16), ValueError, r"lie in 0..15, got 16..16")])
def test_ids_that_are_no_beginning(net, ids, error, sentence):
    with pytest.raises(error, match=sentence):
        net.decode(ids)
