"""Batches for the painters: each prompt tells its own picture, all arms of a step have the same ones."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.experiments.sign_data import ARMS, LATENTS, PIXELS, SignData, SignPainters, to_pictures
from mmcourse.experiments.spelling import PROMPTS, prompt_ids
from mmcourse.painters import to_patches
from mmcourse.world.signs import draw_signs, words_of


@pytest.fixture(scope="module")
def vqvae():
    return checkpoints.load("sign_vqvae")


@pytest.fixture(scope="module")
def data(vqvae):
    return SignData(vqvae, limit=60)


def test_a_prompt_tells_its_own_picture(data):
    for kind in PROMPTS:
        told = data.prompts(kind)
        for i, scene in enumerate(data.scenes[:20]):
            assert told[i].tolist() == prompt_ids(scene.sign, kind, scene.background, scene.shift[1])
    assert {scene.sign.lower() for scene in data.scenes} <= set(words_of("train"))


def test_all_arms_learn_from_the_same_pictures(data, vqvae):
    made = {arm: data.batches(arm, "letters", 16)(np.random.default_rng((0, 3))) for arm in ARMS}
    prompts = made[ARMS[0]][0]
    assert all(torch.equal(prompts, other) for other, _ in made.values())
    values = {arm: to_pictures(made[arm][1], arm, vqvae, data.spread) for arm in ARMS}
    for arm in ARMS:
        assert (values[arm] - values[PIXELS]).abs().max() < 0.25, arm
    assert torch.equal(made[ARMS[0]][1], made[ARMS[1]][1])


def test_some_prompts_are_silent_and_few_pictures_are_few(data):
    batch = data.batches(ARMS[0], "bpe", 2000, unique=3)
    prompts, ids = batch(np.random.default_rng(0))
    assert 0.07 < (prompts == 0).all(1).float().mean() < 0.13 and len(ids.unique(dim=0)) == 3


def test_scaled_latents_have_size_one_and_lead_back(data, vqvae):
    prompts, values = data.batches(LATENTS, "letters", 2000)(np.random.default_rng(0))
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.1
    truth = draw_signs(data.scenes[:8])
    mean, std = data.spread
    assert (to_pictures((data.encoded[1][:8].float() - mean) / std, LATENTS, vqvae, data.spread) - truth).abs().max() < 0.2
    assert torch.equal(to_pictures(to_patches(truth), PIXELS, vqvae), truth.clamp(0, 1)) or torch.allclose(
        to_pictures(to_patches(truth), PIXELS, vqvae), truth, atol=1e-6)


@pytest.mark.parametrize("arm", ARMS)
def test_every_painter_writes_words_and_says_what_it_cannot(arm, vqvae):
    painters = SignPainters(width=16, layers=1, heads=2).eval()
    again = SignPainters(**painters.config)
    assert again.state_dict().keys() == painters.state_dict().keys()
    for kind in painters.kinds:
        one, two = (painters.write(["class", "tuple"], arm, kind, vqvae, seed=s) for s in (0, 0))
        assert one.shape == (2, 3, 32, 64) and torch.equal(one, two) and 0 <= one.min() and one.max() <= 1
    with pytest.raises(ValueError, match="told 'letters' or 'bpe'"):
        painters.write(["class"], arm, "both", vqvae)
    with pytest.raises(ValueError, match="no '0'"):
        painters.write(["w0rd"], arm, "letters", vqvae)
