"""What of the reference model earned its place? `python -m mmcourse.studies.ch06_ablations`, about forty CPU minutes.

The small world and the one net of `specialists`, with one thing changed at a time; three seeds. A seed is its first weights and
its sequences, the same for every arm, so that arms are compared in pairs. Measured are the answers to held-out questions, in bits
a token. Written to data/results/ch06_ablations.json; a run that is there is not run again.
"""
import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import nn

from mmcourse.dataset import mixture_loss
from mmcourse.optim import Optim
from mmcourse.paths import RESULTS
from mmcourse.recipes.transformer import AVERAGE, COPIES, LR, MUON_LR, make_model
from mmcourse.studies.ch06_specialists import TASKS, WHOLE, World, answer_bits, made_with, save_rows
from mmcourse.studies.ch07_sampling import interval
from mmcourse.training import Run, train

STEPS, SEEDS, FASTER = 600, 3, 5
FILE = RESULTS / "ch06_ablations.json"
DIRECTIONS = tuple(direction for task in TASKS.values() for direction in task)


class NormedQueriesAndKeys(nn.Module):
    """In the place of an attention's `qkv`: queries and keys are normed, each head by itself (Henry et al. 2020; as a layer
    norm Dehghani et al. 2023): (B, T, C) -> (B, T, 3 C)."""

    def __init__(self, linear: nn.Linear, heads: int):
        super().__init__()
        self.linear, self.heads = linear, heads
        self.norms = nn.ModuleList(nn.LayerNorm(linear.in_features // heads) for _ in range(2))

    def forward(self, x):
        q, k, v = self.linear(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)             # 3 x (B, T, heads, C / heads)
        return torch.stack([self.norms[0](q), self.norms[1](k), v], -3).flatten(-3)


def norm_queries_and_keys(model: nn.Module) -> None:
    for block in model.blocks:
        block.attention.qkv = NormedQueriesAndKeys(block.attention.qkv, model.heads)


def use_gelu(model: nn.Module) -> None:
    for block in model.blocks:
        block.mlp = nn.Sequential(block.mlp.up, nn.GELU(), block.mlp.down)


def count_from_the_start(model: nn.Module) -> None:
    """Positions are those in the sequence, not in the segment; and no segment has a number."""
    model.segment_starts = ()


@dataclass(frozen=True)
class Arm:
    """One thing changed: the `size`, the model (`change`), the training, how tokens are weighted, or what is listened to."""
    size: dict = field(default_factory=dict)
    change: Callable[[nn.Module], None] | None = None
    training: dict = field(default_factory=dict)
    all_tokens: bool = False
    augmented: bool = False


RATES = {"lr": LR, "muon_lr": MUON_LR}
FAST = {name: FASTER * rate for name, rate in RATES.items()}
BASE = "as it is"
ARMS = {
    BASE: Arm(),
    "queries and keys normed": Arm(change=norm_queries_and_keys),
    f"{FASTER} times the rates": Arm(training=FAST),
    f"{FASTER} times the rates, queries and keys normed": Arm(change=norm_queries_and_keys, training=FAST),
    "AdamW, not Muon": Arm(training={"optimizer": "adamw"}),
    "AdamW, a third of its rate": Arm(training={"optimizer": "adamw", "lr": LR / 3}),
    "running mean of the weights": Arm(training={"average": AVERAGE}),
    "all tokens count the same": Arm(all_tokens=True),
    "positions in the sequence": Arm(change=count_from_the_start),
    "GELU, not squared ReLU": Arm(change=use_gelu),
    "listens to augmented speech": Arm(augmented=True),
    "half as wide": Arm(size={"width": WHOLE["width"] // 2}),
    "twice as wide": Arm(size={"width": WHOLE["width"] * 2}),
}


def all_tokens_loss(model: nn.Module, *parts: torch.Tensor) -> dict:
    """As `mixture_loss`, but what was given counts as much as the answer."""
    return mixture_loss(model, *(part if i % 2 == 0 else (parts[i - 1] != 0).float() for i, part in enumerate(parts)))


@cache
def world_of(augmented: bool) -> World:
    return World(COPIES if augmented else 0)


def learn(arm: Arm, seed: int, steps: int = STEPS) -> tuple[nn.Module, float]:
    """A net trained as an arm says, and its CPU minutes. FloatingPointError if its loss is not finite."""
    world = world_of(arm.augmented)
    model = make_model(world.vocabulary, seed, **{**WHOLE, **arm.size})
    if arm.change:
        arm.change(model)
    how = {"optimizer": "muon", **RATES, **arm.training}
    history = train(model, lambda rng: world.batch(rng, list(TASKS)),
                    all_tokens_loss if arm.all_tokens else mixture_loss, steps=steps,
                    optim=Optim(warmup=20), run=Run(seed=seed, progress=False), **how)
    return model, history.cpu_minutes


def run(name: str, seed: int, steps: int = STEPS) -> dict:
    """One row: what an arm reaches in each direction, in bits a token. A net that diverged has none (None)."""
    out = {"arm": name, "seed": seed}
    try:
        model, minutes = learn(ARMS[name], seed, steps)
    except FloatingPointError:
        return {**out, "bits": None}
    bits = {direction: round(answer_bits(model, world_of(False), direction), 4) for direction in DIRECTIONS}
    parameters = sum(p.numel() for p in model.blocks.parameters())
    return {**out, "bits": bits, "parameters": parameters, "cpu_minutes": round(minutes, 3)}


def summary(rows: list[dict]) -> list[dict]:
    """A row an arm: what it reaches in each direction as (mean, half-width of the 95 % interval) over the seeds in pairs, as it
    is for the first arm, less the first arm's for the others. None: diverged."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    base, out = {row["seed"]: row["bits"] for row in rows if row["arm"] == arms[0]}, []
    for arm in arms:
        own = [row for row in rows if row["arm"] == arm]
        whole = all(row["bits"] is not None for row in own)
        bits = {d: interval([row["bits"][d] - (base[row["seed"]][d] if arm != arms[0] else 0) for row in own]) if whole else None
                for d in next(iter(base.values()))}
        out.append({"arm": arm, "seeds": len(own), "bits": bits,
                    "cpu_minutes": sum(row["cpu_minutes"] for row in own) / len(own) if whole else None})
    return out


def main(argv: list[str] | None = None, file=FILE) -> dict:
    """Run every arm and seed that the file does not hold."""
    parser = argparse.ArgumentParser(prog="python -m mmcourse.studies.ch06_ablations", description=__doc__.split("\n")[0])
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(SEEDS)))
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    result, order = {"plan": {"steps": args.steps, "tokenizers": made_with()}, "rows": []}, list(ARMS)
    if file.exists() and (old := json.loads(file.read_text(encoding="utf-8")))["plan"] == result["plan"]:
        result = old
    for seed in args.seeds:
        for name in args.arms:
            if any((row["arm"], row["seed"]) == (name, seed) for row in result["rows"]):
                continue
            row = run(name, seed, args.steps)
            print(row, flush=True)
            result["rows"].append(row)
            result["rows"].sort(key=lambda row: (order.index(row["arm"]), row["seed"]))
            save_rows(file, {"plan": result["plan"]}, result["rows"])
    return result


if __name__ == "__main__":
    main()
