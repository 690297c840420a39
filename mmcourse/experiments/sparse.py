"""A sparse autoencoder for the states of a transformer: many features, of which each state needs a few (chapter 13).

Source: Gao et al. 2024 (2406.04093: the k largest stay, directions of one length, dead features are revived by what the others
leave over). What features are compared with, and whether they do what they seem to say: `studies.ch13_sae`.
"""
import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.experiments.inside import looking


class SparseAutoencoder(nn.Module):
    """States as sums of a few directions out of many: (..., C) -> (..., C).

    Args:
        width: C, of a state. features: how many directions there are.
        k: how many of them a state has.
        quiet: a feature that was in no state for so many batches counts as dead.
    """

    def __init__(self, width: int, features: int, k: int, quiet: int = 50):
        super().__init__()
        self.k, self.quiet = k, quiet
        self.middle = nn.Parameter(torch.zeros(width))
        self.directions = nn.Parameter(F.normalize(torch.randn(features, width), dim=1))
        self.reader = nn.Linear(width, features)
        self.reader.weight.data.copy_(self.directions.data)     # at first both are alike
        nn.init.zeros_(self.reader.bias)
        self.register_buffer("silent", torch.zeros(features))   # batches since it was used

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """How much of each feature a state seems to have: (..., C) -> (..., features)."""
        return self.reader(x - self.middle).relu()

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The k largest of them, and zeros: (..., C) -> (..., features)."""
        return largest(self.scores(x), self.k)

    def part(self, f: torch.Tensor) -> torch.Tensor:
        """What features add to a state: (..., features) -> (..., C)."""
        return f @ F.normalize(self.directions, dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.middle + self.part(self.encode(x))


def largest(f: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest values of each row stay, all others are zero: (..., n) -> (..., n)."""
    top = f.topk(k, dim=-1)
    return torch.zeros_like(f).scatter(-1, top.indices, top.values)


def sparse_loss(model: SparseAutoencoder, x: torch.Tensor) -> dict:
    """States (B, C) -> the share of their variance that is not explained; and, at a 32nd of
    its weight, how much of what is left over the dead features do not explain either."""
    scores = model.scores(x)
    f = largest(scores, model.k)
    left = x - model.middle - model.part(f)                         # (B, C)
    missed = left.square().sum() / (x - x.mean(0)).square().sum()
    model.silent = torch.where(f.detach().gt(0).any(0), 0.0, model.silent + 1)
    dead = model.silent > model.quiet
    loss, n = missed, min(int(dead.sum()), x.shape[1] // 2)
    if n:
        rest = left.detach()
        revived = model.part(largest(scores * dead, n))
        loss = loss + (rest - revived).square().sum() / rest.square().sum() / 32
    return {"loss": loss, "missed": missed.detach(), "dead": dead.float().mean()}


@torch.no_grad()
def explained(model: SparseAutoencoder, x: torch.Tensor) -> float:
    """The share of the variance of states (N, C) that an autoencoder gives back."""
    return 1 - float((x - model(x)).square().sum() / (x - x.mean(0)).square().sum())


# ---------------------------------------------------------------- features changed while a model works

def normed(x: torch.Tensor) -> torch.Tensor:
    """States as the next LayerNorm sees them: each with mean 0 and variance 1, (..., C)."""
    return F.layer_norm(x, x.shape[-1:])


@contextlib.contextmanager
def moved(model: nn.Module, part: str, sparse: SparseAutoencoder,
          move: Callable) -> Iterator[None]:
    """While the block lasts, `move(f)` is added to the normed states of a part: f is the
    features (B, T, features), what comes back is (B, T, C). What they do not explain of a
    state, and how long it is, stay."""
    def look(name, x):
        if name == part:
            f = sparse.encode(normed(x))
            return x + x.std(-1, keepdim=True, correction=0) * move(f)
    with looking(model, look), torch.no_grad():
        yield


def only(f: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Of features (B, T, features) each row's own `chosen` ones (B, m), and zeros."""
    kept = f.new_zeros(len(f), 1, f.shape[-1]).scatter(-1, chosen[:, None], 1.0)
    return f * kept
