"""Figures of chapter 06: a box to type into, guidance, composing, words first, confidence, specialists, edits."""
import math
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.judges.metrics import newcombe, paired_bootstrap, t_interval, wilson
from mmcourse.matrix import cell, interval
from mmcourse.media import Text

# ---------------------------------------------------------------- type it yourself

def typed(assistant, caption: str, edit: str = "", seed: int = 0) -> None:
    """Draw a caption and, if there is an instruction, the picture once more, changed as it says; side by side.

    A picture is painted by the plain decoder. ValueError, with a sentence, for what cannot be asked.
    """
    if not caption.strip():
        raise ValueError("type a caption first, such as: a cat on the left, blue ground")
    given = Text(caption)
    pictures = [(textwrap.fill(f"“{caption}”", 30), assistant.generate([given], "image", seed=seed, decoder="vq"))]
    if edit.strip():
        changed = assistant.generate([pictures[0][1], Text(edit)], "image", seed=seed, decoder="vq")
        pictures.append((textwrap.fill(f"“{edit}”", 30), changed))
    show.panel.cards(pictures, "A caption of your own, drawn" + (", and the same picture, changed." if edit.strip() else "."))


def typing_box(assistant, caption: str = "a cat on the left, a book on the right, blue ground",
               edit: str = "make the ground green") -> None:
    """`typed` for one example, and below it a box to type others. A page without a kernel keeps the example."""
    typed(assistant, caption, edit)
    if not show._in_notebook():
        return
    import ipywidgets as widgets
    from IPython.display import display
    wide = {"layout": widgets.Layout(width="34em"), "style": {"description_width": "6em"}}
    boxes = [widgets.Text(caption, description="caption", **wide), widgets.Text(edit, description="then", **wide),
             widgets.IntText(0, description="seed", style=wide["style"], layout=widgets.Layout(width="12em"))]
    button, said, out = widgets.Button(description="Draw"), widgets.HTML(), widgets.Output()
    button.on_click(answer_click(lambda: typed(assistant, boxes[0].value, boxes[1].value, max(0, boxes[2].value)),
                                 button, said, out))
    bundle = widgets.VBox([*boxes, button, said, out])._repr_mimebundle_()
    bundle["text/plain"] = "[A box to type a caption and an instruction of your own. It needs a running kernel.]"
    display(bundle, raw=True)


def answer_click(job: Callable[[], None], button, said, out) -> Callable:
    """What a button does: run `job` into `out`, the button asleep meanwhile; what goes wrong is said in one sentence."""
    def run(_=None) -> None:
        button.disabled, said.value = True, "drawing ..."
        out.clear_output(wait=True)
        try:
            with out:
                job()
            said.value = ""
        except KeyboardInterrupt:
            said.value = "stopped"
        except Exception as error:                          # whatever it is, the reader gets a sentence
            said.value = f"That did not work: {error}"
        finally:
            button.disabled = False
    return run


# ---------------------------------------------------------------- how an answer is made better

def guidance(rows: Sequence[dict]) -> None:
    """Draw the rows `guidance` of `ch06_composing.json`: the share that is right, and how unlikely the drawn tokens
    are to the model."""
    scales, n = [r["guidance"] for r in rows], rows[0]["n"]
    shares = np.array([r["right"] / n for r in rows])
    bounds = np.array([wilson(r["right"], n) for r in rows]).T                                         # (2, scales)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.8), layout="constrained")
    left.errorbar(scales, shares, np.abs(bounds - shares), fmt="o-", capsize=4, color=show.COLOURS[0])
    left.set(ylim=(0, 1.02), xlabel="guidance", ylabel="both things right", xticks=scales)
    right.plot(scales, [r["bits"] for r in rows], "s-", color=show.COLOURS[1])
    right.set(xlabel="guidance", ylabel="bits a drawn token costs\n(plain model)", xticks=scales, ylim=(0, None))
    show.figure(fig, f"{n} held-out captions, one draft each. Left: right answers with 95 % intervals. Right: the price of "
                     "the drawn tokens by the model without guidance. Pushed too hard it draws what it does not itself expect.")


def composing(rows: Sequence[dict]) -> list[dict]:
    """Tabulate the rows `composing` of `ch06_composing.json`; returns for each number of drafts how much less often
    held-out pairs are right than pairs from training, with Newcombe's interval."""
    table, gaps = [], []
    for r in rows:
        low, high = wilson(r["right"], r["n"])
        table.append({"": r["split"], "drafts": r["drafts"], "both right": f"{r['right']} of {r['n']}",
                      "share": r["right"] / r["n"], "95 %": f"{low:.3f} to {high:.3f}",
                      "ceiling": r["ceiling"] / r["n"], "chance": r["chance"] / r["n"]})
    for drafts in dict.fromkeys(r["drafts"] for r in rows):
        seen, new = (next(r for r in rows if (r["split"], r["drafts"]) == (split, drafts))
                     for split in ("pairs from training", "held-out pairs"))
        low, high = newcombe(seen["right"], seen["n"], new["right"], new["n"])
        gaps.append({"drafts": drafts, "gap": seen["right"] / seen["n"] - new["right"] / new["n"], "low": low, "high": high})
    show.table(table, "Both things read in the picture, each on its side.")
    return gaps


def words_first(rows: Sequence[dict]) -> list[dict]:
    """Draw the rows of `ch06_said_first.json`; returns for each arm the mean gain by words first, over the seeds, and
    half the width of its 95 % interval (t)."""
    ways = {"direct": "directly", "said": "after its own word", "told": "after the true word"}
    found, fig = [], plt.figure(figsize=(8.2, 2.9), layout="constrained")
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    axes = fig.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axis, arm in zip(axes, arms, strict=True):
        own = [r for r in rows if r["arm"] == arm]
        for j, way in enumerate(ways):
            shares = [r[way] / r["n"] for r in own]
            axis.bar(j, np.mean(shares), color=show.COLOURS[j], label=ways[way])
            axis.plot([j] * len(shares), shares, "k.", markersize=5)
        axis.set_title(arm, fontsize=9)
        axis.set(xticks=[], ylim=(0, 1.02))
        mean, half = t_interval([(r["said"] - r["direct"]) / r["n"] for r in own])
        found.append({"arm": arm, "gain": mean, "half": half, "word": float(np.mean([r["word"] / r["n"] for r in own])),
                      "seeds": len(own)})
    axes[0].set_ylabel("right noun drawn")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    show.figure(fig, f"Small nets that draw what they hear, {rows[0]['n']} held-out clips, one draft each. Columns: how often "
                     "training had the two ways. Bars: means over the seeds, dots the seeds.")
    return found


def habits(matrix: dict, rows: Sequence[dict]) -> list[dict]:
    """Tabulate what each habit of answering gains: its rows of the matrix, and `composing` of `ch06_composing.json`.

    Of the matrix only shares are kept, so the two are compared as if their questions were different ones (Newcombe):
    on the same questions the interval is narrower still. Returns the rows.
    """
    def of(name: str, direction: str, with_it: str, without: str) -> dict:
        a, b = matrix[direction][with_it], matrix[direction][without]
        low, high = newcombe(round(a["score"] * a["n"]), a["n"], round(b["score"] * b["n"]), b["n"])
        return {"habit": name, "where": direction.replace("->", " → "), "without": f"{cell(b['score'])} ({interval(b)})",
                "with": f"{cell(a['score'])} ({interval(a)})", "gain": a["score"] - b["score"], "low": low, "high": high}
    out = []
    one, best = (next(r for r in rows if r["split"] == "held-out pairs" and r["drafts"] == d) for d in (1, 8))
    low, high = paired_bootstrap(best["hits"], one["hits"], np.random.default_rng(0))
    shares = [(r["right"] / r["n"], wilson(r["right"], r["n"])) for r in (one, best)]
    texts = [f"{share:.3f} ({a:.3f}-{b:.3f})" for share, (a, b) in shares]
    out.append({"habit": "draft eight, read back, keep one", "where": "text → image", "without": texts[0],
                "with": texts[1], "gain": shares[1][0] - shares[0][0], "low": low, "high": high})
    out += [of("say it first", "speech->image", "object_said_single", "object_direct_single"),
            of("say it first", "image+text->image", "both_said_single", "both_direct_single"),
            of("say it first", "image->speech", "word_single", "word_direct_single"),
            of("hear it at seven tempos", "speech->text", "word", "word_single")]
    for row in out:
        row["verdict"] = "helps" if row["low"] > 0 else "hurts" if row["high"] < 0 else "undecided"
    show.table([{**{k: row[k] for k in ("habit", "where", "without", "with")}, "gain": f"{row['gain']:+.3f}",
                 "95 %": f"{row['low']:+.3f} to {row['high']:+.3f}", "verdict": row["verdict"]} for row in out],
               "What each habit gains on held-out questions, answered alike in all else.")
    return out


# ---------------------------------------------------------------- confidence, specialists, ablations, edits


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
    """What one net pays against each kind of specialist, seed by seed: bits a token, with half the width of their 95 %
    interval (t), and a verdict.

    `bits` is what `specialists` returns. Where 0 lies inside the interval nothing is shown.
    """
    rows = []
    for direction, kinds in bits.items():
        for kind in (k for k in kinds if k != net):
            # the same sequences in each seed: compare in pairs
            paid = [a - b for a, b in zip(kinds[net], kinds[kind], strict=True)]
            mean, half = t_interval(paid) if len(paid) > 1 else (paid[0], math.inf)
            verdict = "undecided" if abs(mean) <= half else f"{kind if mean > 0 else net} is better"
            rows.append({"direction": direction, "against": kind, "paid (bits a token)": float(mean),
                         "95 %: ±": float(half), "verdict": verdict})
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
               "reference run's first part (`mmcourse study ch06_composition`), one seed. 95 %: about "
               f"± {2 * 0.5 / rows[0]['n'] ** 0.5:.2f} for one share.")


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
