"""As many tokens as the scene needs: a budget that is learned from a reward, for one thing to nine. A few CPU minutes.

The tokens are those of the nested tokenizers of `ch12_nested`, the pictures those of its plain decoder. Written down before
it ran, for the price of .04 (which was chosen on validation shelves with seed 0, because at .01 hardly a token is saved):

- B1: the learned budget follows the true bits of a shelf, which this world knows: rank correlation .8 or more on test shelves.
- B2: it needs at least a fifth fewer tokens than a fixed length for the same share of right compartments.
- B3: the same lengths, dealt out to other pictures, are no better than a fixed length.
- B4: it needs at most half a token more than the stop rule, which looks at all shorter pictures first.

Rows for each seed: `fixed`: k -> the share of compartments that are right; `learned`: price -> tokens, right, `rank` (with the
true bits), `dealt` (tokens and right of the same lengths in another order), `needs` (what a fixed length needs for the same
share), lengths for 1 to 9 things (`by count`); `best`: the same for the length with the highest reward, which knows it (the
ceiling); `stop`: squared error allowed -> tokens, right, rank.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from mmcourse.experiments.budgets import first_good, needed, practise, quality, spent
from mmcourse.experiments.shelf_nets import TOKENS, shelves_of
from mmcourse.judges.metrics import rank_correlation
from mmcourse.painters import to_patches
from mmcourse.recipes.shelf_nets import Steps, tokenizer
from mmcourse.studies import Job, Study
from mmcourse.world.shelves import CELL, PLACES, draw_shelves, random_shelf

PRICES = (0.005, 0.01, 0.02, 0.04)
ALLOWED = (0.001, 0.003, 0.006, 0.012, 0.02)


@dataclass(frozen=True)
class Plan:
    """What decides the numbers: pictures to practise on and to test with, and steps of practice."""
    steps: Steps = field(default_factory=Steps)
    practised: int = 4000
    practice: int = 1500
    n: int = 1024
    split: str = "test"


def row_of(lengths: torch.Tensor, right: torch.Tensor, bits: list[float], fixed: list[float]) -> dict:
    """What lengths cost and bring."""
    tokens, share = spent(lengths, right)
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))
    rank = rank_correlation(lengths.tolist(), bits) if len(set(lengths.tolist())) > 1 else 0.0
    return {"tokens": round(tokens, 3), "right": round(share, 4), "rank": round(rank, 4),
            "needs": round(needed(share, fixed, range(1, TOKENS + 1)), 3),
            "dealt": [round(x, 4) for x in spent(lengths[order], right)]}


def measure(seed: int, plan: Plan) -> dict:
    """All ways to spend tokens, with one tokenizer."""
    net, (shelves, pictures) = tokenizer(seed, plan.steps), shelves_of(plan.split, plan.n)
    right, errors = quality(net, shelves)
    fixed, bits = np.maximum.accumulate(right.mean(0).tolist()).tolist(), [shelf.bits for shelf in shelves]
    dice = np.random.default_rng((12, seed))
    seen = [random_shelf(dice) for _ in range(plan.practised)]
    trained, _ = quality(net, seen)
    patches, asked = to_patches(draw_shelves(seen), CELL), to_patches(pictures, CELL)
    counts = torch.tensor([shelf.count for shelf in shelves])
    out = {"fixed": {str(k): round(share, 4) for k, share in enumerate(right.mean(0).tolist(), 1)}, "learned": {}, "best": {}}
    for price in PRICES:
        budget, _ = practise(patches, trained, price, plan.practice, seed)
        with torch.no_grad():
            lengths = 1 + budget(asked).argmax(1)
        out["learned"][str(price)] = row_of(lengths, right, bits, fixed) | {
            "by count": [round(float(lengths[counts == n].float().mean()), 2) for n in range(1, PLACES + 1)]}
        best = 1 + (right - price * torch.arange(1, TOKENS + 1)).argmax(1)
        out["best"][str(price)] = row_of(best, right, bits, fixed)
    out["stop"] = {str(allowed): row_of(first_good(errors, allowed), right, bits, fixed) for allowed in ALLOWED}
    return out


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """One row for each seed."""
    return [Job(f"seed {seed}", lambda seed=seed: measure(seed, plan), key=str(seed), seed=seed) for seed in seeds]


STUDY = Study("ch12_budget", Plan(), Plan(Steps(4, 3, 3, 3, 3, 500), practised=64, practice=5, n=24), jobs,
              lambda plan: {"plan": asdict(plan)}, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
