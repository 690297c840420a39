"""Ablations change what they say, and are compared seed by seed."""
import pytest
import torch

from mmcourse import show
from mmcourse.dataset import mixture_loss
from mmcourse.recipes.transformer import make_model
from mmcourse.studies import ch06_ablations as ablations
from mmcourse.vocabulary import OPEN, Vocabulary


def test_ablations_are_compared_seed_by_seed(capsys):
    def rows(arm, *bits):
        return [{"arm": arm, "seed": s, "bits": b and {"text->image": b}, "parameters": 9, "cpu_minutes": 0.5} for s, b in enumerate(bits)]
    found = ablations.summary(rows("as it is", 2.0, 3.0, 4.0) + rows("wider", 1.5, 2.4, 3.45) + rows("other", 2.2, 2.8, 4.0)
                              + rows("wild", 2.0, None, 3.0))
    means = [row["bits"]["text->image"] and row["bits"]["text->image"][0] for row in found]
    assert means[:3] == [pytest.approx(3.0), pytest.approx(-0.55), pytest.approx(0.0)] and means[3] is None
    show.sequence.ablations(found)
    said = capsys.readouterr().out
    assert "-0.550*" in said and "0.000 " in said and "0.000*" not in said and "diverged" in said


def test_an_arm_changes_what_it_says():
    vocabulary, ids = Vocabulary(100, 64, 64, 2), torch.randint(7, 200, (2, 12))
    ids[:, 0] = ids[:, 6] = OPEN["text"]

    def answer(change=None, **size):
        model = make_model(vocabulary, 0, **{**ablations.WHOLE, **size})
        if change:
            change(model)
        return model(ids)
    base = answer()
    for name, arm in ablations.ARMS.items():
        assert torch.equal(answer(arm.change, **arm.size), base) == (arm.change is None and not arm.size), name
    weights = torch.rand(2, 12)
    model = make_model(vocabulary, 0)
    same = ablations.all_tokens_loss(model, ids, weights)["loss"]
    assert same.item() == pytest.approx(mixture_loss(model, ids, torch.ones(2, 12))["loss"].item())
    assert same.item() != pytest.approx(mixture_loss(model, ids, weights)["loss"].item(), rel=1e-6)


def test_normed_queries_and_keys_have_one_length_and_values_are_left_alone():
    linear, x = torch.nn.Linear(8, 24, bias=False), torch.randn(2, 5, 8)
    plain, normed = linear(x).unflatten(-1, (3, 2, 4)), ablations.NormedQueriesAndKeys(linear, 2)(x).unflatten(-1, (3, 2, 4))
    assert torch.equal(plain[..., 2, :, :], normed[..., 2, :, :])
    assert torch.allclose(normed[..., :2, :, :].square().mean(-1), torch.ones(()), atol=1e-2)
    assert torch.allclose(normed[..., 0, :, :], torch.nn.functional.layer_norm(plain[..., 0, :, :], (4,)))
