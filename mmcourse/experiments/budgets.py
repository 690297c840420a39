"""As many tokens as a picture needs: who looks at the picture says how many, and learns it from a reward (chapter 12).

Reward of k tokens: the share of compartments that are right in the picture that is made of them, less `price` for each token.
What each answer counts is chapter 11's GRPO: how much better it is than the others for the same picture.
"""
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.checks import device_of
from mmcourse.nested import NestedTokenizer
from mmcourse.optim import Optim
from mmcourse.posttraining import advantages
from mmcourse.training import Run, train
from mmcourse.world.shelves import CELL, Shelf, draw_shelves, read_shelves

GROUP = 8                               # lengths that are tried for each picture of a batch
PICTURES = 64
CURIOSITY = 0.01                        # what a nat of entropy is worth
OPTIM = Optim(lr=1e-3, warmup=20, weight_decay=0.0)


class BudgetNet(nn.Module):
    """How many tokens a picture should have: patches (B, N, D) -> logits of 1 ... `tokens` (B, tokens).

    It adds up what it finds in each patch.
    """

    def __init__(self, tokens: int = 12, dim: int = 3 * CELL**2, width: int = 64):
        super().__init__()
        self.each = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, tokens)
        nn.init.zeros_(self.head.weight)                                # at first each length is as likely
        nn.init.zeros_(self.head.bias)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.head(self.each(patches).sum(1))                     # (B, N, C) -> (B, C) -> (B, tokens)


@torch.no_grad()
def quality(tokenizer: NestedTokenizer, shelves: Sequence[Shelf]) -> tuple[torch.Tensor, torch.Tensor]:
    """What 1, 2, ... tokens are worth, (B, tokens) each: the share of compartments that are right, and the squared error."""
    pictures = draw_shelves(shelves)
    ids = tokenizer.encode(pictures.to(device_of(tokenizer)))
    truth = torch.tensor([shelf.things for shelf in shelves])
    right, errors = [], []
    for k in range(1, tokenizer.tokens + 1):
        made = tokenizer.decode(ids[:, :k]).cpu()
        found = torch.tensor([shelf.things for shelf in read_shelves(made)])
        right.append((found == truth).float().mean(1))
        errors.append((made - pictures).square().mean((1, 2, 3)))
    return torch.stack(right, 1), torch.stack(errors, 1)


def budget_loss(net: BudgetNet, patches: torch.Tensor, rewards: torch.Tensor) -> dict:
    """GRPO on one choice: lengths are drawn from the net of now, and each counts by its advantage. rewards (B, tokens).

    A little entropy is rewarded, too: who always says 12 is always right, and never finds out what would have done.
    """
    log_probs = net(patches).log_softmax(-1)
    lengths = torch.multinomial(log_probs.detach().exp(), GROUP, replacement=True)          # (B, GROUP)
    won = rewards.gather(1, lengths)
    counts = advantages(won, np.random.default_rng(0))
    entropy = -(log_probs.exp() * log_probs).sum(1).mean()
    return {"loss": -(counts * log_probs.gather(1, lengths)).mean() - CURIOSITY * entropy, "reward": won.mean(),
            "tokens": 1.0 + lengths.float().mean()}


def practise(patches: torch.Tensor, right: torch.Tensor, price: float, steps: int, seed: int = 0):
    """A net that has learned how many tokens to spend at a price, and the History. patches (N, 9, D), right (N, tokens): of the
    training pictures (`quality`). ValueError for a price below 0."""
    if price < 0:
        raise ValueError(f"a price is 0 or more for each token, got {price}")
    torch.manual_seed(seed)
    net = BudgetNet(right.shape[1], patches.shape[2])
    rewards = right - price * torch.arange(1, right.shape[1] + 1)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(rng.integers(len(patches), size=PICTURES))
        return patches[rows], rewards[rows]
    return net, train(net, batch, budget_loss, steps=steps, optim=OPTIM, run=Run(seed=seed, progress=False))


def spent(lengths: torch.Tensor, right: torch.Tensor) -> tuple[float, float]:
    """What lengths (B,) cost and bring: mean tokens, and the share of compartments that are right."""
    return float(lengths.float().mean()), float(right.gather(1, lengths[:, None] - 1).mean())


def first_good(errors: torch.Tensor, allowed: float) -> torch.Tensor:
    """The stop rule: the shortest beginning whose picture is off by at most `allowed` (mean squared error), or all tokens. It has
    to make every one of those pictures: (B, tokens) -> (B,)."""
    good = F.pad((errors <= allowed)[:, :-1], (0, 1), value=True)
    return 1 + good.float().argmax(1)


def needed(share: float, shares: Sequence[float], tokens: Sequence[float]) -> float:
    """How many tokens bring a share of right compartments, on the line through points that were measured (both rising)."""
    return float(np.interp(share, shares, tokens))
