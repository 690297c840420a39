"""Vectors <-> ids: nearest codes against float64, a codebook's life, residual levels by hand, FSQ and k-means against others."""
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmcourse.codec import AudioCodec, codec_loss
from mmcourse.quantize import FSQ, ResidualQuantizer, VectorQuantizer, k_means, nearest_code
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss

FSQ_LEVELS = [(8, 8, 8), (8, 8, 8, 4, 4), (5, 3, 2), (7, 5), (2,)]


def rounding(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """By how much float32 may misjudge which of two squared distances is smaller, for each vector: eight roundings of
    |x|^2 + |e|^2, once the codes' mean is taken off. (N,)"""
    center, unit = codebook.mean(0).double(), torch.finfo(torch.float32).eps
    e, v = ((part.double() - center).square().sum(1) for part in (codebook, x))
    return 8 * unit * (v + e.max())


def check_nearest(x: torch.Tensor, codebook: torch.Tensor) -> float:
    """Every code that is found is nearest, as float64 has it, but for rounding. Returns the share of codes that are the same."""
    squares = torch.cdist(x.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    found = nearest_code(x, codebook)
    assert found.shape == (len(x),) and found.dtype == torch.int64
    worse = squares.gather(1, found[:, None])[:, 0] - squares.min(1).values
    assert (worse <= rounding(x, codebook)).all()
    return (found == squares.argmin(1)).float().mean().item()


# ---- the nearest code

@settings(max_examples=60)
@given(n=st.integers(1, 200), k=st.integers(1, 600), d=st.integers(1, 48), seed=st.integers(0, 2**31),
       offset=st.sampled_from([0.0, 1.0, -30.0, 1000.0, 1e6]), scale=st.sampled_from([1e-3, 1.0, 50.0]))
@example(n=66, k=400, d=1, seed=595, offset=0.0, scale=1.0)            # two codes that are equally near in float32
def test_nearest_code_equals_float64_but_for_rounding(n, k, d, seed, offset, scale):
    generator = torch.Generator().manual_seed(seed)
    x, codebook = (scale * torch.randn(m, d, generator=generator) + offset for m in (n, k))
    check_nearest(x, codebook)


@pytest.mark.parametrize("offset", [0.0, 1000.0, torch.linspace(-1000, 1000, 16)])
def test_what_all_codes_have_in_common_spoils_nothing(offset):
    generator = torch.Generator().manual_seed(0)
    x, codebook = (torch.randn(m, 16, generator=generator) + offset for m in (2000, 512))
    assert check_nearest(x, codebook) > 0.999


def test_each_code_is_nearest_to_itself():
    codebook = torch.randn(512, 16)
    assert torch.equal(nearest_code(codebook, codebook), torch.arange(512))


@pytest.mark.parametrize("codes", [64, 512, 8192])
def test_indices_equal_the_librarys_with_its_codebook(codes):
    peer = pytest.importorskip("vector_quantize_pytorch").VectorQuantize(16, codes).eval()
    torch.manual_seed(codes)
    book, x = torch.randn(codes, 16), torch.randn(5000, 16)
    peer._codebook.embed.data.copy_(book[None])
    assert torch.equal(peer(x[None])[1][0], nearest_code(x, book))


# ---- one codebook

def test_forward_gives_codes_and_the_gradient_passes_straight_through():
    quantizer = VectorQuantizer(32, 4).eval()
    x = torch.randn(10, 4, requires_grad=True)
    quantized, indices, commitment = quantizer(x)
    assert torch.allclose(quantized, quantizer.codebook[indices], atol=1e-6)
    weight = torch.randn(10, 4)
    (gradient,) = torch.autograd.grad((quantized * weight).sum(), x, retain_graph=True)
    assert torch.equal(gradient, weight)                               # as if there were no quantizer
    (pull,) = torch.autograd.grad(commitment, x)
    expected = 0.25 * 2 * (x.detach() - quantizer.codebook[indices]) / x.numel()
    assert torch.allclose(pull, expected, atol=1e-7)


@pytest.mark.parametrize("make", [lambda: VectorQuantizer(16, 4), lambda: ResidualQuantizer(3, 16, 4)])
def test_nothing_moves_in_eval_mode(make):
    quantizer = make().eval()
    before = {k: v.clone() for k, v in quantizer.state_dict().items()}
    quantizer(torch.randn(100, 4))
    assert all(torch.equal(v, before[k]) for k, v in quantizer.state_dict().items())


def test_a_codes_moving_averages_by_hand():
    """One step: count and sum of its vectors move by 2 %; the code is their quotient."""
    quantizer, x = VectorQuantizer(3, 2, decay=0.98), torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 8.0], [-9.0, 0.0]])
    quantizer.codebook.copy_(torch.tensor([[2.0, 0], [0, 9], [-9, 0]]))
    quantizer.embed_sum.copy_(quantizer.codebook * 2)
    quantizer.cluster_size.fill_(2)
    quantizer.initialized.fill_(1)
    assert quantizer(x)[1].tolist() == [0, 0, 1, 2]
    assert torch.allclose(quantizer.cluster_size, 0.98 * torch.tensor([2.0, 2, 2]) + 0.02 * torch.tensor([2.0, 1, 1]))
    sums = 0.98 * torch.tensor([[4.0, 0], [0, 18], [-18, 0]]) + 0.02 * torch.tensor([[4.0, 0], [0, 8], [-9, 0]])
    assert torch.allclose(quantizer.codebook, sums / quantizer.cluster_size[:, None])


def test_the_codes_converge_to_the_means_of_the_vectors_that_choose_them():
    centers = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    x = centers.repeat_interleave(50, 0) + 0.1 * torch.randn(200, 2)
    quantizer = VectorQuantizer(4, 2, decay=0.8)
    quantizer.codebook.copy_(centers + 1)
    quantizer.embed_sum.copy_(quantizer.codebook)
    quantizer.initialized.fill_(1)
    for _ in range(60):
        quantizer(x)
    assert torch.allclose(quantizer.codebook, x.reshape(4, 50, 2).mean(1), atol=1e-3)
    assert torch.allclose(quantizer.cluster_size, torch.full((4,), 50.0), atol=1e-2)


def test_the_first_batch_fills_the_codebook_and_dead_codes_are_restarted():
    quantizer = VectorQuantizer(64, 4)
    x = 100 + torch.randn(1000, 4)                                     # far from where the codebook starts
    quantizer(x)
    assert quantizer.initialized == 1 and quantizer.codebook.min() > 90
    quantizer.codebook[:32] = -1e4                                     # nobody will choose these
    quantizer.embed_sum[:32] = -1e4 * quantizer.cluster_size[:32, None]
    for _ in range(250):                                               # their moving count sinks below 3 % of a fair share
        quantizer(x)
    assert quantizer.codebook.min() > 90
    assert len(nearest_code(x, quantizer.codebook).unique()) >= 58


def test_a_code_is_dead_below_its_share_and_not_before():
    """Of 100 vectors and 4 codes a fair share is 25; with `dead_below` 0.2 a code dies under 5 uses a step."""
    quantizer = VectorQuantizer(4, 2, decay=0.5, dead_below=0.2)
    quantizer.initialized.fill_(1)
    quantizer.codebook.copy_(torch.tensor([[0.0, 0], [50, 0], [0, 50], [50, 50]]))
    quantizer.cluster_size.copy_(torch.tensor([25.0, 10.1, 9.9, 25]))
    quantizer.embed_sum.copy_(quantizer.codebook * quantizer.cluster_size[:, None])
    x = torch.cat([torch.zeros(50, 2), torch.full((50, 2), 50.0)])
    quantizer(x)                                                       # 10.1 -> 5.05 stays, 9.9 -> 4.95 does not
    assert torch.allclose(quantizer.codebook[1], torch.tensor([50.0, 0])), "still where it was"
    assert quantizer.codebook[2].tolist() in ([0, 0], [50, 50]) and quantizer.cluster_size[2] == 25


def test_without_restart_the_codebook_collapses(monkeypatch):
    quantizer = VectorQuantizer(256, 4)
    quantizer.initialized.fill_(1)                                     # keeps its random start
    monkeypatch.setattr(quantizer, "_restart", lambda x, dead: None)
    x = 3 + 0.3 * torch.randn(2000, 4)
    for _ in range(50):
        _, indices, _ = quantizer(x)
    assert len(indices.unique()) < 64


def test_few_vectors_many_codes():
    quantizer = VectorQuantizer(512, 4)
    for _ in range(5):
        quantized, _, loss = quantizer(torch.randn(1, 4))
        assert torch.isfinite(quantized).all() and torch.isfinite(loss) and torch.isfinite(quantizer.codebook).all()


# ---- several codebooks in a row

@pytest.fixture
def residual() -> ResidualQuantizer:
    """Four levels of ever finer random codes."""
    quantizer = ResidualQuantizer(4, 32, 8).eval()
    for level, book in enumerate(quantizer.codebooks):
        book.copy_(torch.randn(32, 8) / 2**level)
    return quantizer


def test_two_levels_by_example():
    quantizer = ResidualQuantizer(2, 2, 2).eval()
    quantizer.codebooks[0].copy_(torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
    quantizer.codebooks[1].copy_(torch.tensor([[0.0, 0.5], [0.0, 1.0]]))
    total, ids, _ = quantizer(torch.tensor([[1.0, 2.0], [-1.0, 0.4]]))
    assert ids.tolist() == [[0, 1], [1, 0]] and torch.allclose(total, torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
    assert torch.equal(quantizer.decode(ids), torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
    assert torch.equal(quantizer.decode(ids[:, :1]), torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))


def test_each_level_quantizes_what_is_left_over(residual):
    x = torch.randn(300, 8)
    quantized, ids, _ = residual(x)
    rest = x
    for level, book in enumerate(residual.codebooks):
        assert torch.equal(ids[:, level], nearest_code(rest, book))
        rest = rest - book[ids[:, level]]
    assert torch.allclose(quantized, x - rest, atol=1e-5) and torch.allclose(residual.decode(ids), quantized, atol=1e-5)
    errors = [(x - residual.decode(ids[:, :n])).norm().item() for n in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True), "each level helps"
    assert torch.equal(residual.decode(ids.view(3, 100, 4)), residual.decode(ids).view(3, 100, 8))


def test_levels_that_a_row_may_not_use_add_nothing(residual):
    x, n_levels = torch.randn(40, 8), torch.arange(40) % 4 + 1
    quantized, ids, loss = residual(x, n_levels)
    whole, all_ids, _ = residual(x)
    assert torch.equal(ids, all_ids), "ids are found in any case"
    expected = 0.0
    for row in range(40):
        n = int(n_levels[row])
        assert torch.allclose(quantized[row], residual.decode(ids[row, :n]), atol=1e-5)
        for level in range(n):
            expected += 0.25 * (x[row] - residual.decode(ids[row, :level + 1])).square().sum() / x.numel()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert not torch.allclose(quantized, whole)


def test_the_gradient_passes_all_levels_straight_through(residual):
    x, weight = torch.randn(10, 8, requires_grad=True), torch.randn(10, 8)
    quantized, ids, commitment = residual(x)
    (gradient,) = torch.autograd.grad((quantized * weight).sum(), x, retain_graph=True)
    assert torch.equal(gradient, weight)
    (pull,) = torch.autograd.grad(commitment, x)
    rests = [x.detach() - residual.decode(ids[:, :n]) for n in (1, 2, 3, 4)]
    assert torch.allclose(pull, sum(0.25 * 2 * rest / x.numel() for rest in rests), atol=1e-6)


def test_every_level_learns_from_its_own_rest():
    quantizer, x = ResidualQuantizer(3, 16, 4).train(), 5 + torch.randn(400, 4)
    errors = [(x - quantizer(x)[0]).square().mean().item() for _ in range(60)]
    assert all(level.initialized == 1 for level in quantizer.levels) and errors[-1] < 0.8 * errors[0]
    quantizer.eval()
    _, ids, _ = quantizer(x)
    shares = [(x - quantizer.decode(ids[:, :n])).square().mean().item() for n in (1, 2, 3)]
    assert shares[1] < 0.6 * shares[0] and shares[2] < 0.6 * shares[1]
    assert quantizer.codebooks[0].mean() > 3 > quantizer.codebooks[1].abs().mean()


# ---- FSQ

@pytest.mark.parametrize("levels", FSQ_LEVELS)
def test_fsq_is_the_nearest_point_of_its_own_grid(levels):
    fsq, x = FSQ(levels), 1.5 * torch.randn(3000, len(levels))
    out, ids, loss = fsq(x)
    size = math.prod(levels)
    assert fsq.codebook.shape == (size, len(levels)) and fsq.codebook_size == size and loss == 0
    assert ids.dtype == torch.int64 and torch.equal(ids, nearest_code(x.tanh(), fsq.codebook))
    assert torch.allclose(out, fsq.codebook[ids], atol=1e-6) and out.abs().max() <= 1 + 1e-6
    reach = fsq((fsq.codebook * 0.999).atanh())[1]
    assert torch.equal(reach, torch.arange(size))                      # nothing is out of reach
    assert len(fsq.codebook.unique(dim=0)) == size


@pytest.mark.parametrize("levels", FSQ_LEVELS)
def test_fsq_equals_the_librarys(levels):
    peer = pytest.importorskip("vector_quantize_pytorch").FSQ(levels, preserve_symmetry=True)
    x = (2 * torch.randn(5000, len(levels))).requires_grad_()
    (out, ids, _), (theirs, their_ids) = FSQ(levels)(x), peer(x[None])
    assert torch.equal(ids, their_ids[0]) and torch.allclose(out, theirs[0], atol=1e-6)
    ours, other = (torch.autograd.grad((v * torch.arange(1.0, len(levels) + 1)).sum(), x)[0] for v in (out, theirs))
    assert torch.allclose(ours, other, atol=1e-6)


def test_fsq_lets_the_gradient_of_tanh_through_and_learns_nothing():
    fsq, x = FSQ((8, 5)), torch.tensor([[0.3, -1.2]], requires_grad=True)
    weight = torch.tensor([[2.0, -3.0]])
    (gradient,) = torch.autograd.grad((fsq(x)[0] * weight).sum(), x)
    assert torch.allclose(gradient, weight * (1 - x.tanh() ** 2), atol=1e-6)
    assert not list(fsq.parameters()) and not fsq.state_dict()


def test_fsq_saturates_instead_of_leaving_its_range():
    ids = FSQ((8, 8, 8))(torch.tensor([[-1e9, -1e9, -1e9], [1e9, 1e9, 1e9]]))[1]
    assert ids.tolist() == [0, 511]


@pytest.mark.parametrize("levels", [(), (8, 1), (0,)])
def test_fsq_needs_levels(levels):
    with pytest.raises(ValueError, match="two levels or more"):
        FSQ(levels)


# ---- k-means

def test_k_means_equals_scipys_from_the_same_start():
    """Lloyd's rounds, one after the other; a cluster that nobody chose keeps its center in both."""
    vq = pytest.importorskip("scipy.cluster.vq")
    x = torch.randn(400, 3)
    x[:100] = x[0]                                                     # a heap: of the members drawn there all but one stay empty
    for rounds in (0, 1, 4):
        torch.manual_seed(7)
        start = x[torch.randint(400, (40,))]
        torch.manual_seed(7)
        ours = k_means(x, 40, rounds)
        theirs = start.numpy()
        for _ in range(rounds):
            with pytest.warns(UserWarning, match="empty"):
                theirs, _ = vq.kmeans2(x.numpy(), theirs, iter=1, minit="matrix")
        assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-5)


# ---- what the world brings: bad numbers, half precision

def codebooks(model) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()
            if name.rsplit(".", 1)[-1] in ("codebook", "cluster_size", "embed_sum", "initialized")}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("make", [lambda: VectorQuantizer(16, 4), lambda: ResidualQuantizer(3, 16, 4)])
def test_one_bad_number_moves_no_code(make, bad):
    for steps in (0, 3):                                               # before the codebook is filled, and afterwards
        quantizer, x = make().train(), torch.randn(50, 4)
        for _ in range(steps):
            quantizer(x)
        before = codebooks(quantizer)
        spoilt = x.clone()
        spoilt[7, 2] = bad
        assert not torch.isfinite(quantizer(spoilt)[2]), "the loss must say so: it stops the training"
        assert all(torch.equal(v, before[k]) for k, v in codebooks(quantizer).items())
        quantizer(x)
        assert any(not torch.equal(v, before[k]) for k, v in codebooks(quantizer).items()), "and then it learns again"


def picture_model():
    model = VQVAE(codebook_size=16, dim=4, width=16)
    return model, vqvae_loss, lambda: (torch.rand(2, 3, 64, 64),)


def sound_model():
    model = AudioCodec(codebook_size=16, width=16, dim=8, warmup=1)
    return model, codec_loss, lambda: (torch.randn(2, 8000) * 0.1, torch.tensor([4, 2]))


@pytest.mark.parametrize("make", [picture_model, sound_model])
def test_a_batch_with_a_nan_stops_the_training_and_leaves_the_codebook_whole(make):
    torch.manual_seed(0)
    model, loss, draw = make()
    kept = {}

    def batch(rng):
        kept.update(codebooks(model))
        x = draw()
        if bad and len(kept["seen"]) == 3:
            x[0].view(-1)[5] = math.nan
        kept["seen"].append(1)
        return x

    kept["seen"], bad = [], True
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        train(model, batch, loss, steps=6, run=Run(progress=False))
    assert len(kept["seen"]) == 4
    assert all(torch.equal(v, kept[k]) and v.isfinite().all() for k, v in codebooks(model).items())
    kept["seen"], bad = [], False
    train(model, batch, loss, steps=3, run=Run(progress=False))        # the same cell once more, with a good batch
    assert all(v.isfinite().all() for v in model.state_dict().values())


@pytest.mark.parametrize("make", [picture_model, sound_model])
def test_under_autocast_a_model_is_trained_and_its_codes_are_chosen_in_float32(make):
    torch.manual_seed(0)
    model, loss, draw = make()
    model.train()
    for _ in range(3):                                                 # the codec quantizes after its first step
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(model, *draw())["loss"]
        found.backward()
    assert torch.isfinite(found) and all(v.dtype == torch.float32 for v in codebooks(model).values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_nearest_code_is_found_in_float32_under_autocast():
    torch.manual_seed(0)
    x, codebook = torch.randn(500, 16), torch.randn(512, 16)
    for vectors in (x, x.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            found = nearest_code(vectors, codebook)
        assert torch.equal(found, nearest_code(vectors.float(), codebook))
    quantizer = VectorQuantizer(32, 4).train()
    with torch.autocast("cpu", torch.bfloat16):
        out, _, loss = quantizer(x[:, :4].bfloat16())
    assert out.dtype == loss.dtype == quantizer.codebook.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        squashed, ids, _ = FSQ((8, 8, 8))(x[:, :3].bfloat16())
    assert squashed.dtype == torch.float32 and torch.equal(ids, FSQ((8, 8, 8))(x[:, :3].bfloat16().float())[1])
