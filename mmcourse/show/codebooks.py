"""Codebooks to look at: how healthy one is, what its codes look like, what one token does to a picture.

The counts work with ids of any tokenizer (pictures, the codec's levels); the rest asks for a `VQVAE`. Nothing
here trains anything.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.bits import entropy_bits
from mmcourse.quantize import nearest_code
from mmcourse.vqvae import VQVAE, check_images

# ---------------------------------------------------------------- is the codebook alive?

def counts(ids, codebook_size: int) -> torch.Tensor:
    """How often each code occurs in ids of any shape: (codebook_size,) int64. ValueError if an id is out of
    range."""
    ids = torch.as_tensor(ids).flatten().long()
    if ids.numel() == 0:
        raise ValueError("no ids to count: the tensor is empty")
    if not 0 <= int(ids.min()) <= int(ids.max()) < codebook_size:
        raise ValueError(f"ids of a codebook of {codebook_size} lie in 0..{codebook_size - 1}, "
                         f"got {int(ids.min())}..{int(ids.max())}")
    return torch.bincount(ids, minlength=codebook_size)


def health(ids, codebook_size: int) -> dict:
    """How a codebook is used.

    Returns: `used`: codes that occur; `perplexity`: exp of the entropy, `codebook_size` if all are used
        alike; `bits`: measured bits a token (unigram entropy); `nominal_bits`; `most_frequent`: the share of
        all tokens that the most frequent code has.
    """
    n = counts(ids, codebook_size)
    bits = entropy_bits(n)
    return {"used": int((n > 0).sum()), "perplexity": 2 ** bits, "bits": bits,
            "nominal_bits": float(np.log2(codebook_size)), "most_frequent": float(n.max().double() / n.sum())}


def usage(runs: Mapping[str, Sequence[int]], caption: str = "") -> None:
    """The codebook-health plot: {name: how often each code was used (from `counts`)} -> share of all tokens
    by rank.

    A healthy curve is long and flat. Names are marked with the number of codes alive and the perplexity.
    """
    if not runs:
        raise ValueError("no codebooks to show: the dict is empty")
    fig, axis = plt.subplots(figsize=(9.0, 3.4))
    longest = max(len(n) for n in runs.values())
    for i, (name, n) in enumerate(runs.items()):
        n = np.sort(np.asarray(n, dtype=np.float64))[::-1]
        p = n[n > 0] / n.sum()
        axis.plot(np.arange(1, len(p) + 1), p, ("-", "--", "-.", ":")[i % 4],
                  color=show.COLOURS[i % len(show.COLOURS)],
                  linewidth=2, label=f"{name}: {len(p)} alive, perplexity {2 ** entropy_bits(n):.0f}")
        axis.plot(len(p), p[-1], "o", color=show.COLOURS[i % len(show.COLOURS)], markersize=4)
    axis.axhline(1 / longest, color="black", linewidth=0.8, linestyle=":")
    axis.set(xscale="log", yscale="log", xlim=(1, longest * 1.15), xlabel="code, from most to least used",
             ylabel="share of all tokens")
    axis.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1))
    show.figure(fig, caption)


def scatter(points: torch.Tensor, books: Mapping[str, torch.Tensor], caption: str = "") -> None:
    """Codebooks of two numbers a code among the points that they stand for: (N, 2), {title: (K, 2)}."""
    fig, axes = plt.subplots(1, len(books), figsize=(3.2 * len(books), 3.1), squeeze=False)
    for axis, (title, codes) in zip(axes[0], books.items()):
        axis.scatter(*points.T, s=2, color="0.75")
        axis.scatter(*codes.T, s=40, marker="D", color=show.COLOURS[1], edgecolor="black")
        axis.set(title=title, aspect="equal", xlabel="first number", ylabel="second number")
    show.figure(fig, caption)


# ---------------------------------------------------------------- what the codes look like

def paint_codes(tokenizer: VQVAE, codes: torch.Tensor) -> torch.Tensor:
    """Each code as the decoder paints it among copies of itself: (K,) ids -> (K, 3, 8, 8)."""
    ids = codes[:, None, None].expand(-1, 3, 3)                        # (K,) -> (K, 3, 3)
    return tokenizer.decode(ids)[:, :, 8:16, 8:16]


def code_sheet(tokenizer: VQVAE, use: torch.Tensor, caption: str = "", columns: int = 32) -> None:
    """Every code as a picture, from the most used (top left) to the least; `use` (K,) as `counts` gives it. Codes that do
    not occur stand below, apart."""
    order, alive = use.argsort(descending=True, stable=True), int((use > 0).sum())
    parts = {f"{alive} codes in use, most used first": order[:alive],
             f"{len(use) - alive} codes that none of these pictures uses": order[alive:]}
    sheets = {title: _sheet(paint_codes(tokenizer, codes), columns) for title, codes in parts.items() if len(codes)}
    heights = [sheet.shape[0] for sheet in sheets.values()]
    fig, axes = plt.subplots(len(sheets), 1, figsize=(9.2, 9.2 * sum(heights) / (columns * 10) + 0.3 * len(sheets)),
                             gridspec_kw={"height_ratios": heights}, squeeze=False)
    for axis, (title, sheet) in zip(axes[:, 0], sheets.items()):
        axis.imshow(sheet, interpolation="nearest")
        axis.set_title(title, fontsize=10, loc="left", pad=3)
        axis.axis("off")
    show.figure(fig, caption, colours=256)


def _sheet(signs: torch.Tensor, columns: int) -> np.ndarray:
    """(K, 3, 8, 8) in rows of `columns` with a white line around each: (rows * 10, columns * 10, 3)."""
    missing = -len(signs) % columns
    signs = F.pad(torch.cat([signs, signs.new_ones(missing, 3, 8, 8)]), (1, 1, 1, 1), value=1.0)
    rows = signs.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)     # -> (rows, 10, columns, 10, 3)
    return rows.flatten(2, 3).flatten(0, 1).numpy()


def spelled(image: torch.Tensor, ids: torch.Tensor, caption: str = "") -> None:
    """A picture (3, H, W) beside itself with the id (H/8, W/8) of each patch written on it."""
    fig, axes = plt.subplots(1, 2, figsize=(9.0, 4.6))
    height, width = image.shape[1:]
    for axis, faded in zip(axes, (1.0, 0.35)):
        axis.imshow(show.pixels(faded * image + (1 - faded)), interpolation="nearest")
        axis.set(xticks=np.arange(-0.5, width, 8), yticks=np.arange(-0.5, height, 8), xticklabels=[], yticklabels=[])
        axis.grid(visible=faded < 1, **({"color": "0.45", "alpha": 1, "linewidth": 0.8} if faded < 1 else {}))
        axis.tick_params(length=0)
    for (row, column), code in np.ndenumerate(ids.numpy()):
        axes[1].text(8 * column + 3.5, 8 * row + 3.5, str(code), ha="center", va="center", fontsize=9.5)
    show.figure(fig, caption, colours=256)


@torch.no_grad()
def code_distances(tokenizer: VQVAE, images: torch.Tensor) -> torch.Tensor:
    """How far each patch lies from the code that it is given: (B, 3, H, W) -> (B, H/8, W/8). Far: the
    alphabet has no word for it. Compare with the same picture's kind at home, as the unit is the encoder's
    own.
    """
    check_images(images)
    return (tokenizer.vectors(images) - tokenizer.quantizer.codebook[tokenizer.encode(images)]).norm(dim=3)


@torch.no_grad()
def blend(tokenizer: VQVAE, start: torch.Tensor, end: torch.Tensor, shares: Sequence[float]):
    """Between two pictures, in code space: ids (h, w) twice -> (n, 3, 8h, 8w) twice.

    First from the mixed vectors as they are, then from the codes nearest to them, which is all that tokens
    can say.
    """
    book = tokenizer.quantizer.codebook
    share = torch.as_tensor(shares, dtype=torch.float32)[:, None, None, None]
    mixed = (1 - share) * book[start] + share * book[end]              # (n, h, w, D)
    smooth = (tokenizer.decoder(mixed.permute(0, 3, 1, 2)) + 0.5).clamp(0, 1)
    ids = nearest_code(mixed.flatten(0, 2), book).view(mixed.shape[:3])
    return smooth, tokenizer.decode(ids)


def microscope(tokenizer: VQVAE, images: torch.Tensor, picture: int = 0, row: int = 6, column: int = 4,
               swap: int = 8, caption: str = "") -> None:
    """Look at one token of one of (B, 3, H, W) pictures: its id, its painted code, the eight codes nearest to it; `swap` 1
    to 8 puts the n-th of them in its place. Close-ups show the patch, framed, and what stands around it. ValueError if
    there is no such patch.
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
    changed = framed(1 - ((before - after).abs() * 3).clamp(max=1), row, column)
    large = {"the picture": framed(images[picture], row, column), f"token {code}, close up": before,
             f"token {near[swap]} in its place": after, "what has changed, x3": changed}
    fig = plt.figure(figsize=(9.0, 4.0))
    grid = fig.add_gridspec(2, 36, height_ratios=[2.3, 1])
    left, top = (min(max(8 * place - 12, 0), side - 32) - 0.5
                 for place, side in ((column, images.shape[3]), (row, images.shape[2])))
    for i, (title, shown) in enumerate(large.items()):
        axis = fig.add_subplot(grid[0, 9 * i:9 * i + 9])
        axis.imshow(show.pixels(shown), interpolation="nearest")
        if i in (1, 2):                                                # four by four patches around it
            axis.set(xlim=(left, left + 32), ylim=(top + 32, top))
            axis.add_patch(plt.Rectangle((8 * column - 0.5, 8 * row - 0.5), 8, 8, fill=False, color="#D1495B", linewidth=1.5))
        axis.set_title(title, fontsize=10, pad=4)
        axis.axis("off")
    for i, (k, d, sign) in enumerate(zip(near.tolist(), distance[near].tolist(), paint_codes(tokenizer, near))):
        axis = fig.add_subplot(grid[1, 4 * i:4 * i + 4])
        axis.imshow(show.pixels(sign), interpolation="nearest")
        axis.set_title(f"{i}: {k}\n{d:.2f}", fontsize=9, pad=3)
        axis.axis("off")
    show.figure(fig, caption or "Above: the picture, the patch and its surroundings as the decoder paints them before and "
                "after the swap, and where in the whole picture that makes a difference. Below: the token's own code (0) and "
                "the eight nearest to it (swap 1 to 8), with their ids and distances.", colours=256)


def framed(image: torch.Tensor, row: int, column: int, patch: int = 8) -> torch.Tensor:
    """(3, H, W) -> a copy in which one patch has a black frame."""
    image, top, left = image.clone(), patch * row, patch * column
    image[:, [top, top + patch - 1], left:left + patch] = 0
    image[:, top:top + patch, [left, left + patch - 1]] = 0
    return image
