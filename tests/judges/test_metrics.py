"""Measures against scipy, published values and arithmetic; planted wrong measures are told from right ones."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmcourse.diffusion import FlowDecoder
from mmcourse.judges import metrics, picture_net
from mmcourse.judges.picture_net import PictureNet
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene

stats = pytest.importorskip("scipy.stats")


# ---- intervals

@pytest.mark.parametrize("k, n", [(0, 1), (1, 1), (0, 20), (20, 20), (8, 10), (3, 200), (499, 500)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_scipys(k, n, confidence):
    expected = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert metrics.wilson(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_covers_where_the_plain_interval_does_not():
    p, n = 0.96, 50
    weights = stats.binom.pmf(np.arange(n + 1), n, p)

    def covered(interval):
        return sum(w for k, w in enumerate(weights) if interval(k)[0] <= p <= interval(k)[1])

    def plain(k):                                       # the wrong one of the textbooks: a point at k = n
        half = 1.96 * math.sqrt(k / n * (1 - k / n) / n)
        return k / n - half, k / n + half
    assert covered(lambda k: metrics.wilson(k, n)) > 0.93 > 0.9 > covered(plain)


# Newcombe 1998, table II, method 10
@pytest.mark.parametrize("shares, low, high", [
    ((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((6, 7, 2, 7), 0.0582, 0.8062),
    ((5, 56, 0, 29), -0.0381, 0.1926), ((0, 10, 0, 20), -0.1611, 0.2775), ((0, 10, 0, 10), -0.2775, 0.2775),
    ((10, 10, 0, 20), 0.6791, 1.0), ((10, 10, 0, 10), 0.6075, 1.0)])
def test_newcombe_gives_the_published_intervals(shares, low, high):
    assert metrics.newcombe(*shares) == pytest.approx((low, high), abs=5e-5)
    k1, n1, k2, n2 = shares
    assert metrics.newcombe(k2, n2, k1, n1) == pytest.approx((-high, -low), abs=5e-5)       # the other way round


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_students_t_equals_scipys(confidence):
    for df in [*range(1, 40), 99, 500]:
        assert metrics.student_t(df, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, df), rel=1e-9), df


def test_the_t_interval_equals_scipys():
    values = [1.0, 2.5, 3.0, -0.5]
    mean, half = metrics.t_interval(values)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx(expected)


def test_the_bootstrap_is_near_the_t_interval_of_many_values_and_depends_on_the_generator_alone():
    values = np.random.default_rng(5).normal(3, 2, 400)
    low, high = metrics.bootstrap_interval(values, np.random.default_rng(0))
    mean, half = metrics.t_interval(values)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.05)
    assert (low, high) == metrics.bootstrap_interval(list(values), np.random.default_rng(0))
    assert high - low > 1.5 * np.subtract(*metrics.bootstrap_interval(values, np.random.default_rng(0), confidence=0.5)[::-1])


def test_pairs_see_a_difference_that_two_lists_hide():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 200)                       # how hard each question is, the same for both
    a, b = hard + 1 + rng.normal(0, 0.5, 200), hard
    low, high = metrics.paired_bootstrap(a, b, np.random.default_rng(1))
    assert 0.8 < low < 1 < high < 1.2                   # the true difference is 1, and 0 is far away
    low, high = metrics.paired_bootstrap(a, rng.permutation(b), np.random.default_rng(1))    # paired wrongly
    assert low < 0 < high
    assert metrics.paired_bootstrap(a, b, np.random.default_rng(1)) == \
        metrics.bootstrap_interval(a - b, np.random.default_rng(1))


@pytest.mark.parametrize("call, said", [
    (lambda: metrics.wilson(3, 2), "0 to 2 are right, got 3"), (lambda: metrics.wilson(-1, 2), "got -1"),
    (lambda: metrics.wilson(1, 2, 95), "confidence lies between"), (lambda: metrics.newcombe(1, 2, 0, 0), "need answers"),
    (lambda: metrics.t_interval([1.0]), "two values"), (lambda: metrics.t_interval([[1.0, 2.0]]), "two values"),
    (lambda: metrics.student_t(0), "got 0 and 0.95"), (lambda: metrics.student_t(2.5), "got 2.5 and"),
    (lambda: metrics.student_t(3, 1.0), "confidence"), (lambda: metrics.bootstrap_interval([], None), "not empty"),
    (lambda: metrics.paired_bootstrap([1], [1, 2], None), "one length")])
def test_what_has_no_interval_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
    assert metrics.wilson(0, 0) == (0.0, 1.0)


# ---- pictures

def test_two_psnrs_by_hand():
    truth = torch.zeros(2, 3, 8, 8)
    pictures = torch.stack([torch.full((3, 8, 8), 0.1), torch.full((3, 8, 8), 0.01)])        # 20 dB and 40 dB
    assert metrics.mean_psnr(pictures, truth) == pytest.approx(30, abs=1e-4)
    assert metrics.pooled_psnr(pictures, truth) == pytest.approx(-10 * math.log10((0.01 + 0.0001) / 2), abs=1e-4)
    assert metrics.pooled_psnr(truth, truth) == metrics.mean_psnr(truth, truth) == pytest.approx(100)
    torch.manual_seed(0)
    noisy = truth + torch.rand(2, 1, 1, 1) * torch.randn(truth.shape)
    assert metrics.mean_psnr(noisy, truth) >= metrics.pooled_psnr(noisy, truth)
    with pytest.raises(ValueError, match="one shape"):
        metrics.pooled_psnr(truth, truth[:1])           # would be broadcast


def test_blur_lowers_the_sharpness_and_noise_raises_it():
    pictures = draw_batch(metrics.held_out_scenes(4, 0))
    blurred = nn.functional.avg_pool2d(pictures, 3, 1, 1)
    noisy = pictures + 0.1 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    assert metrics.sharpness(blurred) < metrics.sharpness(pictures) < metrics.sharpness(noisy)
    assert metrics.sharpness(torch.full((1, 3, 8, 8), 0.5)) == 0


def test_sharpness_at_true_edges_does_not_take_grain_for_an_edge():
    """Blur lowers it, grain leaves it; `grain` sees noise alone; `sharpness` adds the two."""
    torch.manual_seed(0)
    truth = torch.zeros(2, 3, 16, 16)
    truth[..., 8:] = 1.0
    soft = truth.clone()
    soft[..., 7], soft[..., 8] = 0.25, 0.75                            # half of the step is left at the edge
    noisy = truth + 0.05 * torch.randn_like(truth)
    assert metrics.edge_sharpness(truth, truth) == pytest.approx(1) and metrics.grain(truth, truth) == 0
    assert metrics.edge_sharpness(soft, truth) == pytest.approx(0.5)
    assert metrics.edge_sharpness(noisy, truth) == pytest.approx(1, abs=0.05) and metrics.grain(noisy, truth) > 0.03
    assert metrics.sharpness(noisy) > 1.5 * metrics.sharpness(truth)   # which cannot be
    for flat, measure in ((torch.zeros(1, 3, 4, 4), metrics.edge_sharpness), (torch.rand(1, 3, 4, 4), metrics.grain)):
        with pytest.raises(ValueError, match="edge|flat"):
            measure(flat, flat)


def test_the_frechet_distance_has_one_definition():
    assert picture_net.frechet_distance is metrics.frechet_distance


# ---- both decoders

@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    vqvae, net = VQVAE(codebook_size=32, dim=8, width=32).eval(), PictureNet(8).eval()
    return vqvae, FlowDecoder(code_dim=8, width=16, depth=1, time=16).eval(), net


def test_a_fresh_decoder_measures_as_the_plain_one(small):
    got = metrics.measure_decoders(*small, n=20, seed=3, steps=2)
    assert got["psnr_diffusion"] == pytest.approx(got["psnr_plain"], abs=1e-3)
    assert got["fd_same_diffusion"] == pytest.approx(got["fd_same_plain"], abs=1e-3)
    assert got["fd_floor"] > got["fd_same_blur"] >= 0 and got["ms_diffusion"] > got["ms_plain"] > 0
    assert (got["n"], got["seed"], got["steps"], got["sampler"], got["jitter"]) == (20, 3, 2, "euler", 0)


def test_a_perfect_decoder_measures_as_the_truth(small):
    vqvae, decoder, net = small
    truth = draw_batch(metrics.held_out_scenes(20, 3))

    class Cheat:                                        # knows the pictures: every measure is at its ceiling
        def decode(self, ids, vqvae, steps, seed, sampler):
            return truth[:len(ids)]
    got = metrics.measure_decoders(vqvae, Cheat(), net, n=20, seed=3)
    assert got["fd_same_diffusion"] == pytest.approx(0, abs=1e-6) and got["psnr_diffusion"] == pytest.approx(100)
    assert got["fd_diffusion"] == got["fd_floor"] and got["sharpness_diffusion"] == got["sharpness_true"]
    assert got["nouns_diffusion"] == got["nouns_true"]


def test_held_out_scenes_depend_on_everything_that_is_asked():
    scenes = metrics.held_out_scenes(5, 1, jitter=2)
    assert scenes == metrics.held_out_scenes(8, 1, jitter=2)[:5] and any(s.shift != (0, 0) for s in scenes)
    assert scenes != metrics.held_out_scenes(5, 2, jitter=2)
    assert all(s.shift == (0, 0) for s in metrics.held_out_scenes(5, 1))


# ---- optional judges

def test_a_judge_that_is_not_installed_says_so_and_gives_none(capsys, monkeypatch):
    def missing():
        raise ImportError("pip install 'mmcourse[test]'")
    assert metrics.if_installed(missing) is None and "pip install" in capsys.readouterr().out
    assert metrics.if_installed(lambda: 3) == 3 and not capsys.readouterr().out
    with pytest.raises(ValueError):                     # what else goes wrong is not hidden
        metrics.if_installed(lambda: int("x"))
    monkeypatch.setattr(metrics, "read_sign", lambda image: missing())
    assert metrics.sign_accuracy(torch.zeros(1, 3, 64, 64), [Scene((Group("cat", 1, "left"),), sign="DOG")]) is None


def test_signs_are_counted_where_there_are_some(monkeypatch):
    scenes = [Scene((Group("cat", 1, "left"),), sign=sign) for sign in ("DOG", "", "CAT", "OWL")]
    said = iter(["DOG", "CAT", "OWN"])
    monkeypatch.setattr(metrics, "read_sign", lambda image: next(said))
    pictures = torch.zeros(4, 3, 64, 64)
    assert metrics.sign_accuracy(pictures, scenes) == pytest.approx(2 / 3)
    assert metrics.sign_accuracy(pictures[:1], scenes[1:2]) is None
    with pytest.raises(ValueError, match="one scene a picture"):
        metrics.sign_accuracy(pictures, scenes[:2])


# ---- costs

def test_flops_are_those_of_the_layers():
    layer = nn.Conv2d(3, 5, 3, padding=1)
    assert metrics.count_flops(lambda: layer(torch.zeros(1, 3, 8, 8))) == 2 * 5 * 3 * 9 * 64


def test_milliseconds_are_a_mean_of_calls(monkeypatch):
    clock, seen = iter([1.0, 1.5]), []
    monkeypatch.setattr(metrics.time, "process_time", lambda: next(clock))
    assert metrics.cpu_milliseconds(seen.append, calls=5) == pytest.approx(100) and seen == [0, 1, 2, 3, 4]


def test_rounding_leaves_what_is_no_float():
    assert metrics.rounded({"a": 0.123456, "b": None, "c": 7, "d": "x"}) == {"a": 0.1235, "b": None, "c": 7, "d": "x"}


# ---- ranks

@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_equals_scipys(ties):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=60), rng.normal(size=60)
    a = np.round(a) if ties else a
    assert metrics.rank_correlation(a, a + b) == pytest.approx(stats.spearmanr(a, a + b).statistic, abs=1e-12)
    assert metrics.rank_correlation(a, np.exp(a)) == pytest.approx(1) and metrics.rank_correlation(a, -a) == pytest.approx(-1)


@pytest.mark.parametrize(("a", "b", "sentence"), [([1, 2], [1, 2, 3], "same length"), ([1], [1], "same length"),
                                                  ([1, 1, 1], [1, 2, 3], "no order")])
def test_no_ranks_to_compare(a, b, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.rank_correlation(a, b)
