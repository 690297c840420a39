"""Figures, tables, verdicts and the widget of chapter 13: lenses, patches, looks, the gate, probes, concepts.

What was measured is `results("ch13_gate")`, `ch13_concept` and `ch13_probes`, handed in as `found`.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.experiments.aligned import SLOTS
from mmcourse.experiments.inside import attention_of, cut, no_look, states
from mmcourse.judges.metrics import newcombe, wilson
from mmcourse.show.depth import in_words
from mmcourse.show.shelves import SEEDS, interval
from mmcourse.vocabulary import SPECIAL, Vocabulary
from mmcourse.world.scene import BACKGROUNDS, NOUNS

GRID = (8, 8)                                           # tokens of a picture


def layer_names(names: Sequence[str]) -> list[str]:
    """`embed`, `blocks.0`, ... as a reader counts them: 0 for what enters, then the number of blocks passed."""
    return ["0" if name == "embed" else str(int(name.removeprefix("blocks.")) + 1) for name in names]


def heat(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], caption: str = "", *,
         across: str = "blocks passed", title: str = "", percent: bool = True) -> None:
    """A table of shares as colours, each with its number: values (rows, columns) in 0..1."""
    values = np.asarray(values, float)
    fig, axis = plt.subplots(figsize=(1.6 + 0.72 * len(columns), 0.9 + 0.34 * len(rows)))
    axis.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axis.grid(False)
    for (i, j), value in np.ndenumerate(values):
        axis.text(j, i, f"{100 * value:.0f}" if percent else f"{value:.2f}", ha="center", va="center", fontsize=9,
                  color="white" if value < 0.55 else "black")
    axis.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows, xlabel=across,
             title=title)
    show.figure(fig, caption)


def verdicts(found: Mapping[str, str], fold: str = "") -> None:
    """What was expected, and what came; behind a line `fold` until it is opened."""
    show.table([{"expected": claim, "came": text} for claim, text in found.items()], fold=fold)


def curves(values: Mapping[str, Sequence[float]], caption: str = "", *, chance: float | None = None,
           ylabel: str = "% right") -> None:
    """Shares by the number of blocks passed, a line each."""
    fig, axis = plt.subplots(figsize=(6.4, 3.0))
    for i, (name, line) in enumerate(values.items()):
        axis.plot(range(len(line)), 100 * np.asarray(line), "os^Dvx*"[i % 7] + show._LINES[i % 4], label=name, markersize=5)
    if chance is not None:
        axis.axhline(100 * chance, color="0.6", linestyle=":", label="chance")
    axis.set(xlabel="blocks passed", ylabel=ylabel, ylim=(-3, 103))
    axis.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    show.figure(fig, caption)


def looks(picture: torch.Tensor, each: Mapping[str, torch.Tensor], caption: str = "") -> None:
    """A picture (3, H, W), and for each title how a token shares its look among the 64 tokens of it: (64,)."""
    fig, axes = plt.subplots(1, len(each) + 1, figsize=(1.75 * (len(each) + 1), 2.1))
    axes[0].imshow(show.pixels(picture), interpolation="nearest")
    axes[0].set_title("the picture", fontsize=9)
    for axis, (title, look) in zip(axes[1:], each.items()):
        axis.imshow(look.reshape(GRID), cmap="cividis", vmin=0, vmax=0.5)               # (64,) -> (8, 8)
        axis.set_title(title, fontsize=9)
    for axis in axes:
        axis.axis("off")
    show.figure(fig, caption)


# ---------------------------------------------------------------- the gate

def _mean(found: Mapping, name: str) -> dict:
    """Means over the seeds of a row of `cut`."""
    rows = [found["cut"][seed][name] for seed in SEEDS]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def gate(found: Mapping) -> None:
    """What is still right when the words of a caption may not look at parts of the picture."""
    lines = []
    for name in found["cut"]["0"]:
        mean = _mean(found, name)
        lines.append({"the caption does not see": name, **{slot: f"{mean[slot]:.0%}" for slot in SLOTS},
                      "all of it, by itself": f"{mean['written']:.0%}" if "written" in mean else ""})
    n = found["plan"]["n"]
    show.table(lines, f"Slots that are right, given the true words before them, {3 * n} test scenes; and whole captions "
                      f"that the model writes by itself ({3 * found['plan']['single']}). Last row: the picture of another scene, "
                      "that is, what is right by chance.")


def singles(found: Mapping) -> None:
    """What each of the 66 places costs if it alone is not seen."""
    lost = {slot: 1 - np.mean([found["single"][seed][slot] for seed in SEEDS], 0) for slot in SLOTS}
    fig, axes = plt.subplots(1, len(SLOTS), figsize=(10.2, 3.0))
    for axis, (slot, each) in zip(axes, lost.items()):
        drawn = axis.imshow(100 * each[1:65].reshape(GRID), cmap="cividis", vmin=0, vmax=8)        # (64,) -> (8, 8)
        axis.set_title(f"{slot}\n<image> {100 * each[0]:.0f}   </image> {100 * each[65]:.0f}", fontsize=9.5)
        axis.axis("off")
    fig.colorbar(drawn, ax=axes, label="points lost", shrink=0.8)
    show.figure(fig, "Percentage points that each slot loses if one place is not seen: the 64 tokens as a map (the scale "
                     "ends at 8), the boundary tokens above it.")


def small_nets(found: Mapping) -> None:
    """How small nets learn to name things, and what they lose when they are cut."""
    fig, axis = plt.subplots(figsize=(6.4, 3.0))
    for i, (arm, rows) in enumerate(found["small"].items()):
        for seed in SEEDS:
            steps, shares = zip(*((step, 100 * each["noun"]) for step, each in rows[seed]["curve"]))
            axis.plot(steps, shares, show._LINES[i], color=show.COLOURS[i], alpha=0.8, label=arm if seed == "0" else None)
    axis.set(xlabel="step of training", ylabel="% of things named")
    axis.legend(fontsize=9)
    show.figure(fig, "Three small nets for each arm. Without </image> they learn as fast as with it; through it alone they learn "
                     "later.")
    lines = []
    for arm, rows in found["small"].items():
        for name in ("nothing", "</image>", "the 64 tokens"):
            shares = [rows[seed]["cut"][name]["noun"] for seed in SEEDS]
            lines.append({"learned": arm, "then cut off": name, "things named": f"{np.mean(shares):.0%} "
                          f"({min(shares):.0%} to {max(shares):.0%})"})
    show.table(lines, "After training: what is cut off in addition to what the net was trained without.")


def first_step(rows: Mapping, share: float = 0.9) -> float:
    """The first look at which a small net names so many things; infinity if it never does."""
    return next((step for step, each in rows["curve"] if each["noun"] >= share), float("inf"))


def gate_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of the gate."""
    n, means = 3 * found["plan"]["n"], {name: _mean(found, name) for name in found["cut"]["0"]}

    def lost(name: str, slot: str) -> tuple[float, float]:
        right = [round(n * means[which][slot]) for which in ("nothing", name)]
        return tuple(100 * x for x in newcombe(right[0], n, right[1], n))
    out = {f"G1, without </image>: {slot}, points lost (at most 2)": in_words(*lost("</image>", slot), "points", below=2.0)
           for slot in SLOTS}
    for slot in ("noun", "place", "ground"):
        right = [round(n * means[name][slot]) for name in ("all but </image>", "shuffled pictures")]
        above = (100 * x for x in newcombe(right[0], n, right[1], n))
        out[f"G1, </image> alone: {slot}, points above another picture's"] = in_words(*above, "points", below=5.0)
    worst = max(SLOTS, key=lambda slot: means["nothing"][slot] - means["<image>"][slot])
    out[f"G2, without <image>: {worst}, points lost (at least 15)"] = in_words(*lost("<image>", worst), "points", above=15.0)
    single = {slot: np.mean([found["single"][seed][slot] for seed in SEEDS], 0)[1:65] for slot in SLOTS}
    slot = min(SLOTS, key=lambda slot: single[slot].min())
    k = 3 * found["plan"]["single"]
    low, high = wilson(round(k * single[slot].min()), k)
    out[f"G3, without the dearest of 64 tokens: {slot}, % wrong (at most 5)"] = in_words(
        100 - 100 * high, 100 - 100 * low, "%", below=5.0)
    return out | _patch_verdicts(found) | _small_verdicts(found) | _drawing_verdicts(found)


def _patch_verdicts(found: Mapping) -> dict[str, str]:
    out = {}
    for text, (state, place, slot), bounds in (
            ("thing follows the picture after block 1 (< 10 %)", ("blocks.0", "picture", "noun"), {"below": 10.0}),
            ("thing follows the place where it is said, after block 1 (> 90 %)", ("blocks.0", "at the noun", "noun"),
             {"above": 90.0}),
            ("ground follows the picture after block 3 (> 50 %)", ("blocks.2", "picture", "ground"), {"above": 50.0})):
        shares = [100 * found["patched"][seed][state][place][slot] for seed in SEEDS]
        out[f"G4, {text}"] = in_words(*interval(shares), "%", **bounds)
    return out


def _small_verdicts(found: Mapping) -> dict[str, str]:
    ends = {arm: [100 * rows[seed]["cut"]["nothing"]["noun"] for seed in SEEDS] for arm, rows in found["small"].items()}
    low, high = interval(np.subtract(ends["plain"], ends["without </image>"]))
    steps = {arm: [first_step(rows[seed]) for seed in SEEDS] for arm, rows in found["small"].items()}
    times = np.divide(steps["only </image>"], steps["plain"])
    gone = [100 * found["small"]["only </image>"][seed]["cut"]["</image>"]["noun"] for seed in SEEDS]
    return {"G5, learned without </image>: points behind (at most 3)": in_words(low, high, "points", below=3.0),
            "G6, only </image>: steps to 9 of 10, times plain's (at least 1.5)":
                in_words(*interval(times), "times", above=1.5) if np.isfinite(times).all() else
                f"holds: never within {found['plan']['steps']} steps with {int(np.sum(~np.isfinite(times)))} of 3 seeds "
                f"(plain: {min(steps['plain'])} to {max(steps['plain'])})",
            "G6, and then without it: things named (at most 5 %)": in_words(*interval(gone), "%", below=5.0)}


def _drawing_verdicts(found: Mapping) -> dict[str, str]:
    rows = found["drawing"]
    def more(name: str) -> tuple[float, float]:
        return interval([100 * (rows[seed][name] / rows[seed]["nothing"] - 1) for seed in SEEDS])
    return {"G7, drawing without </text> and <image>: more bits (at most 5 %)":
            in_words(*more("</text> and <image>"), "%", below=5.0),
            "G7, and without the caption's words (more than 100 %)": in_words(*more("the caption's words"), "%", above=100.0)}


# ---------------------------------------------------------------- probes

def probes(found: Mapping, place: str) -> None:
    """What probes read at a place, from the model and from its untrained twin, layer by layer, next to the bag."""
    factors = list(found["bag"]["0"])
    lines = []
    for factor in factors:
        line = {"factor": factor, "bag": f"{np.mean([found['bag'][seed][factor] for seed in SEEDS]):.0%}"}
        for model in ("shipped", "untrained"):
            each = np.mean([found["pictures"][model][seed]["right"][place][factor] for seed in SEEDS], 0)
            line |= {f"{model}, {blocks} blocks": f"{each[i]:.0%}" for i, blocks in enumerate(probed_after(found))}
        lines.append(line)
    show.table(lines, f"Linear probes at the place {place!r}, asked about {3 * found['plan']['asked']} test scenes of held-out "
                      "pairs. Chance: thing 2 %, ground 12 %, place and count 50 %, a letter 4 %.")


def probed_after(found: Mapping) -> list[int]:
    """After how many blocks the study probed."""
    return [*map(int, layer_names(found["plan"]["layers"]))]


def selectivity(found: Mapping) -> None:
    """Right, right on labels that dice gave, and the difference."""
    lines, fourth = [], probed_after(found).index(4)
    for factor in ("thing", "ground"):
        for place in found["pictures"]["shipped"]["0"]["right"]:
            for model in ("shipped", "untrained"):
                rows = [found["pictures"][model][seed] for seed in SEEDS]
                right, dice = (np.mean([row[kind][place][factor][fourth] for row in rows]) for kind in ("right", "control"))
                lines.append({"factor": factor, "place": place, "model": model, "right": f"{right:.0%}",
                              "on dice's labels": f"{dice:.0%}", "selectivity": f"{100 * (right - dice):+.0f}"})
    show.table(lines, "After four blocks. Selectivity: points above the same probe on labels that dice gave to each pair of "
                      "thing and ground.")


def probe_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of the probes."""
    order = probed_after(found)

    def at(model: str, place: str, factor: str, blocks: int, kind: str = "right") -> list[float]:
        return [100 * found["pictures"][model][seed][kind][place][factor][order.index(blocks)] for seed in SEEDS]

    def bag(factor: str) -> list[float]:
        return [100 * found["bag"][seed][factor] for seed in SEEDS]

    def sound(model: str, factor: str, blocks: int) -> np.ndarray:
        column = 0 if model == "bag" else order.index(blocks)
        return np.array([100 * found["sounds"][model][seed][factor][column] for seed in SEEDS])
    mean, article = "mean of the picture", "before the thing"
    select = {place: np.subtract(at("shipped", place, "thing", 4), at("shipped", place, "thing", 4, "control"))
              for place in (mean, article)}
    end = "</image>"
    out = {"P1, thing at </image> after 4 blocks (> 80 %)": in_words(*interval(at("shipped", end, "thing", 4)), "%", above=80.0),
           "P1, in the untrained twin (< 10 %)": in_words(*interval(at("untrained", end, "thing", 4)), "%", below=10.0)}
    out |= {f"P2, {factor} from the bag (> 95 %)": in_words(*interval(bag(factor)), "%", above=95.0)
            for factor in ("ground", "count")}
    out |= {"P3, place from the bag (50 to 90 %)": in_words(*interval(bag("place")), "%", above=50.0, below=90.0),
            "P3, from the mean after block 1 (> 99 %)": in_words(*interval(at("shipped", mean, "place", 1)), "%", above=99.0),
            "P3, from the twin's (> 90 %)": in_words(*interval(at("untrained", mean, "place", 1)), "%", above=90.0)}
    out |= {f"P4, best letter, best layer, {place} (< 20 %)": in_words(*interval(np.max(
        [at("shipped", place, f"letter {i}", blocks) for i in (1, 2, 3) for blocks in order], 0)), "%", below=20.0)
        for place in (mean, article)}
    out["P5, selectivity of the thing: the article's above the mean's"] = in_words(
        *interval(select[article] - select[mean]), "points", above=0.0)
    out["P6, word after 4 blocks, above the twin's (> 20)"] = in_words(
        *interval(sound("shipped", "word", 4) - sound("untrained", "word", 4)), "points", above=20.0)
    out["P6, voice after 4 blocks, above the bag's (< 10)"] = in_words(
        *interval(sound("shipped", "voice", 4) - sound("bag", "voice", 0)), "points", below=10.0)
    return out


# ---------------------------------------------------------------- concepts

PAIRS = {"image finds text": "picture finds word", "audio finds text": "spoken finds word",
         "image finds audio": "picture finds spoken"}


def found_words(found: Mapping) -> None:
    """Retrieval by layer, the model and its untrained twin."""
    def mean(model: str, key: str) -> np.ndarray:
        return np.mean([found["retrieval"][model][seed][key] for seed in SEEDS], 0) / len(NOUNS)
    lines = {name: mean("shipped", key) for key, name in PAIRS.items()}
    lines["the best of the untrained twin's"] = np.max([mean("untrained", key) for key in PAIRS], 0)
    curves(lines, f"Of 64 things, how many find themselves in another modality, by the nearest state after so many blocks; "
           f"pictures and spoken words are means of {found['plan']['examples']} examples.",
           chance=1 / len(NOUNS), ylabel="% found")


def steering(found: Mapping, ground: str = "green") -> None:
    """What a direction turns green, and what it breaks."""
    rows, lines = found["steering"], []
    for source, each in rows.items():
        counts = [each[seed][ground] for seed in SEEDS]
        n = sum(row["n"] for row in counts)
        chosen = [seed for seed in each.values() if "layer" in seed]
        settings = sorted({f"{int(seed['layer'][-1]) + 1} x {seed['strength']}" for seed in chosen})
        lines.append({"direction from": source, "added after block x times": ", ".join(settings),
                      **{key: f"{sum(row[key] for row in counts) / n:.0%}"
                         for key in ("ground", "ground, second judge", "thing", "place", "count", "all")}})
    show.table(lines, f"Scenes that were asked for on other grounds, {n} a row: drawn on {ground}, as the report judge "
                      "(templates) and a second one (a net) see it; and what is still as asked. Depth and strength were chosen "
                      "for each seed on validation (for the random direction nothing helped, so that it has the first).")


def concept_verdicts(found: Mapping) -> dict[str, str]:
    """What was expected of concepts."""
    retrieval, rows, n = found["retrieval"], found["steering"], len(NOUNS)

    def best(model: str, key: str, pick: Callable = max) -> list[float]:
        return [100 * pick(retrieval[model][seed][key][1:]) / n for seed in SEEDS]

    def counts(source: str, key: str, grounds: Sequence[str] = ("green",)) -> tuple[int, int]:
        each = [rows[source][seed][ground] for seed in SEEDS for ground in grounds]
        return sum(row[key] for row in each), sum(row["n"] for row in each)

    def share(source: str, key: str, grounds: Sequence[str] = ("green",)) -> tuple[float, float]:
        return tuple(100 * x for x in wilson(*counts(source, key, grounds)))

    def less(one: str, other: str, key: str) -> tuple[float, float]:
        return tuple(100 * x for x in newcombe(*counts(one, key), *counts(other, key)))
    halves = np.divide(best("shipped", "image finds audio"), best("shipped", "image finds text"))
    others = [ground for ground in BACKGROUNDS if ground != "green"]
    words = interval(best("shipped", "image finds text", min))
    heard = interval(best("shipped", "audio finds text"))
    return {"C1, pictures find words, every layer from block 1 on (> 70 %)": in_words(*words, "%", above=70.0),
            "C1, spoken words find words, best layer (> 20 %)": in_words(*heard, "%", above=20.0),
            "C2, pictures find sounds, times as often as words (< .5)": in_words(*interval(halves), "times", digits=2, below=0.5),
            "C3, from pictures: drawn on green (> 80 %)": in_words(*share("picture", "ground"), "%", above=80.0),
            "C3, and things lost (< 10)": in_words(*less("none", "picture", "thing"), "points", below=10.0),
            "C4, from captions, points behind (< 10)": in_words(*less("picture", "caption", "ground"), "points", below=10.0),
            "C4, from the spoken word: drawn on green (< 50 %)": in_words(*share("speech", "ground"), "%", below=50.0),
            "C4, a random direction (< 2 %)": in_words(*share("random", "ground"), "%", below=2.0),
            "C5, from pictures, the seven other grounds (> 70 %)": in_words(*share("picture", "ground", others), "%", above=70.0)}


# ---------------------------------------------------------------- click a token

def name_of(token: int, vocabulary: Vocabulary, bpe) -> str:
    """A token as a reader sees it: the word, or the number of a code."""
    modality = vocabulary.modality(token)
    if modality == "special":
        return SPECIAL[token]
    own = token - vocabulary.ranges[modality].start
    return bpe.decode([own]) if modality == "text" else f"{modality} {own}"


@torch.no_grad()
def token_card(assistant, ids: torch.Tensor, place: int, picture: torch.Tensor) -> None:
    """All about one token of a row (T,) whose first 66 tokens are a picture (3, H, W): where it looks, what the lens says after
    each block comes next, and what is said of the next token if nobody may look at this one."""
    model, vocabulary, bpe = assistant.transformer, assistant.vocabulary, assistant.bpe
    row = ids[None]
    look = attention_of(model, row)[:, 0, :, place].mean(1)                                         # (layers, T): mean of heads
    fig, axes = plt.subplots(1, len(look) + 1, figsize=(1.55 * (len(look) + 1), 2.1))
    axes[0].imshow(show.pixels(picture), interpolation="nearest")
    if 1 <= place <= 64:
        y, x = divmod(place - 1, GRID[1])
        size = picture.shape[-1] / GRID[1]
        axes[0].add_patch(plt.Rectangle((x * size - 0.5, y * size - 0.5), size, size, fill=False, color="#D55E00", linewidth=2))
    for i, (axis, each) in enumerate(zip(axes[1:], look)):
        axis.imshow(each[1:65].reshape(GRID), cmap="cividis", vmin=0)                              # (64,) -> (8, 8)
        axis.set_title(f"block {i + 1}\n{each[1:65].sum():.0%} on the picture", fontsize=8.5)
    for axis in axes:
        axis.axis("off")
    name = name_of(int(ids[place]), vocabulary, bpe)
    show.figure(fig, f"Token {place}, {name!r}: where it looks, mean of the heads.")
    seen = states(model, row)
    lens = {label: model.head(model.norm(x[0, place])).softmax(-1).max(-1)
            for label, x in zip(layer_names(list(seen)), seen.values())}
    show.table([{"after blocks": label, "says next": name_of(int(best.indices), vocabulary, bpe), "sure": f"{best.values:.0%}"}
                for label, best in lens.items()], "The lens.")
    _knocked_out(model, row, place, lambda token: name_of(token, vocabulary, bpe))


def _knocked_out(model, row: torch.Tensor, place: int, name: Callable[[int], str]) -> None:
    """A table of what the model says otherwise if no later token may look at this one."""
    length = row.shape[1]
    before = model(row)[0].log_softmax(-1)                                                          # (T, V)
    with cut(model, no_look(length, range(place + 1, length), [place])):
        after = model(row)[0].log_softmax(-1)
    true = row[0, 1:, None]
    lost = (before[:-1].gather(1, true) - after[:-1].gather(1, true))[:, 0] / np.log(2)            # (T - 1,): bits
    words = [i for i in range(max(66, place), length - 1)]
    worst = sorted(words, key=lambda i: -float(lost[i]))[:4]
    show.table([{"before the word": name(int(row[0, i + 1])), "bits dearer": f"{lost[i]:+.1f}",
                 "said instead": name(int(after[i].argmax()))} for i in worst] or [{"": "no word comes after it"}],
               "If nobody may look at it: the words that suffer most.")


def click(assistant, ids: torch.Tensor, picture: torch.Tensor):
    """Show the picture's 64 tokens and the words of its caption as buttons: a click shows `token_card` below. Returns the
    widget; on a page without a kernel a sentence stands in its place."""
    import ipywidgets as widgets
    names = [name_of(int(token), assistant.vocabulary, assistant.bpe) for token in ids]
    shown = widgets.Output()

    def press(place: int) -> Callable:
        def pressed(button) -> None:
            shown.clear_output(wait=True)
            with shown:
                token_card(assistant, ids, place, picture)
        return pressed

    def button(place: int, text: str, width: str, colour: str | None = None) -> widgets.Button:
        made = widgets.Button(description=text, tooltip=f"token {place}: {names[place]}",
                              layout={"width": width, "height": "30px"})
        made.style.button_color = colour
        made.on_click(press(place))
        return made
    mean = torch.nn.functional.adaptive_avg_pool2d(picture[None], GRID)[0]                          # (3, 8, 8)
    mean = mean.permute(1, 2, 0).flatten(0, 1)                                                      # (64, 3)
    colours = ["#" + bytes((255 * pixel).round().clamp(0, 255).byte().tolist()).hex() for pixel in mean]
    cells = [button(place, "", "30px", colours[place - 1]) for place in range(1, 65)]
    grid = widgets.GridBox(cells, layout={"grid_template_columns": "repeat(8, 33px)"})
    edges = [button(place, names[place], "auto") for place in (0, 65, *range(66, len(ids)))]
    words = widgets.HBox(edges, layout={"flex_flow": "row wrap", "width": "420px"})
    box = widgets.VBox([widgets.HBox([grid, words]), shown])
    if show._in_notebook():
        from IPython.display import display
        display({**box._repr_mimebundle_(), "text/plain": "[A button for each token; they need a running kernel.]"}, raw=True)
    return box
