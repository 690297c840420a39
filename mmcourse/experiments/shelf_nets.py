"""Who turns a shelf (`world.shelves`) into tokens, and tokens into a shelf: the nets of chapter 12's second half.

net         is told                                     gives
tokenizer   the picture                                 12 tokens of 512 kinds; its plain decoder gives the picture again
writer      what is asked for                           the tokens, one after another (a `TokenPainter` in order)
painter     the plain picture of the first k tokens,    the picture, from noise (a `FlowPainter` on pixels)
            and at times what is asked for
large       the same                                    the picture in one pass, at four times the painter's operations

What is asked for is the wall and the things, not where they stand.
"""
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mmcourse.diffusion import time_features, velocity_of
from mmcourse.nested import NestedTokenizer, first, nested_loss
from mmcourse.optim import Optim
from mmcourse.painters import (
    FlowPainter,
    TokenPainter,
    early,
    from_noise_loss,
    from_patches,
    to_patches,
)
from mmcourse.training import History, Run, train
from mmcourse.world.shelves import (
    CELL,
    PICTOGRAM_THINGS,
    PLACES,
    SIDE,
    SPLITS,
    THINGS,
    WALLS,
    Shelf,
    cells,
    draw_shelves,
    random_shelf,
    tiles_of,
)

TOKENS, CODES, DIM = 12, 512, 3 * CELL**2
ASKED = 1 + PLACES                      # ids of what is asked for: the wall, then the things in a fixed order, then 0
WORDS = 1 + len(WALLS) + len(THINGS)    # those ids: 0 is nothing said
SHELVES = 20_000                        # of training, tokenized once
BATCH = 64
OPTIM = Optim("muon", lr=3e-3, muon_lr=0.02, warmup=30)
UNLIKE = 0.003                          # mean squared error: 25 dB
HOW = ("nested", "random order", "fixed")


def asked(shelves: Sequence[Shelf]) -> torch.Tensor:
    """What is asked for as ids (B, 10): the wall, and the things in the order of their numbers."""
    rows = []
    for shelf in shelves:
        things = sorted(1 + len(WALLS) + thing - 1 for thing in shelf.things if thing)
        rows.append([1 + WALLS.index(shelf.wall), *things] + [0] * (PLACES - len(things)))
    return torch.tensor(rows)


class ShelfPainter(FlowPainter):
    """A painter from noise that also sees a plain picture, patch by patch, as the diffusion decoder of chapter 07 does. (Told the
    ids themselves it had learned to read none of them after as many steps.)"""

    def __init__(self, width: int = 96):
        super().__init__(WORDS, DIM, prompt=ASKED, places=PLACES, width=width)
        self.config = {"width": width}
        self.plain_embed = nn.Linear(DIM, width)

    def forward(self, x: torch.Tensor, t: torch.Tensor, told: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Noisy patches (B, 9, D) at time t (B,), and what it is told: what is asked for (B, 10) or zeros, and the patches of the
        plain picture (B, 9, D) -> the clean patches (B, 9, D)."""
        words, plain = told
        time = self.time(time_features(t))[:, None]                     # (B, 1, C)
        return self.head(self.trunk(words, self.value_embed(x) + self.plain_embed(plain) + time))


@torch.no_grad()
def plain_patches(tokenizer: NestedTokenizer, ids: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The plain decoder's patches (B, 9, D) of the tokens that are kept; none may be."""
    return tokenizer.rebuild(tokenizer.quantizer.codebook[ids], kept)


# ---------------------------------------------------------------- fresh nets

def make_tokenizer(seed: int = 0, tokens: int = TOKENS) -> NestedTokenizer:
    """A fresh tokenizer."""
    torch.manual_seed(seed)
    return NestedTokenizer(tokens, side=SIDE, patch=CELL)


def make_writer(seed: int = 0, width: int = 96) -> TokenPainter:
    """A fresh net that writes tokens in order."""
    torch.manual_seed(seed)
    return TokenPainter(WORDS, CODES, causal=True, prompt=ASKED, places=TOKENS, width=width)


def make_painter(seed: int = 0, width: int = 96) -> ShelfPainter:
    """A fresh net that paints pixels from noise."""
    torch.manual_seed(seed)
    return ShelfPainter(width)


# ---------------------------------------------------------------- how they learn

class Dropping:
    """Batches for a tokenizer: patches of new shelves, and which tokens its decoder sees (B, tokens): all of them in half of the
    rows, and else a first part of random length; with `random order` as many random ones; `fixed`: always all.

    While `whole` nothing is dropped. ValueError for a way that is none of `HOW`.
    """

    def __init__(self, how: str, tokens: int):
        if how not in HOW:
            raise ValueError(f"tokens are dropped in one of the ways {', '.join(HOW)}, got {how!r}")
        self.how, self.tokens, self.whole = how, tokens, True

    def kept(self, rng: np.random.Generator) -> torch.Tensor:
        """Which tokens are seen."""
        lengths = torch.from_numpy(rng.integers(1, self.tokens + 1, BATCH))
        lengths[:BATCH if self.whole or self.how == "fixed" else BATCH // 2] = self.tokens
        kept = first(lengths, self.tokens)
        if self.how == "random order":
            kept = kept.gather(1, torch.from_numpy(rng.random(kept.shape)).argsort(1))
        return kept

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        shelves = [random_shelf(rng) for _ in range(BATCH)]
        return to_patches(draw_shelves(shelves), CELL), self.kept(rng)


def train_tokenizer(seed: int, steps: int, how: str = "nested", tokens: int = TOKENS) -> tuple[NestedTokenizer, History]:
    """A tokenizer that has learned. For the first quarter of the steps nothing is dropped: a register must find what it is to
    read before it can be asked to be brief (with some dropped from the start they had found nothing after 1,500 steps)."""
    model, batch = make_tokenizer(seed, tokens), Dropping(how, tokens)

    def after_step(_, step: int) -> None:
        batch.whole = step + 1 < steps // 4
    run = Run(seed=seed, progress=False)
    return model, train(model, batch, nested_loss, steps=steps, optim=OPTIM, run=run, after_step=after_step)


class ShelfTokens:
    """Training shelves, what is asked for and their tokens: made once for a tokenizer."""

    def __init__(self, tokenizer: NestedTokenizer, n: int = SHELVES, seed: int = 0):
        rng = np.random.default_rng((seed, n))
        self.tokenizer, self.shelves = tokenizer, [random_shelf(rng) for _ in range(n)]
        self.words = asked(self.shelves)
        self.ids = torch.cat([tokenizer.encode(draw_shelves(self.shelves[i:i + 500])) for i in range(0, n, 500)])

    def rows(self, rng: np.random.Generator) -> torch.Tensor:
        """Which shelves a batch has."""
        return torch.from_numpy(rng.integers(len(self.shelves), size=BATCH))

    def writing(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch for the writer: what is asked for, and the tokens."""
        rows = self.rows(rng)
        return self.words[rows], self.ids[rows]

    def painting(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch for the painter: in half of the rows what is asked for, the plain picture of none to all of the tokens, and the
        true patches."""
        rows = self.rows(rng)
        kept = first(torch.from_numpy(rng.integers(self.ids.shape[1] + 1, size=BATCH)), self.ids.shape[1])
        heard = torch.from_numpy(rng.random((BATCH, 1)) < 0.5)
        truth = to_patches(draw_shelves([self.shelves[i] for i in rows.tolist()]), CELL)
        return self.words[rows] * heard, plain_patches(self.tokenizer, self.ids[rows], kept), truth


def painter_loss(model: ShelfPainter, words: torch.Tensor, plain: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Flow matching from noise to the true patches."""
    return from_noise_loss(model, (words, plain), values)


def plain_loss(model: ShelfPainter, words: torch.Tensor, plain: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean squared error of a painter that is asked once, with nothing on the canvas: a plain decoder."""
    return (at_once(model, words, plain) - values).square().mean()


def at_once(model: ShelfPainter, words: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    """What a painter gives in one pass for an empty canvas: (B, 9, D)."""
    return model(torch.zeros_like(plain), plain.new_zeros(len(plain)), (words, plain))


# ---------------------------------------------------------------- pictures

@torch.no_grad()
def painted_shelves(model: ShelfPainter, words: torch.Tensor, plain: torch.Tensor, steps: int, seed: int = 0) -> torch.Tensor:
    """What the painter paints in so many passes: (B, 3, 48, 48). In 0 passes: at once, from an empty canvas."""
    if steps == 0:
        return as_pictures(at_once(model, words, plain))
    x = torch.randn(plain.shape, generator=torch.Generator().manual_seed(seed)).to(plain)
    times = early(torch.linspace(0, 1, steps + 1)).tolist()             # as `paint_from_noise`: short steps first
    velocity = velocity_of(model, (words, plain))
    for now, then in zip(times, times[1:]):
        x = x + (then - now) * velocity(x, now)
    return as_pictures(x)


def as_pictures(patches: torch.Tensor) -> torch.Tensor:
    """Patches (B, 9, D) as pictures (B, 3, 48, 48)."""
    return from_patches(patches, SIDE, CELL)


def things_right(found: Sequence[Shelf], truth: Sequence[Shelf]) -> dict[str, float]:
    """The share of compartments, of pictograms, of letters (of those that are there) and of whole shelves that were found."""
    pairs = [(a, b) for one, other in zip(found, truth, strict=True) for a, b in zip(one.things, other.things)]
    pictograms = [a == b for a, b in pairs if 0 < b <= len(PICTOGRAM_THINGS)]
    letters = [a == b for a, b in pairs if b > len(PICTOGRAM_THINGS)]
    return {"compartments": float(np.mean([a == b for a, b in pairs])), "pictograms": float(np.mean(pictograms)),
            "letters": float(np.mean(letters)), "whole": float(np.mean([a == b for a, b in zip(found, truth)]))}


def as_asked(found: Sequence[Shelf], truth: Sequence[Shelf]) -> list[float]:
    """How much of what was asked for is there, wherever it stands: the things that both have, of the things of the one with more;
    0 if the wall is another one."""
    shares = []
    for a, b in zip(found, truth, strict=True):
        one, other = (Counter(thing for thing in shelf.things if thing) for shelf in (a, b))
        most = max(one.total(), other.total())
        shares.append(float(a.wall == b.wall) * ((one & other).total() / most if most else 1.0))
    return shares


def unlike_anything(pictures: torch.Tensor, above: float = UNLIKE) -> float:
    """The share of compartments that look like none that there is: over `above` of mean squared error away from the nearest."""
    tiles, known = tiles_of(pictures), cells().flatten(0, 1).flatten(1)                    # (B, 9, 768), (walls * 17, 768)
    nearest = torch.cdist(tiles.flatten(0, 1), known).square().amin(1) / known.shape[1]
    return float((nearest > above).float().mean())


@cache
def shelves_of(split: str, n: int, seed: int = 1205) -> tuple[list[Shelf], torch.Tensor]:
    """Shelves of a split with their pictures, always the same: with 1 to 9 things, each number as often.

    There are only four empty ones, so that none of them can be new.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split)))
    shelves = [random_shelf(rng, split, 1 + i % PLACES) for i in range(n)]
    return shelves, draw_shelves(shelves)


class ShelfNets(nn.Module):
    """What is shipped: a tokenizer, a painter and a writer that were trained together."""

    def __init__(self, width: int = 96):
        super().__init__()
        self.config = {"width": width}
        self.tokenizer, self.painter, self.writer = make_tokenizer(), make_painter(width=width), make_writer(width=width)

    def paint(self, ids: torch.Tensor, passes: int = 0, seed: int = 0, words: torch.Tensor | None = None) -> torch.Tensor:
        """Pictures (B, 3, 48, 48) of the first k tokens (B, k), by the plain decoder, or by the painter in so many `passes`.

        `words`, (B, 10): what is asked for (`asked`), if the painter is told that, too.
        """
        if passes == 0:
            return self.tokenizer.decode(ids)
        words = torch.zeros(len(ids), ASKED, dtype=torch.long, device=ids.device) if words is None else words
        kept = first(torch.full((len(ids),), ids.shape[1], device=ids.device), TOKENS)
        plain = plain_patches(self.tokenizer, F.pad(ids, (0, TOKENS - ids.shape[1])), kept)
        return painted_shelves(self.painter, words, plain, passes, seed)
