"""Does jitter cost the transformer more than it teaches? `python -m mmcourse train jitter_study`, about 10 CPU minutes.

First without training (`--steps 0` stops there): how many bits of a picture's tokens does its full caption leave open? Drawn in
its place, none: caption -> picture -> tokens is a function. Jitter adds what no caption says.

Then the same small transformer, the same number of steps, text -> image alone: once where every drawing stands in its place,
once where scenes move by up to two pixels and 8 % in size. Written to data/results/jitter.json. Judged by `PictureNet`,
which was trained on both, as a share of what it reads in the true pictures of each kind sent through the tokens.
"""
import json

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.bits import entropy_bits
from mmcourse.generate import generate
from mmcourse.paths import RESULTS
from mmcourse.recipes.reference import LR, MUON_LR, Stage, make_mixture, make_model, mixture_loss
from mmcourse.training import train
from mmcourse.vocabulary import Segment
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import GROUNDS, NOUNS, Group, Scene, caption, held_out_pair, sample_scene

STEPS, SCENES = 600, 20_000
STAGE = Stage(STEPS, {"text->image": 16}, text_weight=1.0)


def nouns_right(images: torch.Tensor, scenes) -> float:
    """The share of pictures in which PictureNet's likeliest nouns are those of the scene."""
    asked = [{g.noun for g in s.groups} for s in scenes]
    seen = checkpoints.load("picture_judge").nouns(images, [len(a) for a in asked])
    return float(np.mean([set(s) == a for s, a in zip(seen, asked, strict=True)]))


def open_bits(jitter: int, draws: int = 64, nouns: int = 16, seed: int = 0) -> dict:
    """Entropy of the 64 tokens given the caption, place by place (an upper bound on the joint one), in bits a picture."""
    vqvae, rng, bits = checkpoints.load("vqvae"), np.random.default_rng((seed, 56)), []
    for noun in NOUNS[:nouns]:
        ground = next(g for g in GROUNDS if not held_out_pair(noun, g))
        scenes = []
        for _ in range(draws):
            moved = sample_scene(rng, jitter=jitter)
            scenes.append(Scene((Group(noun, 1, "left"),), ground, "", moved.shift, moved.scale))
        ids = vqvae.encode(draw_batch(scenes)).flatten(1)              # (draws, 8, 8) -> (draws, 64)
        for place in ids.T:
            bits.append(entropy_bits(place.bincount()))
    return {"jitter": jitter, "open_bits_a_picture": round(64 * float(np.mean(bits)), 1), "nouns": nouns, "draws": draws}


def run(jitter: int, steps: int = STEPS, seed: int = 0, n: int = 150) -> dict:
    """Train on scenes with this jitter, then draw `n` held-out scenes."""
    mixture = make_mixture(SCENES, jitter=jitter, stage=STAGE)
    model = make_model(mixture.vocabulary, seed, width=160, layers=5, heads=5)
    history = train(model, mixture.batch, mixture_loss, steps=steps, lr=LR, optimizer="muon", muon_lr=MUON_LR, seed=seed)
    scenes = [sample_scene(np.random.default_rng((seed, 55, i)), "held-out", jitter=jitter) for i in range(n)]
    prompts = [[mixture.text(caption(s))] for s in scenes]
    answers: list[Segment] = []
    for i in range(0, n, 50):
        answers += generate(model, mixture.vocabulary, prompts[i:i + 50], "image", temperature=0.5, guidance=2.0, seed=i)
    vqvae = checkpoints.load("vqvae")
    drawn = vqvae.decode(torch.tensor([a.ids for a in answers]).view(-1, 8, 8))            # (n, 64) -> (n, 8, 8)
    truth = vqvae.decode(vqvae.encode(draw_batch(scenes)))
    tail = history.column("loss")[-5:]
    return {"jitter": jitter, "steps": steps, "cpu_minutes": round(history.cpu_minutes, 2), "n": n, "seed": seed,
            "bits_per_token": round(float(np.mean(tail)) / float(np.log(2)), 3),
            "object": round(nouns_right(drawn, scenes), 4), "object_ceiling": round(nouns_right(truth, scenes), 4)}


def main(argv: list[str] | None = None) -> list[dict]:
    """Both runs, one after the other, and the file."""
    from mmcourse.recipes import options
    args = options("jitter_study", argv, steps=STEPS)
    rows = [open_bits(jitter, seed=args.seed) for jitter in (0, 2)]
    if args.steps:
        rows = [{**row, **run(row["jitter"], args.steps, args.seed)} for row in rows]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "jitter.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(*rows, sep="\n")
    return rows
