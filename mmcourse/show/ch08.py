"""Figures, tables and verdicts of chapter 08: signs side by side, prompts, films, and who writes words in pictures.

What was measured is `results("ch08_words")`: the chapter loads it and hands it in as `found`. A row that is not there
yet is said to be "not measured". Intervals are over words; a word's mark is its mean over the trainings (seeds).
"""
from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.experiments.sign_data import ARMS, PIXELS
from mmcourse.experiments.spelling import (
    LAYOUT,
    LETTERS,
    PIECES,
    STRATA,
    VOCAB_SIZE,
    asked_words,
    pieces,
    prompt_ids,
    sign_bpe,
    stratum,
)
from mmcourse.judges import metrics
from mmcourse.judges.metrics import bootstrap_interval, paired_bootstrap, t_interval, wilson
from mmcourse.world.scene import BACKGROUNDS
from mmcourse.world.signs import check_word

TOLD = {"letters": "letters", "bpe": "pieces", "both": "both"}          # how a row calls a prompt, and how the page does
NEW = (1, 2)                            # strata of words that were never drawn
MARKS = ("o-", "s--", "^-.", "D:")
NOT = "not measured"
LEAST = 0.1                             # who writes fewer of the words has none to lose
GONE = 0.03                             # and who writes fewer than this has lost all
GREY = 0.62


# ---------------------------------------------------------------- pictures

def strips(pictures, titles: Sequence[str] | None = None, caption: str = "", *, columns: int = 4, width: float = 1.9) -> None:
    """Show pictures (B, 3, 32, 64) of signs, `columns` in a row, each `width` inches wide."""
    pictures = list(pictures)
    if not pictures:
        raise ValueError("no pictures to show: the list is empty")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures but {len(titles)} titles: give one title for each")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(width * columns, (width / 2 + (0.24 if titles else 0.06)) * rows),
                             squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.axis("off")
        if i < len(pictures):
            axis.imshow(show.pixels(pictures[i]), interpolation="nearest")
            if titles is not None:
                axis.set_title(titles[i], fontsize=8.5, pad=2)
    show.figure(fig, caption, colours=128)


def by_row(rows: Mapping[str, Sequence], titles: Sequence[str], caption: str = "", *, width: float = 1.45) -> None:
    """Show pictures of signs in named rows, {name: pictures}, under one line of titles."""
    fig, axes = plt.subplots(len(rows), len(titles), squeeze=False,
                             figsize=(1.1 + width * len(titles), (width / 2 + 0.08) * len(rows) + 0.25))
    for line, (name, pictures) in zip(axes, rows.items()):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(show.pixels(picture), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.grid(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8.5, pad=3)
    show.figure(fig, caption, colours=128)


def failures(drawn: Mapping[str, Sequence], words: Sequence[str], read: Mapping[str, Sequence[str]], caption: str = "", *,
             columns: int = 6) -> None:
    """Show the first pictures of each painter, {name: pictures}, that were read as another word than the one asked for."""
    wrong = {name: [i for i, said in enumerate(read[name]) if said != words[i]][:columns] for name in drawn}
    fig, axes = plt.subplots(len(drawn), columns, figsize=(1.1 + 1.35 * columns, 0.98 * len(drawn)), squeeze=False)
    for line, (name, own) in zip(axes, wrong.items()):
        count = sum(a != b for a, b in zip(read[name], words))
        line[0].set_ylabel(f"{name}\n({count} of {len(words)})", rotation=0, ha="right", va="center", fontsize=8.5)
        for axis, i in zip(line, [*own, *[None] * (columns - len(own))]):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            axis.grid(False)
            if i is not None:
                axis.imshow(show.pixels(drawn[name][i]), interpolation="nearest")
                axis.set_title(f"{words[i]}: {read[name][i] or 'nothing'}", fontsize=7.5, pad=2)
    show.figure(fig, caption, colours=128)


def half_painted(ids: torch.Tensor, codes: int, vqvae, rest: torch.Tensor | None = None, rows: int = 4) -> torch.Tensor:
    """Pictures of ids (B, N) of which some are still `codes`, not known yet: their places are grey.

    `rest`: what will stand there in the end. A decoder sees neighbours, so that known places look as they will.
    """
    known = torch.where(ids == codes, torch.zeros_like(ids) if rest is None else rest, ids)
    pictures = vqvae.decode(known.unflatten(1, (rows, -1)))                        # (B, N) -> (B, rows, N / rows)
    size = pictures.shape[2] // rows
    open_ = (ids == codes).unflatten(1, (rows, -1))[:, None]                       # (B, 1, rows, columns)
    return pictures.masked_fill(open_.repeat_interleave(size, 2).repeat_interleave(size, 3), GREY)


def watch(model, paint: Callable) -> list[torch.Tensor]:
    """What a painter is shown, pass for pass, while `paint()` paints, and what came of it: (B, N, ...) each.

    Under guidance a step asks twice and shows the same: it stands here once.
    """
    seen: list[torch.Tensor] = []

    def note(_, inputs) -> None:
        if not seen or not torch.equal(seen[-1], inputs[0]):
            seen.append(inputs[0].clone())
    hook = model.register_forward_pre_hook(note)
    try:
        done = paint()
    finally:
        hook.remove()
    return [*seen, done]


def prompts(words: Sequence[str], caption: str = "") -> None:
    """Draw the prompts of words of the kind `both`: places for pieces, for letters, for the ground and the row of the
    sign; each with its id and what that stands for."""
    rows = [prompt_ids(word, "both") for word in words]
    fig, axis = plt.subplots(figsize=(9.2, 0.55 * len(rows) + 0.55))
    where = dict(enumerate((*BACKGROUNDS, "above", "middle", "below"), VOCAB_SIZE + 1))
    halves = (("pieces", PIECES, "#BFDDF2"), ("letters", LETTERS, "#B5E3D3"), ("where", LAYOUT, "#F8DBA0"))
    for y, row in enumerate(rows):
        x = place = 0.0
        for name, size, colour in halves:
            for i in row[int(place):int(place) + size]:
                axis.add_patch(plt.Rectangle((x, y), 0.96, 0.86, facecolor=colour if i else "#F5F6F7", edgecolor="#5B6670"))
                said = sign_bpe().decode([i - 1]).strip() if 0 < i <= VOCAB_SIZE else where.get(i, "")
                axis.text(x + 0.48, y + 0.43, f"{said}\n{i}" if said else i, ha="center", va="center", fontsize=8,
                          color="#16202A")
                x += 1
            axis.text(x - size / 2, -0.25, name, ha="center", fontsize=10)
            x, place = x + 0.3, place + size
    axis.set(xlim=(-0.1, x), ylim=(len(rows), -0.45))
    axis.axis("off")
    show.figure(fig, caption, colours=32)


# ---------------------------------------------------------------- the rows of the study

def asked(found: Mapping) -> list[str]:
    """The test words in the order of their marks: some that were drawn in training, then all held-out test words."""
    return asked_words(found["seen"], found["plan"].get("words"))


def kinds(found: Mapping) -> np.ndarray:
    """The stratum of each test word: 0, 1 or 2."""
    return np.array([STRATA.index(stratum(word)) for word in asked(found)])


def rows_of(found: Mapping, arm: str, prompt: str = "both", unique: int | None = None, moved: bool = False) -> list[dict]:
    """The rows of one painter and prompt, one for each training; none if it was not measured."""
    wanted = {"arm": arm, "prompt": prompt, "unique": unique, "moved": moved}
    return [row for row in found.get("rows", []) if all(row[key] == value for key, value in wanted.items())]


def marks(rows: Sequence[Mapping]) -> np.ndarray:
    """1 for right and 0 for wrong, (trainings, words)."""
    return np.array([[int(mark) for mark in row["marks"]] for row in rows], float)


def share(found: Mapping, strata: Sequence[int], arm: str, prompt: str = "both", **case) -> tuple[float, float, float] | None:
    """The share of words of these strata that was written right, and its 95 % interval; None if not measured.

    Wilson's, for the number of *words*: three trainings on the same words are not three times as many words.
    """
    rows = rows_of(found, arm, prompt, **case)
    if not rows:
        return None
    own = marks(rows)[:, np.isin(kinds(found), strata)]
    return float(own.mean()), *wilson(round(own.mean() * own.shape[1]), own.shape[1])


def by_training(found: Mapping, strata: Sequence[int], *cases: Mapping) -> np.ndarray | None:
    """The marks (cases, trainings, words) of several cases, of the trainings that all of them have; None if there
    is none."""
    rows = [{row["seed"]: row for row in rows_of(found, **case)} for case in cases]
    seeds = sorted(set.intersection(*map(set, rows)))
    if not seeds:
        return None
    return np.array([marks([own[seed] for seed in seeds]) for own in rows])[:, :, np.isin(kinds(found), strata)]


def differences(found: Mapping, first: Mapping, second: Mapping, strata: Sequence[int] = NEW) -> np.ndarray | None:
    """The marks of the first case minus those of the second (trainings, words); None if one was not measured."""
    pair = by_training(found, strata, first, second)
    return None if pair is None else pair[0] - pair[1]


def difference(found: Mapping, first: Mapping, second: Mapping, strata: Sequence[int] = NEW) -> tuple[float, float, float] | None:
    """How much more of the words the first case writes than the second: value and interval (paired bootstrap over
    words); None if one of them was not measured."""
    return over_words(differences(found, first, second, strata))


def over_words(values: np.ndarray | None) -> tuple[float, float, float] | None:
    """The mean of (trainings, words), and its interval for other words of the same kind."""
    return None if values is None else (float(values.mean()), *bootstrap_interval(values.mean(0), np.random.default_rng(0)))


def percent(interval: Sequence[float] | None, sign: str = "") -> str:
    """`85 % [81, 88]`, or that it was not measured; with `sign` "+" a difference in points."""
    if interval is None:
        return NOT
    value, low, high = (round(100 * v) + 0.0 for v in interval)                    # + 0.0: no "-0"
    return f"{value:{sign}.0f}{'' if sign else ' %'} [{low:{sign}.0f}, {high:{sign}.0f}]"


def decide(values: np.ndarray | None, least: float = -np.inf, most: float = np.inf) -> str:
    """Whether the mean of (trainings, words) lies between two bounds: holds, FAILS, undecided, not measured.

    Two intervals have to agree, one for other words (bootstrap) and one for other trainings (Student's t); of a
    single training there is only the first.
    """
    if values is None:
        return NOT
    return agreed([over_words(values)[1:], *over_trainings(values.mean(1))], least, most)


def over_trainings(values: np.ndarray) -> list[tuple[float, float]]:
    """The interval of a number for other trainings, from that of each (trainings,); none if there is one training."""
    if len(values) < 2:
        return []
    mean, half = t_interval(values)
    return [(mean - half, mean + half)]


def agreed(intervals: Sequence[tuple[float, float]], least: float = -np.inf, most: float = np.inf) -> str:
    """The verdict that all intervals give; undecided if they differ."""
    said = {metrics.decide(low, high, above=least, below=most) for low, high in intervals}
    return said.pop() if len(said) == 1 else "undecided"


def weakest(said: Sequence[str]) -> str:
    """The verdict on a hypothesis of several parts: it holds if all of them do."""
    return next((verdict for verdict in ("FAILS", NOT, "undecided") if verdict in said), "holds")


# ---------------------------------------------------------------- tables and figures of the study

def strata_table(found: Mapping, caption: str = "", *, told: Sequence[str] = tuple(TOLD), fold: str = "") -> None:
    """Tabulate words right by painter, prompt and stratum, with intervals, the letters wrong, and the trainings."""
    lines = []
    for prompt in told:
        for arm in ARMS:
            rows = rows_of(found, arm, prompt)
            wrong, letters = (sum(row["letters"][kind][i] for row in rows for kind in STRATA[1:]) for i in (0, 1))
            lines.append({"told": TOLD[prompt], "painter": arm}
                         | {kind: percent(share(found, [i], arm, prompt)) for i, kind in enumerate(STRATA)}
                         | {"letters wrong (new words)": f"{wrong / letters:.0%}" if letters else NOT, "trainings": len(rows)})
    show.table(lines, caption, fold=fold)


def ceilings_table(found: Mapping, caption: str = "") -> None:
    """Tabulate what the judge reads on true pictures of the test words, as they are and through the tokenizer."""
    lines = []
    for world, ways in found.get("ceilings", {}).items():
        for way, name in (("true", "as they are"), ("tokens", "through the tokens"), ("latents", "through the latents")):
            k, n, heard, audited = (sum(ways[way][part][kind][i] for kind in STRATA)
                                    for part, i in (("words", 0), ("words", 1), ("audit", 0), ("audit", 1)))
            lines.append({"boards": world, "true pictures": name, "words the judge reads": percent((k / n, *wilson(k, n))),
                          "the audit": percent((heard / audited, *wilson(heard, audited)))})
    show.table(lines or [{"ceilings": NOT}], caption)


def audit_table(found: Mapping, caption: str = "", prompt: str = "both") -> None:
    """Tabulate judge and OCR engine side by side, over all strata, and how often they agree."""
    lines = []
    for arm in ARMS:
        rows = rows_of(found, arm, prompt)
        if rows:
            k, n, heard, audited = (sum(row[part][kind][i] for row in rows for kind in STRATA)
                                    for part, i in (("words", 0), ("words", 1), ("audit", 0), ("audit", 1)))
            lines.append({"painter": arm, "judge": f"{k / n:.0%} of {n}", "OCR engine": f"{heard / audited:.0%} of {audited}",
                          "both say the same": f"{sum(row['agree'] for row in rows) / audited:.0%}"})
    show.table(lines or [{"audit": NOT}], caption)


def _bars(axis, values: Sequence, place: Sequence[float], width: float, **look) -> None:
    """Bars with their intervals; what was not measured has none."""
    there = [(x, v) for x, v in zip(place, values) if v is not None]
    if there:
        x, v = [x for x, _ in there], np.array([v for _, v in there])
        axis.bar(x, v[:, 0], width, yerr=np.abs(v[:, 1:] - v[:, :1]).T, capsize=2, error_kw={"linewidth": 0.9}, **look)


def _missing(there, what: str) -> bool:
    """Whether nothing of it was measured yet; then a line says so, in the place of an empty figure."""
    if not there:
        show.caption(f"{what}: {NOT} yet (`mmcourse study ch08_words` does it).")
    return not there


def _legend(axis) -> None:
    """A legend, if anything was measured."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def accuracy(found: Mapping, caption: str = "") -> None:
    """Draw the words right: a panel for each stratum, in it the painters under each prompt, with intervals; dots are
    single trainings, the line is what the judge reads of true pictures through the tokens."""
    if _missing(found.get("rows"), "Words right"):
        return
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True)
    inside = kinds(found)
    for i, (axis, kind) in enumerate(zip(axes, STRATA)):
        for a, arm in enumerate(ARMS):
            place = [p + 0.2 * (a - 1.5) for p in range(len(TOLD))]
            _bars(axis, [share(found, [i], arm, prompt) for prompt in TOLD], place, 0.18, color=show.COLOURS[a], label=arm,
                  hatch=("", "//", "..", "xx")[a], edgecolor="white")
            for x, prompt in zip(place, TOLD):
                if rows := rows_of(found, arm, prompt):
                    axis.plot([x] * len(rows), marks(rows)[:, inside == i].mean(1), "k.", markersize=4)
        if "on the grid" in found.get("ceilings", {}):
            k, n = found["ceilings"]["on the grid"]["tokens"]["words"][kind]
            axis.axhline(k / n, color="black", linestyle=":", linewidth=1)
        axis.set(xticks=range(len(TOLD)), xticklabels=TOLD.values(), title=kind, ylim=(0, 1.02))
    axes[0].set_ylabel("words right")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    show.figure(fig, caption, colours=64)


def by_length_and_place(found: Mapping, caption: str = "", prompt: str = "letters") -> None:
    """Draw the share of new words right by length, and of their letters right by place, for each painter."""
    if _missing(any(rows_of(found, arm, prompt) for arm in ARMS), "Length and place"):
        return
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for a, arm in enumerate(ARMS):
        rows = rows_of(found, arm, prompt)
        if not rows:
            continue
        lengths = {n: np.array([row["by_length"][n] for row in rows]).sum(0) for n in rows[0]["by_length"]}
        lengths = {int(n): k / total for n, (k, total) in lengths.items() if total}
        places = np.array([row["by_place"] for row in rows]).sum(0)                # (8, 2)
        left.plot(list(lengths), list(lengths.values()), MARKS[a], label=arm)
        right.plot(range(1, len(places) + 1), places[:, 0] / places[:, 1].clip(min=1), MARKS[a], label=arm)
    left.set(xlabel="letters of the word", ylabel="right", ylim=(0, 1.02), title="whole words, by length")
    right.set(xlabel="letter", title="single letters, by their place")
    _legend(left)
    show.figure(fig, caption, colours=128)


def data_axis(found: Mapping, caption: str = "") -> None:
    """Draw the new words right against the number of different pictures in training; dots are single trainings."""
    if _missing(any(row["unique"] for row in found.get("rows", [])), "Few pictures"):
        return
    pools, inside = [2_000, 20_000, None], np.isin(kinds(found), NEW)
    fig, axis = plt.subplots(figsize=(7, 3.4))
    for a, arm in enumerate(ARMS):
        values = [share(found, NEW, arm, unique=n) for n in pools]
        there = [(x + 0.12 * (a - 1.5), v) for x, v in enumerate(values) if v is not None]
        if there:
            v = np.array([v for _, v in there])
            axis.errorbar([x for x, _ in there], v[:, 0], np.abs(v[:, 1:] - v[:, :1]).T, fmt=MARKS[a], capsize=3, label=arm)
        for x, n in enumerate(pools):
            if rows := rows_of(found, arm, unique=n):
                axis.plot([x + 0.12 * (a - 1.5)] * len(rows), marks(rows)[:, inside].mean(1), "k.", markersize=4)
    axis.set(xticks=range(3), xticklabels=["2,000", "20,000", "all of them"], xlabel="different pictures in training",
             ylabel="new words right", xlim=(-0.3, 2.3), ylim=(0, 1.02))
    _legend(axis)
    show.figure(fig, caption, colours=128)


def moved_table(found: Mapping, caption: str = "") -> None:
    """Tabulate the new words right with boards on the token grid and off it, beside the ceiling of the way there."""
    def top(world: str, way: str) -> str:
        words = found.get("ceilings", {}).get(world, {}).get(way, {}).get("words")
        k, n = (sum(words[kind][i] for kind in STRATA[1:]) for i in (0, 1)) if words else (0, 0)
        return f"{k / n:.0%}" if n else NOT
    lines = []
    for arm in ARMS:
        way, off = {"flow on pixels": "true", "flow on latents": "latents"}.get(arm, "tokens"), {"arm": arm, "moved": True}
        lines.append({"painter": arm, "on the grid": percent(share(found, NEW, arm)),
                      "off the grid": percent(share(found, NEW, **off)),
                      "off - on (points)": percent(difference(found, off, {"arm": arm}), "+"),
                      "ceiling on": top("on the grid", way), "ceiling off": top("off the grid", way)})
    show.table(lines, caption)


def price_table(found: Mapping, caption: str = "") -> None:
    """Tabulate what a painter costs: weights, steps of training, and for a picture passes, operations and time."""
    lines = []
    for arm, row in found.get("price", {}).items():
        steps = next((r["steps"] for r in rows_of(found, arm)), NOT)
        lines.append({"painter": arm, "weights": f"{row['parameters'] / 1e6:.2f} M", "training steps": steps,
                      "chosen": f"guidance {row['guidance']:g}" + (f", {row['steps']} steps" if row["steps"] else ""),
                      "passes a picture": row["passes"], "million operations": round(row["flops"] / 1e6), "CPU ms": row["ms"]})
    show.table(lines or [{"price": NOT}], caption)


def searches(found: Mapping, prompt: str) -> dict[str, list[dict]]:
    """The rows of the search under one prompt, {painter: one for each training}."""
    return {arm: [row for row in found.get("search", []) if (row["arm"], row["prompt"]) == (arm, prompt)] for arm in ARMS}


def search_figure(found: Mapping, caption: str = "") -> None:
    """Draw the new words right against passes for the best of 1, 2, 4, 8 drafts; thin: if the judge might choose."""
    if _missing(found.get("search"), "Search"):
        return
    fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for axis, prompt in zip(axes, ("letters", "bpe")):
        for a, (arm, runs) in enumerate(searches(found, prompt).items()):
            if not runs:
                continue
            passes, total = [row["passes"] for row in runs[0]["rows"]], sum(run["n"] for run in runs)
            for key, look in (("right", {"linewidth": 2, "label": arm}), ("possible", {"linewidth": 0.8, "markersize": 3})):
                axis.plot(passes, [sum(run["rows"][i][key] for run in runs) / total for i in range(len(passes))], MARKS[a],
                          color=show.COLOURS[a], **look)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        axis.set(xlabel="passes for a picture", title=f"told {TOLD[prompt]}", ylim=(0, 1.02))
    axes[0].set_ylabel("new words right")
    _legend(axes[0])
    show.figure(fig, caption, colours=128)


def gains(found: Mapping, prompt: str = "letters") -> dict[str, np.ndarray]:
    """What search adds at equal passes, {painter: best of as many drafts as all can pay, minus one draft, (trainings,
    words)}."""
    runs = {arm: own for arm, own in searches(found, prompt).items() if own}
    if not runs:
        return {}
    budget, out = min(own[0]["rows"][-1]["passes"] for own in runs.values()), {}
    for arm, own in runs.items():
        pays = max(i for i, row in enumerate(own[0]["rows"]) if row["passes"] <= budget or i == 0)
        first, best = (marks([run["rows"][i] for run in own]) for i in (0, pays))
        out[arm] = best - first
    return out


def pipe_table(found: Mapping, caption: str = "") -> None:
    """Tabulate the signs of the shipped model that the OCR engine reads, by what made the tokens and what the pixels."""
    pipe, lines = found.get("pipe"), []
    for tokens, said in (("true", "the true picture's"), ("written", "written by the model")) if pipe else ():
        plain, flow = (np.array([int(m) for m in pipe[f"{tokens}, {d}"]], float) for d in ("vq", "diffusion"))
        lines.append({"tokens": said, **{name: percent((v.mean(), *wilson(int(v.sum()), len(v)))) for name, v in
                      (("plain decoder", plain), ("diffusion decoder", flow))},
                      "diffusion - plain (points)": percent(
                          ((flow - plain).mean(), *paired_bootstrap(flow, plain, np.random.default_rng(0))), "+")})
    show.table(lines or [{"pipe": NOT}], caption)


def settings_figure(found: Mapping, caption: str = "", section: str = "settings") -> None:
    """Draw the words right at each guidance and number of steps; a ring marks what was chosen."""
    if _missing(found.get(section), "Settings"):
        return
    settings = found.get(section, {})
    fig, axes = plt.subplots(1, len(ARMS), figsize=(10, 2.4), sharey=True)
    for axis, arm in zip(axes, ARMS):
        if arm in settings:
            table, chosen = settings[arm]["table"], found["settings"][arm]["chosen"]
            for g, look in zip(sorted({row["guidance"] for row in table}), MARKS):
                own = [row for row in table if row["guidance"] == g]
                axis.plot([row["steps"] or 32 for row in own], [row["right"] for row in own], look, label=f"guidance {g:g}")
            for row in table:
                if all(row[key] == chosen[key] for key in chosen):
                    axis.plot(row["steps"] or 32, row["right"], "o", markersize=14, fillstyle="none", color="black")
        axis.set_xscale("log", base=2)
        axis.set(title=arm, xlabel="steps", xticks=[4, 8, 16, 32], xticklabels=[4, 8, 16, 32], ylim=(0, 1.02))
    axes[0].set_ylabel("words right")
    _legend(axes[0])
    show.figure(fig, caption, colours=128)


def longer_table(found: Mapping, caption: str = "") -> None:
    """Tabulate the words right, told pieces, after the study's training and after one that is several times as long:
    the first training of each painter."""
    runs = [("once", row) for arm in ARMS for row in rows_of(found, arm, "bpe") if row["seed"] == 0]
    runs += [(f"{row['factor']:g} times", row) for row in found.get("longer", [])]
    if _missing(found.get("longer"), "Longer trainings"):
        return
    runs.sort(key=lambda run: (ARMS.index(run[1]["arm"]), run[0] != "once"))
    show.table([{"painter": row["arm"], "operations": often}
                | {kind: percent((k / n, *wilson(k, n))) for kind, (k, n) in row["words"].items()}
                for often, row in runs], caption)


# ---------------------------------------------------------------- the hypotheses

def in_points(values: np.ndarray | None) -> str:
    """A difference in points with its interval over words, and that of each training."""
    said = percent(over_words(values), "+")
    return said if values is None or len(values) < 2 else f"{said} {points(values.mean(1))}"


def points(trainings: np.ndarray) -> str:
    """The number of each training in hundredths: `(-4, +41, +42)`."""
    return f"({', '.join(f'{round(100 * v) + 0.0:+.0f}' for v in trainings)})"


def _prompt_against_painter(found: Mapping) -> tuple[str, str]:
    """On words with a piece never drawn: whether letters gain more against pieces (mean of the painters) than the best
    painter against the worst, told letters; and a sentence with both."""
    cases = [{"arm": arm, "prompt": prompt} for prompt in ("letters", "bpe") for arm in ARMS]
    table = by_training(found, [2], *cases)
    if table is None:
        return NOT, NOT
    table = table.reshape(2, len(ARMS), *table.shape[1:])                          # (prompts, painters, trainings, words)

    def both(means):                                                               # (2, painters, ...) -> two numbers each
        return (means[0] - means[1]).mean(0), means[0].max(0) - means[0].min(0)
    rng, n = np.random.default_rng(0), table.shape[3]
    drawn = np.stack([table[..., rng.integers(n, size=n)].mean((2, 3)) for _ in range(1000)], -1)
    low, high = np.quantile(np.subtract(*both(drawn)), (0.025, 0.975)).tolist()
    prompt, painter = both(table.mean((2, 3)))
    rest = both(np.delete(table, ARMS.index(PIXELS), 1).mean((2, 3)))
    trainings = np.subtract(*both(table.mean(3)))
    return (agreed([(low, high), *over_trainings(trainings)], least=0),
            f"letters instead of pieces: {100 * prompt:+.0f} points (mean of the painters); best against worst painter, told "
            f"letters: {100 * painter:.0f}; difference {points(trainings)}; without the {PIXELS}: {100 * rest[0]:+.0f} and "
            f"{100 * rest[1]:.0f}")


def _loses_off_the_grid(found: Mapping) -> tuple[str, str]:
    """Whether painters on tokens lose more words off the grid than the flow on pixels, and a sentence."""
    table = by_training(found, NEW, *({"arm": arm, "moved": moved} for arm in ARMS[:3] for moved in (False, True)))
    if table is None:
        return NOT, NOT
    on, off = table[::2], table[1::2]                                              # (painters, trainings, words) each
    lost, (had, left) = on - off, (on[2].mean(), off[2].mean())
    said = (f"off the grid painters on tokens lose {100 * lost[:2].mean():.0f} points, the flow on pixels "
            f"{100 * lost[2].mean():.0f}")
    if had < LEAST:
        return "void", f"void: on the grid the flow on pixels writes {had:.0%} of the words and has none to lose"
    if left < GONE:
        return "void", f"void: the flow on pixels lost all that it had; {said} of {100 * had:.0f}"
    return decide(lost[:2].mean(0) - lost[2], least=0), said


def verdicts(found: Mapping) -> list[tuple[str, str, str]]:
    """The hypotheses H1 to H6: name, verdict (holds, FAILS, undecided, not measured), why."""
    told, out = {"prompt": "letters"}, [("H1 prompt", *_prompt_against_painter(found))]

    others = {arm: differences(found, {"arm": ARMS[0]} | told, {"arm": arm} | told) for arm in ARMS[1:]}
    out.append(("H2 paradigm", weakest([decide(d, least=0) for d in others.values()]),
                "in order minus " + "; ".join(f"{arm} {in_points(d)}" for arm, d in others.items())))

    harms = {arm: differences(found, {"arm": arm}, {"arm": arm} | told) for arm in ARMS}
    out.append(("H3 both", weakest([decide(d, -0.05, 0.05) for d in harms.values()]),
                "both minus letters: " + "; ".join(f"{arm} {in_points(d)}" for arm, d in harms.items())))

    few = differences(found, {"arm": ARMS[1], "unique": 2_000}, {"arm": ARMS[0], "unique": 2_000})
    out.append(("H4 data", decide(few, least=0), f"2,000 pictures, surest first minus in order: {in_points(few)}"))
    out.append(("H5 tokenizer", *_loses_off_the_grid(found)))

    gain = gains(found)
    pairs = [gain[ARMS[0]] - gain[arm] if {arm, ARMS[0]} <= set(gain) else None for arm in ARMS[1:]]
    why = "; ".join(f"{arm} {100 * g.mean():+.0f}" for arm, g in gain.items())
    out.append(("H6 search", weakest([decide(d, least=0) for d in pairs]),
                f"gain at equal passes in points: {why}" if why else NOT))
    return out


def _against(found: Mapping, first: str, second: str, prompt: str) -> str:
    """One painter against another on new words, as half a sentence."""
    values = differences(found, {"arm": first, "prompt": prompt}, {"arm": second, "prompt": prompt})
    if values is None:
        return f"the one against {second} was not measured"
    where = {"holds": "ahead of", "FAILS": "behind"}.get(decide(values, least=0), "not clearly ahead of or behind")
    return f"{where} {second} ({percent(over_words(values), '+')} points)"


def _span(values: Sequence[float | None]) -> str:
    """`12 to 40`, in hundredths, of those that were measured."""
    there = [100 * v for v in values if v is not None]
    if not there:
        return NOT
    low, high = f"{min(there):.0f}", f"{max(there):.0f}"
    return low if low == high else f"{low} to {high}"


def sentences(found: Mapping) -> list[str]:
    """The verdict: what the paradigm does, what the prompt does, what the tokenizer does. Numbers are of new words."""
    shares = {arm: share(found, NEW, arm, "letters") for arm in ARMS}
    said = ", ".join(f"{arm} {100 * s[0]:.0f} %" if s else f"{arm} {NOT}" for arm, s in shares.items())
    out = [f"Paradigm: told letters, the painters write of the new words: {said}; in order is "
           + ", ".join(_against(found, ARMS[0], arm, "letters") for arm in ARMS[1:]) + "."]

    def lost(kind: int) -> str:
        drops = (difference(found, {"arm": arm, "prompt": "letters"}, {"arm": arm, "prompt": "bpe"}, [kind]) for arm in ARMS)
        return _span([drop and drop[0] for drop in drops])
    left = _span([s and s[0] for s in (share(found, [2], arm, "bpe") for arm in ARMS)])
    out.append(f"Prompt: told pieces instead of letters, they lose {lost(0)} points on words that were drawn, {lost(1)} on new "
               f"words of drawn pieces, and {lost(2)} where a piece was never drawn, of which they write {left} %.")

    tops = [found.get("ceilings", {}).get(world, {}).get("tokens", {}).get("words") for world in ("on the grid", "off the grid")]
    top = [f"{100 * sum(t[k][0] for k in STRATA) / sum(t[k][1] for k in STRATA):.0f} %" if t else NOT for t in tops]
    off = {arm: share(found, NEW, arm, moved=True) for arm in ARMS}
    said = ", ".join(f"{arm} {100 * s[0]:.0f} %" if s else f"{arm} {NOT}" for arm, s in off.items())
    return [*out, f"Tokenizer: through its tokens the judge reads {top[0]} of true signs on the grid and {top[1]} off it; "
                  f"off the grid the painters write of the new words: {said}."]


def differences_table(found: Mapping, caption: str = "", strata: Sequence[int] = NEW) -> None:
    """Tabulate the differences that the text names, in points, with their intervals (paired bootstrap over words)."""
    lines = []
    for prompt in TOLD:
        for arm in ARMS[1:]:
            lines.append((f"{ARMS[0]} - {arm}", TOLD[prompt], {"arm": ARMS[0], "prompt": prompt}, {"arm": arm, "prompt": prompt}))
    for arm in ARMS:
        lines.append(("letters - pieces", arm, {"arm": arm, "prompt": "letters"}, {"arm": arm, "prompt": "bpe"}))
        lines.append(("both - letters", arm, {"arm": arm}, {"arm": arm, "prompt": "letters"}))
    show.table([{"difference": name, "at": at} | {STRATA[i]: percent(difference(found, a, b, [i]), "+") for i in strata}
                for name, at, a, b in lines], caption)


# ---------------------------------------------------------------- type a word

def written(word: str, paint: Callable, told: Sequence[str] = ("letters", "bpe"), read: Callable | None = None) -> None:
    """Show what each painter draws for a word, and what the judge reads there: `paint(word, arm, kind)` gives a picture
    (3, 32, 64), `read(pictures)` words.

    A word that the world has no picture for gets a sentence; so does one that the prompt has no room for, in this kind.
    """
    drawn, refused = {}, []
    for kind in told:
        try:
            check_word(word)
            drawn[kind] = [paint(word.lower(), arm, kind) for arm in ARMS]
        except ValueError as error:
            refused.append(f"{error}.")
    if drawn:
        fig, axes = plt.subplots(len(drawn), len(ARMS), figsize=(9.2, 1.55 * len(drawn)), squeeze=False)
        for line, (kind, pictures) in zip(axes, drawn.items()):
            for axis, arm, picture in zip(line, ARMS, pictures):
                axis.imshow(show.pixels(picture), interpolation="nearest")
                said = f"\nread as {read(picture[None])[0] or 'nothing'}" if read else ""
                axis.set_title(f"{arm}, told {TOLD[kind]}{said}", fontsize=8.5)
                axis.axis("off")
        known = "" if refused else f": {stratum(word.lower())}, " + " + ".join(
            sign_bpe().decode([i]).strip() for i in pieces(word))
        show.figure(fig, word.lower() + known, colours=128)
    for sentence in dict.fromkeys(refused):
        show.caption(sentence)


def ask(draw: Callable[[str], None], first: str) -> None:
    """A field for a word, and what `draw(word)` shows for it; without a kernel, what it shows for the first."""
    from ipywidgets import Text

    show.controlled(draw, {"word": Text(value=first, description="word", continuous_update=False)},
                    f"[A field for a word; without a kernel, what {html.escape(first)!r} gives.]",
                    "Type a word and press Enter. Without a kernel the picture stands still.")
