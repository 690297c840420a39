"""Drawings and verdicts of chapter 07: a flow in the plane, what sampling buys, what the sound decoder was measured to do."""
import math

import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.judges import metrics
from mmcourse.judges.metrics import t_interval


def arrows(velocity, times, states=None, data=None, caption: str = "", extent: float = 2.6) -> None:
    """The field `velocity(x, t)` as arrows at one time or several, side by side.

    `data` (M, 2) as grey dots; of `states`, a list of (N, 2) as a sampler returns it, where the points are at
    that time and the way that some of them came.
    """
    times = [times] if isinstance(times, int | float) else list(times)
    fig, axes = plt.subplots(1, len(times), figsize=(4.5 * len(times), 4.5), squeeze=False, layout="constrained")
    side = torch.linspace(-extent, extent, 13)
    grid = torch.cartesian_prod(side, side)                            # (169, 2)
    for axis, t in zip(axes[0], times, strict=True):
        with torch.no_grad():
            v = velocity(grid, t)
        if data is not None:
            axis.scatter(*data.T.tolist(), s=14, color="0.6", linewidths=0)
        length = v.norm(dim=1, keepdim=True)
        v = v / length.clamp(min=1e-6) * length.clamp(max=3) * 0.14    # long arrows would hide the rest
        axis.quiver(*grid.T.tolist(), *v.T.tolist(), color=show.COLOURS[5], angles="xy", scale_units="xy",
                    scale=1, width=0.004)
        if states is not None:
            at = round(t * (len(states) - 1))
            axis.scatter(*states[at].T.tolist(), s=5, color=show.COLOURS[0], linewidths=0, zorder=3)
            for way in torch.stack(states[:at + 1])[:, :25].unbind(1):  # (at + 1, 2) for each of the first points
                axis.plot(*way.T.tolist(), color=show.COLOURS[1], linewidth=1.3, alpha=0.9, zorder=4)
        axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", title=f"t = {t:.2f}")
        axis.grid(False)
    show.figure(fig, caption, colours=64)


def roads(states, shares: dict[float, float], caption: str = "") -> None:
    """Travellers on a line (list of (N, 1), as a sampler returns it): their paths over time, and where they end beside
    the `shares` of the data, {place: share}."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3), width_ratios=(3, 1), sharey=True, layout="constrained")
    path = torch.stack(states)[..., 0]                                 # (steps + 1, N)
    left.plot(torch.linspace(0, 1, len(path)), path[:, :60], color=show.COLOURS[0], linewidth=0.7, alpha=0.6)
    left.set(xlabel="time t", ylabel="place x")
    for place, share in shares.items():
        ended = (path[-1] - place).abs() < 0.5
        right.barh(place + 0.13, share, 0.24, color="0.6", label="data")
        right.barh(place - 0.13, ended.float().mean().item(), 0.24, color=show.COLOURS[0], label="travellers")
    right.set(xlabel="share", xlim=(0, 1))
    right.legend(*[part[:2] for part in right.get_legend_handles_labels()], fontsize=8, loc="center right")
    show.figure(fig, caption, colours=48)


def decide(pair, low: float = -math.inf, high: float = math.inf) -> str:
    """Whether a number (its value, half its 95 % interval) lies between two bounds: holds, FAILS, or undecided."""
    value, half = pair
    return metrics.decide(value - half, value + half, above=low, below=high)


def pm(pair, form: str = ".4f") -> str:
    """A value and half its interval, (value, half), as text; a half of 0 is left out."""
    return f"{pair[0]:{form}}" + (f" ± {pair[1]:{form.lstrip('+')}}" if pair[1] else "")


def decoder_verdicts(contrasts: dict) -> list[tuple[str, str, str]]:
    """H1 to H3 of chapter 07 in one world of `ch07_long.json`: the shipped decoder at eight steps against the plain one."""
    found = contrasts["shipped, 8 steps - plain"]
    return [("H1", decide(found["ratio"], high=0.5), f"FD is {pm(found['ratio'], '.2f')} times the plain decoder's"),
            ("H2", decide(found["psnr"], -3.1, 0), f"PSNR differs by {pm(found['psnr'], '+.2f')} dB"),
            ("H3", decide(found["nouns"], low=-0.01), f"nouns read differ by {pm([100 * x for x in found['nouns']], '+.1f')} "
                                                      "points of a hundred")]


def sampling_verdicts(contrasts: dict) -> list[tuple[str, str, str]]:
    """H4 of chapter 07 in one world of `ch07_long.json`, at equal price and at equal size; whether one step is regression;
    and what a second step adds."""
    def line(name, first, second, wanted=None):
        found = contrasts[f"{first} - {second}"]
        verdict = decide(found["fd"], high=0) if wanted is None else wanted(*found["fd"])
        return name, verdict, f"FD {pm(found['fd'], '+.4f')}, PSNR {pm(found['psnr'], '+.2f')} dB"
    return [line("H4", "flow, 2 steps", "wide regression"), line("H4, same size", "flow, 2 steps", "regression"),
            line("1 step is regression", "flow, 1 step", "regression",
                 lambda value, half: "FAILS" if abs(value) > half else "undecided"),
            line("2 steps better than 1", "flow, 2 steps", "flow, 1 step")]


def prices(sets: dict, flops: dict, caption: str = "") -> None:
    """Draw FD against the price of a picture in each world of `ch07_long.json`: flows over their steps, regressions."""
    fig, axes = plt.subplots(1, len(sets), figsize=(9, 3.4), layout="constrained", squeeze=False)
    for axis, (world, found) in zip(axes[0], sets.items(), strict=True):
        rows = found["rows"]
        for i, (kind, style) in enumerate((("flow", "o-"), ("shipped", "s--"))):
            names = [name for name in rows if name.startswith(f"{kind}, ")]
            price = [(flops["plain"] + int(name.split()[1]) * flops["flow"]) / 1e6 for name in names]
            axis.errorbar(price, [rows[n]["fd"][0] for n in names], [rows[n]["fd"][1] for n in names], fmt=style, capsize=3,
                          color=show.COLOURS[i], label={"flow": "flow, 3 trainings", "shipped": "flow, shipped"}[kind])
        for i, (kind, mark) in enumerate((("regression", "D"), ("wide regression", "P")), 2):
            axis.errorbar((flops["plain"] + flops[kind]) / 1e6, *[[x] for x in rows[kind]["fd"]], fmt=mark, capsize=3,
                          markersize=8, color=show.COLOURS[i], label=f"{kind}, 3 trainings")
        axis.axhline(rows["plain"]["fd"][0], color="black", linestyle=":", label="plain decoder")
        axis.set(xscale="log", xlabel="million operations a picture", ylabel="FD, same scenes", title=world, ylim=(0, None))
        axis.set_xticks([300, 500, 1000, 2000], ["300", "500", "1,000", "2,000"])
        axis.minorticks_off()
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    show.figure(fig, caption, colours=64)


def sound_table(found: dict, names: list[str], caption: str = "", brief: bool = False) -> None:
    """Tabulate some systems of one set of `ch07_sound.json`: each compared with the truth, and with the plain decoder.

    `brief`: five columns.
    """
    rows = found["rows"]

    def line(name):
        row = rows[name]
        gains = (row.get(f"{key}_gain") for key in ("stoi", "pesq"))
        stoi, pesq = (f"{g[0]:+.3f} ({g[1]:+.3f} to {g[2]:+.3f})" if g else "–" for g in gains)
        out = {"mel": name, "STOI": f"{row['stoi']:.3f}", "against plain": stoi, "PESQ": f"{row['pesq']:.2f}",
               "vs plain": pesq, "words heard": f"{row['words']:.0%}" if "words" in row else "–",
               "mel distance, dB": f"{row['mel_db']:.2f}",
               "squared error / plain": f"{row['mse'] / rows['plain']['mse']:.2f}", "FD": f"{row['fd']:.1f}",
               "sharpness / true": f"{row['sharpness'] / rows['true mel']['sharpness']:.2f}"}
        return {key: out[key] for key in ("mel", "STOI", "against plain", "PESQ", "FD")} if brief else out
    show.table([line(name) for name in names], caption)


def sound_steps(settings: dict, caption: str = "") -> None:
    """Draw STOI, PESQ and FD against Euler's steps, with full and half the noise at the start, beside
    the plain decoder.

    `settings`: the rows of `ch07_sound.json` on the clips on which steps and noise were chosen.
    """
    flows = [row | {"name": name} for name, row in settings.items() if name.startswith("flow")]
    fig, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
    for axis, key, label in zip(axes, ("stoi", "pesq", "fd"), ("STOI", "PESQ", "FD of the mels"),
                                strict=True):
        for noise, style in (("", "o-"), (", grain 0.5", "s--")):  # as the rows of the file are called
            path = [r for r in flows if r["name"].endswith((f"step{noise}", f"steps{noise}"))]
            axis.plot([int(r["name"].split()[1]) for r in path], [r[key] for r in path], style,
                      label="flow" + noise.replace("grain", "noise"))
        for name, colour in (("plain", "black"), ("mean of 8 samples", "#777777")):
            axis.axhline(settings[name][key], color=colour, linestyle=":" if name == "plain" else "-.",
                         label=name)
        axis.set_xscale("log", base=2)
        axis.set(xticks=[1, 2, 4, 8, 16], xticklabels=[1, 2, 4, 8, 16], xlabel="Euler steps", title=label)
    axes[2].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    show.figure(fig, caption, colours=48)


def sound_verdicts(found: dict, chosen: str, draw: str, short: dict | None = None) -> list[tuple[str, str, str]]:
    """The hypotheses S1 to S4 of chapter 07 on one set of `ch07_sound.json`: name, verdict, why.

    `short`: the rows of three short trainings each, which S3 is asked of as well.
    """
    rows = found["rows"]
    plain, one, best = rows["plain"], rows[draw], rows[chosen]
    fd, error = one["fd"] / plain["fd"], one["mse"] / plain["mse"]
    alike = max(abs(rows["flow, 1 step"][k] - rows["regression"][k]) / rows["regression"][k]
                for k in ("stoi", "mel_db"))
    better = best["pesq_gain"][1] > 0 or best["mel_db"] < plain["mel_db"]
    out = [("S1", "holds" if fd <= 0.5 else "FAILS", f"a draw's FD is {fd:.2f} times the plain decoder's"),
           ("S2", "holds" if one["stoi_gain"][2] < 0 and 1 < error <= 2.05 else "FAILS",
            f"its STOI differs by {one['stoi_gain'][0]:+.3f}, its squared error is {error:.2f} times as large"),
           ("S3, trained long", "holds" if alike < 0.02 else "FAILS",
            f"one training: one step and regression differ by at most {alike:.1%} in STOI and mel distance")]
    if short:
        gaps = [short[f"flow, 1 step, seed {i}"]["stoi_gain"][0] - short[f"regression, seed {i}"]["stoi_gain"][0]
                for i in range(3)]
        gap = t_interval(gaps)
        out.append(("S3, trained briefly", decide(gap, -0.01, 0.01),
                    f"three trainings: one step's STOI differs from regression's by {pm(gap, '+.3f')}"))
    return [*out, ("S4", "holds" if best["stoi_gain"][2] >= 0 and better else "FAILS",
                   f"'{chosen}': STOI {best['stoi_gain'][0]:+.4f}, PESQ {best['pesq_gain'][0]:+.3f}, mel distance "
                   f"{best['mel_db'] - plain['mel_db']:+.2f} dB")]
