"""The image tokenizer: its layers, what a token sees, pictures <-> ids, bad input, training, what is shipped."""
import math

import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.optim import Optim
from mmcourse.recipes import vqvae as recipe
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE, ChannelNorm, ResidualBlock, matte, vqvae_loss
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene, sample_scene


@pytest.fixture(scope="module")
def small() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(codebook_size=64, dim=8, width=32).eval()


@pytest.fixture(scope="module")
def shipped() -> VQVAE:
    return checkpoints.load("vqvae")


def scenes(n: int, split: str = "train", seed: int = 0, jitter: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return draw_batch([sample_scene(rng, split, jitter=jitter) for _ in range(n)])


# ---- the layers

def test_channel_norm_is_layer_norm_of_each_position():
    x = torch.randn(2, 6, 3, 5)
    out = ChannelNorm(6)(x)
    assert torch.allclose(out.mean(1), torch.zeros(2, 3, 5), atol=1e-5)
    assert torch.allclose(out[1, :, 2, 4], torch.nn.functional.layer_norm(x[1, :, 2, 4], (6,)), atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_residual_block_sees_as_far_as_its_kernel(kernel):
    block = ResidualBlock(4, kernel)
    x = torch.randn(1, 4, 7, 7)
    y = x.clone()
    y[0, :, 3, 3] = torch.randn(4)
    changed = ((block(x) - block(y)).abs() > 1e-5).any(1)[0]
    assert int(changed.sum()) == kernel**2 and changed[3, 3]


@torch.no_grad()
def test_with_context_1_a_token_sees_its_patch_and_four_pixels(small):
    x = torch.rand(1, 3, 64, 64)
    row, column = 3, 4
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[8 * row - 4:8 * row + 12, 8 * column - 4:8 * column + 12] = True
    seen = torch.where(inside, x, torch.rand(1, 3, 64, 64))            # everything else is replaced
    a, b = (small.encoder(v * 2 - 1)[0, :, row, column] for v in (x, seen))
    assert torch.allclose(a, b, atol=1e-5)
    x[0, :, 8 * row - 4, 8 * column] = 1 - x[0, :, 8 * row - 4, 8 * column].round()
    assert not torch.allclose(a, small.encoder(x * 2 - 1)[0, :, row, column], atol=1e-5)


def test_tokens_move_with_the_picture_by_whole_patches(small):
    x = torch.rand(2, 3, 64, 64)
    moved = x.roll((8, 16), (2, 3))
    a, b = small.encode(x).roll((1, 2), (1, 2)), small.encode(moved)
    assert (a == b)[:, 2:-1, 3:-1].float().mean() > 0.99               # not at the border, which sees the padding
    wide = VQVAE(codebook_size=64, dim=8, width=32, context=3).eval()
    assert wide.encode(x).shape == (2, 8, 8)


# ---- the model

def test_what_is_quantized_is_the_encoding_of_the_matted_picture(small):
    x = scenes(3)
    z = small.vectors(x)
    assert z.shape == (3, 8, 8, 8) and torch.equal(z, small.encoder(matte(x) * 2 - 1).permute(0, 2, 3, 1))


def test_forward_encode_and_decode_agree(small):
    x = scenes(4)
    reconstruction, indices, commitment = small(x)
    assert reconstruction.shape == x.shape and commitment.ndim == 0
    ids = small.encode(x)
    assert torch.equal(ids, indices) and ids.shape == (4, 8, 8) and ids.dtype == torch.int64
    assert torch.allclose(small.decode(ids), reconstruction.clamp(0, 1), atol=1e-5)
    assert small.vocab_size == 64 and small.config == {"codebook_size": 64, "dim": 8, "width": 32, "context": 1}


@pytest.mark.parametrize("height, width", [(8, 8), (64, 64), (16, 80)])
def test_any_multiple_of_eight_goes_in_and_comes_out(small, height, width):
    ids = small.encode(torch.rand(2, 3, height, width))
    assert ids.shape == (2, height // 8, width // 8)
    assert small.decode(ids).shape == (2, 3, height, width)


def test_no_pictures_no_tokens(small):
    assert small.encode(torch.zeros(0, 3, 64, 64)).shape == (0, 8, 8)
    assert small.decode(torch.zeros(0, 8, 8, dtype=torch.long)).shape == (0, 3, 64, 64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_floats_give_the_same_tokens(small, dtype):
    x = scenes(2)
    assert (small.encode(x.to(dtype)) == small.encode(x)).float().mean() > 0.9


@pytest.mark.parametrize("bad, error, says", [
    (torch.rand(3, 64, 64), ValueError, r"batch of one: use \[None\]"),
    (torch.rand(1, 64, 64, 3), ValueError, "channels are last"),
    (torch.rand(1, 1, 64, 64), ValueError, r"grey has one channel: use \.expand"),
    (torch.rand(1, 4, 64, 64), ValueError, "the fourth channel is alpha"),
    (torch.rand(1, 2, 64, 64), ValueError, "shape"),
    (torch.rand(1, 3, 5, 3), ValueError, "multiples of 8, got 5x3"),
    (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, "divide uint8 pixels by 255"),
    (torch.rand(1, 3, 63, 64), ValueError, "multiples of 8"),
    (torch.rand(1, 3, 0, 64), ValueError, "multiples of 8"),
    (torch.full((1, 3, 64, 64), math.nan), ValueError, "NaN"),
    (torch.full((1, 3, 64, 64), math.inf), ValueError, "infinite"),
    (255 * torch.rand(1, 3, 64, 64), ValueError, r"\[0, 1\]"),
    (torch.rand(1, 3, 64, 64) * 2 - 1, ValueError, r"\[0, 1\]"),
    (np.zeros((1, 3, 64, 64)), ValueError, "tensor"),
    (None, ValueError, "NoneType"),
])
def test_what_is_no_picture_gets_a_clear_error(small, bad, error, says):
    with pytest.raises(error, match=says):
        small.encode(bad)


def test_what_the_errors_advise_works(small):
    grey, alpha, last = torch.rand(1, 1, 64, 64), torch.rand(1, 4, 64, 64), torch.rand(1, 64, 64, 3)
    for x in (grey.expand(-1, 3, -1, -1), alpha[:, :3], last.permute(0, 3, 1, 2), alpha[0, :3][None]):
        assert small.encode(x).shape == (1, 8, 8)
    assert small.encode(torch.full((1, 3, 64, 64), 1 + 5e-4)).shape == (1, 8, 8)       # a rounding error is no wrong range


@pytest.mark.parametrize("bad, says", [
    (torch.zeros(8, 8, dtype=torch.long), "shape"),
    (torch.full((1, 8, 8), 64), "0..63"),
    (torch.full((1, 8, 8), -1), "0..63"),
    ([[1, 2]], "integer"),
])
def test_what_are_no_ids_get_a_clear_error(small, bad, says):               # every kind: tests/core/test_checks.py
    with pytest.raises(ValueError, match=says):
        small.decode(bad)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_small_integers_are_ids_too(small, dtype):
    ids = torch.arange(64).reshape(1, 8, 8)
    assert torch.equal(small.decode(ids.to(dtype)), small.decode(ids))


# ---- training

def test_the_loss_dict_says_psnr_and_perplexity(small):
    out = vqvae_loss(small, scenes(2))
    x = scenes(2)
    reconstruction, indices, _ = small(x)
    assert out["psnr"].item() == pytest.approx(-10 * math.log10((x - reconstruction).square().mean().item()), abs=1e-3)
    assert 1 <= out["perplexity"] <= min(64, 128)
    assert out["loss"].requires_grad and not out["psnr"].requires_grad


def test_a_short_run_learns_and_is_repeatable():
    def batch(rng):
        return (draw_batch([sample_scene(rng, jitter=2) for _ in range(8)]),)

    results = []
    for _ in range(2):
        torch.manual_seed(0)
        model = VQVAE(codebook_size=64, dim=8, width=32)
        history = train(model, batch, vqvae_loss, steps=25, optim=Optim(lr=4e-3, warmup=5),
                        run=Run(log_every=1, progress=False))
        results.append((history.column("loss"), model.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(v, results[1][1][k]) for k, v in results[0][1].items())
    assert np.mean(results[0][0][-5:]) < 0.6 * results[0][0][0]


# ---- what is shipped

def test_the_shipped_tokenizer_is_what_its_manifest_says(shipped):
    metrics = checkpoints.manifest()["vqvae"]["metrics"]
    assert metrics["psnr_db"] >= 20 and metrics["codes_used_unnamed"] >= 0.9 * 512
    assert shipped.config == recipe.make().config and not shipped.training
    found = recipe.measure(shipped, n=128)
    print("128 held-out scenes:", found)
    assert found["psnr_db"] == pytest.approx(metrics["psnr_db"], abs=0.5)


def test_the_shipped_tokens_are_the_nearest_codes_and_nothing_else(shipped):
    images = scenes(8, "held-out", seed=2)
    with torch.no_grad():
        z = shipped.vectors(images).flatten(0, 2)
    squares = torch.cdist(z.double(), shipped.quantizer.codebook.double()).square()
    ids = shipped.encode(images).flatten()
    assert torch.allclose(squares.gather(1, ids[:, None])[:, 0], squares.min(1).values, rtol=1e-4)
    assert {name for name in shipped.state_dict() if name.startswith("quantizer")} == {
        f"quantizer.{name}" for name in ("codebook", "cluster_size", "embed_sum", "initialized")}


def test_the_same_object_has_the_same_tokens_on_the_left_and_on_the_right(shipped):
    left, right = (Scene((Group("cat", 1, place),), "blue") for place in ("left", "right"))
    ids = shipped.encode(draw_batch([left, right]))
    # the object's box is 24 pixels wide from 4 (or 36): patches 1 and 2 (or 5 and 6) of rows 2 to 4 see nothing else
    assert torch.equal(ids[0, 2:5, 1:3], ids[1, 2:5, 5:7])


def test_a_decoded_picture_is_nearer_to_its_own_scene_than_to_another(shipped):
    x = scenes(32, "held-out", seed=5)
    y = shipped.decode(shipped.encode(x))
    distance = torch.cdist(y.flatten(1), x.flatten(1))
    assert torch.equal(distance.argmin(1), torch.arange(32))
