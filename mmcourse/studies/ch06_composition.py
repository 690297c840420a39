"""What makes a model compose, and not learn pairs by heart? About 18 CPU minutes.

The first part of the reference run (pictures and captions alone), once on the eight named backgrounds and
once with a share of the scenes on colours without a name; each with its last weights and with their EMA. What
is counted: pictures whose objects are right, one try each, for (noun, background) pairs that nothing was
trained on and for pairs that were.
"""
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import mixture_loss
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.optim import Optim
from mmcourse.recipes.transformer import (
    EMA_DECAY,
    LR,
    MUON_LR,
    PARTS,
    SCENES,
    UNNAMED,
    WARMUP,
    make_mixture,
    make_model,
)
from mmcourse.studies import Job, Study, finished
from mmcourse.training import Run, train
from mmcourse.world.scene import caption, sample_scene

BATCH = 25                              # pictures that are drawn together


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 700                    # of the part's 5,000
    seed: int = 0
    n: int = 100                        # captions of each split
    scenes: int = SCENES                # to train on


@torch.no_grad()
def objects_right(model, mixture, split: str, n: int, seed: int = 1) -> float:
    """The share of `n` captions of a split whose picture, drawn once, shows the objects that were asked
    for."""
    rng, right = np.random.default_rng((seed, 77)), []
    vqvae, reader = checkpoints.load("vqvae"), PictureReader()
    scenes = [sample_scene(rng, split) for _ in range(n)]
    for i in range(0, n, BATCH):
        part = scenes[i:i + BATCH]
        answers = generate(model, mixture.vocabulary, [[mixture.text(caption(s))] for s in part], "image",
                           temperature=0.7, guidance=2.0, seed=seed + i)
        pictures = vqvae.decode(torch.tensor([a.ids for a in answers]).view(-1, 8, 8))     # (B, 64) -> (B, 8, 8)
        right += [bool(seen) and [g.noun for g in seen.groups] == [g.noun for g in s.groups]
                  for seen, s in zip(reader.read(pictures), part)]
    return round(float(np.mean(right)), 4)


def rows(plan: Plan, unnamed: float) -> list[dict]:
    """Train once; a row for the last weights and a row for their EMA ("mean")."""
    first = replace(PARTS[0], unnamed=unnamed)
    mixture = make_mixture(plan.scenes, stage=first.stages[0], part=first)
    model, last = make_model(mixture.vocabulary, plan.seed), []

    def keep_last(model, step):
        if step + 1 == plan.steps:
            last.append(copy.deepcopy(model).eval())

    history = finished(train(model, mixture.batch, mixture_loss, steps=first.steps,
                             optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=WARMUP, ema_decay=EMA_DECAY),
                             run=Run(until=plan.steps, seed=plan.seed), after_step=keep_last))
    return [{"unnamed": unnamed, "weights": weights, "steps": plan.steps, "seed": plan.seed, "n": plan.n,
             "cpu_minutes": round(history.cpu_minutes, 2),
             "held_out": objects_right(net, mixture, "held-out", plan.n),
             "trained": objects_right(net, mixture, "train", plan.n)}
            for weights, net in (("last", last[0]), ("mean", model))]


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Two rows for each share of scenes on colours without a name."""
    return [Job(f"{share:.0%} without a name", partial(rows, plan, share), section=(), key={"unnamed": share})
            for share in (0.0, UNNAMED)]


def head(plan: Plan) -> dict:
    """What each row of the file has."""
    return {"steps": plan.steps, "seed": plan.seed, "n": plan.n}


STUDY = Study("ch06_composition", Plan(), Plan(steps=1, n=2, scenes=64), jobs, head)
main = STUDY.run
