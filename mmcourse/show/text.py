"""Looking into a text model: what it may say next, and where its heads look. Nothing is trained here."""
import numpy as np
import torch
from matplotlib import pyplot as plt

from mmcourse import show
from mmcourse.generate import filter_logits


def choices(logits, names, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, *, shown: int = 12,
            caption: str = "") -> None:
    """Draw the likeliest next tokens: thin outlines are the model's own probabilities, bars are what
    is sampled from.

    logits (V,), names: V strings. Temperature must be above 0 here: at 0 there is nothing to
    draw but one bar.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be above 0 and finite to be drawn, got {temperature}")
    logits = torch.as_tensor(logits, dtype=torch.float32).reshape(1, -1)
    own = logits.softmax(-1)[0]
    used = filter_logits(logits / temperature, top_k, top_p).softmax(-1)[0]
    order = own.argsort(descending=True)[:shown].tolist()
    fig, axis = plt.subplots(figsize=(7, 0.26 * len(order) + 0.8))
    rows = np.arange(len(order))
    axis.barh(rows, used[order], color=show.COLOURS[0], height=0.7, label="sampled from")
    axis.barh(rows, own[order], facecolor="none", edgecolor="black", height=0.85, linewidth=0.8,
              label="the model's own")
    axis.set_yticks(rows, [repr(names[i]) for i in order])
    axis.invert_yaxis()
    axis.set_xlabel("probability")
    axis.set_xlim(0, 1)
    axis.legend(loc="lower right")
    kept = int((used > 0).sum())
    axis.set_title(f"temperature {temperature:g}, top-k {top_k or 'all'}, top-p {top_p:g}: {kept} tokens "
                   "possible", fontsize=10)
    show.figure(fig, caption)


def arcs(weights, names, asks, caption: str = "", *, least: float = 0.15) -> None:
    """Draw where tokens look: an arc from each token of `asks` (its place) to each one that it gives `least`
    of its weight or more.

    weights (T, T), a row for each token that looks; names: T strings. The thicker the arc, the more weight.
    """
    weights = show._array(weights)
    if weights.shape != (len(names), len(names)):
        raise ValueError(f"weights {weights.shape} for {len(names)} tokens: give (T, T) and T names")
    if not 0 < least <= 1:
        raise ValueError(f"least is a share of the weight, above 0 and at most 1, got {least}")
    fig, axis = plt.subplots(figsize=(7.4, 2.5))
    for number, here in enumerate(asks):
        colour = show.COLOURS[number % 3]
        for there in np.flatnonzero(weights[here] >= least):
            angle = np.linspace(0, np.pi, 60)
            middle, radius = (here + there) / 2, max(abs(here - there) / 2, 0.3)
            axis.plot(middle + radius * np.cos(angle), 0.4 + 0.42 * radius * np.sin(angle), color=colour,
                      linewidth=0.4 + 3 * weights[here, there], alpha=0.9)
            axis.plot([there], [0.45], "v", color=colour, markersize=6)
    for place, name in enumerate(names):
        box = {"boxstyle": "round,pad=0.3", "facecolor": "#EBCBDD" if place in asks else "#F5F6F7",
               "edgecolor": "#5B6670"}
        axis.text(place, 0, name, ha="center", va="center", fontsize=11, bbox=box)
    axis.set(xlim=(-0.7, len(names) - 0.3), ylim=(-0.4, max(axis.dataLim.y1, 1) + 0.2))
    axis.set_axis_off()
    show.figure(fig, caption)


def runs(losses, level: tuple[str, float], caption: str = "", *, top: float = 8.0) -> None:
    """Draw the losses of several runs, {name: one number a step}, each named at its end, beside one `level`
    (name, number); what is above `top` is cut."""
    fig, axis = plt.subplots(figsize=(7.4, 3.6))
    steps = max(len(run) for run in losses.values())
    mark = f"{level[0]} {level[1]:.2f}"
    ends = {name: min(float(np.mean(run[-5:])), top) for name, run in losses.items()} | {mark: level[1]}
    places = dict(zip(sorted(ends, key=ends.get), np.sort(list(ends.values()))))
    below = -np.inf
    for name in places:                                        # names of runs that end alike stand apart
        below = places[name] = max(places[name], below + 0.06 * top)
    for number, (name, run) in enumerate(losses.items()):
        colour = show.COLOURS[number % len(show.COLOURS)]
        axis.plot(np.minimum(run, top), show._LINES[number % len(show._LINES)], color=colour, linewidth=2)
        axis.annotate(name, (steps, places[name]), color=colour, va="center", fontsize=10,
                      annotation_clip=False)
    axis.axhline(level[1], color="black", linewidth=1, linestyle=":")
    axis.annotate(mark, (steps, places[mark]), va="center", fontsize=10, annotation_clip=False)
    axis.set(xlim=(0, steps - 1), ylim=(0, top * 1.02), xlabel="step", ylabel="loss (nats a token)")
    show.figure(fig, caption)
