"""The small model of chapter 11 before it practises: `mmcourse train practice`, about two CPU minutes.

It draws, listens and speaks in the practice world, and masters none of that. It is the base of seed 0 of the study
`ch11_posttraining`: same rows, same steps.
"""
import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.experiments.practice import REPORT, TASKS, pre_train, side
from mmcourse.generate import generate
from mmcourse.recipes import begin, finished, options, run_file, ship
from mmcourse.training import History, Run

STEPS = 600


def measure(model, n: int = 120) -> dict:
    """Sampled answers to `n` validation questions of each task: the share that is right."""
    out = {}
    for number, name in enumerate(TASKS):
        asked = side("validation").ask(name, np.random.default_rng((11, number)), n)
        given = generate(model, side("train").vocabulary, [list(q.prompt) for q in asked], asked[0].want, seed=0)
        out[f"{name}_right"] = round(float(np.mean(REPORT[name](asked, given))), 4)
    return out


def main(argv: list[str] | None = None, folder=None) -> History:
    """Train (or go on training) the model and ship it."""
    args = options("practice", argv, STEPS)
    made_with = {name: checkpoints.identity(name) for name in ("bpe", "vqvae", "codec")}
    run = begin(run_file("practice", seed=args.seed, steps=args.steps, **made_with), args)
    model, history = pre_train(args.seed, args.steps, Run(seed=args.seed, resume=run, log_every=50))
    ship("practice", model, finished(history), args, run, measure(model), folder, dtype=torch.int8, tokenizers=made_with)
    return history
