"""Do the words help if both ways were trained on equally often? About 35 CPU minutes.

The shipped model drew what it heard far better when it wrote the word down first; but its training had three
times as many rows with the word in between as without (`audio->text->image`, `audio->image`). Here small nets
learn both ways in the small world, equally often, as unequally as the shipped one, and the other way round.
Each answers the same held-out clips both ways, one draft, the likeliest token: only the words differ.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.dataset import mixture_loss
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.optim import Optim
from mmcourse.recipes.transformer import LR, make_model
from mmcourse.rerank import caption_first
from mmcourse.studies import Job, Study, finished
from mmcourse.studies._ch06 import NAMES, WHOLE, made_with, small_world
from mmcourse.training import Run, train

ALWAYS = {"text->image": 4, "audio->text": 4}           # rows in a batch that every arm has
ARMS = {"equally often": (3, 3), "words five times as often": (1, 5), "direct five times as often": (5, 1)}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 1200
    nouns: int = len(NAMES)             # of the small world
    questions: int = 240                # held-out clips


def rows_of(arm: str) -> dict[str, int]:
    """The rows of a batch: direct and with the word in between, as the arm says."""
    direct, said = ARMS[arm]
    return {**ALWAYS, "audio->image": direct, "audio->text->image": said}


def measure(model, plan: Plan) -> dict:
    """What the net draws of held-out clips: directly, after its own word, and after the true one; and what it
    writes down."""
    world = small_world(plan.nouns)
    clips, v, bpe = world.held_out.clips, world.vocabulary, world.training.bpe
    kept = np.random.default_rng(5).permutation(len(clips.tokens))[:plan.questions]
    words = [clips.words[i] for i in kept]
    heard = [[world.held_out.audio(clips.tokens[i])] for i in kept]
    said = caption_first(model, v, heard)
    told = [[*question, world.held_out.text(word)] for question, word in zip(heard, words)]
    out = {"n": len(kept), "word": sum(bpe.decode(p[1].ids).strip() == w for p, w in zip(said, words))}
    for name, prompts in {"direct": heard, "said": said, "told": told}.items():
        drawn = generate(model, v, prompts, "image", temperature=0.0)
        pictures = checkpoints.load("vqvae").decode(torch.tensor([s.ids for s in drawn]).view(-1, 8, 8))
        seen = [s.groups[0].noun if s and s.groups else None for s in PictureReader().read(pictures)]
        out[name] = sum(a == b for a, b in zip(seen, words))
    return out


def row(plan: Plan, arm: str, seed: int) -> dict:
    """One net: trained as the arm says, asked both ways. Counts of right answers among `n`."""
    mixture = small_world(plan.nouns).training
    mixture.rows = rows_of(arm)
    model = make_model(mixture.vocabulary, seed, **WHOLE)
    history = finished(train(model, mixture.batch, mixture_loss, steps=plan.steps,
                             optim=Optim("muon", lr=LR, warmup=20), run=Run(seed=seed, progress=False)))
    return {"arm": arm, "seed": seed, **measure(model, plan), "cpu_minutes": round(history.cpu_minutes, 3)}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each arm and seed."""
    return [Job(arm, partial(row, plan, arm, seed), key={"arm": arm, "seed": seed}, seed=seed)
            for arm in ARMS for seed in seeds]


def head(plan: Plan) -> dict:
    """The plan, and the tokenizers of the small world."""
    return {"plan": {"steps": plan.steps, "questions": plan.questions, "tokenizers": made_with()}}


STUDY = Study("ch06_said_first", Plan(), Plan(steps=1, nouns=1, questions=2), jobs, head, seeds=(0, 1, 2, 3, 4))
main = STUDY.run
