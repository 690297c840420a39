"""FSQ and the other quantizers of chapter 03: against the library, against arithmetic, and in a short run."""
import io
import json
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmcourse import checkpoints
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.quantize import FSQ, nearest_code
from mmcourse.studies import ch03_jpeg, ch03_sweep
from mmcourse.training import Run, train
from mmcourse.vqvae import matte

ALL_LEVELS = [(8, 8, 8), (8, 8, 8, 4, 4), (5, 3, 2), (7, 5), (2,)]


# ---- FSQ

@pytest.mark.parametrize("levels", ALL_LEVELS)
def test_fsq_is_the_nearest_point_of_its_own_grid(levels):
    torch.manual_seed(0)
    fsq, x = FSQ(levels), 1.5 * torch.randn(3000, len(levels))
    out, ids, loss = fsq(x)
    assert fsq.codebook.shape == (math.prod(levels), len(levels)) and fsq.codes == math.prod(levels) and loss == 0
    assert ids.dtype == torch.int64 and torch.equal(ids, nearest_code(x.tanh(), fsq.codebook))
    assert torch.allclose(out, fsq.codebook[ids], atol=1e-6) and out.abs().max() <= 1 + 1e-6
    reach = fsq((fsq.codebook * 0.999).atanh())[1]
    assert torch.equal(reach, torch.arange(fsq.codes))                     # nothing is out of reach
    assert len(fsq.codebook.unique(dim=0)) == fsq.codes


def test_fsq_lets_the_gradient_of_tanh_through_and_learns_nothing():
    fsq, x = FSQ((8, 5)), torch.tensor([[0.3, -1.2]], requires_grad=True)
    weight = torch.tensor([[2.0, -3.0]])
    (gradient,) = torch.autograd.grad((fsq(x)[0] * weight).sum(), x)
    assert torch.allclose(gradient, weight * (1 - x.tanh() ** 2), atol=1e-6)
    assert not list(fsq.parameters()) and not fsq.state_dict()


@pytest.mark.parametrize("levels", [(), (8, 1), (0,)])
def test_fsq_needs_levels(levels):
    with pytest.raises(ValueError, match="two levels or more"):
        FSQ(levels)


def test_fsq_saturates_instead_of_leaving_its_range():
    ids = FSQ((8, 8, 8))(torch.tensor([[-1e9, -1e9, -1e9], [1e9, 1e9, 1e9]]))[1]
    assert ids.tolist() == [0, 511]


# ---- the library as an oracle

@pytest.mark.parametrize("codes", [64, 512, 8192])
def test_indices_equal_the_librarys_with_its_codebook(codes):
    peer = pytest.importorskip("vector_quantize_pytorch").VectorQuantize(16, codes).eval()
    torch.manual_seed(codes)
    book, x = torch.randn(codes, 16), torch.randn(5000, 16)
    peer._codebook.embed.data.copy_(book[None])
    assert torch.equal(peer(x[None])[1][0], nearest_code(x, book))


@pytest.mark.parametrize("levels", ALL_LEVELS)
def test_fsq_equals_the_librarys(levels):
    peer = pytest.importorskip("vector_quantize_pytorch").FSQ(levels, preserve_symmetry=True)
    torch.manual_seed(0)
    x = (2 * torch.randn(5000, len(levels))).requires_grad_()
    (out, ids, _), (theirs, their_ids) = FSQ(levels)(x), peer(x[None])
    assert torch.equal(ids, their_ids[0]) and torch.allclose(out, theirs[0], atol=1e-6)
    ours, other = (torch.autograd.grad((v * torch.arange(1.0, len(levels) + 1)).sum(), x)[0] for v in (out, theirs))
    assert torch.allclose(ours, other, atol=1e-6)


def test_the_rotation_trick_equals_the_librarys():
    module = pytest.importorskip("vector_quantize_pytorch.vector_quantize_pytorch")
    torch.manual_seed(0)
    x, codes, weight = torch.randn(50, 8, requires_grad=True), torch.randn(50, 8), torch.randn(50, 8)
    ours, theirs = ch03_sweep.rotate_towards(x, codes), module.rotate_to(x, codes)
    assert torch.allclose(ours, codes, atol=1e-5) and torch.allclose(theirs, codes, atol=1e-4)
    a, b = (torch.autograd.grad((v * weight).sum(), x)[0] for v in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-3)


# ---- the quantizers of the ablation

def test_the_rotation_keeps_angles_and_reduces_to_a_copy():
    torch.manual_seed(0)
    x = torch.randn(20, 6, requires_grad=True)
    codes, g = torch.randn(20, 6), torch.randn(20, 6)
    (gradient,) = torch.autograd.grad((ch03_sweep.rotate_towards(x, codes) * g).sum(), x)
    assert torch.allclose(F.cosine_similarity(gradient, x), F.cosine_similarity(g, codes), atol=1e-5)
    (gradient,) = torch.autograd.grad((ch03_sweep.rotate_towards(x, x.detach()) * g).sum(), x)
    assert torch.allclose(gradient, g, atol=1e-4)                          # a vector on its code needs no turning


@pytest.mark.parametrize("gradient, arrives", [("straight", True), ("rotated", True), ("forgotten", False)])
def test_the_copy_forgotten_gives_the_encoder_no_gradient_of_the_picture(gradient, arrives):
    torch.manual_seed(0)
    quantizer, x = ch03_sweep.Learned(32, 4, gradient=gradient), torch.randn(10, 4, requires_grad=True)
    out, indices, loss = quantizer(x)
    assert torch.allclose(out, quantizer.codebook[indices], atol=1e-5)
    (found,) = torch.autograd.grad(out.square().sum(), x, allow_unused=True, retain_graph=True)
    assert (found is not None) == arrives
    to_x, to_codes = torch.autograd.grad(loss, (x, quantizer.codebook))
    assert to_x.abs().sum() > 0 and to_codes.abs().sum() > 0


def test_the_k_means_start_waits_and_then_fills():
    torch.manual_seed(0)
    quantizer = ch03_sweep.Learned(16, 4, start="k-means", warmup=3).train()
    x = 50 + torch.randn(100, 4)
    for _ in range(3):
        out, _, loss = quantizer(x)
        assert torch.equal(out, x) and loss == 0
    assert quantizer.codebook.min() > 40
    assert not torch.equal(quantizer(x)[0], x)


def test_length_one_and_restart():
    torch.manual_seed(0)
    out = ch03_sweep.Learned(32, 8, normalise=True).eval()(5 * torch.randn(40, 8))[0]
    assert torch.allclose(out.norm(dim=1), torch.ones(40), atol=1e-5)
    quantizer = ch03_sweep.Learned(64, 4, restart=True).train()
    x = 30 + torch.randn(400, 4)
    for _ in range(250):
        quantizer(x)
    assert len(nearest_code(x, quantizer.codebook.data).unique()) > 48
    alone = ch03_sweep.Averaged(64, 4).train()
    for _ in range(250):
        alone(x)
    assert len(nearest_code(x, alone.codebook).unique()) < 16


# ---- the sweep

@pytest.mark.parametrize("name", ["FSQ 8192 patch 8", "VQ 512 patch 16", "FSQ 512 patch 16", "cure: k-means start"])
def test_every_kind_of_configuration_can_be_built_and_trained(name):
    model = ch03_sweep.build(ch03_sweep.configurations()[name])
    before = model.encoder[0].weight.clone()
    history = train(model, ch03_sweep.batch, ch03_sweep.letter_loss, steps=2, optim=Optim(lr=1e-3),
                    run=Run(progress=False))
    x, side = torch.rand(2, 3, 64, 64), 64 // model.patch
    out, ids, _ = model(x)
    assert out.shape == x.shape and ids.shape == (2, side, side) and int(ids.max()) < model.vocab_size
    assert not torch.equal(before, model.encoder[0].weight) and math.isfinite(history.column("loss")[-1])


def test_the_sweep_is_the_issues_grid():
    found = ch03_sweep.configurations()
    grid = {(s["kind"], s["codes"], s["patch"]) for s in found.values() if s["table"] == "sweep"}
    assert grid == {(k, c, p) for k in ("VQ", "FSQ") for c in (512, 8192, 65536) for p in (8, 16)}
    assert all(math.prod(v) == k for k, v in ch03_sweep.LEVELS.items())
    with pytest.raises(ValueError, match="patches are 8 or 16"):
        ch03_sweep.Tokenizer(FSQ(), 3, patch=4)
    with pytest.raises(ValueError, match="quantizers are"):
        ch03_sweep.make_quantizer("LFQ", 512)


def test_the_result_file_belongs_to_this_script():
    result = json.loads(ch03_sweep.FILE.read_text("utf-8"))
    assert set(result["runs"]) <= set(ch03_sweep.configurations())
    assert result["plan"]["steps"] == ch03_sweep.STEPS
    for name, seeds in result.get("more seeds", {}).items():
        assert ch03_sweep.repeated(ch03_sweep.configurations()[name]) and set(seeds) <= set(map(str, ch03_sweep.MORE_SEEDS))
        assert all(0 < run["codes_used"] <= 512 for run in seeds.values())
    for name, run in result["runs"].items():
        assert run["tokens"] == (64 // run["patch"]) ** 2, name
        assert run["measured_bits"] <= run["nominal_bits"] + 0.1 and run["codes_used"] <= run["codes"], name
        assert 0 <= run["letters"] <= 1 and run["perplexity"] <= run["codes_used"] + 0.1, name


def test_the_benchmark_says_what_was_met():
    path = RESULTS / "ch03_benchmark.json"
    if not path.exists():
        pytest.skip("not measured yet: python tests/benchmarks/vq.py")
    result = json.loads(path.read_text("utf-8"))
    step = result["speed"]["step at 512 codes"]["peer / ours"]
    assert result["met"]["step at 512 codes: 3x as fast"] == (step >= 3)
    assert all(isinstance(v, bool) for v in result["met"].values())


# ---- JPEG and its kin

@pytest.mark.parametrize("kind", ch03_jpeg.KINDS)
def test_the_payload_is_what_is_left_without_headers(kind):
    if not ch03_jpeg.can_write(kind):
        pytest.skip(f"this Pillow writes no {kind}")
    x = torch.rand(3, 64, 64)
    (small, _), (large, back) = (ch03_jpeg.squeeze(x, kind, 64, q) for q in (5, 95))
    assert 0 < ch03_jpeg.payload(small) < len(small) and back.shape == x.shape
    assert ch03_jpeg.payload(large) - ch03_jpeg.payload(small) == pytest.approx(len(large) - len(small), abs=40)
    with pytest.raises(ValueError, match="neither JPEG"):
        ch03_jpeg.payload(b"GIF89a" + bytes(20))


def test_codecs_take_pictures_of_any_shape():
    x = torch.rand(3, 50, 90)
    data, back = ch03_jpeg.squeeze(x, "JPEG", 30, 50)
    assert back.shape == x.shape and Image.open(io.BytesIO(data)).size == (30, 17)
    found = ch03_jpeg.candidates(x, "JPEG")
    assert len(found) == len(ch03_jpeg.SIZES) * len(ch03_jpeg.QUALITIES) and found[-1]["picture"].shape == x.shape


def test_best_is_the_least_error_that_fits():
    found = [{"mse": 0.1, "payload": 50, "file": 90}, {"mse": 0.2, "payload": 40, "file": 60}]
    assert ch03_jpeg.best(found, 60) is found[0] and ch03_jpeg.best(found, 60, "file") is found[1]
    assert ch03_jpeg.best(found, 30) is None
    assert ch03_jpeg.mean_psnr([0.01, 0.0001]) == pytest.approx(30)


def test_photographs_keep_their_shape_and_small_ones_fit(tmp_path):
    photo = ch03_jpeg.open_photo()
    assert photo.shape[0] == 3 and max(photo.shape) <= 180 and 0 <= photo.min() and photo.max() <= 1
    Image.new("L", (90, 40), 255).save(tmp_path / "grey.png")
    assert ch03_jpeg.open_photo(tmp_path / "grey.png", 45).shape == (3, 20, 45)
    small = ch03_jpeg.as_small(photo)
    assert small.shape == photo.shape and not torch.equal(small, photo)
    x, = ch03_jpeg.crops(np.random.default_rng(0), [photo, torch.rand(3, 64, 70)], 5)
    assert x.shape == (5, 3, 64, 64)


def test_without_scikit_image_the_album_is_empty_and_says_why(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert ch03_jpeg.album() == ([], {}) and "pip install scikit-image" in capsys.readouterr().out


# ---- the shipped tokenizer is untouched by all this

def test_the_shipped_tokens_are_the_nearest_codes_and_nothing_else():
    model, (_, images) = checkpoints.load("vqvae"), ch03_sweep.held_out()
    images = images[:8]
    with torch.no_grad():
        z = model.encoder(matte(images) * 2 - 1).permute(0, 2, 3, 1).flatten(0, 2)
    distance = torch.cdist(z.double(), model.quantizer.codebook.double())
    ids = model.encode(images).flatten()
    assert torch.allclose(distance.gather(1, ids[:, None])[:, 0], distance.min(1).values, atol=1e-5)
    assert set(model.state_dict()) >= {"quantizer.codebook", "quantizer.cluster_size", "quantizer.embed_sum", "quantizer.initialized"}
    assert set(model.config) == {"codes", "dim", "width", "context"}
