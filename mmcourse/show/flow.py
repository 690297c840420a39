"""Drawings of chapter 07: a flow in the plane, and what the sound decoder was measured to do."""
import torch
from matplotlib import pyplot as plt

from mmcourse import show


def arrows(velocity, t: float, states=None, data=None, caption: str = "", extent: float = 2.6) -> None:
    """The field `velocity(x, t)` as arrows at time t; `data` (M, 2) as grey dots; of `states`, a list of
    (N, 2) as a sampler returns it, where the points are at time t and the way that they came."""
    fig, axis = plt.subplots(figsize=(3.6, 3.6))
    side = torch.linspace(-extent, extent, 13)
    grid = torch.cartesian_prod(side, side)                            # (169, 2)
    with torch.no_grad():
        v = velocity(grid, t)
    if data is not None:
        axis.scatter(*data.T.tolist(), s=3, color="0.75", linewidths=0)
    length = v.norm(dim=1, keepdim=True)
    v = v / length.clamp(min=1e-6) * length.clamp(max=3) * 0.14        # long arrows would hide the rest
    axis.quiver(*grid.T.tolist(), *v.T.tolist(), color=show.COLOURS[5], angles="xy", scale_units="xy",
                scale=1, width=0.004)
    if states is not None:
        at = round(t * (len(states) - 1))
        for way in torch.stack(states[:at + 1])[:, :40].unbind(1):  # (at + 1, 2) for each of the first points
            axis.plot(*way.T.tolist(), color=show.COLOURS[1], linewidth=0.6, alpha=0.6)
        axis.scatter(*states[at].T.tolist(), s=3, color=show.COLOURS[0], linewidths=0, zorder=3)
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", title=f"t = {t:.2f}")
    axis.grid(False)
    show.figure(fig, caption)


def sound_table(found: dict, names: list[str], caption: str = "") -> None:
    """Tabulate some systems of one set of `ch07_sound.json`: each compared with the truth, and with
    the plain decoder."""
    rows = found["rows"]

    def line(name):
        row = rows[name]
        gains = (row.get(f"{key}_gain") for key in ("stoi", "pesq"))
        stoi, pesq = (f"{g[0]:+.3f} ({g[1]:+.3f} to {g[2]:+.3f})" if g else "–" for g in gains)
        return {"mel": name, "STOI": f"{row['stoi']:.3f}", "against plain": stoi,
                "PESQ": f"{row['pesq']:.2f}", "vs plain": pesq,
                "words heard": f"{row['words']:.0%}" if "words" in row else "–",
                "mel distance, dB": f"{row['mel_db']:.2f}",
                "squared error / plain": f"{row['mse'] / rows['plain']['mse']:.2f}", "FD": f"{row['fd']:.1f}",
                "sharpness / true": f"{row['sharpness'] / rows['true mel']['sharpness']:.2f}"}
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


def sound_verdicts(found: dict, chosen: str, draw: str) -> list[tuple[str, bool, str]]:
    """The hypotheses S1 to S3 of chapter 07 and its floor on one set of `ch07_sound.json`: name,
    whether it holds, why."""
    rows = found["rows"]
    plain, one, best = rows["plain"], rows[draw], rows[chosen]
    fd, error = one["fd"] / plain["fd"], one["mse"] / plain["mse"]
    alike = max(abs(rows["flow, 1 step"][k] - rows["regression"][k]) / rows["regression"][k]
                for k in ("stoi", "mel_db"))
    better = best["pesq_gain"][1] > 0 or best["mel_db"] < plain["mel_db"]
    return [("S1", fd <= 0.5, f"a draw's FD is {fd:.2f} times the plain decoder's"),
            ("S2", one["stoi_gain"][2] < 0 and 1 < error <= 2.05,
             f"its STOI differs by {one['stoi_gain'][0]:+.3f}, its squared error is {error:.2f} "
             "times as large"),
            ("S3", alike < 0.02,
             f"one step and regression differ by at most {alike:.1%} in STOI and mel distance"),
            ("floor", best["stoi_gain"][2] >= 0 and better,
             f"'{chosen}': STOI {best['stoi_gain'][0]:+.4f}, PESQ {best['pesq_gain'][0]:+.3f}, mel distance "
             f"{best['mel_db'] - plain['mel_db']:+.2f} dB")]
