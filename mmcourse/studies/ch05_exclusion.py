"""Does longer training teach a model which pairs are missing? About 15 CPU minutes.

The model of chapter 05, trained on its 20,000 captions for more and more steps, each time with the whole
schedule, three seeds. A *held-out* pair of a thing and a ground is in none of these captions, so the perfect
predictor of them gives it no chance. Expected (after one look at a single seed): the cost of a held-out
ground rises with training, and the share of held-out pairs among written captions falls. The control is the
grammar without the rule, which holds as many pairs as a writer who knows nothing of it.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import pad
from mmcourse.generate import generate
from mmcourse.judges.metrics import t_interval
from mmcourse.optim import Optim
from mmcourse.studies import Job, Study, finished
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer, next_token_loss
from mmcourse.vocabulary import OPEN, Segment, Vocabulary
from mmcourse.world.scene import WORLD, Group, caption, held_out_pair, parse_caption, sample_scene


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: tuple[int, ...] = (100, 300, 1000, 3000)
    captions: int = 20_000              # to learn from
    fresh: int = 1000                   # to test on
    written: int = 1000                 # texts that the model writes
    batch: int = 64
    lr: float = 3e-3


class Texts:
    """Captions as ids: those to learn from, and others."""

    def __init__(self, plan: Plan):
        rng = np.random.default_rng(0)
        self.bpe = checkpoints.load("bpe")
        self.vocabulary = Vocabulary(self.bpe.vocab_size, image=0, audio=0)
        self.rows = [self.pack(caption(sample_scene(rng))) for _ in range(plan.captions)]
        self.fresh = pad([self.pack(caption(sample_scene(rng))) for _ in range(plan.fresh)])

    def pack(self, line: str) -> list[int]:
        """A caption as one row of ids, boundary tokens included."""
        return self.vocabulary.pack([Segment("text", self.bpe.encode(" " + line))])

    def batch(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor]:
        """A batch of captions, padded."""
        return (pad([self.rows[i] for i in rng.integers(len(self.rows), size=size)]),)

    def written(self, model: Transformer, n: int) -> list[str]:
        """`n` texts that a model writes from nothing."""
        said = generate(model, self.vocabulary, [[]] * n, "text", seed=1, limit=28)
        return [self.bpe.decode(segment.ids).strip() for segment in said]


texts = lru_cache(maxsize=1)(Texts)


def unfinished(noun: str) -> list[str]:
    """Captions of one thing after which a ground must come."""
    one, many = WORLD.grammar.describe, WORLD.grammar.plural(noun)
    return [f"{one(Group(noun, 1, 'right'))},", f"two {many} on the right,", f"three {many},",
            f"four {many},"]


@torch.no_grad()
def ground_costs(model: Transformer, data: Texts) -> np.ndarray:
    """How much dearer a held-out ground is than the others of its thing, in nats: a number for each thing
    that has one.

    The same captions with the ground exchanged: nothing else differs.
    """
    ids = [data.pack(f"red {name} ground")[2] for name in WORLD.backgrounds]
    costs = []
    for noun in WORLD.nouns:
        held = torch.tensor([held_out_pair(noun, name) for name in WORLD.backgrounds])
        if held.any():
            starts = (torch.tensor([data.pack(start)[:-1]]) for start in unfinished(noun))
            cost = -torch.stack([model(start)[0, -1].log_softmax(-1)[ids] for start in starts]).mean(0)
            costs.append((cost[held].mean() - cost[~held].mean()).item())
    return np.array(costs)


def scenes_of(written: Sequence[str]) -> list:
    """The scenes of those texts that are captions."""
    found = []
    for text in written:
        try:
            found.append(parse_caption(text))
        except ValueError:
            continue
    return found


def holds_pair(scene) -> bool:
    """Whether one of a scene's things stands on a ground that is held out for it."""
    return any(held_out_pair(group.noun, scene.background) for group in scene.groups)


def row(plan: Plan, steps: int, seed: int) -> dict:
    """What the model of one length of training knows of the pairs that it never saw."""
    data = texts(plan)
    torch.manual_seed(seed)
    model = Transformer(data.vocabulary.size, width=96, layers=3, heads=4,
                        segment_starts=tuple(OPEN.values()))
    history = finished(train(model, lambda rng: data.batch(rng, plan.batch), next_token_loss, steps=steps,
                             optim=Optim(lr=plan.lr, warmup=20), run=Run(seed=seed, progress=False)))
    right = scenes_of(data.written(model, plan.written))
    cost, half = t_interval(ground_costs(model, data))
    with torch.no_grad():
        loss = next_token_loss(model, data.fresh).item()
        known = next_token_loss(model, pad(data.rows[:plan.fresh])).item()
    return {"seed": seed, "steps": steps, "loss": round(loss, 4), "loss, trained on": round(known, 4),
            "cost": round(cost, 4), "cost +-": round(half, 4), "written": plan.written, "right": len(right),
            "with a held-out pair": sum(map(holds_pair, right)), "cpu_minutes": round(history.cpu_minutes, 2)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each seed and length of training."""
    return [Job(f"{steps} steps", partial(row, plan, steps, seed), key={"seed": seed, "steps": steps},
                seed=seed) for steps in plan.steps for seed in seeds]


STUDY = Study("ch05_exclusion", Plan(), Plan(steps=(2, 4), captions=40, fresh=8, written=8, batch=8), jobs,
              seeds=(0, 1, 2))
main = STUDY.run
