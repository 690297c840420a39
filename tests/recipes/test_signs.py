"""The recipes of the signs: batches and first weights depend on the seed alone; painters share one budget of FLOPs."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.experiments.sign_data import ARMS
from mmcourse.recipes import sign_painters, sign_vqvae
from mmcourse.recipes.sign_painters import Case, Size
from mmcourse.world.signs import all_pictures

TOY = Size(width=16, layers=1, heads=2, batch=8, pictures=50, tokenizer=2)


def test_batches_and_first_weights_depend_on_the_seed_alone():
    batches = sign_vqvae.batches(all_pictures("train")[:50])
    (a,), (b,) = (batches(np.random.default_rng((0, 5))) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (sign_vqvae.BATCH, 3, 32, 64)
    for make in (sign_vqvae.make, lambda seed: sign_painters.make(Case(ARMS[0], seed=seed), TOY)):
        one, two, other = (make(seed).state_dict() for seed in (0, 0, 1))
        assert all(torch.equal(v, two[k]) for k, v in one.items())
        assert any(not torch.equal(v, other[k]) for k, v in one.items())


def test_the_shipped_tokenizer_has_the_recipes_shape_and_the_measures_of_its_manifest():
    shipped, metrics = checkpoints.load("sign_vqvae"), checkpoints.manifest()["sign_vqvae"]["metrics"]
    assert shipped.config == sign_vqvae.make().config and metrics["psnr_db"] > 40
    assert sign_vqvae.measure(shipped, n=64)["psnr_db"] == pytest.approx(metrics["psnr_db"], abs=2)


@pytest.mark.parametrize("arm", ARMS)
def test_a_step_costs_the_same_whatever_the_seed_and_more_for_a_longer_prompt(arm):
    cost = {prompt: sign_painters.step_flops(Case(arm, prompt), TOY) for prompt in ("bpe", "letters", "both")}
    assert cost["bpe"] < cost["letters"] < cost["both"]
    assert sign_painters.step_flops(Case(arm, "bpe", seed=1), TOY) == cost["bpe"]
