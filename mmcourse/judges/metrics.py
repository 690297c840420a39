"""Measures that need no opinion: distances of pictures and of features, costs, and how sure a share is.

Sources: Heusel et al. 2017 (Frechet distance), Wilson 1927 and Newcombe 1998 (intervals of shares), Student
1908 (of the mean of few values), Efron 1979 (bootstrap).
"""
import math
import time
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F

from mmcourse.judges.pictures import read_sign
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Scene, sample_scene

LEAST_ERROR = 1e-10              # a smaller squared error counts as this: equal pictures have 100 dB
EDGE = 0.1                       # neighbouring pixels of a true picture that differ by more are an edge
FLAT = 1 / 256                   # and by less, flat ground


# ---------------------------------------------------------------- pictures

def squared_errors(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The mean squared error of each picture: (B, ...) in [0, 1] twice -> (B,)."""
    if pictures.shape != truth.shape:
        raise ValueError("pictures and true pictures have one shape, "
                         f"got {tuple(pictures.shape)} and {tuple(truth.shape)}")
    return (pictures - truth).square().flatten(1).mean(1)


def pooled_psnr(pictures: torch.Tensor, truth: torch.Tensor) -> float:
    """The PSNR of all pictures as one, in dB: -10 log10 of their mean squared error. The worst decide."""
    return -10 * squared_errors(pictures, truth).mean().clamp(min=LEAST_ERROR).log10().item()


def mean_psnr(pictures: torch.Tensor, truth: torch.Tensor) -> float:
    """The mean of each picture's own PSNR, in dB: never below `pooled_psnr` of the same pictures."""
    return -10 * squared_errors(pictures, truth).clamp(min=LEAST_ERROR).log10().mean().item()


def sharpness(images: torch.Tensor) -> float:
    """Mean absolute difference of neighbouring pixels (B, C, H, W): blur lowers it, noise raises it."""
    return ((images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()) / 2).item()


def edge_sharpness(pictures: torch.Tensor, truth: torch.Tensor) -> float:
    """How steep the pictures (B, C, H, W) are where the true ones have an edge, as a share of the true edges.

    The mean absolute step between neighbouring pixels wherever the true pictures step by `EDGE` or more. Unlike
    `sharpness` it looks at true edges alone, so that grain on flat ground does not pass for sharpness. An edge
    that is painted a pixel off counts as lost.
    """
    made = true = 0.0
    for dim in (2, 3):
        steps = truth.diff(dim=dim).abs()
        edge = steps >= EDGE
        made += (pictures.diff(dim=dim).abs() * edge).sum().item()
        true += (steps * edge).sum().item()
    if not true:
        raise ValueError("the true pictures have no edge")
    return made / true


def grain(pictures: torch.Tensor, truth: torch.Tensor) -> float:
    """The mean absolute step between neighbouring pixels where the true pictures (B, C, H, W) are flat: true
    pictures have 0."""
    made = pixels = 0
    for dim in (2, 3):
        flat = truth.diff(dim=dim).abs() < FLAT
        made += (pictures.diff(dim=dim).abs() * flat).sum().item()
        pixels += flat.sum().item()
    if not pixels:
        raise ValueError("the true pictures are flat nowhere")
    return made / pixels


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far two sets of features (N, F) and (M, F) are apart, each seen as one Gaussian (Dowson and Landau,
    1982; Heusel et al. 2017 call it FID when the features are Inception's: these are not, so it is called FD
    here).

    |mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)). Needs more rows than features; ValueError otherwise.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError("features are (N, F) and (M, F) with the same F, "
                         f"got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) <= a.shape[1]:
        raise ValueError(f"{min(len(a), len(b))} pictures are too few for {a.shape[1]} features: the covariance "
                         f"would be singular; give more than {a.shape[1]}")
    x, y = a.double().cpu().numpy(), b.double().cpu().numpy()
    A, B = np.atleast_2d(np.cov(x, rowvar=False), np.cov(y, rowvar=False))
    values, vectors = np.linalg.eigh(A)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T         # A^(1/2); A B and root B root share eigenvalues
    cross = np.sqrt(np.linalg.eigvalsh(root @ B @ root).clip(0)).sum()
    return max(0.0, float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(A) + np.trace(B) - 2 * cross))


def held_out_scenes(n: int, seed: int, jitter: int = 0, stream: int = 97) -> list[Scene]:
    """`n` scenes whose combinations nothing was trained on, drawn up to `jitter` pixels off their place.

    Another `stream` gives other scenes for the same seed.
    """
    rng = np.random.default_rng((seed, stream, jitter))
    return [sample_scene(rng, "held-out", jitter=jitter) for _ in range(n)]


@torch.no_grad()
def measure_decoders(vqvae, decoder, net, n: int = 256, seed: int = 0, steps: int = 8, sampler: str = "euler",
                     jitter: int = 0) -> dict:
    """Plain and diffusion decoder on the same tokens of `n` held-out scenes, with floor and controls.

    `net`: the `PictureNet` that judges. `fd_*`: Frechet distance in its features to `n` *other* true
    pictures; `fd_floor` is that of the true pictures themselves. `fd_same_*`: to the true pictures of the
    *same* scenes, where the floor is 0 and which objects were drawn plays no part: the finer measure
    (`fd_same_blur`: true pictures with a 3x3 blur). `nouns_*`: share of pictures that `net` reads rightly.
    `psnr_*`: `pooled_psnr`. `sharpness_*`: see `sharpness`. `ms_*`: CPU milliseconds a picture, one by one.
    """
    scenes = held_out_scenes(n, seed, jitter)
    truth, other = draw_batch(scenes), draw_batch(held_out_scenes(n, seed + 1000, jitter))
    ids = vqvae.encode(truth)
    made = {"plain": vqvae.decode(ids),
            "diffusion": torch.cat([decoder.decode(part, vqvae, steps, seed + i, sampler)
                                    for i, part in enumerate(ids.split(64))])}
    same, target = net.features(truth), net.features(other)
    blurred = F.avg_pool2d(F.pad(truth, (1, 1, 1, 1), mode="replicate"), 3, 1)
    out = {"n": n, "seed": seed, "steps": steps, "sampler": sampler, "jitter": jitter,
           "fd_floor": frechet_distance(target, same),
           "fd_same_blur": frechet_distance(same, net.features(blurred)),
           "nouns_true": net.accuracy(truth, scenes), "sharpness_true": sharpness(truth)}
    for name, images in made.items():
        features = net.features(images)
        out |= {f"fd_{name}": frechet_distance(target, features),
                f"fd_same_{name}": frechet_distance(same, features), f"psnr_{name}": pooled_psnr(images, truth),
                f"nouns_{name}": net.accuracy(images, scenes), f"sharpness_{name}": sharpness(images)}
    ways = {"plain": vqvae.decode, "diffusion": lambda x: decoder.decode(x, vqvae, steps, seed, sampler)}
    for name, decode in ways.items():
        out[f"ms_{name}"] = cpu_milliseconds(lambda i, decode=decode: decode(ids[i:i + 1]))
    return rounded(out)


# ---------------------------------------------------------------- optional judges

def if_installed(judge: Callable):
    """What `judge()` returns; None, and a line that says why, if it needs a package that is not installed."""
    try:
        return judge()
    except ImportError as error:
        print(f"not measured: {error}")
        return None


def sign_accuracy(pictures: torch.Tensor, scenes: Sequence[Scene]) -> float | None:
    """The share of the scenes' signs that OCR reads right in their pictures (B, 3, 64, 64).

    Scenes without a sign are left out. None if none has one, or if the OCR (`test` extra) is not installed.
    """
    if len(pictures) != len(scenes):
        raise ValueError(f"one scene a picture, please: got {len(pictures)} pictures, {len(scenes)} scenes")
    signed = [i for i, scene in enumerate(scenes) if scene.sign]
    if not signed:
        return None
    return if_installed(lambda: float(np.mean([read_sign(pictures[i]) == scenes[i].sign for i in signed])))


# ---------------------------------------------------------------- what a job costs

def cpu_milliseconds(job: Callable, calls: int = 4) -> float:
    """The mean CPU milliseconds of `job(0)`, `job(1)`, ...: the first call is counted too."""
    start = time.process_time()
    for i in range(calls):
        job(i)
    return 1000 * (time.process_time() - start) / calls


def count_flops(job: Callable) -> int:
    """Multiplications and additions in the matrix products and convolutions of one call of `job`."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        job()
    return counter.get_total_flops()


# ---------------------------------------------------------------- intervals

def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where the true share lies if `k` of `n` were right: Wilson's score interval (1927).

    It stays within [0, 1] and does not shrink to a point at 0 or `n`; (0, 1) if nothing was asked. ValueError
    for k outside 0..n.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if not 0 <= k <= n:
        raise ValueError(f"of n = {n} answers 0 to {n} are right, got {k}")
    if n == 0:
        return 0.0, 1.0
    z, p = _normal_quantile(confidence), k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (0.0 if k == 0 else middle - half), (1.0 if k == n else middle + half)


def newcombe(k1: int, n1: int, k2: int, n2: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where the difference of two shares, k1/n1 - k2/n2, lies (Newcombe 1998, method 10).

    It combines the two `wilson` intervals. For two *different* sets of questions; for one set that was asked
    twice use `paired_bootstrap`.
    """
    if not n1 or not n2:
        raise ValueError(f"both shares need answers, got {n1} and {n2} of them")
    (low1, high1), (low2, high2) = wilson(k1, n1, confidence), wilson(k2, n2, confidence)
    p1, p2 = k1 / n1, k2 / n2
    return p1 - p2 - math.hypot(p1 - low1, high2 - p2), p1 - p2 + math.hypot(high1 - p1, p2 - low2)


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean, and half the width of its interval, of few values such as one for each seed (Student 1908).

    ValueError for less than two values: one alone says nothing of how much they differ.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"an interval needs two values or more, got {values.size}")
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()), student_t(len(values) - 1, confidence) * error


def student_t(df: int, confidence: float = 0.95) -> float:
    """The number below which |t| stays with that probability, for `df` degrees of freedom.

    By bisection of finite sums (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4), tan(angle) = t / sqrt(df).
    """
    if df < 1 or int(df) != df or not 0 < confidence < 1:
        raise ValueError(f"df is a whole number >= 1 and confidence lies between 0 and 1, got {df} and {confidence}")

    def inside(angle: float) -> float:                             # the probability of |t| < sqrt(df) tan(angle)
        cosine, odd = math.cos(angle), df % 2
        term, total = (cosine if odd else 1.0), 0.0
        for k in range(3 if odd else 2, df + 1, 2):
            total += term
            term *= cosine * cosine * (k - 1) / k
        total *= math.sin(angle)
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < confidence else (low, middle)
    return math.sqrt(df) * math.tan(low)


def bootstrap_interval(values: Sequence[float], rng: np.random.Generator, confidence: float = 0.95,
                       draws: int = 2000) -> tuple[float, float]:
    """Where the mean lies: the middle of the means of as many values drawn with replacement (Efron 1979)."""
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"a bootstrap needs a list of values, not empty, got the shape {values.shape}")
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def paired_bootstrap(a: Sequence[float], b: Sequence[float], rng: np.random.Generator,
                     confidence: float = 0.95, draws: int = 2000) -> tuple[float, float]:
    """Where the mean of a - b lies, for two measurements of the *same* questions, in the same order."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"pairs need two lists of one length, got {a.shape} and {b.shape}")
    return bootstrap_interval(a - b, rng, confidence, draws)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equals sharing the mean of theirs; from -1 to 1. ValueError for rows of different
    lengths, or without any difference."""
    a, b = (np.asarray(values, float) for values in (a, b))
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"two flat rows of the same length, please: got shapes {a.shape} and {b.shape}")
    ranks = []
    for values in (a, b):
        _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(counts) == 1:
            raise ValueError("all values are the same: there is no order to compare")
        ranks.append((counts.cumsum() - (counts - 1) / 2)[which])       # of equals: the middle of their places
    return float(np.corrcoef(ranks)[0, 1])


def decide(low: float, high: float, *, above: float = -math.inf, below: float = math.inf) -> str:
    """Whether a number whose 95 % interval is `low` to `high` lies between two bounds: holds, FAILS, or undecided."""
    if above <= low and high <= below:
        return "holds"
    return "FAILS" if high < above or low > below else "undecided"


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


# ---------------------------------------------------------------- writing down

def rounded(measured: dict, digits: int = 4) -> dict:
    """A row with its floats rounded; what could not be measured (None) stays."""
    return {key: round(value, digits) if isinstance(value, float) else value for key, value in measured.items()}
