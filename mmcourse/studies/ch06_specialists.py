"""One net for all modalities, or three specialists? About 20 CPU minutes.

One net learns all three tasks of the small world. The specialists learn one each, from the very same
sequences, a step at a time, so that tokens are equal; once as three nets of the one net's size, and once as
three nets that share its size: a third of the parameters of its blocks each. Measured on held-out
combinations and voices, three seeds.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import mixture_loss
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.optim import Optim
from mmcourse.recipes.transformer import LR, make_model
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch06 import NAMES, TASKS, WHOLE, SmallWorld, answer_bits, made_with, small_world
from mmcourse.training import Run, train
from mmcourse.world.scene import caption

THIRD = {"width": 68, "layers": 2, "heads": 4}          # 12 x width^2 x layers: a third of that of `WHOLE`
EACH = tuple((task,) for task in TASKS)
NETS = {"one net": (WHOLE, (tuple(TASKS),)), "specialist, same size": (WHOLE, EACH),
        "specialist, a third": (THIRD, EACH)}           # kind of net -> its size, the tasks of each such net


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 1200
    nouns: int = len(NAMES)             # of the small world
    questions: int = 60                 # held out, of each direction


def share_right(model, world: SmallWorld, direction: str, n: int) -> float | None:
    """The share of right answers to held-out questions: the noun drawn, the caption or the word written.

    None where nothing is judged: speech, and pictures whose captions all say only a part.
    """
    questions, want, bpe = world.questions(direction, n), direction.split("->")[1], world.held_out.bpe
    if want == "audio":
        return None
    answers = generate(model, world.vocabulary, [[given] for given, _ in questions], want, temperature=0.0)
    if want == "text":
        return float(np.mean([bpe.decode(said.ids).strip() == bpe.decode(true.ids).strip()
                              for said, (_, true) in zip(answers, questions)]))
    nouns = {caption(scene): scene.groups[0].noun for scene in world.held_out.scenes}
    asked = [nouns.get(bpe.decode(given.ids).strip()) for given, _ in questions]     # None: it says only a part
    ids = torch.tensor([a.ids for a in answers]).view(-1, 8, 8)                      # (n, 64) -> (n, 8, 8)
    seen = PictureReader().read(checkpoints.load("vqvae").decode(ids))
    right = [bool(s) and s.groups[0].noun == noun for s, noun in zip(seen, asked) if noun]
    return float(np.mean(right)) if right else None


@lru_cache(maxsize=1)
def learn(plan: Plan, kind: str, tasks: tuple[str, ...], seed: int) -> tuple[torch.nn.Module, float]:
    """A net trained on these tasks, and its CPU minutes."""
    world = small_world(plan.nouns)
    model = make_model(world.vocabulary, seed, **NETS[kind][0])
    history = finished(train(model, lambda rng: world.batch(rng, tasks), mixture_loss, steps=plan.steps,
                             optim=Optim("muon", lr=LR, warmup=20), run=Run(seed=seed, progress=False)))
    return model, history.cpu_minutes


def row(plan: Plan, kind: str, tasks: tuple[str, ...], direction: str, seed: int) -> dict:
    """What one net reaches in one direction."""
    (model, minutes), world = learn(plan, kind, tasks, seed), small_world(plan.nouns)
    share = share_right(model, world, direction, plan.questions)
    return {"seed": seed, "net": kind, "direction": direction,
            "bits": round(answer_bits(model, world, direction, plan.questions), 4),
            "right": None if share is None else round(share, 4),
            "parameters": sum(p.numel() for p in model.blocks.parameters()), "cpu_minutes": round(minutes, 3)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each seed, kind of net and direction."""
    return [Job(f"{kind}, {direction}", partial(row, plan, kind, tasks, direction, seed),
                key={"seed": seed, "net": kind, "direction": direction}, seed=seed)
            for seed in seeds for kind, (_, nets) in NETS.items() for tasks in nets
            for task in tasks for direction in TASKS[task]]


def head(plan: Plan) -> dict:
    """The steps, and the tokenizers of the small world."""
    return {"steps": plan.steps, "tokenizers": made_with()}


STUDY = Study("ch06_specialists", Plan(), Plan(steps=1, nouns=1, questions=2), jobs, head, seeds=(0, 1, 2))
main = STUDY.run
