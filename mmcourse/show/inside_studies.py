"""Figures, tables and verdicts of chapter 13's studies: what features of a sparse autoencoder say and do, and where the second
hop of chapter 09 dies.

What was measured is `results("ch13_sae")` and `results("ch13_hop")`, handed in as `found`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.show.depth import in_words
from mmcourse.show.shelves import SEEDS, interval

BASES = {"feature": "features", "neuron": "neurons", "principal": "principal axes", "coordinate": "coordinates",
         "random": "random directions", "told": "told the labels"}
CONTEXTS = {"picture": "in a picture", "said": "about to be said", "caption": "in a caption"}
NETS = {"trained": ("trained", "o"), "untrained": ("never trained", "x")}
FAMILIES = ("noun", "ground", "place", "count", "letter")


# ---------------------------------------------------------------- features

def precision(found: Mapping, kind: str, context: str, basis: str, family: str) -> list[float]:
    """The average precision of the best single number of a basis, for each seed."""
    return [found["nets"][kind][seed][context][basis][family] for seed in SEEDS]


def predicting(found: Mapping, family: str = "noun", contexts: Sequence[str] = ("picture", "said")) -> None:
    """How well one number says a factor, for each basis, in the trained net and in one that never learned."""
    fig, axes = plt.subplots(1, len(contexts), figsize=(4.6 * len(contexts), 3.2), sharey=True, squeeze=False)
    for axis, context in zip(axes[0], contexts):
        for shift, (kind, (label, mark)) in zip((-0.12, 0.12), NETS.items()):
            rows = [precision(found, kind, context, basis, family) for basis in BASES]
            axis.plot(np.arange(len(BASES)) + shift, np.mean(rows, 1), mark, label=label, markersize=8)
            for i, each in enumerate(rows):
                axis.plot([i + shift] * 2, [min(each), max(each)], "-", color="0.5", linewidth=1, zorder=0)
        axis.axhline(np.mean(precision(found, "trained", context, "base", family)), color="0.6", linestyle=":")
        axis.set(title=f"{family}s {CONTEXTS[context]}", xticks=range(len(BASES)), ylim=(0, 1.03))
        axis.set_xticklabels(BASES.values(), rotation=30, ha="right", fontsize=8.5)
    axes[0, 0].set_ylabel("average precision")
    axes[0, 0].legend(fontsize=8.5, loc="lower left")
    show.figure(fig, f"The one number that ranks scenes best by a {family}, chosen on training scenes, marked on held-out "
                     "combinations; means of three seeds, and from the lowest to the highest. Dotted: what knows nothing.")


def features(found: Mapping) -> None:
    """Features against neurons for every factor, in both nets; and how well each autoencoder gives its states back."""
    lines, columns = [], [(kind, basis) for kind in NETS for basis in ("feature", "neuron")]
    for context in CONTEXTS:
        for family in FAMILIES:
            lines.append({"": f"{family} {CONTEXTS[context]}",
                          "knows nothing": f"{np.mean(precision(found, 'trained', context, 'base', family)):.2f}",
                          **{f"{basis}, {NETS[kind][0]}": f"{np.mean(precision(found, kind, context, basis, family)):.2f}"
                             for kind, basis in columns}})
    shares = ", ".join(f"{label} {np.mean(explained(found, kind)):.1%}" for kind, (label, _) in NETS.items())
    show.table(lines, f"Average precision of the best single one, means of three seeds. Variance explained: {shares}.")


def explained(found: Mapping, kind: str) -> list[float]:
    """The share of the variance of fresh states that each seed's autoencoder gives back."""
    return [found["nets"][kind][seed]["explained"] for seed in SEEDS]


def changed(found: Mapping, edit: str, way: str, key: str, section: str = "edits") -> list[float]:
    """A share of captions, for each seed, in per cent."""
    return [100 * found[section][seed][edit][way][key] for seed in SEEDS]


def edits(found: Mapping) -> None:
    """What changes in captions if one feature is taken out or given to another value."""
    names = {"ablated": "taken out", "another": "another one out", "random": "random direction", "swapped x 1": "swapped",
             "swapped x 2": "swapped, twice as strong"}
    lines = []
    for edit in (name for name in found["edits"][SEEDS[0]] if "," in name):
        family, context = edit.split(", ")
        for way, name in names.items():
            wanted = f"{np.mean(changed(found, edit, way, 'wanted')):.0f} %" if "swapped" in way else "-"
            lines.append({"best feature of the": f"{family} {CONTEXTS[context]}", "": name,
                          "its own word changes": f"{np.mean(changed(found, edit, way, 'target')):.0f} %",
                          "anything else does": f"{np.mean(changed(found, edit, way, 'others')):.0f} %",
                          "says what was wanted": wanted})
    show.table(lines, "Captions of test pictures, the likeliest tokens, means of three seeds of the autoencoder.")


def steering(found: Mapping, gain: int = 1) -> None:
    """How many captions say what was wanted, against how many features a difference of means was made of."""
    ways = [way.removesuffix(f" x {gain}") for way in found["steering"][SEEDS[0]]["noun, said"] if way.endswith(f" x {gain}")]
    fig, axis = plt.subplots(figsize=(6.4, 3.2))
    for edit, style, colour in (("ground, picture", "o-", show.COLOURS[0]), ("noun, said", "s--", show.COLOURS[1])):
        for key, alpha in (("wanted", 1.0), ("others", 0.35)):
            rows = [np.mean(changed(found, edit, f"{way} x {gain}", key, "steering")) for way in ways]
            axis.plot(range(len(ways)), rows, style, color=colour, alpha=alpha,
                      label=f"{edit.split(', ')[0]}: {'says the wanted one' if key == 'wanted' else 'something else changed'}")
    axis.set(xticks=range(len(ways)), ylabel="% of captions", ylim=(-3, 103))
    names = [way.replace("1 features", "1 feature").replace("states", "the states\nthemselves") for way in ways]
    axis.set_xticklabels(names, fontsize=8.5)
    axis.legend(fontsize=8)
    show.figure(fig, "The difference of the means of two values is added to the states, made of the features that differ "
                     "most, of all, or of the states themselves. Test pictures, means of three seeds.")


def ahead(found: Mapping, one: tuple, other: tuple) -> tuple[float, float]:
    """How much more average precision one (kind, context, basis, family) has than another, from where to where, in points."""
    return interval([100 * (a - b) for a, b in zip(precision(found, *one), precision(found, *other))])


def sae_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of features against what came."""
    points, percent = "points", "%"

    def mean(*where: str) -> tuple[float, float]:
        return interval([100 * value for value in precision(found, *where)])
    picture, said = ("trained", "picture", "feature", "noun"), ("trained", "said", "feature", "noun")
    others = {basis: ahead(found, ("trained", "picture", "neuron", "noun"), ("trained", "picture", basis, "noun"))
              for basis in ("coordinate", "principal", "random")}
    out = {"S1, precision of the best feature for a noun in a picture (at least 90 %)": in_words(
        *mean(*picture), percent, above=90.0),
           "S1, above the best neuron's (above 0)": in_words(
               *ahead(found, picture, (*picture[:2], "neuron", "noun")), points, above=0.0),
           "S1, about to be said: above the best neuron's (at least 10)": in_words(
               *ahead(found, said, ("trained", "said", "neuron", "noun")), points, above=10.0)}
    out |= {f"S2, the best neuron above the best of the {BASES[basis]} (above 0)": in_words(
        *each, points, above=0.0) for basis, each in others.items()}
    more = interval([100 * (b - a) for a, b in zip(explained(found, "trained"), explained(found, "untrained"))])
    out |= {"S3, variance explained, the twin's above the model's (above 0)": in_words(*more, points, above=0.0),
            "S3, the twin's precision for nouns in pictures (at least 60 %)": in_words(
                *mean("untrained", *picture[1:]), percent, above=60.0),
            "S3, the twin's precision for grounds (at least 90 %)": in_words(
                *mean("untrained", "picture", "feature", "ground"), percent, above=90.0),
            "S4, about to be said: above the twin's (at least 50)": in_words(
                *ahead(found, said, ("untrained", *said[1:])), points,
                                                                      above=50.0)}
    for context in ("picture", "caption"):
        out[f"S5, letters {CONTEXTS[context]}: the twin's above the model's (above 0)"] = in_words(
            *ahead(found, *((kind, context, "feature", "letter") for kind in ("untrained", "trained"))), points, above=0.0)

    def share(name: str, edit: str, way: str, key: str, section: str = "edits", **bounds: float) -> None:
        out[name] = in_words(*interval(changed(found, edit, way, key, section)), percent, **bounds)
    ground = "ground, picture"
    share("S6, ground feature taken out: grounds that change (below 25 %)", ground, "ablated", "target", below=25.0)
    share("S7, ground features swapped: captions that say the new ground (at least 50 %)",
          ground, "swapped x 1", "wanted", above=50.0)
    share("S7, and anything else changes (at most 5 %)", ground, "swapped x 1", "others", below=5.0)
    share("S7, another feature taken out: grounds that change (at most 5 %)", ground, "another", "target", below=5.0)
    share("S7, a random direction: grounds that change (at most 5 %)", ground, "random", "target", below=5.0)
    for edit in ("noun, picture", "noun, said"):
        for way, name in (("ablated", "taken out"), ("swapped x 1", "swapped")):
            share(f"S8, feature of a noun {CONTEXTS[edit.split(', ')[1]]} {name}: nouns that change (at most 5 %)",
                  edit, way, "target", below=5.0)
    share("S9, difference of means: captions that say the new noun (at least a third)",
          "noun, said", "states x 1", "wanted", "steering", above=33.3)
    less = interval([a - b for a, b in zip(changed(found, "noun, said", "states x 1", "wanted", "steering"),
                                           changed(found, "noun, said", "all features x 1", "wanted", "steering"))])
    out["S9, the means above all features (above 0)"] = in_words(*less, points, above=0.0)
    share("S9, one feature: captions that say the new noun (at most 5 %)",
          "noun, said", "1 features x 1", "wanted", "steering", below=5.0)
    return out


# ---------------------------------------------------------------- the second hop

SPOTS = {"question, name": "the name", "question, next": "after it", "question, opens": "answer opens",
         "question, says": "“a ...”",
         "caption, name": "the name", "caption, next": "after it", "caption, opens": "picture opens"}
GROUPS = {"D": "D: drawn and told", "T": "T: told only", "N": "N: never"}


def read(found: Mapping, what: str, spot: str, group: str) -> list[list[float]]:
    """What lens or probe finds at a spot, seed by seed and layer by layer, in per cent."""
    return [[100 * value for value in found["read"][seed][what][spot][group]] for seed in SEEDS]


def hops(found: Mapping, what: str = "probe") -> None:
    """In how many states the noun of a name is found, by layer and spot, for three groups of names: a map for each."""
    layers = len(found["read"][SEEDS[0]][what]["question, name"]["D"])
    fig, axes = plt.subplots(1, len(GROUPS), figsize=(10.5, 3.3), sharey=True)
    for axis, (group, title) in zip(axes, GROUPS.items()):
        grid = np.array([np.mean(read(found, what, spot, group), 0) for spot in SPOTS]).T        # (layers, spots)
        drawn = axis.imshow(grid, origin="lower", aspect="auto", vmin=0, vmax=100, cmap="cividis")
        for layer, i in np.ndindex(*grid.shape):
            axis.text(i, layer, f"{grid[layer, i]:.0f}", ha="center", va="center", fontsize=8,
                      color="black" if grid[layer, i] > 55 else "white")
        axis.axvline(3.5, color="white", linewidth=3)
        axis.grid(False)
        axis.set(title=title, xticks=range(len(SPOTS)), yticks=range(layers))
        axis.set_xticklabels(SPOTS.values(), rotation=45, ha="right", fontsize=8)
    axes[0].set(ylabel="blocks before it")
    fig.colorbar(drawn, ax=axes, label="% nouns found")
    show.figure(fig, "Left of the line in a question, right of it in a caption that is to be drawn. Means of three seeds; chance "
                     f"is {100 / 12:.0f} %.")


def replaced(found: Mapping) -> None:
    """Right pictures if the noun's states stand in place of the name's, or of all that follows it, after each part."""
    parts = ["before block 1", "after block 1", "after block 2", "after block 3"]
    lines = []
    for group in ("T", "D"):
        rows = [found["patched"][seed][group] for seed in SEEDS]
        for where, name in (("name", "at the name"), ("after", "in all places after it")):
            lines.append({"names of": group, "the noun's states": name,
                          "no patch": f"{np.mean([row['own'] for row in rows]):.0%}",
                          **{part: f"{np.mean([row[where][i] for row in rows]):.0%}" for i, part in enumerate(parts)}})
    show.table(lines, "Pictures with the right noun, means of three seeds. Before block 1 states are bare embeddings, which "
                      "carry the positions of the noun's shorter sentence: that column says little. Of a name of several tokens "
                      "the last is replaced.")


def cut_off(found: Mapping) -> None:
    """Right pictures if some tokens may not look at the name."""
    names = {"pictures": "the picture's tokens", "after": "those between name and picture", "after and pictures": "both",
             "pictures, the noun after": "the picture's, and those between have the noun's states"}
    whole = {group: f"{np.mean([100 * found['patched'][seed][group]['own'] for seed in SEEDS]):.0f} %" for group in ("T", "D")}
    show.table([{"may not look at the name": "(all may)", **{f"names of {group}": whole[group] for group in whole}},
                *({"may not look at the name": name, **{f"names of {group}": f"{np.mean(cut_shares(found, group, way)):.0f} %"
                                                        for group in whole}} for way, name in names.items())],
               "Pictures with the right noun, means of three seeds.")


def cut_shares(found: Mapping, group: str, way: str) -> list[float]:
    """Right pictures if some may not look, for each seed, in per cent."""
    return [100 * found["cut"][seed][group][way] for seed in SEEDS]


def back_patched(found: Mapping) -> None:
    """The best back-patch of each seed, and its controls."""
    rows = [(seed, found["back"][seed]["best"]) for seed in SEEDS]
    def state(context: str, spot: str, layer: int) -> str:
        return f"{SPOTS[f'{context}, {spot}']}, after {layer} block{'s' * (layer > 1)}"

    def place(spot: str, part: str) -> str:
        return f"{SPOTS[f'caption, {spot}']}, {'before block 1' if part == 'embed' else f'after block {int(part[-1]) + 1}'}"
    show.table([{"seed": seed, "the state of": state(*row["source"]), "put in place of": place(*row["target"]),
                 "names that decided": f"{row['deciding']:.0%}", "other names": f"{row['others']:.0%}",
                 "another name's state": f"{row['another']:.0%}", "no patch": f"{row['own']:.0%}"} for seed, row in rows],
               f"The best of {len(found['back'][SEEDS[0]]['tried'])} on half of the names of T, pictures with the right noun.")


def hop_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of the second hop against what came."""
    percent, points = "%", "points"

    def share(what: str, spot: str, group: str, pick: Callable, **bounds: float) -> str:
        return in_words(*interval([pick(each) for each in read(found, what, spot, group)]), percent, **bounds)
    out = {f"P1, the lens finds the noun where it is answered, names of {group} (at least 95 %)":
        share("lens", "question, says", group, lambda each: each[-1],
                                                                        above=95.0) for group in ("D", "T")}
    out |= {"P2, a probe finds the noun at a name of T (below 30 %)": share("probe", "caption, name", "T", max, below=30.0),
            "P3, a probe finds it where a picture opens, names of D (at least 60 %)":
                share("probe", "caption, opens", "D", max, above=60.0),
            "P3, the same, names of T (below 35 %)": share("probe", "caption, opens", "T", max, below=35.0)}
    rows = {group: [found["patched"][seed][group] for seed in SEEDS] for group in ("T", "D")}
    for group, each in rows.items():
        widest = interval([max((100 * (value - row["own"]) for value in row["name"][1:]), key=abs) for row in each])
        out[f"P4, the noun's state at a name of {group} after block 1 or later: right pictures gained (within 5)"] = in_words(
            *widest, points, above=-5.0, below=5.0)
    followed = interval([100 * row["after"][1] for row in rows["T"]])
    out["P5, in all places after a name of T, after block 1: right pictures (at least 80 %)"] = in_words(
        *followed, percent, above=80.0)
    for way, name in (("pictures", "the picture's tokens"), ("after", "those after it")):
        fall = interval([100 * row["own"] - share for row, share in zip(rows["D"], cut_shares(found, "D", way))])
        out[f"P7, {name} do not look at a name of D: right pictures lost (at least 20)"] = in_words(*fall, points, above=20.0)
    neither = interval(cut_shares(found, "D", "after and pictures"))
    out["P7, neither looks at a name of D: right pictures (at most 15 %)"] = in_words(*neither, percent, below=15.0)
    both = interval(cut_shares(found, "T", "pictures, the noun after"))
    out["P7, no look of the picture's tokens at a name of T, the noun's states after it: right pictures (at least 80 %)"] = (
        in_words(*both, percent, above=80.0))
    best_rows = [found["back"][seed]["best"] for seed in SEEDS]
    for key, name in (("own", "no patch"), ("another", "another name's state")):
        out[f"P6, the best back-patch: right pictures above {name} (within 10)"] = in_words(
            *interval([100 * (row["others"] - row[key]) for row in best_rows]), points, above=-10.0, below=10.0)
    return out
