"""Half of the tokens skip every other block: does a router learn which of them need it? About 40 CPU minutes.

Models of the world of `experiments.practice` learn the same sequences in the same order: `dense 3` blocks; `dense 4`, the
ceiling; and 4 blocks of which the second and the fourth work on half of the tokens (Raposo et al. 2024), so that as much is
computed as in 3. On which half says a router: `learned` reads it off the token's state, `by place` knows only the kind of segment
and the place in it, `thrown` is a throw of dice. Written down before it ran:

- R1: `learned` needs fewer bits for a true answer than `thrown`, in all three modalities.
- R2: `learned` needs fewer bits than `by place` in at most one modality: most of what it learns is the place.
- R3: at equal computing routed depth wins: `learned` needs fewer bits than `dense 3` in all three modalities.
- R4: and it lies behind `dense 4` by at most a tenth of the bits.
- R5: what it learns is not difficulty: the rank correlation of its score with the bits of the token to come is below .3, over
  the answers of each modality, in both blocks.

Rows: bits and right answers as in `ch12_weights`; `taken`: the share of an answer's tokens that go through each routed block, on
test questions; `learned` also has `score and bits`, the rank correlation, and `as its place`: the share of tokens that are
treated as most tokens of their place and modality are.
"""
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch

from mmcourse.bits import surprise_bits
from mmcourse.dataset import mixture_loss
from mmcourse.experiments import practice, routed
from mmcourse.judges.metrics import rank_correlation
from mmcourse.studies import Study
from mmcourse.studies._ch12 import ANSWERS, TOY, Plan, each_arm, examine, learn
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import OPEN

ARMS = {"dense 3": ("dense", 3), "dense 4": ("dense", 4), "learned": ("learned", 4), "by place": ("by place", 4),
        "thrown": ("thrown", 4)}
TEST_SEED = 1205


def trained(arm: str, seed: int, plan: Plan) -> Transformer:
    """The model of an arm."""
    kind, layers = ARMS[arm]
    side = practice.side("train")
    model = routed.make(kind, side.vocabulary.size, seed, layers, width=practice.SIZE["width"], heads=practice.SIZE["heads"],
                        context=256, segment_starts=tuple(OPEN.values()))
    learn(model, side.mixture.batch, mixture_loss, plan.steps, seed)
    return model


@torch.no_grad()
def watched(model: routed.RoutedTransformer, plan: Plan) -> dict:
    """What the routers do with the tokens of true answers."""
    side, dice, out = practice.side(plan.split), np.random.default_rng(TEST_SEED + 1), defaultdict(dict)
    scores: dict[str, torch.Tensor] = {}
    hooks = [router.score_head.register_forward_hook(lambda m, given, score, i=i: scores.update({i: score[0, :, 0]}))
             for i, router in model.routers.items() if router.score_head is not None]
    for modality, task in ANSWERS.items():
        seen = defaultdict(list)                                        # block -> a row for each token: place, taken, score, bits
        for question in side.ask(task, dice, plan.n):
            before, row = side.vocabulary.pack(question.prompt), side.vocabulary.pack([*question.prompt, question.answer])
            bits = surprise_bits(model(torch.tensor([row[:-1]]))[0], torch.tensor(row[1:]))
            first, n = len(before), len(question.answer.ids)            # the token at `first` opens the answer
            for i, chosen in ((str(block), chosen) for block, chosen in model.chosen.items()):
                score = scores.get(i, torch.zeros(len(row)))
                seen[i] += [(j, bool(chosen[0, first + j]), float(score[first + j]), float(bits[first + j])) for j in range(n)]
        out["taken"][modality] = {i: round(float(np.mean([row[1] for row in rows])), 4) for i, rows in seen.items()}
        if scores:
            out["score and bits"][modality] = {i: round(rank_correlation([r[2] for r in rows], [r[3] for r in rows]), 4)
                                               for i, rows in seen.items()}
            out["as its place"][modality] = {i: round(as_most_do(rows), 4) for i, rows in seen.items()}
    for hook in hooks:
        hook.remove()
    return dict(out)


def as_most_do(rows: Sequence[tuple]) -> float:
    """The share of tokens (place, taken, ...) that are treated as most of their place."""
    by_place = defaultdict(list)
    for place, taken, *_ in rows:
        by_place[place].append(taken)
    return sum(max(sum(each), len(each) - sum(each)) for each in by_place.values()) / len(rows)


def measure(arm: str, seed: int, plan: Plan) -> dict:
    """A row."""
    model = trained(arm, seed, plan)
    row = examine(model, plan.split, plan.n, plan.asked, TEST_SEED, use_cache=arm.startswith("dense"))
    return row | (watched(model, plan) if isinstance(model, routed.RoutedTransformer) else {})


STUDY = Study("ch12_routed", Plan(steps=800), TOY, partial(each_arm, measure, ARMS),
              lambda plan: {"plan": asdict(plan), "world": practice.PRACTICE.identity}, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
