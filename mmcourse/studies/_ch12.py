"""What the studies of chapter 12 have in common: the weights that work, and how a model of the practice world learns and is
examined."""
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from mmcourse.bits import segment_bits
from mmcourse.experiments import practice
from mmcourse.generate import generate
from mmcourse.optim import Optim
from mmcourse.studies import Job, finished
from mmcourse.training import Run, train
from mmcourse.transformer import Transformer

ANSWERS = {"text": "hear", "image": "draw", "audio": "say"}            # modality: the task whose answers it is


def matrices(model: torch.nn.Module) -> int:
    """The weights that each token is multiplied with."""
    return sum(weight.numel() for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name)


@dataclass(frozen=True)
class Plan:
    """What decides the numbers of small models that are compared."""
    steps: int
    n: int = 150
    asked: int = 240
    split: str = "test"


TOY = Plan(steps=3, n=4, asked=4)


def learn(model: torch.nn.Module, batch: Callable, loss: Callable, steps: int, seed: int) -> None:
    """Train a small model, every arm alike."""
    finished(train(model, batch, loss, steps=steps, optim=Optim("muon", lr=3e-3, warmup=20), run=Run(seed=seed, progress=False)))


def each_arm(measure: Callable, arms: Iterable[str], plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A job `measure(arm, seed, plan)` for every arm with every seed."""
    return [Job(f"{arm}, seed {seed}", partial(measure, arm, seed, plan), ("rows", arm), str(seed), seed=seed)
            for seed in seeds for arm in arms]


def examine(model: Transformer, split: str, n: int, asked: int, seed: int, use_cache: bool = True) -> dict:
    """Bits of `n` true answers of each modality after their questions, means (the token that closes an answer is not counted),
    and of `asked` questions of each task how many are answered rightly (report judges, one greedy try)."""
    side, dice = practice.side(split), np.random.default_rng(seed)
    bits = {modality: [float(segment_bits(model, side.vocabulary, question.answer, question.prompt)[:-1].sum())
                       for question in side.ask(task, dice, n)] for modality, task in ANSWERS.items()}
    right = {}
    for name in practice.TASKS:
        questions = side.ask(name, dice, asked)
        given = generate(model, side.vocabulary, [list(question.prompt) for question in questions], questions[0].want,
                         temperature=0.0, use_cache=use_cache)
        right[name] = int(sum(practice.REPORT[name](questions, given)))
    return {"bits": {modality: round(float(np.mean(each)), 3) for modality, each in bits.items()}, "right": right, "asked": asked}
