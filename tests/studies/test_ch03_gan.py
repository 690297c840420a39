"""The critic and the perceptual loss of chapter 03: what they see, and how they are weighed."""
import numpy as np
import pytest
import torch
from torch import nn

from mmcourse.judges.picture_net import PictureNet
from mmcourse.studies import ch03_gan
from mmcourse.vqvae import make_decoder


@pytest.fixture(scope="module")
def perceptual():
    torch.manual_seed(0)
    return ch03_gan.Perceptual(PictureNet(16))


@pytest.fixture
def decoder():
    torch.manual_seed(1)
    return make_decoder(16, 4)


def test_equal_pictures_look_equal_and_the_gradient_goes_to_the_painting(perceptual):
    a, b = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64, requires_grad=True)
    assert perceptual(a, a) == 0 and perceptual(a, b) > 0
    perceptual(b, a).backward()
    assert b.grad.abs().sum() > 0 and all(p.grad is None for p in perceptual.parameters())


def test_the_critic_sees_18_pixels():
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    said = ch03_gan.Critic(8)(x)
    assert said.shape == (1, 1, 16, 16)
    said[0, 0, 8, 8].backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert len(rows) == 18 and int(rows[-1] - rows[0]) == 17


def test_the_critic_learns_and_is_at_a_loss_where_there_is_no_difference(perceptual):
    loss, truth = ch03_gan.PerceptualLoss(perceptual, 0, 1.0), torch.rand(8, 3, 64, 64)
    blurred = nn.functional.avg_pool2d(truth, 3, 1, 1)
    found = [loss.teach_the_critic(blurred, truth).item() for _ in range(60)]
    assert found[0] > 1.5 and np.mean(found[-5:]) < 0.5
    same = ch03_gan.PerceptualLoss(perceptual, 0, 1.0)
    assert np.mean([same.teach_the_critic(truth, truth).item() for _ in range(20)]) > 1.9


WAYS = ch03_gan.ways(ch03_gan.Plan())


@pytest.mark.parametrize("strength, adversarial", WAYS.values(), ids=WAYS)
def test_every_way_gives_a_loss_and_the_critic_is_weighed(perceptual, decoder, strength, adversarial):
    codes, truth = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 64, 64)
    loss = ch03_gan.PerceptualLoss(perceptual, strength, adversarial)
    before = loss.critic[0].weight.clone()
    out = loss(decoder, codes, truth)
    assert torch.equal(before, loss.critic[0].weight) != bool(adversarial) and ("critic" in out) == bool(adversarial)
    if adversarial:                                     # the critic's share of the last layer's gradient is what was asked for
        rest = ch03_gan.PerceptualLoss(perceptual, strength, 0)(decoder, codes, truth)["loss"]
        last = decoder[-2].weight
        asked = torch.autograd.grad(rest, last)[0]
        whole = torch.autograd.grad(out["loss"], last)[0]
        assert (whole - asked).norm() / asked.norm() == pytest.approx(adversarial, rel=1e-3)


def test_all_four_go_on_from_the_same_weights(monkeypatch):
    """A decoder that is trained on leaves the first one as it was."""
    plan = ch03_gan.Plan(first_steps=1, net_steps=1, steps=1, judged=4)
    model = ch03_gan.first_model(plan)[0]
    before = {name: weight.clone() for name, weight in model.decoder.state_dict().items()}
    seen = []
    monkeypatch.setattr(ch03_gan, "measure", lambda model, decoder, own, plan: seen.append(decoder) or {})
    for name in WAYS:
        ch03_gan.row(plan, name)
    assert all(torch.equal(weight, before[name]) for name, weight in model.decoder.state_dict().items())
    assert all(not torch.equal(d[0].weight, before["0.weight"]) for d in seen)
    assert not torch.equal(seen[0][0].weight, seen[1][0].weight)
