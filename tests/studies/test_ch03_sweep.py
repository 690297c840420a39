"""The quantizers that chapter 03 compares, and its sweep: against the library, against arithmetic, in a short run."""
import math

import pytest
import torch
import torch.nn.functional as F

from mmcourse.optim import Optim
from mmcourse.quantize import FSQ, nearest_code
from mmcourse.studies import _ch03, ch03_sweep
from mmcourse.training import Run, train
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene

# ---- the quantizers of the ablation


def test_the_rotation_trick_equals_the_librarys():
    module = pytest.importorskip("vector_quantize_pytorch.vector_quantize_pytorch")
    torch.manual_seed(0)
    x, codes, weight = torch.randn(50, 8, requires_grad=True), torch.randn(50, 8), torch.randn(50, 8)
    ours, theirs = ch03_sweep.rotate_towards(x, codes), module.rotate_to(x, codes)
    assert torch.allclose(ours, codes, atol=1e-5) and torch.allclose(theirs, codes, atol=1e-4)
    a, b = (torch.autograd.grad((v * weight).sum(), x)[0] for v in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-3)


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
    quantizer, x = ch03_sweep.Learned(32, 4, gradient=gradient), torch.randn(10, 4, requires_grad=True)
    out, indices, loss = quantizer(x)
    assert torch.allclose(out, quantizer.codebook[indices], atol=1e-5)
    (found,) = torch.autograd.grad(out.square().sum(), x, allow_unused=True, retain_graph=True)
    assert (found is not None) == arrives
    to_x, to_codes = torch.autograd.grad(loss, (x, quantizer.codebook))
    assert to_x.abs().sum() > 0 and to_codes.abs().sum() > 0


def test_the_k_means_start_waits_and_then_fills():
    quantizer = ch03_sweep.Learned(16, 4, start="k-means", warmup=3).train()
    x = 50 + torch.randn(100, 4)
    for _ in range(3):
        out, _, loss = quantizer(x)
        assert torch.equal(out, x) and loss == 0
    assert quantizer.codebook.min() > 40
    assert not torch.equal(quantizer(x)[0], x)


def test_simvq_equals_the_librarys():
    module = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    ours, theirs = ch03_sweep.Learned(32, 4, linear=True), module.SimVQ(4, 32, rotation_trick=False)
    theirs.frozen_codebook.copy_(ours.embed)
    theirs.code_transform.weight.data.copy_(ours.mix.weight)
    x = torch.randn(50, 4, requires_grad=True)
    (out, ids, loss), (their_out, their_ids, their_loss) = ours(x), theirs(x[None])
    assert torch.equal(ids, their_ids[0]) and torch.allclose(out, their_out[0], atol=1e-6)
    assert torch.allclose(loss, their_loss, atol=1e-6)


def test_one_choice_moves_all_codes_of_simvq():
    """Of the plain codebook only the chosen codes feel a gradient; of SimVQ's every one moves."""
    for linear, moved in ((False, 1), (True, 32)):
        quantizer = ch03_sweep.Learned(32, 4, linear=linear)
        before = quantizer.codebook.detach().clone()
        parameters = [p for p in quantizer.parameters() if p.requires_grad]
        quantizer(torch.ones(5, 4))[2].backward()
        torch.optim.SGD(parameters, lr=0.1).step()
        assert int((quantizer.codebook != before).any(1).sum()) == moved


def test_vectors_of_length_one():
    out = ch03_sweep.Learned(32, 8, normalize=True).eval()(5 * torch.randn(40, 8))[0]
    assert torch.allclose(out.norm(dim=1), torch.ones(40), atol=1e-5)


def test_restarts_keep_codes_alive_and_without_them_they_stay_dead():
    quantizer = ch03_sweep.Learned(64, 4, restart=True).train()
    x = 30 + torch.randn(400, 4)
    for _ in range(250):
        quantizer(x)
    assert len(nearest_code(x, quantizer.codebook.data).unique()) > 48
    alone = ch03_sweep.EMAAlone(64, 4).train()
    for _ in range(250):
        alone(x)
    assert len(nearest_code(x, alone.codebook).unique()) < 16


# ---- the sweep

@pytest.mark.parametrize("name", ["FSQ 8192 patch 8", "VQ 512 patch 16", "FSQ 512 patch 16", "cure: k-means start"])
def test_every_kind_of_configuration_can_be_built_and_trained(name):
    model = ch03_sweep.build(ch03_sweep.configurations()[name])
    before = model.encoder[0].weight.clone()
    history = train(model, _ch03.batch_of(2), _ch03.letter_loss, steps=2, optim=Optim(lr=1e-3), run=Run(progress=False))
    x, side = torch.rand(2, 3, 64, 64), 64 // model.patch
    out, ids, _ = model(x)
    assert out.shape == x.shape and ids.shape == (2, side, side) and int(ids.max()) < model.vocab_size
    assert not torch.equal(before, model.encoder[0].weight) and math.isfinite(history.column("loss")[-1])


def test_the_sweep_is_the_whole_grid():
    found = ch03_sweep.configurations()
    grid = {(s["kind"], s["codes"], s["patch"]) for s in found.values() if s["table"] == "sweep"}
    assert grid == {(k, c, p) for k in ("VQ", "FSQ") for c in (512, 8192, 65536) for p in (8, 16)}
    assert all(math.prod(v) == k for k, v in ch03_sweep.LEVELS.items())
    with pytest.raises(ValueError, match="patches are 8 or 16"):
        ch03_sweep.Tokenizer(FSQ(), 3, patch=4)
    with pytest.raises(ValueError, match="quantizers are"):
        ch03_sweep.make_quantizer("LFQ", 512)


def test_every_configuration_has_further_seeds():
    jobs = ch03_sweep.jobs(ch03_sweep.Plan(), (0, 1, 2))
    for seed in (1, 2):
        assert [job.name for job in jobs if job.seed == seed] == list(ch03_sweep.configurations())
        assert {job.name for job in jobs if job.seed == seed and not job.optional} == set(ch03_sweep.THREE_SEEDS)
    assert not any(job.optional for job in jobs if job.seed in (None, 0))


def test_true_pictures_have_a_distance_too():
    found = ch03_sweep.null_row(ch03_sweep.Plan(judged=100), sets=2)
    assert len(found["fd"]) == 2 and 0 < found["fd"][0] <= found["fd"][1]
    assert ch03_sweep.true_row(ch03_sweep.Plan(judged=100, read=2))["fd"] == pytest.approx(found["fd"][0], rel=0.5)


def test_a_new_tokenizer_makes_its_own_row_untrue_and_no_other(monkeypatch):
    result = {"reference": {"shipped": {"sha256": "old"}, "true pictures": {}}, "runs": {"VQ 512 patch 8": {}}}
    monkeypatch.setattr(ch03_sweep.checkpoints, "identity", lambda name: "old")
    ch03_sweep.outdated(result, {})
    assert "shipped" in result["reference"]
    monkeypatch.setattr(ch03_sweep.checkpoints, "identity", lambda name: "new")
    ch03_sweep.outdated(result, {})
    assert result == {"reference": {"true pictures": {}}, "runs": {"VQ 512 patch 8": {}}}


# ---- what chapter 03's studies share

def test_letters_are_counted_in_their_place():
    scenes = [Scene((Group("cat", 1, "left"),), "blue", sign=sign) for sign in ("DOG", "OWLS", "")]
    pictures = draw_batch(scenes)
    assert _ch03.letter_accuracy(pictures, scenes) == 1
    swapped = [scenes[1], scenes[0], scenes[2]]         # DOG under OWLS and the other way round: only the O's stand wrong
    assert _ch03.letter_accuracy(pictures, swapped) < 0.3
    assert _ch03.letter_accuracy(torch.zeros_like(pictures), scenes) == 0


def test_true_pictures_are_the_judges_ceiling():
    scenes, truth = _ch03.held_out(200)
    seen = _ch03.judge(truth[:100], read=2)
    assert seen["objects"] == seen["letters"] == 1 and seen.get("signs_ocr", 1) == 1
    noise = _ch03.judge(torch.rand_like(truth[:100]), read=2)
    assert noise["fd"] > 10 * seen["fd"] and noise["objects"] < 0.1
    assert _ch03.held_out(100)[0] == scenes[:100]


def test_signed_scenes_are_signed_and_depend_on_their_stream():
    scenes, pictures = _ch03.signed_scenes(3, (0, 97), jitter=2)
    assert all(scene.sign for scene in scenes) and pictures.shape == (3, 3, 64, 64)
    assert scenes == _ch03.signed_scenes(3, (0, 97), jitter=2)[0] != _ch03.signed_scenes(3, (1, 97), jitter=2)[0]
