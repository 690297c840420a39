"""What the decoder for 128x128 buys against the plain picture enlarged; about 2 CPU minutes."""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from mmcourse import checkpoints
from mmcourse.diffusion import enlarge
from mmcourse.judges.metrics import (
    cpu_milliseconds,
    held_out_scenes,
    pooled_psnr,
    rounded,
    sharpness,
    sign_accuracy,
)
from mmcourse.recipes.decoder128 import JITTER, SIZE
from mmcourse.studies import Job, Study
from mmcourse.studies._ch07 import distance
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import Scene

MEASURED = ("vqvae", "decoder128", "picture_judge")     # the checkpoints


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    n: int = 200                        # held-out scenes
    steps: tuple[int, ...] = (1, 2, 4, 8)
    seeds: tuple[int, ...] = (1, 2)     # further scenes and noise, at 2 steps


def shrink(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 3, 128, 128) -> (B, 3, 64, 64), the size that judges read."""
    return F.avg_pool2d(pictures, 2)


def detail(pictures: torch.Tensor) -> float:
    """The squared size of what 64x64 pixels cannot hold."""
    return (pictures - enlarge(shrink(pictures), 2)).square().mean().item()


def signs(name: str, pictures: torch.Tensor, scenes: list[Scene]) -> dict:
    """The share of signs that OCR reads; nothing without it."""
    share = sign_accuracy(pictures, scenes)
    return {} if share is None else {f"signs_{name}": share}


@torch.no_grad()
def measure(n: int = 200, seed: int = 0, steps: int = 2, jitter: int = 0) -> dict:
    """The plain picture enlarged and the decoder, on the same tokens of `n` held-out scenes, against true
    pictures.

    `psnr_*` and `sharpness_*` at 128x128. Judges read 64x64 pictures, so `fd_same_*` (Frechet distance to the
    true pictures of the same scenes), `nouns_*` and `signs_*` (OCR; left out without it) are of the pictures
    shrunk to that. `fine_*`: how much there is of what 64x64 pixels cannot hold, as a share of what true
    pictures have of it. `ms_*`: CPU milliseconds a picture.
    """
    vqvae, decoder, net = (checkpoints.load(name) for name in ("vqvae", "decoder128", "picture_judge"))
    scenes = held_out_scenes(n, seed, jitter)
    truth, ids = draw_batch(scenes, SIZE), vqvae.encode(draw_batch(scenes))
    ways = {"enlarged": lambda x, seed: enlarge(vqvae.decode(x), 2),
            "diffusion": lambda x, seed: decoder.decode(x, vqvae, steps, seed)}
    features = net.features(shrink(truth))
    out = {"n": n, "seed": seed, "steps": steps, "jitter": jitter, "sharpness_true": sharpness(truth),
           **signs("true", shrink(truth), scenes)}
    for name, paint in ways.items():
        images = torch.cat([paint(part, seed + i) for i, part in enumerate(ids.split(50))])
        small = shrink(images)
        out |= {f"psnr_{name}": pooled_psnr(images, truth),
                f"fd_same_{name}": distance(features, net.features(small)),
                f"nouns_{name}": net.accuracy(small, scenes), f"sharpness_{name}": sharpness(images),
                f"fine_{name}": detail(images) / detail(truth), **signs(name, small, scenes)}
    for name, paint in ways.items():
        out[f"ms_{name}"] = cpu_milliseconds(lambda i, paint=paint: paint(ids[i:i + 1], seed))
    return rounded(out)


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Steps, seeds, moved pictures."""
    def listed(section: str, key: str, values: Sequence[int], **options) -> list[Job]:
        return [Job(f"{section}: {key} {value}", partial(measure, plan.n, **{key: value}, **options),
                    section=(section,), key={key: value, "n": plan.n}) for value in values]
    return [*listed("steps", "steps", plan.steps), *listed("seeds", "seed", plan.seeds),
            *listed("jitter", "jitter", (JITTER,))]


def head(plan: Plan) -> dict:
    """Which checkpoints were measured."""
    return {"made_with": {name: checkpoints.identity(name) for name in MEASURED}}


STUDY = Study("ch07_decoder128", Plan(), Plan(n=4, steps=(1,), seeds=(1,)), jobs, head)
main = STUDY.run
