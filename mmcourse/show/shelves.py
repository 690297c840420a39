"""Figures, tables, verdicts and the widget of chapter 12's shelves: pictures from the first k tokens, who paints them, at what
price, and how many tokens a picture gets.

What was measured is `results("ch12_nested")` and `results("ch12_budget")`, handed in as `found`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.judges.metrics import decide, t_interval
from mmcourse.show.ch12 import verdict
from mmcourse.world.shelves import PLACES, Shelf

SEEDS = ("0", "1", "2")
WAYS = {"plain": ("plain decoder", "o-"), "flow, 4": ("painter, 4 passes", "^-."), "large": ("large plain decoder", "s--"),
        "random order": ("k random tokens", "x:"), "fixed": ("made for k tokens", "D")}


# ---------------------------------------------------------------- pictures

def beginnings(pictures: torch.Tensor, made: Mapping[str, Sequence[torch.Tensor]], lengths: Sequence[int],
               caption: str = "", last: str = "true") -> None:
    """Pictures (n, 3, H, W) in the last column, called `last`, and before it what each way makes of their first k tokens:
    way -> one batch for each length."""
    rows = [(way, i) for i in range(len(pictures)) for way in made]
    fig, axes = plt.subplots(len(rows), len(lengths) + 1, figsize=(1.15 * (len(lengths) + 1), 1.2 * len(rows)), squeeze=False)
    for axis, (way, i) in zip(axes, rows):
        for place, batch in zip(axis, [*made[way], pictures]):
            place.imshow(show.pixels(batch[i]), interpolation="nearest")
            place.set(xticks=[], yticks=[])
        axis[0].set_ylabel(way, fontsize=8)
    for axis, title in zip(axes[0], [*(f"{k} token{'s' * (k > 1)}" for k in lengths), last]):
        axis.set_title(title, fontsize=9)
    show.figure(fig, caption, colours=256)


def slider(pictures: torch.Tensor, made: Mapping[str, Sequence[torch.Tensor]], bits_each: float):
    """A slider through the number of tokens: each way's picture of the first k, side by side. way -> a batch for k = 1, 2, ..."""
    most = len(next(iter(made.values())))

    def draw(tokens: int, picture: int) -> None:
        fig, axes = plt.subplots(1, len(made) + 1, figsize=(1.9 * (len(made) + 1), 2.2))
        for axis, (way, batch) in zip(axes, [*((way, all_[tokens - 1]) for way, all_ in made.items()), ("true", pictures)]):
            axis.imshow(show.pixels(batch[picture - 1]), interpolation="nearest")
            axis.set_title(way, fontsize=9)
            axis.axis("off")
        show.figure(fig, f"{tokens} tokens, {tokens * bits_each:.0f} bits at most.", colours=256)
    from ipywidgets import IntSlider
    return show.interact(draw, tokens=IntSlider(value=4, min=1, max=most, description="tokens"),
                         picture=IntSlider(value=1, min=1, max=len(pictures), description="picture"))


# ---------------------------------------------------------------- who makes a picture of k tokens

def over_seeds(rows: Mapping[str, Mapping], value: Callable) -> list[float]:
    """A number for each seed."""
    return [float(value(rows[seed])) for seed in SEEDS if seed in rows]


def rates(found: Mapping) -> None:
    """What is right, what looks like nothing, and the Frechet distance, against the number of tokens: means of the seeds."""
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.1))
    for way, (label, style) in WAYS.items():
        rows = found["rebuilt"][way]
        lengths = list(rows["0"])
        for axis, key, scale in zip(axes, ("compartments", "unlike", "fd"), (100, 100, 1)):
            axis.plot([int(k) for k in lengths], [scale * np.mean(over_seeds(rows, lambda row, k=k, key=key: row[k][key]))
                                                  for k in lengths], style, label=label, markersize=5)
    for axis, label in zip(axes, ("% of compartments right", "% that look like nothing", "Frechet distance")):
        axis.set(xlabel="tokens", ylabel=label, ylim=(0, None), xticks=range(0, 13, 2))
    axes[0].legend(fontsize=8)
    show.figure(fig, f"{found['plan']['n']:,} test shelves, means of three seeds. The reader takes each compartment for the "
                     "nearest one that there is.")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """From where to where the mean of a few seeds lies."""
    mean, half = t_interval(values)
    return mean - half, mean + half


def difference(found: Mapping, one: str, other: str, k: int, key: str) -> tuple[float, float]:
    """One way less another over the seeds, from where to where, in points (or in the unit of `fd`)."""
    scale = 1 if key == "fd" else 100
    ways = [over_seeds(found["rebuilt"][way], lambda row: scale * row[str(k)][key]) for way in (one, other)]
    return interval([a - b for a, b in zip(*ways)])


def in_all(found: Mapping, one: str, other: str, lengths: Sequence[int], key: str, **bounds) -> tuple[str, str]:
    """A verdict over several lengths, as good as its worst one, and the intervals."""
    intervals = [difference(found, one, other, k, key) for k in lengths]
    said = [decide(low, high, **bounds) for low, high in intervals]
    worst = min(said, key=("FAILS", "undecided", "holds").index)
    return worst.lower(), ", ".join(f"k {k}: {low:+.1f} to {high:+.1f}" for k, (low, high) in zip(lengths, intervals))


def nested_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of fewer tokens against what came."""
    line = "{:9} {}".format
    sharp, fd = (in_all(found, "flow, 4", "large", (1, 2, 4), key, below=0.0) for key in ("unlike", "fd"))
    more = in_all(found, "flow, 4", "large", (1, 2, 4), "compartments", below=0.0)
    same = difference(found, "flow, 4", "large", 12, "compartments")
    return {"N1, from 4 tokens: at most 3 points behind a tokenizer made for 4":
            line(*in_all(found, "plain", "fixed", (4,), "compartments", above=-3.0)),
            "N2, the first 4 beat 4 random ones by over 5 points":
            line(*in_all(found, "plain", "random order", (4,), "compartments", above=5.0)),
            "N3a, the painter: fewer compartments that look like nothing": line(*sharp),
            "N3b, a lower Frechet distance": line(*fd),
            "N3c, and not more compartments right": line(*more),
            "N4, from all tokens: within one point":
            line(decide(*same, above=-1.0, below=1.0).lower(), f"{same[0]:+.1f} to {same[1]:+.1f}")}


# ---------------------------------------------------------------- the balance

def points(found: Mapping, size: str, told: str, seed: str) -> list[dict]:
    """Every way to draw with a writer and a painter: k, passes, operations and the share that is as asked."""
    cost, out = found["flops"], []
    for k, by_passes in found["drawn"][seed][size][told].items():
        write = cost[size]["first"] + (int(k) - 1) * cost[size]["token"] if int(k) else 0
        for passes, right in by_passes.items():
            paint = cost["plain"] + int(passes) * cost["pass"]
            out.append({"k": int(k), "passes": int(passes), "write": write, "paint": paint, "flops": write + paint,
                        "right": right})
    return out


def mean_points(found: Mapping, size: str, told: str) -> list[dict]:
    """`points`, the share that is right being the mean of the seeds."""
    each = [points(found, size, told, seed) for seed in SEEDS if seed in found["drawn"]]
    return [{**rows[0], "right": float(np.mean([row["right"] for row in rows]))} for rows in zip(*each)]


def balance(found: Mapping) -> None:
    """The share of pictures as they were asked for against operations: each line is a number of tokens, its points are passes."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axis, told in zip(axes, ("both", "tokens")):
        rows = mean_points(found, "small", told)
        for k in dict.fromkeys(row["k"] for row in rows):
            own = [row for row in rows if row["k"] == k]
            axis.plot([row["flops"] / 1e6 for row in own], [100 * row["right"] for row in own], "o-", markersize=4,
                      color=plt.get_cmap("viridis")(k / 13), label=f"{k} tokens")
        axis.set(xscale="log", xlabel="million operations, writer and painter", ylim=(0, 100),
                 title=f"the painter {'is told what is asked for, too' if told == 'both' else 'sees the plain picture alone'}")
        axis.set_xticks([20, 50, 100, 200, 400], ["20", "50", "100", "200", "400"])
        axis.minorticks_off()
    axes[0].set_ylabel("% of what was asked for")
    axes[0].legend(fontsize=8)
    show.figure(fig, "Each line is a number of tokens, its points are 0 (the plain picture), 1, 2, 4, 8 and 16 passes of "
                     "the painter. Small writer, "
                     "means of three seeds. Counted are the things that are there, wherever they stand; 0 if the wall is wrong.")


def best_by_share(found: Mapping, size: str = "small", told: str = "both", most: float | None = None) -> list[dict]:
    """The frontier: no point is cheaper and better. `most`: operations at most."""
    out, best = [], -1.0
    for row in sorted(mean_points(found, size, told), key=lambda row: (row["flops"], -row["right"])):
        if row["right"] > best and (most is None or row["flops"] <= most):
            out, best = [*out, row], row["right"]
    return out


def frontier(found: Mapping, size: str = "small", told: str = "both") -> None:
    """A table of the frontier, and who does how much of the work."""
    show.table([{"tokens": row["k"], "passes": row["passes"], "million operations": f"{row['flops'] / 1e6:.0f}",
                 "of them the writer's": f"{row['write'] / row['flops']:.0%}", "as asked for": f"{row['right']:.0%}"}
                for row in best_by_share(found, size, told)], "The frontier: whoever wants more has to pay more.")


def balance_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of the balance."""
    cost = found["flops"]
    most = cost["small"]["first"] + 5 * cost["small"]["token"] + cost["plain"] + 4 * cost["pass"]
    best = best_by_share(found, most=most)[-1]

    def gain(size: str, passes: int, seed: str) -> float:
        (row,) = [row for row in points(found, size, "both", seed) if (row["k"], row["passes"]) == (6, passes)]
        return 100 * row["right"]
    seeds = [seed for seed in SEEDS if seed in found["drawn"]]
    ahead = interval([gain("large", 4, seed) - gain("small", 16, seed) for seed in seeds])
    judged = partial(verdict, width=9)
    return {"N5, at the price of 6 tokens and 4 passes or less the best is at neither end":
            judged(0 < best["k"] < 12, f"{best['k']} tokens, {best['passes']} passes: {best['right']:.0%}"),
            "N6, four times the operations: better in the writer than in passes":
            f"{decide(*ahead, above=0.0).lower():9} {ahead[0]:+.1f} to {ahead[1]:+.1f} points"}


# ---------------------------------------------------------------- as many as it needs

def mean_budget(found: Mapping, kind: str, setting: str, key: str) -> float:
    """The mean over seeds of a number of the study `ch12_budget`."""
    return float(np.mean([row[kind][setting][key] for row in found["rows"].values()]))


def budgets(found: Mapping) -> None:
    """How many tokens a shelf gets, by what stands on it, and what is right at which mean number of tokens."""
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.3))
    bits = [Shelf((1,) * n + (0,) * (PLACES - n), "white").bits for n in range(1, PLACES + 1)]
    for setting in next(iter(found["rows"].values()))["learned"]:
        spent = np.mean([row["learned"][setting]["by count"] for row in found["rows"].values()], 0)
        axes[0].plot(bits, spent, "o-", markersize=4, label=f"price {setting}")
    axes[0].set(xlabel="true bits of the shelf (1 to 9 things)", ylabel="tokens, learned", ylim=(0, None))
    rows = list(found["rows"].values())
    axes[1].plot([int(k) for k in rows[0]["fixed"]], [100 * np.mean([row["fixed"][k] for row in rows]) for k in rows[0]["fixed"]],
                 "k-", label="fixed length")
    for kind, label, style in (("best", "best possible", "x:"), ("learned", "learned", "o-"), ("stop", "stop rule", "s--")):
        axes[1].plot([mean_budget(found, kind, setting, "tokens") for setting in rows[0][kind]],
                     [100 * mean_budget(found, kind, setting, "right") for setting in rows[0][kind]], style, label=label,
                     markersize=5)
    for price in rows[0]["learned"]:
        at = [mean_budget(found, "learned", price, "tokens"), 100 * mean_budget(found, "learned", price, "right")]
        axes[1].annotate(price.removeprefix("0"), at, (3, -11), textcoords="offset points", fontsize=8)
    dealt = np.mean([[row["learned"][setting]["dealt"] for setting in row["learned"]] for row in rows], 0)
    axes[1].plot(dealt[:, 0], 100 * dealt[:, 1], "v", color="0.5", label="learned, dealt to others", markersize=5)
    axes[1].set(xlabel="mean tokens", ylabel="% of compartments right")
    for axis in axes:
        axis.legend(fontsize=8)
    show.figure(fig, f"{found['plan']['n']:,} test shelves, means of three seeds.")


def budget_verdicts(found: Mapping, price: str = "0.04") -> dict[str, str]:
    """What was expected of a learned budget, at one price."""
    rows = [row["learned"][price] for row in found["rows"].values()]
    rank = interval([row["rank"] for row in rows])
    saved = interval([1 - row["tokens"] / row["needs"] for row in rows])
    fixed = [np.interp(row["learned"][price]["dealt"][0], range(1, 13), list(row["fixed"].values()))
             for row in found["rows"].values()]
    dealt = interval([100 * (row["dealt"][1] - level) for row, level in zip(rows, fixed)])
    less = []
    for row in found["rows"].values():
        stop = sorted((each["right"], each["tokens"]) for each in row["stop"].values())
        less.append(row["learned"][price]["tokens"] - np.interp(row["learned"][price]["right"], *zip(*stop)))
    gap = interval(less)
    line = "{:9} {}".format
    return {"B1, rank correlation with the true bits .8 or more":
            line(decide(*rank, above=0.8).lower(), f"{rank[0]:.2f} to {rank[1]:.2f}"),
            "B2, at least a fifth fewer tokens than a fixed length":
            line(decide(*saved, above=0.2).lower(), f"{saved[0]:.0%} to {saved[1]:.0%} fewer"),
            "B3, dealt to other pictures: no better than fixed":
            line(decide(*dealt, below=0.0).lower(), f"{dealt[0]:+.1f} to {dealt[1]:+.1f} points"),
            "B4, at most half a token more than the stop rule":
            line(decide(*gap, below=0.5).lower(), f"{gap[0]:+.2f} to {gap[1]:+.2f} tokens")}
