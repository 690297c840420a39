"""Figures, tables and verdicts of chapter 12's last part: what a token counts in the loss, exits, routed blocks, byte patches.

What was measured is `results("ch12_weights")`, `ch12_depth`, `ch12_routed` and `ch12_patches`, handed in as `found`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.judges.metrics import decide
from mmcourse.show.shelves import SEEDS, interval

MODALITIES = ("text", "image", "audio")
WORDS = {"text": "text", "image": "pictures", "audio": "sound"}
WEIGHTS = {"token": "each token alike", "text x 4": "text four times", "segment": "each answer alike", "learned": "learned"}
ROUTES = {name: name for name in ("dense 3", "thrown", "by place", "learned", "dense 4")}
CUTS = ("thrown", "stride", "pieces", "surprise", "bytes", "vocabulary")
ANSWERS = ("picture", "caption", "word")
WAYS = {"gate": ("gate", "o-"), "confidence": ("own confidence", "s--"), "place": ("by place", "x:")}


def in_words(low: float, high: float, unit: str, digits: int = 1, **bounds) -> str:
    """A verdict, and the interval."""
    return f"{decide(low, high, **bounds).lower():9} {low:+.{digits}f} to {high:+.{digits}f} {unit}"


def relative(found: Mapping, one: str, other: str, modality: str) -> tuple[float, float]:
    """How many per cent more bits one arm needs than another, over the seeds, from where to where."""
    rows = [found["rows"][arm] for arm in (one, other)]
    return interval([100 * (rows[0][seed]["bits"][modality] / rows[1][seed]["bits"][modality] - 1) for seed in SEEDS])


def examined(found: Mapping, arms: Mapping[str, str], first: str, more: Callable | None = None) -> None:
    """Bits of a true answer and right answers of small models, for each arm, by its name in words; `more`: further columns from
    an arm's rows."""
    lines = []
    for arm, name in arms.items():
        rows = list(found["rows"][arm].values())
        bits = {m: [row["bits"][m] for row in rows] for m in MODALITIES}
        lines.append({first: name, **(more(rows) if more else {}),
                      **{f"bits an answer, {WORDS[m]}": f"{np.mean(each):.1f} ({min(each):.1f} to {max(each):.1f})"
                         for m, each in bits.items()},
                      **{f"right: {task}": f"{np.mean([row['right'][task] / row['asked'] for row in rows]):.0%}"
                         for task in rows[0]["right"]}})
    show.table(lines, "Test questions, means of three seeds (and from the lowest to the highest).")


# ---------------------------------------------------------------- what a token counts

def weights(found: Mapping) -> None:
    """Bits and right answers for each way to weigh the loss, and how it shares the weight."""
    examined(found, WEIGHTS, "what counts", lambda rows: {"weight of text / picture / sound": " / ".join(
        f"{np.mean([row['weights'][m] for row in rows]):.0%}" for m in MODALITIES)})


def weights_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of the weights."""
    text, image, audio = (relative(found, "segment", "token", m) for m in MODALITIES)
    unit = "% of the bits"
    out = {"W1, each answer alike: fewer bits of text": in_words(*text, unit, below=0.0),
           "W2, and more of pictures": in_words(*image, unit, above=0.0),
           "W2, and of sound": in_words(*audio, unit, above=0.0)}
    for m in MODALITIES:
        means = {arm: np.mean([row["bits"][m] for row in found["rows"][arm].values()]) for arm in ("token", "segment")}
        best = min(means, key=means.get)
        out[f"W3, learned: not better than {WEIGHTS[best]} in {WORDS[m]}"] = in_words(*relative(found, "learned", best, m), unit,
                                                                                       above=0.0)
    return out


# ---------------------------------------------------------------- exits

def depths(pictures: torch.Tensor, blocks: Sequence, bits: Sequence, titles: Sequence[str], caption: str = "") -> None:
    """Pictures (n, 3, H, W), and below how many blocks each of their 8x8 tokens went through, and its bits, (n, 64) both."""
    fig, axes = plt.subplots(3, len(pictures), figsize=(1.7 * len(pictures) + 0.6, 5.2), squeeze=False)
    rows = {1: (blocks, 1, 6, "cividis", "blocks"), 2: (bits, 0, max(1.0, max(np.max(each) for each in bits)), "viridis", "bits")}
    for i, picture in enumerate(pictures):
        axes[0, i].imshow(show.pixels(picture), interpolation="nearest")
        axes[0, i].set_title(titles[i], fontsize=8.5)
    for row, (values, low, high, colours, label) in rows.items():
        for axis, each in zip(axes[row], (np.asarray(one, float) for one in values)):
            drawn = axis.imshow(each[:64].reshape(8, 8), vmin=low, vmax=high, cmap=colours)     # (64,) -> (8, 8)
            axis.set_title(f"{np.mean(each):.1f} blocks" if label == "blocks" else f"{np.sum(each):.1f} bits", fontsize=8.5)
        fig.colorbar(drawn, ax=axes[row], label=label, shrink=0.8)
    for axis in axes.flat:
        axis.axis("off")
    show.figure(fig, caption)


def agreement(found: Mapping) -> None:
    """How often a token's choice is the last block's, against the blocks it goes through, for each kind of answer and way."""
    fig, axes = plt.subplots(1, len(ANSWERS), figsize=(10.5, 3.1))
    for axis, answer in zip(axes, ANSWERS):
        rows = list(found["traced"][answer].values())
        for way, (label, style) in WAYS.items():
            curve = np.mean([row[way]["curve"] for row in rows], 0)                              # (settings, 2)
            axis.plot(curve[:, 0], 100 * curve[:, 1], style, label=label, markersize=3)
        each = 100 * np.mean([row["each"] for row in rows], 0)
        axis.plot(range(1, len(each) + 1), each, "k.-", alpha=0.5, label="all alike", markersize=6)
        axis.axvline(np.mean([row["ceiling"] for row in rows]), color="0.6", linestyle=":")
        axis.set(xlabel="blocks a token", title=f"tokens of a {answer}", xlim=(0.9, 6.1), xticks=range(1, 7),
                 ylim=(0 if min(each) < 60 else 85, 101))
    axes[0].set_ylabel("% the last block's choice")
    axes[0].legend(fontsize=8, loc="lower right")
    show.figure(fig, "Along true test answers, means of three seeds of the exits. Dotted: the fewest blocks at full "
                     "agreement, if an oracle said when to leave.")


def traced(found: Mapping, agree: str = "0.99") -> None:
    """Blocks and operations at the threshold that was chosen on validation."""
    show.table([{"tokens of a": answer, "blocks, an oracle": f"{mean(found, answer, 'ceiling'):.2f}",
                 **{f"blocks, {label}": f"{mean(found, answer, way, agree, 'blocks'):.2f}" for way, (label, _) in WAYS.items()},
                 **{f"{what}, {WAYS[way][0]}": f"{mean(found, answer, way, agree, key):{form}}"
                    for what, key, form in (("operations", "operations", ".0%"), ("agreement on test", "same", ".1%"))
                    for way in ("gate", "confidence")}} for answer in ANSWERS],
               f"The cheapest threshold with {float(agree):.0%} agreement on validation; operations relative to six blocks and "
               "the head.")


def each_seed(found: Mapping, answer: str, *keys: str) -> list[float]:
    """A number of `traced`, for each seed."""
    out = []
    for row in found["traced"][answer].values():
        for key in keys:
            row = row[key]
        out.append(float(row))
    return out


def mean(found: Mapping, answer: str, *keys: str) -> float:
    """The same, the mean of the seeds."""
    return float(np.mean(each_seed(found, answer, *keys)))


def right(found: Mapping, answer: str, key: str) -> float:
    """The share of answers that are right, mean of the seeds."""
    return float(np.mean([np.mean([int(hit) for hit in row[key]]) for row in found["answered"][answer].values()]))


def answered(found: Mapping) -> None:
    """Answers whose tokens really leave early: how many are right, and after how many blocks."""
    agree = [str(each) for each in found["plan"]["agree"]]
    blocks = {(answer, a): np.mean([row[f"{a} blocks"] for row in found["answered"][answer].values()])
              for answer in ANSWERS for a in agree}
    show.table([{"answers": f"{answer}s", "right, all six blocks": f"{right(found, answer, 'full'):.1%}",
                 **{f"leaving at {float(a):.0%}": f"{right(found, answer, a):.1%}" for a in agree},
                 **{f"blocks at {float(a):.0%}": f"{blocks[answer, a]:.2f}" for a in agree}} for answer in ANSWERS],
               "The likeliest token each time; what is right is what the report judges read. Means of three seeds.")


def lost(found: Mapping, answer: str, agree: str) -> tuple[float, float]:
    """How many points fewer answers are right if tokens leave early, over the seeds, from where to where."""
    return interval([100 * (np.mean([int(a) for a in row["full"]]) - np.mean([int(a) for a in row[agree]]))
                     for row in found["answered"][answer].values()])


def drafts(found: Mapping) -> None:
    """Drafts from the first blocks: passes, and operations and CPU seconds relative to one token at a time."""
    ways = [way for way in next(iter(found["drafted"]["picture"].values())) if "window" in way]

    def number(answer: str, way: str, key: str) -> float:
        return float(np.mean([row[way][key] for row in found["drafted"][answer].values()]))
    lines = [{"draft of": in_blocks(way), **{f"passes, {answer}": f"{number(answer, way, 'passes'):.1f}" for answer in ANSWERS},
              **{f"operations, {answer}": f"{number(answer, way, 'operations'):.1f}" for answer in ANSWERS},
              **{f"CPU, {answer}": f"{number(answer, way, 'cpu'):.2f}" for answer in ANSWERS}} for way in ways]
    lines.append({**dict.fromkeys(lines[0], "-"), "draft of": "the drafter of section 4",
                  "CPU, picture": f"{number('picture', 'the drafter', 'cpu'):.2f}"})
    tokens = {answer: next(iter(found["drafted"][answer].values()))["tokens"] for answer in ANSWERS}
    show.table(lines, "Passes of the whole model; operations and CPU seconds relative to one token at a time (" + ", ".join(
        f"{answer}: {n:.0f} tokens" for answer, n in tokens.items()) + ").")


def in_blocks(way: str) -> str:
    """The name of a draft, in words."""
    return way.replace("1 blocks", "1 block")


def quickest(found: Mapping, answer: str) -> tuple[str, list[float]]:
    """The draft that takes the least CPU time on average, and its time relative to one at a time, for each seed."""
    rows = list(found["drafted"][answer].values())
    ways = {way: [row[way]["cpu"] for row in rows] for way in rows[0] if "window" in way}
    best = min(ways, key=lambda way: np.mean(ways[way]))
    return best, ways[best]


def depth_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of exits against what came."""
    strict, loose = (str(each) for each in found["plan"]["agree"])
    blocks = {answer: interval(each_seed(found, answer, "gate", strict, "blocks")) for answer in ANSWERS}
    ahead = interval([a - b for a, b in zip(each_seed(found, "picture", "place", strict, "blocks"),
                                            each_seed(found, "picture", "gate", strict, "blocks"))])
    out = {"D1, a picture's token: at most 3 blocks": in_words(*blocks["picture"], "blocks", 2, below=3.0),
           "D1, a sound's token: more than 5": in_words(*blocks["word"], "blocks", 2, above=5.0),
           "D2, pictures: half a block less than by place": in_words(*ahead, "blocks", 2, above=0.5)}
    for answer in ("picture", "caption"):
        gate, own = (each_seed(found, answer, way, strict, "operations") for way in ("gate", "confidence"))
        out[f"D3, a {answer}: the gate saves a quarter of the operations"] = in_words(
            *interval([100 * (1 - share) for share in gate]), "%", above=25.0)
        out[f"D3, a {answer}: own confidence saves less"] = in_words(
            *interval([100 * (b - a) for a, b in zip(gate, own)]), "points", above=0.0)
    out["D4, scenes right: within 3 points"] = in_words(*lost(found, "picture", strict), "points lost", above=-3.0, below=3.0)
    out["D4, at 95 %: more than 3 points lost"] = in_words(*lost(found, "picture", loose), "points lost", above=3.0)
    rows = [row for answer in ANSWERS for row in found["drafted"][answer].values()]
    equal, asked = (sum(each) for each in zip(*((row[way]["same"], row["n"]) for row in rows for way in row if "window" in way)))
    out["D5, drafts: every id the same"] = f"{'holds' if equal == asked else 'fails':9} {equal:,} of {asked:,} answers"
    for answer in ANSWERS:
        best, times = quickest(found, answer)
        out[f"D5, a {answer} comes sooner"] = in_words(*interval(times), f"of the time ({in_blocks(best)})", 2, below=1.0)
    later = interval([row[quickest(found, "picture")[0]]["cpu"] - row["the drafter"]["cpu"]
                      for row in found["drafted"]["picture"].values()])
    out["D6, a picture: later than with the drafter"] = in_words(*later, "of the time", 2, above=0.0)
    return out


# ---------------------------------------------------------------- routed blocks

def routed(found: Mapping) -> None:
    """Bits and right answers of nets of which some blocks work on half of the tokens; and what a learned router does."""
    examined(found, ROUTES, "blocks")
    rows = list(found["rows"]["learned"].values())

    def watched(key: str, modality: str, block: str) -> float:
        if key == "most alike":
            return float(np.mean([max(row["taken"][modality][block], 1 - row["taken"][modality][block]) for row in rows]))
        return float(np.mean([row[key][modality][block] for row in rows]))
    show.table([{"learned router, tokens of": f"{WORDS[m]}, block {int(i) + 1}", "taken": f"{watched('taken', m, i):.0%}",
                 "treated as most are": f"{watched('most alike', m, i):.0%}",
                 "as most of their place are": f"{watched('as its place', m, i):.0%}",
                 "score and bits": f"{watched('score and bits', m, i):+.2f}"}
                for m in ("image", "audio") for i in rows[0]["taken"]["image"]],
               "Tokens of true answers; the last column is the rank correlation of a token's score with the bits of the token to "
               "come.")


def routed_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of routers."""
    out = {}
    for claim, other in (("R1, learned: fewer bits than thrown", "thrown"), ("R3, fewer than dense 3", "dense 3")):
        for m in MODALITIES:
            out[f"{claim}, {WORDS[m]}"] = in_words(*relative(found, "learned", other, m), "% of the bits", below=0.0)
    against = {m: relative(found, "learned", "by place", m) for m in MODALITIES}
    ahead, not_ahead = (sum(test(*each) for each in against.values()) for test in (lambda low, high: high < 0,
                                                                                   lambda low, high: low >= 0))
    out["R2, fewer than by place: in one modality at most"] = (
        f"{'fails' if ahead > 1 else 'holds' if not_ahead > 1 else 'undecided':9} " + ", ".join(
            f"{WORDS[m]} {low:+.1f} to {high:+.1f} %" for m, (low, high) in against.items()))
    for m in MODALITIES:
        out[f"R4, behind dense 4 by a tenth at most, {WORDS[m]}"] = in_words(*relative(found, "learned", "dense 4", m),
                                                                            "% of the bits", below=10.0)
    every = [value for row in found["rows"]["learned"].values() for each in row["score and bits"].values()
             for value in each.values()]
    out["R5, score and bits: correlation below .3 everywhere"] = (f"{'holds' if max(every) < 0.3 else 'fails':9} "
                                                                  f"{min(every):+.2f} to {max(every):+.2f}")
    return out


# ---------------------------------------------------------------- byte patches

def cut_text(text: str, unsure: Sequence[float], threshold: float, ends: Mapping[str, Sequence[bool]], caption: str = "") -> None:
    """A line of text: how unsure a small model of bytes is of each letter, and where patches end, {way: (letters,)}."""
    n = len(text)
    fig, axis = plt.subplots(figsize=(10.5, 1.7 + 0.32 * len(ends)))
    axis.bar(range(n), [0.0, *unsure[:n - 1]], color="0.7")
    axis.axhline(threshold, color="#D55E00", linewidth=1)
    most = max(unsure)
    for row, (way, each) in enumerate(ends.items()):
        y = -(row + 1) * most / 4
        for i, letter in enumerate(text):
            axis.text(i, y, letter, ha="center", va="center", family="monospace", fontsize=10)
            if each[i]:
                axis.plot([i + 0.5] * 2, [y - most / 10, y + most / 10], color="#0072B2", linewidth=1.5)
        axis.text(-1.2, y, way, ha="right", va="center", fontsize=9)
    axis.set(xlim=(-1, n), ylim=(-(len(ends) + 0.7) * most / 4, most * 1.05), xticks=[], yticks=[0, round(most)], ylabel="bits")
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    show.figure(fig, caption)


def patches(found: Mapping) -> None:
    """Bits a byte for each way to cut."""
    lines = []
    for way in CUTS:
        rows = list(found["rows"][way].values())
        bits = [row["bits"] for row in rows]
        lines.append({"patches end": way, "bytes a patch": f"{np.mean([row['length'] for row in rows]):.2f}",
                      "million operations a byte": f"{np.mean([row['flops'] for row in rows]) / 1e6:.2f}",
                      "bits a byte": f"{np.mean(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})",
                      "the bytes alone": f"{np.mean([row['bytes alone'] for row in rows]):.3f}"})
    alone = np.mean([row["byte model"] for row in found["rows"]["surprise"].values()])
    lines.append({**dict.fromkeys(lines[0], "-"), "patches end": "(the small model of bytes)", "bits a byte": f"{alone:.3f}"})
    show.table(lines, "Test rows, means of three seeds (and from the lowest to the highest).")


def less(found: Mapping, one: str, other: str, keys: tuple[str, str] = ("bits", "bits")) -> tuple[float, float]:
    """By how many bits a byte one way is below another, over the seeds, from where to where."""
    return interval([found["rows"][other][seed][keys[1]] - found["rows"][one][seed][keys[0]] for seed in SEEDS])


def patches_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of patches."""
    unit = "bits a byte"
    nearest = min(less(found, "bytes", way) for way in CUTS[:4])
    words = min(less(found, "vocabulary", way) for way in CUTS[:5])
    return {"E1, surprise: fewer bits than thrown": in_words(*less(found, "surprise", "thrown"), unit, 3, above=0.0),
            "E2, fewer than stride": in_words(*less(found, "surprise", "stride"), unit, 3, above=0.0),
            "E3, behind pieces by at most .02": in_words(*less(found, "surprise", "pieces"), unit, 3, above=-0.02),
            "E4, bytes: fewer than all of them": in_words(*nearest, unit, 3, above=0.0),
            "E5, pieces look better than they are by over .05":
            in_words(*less(found, "pieces", "pieces", ("bytes alone", "bits")), unit, 3, above=0.05),
            "E6, a plain transformer over pieces: fewer than all": in_words(*words, unit, 3, above=0.0)}
