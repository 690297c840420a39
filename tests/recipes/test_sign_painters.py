"""The painters of signs: eight small nets in one file, each the one that the study measures."""
import pytest
import torch

from mmcourse import checkpoints
from mmcourse import recipes as all_recipes
from mmcourse.experiments.sign_data import ARMS, key
from mmcourse.recipes import sign_painters
from mmcourse.recipes.sign_painters import SHIPPED, Case, Size, painter

TINY = Size(width=16, layers=1, heads=2, batch=4, pictures=60)


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(all_recipes, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(sign_painters, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(sign_painters, "measure", lambda painters, n=2, real=sign_painters.measure: real(painters, n))
    return tmp_path


def test_the_recipe_ships_eight_painters_that_write(here, capsys):
    sign_painters.main(["--steps", "2"], here, TINY)
    painters, vqvae = checkpoints.load("sign_painters", here), checkpoints.load("sign_vqvae")
    assert set(painters.painters) == {key(arm, prompt) for arm in ARMS for prompt in SHIPPED}
    for arm in ARMS:
        pictures = painters.write(["kite", "class"], arm, "letters", vqvae, "blue", 8, seed=1)
        assert pictures.shape == (2, 3, 32, 64) and 0 <= pictures.min() <= pictures.max() <= 1
        assert torch.equal(pictures, painters.write(["kite", "class"], arm, "letters", vqvae, "blue", 8, seed=1))
        assert not torch.equal(pictures, painters.write(["kite", "class"], arm, "letters", vqvae, "blue", 8, seed=2))
    with pytest.raises(ValueError, match="told 'letters' or 'bpe'"):
        painters.write(["kite"], "in order", "both", vqvae)
    with pytest.raises(ValueError, match="3 to 8 letters"):
        painters.write(["ox"], "in order", "letters", vqvae)


def test_a_painter_is_trained_once_and_kept(here, monkeypatch):
    first, saved = painter(Case("in order", "letters"), TINY, 2)
    monkeypatch.setattr(sign_painters, "train", lambda *args, **more: pytest.fail("trained again"))
    again, kept = painter(Case("in order", "letters"), TINY, 2)
    assert (saved["loss"], saved["minutes"]) == (kept["loss"], kept["minutes"])
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values()))


def test_all_arms_of_a_seed_see_the_same_pictures():
    import numpy as np
    made = [sign_painters.batches(Case(arm, "letters"), TINY)(np.random.default_rng((0, 7)))[0] for arm in ARMS]
    assert all(torch.equal(made[0], other) for other in made[1:])


def test_the_shipped_settings_are_those_that_the_study_chose():
    from mmcourse.files import results
    chosen = results("ch08_words")["settings"]
    assert {arm: found["chosen"] for arm, found in chosen.items()} == sign_painters.SETTINGS
