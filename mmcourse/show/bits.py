"""Drawing bits: a budget of tokens and bits, a ladder of lengths, binary pictures. Nothing is trained."""
import numpy as np
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.bits import picture_budget, sound_budget


def budget(vocabulary: int = 512, size: int = 64, patch: int = 8, seconds: float = 1.0, frame_ms: float = 40,
           levels: int = 2, context: int = 256) -> None:
    """Draw what a picture and a sound at 8 kHz cost: tokens against the context, bits against raw bits.

    `vocabulary` counts for both. What does not fit (a patch that is no divisor of the size) is said.
    """
    try:
        picture = picture_budget(size, patch, vocabulary)
    except ValueError as error:
        show.caption(f"⚠ {error}")
        return
    costs = {"picture": picture, "sound": sound_budget(seconds, frame_ms, levels, vocabulary)}
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.6))
    names, rows = list(costs), np.arange(len(costs))
    left.barh(rows, [c["tokens"] for c in costs.values()], color=show.COLOURS[:2], height=0.5)
    left.axvline(context, color="black", linestyle="--")
    left.annotate(" context", (context, 1.3), fontsize=9)
    widest = max(context, *(c["tokens"] for c in costs.values()))
    left.set(xlabel="tokens", xlim=(0, 1.25 * widest), ylim=(-0.5, 1.6))
    right.barh(rows + 0.17, [c["raw bits"] for c in costs.values()], color="#bbbbbb", height=0.3)
    right.barh(rows - 0.17, [c["bits"] for c in costs.values()], color=show.COLOURS[:2], height=0.3)
    right.set(xscale="log", xlabel="bits", xlim=(10, 1e8), ylim=(-0.5, 1.6))
    for row, cost in zip(rows, costs.values(), strict=True):
        right.text(1.2 * cost["raw bits"], row + 0.17, f"raw {cost['raw bits']:,.0f}", va="center", size=9)
        right.text(1.2 * cost["bits"], row - 0.17, f"{cost['bits']:,.0f}", va="center", fontsize=9)
    for axis in (left, right):
        axis.set_yticks(rows, names)
        axis.grid(False)
    things = {"picture": "A picture", "sound": f"{seconds:g} s of sound"}
    said = [f"{things[name]}: {cost['tokens']:,} tokens, {cost['bits']:,.0f} bits, "
            f"{cost['times smaller']:,.0f} times smaller than raw, "
            f"{cost['tokens'] / context:.0%} of the context."
            for name, cost in costs.items()]
    show.figure(fig, " ".join([f"{vocabulary:,} words.", *said]))


def ladder(bits: dict[str, float], caption: str = "", *, xlabel: str = "bits") -> None:
    """Draw one quantity measured in several ways, {name: bits}, top to bottom, on a logarithmic scale."""
    fig, axis = plt.subplots(figsize=(8, 0.34 * len(bits) + 0.9))
    rows = np.arange(len(bits))[::-1]
    axis.barh(rows, list(bits.values()), color=show.COLOURS[0], height=0.6)
    for row, value in zip(rows, bits.values(), strict=True):
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        axis.text(value * 1.1, row, shown, va="center", fontsize=9)
    axis.set_yticks(rows, list(bits))
    axis.set(xscale="log", xlabel=xlabel, xlim=(min(bits.values()) / 3, 6 * max(bits.values())))
    axis.grid(axis="y", visible=False)
    show.figure(fig, caption)


def binary(rows, titles=None, caption: str = "", *, size: float = 0.62) -> None:
    """Draw rows of binary pictures, each row (n, H, W) of 0 and 1 (1 is ink), titles to the left."""
    columns = max(len(row) for row in rows)
    width = size * columns + (1.3 if titles else 0)
    fig, axes = plt.subplots(len(rows), columns, figsize=(width, size * len(rows)), squeeze=False)
    for r, row in enumerate(rows):
        for axis in axes[r]:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.grid(False)
        for axis, picture in zip(axes[r], row, strict=False):
            paper = 1 - np.asarray(picture, dtype=float)
            axis.imshow(paper, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if titles:
            axes[r, 0].set_ylabel(titles[r], rotation=0, ha="right", va="center", fontsize=9)
    show.figure(fig, caption)
