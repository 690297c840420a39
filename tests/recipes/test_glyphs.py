"""The recipe of the boards' tokenizer: batches and first weights depend on the seed alone, its measures mean what they say."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.recipes import glyph_vqvae
from mmcourse.world.glyphs import GLYPHS, Board, draw


class Exact:
    """A stand-in for a tokenizer that loses nothing: a token for each patch it ever saw, found again to the bit."""

    def __init__(self):
        self.patches = []

    def encode(self, images):
        patches = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5)       # (B, h, w, 3, 8, 8)
        for patch in patches.flatten(0, 2):
            if not any(torch.equal(patch, known) for known in self.patches):
                self.patches.append(patch)
        known = torch.stack(self.patches)
        return (patches[:, :, :, None] == known).flatten(4).all(4).int().argmax(3)

    def decode(self, ids):
        return torch.stack(self.patches)[ids].permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


class Blind(Exact):
    """One that has a single token."""

    def encode(self, images):
        return super().encode(images) * 0


def test_batches_and_first_weights_depend_on_the_seed_alone():
    (a,), (b,) = (glyph_vqvae.batch(np.random.default_rng((0, 5))) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (glyph_vqvae.BATCH, 3, 32, 32)
    one, two, other = (glyph_vqvae.make(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert any(not torch.equal(v, other[k]) for k, v in one.items())


def test_it_trains_measures_and_ships_at_toy_size(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(glyph_vqvae, "measure", lambda model, real=glyph_vqvae.measure: real(model, n=2, boards=8))
    glyph_vqvae.main(["--steps", "2"], tmp_path)
    made, metrics = checkpoints.load("glyph_vqvae", tmp_path), checkpoints.manifest(tmp_path)["glyph_vqvae"]["metrics"]
    again = glyph_vqvae.measure(made)
    assert again == metrics and 0 < metrics["psnr_db"] < 30 and 0 < metrics["codes_used"] <= 512
    assert (tmp_path / "glyph_vqvae.safetensors").stat().st_size < 600_000


def test_what_readable_and_same_tokens_mean():
    whats = list(range(3, 13))                          # more than grounds
    assert glyph_vqvae.readable(Exact(), whats) == 1 and glyph_vqvae.readable(Blind(), whats) <= 0.2
    assert glyph_vqvae.same_tokens(Blind(), whats) == 1
    # To the bit, an inked patch is another on each ground: a token has its most frequent self on one of eight.
    assert glyph_vqvae.same_tokens(Exact(), [0]) == pytest.approx(1 / 8)


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("glyph_vqvae")


def test_the_shipped_tokenizer_is_fit_for_learning_from_examples(shipped):
    metrics = checkpoints.manifest()["glyph_vqvae"]["metrics"]
    assert shipped.config == glyph_vqvae.make().config
    assert metrics["readable_glyphs"] >= 0.95 and metrics["readable_nouns"] == metrics["readable_letters"] == 1
    assert metrics["same_tokens_glyphs"] == metrics["same_tokens_letters"] == 1 and metrics["same_tokens_nouns"] >= 0.9
    assert glyph_vqvae.measure(shipped, n=8, boards=128)["psnr_db"] == pytest.approx(metrics["psnr_db"], abs=0.5)


@torch.no_grad()
def test_a_shipped_token_says_what_is_in_its_patch_and_nothing_else(shipped):
    """Two glyphs beside each other have the tokens that each has alone; the other patches are one ground's."""
    a, b = GLYPHS["test"][0], GLYPHS["test"][1]
    both, left, right = shipped.encode(draw([Board("green", [(a, (0, 0)), (b, (0, 2))]), Board("green", [(a, (0, 0))]),
                                             Board("red", [(b, (2, 1))])]))
    assert torch.equal(both[:2, :2], left[:2, :2]) and torch.equal(both[:2, 2:], right[2:, 1:3])
    assert len({*both[2:].flatten().tolist(), *left[2:].flatten().tolist()}) == 1
    assert int(right[0, 0]) != int(both[3, 0])


@torch.no_grad()
def test_with_context_0_a_token_sees_its_patch_alone():
    encoder, x = glyph_vqvae.make().encoder, torch.rand(1, 3, 32, 32)
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[8:16, 16:24] = False
    seen = encoder(torch.where(outside, torch.rand(1, 3, 32, 32), x))[0, :, 1, 2]
    assert torch.allclose(seen, encoder(x)[0, :, 1, 2], atol=1e-5)
    for row, column in ((8, 16), (15, 23)):
        changed = x.clone()
        changed[0, :, row, column] = 1 - x[0, :, row, column].round()
        assert not torch.allclose(seen, encoder(changed)[0, :, 1, 2], atol=1e-5), "it sees all of its patch"
