"""What the diffusion decoder for pictures buys, by steps, sampler and seed; some 5 CPU minutes."""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from mmcourse import checkpoints
from mmcourse.diffusion import plain_and_codes
from mmcourse.judges.metrics import count_flops, held_out_scenes, measure_decoders, rounded, sign_accuracy
from mmcourse.recipes.decoder import JITTER
from mmcourse.studies import Job, Study
from mmcourse.studies._ch07 import distance, written_tokens
from mmcourse.world.pictures import draw_batch

MEASURED = ("vqvae", "decoder", "picture_judge", "transformer")     # the checkpoints


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    n: int = 256                        # held-out scenes
    steps: tuple[int, ...] = (1, 2, 4, 8, 16)
    heun: tuple[int, ...] = (2, 4, 8)   # steps of Heun's sampler
    seeds: tuple[int, ...] = (1, 2)     # further scenes and noise, at 8 steps
    moved: tuple[int, ...] = (1, 2, 4, 8)       # steps, on pictures whose drawings are moved
    generated: int = 128                # scenes whose tokens the transformer writes
    generated_seeds: tuple[int, ...] = (0, 1, 2)


def row(plan: Plan, **options) -> dict:
    """Both decoders on the tokens of true pictures."""
    models = (checkpoints.load(name) for name in ("vqvae", "decoder", "picture_judge"))
    return measure_decoders(*models, n=plan.n, **options)


@torch.no_grad()
def measure_generated(n: int = 128, seed: int = 0, steps: int = 2) -> dict:
    """Both decoders on tokens that the *transformer* wrote for the captions of `n` held-out scenes, one try
    each.

    `nouns_*`: the share of captions whose nouns PictureNet reads in the picture; `fd_same_*`: to the true
    pictures of the captions; `signs_*`: the share of signs that OCR reads, None without it. `*_true_tokens`:
    the true picture's tokens.
    """
    vqvae, decoder, net = (checkpoints.load(name) for name in ("vqvae", "decoder", "picture_judge"))
    scenes = held_out_scenes(n, seed)
    truth = draw_batch(scenes)
    features = net.features(truth)
    out = {"n": n, "seed": seed, "steps": steps, "signs": sum(bool(scene.sign) for scene in scenes)}
    for suffix, ids in {"": written_tokens(n, seed), "_true_tokens": vqvae.encode(truth)}.items():
        made = {"plain": vqvae.decode(ids), "diffusion": decoder.decode(ids, vqvae, steps, seed)}
        for name, images in made.items():
            out |= {f"nouns_{name}{suffix}": net.accuracy(images, scenes),
                    f"fd_same_{name}{suffix}": distance(features, net.features(images)),
                    f"signs_{name}{suffix}": sign_accuracy(images, scenes)}
    return rounded(out)


def flops() -> dict:
    """To paint one picture: the plain decoder, and one call of the shipped U-Net."""
    vqvae, decoder = checkpoints.load("vqvae"), checkpoints.load("decoder")
    ids = torch.zeros(1, 8, 8, dtype=torch.long)
    plain, codes = plain_and_codes(vqvae, ids)
    return {"plain": count_flops(lambda: vqvae.decode(ids)),
            "call": count_flops(lambda: decoder(torch.zeros_like(plain), torch.zeros(1), plain, codes))}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Steps, Heun's sampler, seeds, costs, tokens of the transformer, moved pictures."""
    def listed(section: str, key: str, values: Sequence[int], **options) -> list[Job]:
        return [Job(f"{section}: {key} {value}", partial(row, plan, **{key: value}, **options),
                    section=(section,), key={key: value, "n": plan.n}) for value in values]

    generated = [Job(f"generated: seed {seed}", partial(measure_generated, plan.generated, seed),
                     section=("generated",), key={"seed": seed, "n": plan.generated})
                 for seed in plan.generated_seeds]
    return [*listed("steps", "steps", plan.steps), *listed("heun", "steps", plan.heun, sampler="heun"),
            *listed("seeds", "seed", plan.seeds), Job("flops", flops, section=()),
            *generated, *listed("jitter", "steps", plan.moved, jitter=JITTER)]


def head(plan: Plan) -> dict:
    """Which checkpoints were measured."""
    return {"made_with": {name: checkpoints.identity(name) for name in MEASURED}}


def outdated(result: dict, head: dict) -> None:
    """The rows on tokens of another transformer."""
    if result["made_with"]["transformer"] != head["made_with"]["transformer"]:
        result.pop("generated", None)
        result["made_with"]["transformer"] = head["made_with"]["transformer"]


TOY = Plan(n=100, steps=(1,), heun=(2,), seeds=(1,), moved=(1,), generated=2, generated_seeds=(0,))
STUDY = Study("ch07_decoder", Plan(), TOY, jobs, head, outdated=outdated)
main = STUDY.run
