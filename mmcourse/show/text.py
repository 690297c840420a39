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


def attention_maps(weights, names, caption: str = "") -> None:
    """Draw one square for each head: weights (heads, T, T); a row is a token that looks, a column where
    it looks."""
    weights = show._array(weights)
    if weights.ndim != 3 or weights.shape[1:] != (len(names), len(names)):
        raise ValueError(f"weights {weights.shape} for {len(names)} tokens: give (heads, T, T) and T names")
    fig, axes = plt.subplots(1, len(weights), figsize=(2.6 * len(weights) + 0.6, 3.1), squeeze=False,
                             sharey=True)
    for head, (axis, square) in enumerate(zip(axes[0], weights, strict=True)):
        axis.imshow(square, vmin=0, vmax=1, cmap="cividis")
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        axis.set_title(f"head {head}", fontsize=9)
        axis.grid(False)
    show.figure(fig, caption)
