"""What the studies of chapter 08 share: sign pictures and their tokens, the four painters, and who reads them."""
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.files import atomic_write
from mmcourse.optim import Optim
from mmcourse.painters import (
    FlowPainter,
    TokenPainter,
    from_noise_loss,
    from_patches,
    in_order_loss,
    masked_loss,
    paint_from_noise,
    paint_in_order,
    paint_surest_first,
    score_from_noise,
    score_in_order,
    score_masked,
    to_patches,
)
from mmcourse.paths import cache_dir
from mmcourse.recipes import sign_vqvae
from mmcourse.spelling import LAYOUT, PROMPT_VOCAB, PROMPTS, prompt_ids
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.scene import BACKGROUNDS, Scene
from mmcourse.world.signs import ROWS, all_pictures, draw_signs, words_of

ARMS = ("in order", "surest first", "flow on pixels", "flow on latents")
TOKEN_ARMS, PIXELS, LATENTS = ARMS[:2], ARMS[2], ARMS[3]
HIGH, WIDE = 4, 8                       # places of a picture
PATCH = 3 * 8 * 8                       # numbers in a place's pixels
SILENT = 0.1                            # how often training leaves the prompt out: guidance needs it
OPTIM = Optim("muon", lr=3e-3, muon_lr=0.02, warmup=30)


@dataclass(frozen=True)
class Size:
    """How large the nets, the batches and the world are."""
    width: int = 96
    layers: int = 4
    heads: int = 4
    batch: int = 64
    pictures: int | None = None         # of the world, in all; None: every one. For a toy
    tokenizer: int = sign_vqvae.STEPS   # steps of the tokenizer for boards off the grid


@dataclass(frozen=True)
class Case:
    """One painter to train: which, how it is told the word, on how many different pictures (None: all), whether
    boards stand off the token grid, and the seed."""
    arm: str
    prompt: str = "both"
    unique: int | None = None
    moved: bool = False
    seed: int = 0


# ---------------------------------------------------------------- pictures, tokens, prompts

@lru_cache(maxsize=2)
def scenes(moved: bool, size: Size) -> list:
    """The training pictures' scenes, always in the same random order."""
    return all_pictures("train", moved=moved)[:size.pictures]


@lru_cache(maxsize=2)
def tokenizer(moved: bool, size: Size) -> VQVAE:
    """The shipped tokenizer of signs; for boards off the grid one that was trained on such, kept in the cache."""
    if not moved:
        return checkpoints.load("sign_vqvae")
    file, model = cache_dir() / f"sign-vqvae-moved-{size.tokenizer}.pt", sign_vqvae.make()
    if not file.exists():
        train(model, sign_vqvae.batches(scenes(True, size)), vqvae_loss, steps=size.tokenizer, optim=sign_vqvae.OPTIM,
              run=Run(progress=False))
        with atomic_write(file) as draft:
            torch.save(model.state_dict(), draft)
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


@lru_cache(maxsize=2)
@torch.no_grad()
def encoded(moved: bool, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (n, 32) and unquantised latents (n, 32, D) of the training pictures."""
    vqvae, all_, ids, latents = tokenizer(moved, size), scenes(moved, size), [], []
    for i in range(0, len(all_), 256):
        images = draw_signs(all_[i:i + 256])
        ids.append(vqvae.encode(images).flatten(1).short())            # (B, 4, 8) -> (B, 32)
        latents.append(vqvae.vectors(images).flatten(1, 2).half())     # (B, 4, 8, D) -> (B, 32, D)
    return torch.cat(ids), torch.cat(latents)


@lru_cache(maxsize=2)
def spread(moved: bool, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each of a latent's numbers: a flow wants data of size 1."""
    latents = encoded(moved, size)[1].float()
    return latents.mean((0, 1)), latents.std((0, 1)).clamp(min=1e-3)


@lru_cache(maxsize=4)
def prompt_table(prompt: str, moved: bool, size: Size) -> torch.Tensor:
    """The prompt of each training picture, (n, places)."""
    cut = {word.upper(): prompt_ids(word, prompt)[:-LAYOUT] for word in words_of("train")}
    layout = {(ground, row): prompt_ids("any", "letters", ground, row)[-LAYOUT:] for ground in BACKGROUNDS for row in ROWS}
    return torch.tensor([cut[scene.sign] + layout[scene.background, row_of(scene)] for scene in scenes(moved, size)])


def row_of(scene: Scene) -> int:
    """The row that a sign stands in, off the grid or not: the nearest of `ROWS`."""
    return min(ROWS, key=lambda row: abs(scene.shift[1] - row))


def batches(case: Case, size: Size) -> Callable:
    """`batch(rng)`: prompts and what the arm learns to paint. All arms of a seed and step have the same pictures."""
    key = (case.moved, size)
    table = prompt_table(case.prompt, *key)
    pool = min(case.unique or len(scenes(*key)), len(scenes(*key)))

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        which = torch.from_numpy(rng.integers(pool, size=size.batch))
        silent = torch.from_numpy(rng.random(size.batch) < SILENT)
        prompts = table[which].masked_fill(silent[:, None], 0)
        if case.arm == PIXELS:
            return prompts, to_patches(draw_signs([scenes(*key)[i] for i in which.tolist()]))
        ids, latents = encoded(*key)
        if case.arm == LATENTS:
            mean, std = spread(*key)
            return prompts, (latents[which].float() - mean) / std
        return prompts, ids[which].long()
    return batch


# ---------------------------------------------------------------- the painters

def make(case: Case, size: Size):
    """A fresh painter; the seed decides its first weights."""
    torch.manual_seed(case.seed)
    trunk = dict(prompt=PROMPTS[case.prompt], places=HIGH * WIDE, width=size.width, layers=size.layers,
                 heads=size.heads)
    vqvae = tokenizer(case.moved, size)
    if case.arm in TOKEN_ARMS:
        return TokenPainter(PROMPT_VOCAB, vqvae.vocab_size, causal=case.arm == ARMS[0], **trunk)
    return FlowPainter(PROMPT_VOCAB, PATCH if case.arm == PIXELS else vqvae.config["dim"], **trunk)


LOSSES = dict(zip(ARMS, (in_order_loss, masked_loss, from_noise_loss, from_noise_loss)))


@torch.no_grad()
def draft(model, case: Case, prompts: torch.Tensor, setting: dict, generator: torch.Generator) -> torch.Tensor:
    """What a painter paints, before it is a picture: ids (B, 32) or values (B, 32, D), for prompts (B, P).

    `setting`: its guidance and number of steps; steps say nothing to the arm that goes in order.
    """
    way = dict(guidance=setting["guidance"], generator=generator)
    if case.arm == ARMS[0]:
        return paint_in_order(model, prompts, **way)
    return (paint_surest_first if case.arm in TOKEN_ARMS else paint_from_noise)(model, prompts, setting["steps"], **way)


@torch.no_grad()
def score(model, case: Case, prompts: torch.Tensor, drafts: torch.Tensor, passes: int) -> torch.Tensor:
    """How a painter marks its own drafts, more is better: (B,)."""
    if case.arm == ARMS[0]:
        return score_in_order(model, prompts, drafts)
    if case.arm in TOKEN_ARMS:
        return score_masked(model, prompts, drafts, passes)
    return score_from_noise(model, prompts, drafts, passes, torch.Generator().manual_seed(5))


@torch.no_grad()
def to_pictures(drafts: torch.Tensor, case: Case, size: Size) -> torch.Tensor:
    """Drafts -> pictures (B, 3, 32, 64) in [0, 1]."""
    if case.arm == PIXELS:
        return from_patches(drafts, HIGH)
    if case.arm == LATENTS:
        mean, std = spread(case.moved, size)
        return decode_latents(drafts * std + mean, case.moved, size)
    return tokenizer(case.moved, size).decode(drafts.view(-1, HIGH, WIDE))        # (B, 32) -> (B, 4, 8)


def paint(model, case: Case, size: Size, prompts: torch.Tensor, setting: dict, seed: int) -> torch.Tensor:
    """Pictures (B, 3, 32, 64) for prompts (B, P)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([to_pictures(draft(model, case, part, setting, generator), case, size)
                      for part in prompts.split(128)])


@torch.no_grad()
def decode_latents(latents: torch.Tensor, moved: bool, size: Size) -> torch.Tensor:
    """Unquantised latents (B, 32, D) -> pictures (B, 3, 32, 64), by the tokenizer's own decoder."""
    grid = latents.unflatten(1, (HIGH, WIDE)).permute(0, 3, 1, 2)               # (B, 32, D) -> (B, D, 4, 8)
    return (tokenizer(moved, size).decoder(grid) + 0.5).clamp(0, 1)
