"""Chapter 14's figures, tables, verdicts and widget: the law through small nets, what it foretold, and what training costs.

What was measured is `results("ch14_law")`: the chapter loads it and hands it in as `found`.
"""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from mmcourse import show
from mmcourse.experiments.bill import DEVICES, GPT4O_FLOPS, PUBLISHED, Bill, guessed_bill
from mmcourse.experiments.scaling import COUNTS, Law
from mmcourse.judges.metrics import decide
from mmcourse.show.ch12 import verdict

FITTED = {"all": "all tokens of the mixture", "text": "caption", "image | text": "picture after its caption", "image": "picture",
          "text | image": "caption after its picture", "audio | word": "sound after its word"}
KNOWN = ("text", "image", "image | text", "text | image")              # roles whose true entropy is known
MARKS = "osD^vP"
DIM = "0.55"                            # of lines beside the data
SPEECH = "audio | word"


def law_of(found: Mapping, role: str, count: str = "hidden", laws: Mapping | None = None) -> Law:
    """The fitted law of a role; `laws`: those to look in, by default those through all runs."""
    row = (found["laws"] if laws is None else laws)[count][role]
    return Law(*(row[name] for name in ("E", "A", "a", "B", "b")))


def largest_run(found: Mapping, width: int | None = None) -> Mapping:
    """The row of a width, by default the largest net, at the largest budget (seed 0)."""
    width = max(row["width"] for row in found["runs"]) if width is None else width
    return max((row for row in found["runs"] if row["width"] == width and row["seed"] == 0), key=lambda row: row["steps"])


# ---------------------------------------------------------------- the law

def losses(found: Mapping, role: str = "image | text", count: str = "hidden", caption: str = "") -> None:
    """Bits a token against data, a line for each net, and against size, a line for each budget: dots are runs, lines the law;
    its floor is dotted, the true entropy dashed."""
    law, runs = law_of(found, role, count), found["runs"]
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.6), sharey=True)
    for axis, along, by, said in ((axes[0], "tokens", count, "parameters"), (axes[1], count, "tokens", "tokens")):
        values = sorted({row[by] if by == count else row["steps"] for row in runs})
        reach = np.geomspace(0.8 * min(row[along] for row in runs), 1.25 * max(row[along] for row in runs), 60)
        for i, value in enumerate(values):
            own = [row for row in runs if (row[by] if by == count else row["steps"]) == value]
            fixed = float(np.mean([row[by] for row in own]))
            line = law(fixed, reach) if by == count else law(reach, fixed)
            colour = show.COLOURS[i % len(show.COLOURS)]
            axis.plot(reach, line, "-", color=colour, lw=1)
            axis.plot([row[along] for row in own], [row["bits"][role] for row in own], MARKS[i % len(MARKS)], color=colour,
                      ms=5, label=f"{human(fixed)} {said}")
        axis.set(xscale="log", xlabel="tokens read" if along == "tokens" else f"parameters ({count})")
        ticks = sorted({float(np.mean([row[along] for row in runs if row["steps" if along == "tokens" else count] == at]))
                        for at in {row["steps" if along == "tokens" else count] for row in runs}})
        axis.set_xticks(ticks, [human(tick) for tick in ticks], fontsize=9)
        axis.minorticks_off()
        axis.legend(fontsize=8)
    measured = [row["bits"][role] for row in runs]
    if max(measured) > 1.5 * min(measured):
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter("")
    _floor_lines(axes, found, role, law)
    axes[0].set_ylabel(f"bits a token: {FITTED[role]}")
    show.figure(fig, caption or f"{FITTED[role].capitalize()}: {len(runs)} runs (dots) and the law through them (lines). "
                "Dotted: its floor; dashed: the truth; where there is none, it lies below the picture.")


def _floor_lines(axes, found: Mapping, role: str, law: Law) -> None:
    low = min(row["bits"][role] for row in found["runs"])
    for axis in axes:
        if law.E > low / 4:
            axis.axhline(law.E, color="black", ls=":", lw=1.2, label="_")
        if found["truth"]["bits"].get(role, 0) > low / 4:
            axis.axhline(found["truth"]["bits"][role], color=DIM, ls="--", lw=1.5, label="_")


def human(number: float) -> str:
    """25k, 1.5M, 61M, 9.2T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def floors(found: Mapping, count: str = "hidden") -> None:
    """The fitted floor of each role beside the true entropy, where that is known."""
    def line(role: str) -> dict:
        row, true = found["laws"][count][role], found["truth"]["bits"].get(role)
        low, high = row["intervals"]["E"]
        unknown = found["truth"]["split unknown"].get(role)
        return {"bits a token": FITTED[role], "fitted E": f"{row['E']:.3f}", "95 %": f"{low:.3f} to {high:.3f}",
                "the truth": "not known" if true is None else f"{true:.3f}",
                "to whom the split is unknown": "" if unknown is None else f"{unknown:.3f}",
                "the best run": f"{min(run['bits'][role] for run in found['runs']):.3f}"}
    show.table([line(role) for role in FITTED],
               "The floor of the law is what it takes for unpredictable. The truth is computed from how the world is drawn; "
               "which combinations are held out is a matter of a hash, which no net can learn from what it reads.")


def exponents(found: Mapping) -> None:
    """The exponents of the same runs, their nets counted three ways."""
    def cell(role: str, count: str, name: str) -> str:
        row = found["laws"][count][role]
        value = row["b"] / (row["a"] + row["b"]) if name == "share" else row[name]
        low, high = row["intervals"][name]
        return f"{value:.2f} ({low:.2f} to {high:.2f})"
    rows = [{"bits a token": FITTED[role], "parameters": count, "a (size)": cell(role, count, "a"),
             "b (data)": cell(role, count, "b"), "best size grows as C to the": cell(role, count, "share")}
            for role in FITTED for count in COUNTS]
    show.table(rows, "95 % intervals from resampled runs.")


def rates(found: Mapping) -> None:
    """How the loss depends on the learning rate, for the sizes at which it was tuned."""
    fig, axis = plt.subplots(figsize=(5.6, 3.0))
    for i, row in enumerate(found["rates"].values()):
        factors = [float(factor) for factor in row["losses"]]
        axis.plot(factors, list(row["losses"].values()), MARKS[i] + "-",
                  label=f"{human(row['hidden'])}: best at {row['best']:.2g}")
    axis.set(xscale="log", xlabel="learning rate, times that of the reference", ylabel="bits a token, all")
    axis.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axis.minorticks_off()
    axis.legend(title="hidden parameters", fontsize=9)
    show.figure(fig, "The loss at the smallest budget against the learning rate, on scenes for choosing.")


# ---------------------------------------------------------------- what was foretold

def error(found: Mapping, role: str, width: int | None = None, count: str = "hidden") -> float:
    """How far what was foretold lies from what was measured, as a share of that: positive if too much was foretold."""
    row = largest_run(found, width)
    return found["predictions"][str(row["width"])][count][role]["bits"] / row["bits"][role] - 1


def foretold(found: Mapping, count: str = "hidden") -> None:
    """Foretold from nets of less than a million parameters, and measured: the larger nets and the reference."""
    rows = []
    for name, roles in found["predictions"].items():
        if name == "laws":
            continue
        measured = found["reference"] if name == "reference" else largest_run(found, int(name))
        for role, row in roles[count].items():
            if role in measured["bits"]:
                low, high = row["interval"]
                rows.append({"net": "the reference" if name == "reference" else f"{human(measured['hidden'])} hidden",
                             "bits a token": FITTED[role], "foretold": f"{row['bits']:.3f}", "95 %": f"{low:.3f} to {high:.3f}",
                             "measured": f"{measured['bits'][role]:.3f}",
                             "inside": "yes" if low <= measured["bits"][role] <= high else "no",
                             "off by": f"{row['bits'] / measured['bits'][role] - 1:+.0%}"})
    show.table(rows, "Foretold before the nets were trained, from smaller ones alone.")


def foretold_figure(found: Mapping, count: str = "hidden", caption: str = "") -> None:
    """What was foretold against what was measured, with intervals; on the line is right."""
    fig, axis = plt.subplots(figsize=(5.4, 4.2))
    names = [name for name in found["predictions"] if name != "laws"]
    for i, name in enumerate(names):
        measured = found["reference"] if name == "reference" else largest_run(found, int(name))
        roles = [role for role in FITTED if role in measured["bits"]]
        rows = [found["predictions"][name][count][role] for role in roles]
        x, y = [measured["bits"][role] for role in roles], [row["bits"] for row in rows]
        spread = np.array([[max(row["bits"] - row["interval"][0], 0), max(row["interval"][1] - row["bits"], 0)]
                           for row in rows]).T
        axis.errorbar(x, y, spread, fmt=MARKS[i], color=show.COLOURS[i], capsize=2,
                      label="the reference" if name == "reference" else f"{human(measured['hidden'])} hidden")
        if i == len(names) - 2:                                        # the largest net: say which point is which
            for role, at, high in zip(roles, x, y):
                axis.annotate(role, (at, high), xytext=(6, -10), textcoords="offset points", fontsize=8)
    ends = [0.9 * min(axis.get_xlim()[0], axis.get_ylim()[0]), 1.1 * axis.get_xlim()[1]]
    ends[0] = max(ends[0], 0.003)
    axis.plot(ends, ends, color=DIM, lw=1, ls="--")
    axis.set(xscale="log", yscale="log", xlim=ends, xlabel="measured, bits a token", ylabel="foretold")
    axis.legend(fontsize=9)
    show.figure(fig, caption or "Foretold from small nets against measured; on the dashed line both are the same.")


def pair_bits(found: Mapping) -> dict[str, float]:
    """What a caption with its picture costs the largest net in each order, and the truth: bits."""
    bits, n = largest_run(found)["bits"], found["truth"]["tokens"]
    return {"caption, then picture": n["text"] * bits["text"] + n["image"] * bits["image | text"],
            "picture, then caption": n["image"] * bits["image"] + n["text"] * bits["text | image"],
            "the truth": n["image"] * found["truth"]["bits"]["image"]}


def together(parts: Mapping[str, str]) -> str:
    """The verdict of a claim that has several parts (each as `decide` says it): it fails if one does."""
    return next((word.lower() for word in ("FAILS", "undecided") if word in parts.values()), "holds")


def floor_parts(found: Mapping) -> dict[str, str]:
    """S3, role by role: where the interval of the fitted floor lies."""
    within = {"text": 0.02, "image": 0.2}
    out = {}
    for role in (*KNOWN, SPEECH):
        (low, high), true = found["laws"]["hidden"][role]["intervals"]["E"], found["truth"]["bits"].get(role)
        if role in within:
            out[role] = decide(low, high, above=true * (1 - within[role]), below=true * (1 + within[role]))
        elif role == SPEECH:
            out[role] = "holds" if high > 3 * low else "FAILS"
        else:
            out[role] = "FAILS" if low > 0.01 else decide(low, high, below=0.1)
    return out


def law_verdicts(found: Mapping, width: int = 10) -> dict[str, str]:
    """What was expected of the law, and what came: S1 to S6 of `ch14_law`."""
    laws, wide = found["laws"], largest_run(found)
    drawn, widths = laws["hidden"]["image | text"], sorted({row["width"] for row in found["runs"]})
    first = min((row for row in found["runs"] if row["width"] == wide["width"]), key=lambda row: row["steps"])
    by_size = largest_run(found, widths[1])["bits"]["image | text"] / wide["bits"]["image | text"]
    by_data = first["bits"]["image | text"] / wide["bits"]["image | text"]
    data = {"a": decide(*drawn["intervals"]["a"], above=0.2, below=0.7),
            "b": decide(*drawn["intervals"]["b"], above=0.7, below=1.3), "more": "holds" if by_data > by_size else "FAILS"}
    ratios = {role: laws["all"][role]["a"] / laws["hidden"][role]["a"] for role in FITTED}
    ordered = all(laws["all"][role]["a"] > laws["with head"][role]["a"] > laws["hidden"][role]["a"] and 1.2 <= ratio <= 2
                  for role, ratio in ratios.items())
    floors, true = floor_parts(found), found["truth"]["bits"]
    off = {role: error(found, role) for role in FITTED}
    bound = {"all": 0.05, "image": 0.05, "text": 0.01, SPEECH: 0.05, "image | text": 0.3}
    near = all(abs(off[role]) <= limit for role, limit in bound.items()) and abs(off["text | image"]) > 0.3
    said, came = found["predictions"]["reference"]["hidden"], found["reference"]["bits"]
    times = said["image | text"]["bits"] / came["image | text"]
    pair = pair_bits(found)
    apart = pair["caption, then picture"] / pair["picture, then caption"] - 1
    return {
        "S1: data count for more than size": f"{together(data):{width}} pictures: a {drawn['a']:.2f}, b {drawn['b']:.2f}; 27 "
        f"times the size {by_size:.1f} times fewer bits, 8 times the data {by_data:.1f} times",
        "S2: the wider the count, the larger a": verdict(ordered, ", ".join(f"{r} x {v:.2f}" for r, v in ratios.items()), width),
        "S3: the floors": f"{together(floors):{width}} " + ", ".join(
            f"{r} {laws['hidden'][r]['E']:.3f} ({true[r]:.3f}): {floors[r].lower()}" for r in KNOWN)
        + f"; sound {laws['hidden'][SPEECH]['E']:.3f}: {floors[SPEECH].lower()}",
        "S4: the largest net is foretold": verdict(near, ", ".join(f"{r} {v:+.1%}" for r, v in off.items()), width),
        "S5: the reference is not": verdict(times > 2 and came[SPEECH] < said[SPEECH]["bits"],
                                            f"pictures: {times:.1f} times what was measured; sound: {came[SPEECH]:.2f} measured, "
                                            f"{said[SPEECH]['bits']:.2f} foretold", width),
        "S6: a pair costs the same in both orders": verdict(
            abs(apart) <= 0.05, "; ".join(f"{name} {bits:.1f} bits" for name, bits in pair.items()), width)}


# ---------------------------------------------------------------- what training costs

def devices() -> None:
    """What computes, what it promises, draws and costs."""
    show.table([{"": d.name, "peak, TFLOP/s": f"{d.peak / 1e12:.0f} ({d.precision})", "watts": f"{d.watts:g}",
                 "dollars an hour": f"{d.price[0]:.2f} to {d.price[1]:.2f}", "source of the price": d.source}
                for d in DEVICES.values()], "Peaks are the makers', of dense matrices.")


def published() -> None:
    """Runs whose hours were told, and which share of the peak they mean."""
    show.table([{"": run.name, "parameters": human(run.parameters), "tokens": human(run.tokens),
                 "hours": f"{run.hours:,} {run.device}", "MFU by 6ND": f"{run.mfu():.1%}",
                 "with attention": f"{run.mfu(attention=True):.1%}" if run.layers else "-",
                 "source": run.source} for run in PUBLISHED],
               "; ".join(f"{run.name}: {run.note}" for run in PUBLISHED if run.note) + ".")


def bill_text(bill: Bill, devices: int = 8) -> str:
    """A bill in one sentence."""
    low, high = bill.dollars
    return (f"{human(bill.parameters)} parameters, {human(bill.tokens)} tokens: {bill.flops:.2g} operations; at {bill.mfu:.0%} "
            f"of the peak {human(bill.hours)} {bill.device} hours, {bill.days(devices):,.1f} days on {devices:,}; {money(low)} "
            f"to {money(high)} dollars; {human(bill.kwh)} kWh for the devices alone.")


def money(dollars: float) -> str:
    """0.12; 1,200; 3.4 million."""
    if dollars >= 1e6:
        return f"{dollars / 1e6:,.1f} million"
    return f"{float(f'{dollars:.2g}'):,.0f}" if dollars >= 10 else f"{dollars:.2g}"


def calculator():
    """Sliders for size, data, device and its use; what a run would cost, below."""
    from ipywidgets import Dropdown, FloatLogSlider, FloatSlider, IntSlider

    def draw(billions: float, trillions: float, device: str, mfu: float, devices: int) -> None:
        show.caption(bill_text(Bill(billions * 1e9, trillions * 1e12, device, mfu), devices))
    return show.interact(
        draw, billions=FloatLogSlider(value=7, min=-3, max=3, step=0.05, description="parameters, B", readout_format=".3g"),
        trillions=FloatLogSlider(value=9.2, min=-4, max=2, step=0.05, description="tokens, T", readout_format=".3g"),
        device=Dropdown(options=list(DEVICES), value="A100", description="device"),
        mfu=FloatSlider(value=0.4, min=0.05, max=0.7, step=0.01, description="MFU", readout_format=".2f"),
        devices=IntSlider(value=1024, min=1, max=16384, description="devices"))


def gpt4o() -> None:
    """What training GPT-4o may have cost: a range, since nothing is public."""
    guess = guessed_bill()
    low, high = ({name: pair[end] for name, pair in guess.items()} for end in (0, 1))
    show.caption(f"GPT-4o: not public. If it took {GPT4O_FLOPS[0]:.0e} to {GPT4O_FLOPS[1]:.0e} operations: {human(low['hours'])} "
                 f"to {human(high['hours'])} H100 hours, {money(low['dollars'])} to {money(high['dollars'])} dollars of rent, "
                 f"{low['kwh'] / 1e6:.0f} to {high['kwh'] / 1e6:.0f} GWh. For the last run alone: neither people, nor data, nor "
                 "what was tried before.")
