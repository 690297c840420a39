"""What the studies of chapter 08 share: sign pictures and their tokens, the four painters, and who reads them."""
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from mmcourse import checkpoints
from mmcourse.diffusion import flow_loss
from mmcourse.files import atomic_write
from mmcourse.optim import Optim
from mmcourse.painters import (FlowPainter, TokenPainter, from_patches, in_order_loss, masked_loss, paint_from_noise,
                               paint_in_order, paint_surest_first, to_patches)
from mmcourse.paths import cache_dir
from mmcourse.recipes import sign_vqvae
from mmcourse.spelling import PROMPTS, VOCAB_SIZE, prompt_ids
from mmcourse.training import Run, train
from mmcourse.vqvae import VQVAE, vqvae_loss
from mmcourse.world.signs import all_pictures, draw_signs, words_of

ARMS = ("in order", "surest first", "flow on pixels", "flow on latents")
TOKEN_ARMS, PIXELS, LATENTS = ARMS[:2], ARMS[2], ARMS[3]
ROWS, COLUMNS = 4, 8                    # places of a picture
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
def prompt_table(prompt: str) -> torch.Tensor:
    """The prompts of all training words, (words, places)."""
    return torch.tensor([prompt_ids(word, prompt) for word in words_of("train")])


@lru_cache(maxsize=2)
def word_numbers(moved: bool, size: Size) -> torch.Tensor:
    """Which training word each picture shows, (n,)."""
    number = {word.upper(): i for i, word in enumerate(words_of("train"))}
    return torch.tensor([number[scene.sign] for scene in scenes(moved, size)])


def batches(case: Case, size: Size) -> Callable:
    """`batch(rng)`: prompts and what the arm learns to paint. All arms of a seed and step have the same pictures."""
    key, table = (case.moved, size), prompt_table(case.prompt)
    pool = min(case.unique or len(scenes(*key)), len(scenes(*key)))

    def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        which = torch.from_numpy(rng.integers(pool, size=size.batch))
        silent = torch.from_numpy(rng.random(size.batch) < SILENT)
        prompts = table[word_numbers(*key)[which]].masked_fill(silent[:, None], 0)
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
    trunk = dict(prompt=PROMPTS[case.prompt], places=ROWS * COLUMNS, width=size.width, layers=size.layers,
                 heads=size.heads)
    vqvae = tokenizer(case.moved, size)
    if case.arm in TOKEN_ARMS:
        return TokenPainter(VOCAB_SIZE + 1, vqvae.vocab_size, causal=case.arm == ARMS[0], **trunk)
    return FlowPainter(VOCAB_SIZE + 1, PATCH if case.arm == PIXELS else vqvae.config["dim"], **trunk)


def flow_painter_loss(model: FlowPainter, prompts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Flow matching (chapter 07) of a picture's values, told the prompt."""
    return flow_loss(model, values, prompts)


LOSSES = dict(zip(ARMS, (in_order_loss, masked_loss, flow_painter_loss, flow_painter_loss)))


@torch.no_grad()
def paint(model, case: Case, size: Size, prompts: torch.Tensor, guidance: float, steps: int, seed: int) -> torch.Tensor:
    """Pictures (B, 3, 32, 64) for prompts (B, P); `steps` says nothing to the arm that goes in order."""
    generator, out = torch.Generator().manual_seed(seed), []
    for part in prompts.split(128):
        if case.arm == PIXELS:
            out.append(from_patches(paint_from_noise(model, part, steps, guidance, generator), ROWS))
        elif case.arm == LATENTS:
            mean, std = spread(case.moved, size)
            latents = paint_from_noise(model, part, steps, guidance, generator) * std + mean
            out.append(decode_latents(latents, case.moved, size))
        else:
            way = dict(guidance=guidance, generator=generator)
            ids = (paint_in_order(model, part, **way) if case.arm == ARMS[0]
                   else paint_surest_first(model, part, steps, **way))
            out.append(tokenizer(case.moved, size).decode(ids.view(-1, ROWS, COLUMNS)))   # (B, 32) -> (B, 4, 8)
    return torch.cat(out)


@torch.no_grad()
def decode_latents(latents: torch.Tensor, moved: bool, size: Size) -> torch.Tensor:
    """Unquantised latents (B, 32, D) -> pictures (B, 3, 32, 64), by the tokenizer's own decoder."""
    grid = latents.unflatten(1, (ROWS, COLUMNS)).permute(0, 3, 1, 2)               # (B, 32, D) -> (B, D, 4, 8)
    return (tokenizer(moved, size).decoder(grid) + 0.5).clamp(0, 1)
