"""Does the shipped model compose, and how much guidance helps it? About 25 CPU minutes.

Two kinds of things, one of each, no sign; what counts is that both nouns are read, each on its side. Guidance
is tried on scenes of its own (`choosing`), composing on others (`seed`), which nothing was chosen on:
validation seeds, both, as the test of the matrix stays the last word. Composing is asked as the shipped model
answers (`rerank.PRESETS`), and with one draft.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.assistant import load
from mmcourse.generate import generate
from mmcourse.judges import PictureReader
from mmcourse.rerank import PRESETS, answer_directly, log_likelihood
from mmcourse.studies import Job, Study
from mmcourse.vocabulary import Segment
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Scene, caption, is_held_out, sample_scene

BATCH = 25                              # captions that are drawn together
SPLITS = {"pairs from training": "train", "held-out pairs": "held-out"}


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    choosing: int = 61                  # the seed of the scenes that guidance is tried on
    seed: int = 62                      # and of those that composing is tested on
    guided: int = 200                   # scenes for each scale of guidance
    n: int = 300                        # scenes of each split
    scales: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0)
    drafts: tuple[int, ...] = (1, 8)


def pairs(split: str, n: int, seed: int) -> list[Scene]:
    """`n` scenes of two single things without a sign, of a split; of them a pair of noun and ground is held out,
    or none."""
    rng, out = np.random.default_rng((seed, 78)), []
    while len(out) < n:
        scene = replace(sample_scene(rng, split, kinds=2), sign="")
        if all(g.count == 1 for g in scene.groups) and is_held_out(scene) == (split == "held-out"):
            out.append(scene)
    return out


def both_right(pictures: torch.Tensor, scenes: Sequence[Scene]) -> list[int]:
    """1 for each picture in which both nouns are read, each on its side; else 0."""
    return [int(bool(seen) and [g.noun for g in seen.groups] == [g.noun for g in scene.groups])
            for seen, scene in zip(PictureReader().read(pictures), scenes, strict=True)]


def painted(vqvae, segments: list[Segment]) -> torch.Tensor:
    """Picture segments as the tokenizer's own decoder paints them: (n, 3, 64, 64)."""
    return vqvae.decode(torch.tensor([s.ids for s in segments]).view(-1, 8, 8))            # (n, 64) -> (n, 8, 8)


def guidance(plan: Plan, scale: float) -> dict:
    """One scale, temperature 1, one draft: the hits, and how likely the drawn tokens are to the model itself
    without guidance, in bits a token."""
    a, scenes, hits, bits = load(), pairs("held-out", plan.guided, plan.choosing), [], []
    for i in range(0, len(scenes), BATCH):
        part = scenes[i:i + BATCH]
        prompts = [[a.segment(caption(s))] for s in part]
        drawn = generate(a.transformer, a.vocabulary, prompts, "image", guidance=scale, seed=plan.choosing + i)
        hits += both_right(painted(a.vqvae, drawn), part)
        bits += (-log_likelihood(a.transformer, a.vocabulary, prompts, drawn) / np.log(2) / 65).tolist()
    return {"guidance": scale, "n": len(hits), "right": sum(hits), "bits": round(float(np.mean(bits)), 4), "hits": hits}


def composing(plan: Plan, name: str, drafts: int) -> dict:
    """One split, so many drafts: the hits, the ceiling (true pictures through the tokenizer) and chance (each
    picture at another's caption)."""
    a, scenes, pictures = load(), pairs(SPLITS[name], plan.n, plan.seed), []
    sampling = {**PRESETS["text", "image"].sampling, "best_of": drafts}
    for i in range(0, len(scenes), BATCH):
        prompts = [[a.segment(caption(s))] for s in scenes[i:i + BATCH]]
        pictures.append(painted(a.vqvae, answer_directly(a.transformer, a.vocabulary, prompts, "image",
                                                         seed=plan.seed + i, **sampling)))
    pictures = torch.cat(pictures)
    truth = torch.cat([a.vqvae.decode(a.vqvae.encode(draw_batch(scenes[i:i + BATCH])))
                       for i in range(0, len(scenes), BATCH)])
    by = max(1, len(scenes) // 3)
    hits = both_right(pictures, scenes)
    return {"split": name, "drafts": drafts, "n": len(hits), "right": sum(hits),
            "ceiling": sum(both_right(truth, scenes)), "chance": sum(both_right(pictures, scenes[by:] + scenes[:by])),
            "hits": hits}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """A row for each scale of guidance; a row for each split and number of drafts."""
    scales = [Job(f"guidance {scale:g}", partial(guidance, plan, scale), section=("guidance",),
                  key={"guidance": scale}) for scale in plan.scales]
    return scales + [Job(f"{name}, {drafts} drafts", partial(composing, plan, name, drafts), section=("composing",),
                         key={"split": name, "drafts": drafts}) for name in SPLITS for drafts in plan.drafts]


def head(plan: Plan) -> dict:
    """The plan, the checkpoints that were measured, and how they were asked."""
    made = {name: checkpoints.identity(name)[:8] for name in ("bpe", "vqvae", "transformer")}
    return {"plan": asdict(plan), "checkpoints": made, "sampling": PRESETS["text", "image"].sampling}


STUDY = Study("ch06_composing", Plan(), Plan(guided=2, n=3, scales=(1.0, 2.0), drafts=(1, 2)), jobs, head)
main = STUDY.run
