"""The one training loop: `train` trains every model, from the VQ-VAE to the diffusion decoder."""
import contextlib
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

from mmcourse.files import atomic_write
from mmcourse.optim import EMA, Optim, make_optimizers, schedule, set_rates


@dataclass
class History:
    """Metrics logged during a run: one row (a dict with `step`, `loss`, ...) for every `log_every` steps."""
    rows: list[dict] = field(default_factory=list)
    cpu_minutes: float = 0.0
    interrupted: bool = False

    def column(self, key: str) -> list[float]:
        """One quantity over the run, in the order of the rows."""
        return [row[key] for row in self.rows if key in row]


@dataclass(frozen=True)
class Run:
    """How a run is kept, logged and stopped.

    Args:
        seed: decides batches and noise, together with the step alone.
        resume: a file; the state is saved there every `save_every` steps, at the end and at Ctrl-C, and a run
            that finds the file goes on from it, step for step as if it had never stopped. (Ctrl-C waits for
            the step's end.)
        until: stop here though the schedule spans `steps`; a later call with the same `resume` goes on.
        log_every: steps between two rows of the History. progress: whether a bar is shown.
    """
    seed: int = 0
    resume: str | Path | None = None
    save_every: int = 500
    log_every: int = 20
    progress: bool = True
    until: int | None = None


def step(model: nn.Module, optimizers: list, batch: tuple, loss: Callable, clip: float = 1.0) -> dict:
    """One step of training: predict and compare, find the gradients, move the weights, forget the gradients.

    Returns what `loss` returned, as a dict, with the norm that the gradients had before they were clipped.
    """
    result = loss(model, *batch)                                        # forward
    result = dict(result) if isinstance(result, dict) else {"loss": result}
    check_finite(result["loss"])
    result["loss"].backward()                                           # backward
    result["grad_norm"] = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return result


def check_finite(loss: torch.Tensor) -> None:
    """FloatingPointError for a loss that is not a number: a step on it would ruin all weights."""
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()}: lower the learning rate or look for bad values "
                                 "in the batch")


def train(model: nn.Module, batch: Callable, loss: Callable, *, steps: int, optim: Optim = Optim(),
          run: Run = Run(), after_step: Callable | None = None) -> History:
    """Train `model` and leave it in eval mode.

    Args:
        batch: `batch(rng) -> tuple`: makes one batch from a numpy generator that depends on
            (seed, step) alone.
        loss: `loss(model, *batch) -> Tensor`, or a dict with a tensor `"loss"`; its other scalars are logged.
        steps: in all, counted from the first start of the run.
        after_step: called as `after_step(model, step)` once a step is done.

    Returns:
        the History, `interrupted` if Ctrl-C ended it. Raises FloatingPointError if the loss is not finite.
    """
    state = State.start(model, optim, run)
    end = steps if run.until is None else min(run.until, steps)
    model.train()
    model.zero_grad(set_to_none=True)  # gradients left over from elsewhere are not ours
    try:
        with held_interrupt() as asked, progress_bar(state.step, end, run.progress) as bar:
            while state.step < end:
                set_rates(state.optimizers, schedule(state.step, steps, optim.warmup))
                # so that a resumed run draws the same noise
                torch.manual_seed(run.seed * 1_000_003 + state.step)
                data = to_device(model, batch(np.random.default_rng((run.seed, state.step))))
                result = step(model, state.optimizers, data, loss, optim.clip)
                state.done(result, last=state.step + 1 == end)
                bar.update()
                bar.set_postfix(loss=f"{result['loss']:.3f}", refresh=False)
                if after_step is not None:
                    after_step(model, state.step - 1)
                if asked:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        state.history.interrupted = True
        print(f"stopped at step {state.step} of {steps}; the model is usable as it is"
              + (f", and the same call goes on from {run.resume}" if run.resume is not None else ""))
    except FloatingPointError as error:
        raise FloatingPointError(f"{error} (at step {state.step})") from None
    state.finish()
    model.eval()
    return state.history


@dataclass
class State:
    """Everything that a run needs to go on: the model, its optimizers and running mean, the step,
    what was logged."""
    model: nn.Module
    optimizers: list
    ema: EMA | None
    run: Run
    history: History
    step: int = 0
    clock: float = field(default_factory=time.process_time)

    @classmethod
    def start(cls, model: nn.Module, optim: Optim, run: Run) -> "State":
        """A new run, or the one that `run.resume` holds."""
        ema = EMA(model, optim.ema_decay) if optim.ema_decay else None
        state = cls(model, make_optimizers(model, optim), ema, run, History())
        if run.resume is not None and Path(run.resume).exists():
            state.load(run.resume)
        return state

    def done(self, result: dict, last: bool) -> None:
        """A step is done: count it, average the weights, log and save if it is time."""
        if self.ema:
            self.ema.update(self.model)
        if self.step % self.run.log_every == 0 or last:
            self.history.rows.append({"step": self.step,
                                      **{name: _number(value) for name, value in result.items()}})
        self.step += 1
        if self.run.resume is not None and self.step % self.run.save_every == 0 and not last:
            self.save(self.run.resume)

    def finish(self) -> None:
        """The run is over, or interrupted: save it, and give the model its mean weights."""
        self._count_minutes()
        if self.run.resume is not None:
            self.save(self.run.resume)
        if self.ema:
            self.ema.copy_to(self.model)

    def save(self, path) -> None:
        """Write the state, atomically: a crash while writing leaves the old file whole."""
        self._count_minutes()
        content = {"model": self.model.state_dict(),
                   "optimizers": [opt.state_dict() for opt in self.optimizers], "step": self.step,
                   "seed": self.run.seed, "rows": self.history.rows, "cpu_minutes": self.history.cpu_minutes}
        if self.ema:
            content["average"] = {"weights": self.ema.weights, "updates": self.ema.updates}
        with atomic_write(path) as draft:
            torch.save(content, draft)

    def load(self, path) -> None:
        """Read the state of a run. ValueError if the file holds none, or that of another run."""
        try:
            saved = torch.load(path, weights_only=True, map_location=next(self.model.parameters()).device)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            raise ValueError(f"{path} is not a saved run (or is cut short): delete it to start anew"
                             ) from None
        if saved["seed"] != self.run.seed:
            raise ValueError(f"{path} belongs to a run with seed {saved['seed']}, this one has "
                             f"{self.run.seed}: name another file")
        if self.ema and "average" not in saved:
            raise ValueError(f"{path} belongs to a run without a running mean of its weights: "
                             "name another file")
        try:
            self.model.load_state_dict(saved["model"])
        except RuntimeError as error:
            raise ValueError(f"{path} belongs to a run of another model: name another file "
                             f"({str(error)[:120]})") from None
        for optimizer, content in zip(self.optimizers, saved["optimizers"], strict=True):
            # those of this call hold, not the file's
            rates = [group["initial_lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(content)
            for group, rate in zip(optimizer.param_groups, rates):
                group["initial_lr"] = rate
        if self.ema:
            self.ema.weights, self.ema.updates = saved["average"]["weights"], saved["average"]["updates"]
        self.history.rows[:] = saved["rows"]
        self.history.cpu_minutes, self.step = saved["cpu_minutes"], saved["step"]

    def _count_minutes(self) -> None:
        now = time.process_time()
        self.history.cpu_minutes += (now - self.clock) / 60
        self.clock = now


def progress_bar(start: int, end: int, progress: bool):
    """A bar from step `start` to `end`; none if `progress` is false."""
    from tqdm.auto import tqdm
    return tqdm(initial=min(start, end), total=end, disable=not progress, mininterval=1.0, leave=True)


def to_device(model: nn.Module, batch: tuple) -> tuple:
    """The batch where the model is (CPU or GPU)."""
    device = next(model.parameters()).device
    return tuple(part.to(device) if isinstance(part, torch.Tensor) else part for part in batch)


@contextlib.contextmanager
def held_interrupt() -> Iterator[list]:
    """Hold Ctrl-C back until the step is done: the list is then no longer empty. A second
    Ctrl-C does not wait.

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
