"""Codebooks to look at: how healthy one is, what its codes look like, and what one token does to a picture.

Works with ids of any tokenizer (pictures here, the codec's levels, chapter 12's nested tokens). Nothing here trains anything.
"""
from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image

from mmcourse import show
from mmcourse.vqvae import VQVAE, check_images, matte

# ---------------------------------------------------------------- is the codebook alive?

def counts(ids, codes: int) -> torch.Tensor:
    """How often each of `codes` codes occurs in ids of any shape: (codes,) int64. ValueError if an id is out of range."""
    ids = torch.as_tensor(ids).flatten().long()
    if ids.numel() == 0:
        raise ValueError("no ids to count: the tensor is empty")
    if not 0 <= int(ids.min()) <= int(ids.max()) < codes:
        raise ValueError(f"ids of a codebook of {codes} lie in 0..{codes - 1}, got {int(ids.min())}..{int(ids.max())}")
    return torch.bincount(ids, minlength=codes)


def health(ids, codes: int) -> dict:
    """How a codebook is used: `used` codes, `perplexity` (exp of the entropy: `codes` if all are used alike), measured
    `bits` a token (unigram entropy), `nominal_bits`, and the share of all tokens that the commonest code has.
    """
    n = counts(ids, codes)
    p = n[n > 0].double() / n.sum()
    bits = float(-(p * p.log2()).sum())
    return {"used": len(p), "perplexity": 2 ** bits, "bits": bits, "nominal_bits": float(np.log2(codes)),
            "commonest": float(p.max())}


def usage(runs: Mapping[str, Sequence[int]], caption: str = "") -> None:
    """The codebook-health plot: {name: how often each code was used (from `counts`)} -> share of all tokens by rank.

    A healthy curve is long and flat. Names are marked with the number of codes alive and the perplexity.
    """
    if not runs:
        raise ValueError("no codebooks to show: the dict is empty")
    fig, axis = plt.subplots(figsize=(7.0, 3.6))
    longest = max(len(n) for n in runs.values())
    for i, (name, n) in enumerate(runs.items()):
        n = np.sort(np.asarray(n, dtype=np.float64))[::-1]
        p = n[n > 0] / n.sum()
        perplexity = np.exp(-(p * np.log(p)).sum())
        axis.plot(np.arange(1, len(p) + 1), p, ("-", "--", "-.", ":")[i % 4], color=show.COLOURS[i % len(show.COLOURS)],
                  linewidth=2, label=f"{name}: {len(p)} alive, perplexity {perplexity:.0f}")
        axis.plot(len(p), p[-1], "o", color=show.COLOURS[i % len(show.COLOURS)], markersize=4)
    axis.axhline(1 / longest, color="black", linewidth=0.8, linestyle=":")
    axis.set(xscale="log", yscale="log", xlim=(1, longest * 1.15), xlabel="code, from most to least used",
             ylabel="share of all tokens")
    axis.legend(fontsize=8.5, loc="lower left")
    show.figure(fig, caption, colours=64)


# ---------------------------------------------------------------- what the codes look like

def paint_codes(tokenizer: VQVAE, codes: torch.Tensor) -> torch.Tensor:
    """Each code as the decoder paints it among copies of itself: (K,) ids -> (K, 3, 8, 8)."""
    ids = codes[:, None, None].expand(-1, 3, 3)                        # (K,) -> (K, 3, 3)
    return tokenizer.decode(ids)[:, :, 8:16, 8:16]


@torch.no_grad()
def code_distances(tokenizer: VQVAE, images: torch.Tensor) -> torch.Tensor:
    """How far each patch lies from the code that it is given: (B, 3, H, W) -> (B, H/8, W/8). Far: the alphabet has no word
    for it. Compare with the same picture's kind at home, as the unit is the encoder's own.
    """
    check_images(images)
    z = tokenizer.encoder(matte(images) * 2 - 1).permute(0, 2, 3, 1)   # (B, D, h, w) -> (B, h, w, D)
    return (z - tokenizer.quantizer.codebook[tokenizer.encode(images)]).norm(dim=3)


@torch.no_grad()
def blend(tokenizer: VQVAE, start: torch.Tensor, end: torch.Tensor, shares: Sequence[float]):
    """Between two pictures, in code space: ids (h, w) twice -> (n, 3, 8h, 8w) twice.

    First from the mixed vectors as they are, then from the codes nearest to them, which is all that tokens can say.
    """
    book = tokenizer.quantizer.codebook
    share = torch.as_tensor(shares)[:, None, None, None]
    mixed = (1 - share) * book[start] + share * book[end]              # (n, h, w, D)
    smooth = (tokenizer.decoder(mixed.permute(0, 3, 1, 2)) + 0.5).clamp(0, 1)
    ids = torch.cdist(mixed.flatten(0, 2), book).argmin(1).reshape(mixed.shape[:3])
    return smooth, tokenizer.decode(ids)


def microscope(tokenizer: VQVAE, images: torch.Tensor, picture: int = 0, row: int = 3, column: int = 2, swap: int = 0,
               caption: str = "") -> None:
    """Look at one token of one of (B, 3, H, W) pictures: its id, its painted code, the eight codes nearest to it; `swap`
    1 to 8 puts the n-th of them in its place. ValueError if there is no such patch.
    """
    ids = tokenizer.encode(images[picture:picture + 1])
    if not (0 <= row < ids.shape[1] and 0 <= column < ids.shape[2] and 0 <= swap <= 8):
        raise ValueError(f"patches are rows 0..{ids.shape[1] - 1}, columns 0..{ids.shape[2] - 1}, swaps 0..8; "
                         f"got row {row}, column {column}, swap {swap}")
    code, book = ids[0, row, column], tokenizer.quantizer.codebook
    distance = torch.cdist(book[code][None], book)[0]
    near = distance.argsort()[:9]                                      # the first is the code itself
    swapped = ids.clone()
    swapped[0, row, column] = near[swap]
    before, after = tokenizer.decode(torch.cat([ids, swapped]))
    titles = ["picture", f"token {code}", f"token {near[swap]}", "difference x3"]
    titles += [f"{k}\n{d:.2f}" for k, d in zip(near.tolist(), distance[near].tolist())]
    show.pictures([framed(images[picture], row, column), before, after, (before - after).abs() * 3,
                   *paint_codes(tokenizer, near)], titles, columns=7, size=1.15,
                  caption=caption or "The patch, the picture from its tokens, the picture after the swap, the difference. "
                                     "Then the code and its nearest neighbours, with their distance.")


def framed(image: torch.Tensor, row: int, column: int, patch: int = 8) -> torch.Tensor:
    """(3, H, W) -> a copy in which one patch has a black frame."""
    image, top, left = image.clone(), patch * row, patch * column
    image[:, [top, top + patch - 1], left:left + patch] = 0
    image[:, top:top + patch, [left, left + patch - 1]] = 0
    return image


# ---------------------------------------------------------------- many small pictures

def unstrip(text: str) -> np.ndarray:
    """A strip of pictures from `data/results/vq_sweep.json` (a PNG in base64) -> (H, W, 3) uint8."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def wall(strips: Mapping[str, str | np.ndarray], caption: str = "", columns: int = 2) -> None:
    """{title: strip of pictures} in `columns`, each title above its strip."""
    if not strips:
        raise ValueError("no strips to show: the dict is empty")
    rows = -(-len(strips) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.7 * columns, 1.13 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, row) in zip(axes.flat, strips.items()):
        axis.imshow(unstrip(row) if isinstance(row, str) else row, interpolation="nearest")
        axis.set_title(title, fontsize=8.5, pad=3)
    show.figure(fig, caption, colours=128)
