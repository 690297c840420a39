"""How much should a token count in the loss, if one model learns text, pictures and sound? About 20 CPU minutes.

A small model of the world of `experiments.practice` learns the same sequences in the same order four times; only what an answer's
tokens count differs. (What is given counts nothing, in all arms.) Written down before it ran:

- `token`: each the same. `text x 4`: a token of text four times as much, as in the course's recipes. `segment`: each answer the
  same, however long. `learned`: each modality by the precision that the model gives it (Kendall et al. 2018): exp(-s) times its
  mean loss, plus s, and s is learned too.
- W1: `segment` learns text better than `token` (fewer bits an answer), because a word has few tokens.
- W2: and pays for it in pictures and sound.
- W3: `learned` is nowhere better than the better one of `token` and `segment`: it looks at how large a loss is, and not at what
  can still be learned.

Rows: bits of a true answer of the test split after its question, by modality, means over `n` questions; how many of `asked`
questions are answered rightly (the report judges; one greedy try); `weights`: the share of the loss's weight that the tokens of
each modality had in a batch (in the last one for `learned`). An answer's first and last token (which opens and which closes it)
are trained and not counted.
"""
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.dataset import mixture_loss, pad
from mmcourse.experiments import practice
from mmcourse.studies import Study
from mmcourse.studies._ch12 import TOY, Plan, each_arm, examine, learn
from mmcourse.transformer import Transformer
from mmcourse.vocabulary import CLOSE, OPEN

ARMS = ("token", "text x 4", "segment", "learned")
MODALITIES = ("text", "image", "audio")
TEXT = 4.0                              # of `text x 4`
TEST_SEED = 1204


class WithPrecision(nn.Module):
    """A transformer, and for each modality a number s: its loss counts exp(-s)."""

    def __init__(self, transformer: Transformer):
        super().__init__()
        self.transformer = transformer
        self.s = nn.Parameter(torch.zeros(len(MODALITIES)))


@cache
def kinds() -> torch.Tensor:
    """Which of `MODALITIES` each id of the vocabulary belongs to, the tokens that open and close its segments too; -1: none."""
    vocabulary = practice.side("train").vocabulary
    out = torch.full((vocabulary.size,), -1)
    for i, modality in enumerate(MODALITIES):
        ids = vocabulary.ranges[modality]
        out[ids.start:ids.stop] = out[OPEN[modality]] = out[CLOSE[modality]] = i
    return out


def batches(arm: str) -> Callable:
    """`batch(rng)`: the sequences of the mixture, in an arm's weights."""
    mixture = practice.side("train").mixture

    def row(name: str, rng: np.random.Generator) -> tuple[list[int], list[float]]:
        question, answer = mixture.sequence(name, rng)
        before, after = (mixture.vocabulary.pack([part]) for part in (question, answer))
        each = {"text x 4": TEXT if answer.modality == "text" else 1.0, "segment": 1 / len(after)}.get(arm, 1.0)
        return before + after, [0.0] * (len(before) + 1) + [each] * (len(after) - 1)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [row(name, rng) for name, n in mixture.rows.items() for _ in range(n)]
        return pad([ids for ids, _ in rows]), pad([weights for _, weights in rows], torch.float)
    return batch


def learned_loss(model: WithPrecision, ids: torch.Tensor, weights: torch.Tensor) -> dict:
    """Each modality's mean cross-entropy in nats, by its own precision: sum(exp(-s) loss + s)."""
    chosen = weights[:, 1:] > 0
    targets = ids[:, 1:][chosen]
    losses = F.cross_entropy(model.transformer.head(model.transformer.hidden(ids[:, :-1])[chosen]), targets, reduction="none")
    kind = kinds()[targets]
    total = 0.0
    for i in range(len(MODALITIES)):
        total = total + losses[kind == i].mean() * (-model.s[i]).exp() + model.s[i]
    return {"loss": total}


def trained(arm: str, seed: int, plan: Plan) -> tuple[Transformer, dict]:
    """The model of an arm, and how the weight of its loss is shared among the modalities."""
    transformer, batch = practice.make_small(seed), batches(arm)
    model = WithPrecision(transformer) if arm == "learned" else transformer
    loss = learned_loss if arm == "learned" else mixture_loss
    learn(model, batch, loss, plan.steps, seed)
    ids, weights = batch(np.random.default_rng(0))
    kind = kinds()[ids[:, 1:]].where(ids[:, 1:] > max(CLOSE.values()), -1)                      # content alone
    share = torch.stack([weights[:, 1:][kind == i].sum() for i in range(len(MODALITIES))])
    if arm == "learned":
        share = (-model.s.detach()).exp()
    return transformer.eval(), dict(zip(MODALITIES, (share / share.sum()).tolist()))


def measure(arm: str, seed: int, plan: Plan) -> dict:
    """A row: bits and right answers of one model."""
    model, weights = trained(arm, seed, plan)
    return {**examine(model, plan.split, plan.n, plan.asked, TEST_SEED), "weights": {name: round(share, 4)
                                                                                     for name, share in weights.items()}}


STUDY = Study("ch12_weights", Plan(steps=600), TOY, partial(each_arm, measure, ARMS),
              lambda plan: {"plan": asdict(plan), "world": practice.PRACTICE.identity}, seeds=(0, 1, 2), minutes=True)
main = STUDY.run
