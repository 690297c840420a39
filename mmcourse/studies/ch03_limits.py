"""What keeps moved pictures from 25 dB? One part of the tokenizer replaced at a time; one CPU minute.

The shipped tokenizer on pictures whose drawings are moved by up to two pixels, with one part at a time
replaced by a better one: the encoder's choice by a search among the codes (analysis by synthesis), the 512
codes by 8,192, the codes by no codes at all. What is missing then is not that part's fault. Nothing is
trained or changed.
"""
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.quantize import k_means, nearest_code
from mmcourse.studies import Job, Study
from mmcourse.studies._ch03 import signed_row, signed_scenes
from mmcourse.vqvae import VQVAE
from mmcourse.world.pictures import draw_batch
from mmcourse.world.scene import sample_scene

APART = 4                               # places that are searched together lie so many tokens apart
STREAM = 97                             # of the scenes


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    pictures: int = 64
    jitter: int = 2                     # pixels by which a drawing is moved at most
    near: int = 8                       # codes that the search tries at each place
    sweeps: int = 2                     # of the search over all places
    codes: int = 8192                   # of the larger codebook
    fitted_on: int = 20_000             # vectors that k-means makes it from
    free_steps: int = 60                # of Adam towards the best vectors
    seed: int = 0


def paint_vectors(model: VQVAE, z: torch.Tensor) -> torch.Tensor:
    """Any vectors, codes or not, as the decoder paints them: (B, h, w, D) -> (B, 3, 8h, 8w) in [0, 1]."""
    return (model.decoder(z.permute(0, 3, 1, 2)) + 0.5).clamp(0, 1)    # (B, h, w, D) -> (B, D, h, w) -> pixels


def patch_errors(model: VQVAE, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The squared error of each patch that the decoder paints from ids (B, h, w): the same shape."""
    wrong = (model.decode(ids) - images).square().sum(1)
    return wrong.reshape(len(ids), ids.shape[1], 8, ids.shape[2], 8).sum((2, 4))


def windows(errors: torch.Tensor, top: int, left: int) -> torch.Tensor:
    """The errors (B, h, w) of `APART` x `APART` patches around every `APART`-th place from (top, left),
    summed."""
    B, h, w = errors.shape
    rows = [(r + k - APART // 2) % h for r in range(top, h, APART) for k in range(APART)]
    columns = [(c + k - APART // 2) % w for c in range(left, w, APART) for k in range(APART)]
    return errors[:, rows][:, :, columns].reshape(B, h // APART, APART, w // APART, APART).sum((2, 4))


@torch.no_grad()
def search(model: VQVAE, images: torch.Tensor, ids: torch.Tensor, sweeps: int = 1, near: int = 8) -> torch.Tensor:
    """Better ids for (B, 3, 64, 64) than `ids` (B, 8, 8): each place tries the `near` codes nearest to its
    own, one after another, and keeps what the decoder paints with least squared error. No picture gets worse.

    Places four patches apart are tried together, each judged by the 32x32 pixels around it; a picture whose
    error as a whole does not fall takes its old ids back.
    """
    height, width = ids.shape[1:]
    if height % APART or width % APART:
        raise ValueError(f"the search takes grids of multiples of {APART} tokens, got {height}x{width}")
    book, ids = model.quantizer.codebook, ids.clone()
    nearest = torch.cdist(book, book).argsort(1)[:, :near]             # (K, near): the first is the code itself
    best = patch_errors(model, images, ids)
    for top, left in [(top, left) for _ in range(sweeps) for top in range(APART) for left in range(APART)]:
        here = ids[:, top::APART, left::APART]                         # (B, h / 4, w / 4): tried together
        least, chosen, tried = windows(best, top, left), here.clone(), ids.clone()
        for k in range(1, near):
            tried[:, top::APART, left::APART] = nearest[here, k]
            found = windows(patch_errors(model, images, tried), top, left)
            better = found < least
            least, chosen = torch.where(better, found, least), torch.where(better, nearest[here, k], chosen)
        tried[:, top::APART, left::APART] = chosen
        errors = patch_errors(model, images, tried)
        falls = errors.sum((1, 2)) < best.sum((1, 2))
        ids[falls], best[falls] = tried[falls], errors[falls]
    return ids


def free(model: VQVAE, images: torch.Tensor, z: torch.Tensor, steps: int) -> torch.Tensor:
    """The vectors, any at all, from which the decoder paints `images` best, by `steps` of Adam from z: as
    z."""
    z = z.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1 * model.quantizer.codebook.std().item())
    for _ in range(steps):
        error = (model.decoder(z.permute(0, 3, 1, 2)) + 0.5 - images).square().sum()
        z.grad, = torch.autograd.grad(error, z)
        optimizer.step()
    return z.detach()


def larger_book(model: VQVAE, plan: Plan) -> torch.Tensor:
    """Codes by k-means of what the encoder says of moved training pictures: (codes, D)."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng((plan.seed, 96))
    scenes = [[sample_scene(rng, jitter=plan.jitter) for _ in range(32)] for _ in range(20)]
    fitted = torch.cat([model.vectors(draw_batch(part)).flatten(0, 2) for part in scenes])
    fitted = fitted.unique(dim=0)                                      # plain patches are many, and all alike
    return k_means(fitted[torch.randperm(len(fitted))[:plan.fitted_on]], plan.codes, rounds=5)


@cache
def tokenizer() -> VQVAE:
    """The shipped one; nothing of it moves."""
    return checkpoints.load("vqvae").requires_grad_(False)


def with_more_codes(plan: Plan, images: torch.Tensor) -> torch.Tensor:
    """The pictures from vectors that were rounded to the larger book."""
    model = tokenizer()
    z, book = model.vectors(images), larger_book(model, plan)
    return paint_vectors(model, book[nearest_code(z.flatten(0, 2), book)].reshape(z.shape))


def row(plan: Plan, name: str) -> dict:
    """One row: the pictures painted with one part replaced."""
    model = tokenizer()
    scenes, truth = signed_scenes(plan.pictures, (plan.seed, STREAM), 0 if name == "in place" else plan.jitter)
    ids, more = model.encode(truth), {}
    if name == "true pictures":
        pictures = truth
    elif name == "better ids":
        better = search(model, truth, ids, plan.sweeps, plan.near)
        pictures, more = model.decode(better), {"changed": round((better != ids).float().mean().item(), 4)}
    elif name == "more codes":
        pictures = with_more_codes(plan, truth)
    elif name == "no codes":
        pictures = paint_vectors(model, model.vectors(truth))
    elif name == "free vectors":
        pictures = paint_vectors(model, free(model, truth, model.vectors(truth), plan.free_steps))
    else:
        pictures = model.decode(ids)
    return signed_row(pictures, truth, scenes, **more)


ROWS = ("in place", "true pictures", "moved", "better ids", "more codes", "no codes", "free vectors")


def jobs(plan: Plan, seeds: Sequence[int]) -> list[Job]:
    """Control, ceiling, the tokenizer as it is, and one part replaced at a time."""
    return [Job(name, partial(row, plan, name)) for name in ROWS]


def head(plan: Plan) -> dict:
    """The plan, and which tokenizer was measured."""
    return {"plan": {**asdict(plan), "sha256": checkpoints.identity("vqvae")}}


TOY = Plan(pictures=2, near=2, sweeps=1, codes=64, fitted_on=500, free_steps=2)
STUDY = Study("ch03_limits", Plan(), TOY, jobs, head, minutes=True)
main = STUDY.run
