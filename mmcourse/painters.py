"""Three ways to paint a picture for a prompt, with one and the same transformer inside (chapter 08).

In order, a token at a time; all tokens at once, the surest first; from noise. Sources: van den Oord et al. 2017
and Ramesh et al. 2021 (in order, over VQ ids), Chang et al. 2022 (MaskGIT), Peebles and Xie 2023 (a transformer
inside the diffusion), Lipman et al. 2022 (flow matching), Esser et al. 2024 (more noise in training).
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.diffusion import interpolate, time_features, velocity_of
from mmcourse.generate import sample
from mmcourse.transformer import Block, LayerCache


class Trunk(nn.Module):
    """What all painters share: prompt ids (B, P) and vectors of places (B, N, C) go in,
    vectors of places (B, N, C) come out. Prompt id 0: nothing said here."""

    def __init__(self, prompt_vocab: int, prompt: int = 12, places: int = 32,
                 width: int = 96, layers: int = 4, heads: int = 4, causal: bool = False):
        super().__init__()
        self.prompt, self.places, self.width, self.heads = prompt, places, width, heads
        self.prompt_embed = nn.Embedding(prompt_vocab, width)
        self.position_embed = nn.Embedding(prompt + places, width)
        self.blocks = nn.ModuleList(Block(width, heads, causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.apply(self._init)
        for block in self.blocks:           # as in chapter 05: keep the residual stream's size
            for layer in (block.attention.out, block.mlp.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * layers))

    @staticmethod
    def _init(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, prompts: torch.Tensor, x: torch.Tensor,
                caches: list[LayerCache] | None = None) -> torch.Tensor:
        """With caches, of a causal trunk: x are the next places, and the prompt is read once."""
        n, seen = x.shape[1], caches[0].filled if caches else 0
        if not seen:
            x = torch.cat([self.prompt_embed(prompts), x], 1)          # (B, P + n, C)
        x = x + self.position_embed.weight[seen:seen + x.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches else None)
        return self.norm(x[:, -n:])

    def new_caches(self, batch: int) -> list[LayerCache]:
        """Room for the keys and values of `batch` pictures, one cache a layer."""
        like = self.position_embed.weight
        return [LayerCache(batch, self.heads, self.prompt + self.places, self.width // self.heads, like)
                for _ in self.blocks]


class TokenPainter(nn.Module):
    """Logits for each place of a picture, (B, N, codes), from the ids (B, N) that are
    known and a prompt (B, P). The id `codes` stands for one that is not known yet.

    `causal`: place i sees the places up to i, and is asked for its id when `ids` are moved on
    by one (`shifted`). Not causal: each place sees all.
    """

    def __init__(self, prompt_vocab: int, codes: int = 512, causal: bool = True, **trunk):
        super().__init__()
        self.config = {"prompt_vocab": prompt_vocab, "codes": codes, "causal": causal, **trunk}
        self.codes = codes
        self.trunk = Trunk(prompt_vocab, causal=causal, **trunk)
        self.code_embed = nn.Embedding(codes + 1, self.trunk.width)
        self.head = nn.Linear(self.trunk.width, codes, bias=False)
        for layer in (self.code_embed, self.head):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, ids: torch.Tensor, prompts: torch.Tensor,
                caches: list[LayerCache] | None = None) -> torch.Tensor:
        return self.head(self.trunk(prompts, self.code_embed(ids), caches))


class FlowPainter(nn.Module):
    """The clean values (B, N, D) that a prompt and noisy values (B, N, D) at time t (B,) lead
    to. A place's D values are the pixels of its patch, or its latent vector."""

    def __init__(self, prompt_vocab: int, dim: int, **trunk):
        super().__init__()
        self.config = {"prompt_vocab": prompt_vocab, "dim": dim, **trunk}
        self.dim, self.trunk = dim, Trunk(prompt_vocab, causal=False, **trunk)
        width = self.trunk.width
        self.value_embed, self.head = nn.Linear(dim, width), nn.Linear(width, dim)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        for layer in (self.value_embed, self.time[-1]):     # or noise would drown prompt and position
            nn.init.normal_(layer.weight, std=0.03 / math.sqrt(layer.in_features))

    def forward(self, x: torch.Tensor, t: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        time = self.time(time_features(t))[:, None]                    # (B, 1, C)
        return self.head(self.trunk(prompts, self.value_embed(x) + time))


# ---------------------------------------------------------------- how they learn

def shifted(ids: torch.Tensor, codes: int) -> torch.Tensor:
    """What is known when each id is asked for in order: (B, N) -> `codes`, then all but the last."""
    return F.pad(ids[:, :-1], (1, 0), value=codes)


def in_order_loss(model: TokenPainter, prompts: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of each id (B, N), given the prompt and those before it."""
    logits = model(shifted(ids, model.codes), prompts)                 # (B, N, codes)
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


def masked_loss(model: TokenPainter, prompts: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of the ids that are hidden, given the prompt and those that are
    not. How many are hidden is drawn anew for each picture: cos(pi u / 2) of them, u uniform."""
    share = torch.cos(math.pi / 2 * torch.rand(len(ids), 1, device=ids.device))
    hidden = torch.rand(ids.shape, device=ids.device) < share
    hidden[:, 0] |= ~hidden.any(1)                                     # at least one
    logits = model(ids.masked_fill(hidden, model.codes), prompts)      # (B, N, codes)
    return F.cross_entropy(logits[hidden], ids[hidden])


def early(u: torch.Tensor, shift: float = 3.0) -> torch.Tensor:
    """Times 0 ... 1 (0: noise) moved towards noise, where it is decided *what* is painted; at
    shift 3 half of them lie below 1/4 (Esser et al. 2024)."""
    return u / (u + shift * (1 - u))


def from_noise_loss(model: FlowPainter, prompts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Flow matching (chapter 07) of the values (B, N, D), at early times above all. Each time
    counts the same: weights for late times, 1 / (1 - t)^2, would train edges, not letters."""
    t, noise = early(torch.rand(len(values), device=values.device)), torch.randn_like(values)
    return (model(interpolate(values, noise, t), t, prompts) - values).square().mean()


# ---------------------------------------------------------------- how they paint

def guided(model: nn.Module, prompts: torch.Tensor, guidance: float):
    """A painter that has heard its prompts, as a function of the rest. Guidance above 1 goes
    further away from what it would say without a prompt (Ho and Salimans 2022)."""
    def call(*inputs):
        told = model(*inputs, prompts)
        if guidance == 1:
            return told
        untold = model(*inputs, torch.zeros_like(prompts))
        return untold + guidance * (told - untold)
    return call


@torch.no_grad()
def paint_in_order(model: TokenPainter, prompts: torch.Tensor, guidance: float = 1.0, temperature: float = 1.0,
                   generator: torch.Generator | None = None) -> torch.Tensor:
    """One id after another, in reading order: prompts (B, P) -> ids (B, N), in N passes over one
    place each (two with guidance)."""
    rows = [prompts] if guidance == 1 else [prompts, torch.zeros_like(prompts)]
    caches = [model.trunk.new_caches(len(prompts)) for _ in rows]
    last, ids = torch.full((len(prompts), 1), model.codes, device=prompts.device), []
    for _ in range(model.trunk.places):
        told, *untold = (model(last, row, cache)[:, -1] for row, cache in zip(rows, caches))
        logits = untold[0] + guidance * (told - untold[0]) if untold else told      # (B, codes)
        # dice on the CPU: seeds mean the same
        last = sample(logits.cpu(), temperature, generator=generator)[:, None]
        last = last.to(prompts.device)
        ids.append(last)
    return torch.cat(ids, 1)


@torch.no_grad()
def paint_surest_first(model: TokenPainter, prompts: torch.Tensor, steps: int = 8, guidance: float = 1.0,
                       temperature: float = 1.0, generator: torch.Generator | None = None) -> torch.Tensor:
    """All places at once, in `steps` passes: prompts (B, P) -> ids (B, N). Each pass draws an id
    for every open place and keeps the surest; cos(pi s / 2) of the places are open after a share
    s of the passes. Noise of size `temperature`, which fades, keeps "surest" from being always
    the same places (Chang et al. 2022)."""
    call, places = guided(model, prompts, guidance), model.trunk.places
    ids = torch.full((len(prompts), places), model.codes)
    for step in range(steps):
        open_ = ids == model.codes
        logp = call(ids.to(prompts.device)).log_softmax(-1).cpu()      # (B, N, codes)
        drawn = torch.multinomial(logp.exp().flatten(0, 1), 1, generator=generator).view(ids.shape)
        sure = logp.gather(2, drawn[..., None])[..., 0]                # (B, N)
        noise = -torch.rand(ids.shape, generator=generator).clamp(min=1e-9).log().neg().log()    # Gumbel
        sure = sure + temperature * (1 - (step + 1) / steps) * noise
        left = int(places * math.cos(math.pi / 2 * (step + 1) / steps) + 1e-9)
        rank = sure.masked_fill(~open_, torch.inf).argsort(1, descending=True).argsort(1)
        ids = torch.where(open_ & (rank < places - left), drawn, ids)
    return ids.to(prompts.device)


@torch.no_grad()
def paint_from_noise(model: FlowPainter, prompts: torch.Tensor, steps: int = 16, guidance: float = 1.0,
                     generator: torch.Generator | None = None) -> torch.Tensor:
    """From noise to values (B, N, D) in `steps` steps of Euler's method along the learned flow,
    short ones first (`early`)."""
    velocity = velocity_of(guided(model, prompts, guidance))
    x = torch.randn(len(prompts), model.trunk.places, model.dim, generator=generator)
    x = x.to(prompts.device)
    times = early(torch.linspace(0, 1, steps + 1)).tolist()
    for now, then in zip(times, times[1:]):
        x = x + (then - now) * velocity(x, now)
    return x


# ---------------------------------------------------------------- how they mark a draft of their own

@torch.no_grad()
def score_in_order(model: TokenPainter, prompts: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The log probability of pictures (B, N) given their prompts, exactly: (B,), in one pass."""
    logp = model(shifted(ids, model.codes), prompts).log_softmax(-1)   # (B, N, codes)
    return logp.gather(2, ids[..., None]).sum((1, 2))


@torch.no_grad()
def score_masked(model: TokenPainter, prompts: torch.Tensor, ids: torch.Tensor, passes: int = 8) -> torch.Tensor:
    """A pseudo-log-likelihood (Salazar et al. 2020): (B,). Each place is hidden once, N / `passes`
    of them at a time, and asked for given the others. No probability of the whole picture."""
    total = torch.zeros(len(ids), device=ids.device)
    for turn in range(passes):
        hidden = torch.arange(ids.shape[1], device=ids.device) % passes == turn    # (N,)
        logp = model(ids.masked_fill(hidden, model.codes), prompts).log_softmax(-1)
        total += (logp.gather(2, ids[..., None])[..., 0] * hidden).sum(1)
    return total


@torch.no_grad()
def score_from_noise(model: FlowPainter, prompts: torch.Tensor, values: torch.Tensor, passes: int = 8,
                     generator: torch.Generator | None = None) -> torch.Tensor:
    """How well the painter finds pictures (B, N, D) again that were hidden in noise: minus its
    squared error at `passes` early times, the same noise for all. A flow has no cheap likelihood;
    this is what comes nearest (Li et al. 2023)."""
    total = torch.zeros(len(values), device=values.device)
    for t in early(torch.linspace(0, 1, passes + 2, device=values.device))[1:-1]:
        noise = torch.randn(values.shape[1:], generator=generator).to(values)
        noise = noise.expand_as(values)
        t = t.expand(len(values))
        total -= (model(interpolate(values, noise, t), t, prompts) - values).square().sum((1, 2))
    return total


# ---------------------------------------------------------------- pictures <-> places

def to_patches(images: torch.Tensor, size: int = 8) -> torch.Tensor:
    """Pictures (B, 3, H, W) in [0, 1] -> their patches in reading order, values in [-1, 1]:
    (B, H W / size^2, 3 size^2)."""
    x = F.pixel_unshuffle(images * 2 - 1, size)                        # (B, 3 size^2, H / size, W / size)
    return x.flatten(2).transpose(1, 2)


def from_patches(values: torch.Tensor, rows: int = 4, size: int = 8) -> torch.Tensor:
    """The inverse of `to_patches`: (B, N, 3 size^2) -> (B, 3, rows size, W), held within [0, 1]."""
    x = values.transpose(1, 2).unflatten(2, (rows, -1))                # (B, 3 size^2, rows, N / rows)
    return (F.pixel_shuffle(x, size) / 2 + 0.5).clamp(0, 1)
