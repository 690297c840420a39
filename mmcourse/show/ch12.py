"""Chapter 12's figures, tables, verdicts and widgets: the ledger, where the bits are, tokens that settle, and passes.

What was measured is `results("ch12_ledger")` and `results("ch12_parallel")`: the chapter loads them and hands them in as `found`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.assistant import painted
from mmcourse.judges.metrics import decide, paired_bootstrap, wilson
from mmcourse.show.ch08 import GREY
from mmcourse.vocabulary import Segment

ANSWERS = ("caption", "picture", "word", "phrase")
WAYS = ("one at a time", "Jacobi", "drafted", "Jacobi, together", "drafted, together")
ROW_BY_ROW = WAYS[1:3]
LINES = {"one at a time": "o-", "Jacobi": "s--", "drafted": "^-.", "Jacobi, together": "s:", "drafted, together": "^:"}


def verdict(holds: bool, said: str, width: int) -> str:
    """A claim that either holds or fails, and what came; `width`: of the column."""
    return f"{'holds' if holds else 'fails':{width}} {said}"


# ---------------------------------------------------------------- the ledger

def ledger(found: Mapping) -> None:
    """What each answer costs, and what it is worth in bits (`ch12_ledger`)."""
    rows = found["rows"]

    def line(what: str, value: Callable) -> dict:
        return {"": what, **{answer: value(rows[answer]["weighed"], rows[answer]["timed"]) for answer in ANSWERS}}
    show.table([
        line("tokens", lambda w, t: f"{w['tokens']:.0f}"),
        line("bits, as many as they could carry", lambda w, t: f"{w['nominal']:.0f}"),
        line("bits after the question", lambda w, t: f"{w['bits']:.1f}"),
        line("bits after nothing", lambda w, t: f"{w['alone']:.1f}"),
        line("bits a token", lambda w, t: f"{w['bits'] / w['tokens']:.2f}"),
        line("tokens of less than .05 bit", lambda w, t: f"{w['cheap']:.0%}"),
        line("million operations, transformer", lambda w, t: f"{t['flops'] / 1e6:.0f}"),
        line("million operations, decoder", lambda w, t: f"{t['render flops'] / 1e6:.0f}"),
        line("million operations a bit", lambda w, t: f"{per_bit(w, t) / 1e6:.0f}"),
        line("megabytes read", lambda w, t: f"{t['moved'] / 1e6:.0f}"),
        line("CPU ms: first token", lambda w, t: f"{1e3 * t['first token']:.0f}"),
        line("CPU ms: the answer", lambda w, t: f"{1e3 * t['cpu']:.0f}"),
        line("CPU ms: the decoder", lambda w, t: f"{1e3 * t['render']:.0f}"),
        line("CPU ms: first tenth of a second of sound",
             lambda w, t: f"{1e3 * t['first sound']:.0f}" if "first sound" in t else "-"),
        line("seconds of sound", lambda w, t: f"{t['sound']:.2f}" if "sound" in t else "-"),
        line("CPU seconds for a second of sound", lambda w, t: f"{real_time(t):.2f}" if "sound" in t else "-"),
    ], "Means over answers of the test split, one token at a time. Bits are those of the true answers, under the model.")


def per_bit(weighed: Mapping, timed: Mapping) -> float:
    """Operations for a bit: those of a token of the answer, over what a token carries."""
    return timed["flops"] / timed["tokens"] / (weighed["bits"] / weighed["tokens"])


def real_time(timed: Mapping) -> float:
    """CPU seconds for a second of sound."""
    return (timed["cpu"] + timed["render"]) / timed["sound"]


def ledger_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of the ledger against what came."""
    rows = found["rows"]
    each = {answer: rows[answer]["weighed"]["bits"] / rows[answer]["weighed"]["tokens"] for answer in ANSWERS}
    bit = {answer: per_bit(rows[answer]["weighed"], rows[answer]["timed"]) for answer in ANSWERS}
    cheap = rows["picture"]["weighed"]["cheap"]
    judged = partial(verdict, width=6)
    return {"L1, bits a token: a picture's below .25, a sound's more than ten times as many":
            judged(each["picture"] < 0.25 and each["word"] > 10 * each["picture"],
                   f"{each['picture']:.2f} and {each['word']:.2f}"),
            "L2, more than half of a picture's tokens carry less than .05 bit": judged(cheap > 0.5, f"{cheap:.0%}"),
            "L3, a picture's bit costs more than three times one of a word":
            judged(bit["picture"] > 3 * bit["word"], f"{bit['picture'] / bit['word']:.1f} times"),
            "L4, words in time, and the first tenth of a second within a quarter of one":
            judged(real_time(rows["word"]["timed"]) < 1 and rows["word"]["timed"]["first sound"] < 0.25,
                   f"{real_time(rows['word']['timed']):.2f} s for a second; {rows['word']['timed']['first sound']:.2f} s")}


def surprise(pictures, bits: Sequence, titles: Sequence[str], caption: str = "") -> None:
    """Pictures (n, 3, H, W), and below each how many bits each of its 8x8 tokens carries, `bits` (n, 64)."""
    maps = [np.asarray(row, float)[:64].reshape(8, 8) for row in bits]                       # (64,) -> (8, 8)
    most = max(1.0, max(each.max() for each in maps))
    fig, axes = plt.subplots(2, len(maps), figsize=(1.7 * len(maps) + 0.5, 3.7), squeeze=False)
    for i, each in enumerate(maps):
        axes[0, i].imshow(show.pixels(pictures[i]), interpolation="nearest")
        axes[0, i].set_title(f"{titles[i]}\n{each.sum():.1f} bits", fontsize=8.5)
        drawn = axes[1, i].imshow(each, vmin=0, vmax=most)
    for axis in axes.flat:
        axis.axis("off")
    fig.colorbar(drawn, ax=axes[1], label="bits", shrink=0.8)
    show.figure(fig, caption)


# ---------------------------------------------------------------- tokens that settle

def settling(guesses: Sequence[torch.Tensor], settled: Sequence[int], final: torch.Tensor, vqvae, start: int = 0,
             caption: str = "", columns: int = 8) -> None:
    """A film strip: what is guessed after each pass, `guesses` (64,) each with ids from `start` on. Clear: the tokens that are
    settled. Pale: guesses, framed in red where they will still change."""
    fig, axes = plt.subplots(-(-len(guesses) // columns), min(columns, len(guesses)), squeeze=False,
                             figsize=(1.25 * min(columns, len(guesses)), 1.5 * -(-len(guesses) // columns)))
    for axis in axes.flat:
        axis.axis("off")
    for number, (axis, guess, sure) in enumerate(zip(axes.flat, guesses, settled), 1):
        frame(axis, guess - start, int(sure), final - start, vqvae)
        axis.set_title(f"pass {number}: {int(sure)}", fontsize=8.5, pad=3)
    show.figure(fig, caption, colours=256)


def frame(axis, guess: torch.Tensor, settled: int, final: torch.Tensor, vqvae) -> None:
    """One picture of the strip."""
    (picture,) = painted(vqvae, [Segment("image", tuple(guess.tolist()))])
    sure = (torch.arange(64) < settled).view(8, 8).repeat_interleave(8, 0).repeat_interleave(8, 1)
    axis.imshow(show.pixels(torch.where(sure, picture, 0.35 * picture + 0.65 * GREY)), interpolation="nearest")
    for place in ((guess != final) & (torch.arange(64) >= settled)).nonzero()[:, 0].tolist():
        y, x = divmod(place, 8)
        axis.add_patch(plt.Rectangle((8 * x - 0.5, 8 * y - 0.5), 8, 8, fill=False, color="#D55E00", linewidth=1.1))


def scrub(films: Mapping[str, tuple], vqvae, start: int = 0):
    """A slider through the passes: {way: (guesses, settled)} side by side, each until it is done."""
    longest = max(len(guesses) for guesses, _ in films.values())

    def draw(passes: int) -> None:
        fig, axes = plt.subplots(1, len(films), figsize=(2.2 * len(films), 2.6), squeeze=False)
        for axis, (way, (guesses, settled)) in zip(axes[0], films.items()):
            at = min(passes, len(guesses)) - 1
            frame(axis, guesses[at] - start, int(settled[at]), guesses[-1] - start, vqvae)
            axis.axis("off")
            axis.set_title(f"{way}\n{'done after' if passes >= len(guesses) else 'pass'} {at + 1}", fontsize=9)
        show.figure(fig, f"After {passes} passes.", colours=256)
    from ipywidgets import IntSlider
    return show.interact(draw, passes=IntSlider(value=min(3, longest), min=1, max=longest, description="passes"))


# ---------------------------------------------------------------- passes and seconds

def same(found: Mapping) -> None:
    """Of how many pictures every id is the one that comes one at a time."""
    show.table([{"tokens chosen": choice, **{way: f"{row['same']} of {row['n']}" for way, row in ways.items()}}
                for choice, ways in found["same"].items()], "The same picture, id by id: test captions, the same seeds.")


def costs(found: Mapping, choice: str, caption: str = "") -> None:
    """Passes, operations and seconds of a picture, by the number of pictures painted together."""
    sizes = list(found["cost"][choice])
    fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.9))
    for way in WAYS:
        rows = [found["cost"][choice][size][way] for size in sizes]
        for axis, key, scale in zip(axes, ("passes", "flops", "cpu"), (1, 1e-9, 1e3)):
            axis.plot(range(len(sizes)), [scale * row[key] for row in rows], LINES[way], label=way)
    for axis, label in zip(axes, ("passes of a batch", "billion operations a picture", "CPU ms a picture")):
        axis.set(xticks=range(len(sizes)), xlabel="pictures painted", ylabel=label, ylim=(0, None))
        axis.set_xticklabels(sizes)
    axes[0].legend(fontsize=9)
    show.figure(fig, caption)


def quicker(found: Mapping, choice: str, size: str, way: str) -> float:
    """How many times as quick as one at a time."""
    row = found["cost"][choice][size]
    return row["one at a time"]["cpu"] / row[way]["cpu"]


def speeds(found: Mapping) -> None:
    """How many times as quick each way is, in each case."""
    lines = [{"tokens chosen": choice, "way": way, **{f"{size} pictures": f"{quicker(found, choice, size, way):.2f}"
                                                      for size in found["cost"][choice]}}
             for choice in found["cost"] for way in WAYS[1:]]
    show.table(lines, "CPU seconds one token at a time, divided by those of each way, on the same captions. Above 1: sooner.")


def parallel_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of many tokens in one pass against what came."""
    likely = found["cost"]["the likeliest"]
    hits = {who: [int(hit) for hit in found["alone"][who]] for who in ("model", "drafter")}
    share = {way: likely["1"][way]["passes"] / likely["1"]["one at a time"]["passes"] for way in ROW_BY_ROW}
    gain = min(quicker(found, choice, "1", "drafted") for choice in found["cost"])
    crowd = max(quicker(found, choice, "16", way) for choice in found["cost"] for way in WAYS[3:])
    after = quicker(found, "the likeliest", "16", "drafted")
    low, high = (100 * x for x in paired_bootstrap(hits["model"], hits["drafter"], np.random.default_rng(12)))
    equal, asked = (sum(row[key] for ways in found["same"].values() for row in ways.values()) for key in ("same", "n"))
    sound = found["others"]["word"]["passes"] / found["others"]["word"]["tokens"]
    judged = partial(verdict, width=9)
    return {"P1, the same ids in every picture": judged(equal == asked, f"{equal:,} of {asked:,}: with 95 % confidence more than "
                                                        f"{100 * wilson(equal, asked)[0]:.2f} %"),
            "P2, passes: Jacobi at most a third, drafted at most a tenth":
            judged(share["Jacobi"] <= 1 / 3 and share["drafted"] <= 0.1, f"{share['Jacobi']:.2f} and {share['drafted']:.3f}"),
            "P3, drafted, one picture: at most a third of the seconds": judged(gain >= 3, f"{gain:.2f} times as quick at least"),
            "P4, sixteen: not together, but one after another":
            judged(crowd <= 1 < after, f"together {crowd:.2f} times as quick at most; likeliest one after another {after:.2f}"),
            "P5, the drafter alone: over three points fewer scenes right":
            f"{decide(low, high, above=3.0).lower():9} {-high:+.1f} to {-low:+.1f} points",
            "P6, spoken words: more than half of the passes": judged(sound > 0.5, f"{sound:.2f}")}


def chi_squares(found: Mapping) -> None:
    """How far the tokens that each rule drew are from the model's distribution."""
    row = found["chi-square"]
    rules = {"test": "what is left over", "wrong test": "p (wrong)", "race": "(a race: no draft)"}
    show.table([{"a refused token is drawn again from": name, "chi-square": f"{row[rule]['chi2']:,.0f}",
                 "degrees of freedom": row[rule]["df"], "standard deviations off": f"{row[rule]['deviations']:+.1f}"}
                for rule, name in rules.items()],
               f"{row['draws']:,} tokens at each of {row['contexts']} places of pictures; both tests with the drafter's guesses.")


def chi_verdict(found: Mapping) -> str:
    """What was expected of them."""
    off = {rule: found["chi-square"][rule]["deviations"] for rule in ("test", "wrong test", "race")}
    return verdict(max(abs(off["test"]), abs(off["race"])) < 3 and off["wrong test"] > 10,
                   f"{off['test']:+.1f} and {off['race']:+.1f}; the wrong rule {off['wrong test']:+.0f}", 6)


def others(found: Mapping) -> None:
    """Jacobi iteration for other answers."""
    show.table([{"answer": name, "tokens": f"{row['tokens']:.1f}", "passes": f"{row['passes']:.1f}",
                 "passes a token": f"{row['passes'] / row['tokens']:.2f}", "the same": f"{row['same']} of {row['n']}"}
                for name, row in found["others"].items()],
               "The likeliest token each time, a window of 16, no draft.")


def calculator(found: Mapping):
    """Sliders from tokens to seconds, at the measured price of a pass and of a token (`price`)."""
    base, slope = price(found)

    def draw(tokens: int, right: float) -> None:
        passes = expected_passes(tokens, right)
        one, many = tokens * (base + slope), passes * (base + tokens / 2 * slope)
        show.caption(f"{tokens} tokens, each guess right in {right:.0%}: one at a time {1e3 * one:.0f} ms; in {passes:.1f} "
                     f"passes {1e3 * many:.0f} ms, {one / many:.1f} times as quick (all places in the window; the drafter's own "
                     "time not counted).")
    from ipywidgets import FloatSlider, IntSlider
    return show.interact(draw, tokens=IntSlider(value=64, min=16, max=1024, step=16, description="tokens"),
                         right=FloatSlider(value=0.95, min=0.0, max=0.99, step=0.01, description="guesses right",
                                           readout_format=".2f"))


def expected_passes(tokens: int, right: float) -> float:
    """Passes until all are settled, if each guess is right by itself with this chance: a pass settles the right ones in a row and
    one more."""
    left, passes = float(tokens), 0.0
    while left > 1e-9:
        each = sum(right**k for k in range(int(np.ceil(left))))
        passes += min(1.0, left / each)
        left -= each
    return passes


def price(found: Mapping) -> tuple[float, float]:
    """CPU seconds of a pass, and more for each token in it: two equations from two measured ways, greedy, one picture."""
    row = found["cost"]["the likeliest"]["1"]
    one, blind = row["one at a time"], row["Jacobi"]
    matrix = np.array([[one["passes"], one["tokens"]], [blind["passes"], blind["tokens"]]])
    base, slope = np.linalg.solve(matrix, [one["cpu"], blind["cpu"]])
    return float(base), float(slope)
