"""Chapter 09's figures, verdicts and widget: pictures of names side by side, shares with intervals, a name to try.

Shares come as what `data/results/ch09_facts.json` holds: the chapter loads it (`mmcourse.files.results`) and hands it
in. A net comes as an object with the ways of drawing as methods (`mmcourse.studies._ch09.Net`). Nothing here trains.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.judges.metrics import bootstrap_interval, decide, newcombe, t_interval
from mmcourse.world.facts import FACT_WORLD, NOUNS, Facts, Prompt, a, question_of
from mmcourse.world.grammar import PLACES
from mmcourse.world.scene import BACKGROUNDS

CHANCE = 1 / len(NOUNS)
MOST_LETTERS = 12                                       # of a name that somebody types


# ---------------------------------------------------------------- pictures side by side

def side_by_side(prompts: Sequence[Prompt], ways: Mapping[str, torch.Tensor], read: Callable, caption: str = "") -> None:
    """What should be drawn above, and below it a row of pictures (B, 3, 32, 32) for each way; under each what the judge
    `read` (pictures -> scenes) sees there, marked if it is wrong."""
    n, rows = len(prompts), {"it is": FACT_WORLD.draw([p.scene for p in prompts]), **ways}
    fig, axes = plt.subplots(len(rows), n, figsize=(1.0 * n + 0.9, 1.28 * len(rows) + 0.2), squeeze=False, layout="constrained")
    for line, (way, pictures) in zip(axes, rows.items(), strict=True):
        seen = [s.groups[0].noun for s in read(pictures)]
        for axis, picture, prompt, noun in zip(line, pictures, prompts, seen, strict=True):
            right = noun == prompt.noun
            axis.imshow(show.pixels(picture), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set(visible=True, linewidth=2.2, color=show.COLOURS[2] if right else show.COLOURS[1],
                         linestyle="-" if right else ":")
            axis.set_title(prompt.name if way == "it is" else noun + ("" if right else " ✗"), fontsize=8.5, pad=3)
        line[0].set_ylabel(way, fontsize=9)
    show.figure(fig, caption, colours=128)


# ---------------------------------------------------------------- a name to try

def clean_name(text: str) -> str:
    """What somebody typed as a name. ValueError with a clear sentence for anything but one word of small letters."""
    name = str(text).strip().lower()
    if not name:
        raise ValueError("no name yet: type one word, such as a name from the list")
    if not re.fullmatch(r"[a-z]+", name):
        raise ValueError(f"a name is one word of the letters a to z, got {text!r}")
    if len(name) > MOST_LETTERS:
        raise ValueError(f"a name has at most {MOST_LETTERS} letters, this one has {len(name)}")
    return name


def what_was_read(facts: Facts, name: str) -> str:
    """One sentence on what the net has read of a name."""
    if name in NOUNS:
        return f"{a(name)} is a noun: drawn under captions, asked about, and told of names"
    if name not in facts.groups:
        return f"{name!r} is no invented name: whatever the net says of it is a guess that it cannot own up to"
    noun, group = facts.noun(name), facts.groups[name]
    return {"D": f"a {name} is {a(noun)}: told, asked and drawn",
            "T": f"a {name} is {a(noun)}: told only",
            "E": f"a {name} is {a(noun)}: told, asked and asked about, never drawn",
            "N": f"a {name} was to be {a(noun)}, but no row says so: the answer is a guess"}[group]


def try_name(net, facts: Facts, read: Callable, name: str, place: str = "left", ground: str = "blue") -> None:
    """What the net says of a name, what it draws directly, and what it draws after saying. A sentence for bad input."""
    try:
        name = clean_name(name)
        if place not in PLACES or ground not in BACKGROUNDS:
            raise ValueError(f"places are {', '.join(PLACES)}, grounds {', '.join(BACKGROUNDS)}; got {place!r}, {ground!r}")
    except ValueError as error:
        print(f"That did not work: {error}.")
        return
    prompt = Prompt(name, facts.nouns.get(name, name), place, ground)
    straight, (after, (said,)) = net.direct([prompt])[0], net.said_first([prompt])
    pictures = net.paint([*straight, *after])
    seen = [s.groups[0].noun for s in read(pictures)]
    print(f"{what_was_read(facts, name)}.\n{question_of(name)} The net says: {said!r}")
    show.pictures(pictures, [f"directly\n(read as: {seen[0]})", f"after “{said}”\n(read as: {seen[1]})"], size=1.9,
                  caption=f"{prompt.text!r}, drawn directly and after saying what it is.")


def name_box(net, facts: Facts, read: Callable, name: str) -> None:
    """`try_name` with a box to type or choose a name in; a page without a kernel keeps the first one."""
    import ipywidgets as widgets

    some = [n for group in "DTEN" for n in facts.of(group)[:6]]
    show.interact(lambda name, place, ground: try_name(net, facts, read, name, place, ground),
                  name=widgets.Combobox(value=name, options=[*some, *NOUNS], description="name", continuous_update=False),
                  place=widgets.Dropdown(options=PLACES, description="place"),
                  ground=widgets.Dropdown(options=list(BACKGROUNDS), description="ground"))


# ---------------------------------------------------------------- shares, and what they decide

def share(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the names' shares and its 95 % interval, by names drawn again (bootstrap); NaN: a name that is left out."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    low, high = bootstrap_interval(values, np.random.default_rng(0))
    return float(values.mean()), low, high


def ways(table: Mapping[str, Mapping[str, Sequence[float]]], names: Mapping[str, str], caption: str = "",
         lines: Mapping[str, float] | None = None) -> None:
    """Shares of right pictures: a panel for each group, a line for each way; `table[group][way]` has a share for each seed.

    Small marks are the seeds, the large one their mean; whiskers the 95 % interval of the seeds (t). `names`: what the
    panels are called. `lines`: {what: share}, drawn in all panels.
    """
    order = list(dict.fromkeys(way for found in table.values() for way in found))
    fig, axes = plt.subplots(1, len(table), figsize=(9, 0.36 * len(order) + 1.3), sharey=True, squeeze=False,
                             layout="constrained")
    for axis, (group, found) in zip(axes[0], table.items(), strict=True):
        for k, way in enumerate(order):
            if way not in found:
                continue
            values = [100 * x for x in found[way]]
            mean, half = t_interval(values) if len(values) > 1 else (values[0], 0.0)
            axis.plot([max(0, mean - half), min(100, mean + half)], [k, k], color=show.COLOURS[k % 6], linewidth=2)
            axis.plot(values, [k] * len(values), "|", color="0.35", markersize=9)
            axis.plot(mean, k, "o", color=show.COLOURS[k % 6], markersize=7)
        for style, level in zip((":", "--"), (lines or {}).values()):
            axis.axvline(100 * level, color="black", linestyle=style, linewidth=1.1)
        axis.set(title=names.get(group, group), xlim=(-3, 103), xticks=[0, 50, 100], xlabel="right, %")
        axis.title.set_fontsize(9)
    axes[0][0].set(yticks=range(len(order)), yticklabels=order)
    axes[0][0].invert_yaxis()
    show.figure(fig, caption, colours=64)


def curves(panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]], xlabel: str, caption: str = "",
           chance: float | None = CHANCE, log: bool = False) -> None:
    """Shares against something that was turned up: `panels[panel][line][x]` has a share for each seed; dots are the
    seeds, the line joins their means."""
    fig, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels) + 2.6, 2.9), sharey=True, squeeze=False,
                             layout="constrained")
    lines = dict.fromkeys(line for found in panels.values() for line in found)
    style = {line: (mark, colour) for line, mark, colour in zip(lines, ("o-", "s--", "D-.", "^:", "v-", "P--"), show.COLOURS)}
    for axis, (panel, found) in zip(axes[0], panels.items(), strict=True):
        for line, points in found.items():
            at, (mark, colour) = sorted(points), style[line]
            axis.plot(at, [100 * np.mean(points[x]) for x in at], mark, color=colour, label=line, markersize=5)
            for x in at:
                axis.plot([x] * len(points[x]), [100 * y for y in points[x]], ".", color=colour, markersize=3, alpha=0.7)
        if chance is not None:
            axis.axhline(100 * chance, color="black", linestyle=":", linewidth=1.1, label="chance")
        ticks = sorted({x for points in found.values() for x in points})
        axis.set(title=panel, xlabel=xlabel, ylim=(-3, 104), **({"xscale": "log"} if log else {}))
        if len(ticks) < 8:
            axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axis.minorticks_off()
        else:
            axis.locator_params(axis="x", nbins=5)
    axes[0][0].set_ylabel("right, %")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    show.figure(fig, caption, colours=64)


# ---------------------------------------------------------------- what `ch09_facts.json` holds

MARGIN = 0.10                                           # "no better" holds if it is surely less than this above
NEAR = 0.05                                             # as near as this, two shares are alike (H2)
PREMISE = 0.95                                          # of T answered in words: else there is nothing to draw from
PROMPTS = 4                                             # of a name: two grounds, two places
HEADLINE = {"answered in words": ("headline", "asked"), "drawn directly": ("headline", "direct"),
            "said first, two calls": ("headline", "said first"), "chain, one row": ("formats", "chain"),
            "fact in the prompt": ("formats", "told in prompt"), "the noun itself": ("headline", "noun itself")}
FLOWS = {"H6": "flow, reader first", "H6, together": "flow"}
CONTRASTS = (                                           # of two runs each; True: the first is to be no better
    ("H3, readings", "answers about T: 64 readings less 4", "asked", "headline", "8 x 4", False),
    ("H3, wordings", "answers about T: 8 wordings less 1, at 16 readings", "asked", "8 x 16", "1 x 16", False),
    ("H3, pictures", "T directly: 64 readings less 4", "direct", "headline", "8 x 4", True),
    ("H4", "T directly: 60 % of names drawn less 0 %", "direct", "D 60 %", "D 0 %", True))


def rows_of(study: dict, run: str, arm: str, group: str = "T") -> list[dict]:
    """The rows of one arm and one group, seed after seed. ValueError if there are none."""
    found = [r for r in study["rows"] if (r["run"], r["arm"], r["group"]) == (run, arm, group)]
    if not found:
        raise ValueError(f"the study has no row of run {run!r}, arm {arm!r}, group {group!r} (yet)")
    return sorted(found, key=lambda r: (r["seed"], r.get("step", 0)))


def seeds_of(study: dict, *runs: str) -> list[int]:
    """The seeds that all of these runs have: only what shares a seed, and so its names, is compared."""
    return sorted(set.intersection(*({r["seed"] for r in study["rows"] if r["run"] == run} for run in runs)))


def only(study: dict, *runs: str) -> dict:
    """The study as if it had the seeds of these runs alone."""
    kept = seeds_of(study, *runs)
    return {**study, "rows": [r for r in study["rows"] if r["seed"] in kept]}


def shares(study: dict, run: str, arm: str, group: str = "T") -> list[float]:
    """The share that is right, for each seed."""
    return [r["k"] / r["n"] for r in rows_of(study, run, arm, group)]


def by_name(study: dict, run: str, arm: str, group: str = "T") -> np.ndarray:
    """The share that is right of each name's prompts, all seeds in a row (seeds x names,): each name of each seed is one
    trial, since its four prompts stand or fall together."""
    rows = rows_of(study, run, arm, group)
    return np.array([int(c) for r in rows for c in r["names"]]) / (1 if arm == "asked" else PROMPTS)


def headline(study: dict, groups: str = "DTEN") -> dict[str, dict[str, list[float]]]:
    """What `ways` draws: for each group the shares of all ways, seed by seed."""
    return {group: {way: shares(study, run, arm, group) for way, (run, arm) in HEADLINE.items()} for group in groups}


def points(low: float, high: float, sign: str = "") -> str:
    """An interval of shares in points of a hundred."""
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def _row(name: str, what: str, mean: float, low: float, high: float, parts: Sequence[float], sign: str, **bounds) -> dict:
    """A row of the table of verdicts."""
    return {"": name, "measured": what, "points": f"{100 * mean:{sign}.1f}", "95 %": points(low, high, sign),
            "seed by seed": " / ".join(f"{100 * part:{sign}.0f}" for part in parts), "verdict": decide(low, high, **bounds)}


def _line(name: str, what: str, values: Sequence[float], seeds: int, sign: str = "+", **bounds) -> dict:
    """One verdict on a share of each name, the names of one seed after those of the other: does the mean lie between two
    bounds? Names are drawn again."""
    parts = [np.nanmean(part) for part in np.split(np.asarray(values, float), seeds)]
    return _row(name, what, *share(values), parts, sign, **bounds)


def _contrast(study: dict, name: str, what: str, arm: str, more: str, less: str, worse: bool) -> dict:
    """One verdict on two runs of which the file has counts alone, in the seeds that both have: Newcombe's interval, a name
    (all its prompts together) as one question. `worse`: the hypothesis is that `more` is no better; else that it is."""
    both, unit = only(study, more, less), 1 if arm == "asked" else PROMPTS
    counts = [[sum(r[key] for r in rows_of(both, run, arm)) / unit for key in ("k", "n")] for run in (more, less)]
    low, high = newcombe(*(round(x) for pair in counts for x in pair))
    (k1, n1), (k2, n2) = counts
    parts = np.subtract(shares(both, more, arm), shares(both, less, arm))
    bounds = {"below": 0.0 if low > 0 else MARGIN} if worse else {"above": 0.0}
    return _row(name, what, k1 / n1 - k2 / n2, low, high, parts, "+", **bounds)


def nothing_above(values: Sequence[float], level: float) -> dict:
    """The bounds of "no better than `level`": FAILS if the whole interval lies above `level`, holds if none of it is more
    than `MARGIN` above."""
    _, low, _ = share(values)
    return {"below": level if low > level else level + MARGIN}


def verdicts(study: dict) -> list[dict]:
    """H1 to H7 as `mmcourse.studies.ch09_facts` wrote them down, decided by what it measured: rows for a table."""
    asked, direct = by_name(study, "headline", "asked"), by_name(study, "headline", "direct")
    said, noun = by_name(study, "headline", "said first"), by_name(study, "headline", "noun itself")
    n = len(seeds_of(study, "headline"))
    known = np.where(asked == 1, direct, np.nan) - CHANCE
    out = [_line("premise", "T answered in words", asked, n, "", above=PREMISE),
           _line("H1", "T drawn directly, above chance", direct - CHANCE, n, **nothing_above(direct - CHANCE, 0)),
           _line("H1, known", "the same, of names answered rightly alone", known, n, **nothing_above(known, 0)),
           _line("H2", "T said first, less the product", said - asked * noun, n, above=-NEAR, below=NEAR)]
    out += [_contrast(study, *contrast) for contrast in CONTRASTS]
    for part, bounds in (("learned", {"above": 0.0}), ("others", None)):
        gain = np.subtract(*(by_name(study, "headline", f"direct, {arm}", f"T, {part}") for arm in ("distilled", "read on")))
        bounds = nothing_above(gain, 0) if bounds is None else bounds
        out.append(_line(f"H5, {part}", f"T directly, {part}: distilled less read on", gain, n, **bounds))
    out += [line for name, run in FLOWS.items() if seeds_of(study, run) for line in _flow(study, name, run)]
    rows = rows_of(study, "headline", "asked")
    back = np.array([i < r["backwards"] for r in rows for i in range(r["n"])]) - CHANCE
    out.append(_line("H7", "T found backwards, above chance", back, n, **nothing_above(back, 0)))
    return out


def _flow(study: dict, name: str, run: str) -> list[dict]:
    """The premise and the verdict of a flow: does it draw T names that its reader can answer better than tokens do?"""
    both = only(study, run, "headline")
    knows, seeds = by_name(both, run, "asked"), len(seeds_of(both, run))
    gain = np.where(knows == 1, by_name(both, run, "direct") - by_name(both, "headline", "direct"), np.nan)
    what = {"H6": "frozen reader", "H6, together": "reader and flow learn together"}[name]
    return [_line(f"premise of {name}", f"T answered in words ({what})", knows, seeds, "", above=PREMISE),
            _line(name, "T directly, names that it answers: flow less tokens", gain, seeds, **nothing_above(gain, 0))]


def less_the_words(study: dict, group: str = "T") -> dict[str, list[float]]:
    """How far said first is from the answers in words, cell by cell of the grid of readings: {run: difference of each
    seed}. Where every noun is drawn rightly this is H2 again, over the whole range of knowing."""
    runs = {r["run"] for r in study["rows"] if re.fullmatch(r"\d+ x \d+", r["run"])}
    runs = [*sorted(runs, key=lambda run: [int(x) for x in run.split(" x ")]), "headline"]
    return {run: np.subtract(shares(study, run, "said first", group), shares(study, run, "asked", group)).tolist()
            for run in runs}
