"""Drawings of chapter 06: confidence, one net beside three specialists, composing, edits. Drawing only."""
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt

from mmcourse import show


def reliability(confidence: Sequence[float], correct: Sequence[bool], bins: int = 5,
                caption: str = "") -> list[dict]:
    """Draw the share of right answers against the confidence, in bins of equal width; returns a row for each
    bin that has any.

    Confidence lies in [0, 1]; ValueError if not, or if the two are not of one length.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    if confidence.shape != correct.shape or confidence.ndim != 1 or not len(confidence):
        raise ValueError(f"{confidence.shape} confidences and {correct.shape} answers: give two lists of one "
                         "length, not empty")
    if confidence.min() < 0 or confidence.max() > 1 + 1e-4:
        raise ValueError(f"confidence lies in [0, 1], got {confidence.min():.3g}..{confidence.max():.3g}: "
                         "are these log-probabilities?")
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [{"from": b / bins, "n": int((place == b).sum()), "confidence": confidence[place == b].mean(),
             "right": correct[place == b].mean()} for b in range(bins) if (place == b).any()]
    fig, axis = plt.subplots(figsize=(4.6, 3.4))
    axis.bar([r["from"] + 0.5 / bins for r in rows], [r["right"] for r in rows], width=0.9 / bins,
             color=show.COLOURS[0], label="right")
    axis.plot([0, 1], [0, 1], "--", color="black", linewidth=1.2, label="exactly right confidence")
    axis.plot([r["confidence"] for r in rows], [r["right"] for r in rows], "o", color=show.COLOURS[1],
              label="mean confidence")
    middles = [(b + 0.5) / bins for b in range(bins)]
    axis.set_xticks(middles, [f"{b / bins:g} to {(b + 1) / bins:g}\nn = {(place == b).sum()}"
                              for b in range(bins)], fontsize=8)
    axis.set(xlim=(0, 1), ylim=(0, 1.05), xlabel="confidence", ylabel="share that is right")
    axis.legend(loc="upper left", fontsize=8)
    show.figure(fig, caption)
    return rows


def specialists(rows: Sequence[dict]) -> dict[str, dict[str, list[float]]]:
    """Draw and tabulate the rows of `ch06_specialists.json`; returns direction -> kind of net -> bits,
    one for each seed."""
    directions, kinds = (list(dict.fromkeys(r[key] for r in rows)) for key in ("direction", "net"))
    bits = {d: {k: [r["bits"] for r in rows if (r["direction"], r["net"]) == (d, k)] for k in kinds}
            for d in directions}
    fig, axes = plt.subplots(1, len(directions), figsize=(8.4, 2.6), squeeze=False, layout="constrained")
    for axis, direction in zip(axes[0], directions, strict=True):
        for j, kind in enumerate(kinds):
            axis.bar(j, np.mean(bits[direction][kind]), color=show.COLOURS[j], hatch=("", "//", "..")[j % 3],
                     edgecolor="white", label=kind)
            axis.plot([j] * len(bits[direction][kind]), bits[direction][kind], "k.", markersize=4)
        axis.set_title(direction.replace("->", " → "), fontsize=9)
        axis.set_xticks([])
    axes[0, 0].set_ylabel("bits a token of the answer")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds),
               fontsize=8, frameon=False)
    show.figure(fig, "Held-out questions, lower is better; each direction has a scale of its own. Bars are "
                     "means over the seeds, dots the seeds.")
    table = []
    for kind in kinds:
        own = [r for r in rows if r["net"] == kind]
        shares = {d: [r["right"] for r in own if r["direction"] == d and r["right"] is not None]
                  for d in directions}
        nets = {(r["seed"], r["cpu_minutes"], r["parameters"]) for r in own}
        table.append({"net": kind, "parameters of a net's blocks": f"{own[0]['parameters']:,}",
                      "CPU minutes a seed": sum(n[1] for n in nets) / len({r["seed"] for r in own}),
                      **{f"right, {d.replace('->', ' → ')}": float(np.mean(x)) for d, x in shares.items()
                         if x}})
    show.table(table, "Right: held-out questions answered with the right noun drawn, caption or word, mean "
                      "over the seeds.")
    return bits


def tax(bits: dict[str, dict[str, list[float]]], net: str = "one net") -> list[dict]:
    """What one net pays against each kind of specialist, seed by seed: bits a token, their standard
    error and a verdict.

    `bits` is what `specialists` returns. Within two standard errors there is no clear difference.
    """
    rows = []
    for direction, kinds in bits.items():
        for kind in (k for k in kinds if k != net):
            # the same sequences in each seed: compare in pairs
            paid = np.array(kinds[net]) - np.array(kinds[kind])
            error = paid.std(ddof=1) / len(paid) ** 0.5 if len(paid) > 1 else np.inf
            better = f"{kind if paid.mean() > 0 else net} is better"
            verdict = "no clear difference" if abs(paid.mean()) <= 2 * error else better
            rows.append({"direction": direction, "against": kind, "paid (bits a token)": float(paid.mean()),
                         "standard error": float(error), "verdict": verdict})
    show.table(rows, f"What one net pays for learning all trades at once, {len(paid)} seeds.")
    return rows


def ablations(found: Sequence[dict]) -> None:
    """Tabulate `ablations.summary`: bits a token of the first arm, and what each other has more or
    fewer; a star: surely."""
    table = []
    for k, row in enumerate(found):
        shown = {"one thing changed": row["arm"]}
        for direction, value in row["bits"].items():
            mean, half = value or (np.nan, np.nan)
            cell = f"{mean:.3f}" if k == 0 else f"{mean:+.3f}" + "*" * (abs(mean) > half)
            shown[direction.replace("->", " → ")] = cell if value else "diverged"
        table.append({**shown, "CPU minutes": "" if row["cpu_minutes"] is None
                      else f"{row['cpu_minutes']:.2f}"})
    show.table(table, "Bits a token of the answers to held-out questions: the first row as it is, then how "
                      f"many more (+: worse) or fewer (-: better), {found[0]['seeds']} seeds in pairs. A "
                      "star: 0 lies outside the 95 % interval.")


def composition(rows: Sequence[dict]) -> None:
    """Tabulate `ch06_composition.json`: held-out and trained pairs, with and without colours that
    no caption names."""
    show.table([{"scenes on colours without a name": f"{r['unnamed']:.0%}", "weights": r["weights"],
                 "held-out pairs": r["held_out"], "pairs from training": r["trained"],
                 "gap": r["trained"] - r["held_out"]} for r in rows],
               f"Objects right, one draft each, {rows[0]['n']} scenes, after {rows[0]['steps']} steps of the "
               "reference run's first part (`mmcourse study ch06_composition`). Standard error about "
               f"{0.5 / rows[0]['n'] ** 0.5:.2f}.")


def edits(instructions: Sequence[str], before, made, wanted, done: Sequence[dict], columns: int = 6,
          caption: str = "") -> None:
    """Pictures (n, 3, H, W) in threes: before, under its instruction; as made, under what `edit_done`
    says; as wanted."""
    strip, titles = [], []
    for text, a, b, c, verdict in zip(instructions, before, made, wanted, done, strict=True):
        strip += [a, b, c]
        titles += [textwrap.fill(text, 18), f"change {'right' if verdict['change'] else 'wrong'}\n"
                   f"rest {'kept' if verdict['kept'] else 'lost'}", "wanted"]
    show.pictures(strip, titles, caption, columns=columns, size=1.45)
