"""How weights move: which optimizer has which weights, rates and their schedule, Muon against the SVD, the running mean."""
import pytest
import torch
from torch import nn

from mmcourse.optim import EMA, Muon, Optim, make_optimizers, orthogonalize, schedule, set_rates
from mmcourse.transformer import Transformer


class Tiny(nn.Module):
    """Weights of every kind: an embedding, a hidden layer with its bias, a head."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1)


def names_of(model: nn.Module, optimizer) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for group in optimizer.param_groups for p in group["params"]}


# ---- which optimizer has which weights

def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = Tiny()
    adamw, muon = make_optimizers(model, Optim("muon", weight_decay=0.1))
    assert isinstance(muon, Muon) and names_of(model, muon) == {"hidden.weight"}
    decays = {id(p): g["weight_decay"] for g in adamw.param_groups for p in g["params"]}
    assert decays[id(model.embed.weight)] == 0.1 and decays[id(model.hidden.bias)] == 0.0
    assert len(decays) + 1 == len(list(model.parameters()))


def test_of_a_transformer_muon_takes_the_matrices_of_the_blocks():
    model = Transformer(40, 32, 2, 4, 32)
    adamw, muon = make_optimizers(model, Optim("muon"))
    hidden, rest = names_of(model, muon), names_of(model, adamw)
    assert all(n.startswith("blocks.") and "norm" not in n for n in hidden) and len(hidden) == 8
    assert hidden | rest == {n for n, _ in model.named_parameters()} and not hidden & rest


def test_adamw_takes_everything_and_nobody_what_is_frozen():
    model = Tiny()
    model.hidden.weight.requires_grad_(False)
    (adamw,) = make_optimizers(model, Optim())
    assert names_of(model, adamw) == {n for n, _ in model.named_parameters()} - {"hidden.weight"}
    assert len(make_optimizers(model, Optim("muon"))) == 1, "no matrix is left for Muon"


def test_an_optimizer_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'adamw' or 'muon', got 'sgd'"):
        Optim("sgd")


# ---- rates

def test_rates_are_set_as_factors_of_the_first_ones():
    optimizers = make_optimizers(Tiny(), Optim("muon", lr=0.5, muon_lr=0.25))
    for factor in (0.1, 1.0, 0.5):                                     # never of the rate that is set already
        set_rates(optimizers, factor)
        assert [g["lr"] for o in optimizers for g in o.param_groups] == pytest.approx([0.5 * factor, 0.5 * factor, 0.25 * factor])


def test_the_schedule_warms_up_then_falls_to_its_floor():
    factors = [schedule(s, 100, 10) for s in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:])) and factors[100] == pytest.approx(0.05)
    assert schedule(1000, 100, 10) == pytest.approx(0.05) and schedule(0, 100, 0) == 1


# ---- Muon

@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 7)])
def test_orthogonalize_drives_the_singular_values_near_one(shape):
    matrix = torch.randn(shape)
    out = orthogonalize(matrix)
    assert out.shape == matrix.shape
    values = torch.linalg.svdvals(out)
    # quintic Newton-Schulz with these coefficients overshoots on purpose; tiny singular values may lag behind
    assert values.max() < 1.3 and values.median() > 0.6
    U, _, V = torch.linalg.svd(matrix, full_matrices=False)
    assert nn.functional.cosine_similarity(out.flatten(), (U @ V).flatten(), dim=0) > 0.95


def test_orthogonalize_ignores_scale_and_survives_zero():
    matrix = torch.randn(6, 4)
    assert torch.allclose(orthogonalize(matrix), orthogonalize(1000 * matrix), atol=1e-3)
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_muons_steps_by_hand_on_a_kernel_taken_as_a_matrix():
    """Two steps: momentum 0.95 with Nesterov's look ahead, weight decay, and a larger rate for tall matrices."""
    conv = nn.Conv2d(1, 27, 3)                                         # as a matrix (27, 9): three times as tall as wide
    (_, muon), weight, momentum = make_optimizers(conv, Optim("muon", weight_decay=0.1)), conv.weight.detach().clone(), 0.0
    for _ in range(2):
        conv(torch.randn(2, 1, 6, 6)).square().sum().backward()
        gradient = conv.weight.grad.clone()
        muon.step()
        muon.zero_grad()
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum
        weight = weight * (1 - 0.02 * 0.1) - 0.02 * 3**0.5 * orthogonalize(ahead.flatten(1)).view_as(weight)
        assert torch.allclose(conv.weight, weight, atol=1e-6)


def test_muon_leaves_what_has_no_gradient_alone():
    model = Tiny()
    before = model.hidden.weight.detach().clone()
    make_optimizers(model, Optim("muon", weight_decay=0.1))[1].step()
    assert torch.equal(model.hidden.weight, before)


# ---- the running mean of the weights

def test_the_mean_follows_the_weights_quickly_at_first_then_calmly():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    mean, expected = EMA(model, 0.2), 0.0
    for k, value in enumerate((1.0, 3.0, 2.0), 1):
        nn.init.constant_(model.weight, value)
        mean.update(model)
        decay = min(0.2, k / (k + 9))
        expected = decay * expected + (1 - decay) * value
        assert mean.weights["weight"].item() == pytest.approx(expected)
    mean.copy_to(model)
    assert model.weight.item() == pytest.approx(expected)
    for decay in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            EMA(model, decay)
