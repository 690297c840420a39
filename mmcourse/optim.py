"""How weights move: AdamW and Muon, the learning rate's schedule, the running mean of the weights (EMA)."""
import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Optim:
    """How a model is optimized.

    Args:
        name: `adamw`, or `muon`: Muon for the matrices of hidden layers, AdamW for the rest.
        lr: the learning rate of AdamW. muon_lr: that of Muon.
        weight_decay: by how much of the learning rate a weight of a matrix shrinks at each step.
        clip: gradients are scaled down to this norm if theirs is larger.
        warmup: steps in which the learning rate rises from zero; then it falls as a cosine (`schedule`).
        ema_decay: the decay of a running mean of the weights (`EMA`), which the model has in
            the end; 0: none.
    """
    name: str = "adamw"
    lr: float = 1e-3
    muon_lr: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 50
    ema_decay: float = 0.0

    def __post_init__(self):
        if self.name not in ("adamw", "muon"):
            raise ValueError(f"the optimizer is 'adamw' or 'muon', got {self.name!r}")


def orthogonalize(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: a Newton-Schulz iteration (Jordan et al., Muon, 2024).

    Each step is an odd polynomial of the matrix: it acts on the singular values alone and
    drives them towards 1 (to about 0.7 ... 1.2: near enough for a step).
    """
    x = matrix / (matrix.norm() + 1e-7)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for the weight matrices of hidden layers
    (Jordan et al., 2024).

    No direction of a matrix is left behind because its gradient is small. The kernel of a convolution is a
    matrix too, with a row for each output channel. Use AdamW for embeddings, gains and biases.
    """

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                # Nesterov momentum; (out, in, ...) -> (out, n)
                matrix = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
                p.add_(orthogonalize(matrix).view_as(p), alpha=-rate)


def make_optimizers(model: nn.Module, optim: Optim) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the hidden matrices and kernels and AdamW for the rest
    (embeddings, norms, biases)."""
    params = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    muon = [p for name, p in params
            if optim.name == "muon" and p.ndim >= 2 and "embed" not in name and "head" not in name]
    chosen = {id(p) for p in muon}
    rest = [p for _, p in params if id(p) not in chosen]
    groups = [{"params": [p for p in rest if p.ndim >= 2], "weight_decay": optim.weight_decay},
              {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW([g for g in groups if g["params"]], lr=optim.lr, betas=(0.9, 0.98),
                                    fused=True)]
    if muon:
        optimizers.append(Muon(muon, lr=optim.muon_lr, weight_decay=optim.weight_decay))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["initial_lr"] = group["lr"]
    return optimizers


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every learning rate to `factor` times the one that its optimizer was made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]


def schedule(step: int, steps: int, warmup: int, floor: float = 0.05) -> float:
    """The learning rate's factor: linear warm-up, then a cosine from 1 down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class EMA:
    """A running mean of a model's weights: calmer than the weights themselves, as if the learning rate
    had been lowered.

    Source: Polyak & Juditsky 1992, with the exponential window of Tarvainen & Valpola 2017; at first the
    window is short.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"the decay of a running mean lies between 0 and 1, got {decay}: 0.995 averages "
                             "some 200 steps")
        self.decay, self.updates = decay, 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the mean towards the weights of now."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        for name, p in model.named_parameters():
            self.weights[name].lerp_(p, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give the mean to the model."""
        for name, p in model.named_parameters():
            p.copy_(self.weights[name])
