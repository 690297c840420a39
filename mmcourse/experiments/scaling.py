"""How loss falls with size and data: nets of one family, runs that branch, and their law.

Sources: Kaplan et al. 2020; Hoffmann et al. 2022 (arXiv 2203.15556: the law, and its fit in
approach 3); Haegele et al. 2024 (arXiv 2405.18392: one run at a constant rate, with a short
decay for each budget).
"""
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import least_squares

from mmcourse.optim import Optim, make_optimizers, set_rates
from mmcourse.training import step
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN, Vocabulary

CONTEXT = 256                           # tokens, as the reference model
COUNTS = ("all", "with head", "hidden")
DELTA = 0.01            # of Huber's loss on logarithms: beyond a percent, a line


# ---------------------------------------------------------------- one family of nets

def family(vocabulary: Vocabulary, width: int, seed: int = 0) -> Transformer:
    """A net in the proportions of the reference model: a layer and a head for every 32 of
    width, two layers at least (one cannot look twice)."""
    torch.manual_seed(seed)
    return Transformer(vocabulary.size, width=width, layers=max(2, width // 32),
                       heads=max(1, width // 32), context=CONTEXT,
                       segment_starts=tuple(OPEN.values()))


def parameters(model: Transformer) -> dict[str, int]:
    """A net's parameters counted three ways: all of them; without the embeddings, which are
    looked up only; and without the head too: the blocks."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    embedded = sum(n for name, n in sizes.items() if "embed" in name)
    return {"all": sum(sizes.values()), "with head": sum(sizes.values()) - embedded,
            "hidden": sum(sizes.values()) - embedded - sizes["head.weight"]}


# --------------------------------------------------------- one run for several budgets

def wsd(step: int, steps: int, warmup: int, decay: float = 0.2) -> float:
    """The learning rate's factor: up, constant, and down as 1 - sqrt in the last share
    `decay` of the steps."""
    start = round((1 - decay) * steps)
    if step < start:
        return min(1.0, (step + 1) / warmup)
    return 1 - ((step - start + 1) / (steps - start + 1)) ** 0.5


def branches(model: Transformer, batch: Callable, loss: Callable, budgets: Sequence[int],
             optim: Optim, decay: float = 0.2) -> Iterator[tuple[int, Transformer]]:
    """Train once at a constant rate, end it at each budget: yields (steps, a trained copy).

    Each copy is what a run of its own under `wsd` would have given, and the part before the
    decay is paid once. `batch(step)` gives the data of a step.
    """
    optimizers, done = make_optimizers(model, optim), 0

    def go_on(net, its_optimizers, first: int, last: int, steps: int) -> None:
        for now in range(first, last):
            set_rates(its_optimizers, wsd(now, steps, optim.warmup, decay))
            step(net, its_optimizers, batch(now), loss, optim.clip)
    for steps in sorted(budgets):
        start = round((1 - decay) * steps)
        go_on(model, optimizers, done, start, steps)
        done = start
        net, its_optimizers = copy.deepcopy((model, optimizers))    # they move the copy
        go_on(net, its_optimizers, start, steps, steps)
        yield steps, net.eval()


# ---------------------------------------------------------------- the law

@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A N^-a + B D^-b: what cannot be predicted, what a net is too small for,
    and what its data did not show it."""
    E: float
    A: float
    a: float
    B: float
    b: float

    def __call__(self, N, D):
        N, D = np.asarray(N, float), np.asarray(D, float)
        return self.E + self.A * N ** -self.a + self.B * D ** -self.b

    @property
    def share(self) -> float:
        """The exponent of the best size at a given compute: N grows as C ** share."""
        return self.b / (self.a + self.b)


def fit_law(N, D, L, starts: Sequence[Law] = ()) -> Law:
    """The law through losses L of nets of N parameters after D tokens: the least Huber loss
    of their logarithms, from many starts (or from `starts`).

    ValueError for fewer than six runs, or losses that are not positive.
    """
    N, D, L = (np.asarray(x, float) for x in (N, D, L))
    if len(L) < 6 or min(L.min(), N.min(), D.min()) <= 0:
        raise ValueError("five constants need six runs at least, with positive N, D and L; "
                         f"got {len(L)} runs, the least loss {min(L, default=None)}")
    log_n, log_d, low = np.log(N), np.log(D), np.log(L.min())
    n0, d0 = log_n.mean(), log_d.mean()           # so that the constants are of a size

    def terms(p):                             # p: log E, log A', a, log B', b -> (3, runs)
        return np.exp([p[0] + 0 * log_n, p[1] - p[2] * (log_n - n0),
                       p[3] - p[4] * (log_d - d0)])

    def residuals(p):
        return np.log(terms(p).sum(0)) - np.log(L)

    def slopes(p):                            # of the residuals, by each constant
        e, n, d = terms(p) / terms(p).sum(0)
        return np.stack([e, n, -n * (log_n - n0), d, -d * (log_d - d0)], 1)
    begun = [(np.log(s.E + 1e-5), np.log(s.A + 1e-9) - s.a * n0, s.a,
              np.log(s.B + 1e-9) - s.b * d0, s.b) for s in starts]
    begun = begun or [(low + e, low - 1, a, low - 1, b) for e in (-3, -0.5)
                      for a in (0.2, 0.8) for b in (0.2, 0.8)]
    lower, upper = np.array([-12, -21, 0, -21, 0]), np.array([low, 12, 3, 12, 3])
    fits = [least_squares(residuals, np.clip(p, lower + 1e-6, upper - 1e-6), slopes,
                          bounds=(lower, upper), loss="huber", f_scale=DELTA, max_nfev=60)
            for p in begun]
    e, log_a, a, log_b, b = min(fits, key=lambda fit: fit.cost).x
    A, B = np.exp(log_a + a * n0), np.exp(log_b + b * d0)
    return Law(*map(float, (np.exp(e), A, a, B, b)))


def resampled_laws(N, D, L, law: Law, times: int = 200, seed: int = 0) -> list[Law]:
    """The law through `times` samples of the runs, drawn with replacement (bootstrap): each
    fit begins at `law` and at two laws beside it."""
    N, D, L = (np.asarray(x, float) for x in (N, D, L))
    dice, out = np.random.default_rng(seed), []
    beside = [law, replace(law, E=law.E / 3), replace(law, E=(law.E + L.min()) / 2)]
    while len(out) < times:
        chosen = dice.integers(len(L), size=len(L))
        if min(len(set(N[chosen])), len(set(D[chosen]))) > 2:   # fewer give no exponent
            out.append(fit_law(N[chosen], D[chosen], L[chosen], beside))
    return out


def interval(values, share: float = 0.95) -> list[float]:
    """Where the middle `share` of the values lies: [low, high]."""
    tail = 50 * (1 - share)
    return [float(v) for v in np.percentile(values, [tail, 100 - tail])]


def best_rate(factors: Sequence[float], losses: Sequence[float]) -> float:
    """The lowest point of a parabola through the best factor and its neighbours, over
    logarithms; the best factor itself if it has a neighbour on one side only."""
    x, best = np.log(factors), int(np.argmin(losses))
    if best in (0, len(x) - 1):
        return float(factors[best])
    two, one, _ = np.polyfit(x[best - 1:best + 2], np.asarray(losses)[best - 1:best + 2], 2)
    return float(np.exp(-one / (2 * two)))
