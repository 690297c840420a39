"""Signs for the painters of chapter 08: batches to learn from, drafts made into pictures, and the shipped painters."""
from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import nn

from mmcourse.checks import device_of
from mmcourse.experiments.spelling import LAYOUT, PROMPT_VOCAB, PROMPTS, prompt_ids
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
from mmcourse.vqvae import VQVAE
from mmcourse.world.scene import BACKGROUNDS, Scene
from mmcourse.world.signs import ROWS, all_pictures, draw_signs, words_of

ARMS = ("in order", "surest first", "flow on pixels", "flow on latents")
TOKEN_ARMS, PIXELS, LATENTS = ARMS[:2], ARMS[2], ARMS[3]
LOSSES = dict(zip(ARMS, (in_order_loss, masked_loss, from_noise_loss, from_noise_loss)))
HIGH, WIDE = 4, 8                       # places of a picture
PATCH = 3 * 8 * 8                       # numbers in a place's pixels
SILENT = 0.1                            # how often training leaves the prompt out: guidance needs it


class SignData:
    """The pictures of the training words, with their prompts and what a tokenizer makes of them.

    Args:
        vqvae: the tokenizer of signs.
        moved: whether boards stand up to three pixels off the token grid.
        limit: how many pictures; None: all 57,072.
    """

    def __init__(self, vqvae: VQVAE, moved: bool = False, limit: int | None = None):
        self.vqvae, self.scenes = vqvae, all_pictures("train", moved=moved)[:limit]

    @cached_property
    @torch.no_grad()
    def encoded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (n, 32) and unquantised latents (n, 32, D), in half precision: 60 MB for all."""
        ids, latents = [], []
        for i in range(0, len(self.scenes), 256):
            images = draw_signs(self.scenes[i:i + 256]).to(device_of(self.vqvae))
            ids.append(self.vqvae.encode(images).flatten(1).short().cpu())         # (B, 4, 8) -> (B, 32)
            latents.append(self.vqvae.vectors(images).flatten(1, 2).half().cpu())  # (B, 4, 8, D) -> (B, 32, D)
        return torch.cat(ids), torch.cat(latents)

    @cached_property
    def spread(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each of a latent's numbers, (D,): a flow wants data of size 1."""
        latents = self.encoded[1].float()
        return latents.mean((0, 1)), latents.std((0, 1)).clamp(min=1e-3)

    @lru_cache(maxsize=4)  # noqa: B019 - one set of data lives as long as its process
    def prompts(self, kind: str) -> torch.Tensor:
        """Each picture's prompt, (n, places)."""
        words = {word.upper(): prompt_ids(word, kind)[:-LAYOUT] for word in words_of("train")}
        layout = {(ground, row): prompt_ids("any", "letters", ground, row)[-LAYOUT:]
                  for ground in BACKGROUNDS for row in ROWS}
        return torch.tensor([words[s.sign] + layout[s.background, row_of(s)] for s in self.scenes])

    def batches(self, arm: str, prompt: str, n: int = 64, unique: int | None = None) -> Callable:
        """`batch(rng)`: `n` prompts, and what the arm learns to paint. All arms have the same pictures at a step.

        `unique`: only so many different pictures; None: all.
        """
        table, pool = self.prompts(prompt), min(unique or len(self.scenes), len(self.scenes))

        def batch(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            which = torch.from_numpy(rng.integers(pool, size=n))
            silent = torch.from_numpy(rng.random(n) < SILENT)
            prompts = table[which].masked_fill(silent[:, None], 0)
            if arm == PIXELS:
                return prompts, to_patches(draw_signs([self.scenes[i] for i in which.tolist()]))
            ids, latents = self.encoded
            if arm == LATENTS:
                mean, std = self.spread
                return prompts, (latents[which].float() - mean) / std
            return prompts, ids[which].long()
        return batch


def row_of(scene: Scene) -> int:
    """The row that a sign stands in, off the grid or not: the nearest of `ROWS`."""
    return min(ROWS, key=lambda row: abs(scene.shift[1] - row))


# ---------------------------------------------------------------- the four painters by name

def make_painter(arm: str, prompt: str, vqvae: VQVAE, seed: int = 0, **trunk) -> nn.Module:
    """A fresh painter; the seed decides its first weights. `trunk`: width, layers, heads."""
    torch.manual_seed(seed)
    sizes = dict(prompt=PROMPTS[prompt], places=HIGH * WIDE, **trunk)
    if arm in TOKEN_ARMS:
        return TokenPainter(PROMPT_VOCAB, vqvae.vocab_size, causal=arm == ARMS[0], **sizes)
    return FlowPainter(PROMPT_VOCAB, PATCH if arm == PIXELS else vqvae.config["dim"], **sizes)


@torch.no_grad()
def draft(model: nn.Module, arm: str, prompts: torch.Tensor, guidance: float, steps: int,
          generator: torch.Generator) -> torch.Tensor:
    """What a painter paints, before it is a picture: ids (B, 32) or values (B, 32, D), for prompts (B, P).
    `steps` says nothing to the arm that goes in order."""
    if arm == ARMS[0]:
        return paint_in_order(model, prompts, guidance, generator=generator)
    if arm in TOKEN_ARMS:
        return paint_surest_first(model, prompts, steps, guidance, generator=generator)
    return paint_from_noise(model, prompts, steps, guidance, generator)


def score(model: nn.Module, arm: str, prompts: torch.Tensor, drafts: torch.Tensor, passes: int = 8) -> torch.Tensor:
    """How a painter marks its own drafts, more is better: (B,)."""
    if arm == ARMS[0]:
        return score_in_order(model, prompts, drafts)
    if arm in TOKEN_ARMS:
        return score_masked(model, prompts, drafts, passes)
    return score_from_noise(model, prompts, drafts, passes, torch.Generator().manual_seed(5))


@torch.no_grad()
def to_pictures(drafts: torch.Tensor, arm: str, vqvae: VQVAE, spread: tuple | None = None) -> torch.Tensor:
    """Drafts -> pictures (B, 3, 32, 64) in [0, 1]; latents need their mean and standard deviation."""
    if arm == PIXELS:
        return from_patches(drafts, HIGH)
    if arm == LATENTS:
        mean, std = spread
        return decode_latents(drafts * std + mean, vqvae)
    return vqvae.decode(drafts.view(-1, HIGH, WIDE))                               # (B, 32) -> (B, 4, 8)


@torch.no_grad()
def decode_latents(latents: torch.Tensor, vqvae: VQVAE) -> torch.Tensor:
    """Unquantised latents (B, 32, D) -> pictures (B, 3, 32, 64), by the tokenizer's own decoder."""
    grid = latents.unflatten(1, (HIGH, WIDE)).permute(0, 3, 1, 2)                  # (B, 32, D) -> (B, D, 4, 8)
    return (vqvae.decoder(grid) + 0.5).clamp(0, 1)


class SignPainters(nn.Module):
    """Painters of signs that were trained alike, one for each arm and prompt: what is shipped.

    Args:
        prompts: kinds of prompt. settings: arm -> its guidance and steps. codes, dim: those of the tokenizer.
        trunk: width, layers, heads.
    """

    def __init__(self, prompts: tuple[str, ...] = ("letters", "bpe"), settings: dict | None = None, codes: int = 256,
                 dim: int = 16, width: int = 96, layers: int = 4, heads: int = 4):
        super().__init__()
        settings = settings or {arm: {"guidance": 1.0, "steps": 8} for arm in ARMS}
        self.config = {"prompts": list(prompts), "settings": settings, "codes": codes, "dim": dim, "width": width,
                       "layers": layers, "heads": heads}
        self.kinds, self.settings, sizes = tuple(prompts), settings, dict(width=width, layers=layers, heads=heads)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        like = VQVAE(codes, dim, width=2)
        self.painters = nn.ModuleDict({key(arm, prompt): make_painter(arm, prompt, like, **sizes)
                                       for arm in ARMS for prompt in prompts})

    def write(self, words: list[str], arm: str, prompt: str, vqvae: VQVAE, background: str = "white", row: int = 0,
              seed: int = 0) -> torch.Tensor:
        """Words as the painter of an arm paints them: (n, 3, 32, 64). ValueError as `prompt_ids`, or for a painter
        that is not among these."""
        if key(arm, prompt) not in self.painters:
            raise ValueError(f"there are painters {', '.join(map(repr, ARMS))}, told {' or '.join(map(repr, self.kinds))}; "
                             f"got {arm!r} and {prompt!r}")
        prompts = torch.tensor([prompt_ids(word, prompt, background, row) for word in words], device=self.mean.device)
        drafts = draft(self.painters[key(arm, prompt)], arm, prompts, **self.settings[arm],
                       generator=torch.Generator().manual_seed(seed))
        return to_pictures(drafts, arm, vqvae, (self.mean, self.std))


def key(arm: str, prompt: str) -> str:
    """The name of a painter among others."""
    return f"{arm}, {prompt}"
