"""The one training loop. Every model of the course, from the VQ-VAE to the diffusion decoder, is trained by `train`."""
import contextlib
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn


@dataclass
class History:
    """What a run logged: one row (a dict with `step`, `loss`, ...) for every `log_every` steps."""
    rows: list[dict] = field(default_factory=list)
    cpu_minutes: float = 0.0
    interrupted: bool = False

    def column(self, key: str) -> list[float]:
        """One quantity over the run, in the order of the rows."""
        return [row[key] for row in self.rows if key in row]


def orthogonalize(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: a Newton-Schulz iteration (Jordan et al., Muon, 2024).

    Each step is an odd polynomial of the matrix: it acts on the singular values alone and drives them towards 1.
    """
    x = matrix / (matrix.norm() + 1e-7)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for the weight matrices of hidden layers (Jordan et al., 2024).

    No direction of a matrix is left behind because its gradient is small. The kernel of a convolution is a matrix too, with a
    row for each output channel. Use AdamW for embeddings, gains and biases.
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
                matrix = p.grad.lerp(buffer, group["momentum"]).flatten(1)     # Nesterov momentum; (out, in, ...) -> (out, n)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
                p.add_(orthogonalize(matrix).view_as(p), alpha=-rate)


def make_optimizers(model: nn.Module, name: str, lr: float, weight_decay: float, muon_lr: float) -> list:
    """AdamW for everything, or Muon for the hidden matrices and kernels and AdamW for the rest (embeddings, norms, biases)."""
    if name not in ("adamw", "muon"):
        raise ValueError(f"optimizer is 'adamw' or 'muon', got {name!r}")
    params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    hidden = [p for n, p in params if p.ndim >= 2 and "embed" not in n and "head" not in n] if name == "muon" else []
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in params if id(p) not in chosen]
    groups = [{"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
              {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}]
    optimizers = [torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.98), fused=True)]
    return optimizers + ([Muon(hidden, lr=muon_lr, weight_decay=weight_decay)] if hidden else [])


class WeightAverage:
    """A running mean of a model's weights: calmer than the weights themselves, as if the learning rate had been lowered.

    Source: Polyak & Juditsky 1992, with the exponential window of Tarvainen & Valpola 2017; at first the window is short.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"the decay of an average lies between 0 and 1, got {decay}: 0.995 averages some 200 steps")
        self.decay, self.updates = decay, 0
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        for name, p in model.named_parameters():
            self.weights[name].lerp_(p, 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for name, p in model.named_parameters():
            p.copy_(self.weights[name])


def schedule(step: int, steps: int, warmup: int, floor: float = 0.05) -> float:
    """The learning rate's factor: linear warm-up, then a cosine from 1 down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(model: nn.Module, batch: Callable, loss: Callable, *, steps: int, lr: float = 1e-3, optimizer: str = "adamw",
          muon_lr: float = 0.02, warmup: int = 50, weight_decay: float = 0.01, clip: float = 1.0, seed: int = 0,
          resume: str | Path | None = None, save_every: int = 500, log_every: int = 20, progress: bool = True,
          until: int | None = None, after_step: Callable | None = None, average: float = 0.0) -> History:
    """Train `model` and leave it in eval mode.

    Args:
        batch: `batch(rng) -> tuple`: makes one batch from a numpy generator that depends on (seed, step) alone.
        loss: `loss(model, *batch) -> Tensor`, or a dict with a tensor `"loss"`; its other scalars are logged.
        steps: in all, counted from the first start of the run.
        resume: a file; the run's state is saved there every `save_every` steps, at its end and at Ctrl-C, and a run that
            finds the file goes on from it, step for step as if it had never stopped. (Ctrl-C waits for the step's end.)
        until: stop here though the schedule spans `steps`; a later call with the same `resume` goes on.
        after_step: called as `after_step(model, step)` once a step is done.
        average: the decay of a running mean of the weights (`WeightAverage`), which the model has in the end; 0: none.

    Returns:
        the History, `interrupted` if Ctrl-C ended it. Raises FloatingPointError if the loss is not finite.
    """
    from tqdm.auto import tqdm

    history, start = History(), 0
    optimizers = make_optimizers(model, optimizer, lr, weight_decay, muon_lr)
    base_rates = [[group["lr"] for group in opt.param_groups] for opt in optimizers]
    mean = WeightAverage(model, average) if average else None
    if resume is not None and Path(resume).exists():
        start = load_run(resume, model, optimizers, history, seed, mean)
    end = steps if until is None else min(until, steps)
    bar = tqdm(range(start, end), initial=min(start, end), total=end, disable=not progress, mininterval=1.0, leave=True)
    model.train()
    model.zero_grad(set_to_none=True)                           # gradients left over from elsewhere are not ours
    clock = time.process_time()
    done = start
    try:
        with _held_interrupt() as asked:
            for step in bar:
                torch.manual_seed(seed * 1_000_003 + step)              # so that a resumed run draws the same noise
                data = batch(np.random.default_rng((seed, step)))
                for opt, rates in zip(optimizers, base_rates, strict=True):
                    for group, rate in zip(opt.param_groups, rates, strict=True):
                        group["lr"] = rate * schedule(step, steps, warmup)
                result = loss(model, *data)
                result = result if isinstance(result, dict) else {"loss": result}
                if not torch.isfinite(result["loss"]):
                    raise FloatingPointError(f"the loss is {result['loss'].item()} at step {step}: lower the learning rate "
                                             "or look for bad values in the batch")
                result["loss"].backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
                for opt in optimizers:
                    opt.step()
                    opt.zero_grad(set_to_none=True)
                done = step + 1
                if mean:
                    mean.update(model)
                if after_step is not None:
                    after_step(model, step)
                if step % log_every == 0 or done == end:
                    row = {"step": step, **{k: _number(v) for k, v in result.items()}, "grad_norm": _number(norm)}
                    history.rows.append(row)
                    bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
                if resume is not None and done % save_every == 0 and done < end:
                    clock = _add_minutes(history, clock)
                    save_run(resume, model, optimizers, history, done, seed, mean)
                if asked:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        history.interrupted = True
        print(f"stopped at step {done} of {steps}; the model is usable as it is"
              + (f", and the same call goes on from {resume}" if resume is not None else ""))
    _add_minutes(history, clock)
    if resume is not None:
        save_run(resume, model, optimizers, history, done, seed, mean)
    if mean:
        mean.copy_to(model)
    model.eval()
    return history


@contextlib.contextmanager
def _held_interrupt() -> Iterator[list]:
    """Hold Ctrl-C back until the step is done: the list is then no longer empty. A second Ctrl-C does not wait.

    A step cut in two could not be resumed exactly: the codebook would have moved, the weights not.
    """
    asked = []

    def note(signum, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)

    ours = (threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _number(value) -> float:
    return value.detach().item() if isinstance(value, torch.Tensor) else float(value)


def _add_minutes(history: History, clock: float) -> float:
    now = time.process_time()
    history.cpu_minutes += (now - clock) / 60
    return now


def save_run(path, model: nn.Module, optimizers: list, history: History, step: int, seed: int,
             mean: WeightAverage | None = None) -> None:
    """Write the state of a run, atomically: a crash while writing leaves the old file whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizers": [opt.state_dict() for opt in optimizers], "step": step,
             "seed": seed, "rows": history.rows, "cpu_minutes": history.cpu_minutes}
    if mean:
        state["average"] = {"weights": mean.weights, "updates": mean.updates}
    temporary = path.with_name(path.name + ".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_run(path, model: nn.Module, optimizers: list, history: History, seed: int, mean: WeightAverage | None = None) -> int:
    """Read the state of a run into its parts; returns the step to go on from."""
    try:
        state = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise ValueError(f"{path} is not a saved run (or is cut short): delete it to start anew") from None
    if state["seed"] != seed:
        raise ValueError(f"{path} belongs to a run with seed {state['seed']}, this one has {seed}: name another file")
    if mean and "average" not in state:
        raise ValueError(f"{path} belongs to a run without an average of its weights: name another file")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to a run of another model: name another file ({str(error)[:120]})") from None
    for opt, saved in zip(optimizers, state["optimizers"], strict=True):
        opt.load_state_dict(saved)
    if mean:
        mean.weights, mean.updates = state["average"]["weights"], state["average"]["updates"]
    history.rows[:] = state["rows"]
    history.cpu_minutes = state["cpu_minutes"]
    return state["step"]
