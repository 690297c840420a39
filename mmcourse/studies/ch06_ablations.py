"""What of the reference model earned its place? One thing changed at a time; about 50 CPU minutes.

The small world and the one net of `ch06_specialists`; three seeds. A seed is the first weights and the
sequences, the same for every arm, so that arms are compared in pairs. Measured are the answers to held-out
questions, in bits a token.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from mmcourse.dataset import mixture_loss
from mmcourse.judges.metrics import t_interval
from mmcourse.optim import Optim
from mmcourse.recipes.transformer import COPIES, EMA_DECAY, LR, MUON_LR, make_model
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch06 import DIRECTIONS, NAMES, TASKS, WHOLE, answer_bits, made_with, small_world
from mmcourse.training import Run, train
from mmcourse.vocabulary import PAD

FASTER = 5                              # times the learning rates
LONGER = 7                              # times the steps: a schedule that is stopped where its rates are still high


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 600
    nouns: int = len(NAMES)             # of the small world
    questions: int = 60                 # held out, of each direction


class NormedQueriesAndKeys(nn.Module):
    """In the place of an attention's `qkv`: queries and keys are normed, each head by itself (Henry et al.
    2020; as a layer norm Dehghani et al. 2023): (B, T, C) -> (B, T, 3 C)."""

    def __init__(self, linear: nn.Linear, heads: int):
        super().__init__()
        self.linear, self.heads = linear, heads
        self.norms = nn.ModuleList(nn.LayerNorm(linear.in_features // heads) for _ in range(2))

    def forward(self, x):
        """Values are left alone."""
        q, k, v = self.linear(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)       # 3 x (B, T, heads, C / heads)
        return torch.stack([self.norms[0](q), self.norms[1](k), v], -3).flatten(-3)


def norm_queries_and_keys(model: nn.Module) -> None:
    """In every block."""
    for block in model.blocks:
        block.attention.qkv = NormedQueriesAndKeys(block.attention.qkv, model.heads)


def use_gelu(model: nn.Module) -> None:
    """GELU in the place of the squared ReLU, in every block."""
    for block in model.blocks:
        block.mlp = nn.Sequential(block.mlp.up, nn.GELU(), block.mlp.down)


def count_from_the_start(model: nn.Module) -> None:
    """Positions are those in the sequence, not in the segment; and no segment has a number."""
    model.segment_starts = ()


@dataclass(frozen=True)
class Arm:
    """One thing changed: the model's `size`, the model (`change`), how it is optimized (`optim`, in place of
    what stands in `OPTIM`), how tokens are weighted (`all_tokens`), what is listened to (`augmented`), or how
    many times its steps the schedule spans (`schedule`)."""
    size: dict = field(default_factory=dict)
    change: Callable[[nn.Module], None] | None = None
    optim: dict = field(default_factory=dict)
    all_tokens: bool = False
    augmented: bool = False
    schedule: int = 1


OPTIM = {"name": "muon", "lr": LR, "muon_lr": MUON_LR, "warmup": 20}
FAST = {"lr": FASTER * LR, "muon_lr": FASTER * MUON_LR}
BASE = "as it is"
MIDWAY = f"a schedule {LONGER} times as long, cut short"
ARMS = {
    BASE: Arm(),
    "queries and keys normed": Arm(change=norm_queries_and_keys),
    f"{FASTER} times the rates": Arm(optim=FAST),
    f"{FASTER} times the rates, queries and keys normed": Arm(change=norm_queries_and_keys, optim=FAST),
    "AdamW, not Muon": Arm(optim={"name": "adamw"}),
    "AdamW, a third of its rate": Arm(optim={"name": "adamw", "lr": LR / 3}),
    "AdamW, three times its rate": Arm(optim={"name": "adamw", "lr": 3 * LR}),
    "running mean of the weights": Arm(optim={"ema_decay": EMA_DECAY}),
    MIDWAY: Arm(schedule=LONGER),
    f"{MIDWAY}, running mean": Arm(optim={"ema_decay": EMA_DECAY}, schedule=LONGER),
    "all tokens count the same": Arm(all_tokens=True),
    "positions in the sequence": Arm(change=count_from_the_start),
    "GELU, not squared ReLU": Arm(change=use_gelu),
    "listens to augmented speech": Arm(augmented=True),
    "half as wide": Arm(size={"width": WHOLE["width"] // 2}),
    "twice as wide": Arm(size={"width": WHOLE["width"] * 2}),
}


def all_tokens_loss(model: nn.Module, *parts: torch.Tensor) -> dict:
    """As `mixture_loss`, but what was given counts as much as the answer."""
    even = [(ids, (ids != PAD).float()) for ids in parts[::2]]          # the weights of the mixture are put aside
    return mixture_loss(model, *(part for pair in even for part in pair))


def learn(arm: Arm, seed: int, plan: Plan) -> tuple[nn.Module, float]:
    """A net trained as an arm says, and its CPU minutes. FloatingPointError if its loss is not finite."""
    world = small_world(plan.nouns, COPIES if arm.augmented else 0)
    model = make_model(world.vocabulary, seed, **{**WHOLE, **arm.size})
    if arm.change:
        arm.change(model)
    loss = all_tokens_loss if arm.all_tokens else mixture_loss
    history = finished(train(model, lambda rng: world.batch(rng, list(TASKS)), loss, steps=plan.steps * arm.schedule,
                             optim=Optim(**{**OPTIM, **arm.optim}),
                             run=Run(seed=seed, progress=False, until=plan.steps)))
    return model, history.cpu_minutes


def row(plan: Plan, name: str, seed: int) -> dict:
    """What an arm reaches in each direction, in bits a token. A net that diverged has none (None)."""
    out = {"arm": name, "seed": seed}
    try:
        model, minutes = learn(ARMS[name], seed, plan)
    except FloatingPointError:
        return {**out, "bits": None}
    world = small_world(plan.nouns)
    bits = {direction: round(answer_bits(model, world, direction, plan.questions), 4) for direction in DIRECTIONS}
    return {**out, "bits": bits, "parameters": sum(p.numel() for p in model.blocks.parameters()),
            "cpu_minutes": round(minutes, 3)}


def summary(rows: list[dict]) -> list[dict]:
    """A row for each arm: what it reaches in each direction as (mean, half-width of the 95 % interval) over
    the seeds in pairs; as it is for the first arm, less the first arm's for the others. None: diverged. One
    seed: infinitely wide."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    base, out = {row["seed"]: row["bits"] for row in rows if row["arm"] == arms[0]}, []
    for arm in arms:
        own = [row for row in rows if row["arm"] == arm]
        whole, bits = all(row["bits"] is not None for row in own), {}
        for direction in next(iter(base.values())):
            less = [base[row["seed"]][direction] if arm != arms[0] else 0.0 for row in own] if whole else []
            values = [row["bits"][direction] - b for row, b in zip(own, less)]
            one = (values[0], float("inf")) if values else None
            bits[direction] = t_interval(values) if len(values) > 1 else one
        out.append({"arm": arm, "seeds": len(own), "bits": bits,
                    "cpu_minutes": sum(row["cpu_minutes"] for row in own) / len(own) if whole else None})
    return out


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each arm and seed."""
    return [Job(name, partial(row, plan, name, seed), key={"arm": name, "seed": seed}, seed=seed)
            for name in ARMS for seed in seeds]


def head(plan: Plan) -> dict:
    """The steps, and the tokenizers of the small world."""
    return {"plan": {"steps": plan.steps, "tokenizers": made_with()}}


STUDY = Study("ch06_ablations", Plan(), Plan(steps=1, nouns=1, questions=1), jobs, head, seeds=(0, 1, 2))
main = STUDY.run
