"""The second judge: Frechet distance against scipy and by hand, what it should read, bad input, the shipped classifier."""
import numpy as np
import pytest
import torch

from mmcourse import checkpoints
from mmcourse.judges.picture_net import PictureNet, frechet_distance, halves, noun_accuracy, picture_loss
from mmcourse.optim import Optim
from mmcourse.recipes import picture_judge as recipe
from mmcourse.training import Run, train
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Group, Scene, sample_scene


def features(n: int, f: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, f, generator=generator) @ torch.randn(f, f, generator=generator)


def test_frechet_distance_equals_the_formula_with_scipys_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    for seed in range(5):
        a, b = features(200, 12, seed), features(300, 12, seed + 10) + 1
        A, B = np.cov(a.double().numpy(), rowvar=False), np.cov(b.double().numpy(), rowvar=False)
        shift = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
        expected = shift + np.trace(A + B - 2 * linalg.sqrtm(A @ B).real)
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_by_hand():
    a = features(500, 6, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, a + 2) == pytest.approx(6 * 4, rel=1e-5)           # a shift: its square, summed
    centred = a - a.mean(0)
    variance = a.double().var(0).sum().item()
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * variance, rel=1e-4)     # (3 - 1)^2 times the variance
    one = a[:, :1]                                                     # a single feature: means and standard deviations
    assert frechet_distance(one, 3 * one + 1) == pytest.approx((2 * one.mean() + 1).item() ** 2 + (2 * one.std()).item() ** 2)
    assert frechet_distance(a, 2 * a) == pytest.approx(frechet_distance(2 * a, a), rel=1e-6)


@pytest.mark.parametrize("a, b, said", [
    (torch.zeros(5, 8), torch.zeros(50, 8), "too few"), (torch.zeros(50, 8), torch.zeros(50, 7), "same F"),
    (torch.zeros(50), torch.zeros(50), "same F")])
def test_bad_features(a, b, said):
    with pytest.raises(ValueError, match=said):
        frechet_distance(a, b)


def test_what_stands_on_each_half():
    assert halves(Scene((Group("cat", 1, "left"),), "blue")) == ("cat", "", "blue")
    assert halves(Scene((Group("cat", 2, "left"), Group("sun", 1, "right")), "red")) == ("cat", "sun", "red")
    assert halves(Scene((Group("dog", 3),), "grey")) == ("dog", "dog", "grey")


def test_bad_pictures():
    net = PictureNet(8).eval()
    with pytest.raises(ValueError, match="NaN"):
        net.read(torch.full((1, 3, 64, 64), float("nan")))
    with pytest.raises(ValueError, match="shape"):
        net.features(torch.zeros(64, 64, 3))
    with pytest.raises(ValueError, match="one scene a picture"):
        noun_accuracy(net, torch.zeros(2, 3, 64, 64), [])


def test_the_features_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    net, images = PictureNet(8).eval(), torch.rand(70, 3, 64, 64)
    together = net.features(images)
    assert together.shape == (70, 16)
    assert torch.allclose(together[65:], net.features(images[65:]), atol=1e-5)


def test_it_learns():
    torch.manual_seed(0)
    net, fixed = PictureNet(16), recipe.batch(np.random.default_rng(0))
    history = train(net, lambda rng: fixed, picture_loss, steps=80, optim=Optim(lr=5e-3, warmup=5),
                    run=Run(log_every=1, progress=False))
    assert history.column("loss")[-1] < 0.5 * history.column("loss")[10]


@pytest.fixture(scope="module")
def shipped() -> PictureNet:
    return checkpoints.load("picture_judge")


def test_the_shipped_judge_reads_true_pictures(shipped):
    got = recipe.measure(shipped, n=200, seed=5)
    assert got["nouns"] > 0.97 and got["nouns_jitter"] > 0.97 and got["ground"] > 0.99 and got["ground_jitter"] > 0.99


def test_the_shipped_judge_does_not_read_what_is_not_there(shipped):
    noise = torch.rand(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    scenes = [sample_scene(np.random.default_rng(i)) for i in range(32)]
    assert noun_accuracy(shipped, noise, scenes) < 0.05


def test_blur_moves_the_features_further_than_faint_noise_does(shipped):
    rng = np.random.default_rng(0)
    images = draw_batch([sample_scene(rng) for _ in range(160)])
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    noisy = (images + 0.004 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    true = shipped.features(images)
    assert frechet_distance(true, shipped.features(blurred)) > 2 * frechet_distance(true, shipped.features(noisy))
