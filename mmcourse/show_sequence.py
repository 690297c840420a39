"""Drawings of chapter 06: is the model's confidence worth anything, and one net beside three specialists. Drawing only."""
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt

from mmcourse import show


def reliability(confidence: Sequence[float], correct: Sequence[bool], bins: int = 5, caption: str = "") -> list[dict]:
    """Draw the share of right answers against the confidence, in bins of equal width; returns a row for each bin that has any.

    Confidence lies in [0, 1]; ValueError if not, or if the two are not of one length.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(f"{confidence.shape} confidences and {correct.shape} answers: give two lists of one length, not empty")
    if confidence.min() < 0 or confidence.max() > 1 + 1e-4:
        raise ValueError(f"confidence lies in [0, 1], got {confidence.min():.3g}..{confidence.max():.3g}: are these "
                         "log-probabilities?")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [{"from": b / bins, "n": int((place == b).sum()), "confidence": confidence[place == b].mean(),
             "right": correct[place == b].mean()} for b in range(bins) if (place == b).any()]
    fig, axis = plt.subplots(figsize=(4.6, 3.4))
    axis.bar([r["from"] + 0.5 / bins for r in rows], [r["right"] for r in rows], width=0.9 / bins, color=show.COLOURS[0],
             label="right")
    axis.plot([0, 1], [0, 1], "--", color="black", linewidth=1.2, label="exactly right confidence")
    axis.plot([r["confidence"] for r in rows], [r["right"] for r in rows], "o", color=show.COLOURS[1], label="mean confidence")
    middles = [(b + 0.5) / bins for b in range(bins)]
    axis.set_xticks(middles, [f"{b / bins:g} to {(b + 1) / bins:g}\nn = {(place == b).sum()}" for b in range(bins)], fontsize=8)
    axis.set(xlim=(0, 1), ylim=(0, 1.05), xlabel="confidence", ylabel="share that is right")
    axis.legend(loc="upper left", fontsize=8)
    show.figure(fig, caption)
    return rows


def specialists(rows: Sequence[dict]) -> dict[str, dict[str, list[float]]]:
    """Draw and tabulate the rows of `specialists.json`; returns direction -> kind of net -> bits, one for each seed."""
    directions, kinds = (list(dict.fromkeys(r[key] for r in rows)) for key in ("direction", "net"))
    bits = {d: {k: [r["bits"] for r in rows if (r["direction"], r["net"]) == (d, k)] for k in kinds} for d in directions}
    fig, axis = plt.subplots(figsize=(7, 3.2))
    for j, kind in enumerate(kinds):
        x = np.arange(len(directions)) + (j - (len(kinds) - 1) / 2) * 0.26
        axis.bar(x, [np.mean(bits[d][kind]) for d in directions], width=0.24, color=show.COLOURS[j],
                 hatch=("", "//", "..")[j % 3], edgecolor="white", label=kind)
        for at, d in zip(x, directions, strict=True):
            axis.plot([at] * len(bits[d][kind]), bits[d][kind], "k.", markersize=4)
    axis.set_xticks(range(len(directions)), [d.replace("->", " → ") for d in directions])
    axis.set_ylabel("bits a token of the answer")
    axis.legend(fontsize=8)
    show.figure(fig, "Held-out questions, lower is better: bars are means over the seeds, dots the seeds.")
    table = []
    for kind in kinds:
        own = [r for r in rows if r["net"] == kind]
        shares = {d: [r["right"] for r in own if r["direction"] == d and r["right"] is not None] for d in directions}
        nets = {(r["seed"], r["cpu_minutes"], r["parameters"]) for r in own}
        table.append({"net": kind, "parameters of a net's blocks": f"{own[0]['parameters']:,}",
                      "CPU minutes a seed": sum(n[1] for n in nets) / len({r["seed"] for r in own}),
                      **{f"right, {d.replace('->', ' → ')}": float(np.mean(x)) for d, x in shares.items() if x}})
    show.table(table, "Right: held-out questions answered with the right noun drawn, caption or word, mean over "
               "the seeds.")
    return bits
