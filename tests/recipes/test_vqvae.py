"""The image tokenizer's recipe: batches and first weights depend on the seed alone; the sign's rows count more."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.recipes import vqvae as recipe
from mmcourse.vqvae import vqvae_loss


def test_batches_and_first_weights_depend_on_the_seed_alone():
    (a,), (b,) = (recipe.batch(np.random.default_rng((0, 5))) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (recipe.BATCH, 3, 64, 64)
    one, two, other = (recipe.make(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert not torch.equal(one["encoder.0.weight"], other["encoder.0.weight"])


def test_what_is_shipped_has_the_recipes_shape_and_the_measures_of_its_manifest():
    shipped, metrics = checkpoints.load("vqvae"), checkpoints.manifest()["vqvae"]["metrics"]
    assert shipped.config == recipe.make().config
    assert metrics["psnr_db"] >= 20 and metrics["codes_used_unnamed"] >= 0.9 * 512
    assert recipe.measure(shipped, n=128)["psnr_db"] == pytest.approx(metrics["psnr_db"], abs=0.5)


def test_an_error_in_the_signs_rows_counts_more():
    model, images = recipe.make().eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        painted = model(images)[0]
        above, below = images.clone(), images.clone()
        above[:, :, :20], below[:, :, 56:60] = painted[:, :, :20], painted[:, :, 56:60]
        plain = [vqvae_loss(model, images)["loss"] - model(images)[2], recipe.loss(model, images)["loss"] - model(images)[2]]
    squares = (painted - images).square().mean((0, 1, 3))
    weights = torch.ones(64)
    weights[recipe.SIGN_TOP - recipe.JITTER:] = recipe.SIGN_WEIGHT
    assert (plain[1] / plain[0]).item() == pytest.approx((squares * weights).mean().item() / squares.mean().item(), rel=1e-4)
