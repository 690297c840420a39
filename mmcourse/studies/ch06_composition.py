"""What makes a model compose, and not learn pairs by heart? `python -m mmcourse train composition`, about 18 CPU minutes.

The first part of the reference run (pictures and captions alone), once on the eight named grounds and once with `UNNAMED` of the
scenes on colours without a name; each with its last weights and with their running mean. What is counted: pictures whose objects
are right, one try each, for (noun, ground) pairs that nothing was trained on and for pairs that were. Written to
data/results/ch06_composition.json.
"""
import copy
import json
from dataclasses import replace

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import mixture_loss
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.recipes.transformer import (
    AVERAGE,
    LR,
    MUON_LR,
    PARTS,
    UNNAMED,
    WARMUP,
    make_mixture,
    make_model,
)
from mmcourse.training import Run, train
from mmcourse.world.scene import caption, sample_scene

STEPS, SCENES, BATCH = 700, 100, 25


@torch.no_grad()
def objects_right(model, mixture, split: str, n: int = SCENES, seed: int = 1) -> float:
    """The share of `n` captions of a split whose picture, drawn once, shows the objects that were asked for."""
    rng, vqvae, reader, right = np.random.default_rng((seed, 77)), checkpoints.load("vqvae"), PictureReader(), []
    scenes = [sample_scene(rng, split) for _ in range(n)]
    for i in range(0, n, BATCH):
        part = scenes[i:i + BATCH]
        answers = generate(model, mixture.vocabulary, [[mixture.text(caption(s))] for s in part], "image", temperature=0.7,
                           guidance=2.0, seed=seed + i)
        pictures = vqvae.decode(torch.tensor([a.ids for a in answers]).view(-1, 8, 8))     # (B, 64) -> (B, 8, 8)
        right += [bool(seen) and [g.noun for g in seen.groups] == [g.noun for g in s.groups]
                  for seen, s in zip(reader.read(pictures), part, strict=True)]
    return round(float(np.mean(right)), 4)


def run(unnamed: float, steps: int = STEPS, seed: int = 0) -> list[dict]:
    """Train once; a row for the last weights and a row for their mean."""
    first = replace(PARTS[0], unnamed=unnamed)
    mixture = make_mixture(stage=first.stages[0], part=first)
    model, last = make_model(mixture.vocabulary, seed), []

    def keep_last(model, step):
        if step + 1 == steps:
            last.append(copy.deepcopy(model).eval())

    history = train(model, mixture.batch, mixture_loss, steps=first.steps,
                    optim=Optim("muon", lr=LR, muon_lr=MUON_LR, warmup=WARMUP, ema_decay=AVERAGE),
                    run=Run(until=steps, seed=seed), after_step=keep_last)
    return [{"unnamed": unnamed, "weights": name, "steps": steps, "seed": seed, "n": SCENES,
             "cpu_minutes": round(history.cpu_minutes, 2), "held_out": objects_right(net, mixture, "held-out"),
             "trained": objects_right(net, mixture, "train")} for name, net in (("last", last[0]), ("mean", model))]


def main(argv: list[str] | None = None) -> list[dict]:
    """Both runs, one after the other, and the file."""
    from mmcourse.recipes import options
    args = options("composition", argv, steps=STEPS)
    rows = [row for unnamed in (0.0, UNNAMED) for row in run(unnamed, args.steps, args.seed)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "ch06_composition.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(*rows, sep="\n")
    return rows
