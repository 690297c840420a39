"""What would moved pictures need? Tokenizers that grow up on them; about 130 CPU minutes.

`ch03_limits` replaces parts of the finished tokenizer; here tokenizers grow up from nothing on pictures whose
drawings are all moved: with 512 codes and with 8,192, with tokens that see their own patch and tokens that
see their neighbours, and with no codes at all, the ceiling of this encoder and decoder. Nothing is shipped.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from mmcourse.optim import Optim
from mmcourse.paths import cache_dir
from mmcourse.recipes.vqvae import LR, MUON_LR, loss
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch03 import signed_row, signed_scenes
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

STREAM = (1, 97)                        # of the scenes that are measured


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 2200
    batch: int = 32
    jitter: int = 2                     # pixels by which a drawing is moved at most
    pictures: int = 192
    seed: int = 0


class NoCodes(torch.nn.Module):
    """In the place of a quantizer: the encoder's vectors pass as they are."""

    codebook_size = 1

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(N, d) -> the same, ids that are all 0, a loss of 0."""
        return x, torch.zeros(len(x), dtype=torch.long), x.new_zeros(())


@dataclass(frozen=True)
class Arm:
    """A tokenizer of the shipped shape but for its `codes` (None: none) and what a token sees (`context`);
    `times`: how many times the plan's steps it is trained."""
    codes: int | None
    context: int
    times: int = 1


ARMS = {f"{codes or 'no'} codes, context {context}": Arm(codes, context)
        for context in (3, 1) for codes in (8192, None, 512)}
ARMS["8192 codes, context 3, twice as long"] = Arm(8192, 3, times=2)
ARMS |= {f"{codes or 'no'} codes, context 1, four times as long": Arm(codes, 1, times=4)
         for codes in (8192, None, 512)}


def make(codes: int | None, context: int, seed: int = 0) -> VQVAE:
    """A fresh tokenizer; the seed decides its first weights."""
    torch.manual_seed(seed)
    model = VQVAE(codebook_size=codes or 1, dim=16, width=128, context=context)
    if codes is None:
        model.quantizer = NoCodes()
    return model


@torch.no_grad()
def measure(model: VQVAE, plan: Plan) -> dict:
    """`signed_row` on held-out scenes with signs, moved; and the codes used."""
    scenes, truth = signed_scenes(plan.pictures, STREAM, plan.jitter)
    parts = [model(images) for images in truth.split(32)]
    used = len(torch.cat([ids.flatten() for _, ids, _ in parts]).unique())
    return signed_row(torch.cat([painted.clamp(0, 1) for painted, _, _ in parts]), truth, scenes, codes_used=used)


def row(plan: Plan, name: str) -> dict:
    """Train one tokenizer, or go on with its training, and measure it."""
    arm = ARMS[name]
    model = make(arm.codes, arm.context, plan.seed)

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor]:
        return (draw_batch([sample_scene(rng, jitter=plan.jitter) for _ in range(plan.batch)]),)
    run = cache_dir() / "runs" / f"vq-moved-{name.replace(' ', '-').replace(',', '')}-{plan.steps}-{plan.seed}.pt"
    history = finished(train(model, batch, loss, steps=arm.times * plan.steps,
                             optim=Optim("muon", lr=LR, muon_lr=MUON_LR),
                             run=Run(seed=plan.seed, resume=run, log_every=50)))
    out = {**measure(model, plan), "cpu_minutes": round(history.cpu_minutes, 1)}
    run.unlink(missing_ok=True)
    return out


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each tokenizer."""
    return [Job(name, partial(row, plan, name)) for name in ARMS]


STUDY = Study("ch03_moved", Plan(), Plan(steps=1, batch=2, pictures=2), jobs)
main = STUDY.run
