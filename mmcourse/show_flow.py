"""Drawing a flow in the plane: its arrows at one moment, and the paths that points take along it."""
from __future__ import annotations

import torch
from matplotlib import pyplot as plt

from mmcourse import show


def arrows(velocity, t: float, states=None, data=None, caption: str = "", extent: float = 2.6) -> None:
    """The field `velocity(x, t)` as arrows at time t; `data` (M, 2) as grey dots; of `states`, a list of (N, 2) as
    a sampler returns it, where the points are at time t and the way that they came."""
    fig, axis = plt.subplots(figsize=(3.6, 3.6))
    side = torch.linspace(-extent, extent, 13)
    grid = torch.cartesian_prod(side, side)                            # (169, 2)
    with torch.no_grad():
        v = velocity(grid, t)
    if data is not None:
        axis.scatter(*data.T.tolist(), s=3, color="0.75", linewidths=0)
    length = v.norm(dim=1, keepdim=True)
    v = v / length.clamp(min=1e-6) * length.clamp(max=3) * 0.14        # long arrows would hide the rest
    axis.quiver(*grid.T.tolist(), *v.T.tolist(), color=show.COLOURS[5], angles="xy", scale_units="xy", scale=1, width=0.004)
    if states is not None:
        at = round(t * (len(states) - 1))
        for way in torch.stack(states[:at + 1])[:, :40].unbind(1):     # (at + 1, 2) for each of the first points
            axis.plot(*way.T.tolist(), color=show.COLOURS[1], linewidth=0.6, alpha=0.6)
        axis.scatter(*states[at].T.tolist(), s=3, color=show.COLOURS[0], linewidths=0, zorder=3)
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", title=f"t = {t:.2f}")
    axis.grid(False)
    show.figure(fig, caption)
