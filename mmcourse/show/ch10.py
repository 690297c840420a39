"""Chapter 10's figures and widget: episodes as strips, accuracy along training and by examples, the map, an episode to build.

Shares and rows come as what `data/results/ch10_context.json` holds: the chapter loads it (`mmcourse.files.results`) and
hands it in. Nothing here trains.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import patches
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.experiments.episodes import LABELS, Labelled, labelled
from mmcourse.experiments.heads import attention_maps
from mmcourse.experiments.learners import called, drawn, glyphs, named_on
from mmcourse.experiments.thing_tokens import CENTRE, ThingTokens
from mmcourse.in_context import EpisodeNet
from mmcourse.judges.metrics import newcombe, wilson
from mmcourse.vqvae import VQVAE
from mmcourse.world.glyphs import AT, GROUNDS, PATCH, THING

SHADE = 1 / 255                                         # pictures that differ nowhere by more are the same
FRAMES = {True: ("right", "-", show.COLOURS[2]), False: ("wrong ✗", ":", show.COLOURS[1]), None: ("", "-", "0.5")}
EDGE = "0.6"


# ---------------------------------------------------------------- episodes as strips

@dataclass(frozen=True)
class Strip:
    """An episode that was answered. A half is a picture (3, H, W) in [0, 1] or a short text.

    `pairs`: (left half, right half) of each, the query last; its right half is not shown. `answer`: a half. `truth`: the
    right answer, None if there is none. `attention`: for each example, how much of its look the query gives to the
    example's right half, 0 ... 1. `name` stands to the left.
    """
    pairs: Sequence[tuple]
    answer: object
    truth: object = None
    attention: Sequence[float] | None = None
    name: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the answer is the truth; None if there is none."""
        return None if self.truth is None else same(self.answer, self.truth)


def same(one, other) -> bool:
    """Whether two halves are the same text, or pictures that differ nowhere by more than one shade of 256."""
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    one, other = show.pixels(one), show.pixels(other)
    return one.shape == other.shape and bool(np.abs(one - other).max() <= SHADE + 1e-6)


def episode(pairs: Sequence[tuple], answer, truth=None, attention: Sequence[float] | None = None, caption: str = "") -> None:
    """One episode as a strip, as `Strip` describes it, with what the net answered beside it."""
    episodes([Strip(pairs, answer, truth, attention)], caption)


def episodes(strips: Sequence[Strip], caption: str = "") -> None:
    """Episodes below each other: a box for each pair, its left half above its right half, "?" below the query's left half.

    Beside it what the net answered, in a solid frame if it is right, in a dotted one if it is wrong, and then what would
    have been right. The bars below show how the query's look is shared among the right halves of the examples.
    """
    check_strips(strips)
    most = max(len(strip.pairs) for strip in strips)
    named, corrected = any(strip.name for strip in strips), any(strip.right is False for strip in strips)
    left, gap, columns = 1.1 if named else 0.45, 0.08, most + 1 + corrected
    wide = min(0.95, (9.4 - left - 0.5) / columns - gap)
    highs = [heights(strip, wide) for strip in strips]
    width, height = left + columns * (wide + gap) + 0.5, sum(map(sum, highs))
    fig = plt.figure(figsize=(width, height), layout="none")
    axis = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axis.set_axis_off()
    top = height
    for strip, high in zip(strips, highs, strict=True):
        low = top - high[0] - high[1] - high[2]                         # where the boxes end
        x = left + (most - len(strip.pairs)) * (wide + gap)
        axis.text(x - 0.12, low + (high[1] + high[2]) / 2, strip.name, ha="right", va="center", fontsize=9)
        _pairs(axis, strip, x, low, wide, gap, high)
        _answer(axis, strip, left + most * (wide + gap) + 0.3, low, wide, gap, high)
        if strip.attention is not None:
            _bars(axis, strip.attention, x, low, wide, gap)
        top -= sum(high)
    show.figure(fig, caption, colours=128)


def check_strips(strips: Sequence[Strip]) -> None:
    """ValueError for strips that cannot be drawn."""
    if not strips or not all(strip.pairs for strip in strips):
        raise ValueError("an episode has a query at least: give one pair or more for each")
    for strip in strips:
        if strip.attention is not None and len(strip.attention) != len(strip.pairs) - 1:
            raise ValueError(f"{len(strip.pairs) - 1} examples but attention to {len(strip.attention)}: give a share for each "
                             "example, none for the query")


def heights(strip: Strip, wide: float) -> tuple[float, float, float, float]:
    """Inches for the titles, for left halves, for right halves, and for what is below: a picture is square, text flat."""
    rights = [right for _, right in strip.pairs[:-1]] + [strip.answer]
    upper, lower = (wide if any(not isinstance(half, str) for half in halves) else max(0.36, 0.5 * wide)
                    for halves in ([half for half, _ in strip.pairs], rights))
    return 0.24, upper, lower, 0.14 if strip.attention is None else 0.66


def _half(axis, half, x: float, y: float, wide: float, high: float) -> None:
    """A half in the middle of a field: a picture as large as fits, or text of at most 10 points."""
    if isinstance(half, str):
        longest = max(map(len, half.split("\n")))
        axis.text(x + wide / 2, y + high / 2, half, ha="center", va="center", linespacing=1.1, zorder=3,
                  fontsize=min(10, 0.9 * 72 * wide / (0.58 * max(longest, 1))))
        return
    side = min(wide, high) - 0.08
    left, low = x + (wide - side) / 2, y + (high - side) / 2
    axis.imshow(show.pixels(half), extent=(left, left + side, low, low + side), aspect="auto", interpolation="nearest", zorder=2)


def _frame(axis, x: float, y: float, wide: float, high: float, **look) -> None:
    axis.add_patch(patches.Rectangle((x, y), wide, high, **{"facecolor": "none", "edgecolor": EDGE, "linewidth": 1.0, **look}))


def _pairs(axis, strip: Strip, x: float, low: float, wide: float, gap: float, high: Sequence[float]) -> None:
    _, upper, lower, _ = high
    last = len(strip.pairs) - 1
    for i, (one, other) in enumerate(strip.pairs):
        at = x + i * (wide + gap)
        _frame(axis, at, low, wide, upper + lower, facecolor="#EEF3F8" if i == last else "white",
               **({"edgecolor": "black", "linewidth": 1.4} if i == last else {}))
        axis.plot([at + 0.06, at + wide - 0.06], [low + lower] * 2, color=EDGE, linewidth=0.7)
        _half(axis, one, at, low + lower, wide, upper)
        _half(axis, "?" if i == last else other, at, low, wide, lower)
    axis.text(x + last * (wide + gap) + wide / 2, low + upper + lower + 0.05, "query", ha="center", va="bottom", fontsize=8)


def _answer(axis, strip: Strip, x: float, low: float, wide: float, gap: float, high: Sequence[float]) -> None:
    """What was answered, beside the "?", and if it is wrong, what would have been right."""
    lower = high[2]
    says, style, colour = FRAMES[strip.right]
    axis.annotate("", xy=(x - 0.03, low + lower / 2), xytext=(x - 0.34, low + lower / 2), annotation_clip=False,
                  arrowprops={"arrowstyle": "-|>", "color": "0.35", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0})
    _half(axis, strip.answer, x, low, wide, lower)
    _frame(axis, x, low, wide, lower, edgecolor=colour, linewidth=2.4, linestyle=style, zorder=4)
    axis.text(x + wide / 2, low + lower + 0.06, f"the net\n{says}".strip(), ha="center", va="bottom", fontsize=8, linespacing=1.1)
    if strip.right is False:
        x += wide + gap
        _half(axis, strip.truth, x, low, wide, lower)
        _frame(axis, x, low, wide, lower)
        axis.text(x + wide / 2, low + lower + 0.06, "it is", ha="center", va="bottom", fontsize=8)


def _bars(axis, attention: Sequence[float], x: float, low: float, wide: float, gap: float) -> None:
    """A bar below each example, full height for the whole look, and its share in %; below the query what is left over."""
    full, base = 0.36, low - 0.42
    shares = [*attention, max(0.0, 1 - sum(attention))]
    for i, share in enumerate(shares):
        at, elsewhere = x + i * (wide + gap), i == len(attention)
        colour = "0.75" if elsewhere else show.COLOURS[0]
        axis.add_patch(patches.Rectangle((at + 0.2 * wide, base), 0.6 * wide, full * share, color=colour, linewidth=0))
        axis.plot([at, at + wide], [base, base], color=EDGE, linewidth=0.7)
        axis.text(at + wide / 2, base - 0.03, f"{100 * share:.0f}" + (" else" if elsewhere else ""), ha="center", va="top",
                  fontsize=min(8, 16 * wide))
    axis.text(x - 0.06, base + full / 2, "look,\n%", ha="right", va="center", fontsize=8, linespacing=1.0)


# ---------------------------------------------------------------- accuracy along training, and by examples

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKS = "osD^vP"


def along(panels: Mapping[str, Mapping[str, Mapping[int, Mapping[int, float]]]], marks: Mapping[str, int] | None = None,
          caption: str = "", chance: float | Mapping[str, float] | None = None, ylabel: str = "right, %") -> None:
    """Shares along training: `panels[panel][line][seed][step]`; the seeds thin, their mean bold.

    `marks`: {what: step}, upright lines in all panels. `chance`: a dotted line, the same for all panels or {panel: share}.
    """
    fig, axes, look = _panels(panels)
    for axis, (panel, lines) in zip(axes, panels.items(), strict=True):
        for line, seeds in lines.items():
            style, _, colour = look[line]
            for points in seeds.values():
                steps = sorted(points)
                axis.plot(steps, [100 * points[step] for step in steps], color=colour, linewidth=0.8, alpha=0.5)
            steps, mean = mean_of_seeds(seeds)
            axis.plot(steps, 100 * mean, color=colour, linestyle=style, linewidth=2.4, label=line)
        _chance(axis, chance.get(panel) if isinstance(chance, Mapping) else chance)
        for what, step in (marks or {}).items():
            axis.axvline(step, color="0.4", linewidth=1.0)
            axis.annotate(what, (step, 0.03), xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
                          fontsize=8, rotation=90, va="bottom", color="0.3")
        axis.set(xlabel="step", ylim=(-3, 104))
        axis.set_title(panel, fontsize=9)
    axes[0].set_ylabel(ylabel)
    _legend(fig, axes)
    show.figure(fig, caption, colours=64)


def mean_of_seeds(seeds: Mapping[int, Mapping[int, float]]) -> tuple[list[int], np.ndarray]:
    """The steps that all seeds have, and the mean share at each. ValueError if they share none."""
    steps = sorted(set.intersection(*(set(points) for points in seeds.values()))) if seeds else []
    if not steps:
        raise ValueError("no mean of the seeds: they have no step in common")
    return steps, np.array([np.mean([points[step] for points in seeds.values()]) for step in steps])


def by_examples(lines: Mapping[str, Mapping[int, Sequence[float]]], trained: float = 7, chance: float | None = None,
                caption: str = "", xlabel: str = "examples") -> None:
    """Shares by the number of examples: `lines[line][k]` has one for each seed. Small marks are the seeds, the line joins
    their means. Shaded: more examples than `trained`, the most that training had (in what `k` counts)."""
    fig, (axis,), look = _panels({"": lines})
    every = sorted({k for found in lines.values() for k in found})
    _means(axis, lines, look, unit=100, apart=0.13)
    _chance(axis, chance)
    right = every[-1] + 0.4
    if trained < every[-1]:
        axis.axvspan(trained + 0.5, right, color="0.9", zorder=0, label="more than in training")
    axis.set(xlabel=xlabel, ylabel="right, %", ylim=(-3, 104), xlim=(every[0] - 0.4, right))
    axis.set_xticks(every, [f"{k:g}" for k in every])
    _legend(fig, [axis])
    show.figure(fig, caption, colours=64)


def _panels(panels: Mapping[str, Mapping]):
    """A figure with a panel each, and {line: (style, mark, colour)}, the same in all of them."""
    names = list(dict.fromkeys(line for lines in panels.values() for line in lines))
    if not names:
        raise ValueError("nothing to draw: there is no line in any panel")
    fig, axes = plt.subplots(1, len(panels), figsize=(min(9.4, 3.6 * len(panels) + 2.4), 3.0), sharey=True, squeeze=False,
                             layout="constrained")
    look = {name: (STYLES[i % 6], MARKS[i % 6], show.COLOURS[i % 6]) for i, name in enumerate(names)}
    return fig, axes[0], look


def _means(axis, lines: Mapping[str, Mapping[float, Sequence[float]]], look: Mapping, unit: float = 1, apart: float = 0) -> None:
    """Each line joins the means of `lines[line][x]`; small marks are its seeds, times `unit`, `apart` from each other."""
    for line, found in lines.items():
        style, mark, colour = look[line]
        xs = sorted(found)
        axis.plot(xs, [unit * np.mean(found[x]) for x in xs], color=colour, linestyle=style, marker=mark, markersize=5.5,
                  linewidth=1.8, label=line)
        for x in xs:
            beside = x + apart * (np.arange(len(found[x])) - (len(found[x]) - 1) / 2)
            axis.plot(beside, [unit * value for value in found[x]], ".", color=colour, markersize=5, alpha=0.7)


def _chance(axis, chance: float | None) -> None:
    if chance is not None:
        axis.axhline(100 * chance, color="black", linestyle=":", linewidth=1.2, label="chance")


def _legend(fig, axes) -> None:
    """One legend for all panels, to the right of them."""
    found = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    fig.legend(found.values(), found.keys(), loc="outside right center", fontsize=8.5, handlelength=3)


# ---------------------------------------------------------------- the map

MAPS = ("from examples, at its best", "from examples, at the end", "by heart, at the end")


def map_cells(rows: Sequence[Mapping], classes: Sequence[int | None], shares: Sequence[float],
              looks: int) -> dict[str, dict[tuple, list[float]]]:
    """Shares that are right, {map: {(classes, share): one for each seed}}; cells without any row are left out.

    Args: rows of the study's section `map`. looks: of how many episodes the counts along training are.

    "At its best" is each seed's best look of its training: the luckiest of ten, so a little too high where all of them
    are at chance.
    """
    cells: dict[str, dict] = {name: {} for name in MAPS}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if (cell := (row["classes"], row["share"])) not in {(c, s) for c in classes for s in shares}:
            continue
        found = {MAPS[0]: max(look["in_context"] for look in row["along"]) / looks, MAPS[1]: row["in_context"] / row["n"]}
        if "in_weights" in row:
            found[MAPS[2]] = row["in_weights"] / row["n"]
        for name, share in found.items():
            cells[name].setdefault(cell, []).append(share)
    return cells


def heat_map(rows: Sequence[Mapping], classes: Sequence[int | None], shares: Sequence[float], looks: int,
             caption: str = "") -> None:
    """Three maps side by side, a line for each number of classes (None: endless), a column for each share of bursty rows:
    right from examples at the best look of training and at its end, right by heart at the end. In each cell the mean of
    the seeds in %, and below it the lowest and highest. `rows`, `looks`: as `map_cells` has them."""
    cells = map_cells(rows, classes, shares, looks)
    fig, axes = plt.subplots(1, len(cells), figsize=(9.4, 0.52 * len(classes) + 1.1), sharey=True, layout="constrained")
    for axis, (name, found) in zip(axes, cells.items(), strict=True):
        means = np.array([[100 * np.mean(found.get((c, s), [np.nan])) for s in shares] for c in classes])
        axis.imshow(means, vmin=0, vmax=100, cmap="cividis", aspect="auto")
        for i, c in enumerate(classes):
            for j, s in enumerate(shares):
                _cell(axis, j, i, found.get((c, s)))
        axis.set_title(name, fontsize=9.5)
        axis.set_xticks(range(len(shares)), [f"{100 * s:g}" for s in shares])
        axis.set_yticks(range(len(classes)), ["endless" if c is None else f"{c:,}" for c in classes])
        axis.set_xlabel("bursty rows, %")
        axis.grid(False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel("classes")
    show.figure(fig, caption, colours=128)


def _cell(axis, x: int, y: int, found: list[float] | None) -> None:
    """The mean of the seeds, and their range if there are several; a dash where there is nothing to measure."""
    if not found:
        axis.text(x, y, "–", ha="center", va="center", color="0.4")
        return
    percent = 100 * np.array(found)
    ink = "black" if percent.mean() > 48 else "white"
    axis.text(x, y - 0.12, f"{percent.mean():.0f}", ha="center", va="center", color=ink, fontsize=11)
    if len(found) > 1:
        axis.text(x, y + 0.27, f"{percent.min():.0f}–{percent.max():.0f}", ha="center", va="center", color=ink, fontsize=7.5)


# ---------------------------------------------------------------- an episode to build by hand

WORDS = ("dax", "wug", "blick", "toma", "fep", "zup", "kiki", "bouba", "modi", "gorp", "tulver", "pilk", "nug", "rell", "vash",
         "sibo")                        # what label 0, 1, ... is called
assert len(WORDS) == LABELS
TASKS = ("what is this called?", "draw it on another ground")


def boards(vqvae: VQVAE, ids: torch.Tensor) -> torch.Tensor:
    """Tokens of boards (B, 16) as pictures (B, 3, 32, 32)."""
    with torch.no_grad():
        return vqvae.decode(ids.view(-1, 4, 4)).clamp(0, 1)


def close_ups(tables: ThingTokens, vqvae: VQVAE, things: torch.Tensor) -> torch.Tensor:
    """Things (B,) close up, on white, as pictures (B, 3, 16, 16): the middle of a board, as four tokens alone have none."""
    ids = torch.from_numpy(tables.compose(np.zeros(len(things), int), things.numpy()[:, None], CENTRE))
    row, column = (PATCH * place for place in AT[CENTRE])
    return boards(vqvae, ids)[:, :, row:row + THING, column:column + THING]


def clean_order(text: str, most: int) -> list[int]:
    """"AAB" -> [0, 0, 1]. ValueError with a clear sentence for what is no order, or for more examples than `most`."""
    letters = "".join(str(text).split()).upper()
    if not letters:
        raise ValueError("there is no example yet: type an order of the letters A and B, such as AB")
    if strange := sorted(set(letters) - set("AB")):
        raise ValueError(f"the order of the examples has the letters A and B alone, got {strange[0]!r}")
    if len(letters) > most:
        raise ValueError(f"{most} examples fit beside the query, got {len(letters)}: leave out {len(letters) - most}")
    return ["AB".index(letter) for letter in letters]


def by_hand(tables: ThingTokens, glyphs_of: Sequence[int], words: Sequence[str], order: Sequence[int], asked: str,
            ground: str) -> Labelled:
    """One episode, (1, P): two glyphs (0, 1, ... of the test's) with their words, in an order of 0 and 1, then a query.

    `asked`: A, B, or C, a third glyph with a third word. The query stands on `ground`, the examples on the others in turn.
    """
    pool = tables.of["test"]
    if asked not in tuple("ABC") or ground not in GROUNDS:
        raise ValueError(f"asked is A, B or C, the ground one of {', '.join(GROUNDS)}; got {asked!r} and {ground!r}")
    for what in words:
        if what not in WORDS:
            raise ValueError(f"there is no word {what!r}: take one of {', '.join(WORDS)}")
    if not all(0 <= i < len(pool) for i in glyphs_of):
        raise ValueError(f"glyphs are 0 to {len(pool) - 1}, got {' and '.join(map(str, glyphs_of))}")
    if len(set(glyphs_of)) < 2 or len(set(words)) < 2:
        raise ValueError("A and B are two different glyphs with two different words: change one of them")
    labels = [WORDS.index(what) for what in words]
    third = next(i for i in range(len(pool)) if i not in glyphs_of)
    things = np.array([*glyphs_of, third]) + pool.start
    labels = np.array([*labels, next(i for i in range(LABELS) if i not in labels)])
    classes = np.array([[*order, "ABC".index(asked)]])
    here = GROUNDS.index(ground)
    others = [i for i in range(len(GROUNDS)) if i != here]
    grounds = np.array([[*(others[i % len(others)] for i in range(len(order))), here]])
    return labelled(tables, np.random.default_rng(0), things[classes], labels[classes], grounds, CENTRE)


def look_of_query(net: EpisodeNet, part: tuple) -> list[float]:
    """The share of the query's look, mean of the heads of the last layer, on the right half of each example."""
    look = attention_maps(net, part)[0, -1].mean(0)                     # (T, T)
    return look[-2, 1:-2:2].tolist()


def answered(tables: ThingTokens, vqvae: VQVAE, net: EpisodeNet, task: str, found: Labelled) -> Strip:
    """What a net answers in an episode (1, P), as a strip. No truth if no example has what is asked."""
    words = [WORDS[label] for label in found.labels[0].tolist()]
    known = bool(found.seen[0, -1])
    if task == TASKS[0]:
        part = (("chunk", glyphs(tables, found.things)), ("words", found.labels[..., None]))
        answer = WORDS[int(called(net, tables, found)[0])]
        lefts, rights = close_ups(tables, vqvae, found.things[0]), words
    else:
        part = (("words", named_on(found)), ("chunk", found.pictures))
        *rights, answer = boards(vqvae, torch.cat([found.pictures[0], drawn(net, found)]))
        lefts = [f"{what}\n{GROUNDS[ground]}" for what, ground in zip(words, found.grounds[0].tolist())]
    return Strip(list(zip(lefts, rights, strict=True)), answer, rights[-1] if known else None, look_of_query(net, part))


def try_episode(tables: ThingTokens, vqvae: VQVAE, forced_net: EpisodeNet, binding_net: EpisodeNet, task: str = TASKS[0],
                first: int = 0, second: int = 1, word_a: str = WORDS[0], word_b: str = WORDS[1], order: str = "AB",
                asked: str = "A", ground: str = "blue") -> None:
    """An episode built by hand, what the net answers and where it looks. A sentence for bad input.

    Args: as `by_hand`; `forced_net` answers `TASKS[0]`, `binding_net` draws.
    """
    try:
        if task not in TASKS:
            raise ValueError(f"tasks are {' and '.join(map(repr, TASKS))}, got {task!r}")
        net = forced_net if task == TASKS[0] else binding_net
        examples = clean_order(order, net.pairs - 1)
        found = by_hand(tables, (first, second), (word_a, word_b), examples, asked, ground)
    except ValueError as error:
        print(f"That did not work: {error}.")
        return
    strip = answered(tables, vqvae, net, task, found)
    episodes([strip], in_words(strip, task, "".join("AB"[i] for i in examples), asked, (word_a, word_b), ground))


def in_words(strip: Strip, task: str, order: str, asked: str, words: Sequence[str], ground: str) -> str:
    """An episode and its answer as a caption."""
    n, third = len(order), asked == "C"
    gave = f"{strip.answer!r}" if isinstance(strip.answer, str) else "a picture"
    verdict = {True: "which is right", False: "which is wrong", None: "a guess, as no example has what is asked"}[strip.right]
    at = int(np.argmax(strip.attention))
    return (f"{n} example{'s' * (n > 1)} in the order {order}; A is a {words[0]}, B a {words[1]}. Asked: {task} ({asked}"
            f"{', a third' * third}{f', on {ground}' * (task != TASKS[0])}). The net answers with {gave}, {verdict}. Of the "
            f"examples it looks most at number {at + 1} ({order[at]}), with {100 * strip.attention[at]:.0f} % of its look.")


def episode_box(tables: ThingTokens, vqvae: VQVAE, forced_net: EpisodeNet, binding_net: EpisodeNet) -> None:
    """`try_episode` with controls: a page without a kernel keeps the first episode."""
    import ipywidgets as widgets

    def slider(value: int, name: str):
        return widgets.IntSlider(value, 0, len(tables.of["test"]) - 1, description=name, continuous_update=False)

    def choice(value: str, options: Sequence[str], name: str):
        return widgets.Dropdown(value=value, options=options, description=name)
    show.interact(lambda **chosen: try_episode(tables, vqvae, forced_net, binding_net, **chosen),
                  task=choice(TASKS[0], TASKS, "task"), first=slider(0, "glyph A"), second=slider(1, "glyph B"),
                  word_a=choice(WORDS[0], WORDS, "A is a"), word_b=choice(WORDS[1], WORDS, "B is a"),
                  order=widgets.Text(value="ABBA", description="examples", continuous_update=False),
                  asked=choice("A", tuple("ABC"), "asked"), ground=choice("blue", GROUNDS, "on ground"))


# ---------------------------------------------------------------- what the study found

def rows_of(study: Mapping, section: str, **which) -> list[Mapping]:
    """The rows of a section that have these fields, a training each. ValueError if there is none."""
    found = [row for row in study[section] if all(row[field] == value for field, value in which.items())]
    if not found:
        raise ValueError(f"no row of {section!r} has {which}")
    return found


def shares(study: Mapping, section: str, key: str, **which) -> list[float]:
    """The share of right answers in each of these trainings."""
    return [row[key] / row["n"] for row in rows_of(study, section, **which)]


def say(values: Sequence[float]) -> str:
    """Shares of several trainings in a few words: `98.4 / 99.0 %`."""
    return " / ".join(f"{100 * value:.1f}" for value in values) + " %"


def along_of(rows: Sequence[Mapping], key: str, looks: int) -> dict[int, dict[int, float]]:
    """What `along` draws: {seed: {step: share}} of a count along training, of `looks` episodes."""
    return {row["seed"]: {look["step"]: look[key] / looks for look in row["along"]} for row in rows}


def cents_of(study: Mapping, key: str) -> list[float]:
    """The median error of the pitch in cents, of each training; questions whose truth has no pitch are left out."""
    return [float(np.median([cents for cents in row[key]["cents"] if cents >= 0])) for row in study["voices"]]


def in_cents(lines: Mapping[str, Mapping[int, Sequence[float]]], caption: str = "") -> None:
    """Errors of the pitch in cents by the number of words that were heard: small marks are the seeds."""
    fig, (axis,), look = _panels({"": lines})
    _means(axis, lines, look)
    axis.set(xlabel="words heard in the voice", ylabel="median error of the pitch, cents", ylim=(0, None))
    _legend(fig, [axis])
    show.figure(fig, caption, colours=64)


def by_values(lines: Mapping[str, Mapping[int, Sequence[float]]], xlabel: str, caption: str = "") -> None:
    """Shares by the number of values that training had, which grows by factors: `lines[line][n]` has one for each seed."""
    fig, (axis,), look = _panels({"": lines})
    numbers = sorted({n for found in lines.values() for n in found})
    _means(axis, lines, look, unit=100)
    axis.set(xlabel=xlabel, ylabel="right, %", ylim=(-3, 104), xscale="log")
    axis.set_xticks(numbers, [f"{n:,}" for n in numbers])
    axis.minorticks_off()
    _legend(fig, [axis])
    show.figure(fig, caption, colours=64)


SHIPPED = {     # question -> what is counted: the title, and its key in the study's row
    "forced": ("which of two new words is this?", {
        "two examples": "word right", "their words exchanged": "word exchanged right", "no example": "word none right",
        "the last one's word": "word last", "two true nouns, no example": "word nouns none right",
        "true nouns, two examples": "word nouns right"}),
    "binding": ("draw a dax", {
        "two examples": "right", "the other's thing": "other", "the last one's thing": "last", "no example": "none right",
        "a true noun, no example": "nouns none right", "true nouns, two examples": "nouns right"}),
    "rule": ("a new ground for everything", {
        "one example": "drawn rule", "an example without a rule": "drawn same rule", "no example": "drawn none rule",
        "told in words": "told rule"})}


def shipped_table(study: Mapping, caption: str = "") -> None:
    """What the shipped model does when it is shown examples: counts of n, with intervals (Wilson)."""
    lines = []
    for question, (title, keys) in SHIPPED.items():
        row = study["shipped"][question]
        for arm, key in keys.items():
            low, high = wilson(row[key], row["n"])
            lines.append({"asked": title, "with": arm, "n": row["n"], "right": f"{row[key] / row['n']:.0%}",
                          "95 % interval": f"{low:.0%} to {high:.0%}"})
    show.table(lines, caption)


def decide(holds: bool, fails: bool) -> str:
    """A verdict."""
    return "holds" if holds else "fails" if fails else "undecided"


def verdicts(study: Mapping) -> dict[str, str]:
    """The hypotheses of `mmcourse.studies.ch10_context`, each with what decides it. Shares are decided by 95 % intervals
    (Wilson) of every training: all have to agree, else it is undecided."""
    def low(section, key, **which):
        return [wilson(row[key], row["n"])[0] for row in rows_of(study, section, **which)]

    def high(section, key, **which):
        return [wilson(row[key], row["n"])[1] for row in rows_of(study, section, **which)]
    looks = study["plan"]["size"]["looks"]
    few = [row["in_context"] / row["n"] for row in study["map"] if row["classes"] in (16, 64, 512)]
    fading = rows_of(study, "map", classes=4096, share=0.9)
    best = [max(look["in_context"] for look in row["along"]) / looks for row in fading]
    lost = [top - row["in_context"] / row["n"] for top, row in zip(best, fading)]
    bound = low("binding", "k1", name="with echo")
    new, old = low("rules", "held_k4", name="sign"), high("rules", "held_k4", name="sign, 4 values")
    alone, said = (rows_of(study, "composing", said=way)[0] for way in (False, True))
    helps = newcombe(said["held_two"], said["n"], alone["held_two"], alone["n"])
    none, one, wrong = (cents_of(study, key) for key in ("right_k0", "right_k1", "wrong_k1"))
    tuned = [{int(steps): k for steps, k in row["k1"]["right"].items()} for row in rows_of(study, "tuning", start="forced")]
    enough = [min(steps for steps, k in right.items() if k >= 0.95 * study["plan"]["size"]["tuned"]) for right in tuned]
    prices = study["tuning"][0]["k1"]["price"]
    return {
        "H1 two layers learn forced labels, one does not": decide(
            min(low("forced", "k1", name="two layers")) > 0.95 > max(high("forced", "k1", name="one layer")),
            max(high("forced", "k1", name="two layers")) < 0.95),
        "H2 only where classes are many": decide(max(few) < 0.2 and min(best) > 0.5, min(few) > 0.5),
        "H2 it comes and goes": decide(min(lost) > 0.5, max(lost) < 0.1),
        "H3 a word is bound by one picture": decide(
            min(bound) > 0.85 and max(high("binding", "no_support_k1", name="with echo")) < 0.05,
            max(high("binding", "k1", name="with echo")) < 0.85),
        "H3 not by the flat transformer": decide(max(high("flat", "k1")) < min(bound), min(low("flat", "k1")) > 0.85),
        "H4 new values need many values": decide(min(new) > 0.8 and max(old) < 0.2, max(new) < 0.2 or min(old) > 0.8),
        "H5 rules do not compose": decide(wilson(alone["held_two"], alone["n"])[1] < 0.05,
                                          wilson(alone["held_two"], alone["n"])[0] > 0.05),
        "H5 saying the rule first does not help": decide(helps[1] < 0.05, helps[0] > 0),
        "H6 one word halves the error of the pitch": decide(
            all(2 * b < a for a, b in zip(none, one)) and all(2 * c > a for a, c in zip(none, wrong)),
            all(2 * b > a for a, b in zip(none, one))),
        "H7 a gradient costs ten answers or more": decide(
            min(prices[str(steps)] for steps in enough) >= 10, max(prices[str(steps)] for steps in enough) < 10)}
