"""Boards with glyphs as tokens, without drawing any (chapter 10).

A thing has the same tokens everywhere (`mmcourse.world.glyphs`). So every thing is looked up once, and boards are
composed from tables: 64 episodes of nine pictures cost a fraction of a millisecond.
"""
from collections.abc import Sequence

import numpy as np
import torch

from mmcourse.checks import check_whole, device_of
from mmcourse.vqvae import VQVAE
from mmcourse.world.glyphs import AT, GLYPHS, GROUNDS, LETTER, Board, draw, inked, overlap
from mmcourse.world.scene import NOUNS

# in arrays a ground is its number in `GROUNDS`, and a place, 0 ... 8, its number in `AT`
CENTRE, CORNER = AT.index((1, 1)), AT.index((2, 2))
FOUR = [(0, 0), (0, 1), (1, 0), (1, 1)]                                 # a thing's patches, as in all its tables
CELLS = np.array([[4 * (row + i) + column + j for i, j in FOUR] for row, column in AT])     # (9, 4): whose of the 16
CLEAR = np.array([[not overlap(one, other) for other in AT] for one in AT])     # (9, 9): things there do not overlap
NOTHING = -1                            # where no thing is
PLAIN = len(GROUNDS)                    # from here on a ground is a wallpaper: token 0 on all bare patches, token 1, ...


class ThingTokens:
    """Every thing's tokens, looked up once: all that chapter 10 uses take some seconds.

    `whats`: the things; in arrays a thing is its number in here. `of`: which of them are `train`, `validation` and
    `test` (glyphs), `noun`, `letter`: ranges, training's first. `ground` (8,): the token of each ground, `bare`
    (8 + codes,): of each wallpaper too. `table` (things, 2, 8, 4): the four tokens of a thing, plain and mirrored, on
    each ground. `inked` (things, 2, 4): whether it has ink there; if not, it is ground. `lopsided` (things,): whether
    its mirror image has other tokens.

    A glyph that has the tokens of an earlier one, or of its mirror image, is left out (one in a hundred). So all can
    be told apart, and no net has seen a held-out one in disguise.

    Args:
        vqvae: the tokenizer of boards, `checkpoints.load("glyph_vqvae")`.
        train, held_out: how many glyphs of training, and how many each of validation and of the test.
    """

    def __init__(self, vqvae: VQVAE, train: int = 4096, held_out: int = 512):
        check_whole(train, "train")
        check_whole(held_out, "held_out")
        empty = vqvae.encode(draw([Board(ground) for ground in GROUNDS])).flatten(1)            # (8, 16)
        if (empty != empty[:, :1]).any() or len(empty.unique()) < len(GROUNDS):
            raise ValueError("this tokenizer has several tokens for a ground, or one for two of them, so no board "
                             "can be composed: take checkpoints.load('glyph_vqvae')")
        self.ground = empty[:, 0].numpy()
        self.bare = np.concatenate([self.ground, np.arange(vqvae.vocab_size)])
        known: set[tuple] = set()
        parts = {split: self._glyphs(vqvae, split, train if split == "train" else held_out, known)
                 for split in GLYPHS}
        for kind, whats in {"noun": NOUNS, "letter": LETTER}.items():
            tokens, ink = zip(*(both_sides(vqvae, whats, ground) for ground in GROUNDS))
            parts[kind] = whats, np.stack(tokens, 2), ink[0]
        whats, tables, inks = zip(*parts.values())
        ends = np.cumsum([len(some) for some in whats]).tolist()
        self.whats, self.table, self.inked = sum(map(tuple, whats), ()), np.concatenate(tables), np.concatenate(inks)
        self.of = {kind: range(end - len(some), end) for kind, end, some in zip(parts, ends, whats)}
        self.lopsided = (self.table[:, 0] != self.table[:, 1]).any((1, 2))

    def _glyphs(self, vqvae: VQVAE, split: str, n: int, known: set) -> tuple[list[int], np.ndarray, np.ndarray]:
        """The first `n` glyphs of a split whose tokens are not `known`, their table (n, 2, 8, 4) and where they are inked.

        Dark ink is the same on all grounds: a glyph is drawn on one, and where it has no ink the others fill in.
        """
        whats, kept = [int(what) for what in GLYPHS[split][:n + n // 10 + 8]], []
        tokens, ink = both_sides(vqvae, whats, GROUNDS[0])              # (n + some, 2, 4)
        for i, sides in enumerate(tokens.tolist()):
            sides = {tuple(side) for side in sides}
            if len(kept) < n and not sides & known:
                kept.append(i)
                known |= sides
        if len(kept) < n:
            raise ValueError(f"of {len(whats):,} glyphs of {split} only {len(kept):,} have tokens of their own: "
                             "take fewer")
        table = np.where(ink[:, :, None], tokens[:, :, None], self.ground[:, None])
        return [whats[i] for i in kept], table[kept], ink[kept]

    def pool(self, split: str) -> range:
        """The glyphs of a split, as numbers in arrays."""
        if split not in GLYPHS:
            raise ValueError(f"split is one of {', '.join(GLYPHS)}, got {split!r}")
        return self.of[split]

    def compose(self, grounds, things, places, mirrored=0) -> np.ndarray:
        """The tokens that the tokenizer would give to drawings of boards: int64 (..., 16), row by row.

        Args:
            grounds: (...), 0 ... 7; and 8 + a token: a wallpaper, which has that token wherever no thing is. (No drawing
                has wallpapers; they make values of grounds endless.)
            things: (..., N), and -1 where none is. places: (..., N), 0 ... 8. mirrored: (..., N), 0 or 1.
                They must not overlap: `CLEAR[one, other]` says whether two places do not.
        """
        grounds, (things, places, mirrored) = np.asarray(grounds), np.broadcast_arrays(things, places, mirrored)
        flat = grounds.reshape(-1)
        bare = self.bare[flat][:, None]                               # (B, 1)
        out, plain = np.repeat(bare, 16, 1), np.where(flat < PLAIN, flat, 0)
        for each in range(things.shape[-1]):
            what, where, side = (x[..., each].reshape(-1) for x in (things, places, mirrored))
            on = np.flatnonzero(what != NOTHING)
            ink = self.inked[what[on], side[on]]                        # (some, 4)
            out[on[:, None], CELLS[where[on]]] = np.where(ink, self.table[what[on], side[on], plain[on]], bare[on])
        return out.reshape(*grounds.shape, 16)


def both_sides(vqvae: VQVAE, whats: Sequence, ground: str) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of things on a ground, plain and mirrored, int64 (things, 2, 4), and which of the patches are inked."""
    ids, ink = [], []
    for i in range(0, len(whats), 256):
        some = whats[i:i + 256]
        boards = [Board(ground, ((what, AT[0]), (what, AT[CORNER], True))) for what in some]    # one board has both
        ids.append(vqvae.encode(draw(boards).to(device_of(vqvae))).flatten(1).cpu())            # (256, 4, 4) -> (256, 16)
        ink += [[inked(what, mirrored).flatten() for mirrored in (False, True)] for what in some]
    return torch.cat(ids).numpy()[:, CELLS[[0, CORNER]]], np.array(ink)
