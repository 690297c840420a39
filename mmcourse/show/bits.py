"""Drawing bits: a budget, a loaded coin, a ladder of lengths, binary pictures, prices of tokens. Nothing is trained."""
import numpy as np
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.bits import entropy_bits, picture_budget, sound_budget


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
    show.figure(fig, " ".join([f"A vocabulary of {vocabulary:,} entries.", *said]))


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


def coin(heads: float = 0.9) -> None:
    """Draw the entropy of a coin against its probability of heads, and this coin on the curve."""
    p = np.linspace(0.001, 0.999, 200)
    here = entropy_bits([heads, 1 - heads])
    fig, axis = plt.subplots(figsize=(6, 2.5))
    axis.plot(p, [entropy_bits([x, 1 - x]) for x in p])
    axis.plot([heads, heads], [0, here], ":", color=show.COLOURS[1])
    axis.plot(heads, here, "o", color=show.COLOURS[1], markersize=9)
    axis.set(xlabel="probability of heads", ylabel="bits a throw", xlim=(-0.03, 1.03), ylim=(0, 1.1))
    surprise = [f"{name} surprises by {-np.log2(q):.2f} bits" for name, q in (("heads", heads), ("tails", 1 - heads)) if q > 0]
    show.figure(fig, f"A coin that shows heads in {heads:.0%} of its throws: {', '.join(surprise)}; on average "
                     f"{here:.2f} bits a throw.")


def repeats(seen: list[int], different: list[int], entries: int, caption: str = "") -> None:
    """Draw how many different patches were found among those seen, both on logarithmic scales."""
    fig, axis = plt.subplots(figsize=(6, 2.8))
    axis.loglog(seen, seen, "--", color="black")
    axis.loglog(seen, different, "o-")
    axis.axhline(entries, color=show.COLOURS[2], linestyle=":")
    axis.annotate("if all were different", (seen[2], 1.15 * seen[2]), ha="right", va="bottom", fontsize=9)
    axis.annotate(f"{different[-1]:,} different ones", (seen[-1], 1.2 * different[-1]), ha="right", va="bottom", fontsize=9)
    axis.annotate(f"a vocabulary of {entries}", (seen[-1], 0.92 * entries), ha="right", va="top", fontsize=9)
    axis.set_xticks(seen, [f"{n:,}" for n in seen])
    axis.minorticks_off()
    axis.set(xlabel="patches seen", ylabel="different patches", ylim=(entries / 3, 1.6 * seen[-1]))
    show.figure(fig, caption)


def prices(rows: list[dict], caption: str = "") -> None:
    """Draw bits a token of several kinds of tokens: nominal, counted, predicted (with its interval), and a lower bound.

    A row has "tokens of", "nominal", "counted", "predicted", "low", "high" and "lower bound" (None: not known).
    """
    fig, axis = plt.subplots(figsize=(9, 3.2))
    places = np.arange(len(rows))
    for i, key in enumerate(("nominal", "counted", "predicted")):
        heights = [row[key] for row in rows]
        axis.bar(places + 0.27 * (i - 1), heights, width=0.25, color=show.COLOURS[i], label=key)
        if key == "predicted":
            around = [[row["predicted"] - row["low"] for row in rows], [row["high"] - row["predicted"] for row in rows]]
            axis.errorbar(places + 0.27, heights, around, fmt="none", color="black", linewidth=1, capsize=3)
    half = [[row["nominal"] / 2] * 2 for row in rows]
    for place, level, row in zip(places, half, rows, strict=True):
        axis.plot([place - 0.42, place + 0.42], level, "k:", linewidth=1.2, label="" if place else "half of nominal")
        if row["lower bound"] is not None:
            axis.plot([place + 0.12, place + 0.42], [row["lower bound"]] * 2, color=show.COLOURS[3], linewidth=3,
                      label="" if place else "lower bound")
    axis.set_xticks(places, [row["tokens of"].replace(", ", ",\n") for row in rows], fontsize=9)
    axis.set(ylabel="bits a token")
    axis.grid(axis="x", visible=False)
    axis.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
    show.figure(fig, caption)


def told(groups: dict[str, dict[str, float]], bounds: dict[str, float], caption: str = "") -> None:
    """Draw what things cost alone and after something else: {title: {name: bits}}, a dashed line at each title's bound."""
    fig, axes = plt.subplots(1, len(groups), figsize=(9, 2.6), sharex=True, sharey=True, squeeze=False)
    for axis, (title, row) in zip(axes[0], groups.items(), strict=True):
        bars = axis.barh(list(row), list(row.values()), color=[show.COLOURS[0], "#9cc9e4", show.COLOURS[1], "#f0b48d"])
        axis.bar_label(bars, [f"{value:.1f}" for value in row.values()], padding=3, fontsize=9)
        axis.axvline(bounds[title], color="black", linestyle="--")
        axis.set(title=title, xlabel="bits", xlim=(0, 1.15 * max(max(r.values()) for r in groups.values())))
        axis.grid(axis="y", visible=False)
    axes[0, 0].invert_yaxis()
    show.figure(fig, caption)
