"""The one training loop: `train` trains every model, from the VQ-VAE to the diffusion decoder."""
import contextlib
import functools
import hashlib
import io
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from mmcourse.checks import device_of
from mmcourse.distributed import agree, divided, processes, rank, same_start, summed
from mmcourse.files import locked, write_bytes
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
            the step's end; a second one does not, and then the file stays as it was.)
        until: stop here though the schedule spans `steps`; a later call with the same `resume` goes on.
        log_every: steps between two rows of the History. progress: whether a bar is shown.
    """
    seed: int = 0
    resume: str | Path | None = None
    save_every: int = 500
    log_every: int = 20
    progress: bool = True
    until: int | None = None

    def __post_init__(self):
        if min(self.save_every, self.log_every) < 1 or self.seed < 0:
            raise ValueError("save_every and log_every are at least 1 and a seed is at least 0, got "
                             f"{self.save_every}, {self.log_every} and {self.seed}")


@dataclass(frozen=True)
class Hardware:
    """Where `train` trains, and with what numbers. `Hardware.now` holds for the process (`mmcourse train --device` sets it).

    Args:
        device: the model is there while it trains, and afterwards where it was; None: it stays where it is.
        bf16: the loss is computed in bfloat16 wherever that is safe (autocast). It comes out in float32, and weights and
            the optimizers' state stay so.
        compile: the loss, with what it calls of the model, is compiled. The model is not: its state keeps its names.
        micro_batches: a process takes its share of a batch in so many parts, one after the other: a step needs less
            memory and is the same step (`distributed.Divided`).
    """
    device: str | None = None
    bf16: bool = False
    compile: bool = False
    micro_batches: int = 1
    now: ClassVar["Hardware"]

    @contextlib.contextmanager
    def holding(self, model: nn.Module) -> Iterator[None]:
        """The model is on the device while the block lasts."""
        if self.device is None:
            yield
            return
        before = device_of(model)
        model.to(self.device)
        try:
            yield
        finally:
            model.to(before)

    def prepared(self, loss: Callable) -> Callable:
        """The same loss, in these numbers; divided among the processes that have joined, and into micro-batches."""
        return divided(self.in_numbers(loss), loss, self.micro_batches)

    def in_numbers(self, loss: Callable) -> Callable:
        """The same loss, in these numbers."""
        if not (self.bf16 or self.compile):
            return loss

        def forward(model, *batch):
            return loss(model, *batch)
        compute = torch.compile(forward) if self.compile else forward

        def in_these_numbers(model, *batch):
            with torch.autocast(device_of(model).type, torch.bfloat16, enabled=self.bf16):
                result = compute(model, *batch)
            return {**result, "loss": result["loss"].float()} if isinstance(result, dict) else result.float()
        return in_these_numbers

    def called(self, device: str, together: int | None = None) -> str:
        """In words, with a name for the device: `cuda, bf16, compiled, 2 processes`. `together`: how many, if not all
        that have joined."""
        together = together or processes()
        return ", ".join([device, *["bf16"] * self.bf16, *["compiled"] * self.compile,
                          *[f"{together} processes"] * (together > 1),
                          *[f"{self.micro_batches} micro-batches"] * (self.micro_batches > 1)])


Hardware.now = Hardware()


def on_hardware(loop: Callable) -> Callable:
    """A training loop whose model and loss are on `Hardware.now` while it lasts."""
    @functools.wraps(loop)
    def anywhere(model: nn.Module, batch: Callable, loss: Callable, **settings):
        hardware = Hardware.now
        with hardware.holding(model):
            return loop(model, batch, hardware.prepared(loss), **settings)
    return anywhere


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
    end = steps if run.until is None else min(run.until, steps)
    with running(model, optim, run, steps) as state, progress_bar(state.step, end, run.progress) as bar:
        while state.step < end and not state.asked_to_stop:
            set_rates(state.optimizers, schedule(state.step, steps, optim.warmup))
            # so that a resumed run draws the same noise
            torch.manual_seed(run.seed * 1_000_003 + state.step)
            data = to_device(model, batch(np.random.default_rng((run.seed, state.step))))
            state.begun = True  # a step that is cut in two is never saved
            result = step(model, state.optimizers, data, loss, optim.clip)
            state.done(result, last=state.step + 1 == end)
            bar.update()
            bar.set_postfix(loss=f"{result['loss']:.3f}", refresh=False)
            if after_step is not None:
                after_step(model, state.step - 1)
    return state.history


train = on_hardware(train)      # the loop knows nothing of devices


@contextlib.contextmanager
def running(model: nn.Module, optim: Optim, run: Run, steps: int) -> Iterator["State"]:
    """The state of a run while it lasts. Nobody else has its file, Ctrl-C waits for the end of a step, and in
    the end what was done is saved and the model is in eval mode, however the run ended. Of several processes rank 0
    alone writes and prints."""
    alone = contextlib.nullcontext() if run.resume is None or rank() else locked(run.resume, wait=False)
    with held_interrupt() as asked, alone:
        state = State.start(model, optim, run, steps, asked)
        if state.step >= (steps if run.until is None else run.until) > 0:
            say(f"nothing to train: {run.resume} holds {state.step} steps already (without that file the "
                "same call begins anew)")
        try:
            model.train()
            model.zero_grad(set_to_none=True)  # gradients left over from elsewhere are not ours
            yield state
        except KeyboardInterrupt:
            state.asked_to_stop.append("at once")
        except FloatingPointError as error:
            raise FloatingPointError(f"{error} (at step {state.step})") from None
        except Exception:                       # of the batch, or of what was called after a step
            if state.step and not state.begun:
                state.finish()                  # the steps that are done are not lost with it
            raise
        finally:
            model.eval()
        state.finish()
        if state.asked_to_stop:
            state.history.interrupted = True
            say(state.how_it_stopped())


def say(sentence: str) -> None:
    """Print it, once for all processes."""
    if rank() == 0:
        print(sentence)


def meet(model: nn.Module, run: Run, settings: dict) -> None:
    """All processes begin alike: with the same settings, the same file and the weights of rank 0. ValueError in all of
    them if they cannot."""
    shapes = {f"the shape of {name}": tuple(x.shape) for name, x in model.state_dict().items()}
    agree(seed=run.seed, until=run.until, **settings, **shapes)
    # asked after that: from here on rank 0 has written what it had to write
    there = run.resume is not None and Path(run.resume).exists()
    agree(file=_digest(Path(run.resume).read_bytes()) if there else "none")
    same_start(model)


@dataclass
class State:
    """Everything that a run needs to go on: the model, its optimizers and running mean, the step,
    what was logged; and how it is going: `begun` inside a step, `asked_to_stop` filled by Ctrl-C."""
    model: nn.Module
    optimizers: list
    ema: EMA | None
    run: Run
    history: History
    settings: dict = field(default_factory=dict)
    asked_to_stop: list = field(default_factory=list)
    step: int = 0
    saved: int | None = None  # the step that the file holds
    begun: bool = False
    clock: float = field(default_factory=time.process_time)
    asked_here: list = field(default_factory=list)      # of several processes, what this one was asked
    elsewhere: float = 0.0  # CPU seconds of the others

    @classmethod
    def start(cls, model: nn.Module, optim: Optim, run: Run, steps: int = 0,
              asked: list | None = None) -> "State":
        """A new run, or the one that `run.resume` holds."""
        settings = {**asdict(optim), "steps": steps, "threads": torch.get_num_threads(),
                    "device": Hardware.now.called(device_of(model).type)}
        if processes() > 1:
            meet(model, run, {**settings, "threads": None})
        ema = EMA(model, optim.ema_decay) if optim.ema_decay else None
        state = cls(model, make_optimizers(model, optim), ema, run, History(), settings,
                    [] if asked is None else asked)
        if run.resume is not None and Path(run.resume).exists():
            state.load(run.resume)
        if processes() > 1:
            state.asked_here, state.asked_to_stop = state.asked_to_stop, []
            state.listen()
            state.clock += state.elsewhere
        if rank():
            state.run = replace(run, resume=None)       # rank 0 alone writes
        return state

    def listen(self) -> None:
        """Was any process asked to stop? All do, after the same step. And how long have the others worked?"""
        own = time.process_time()
        asked, seconds = summed(torch.tensor([len(self.asked_here), own], dtype=torch.double)).tolist()
        self.elsewhere = seconds - own
        self.asked_to_stop += ["in one of the processes"] * (asked > 0)

    def done(self, result: dict, last: bool) -> None:
        """A step is done: count it, average the weights, log and save if it is time."""
        if self.ema:
            self.ema.update(self.model)
        if self.step % self.run.log_every == 0 or last:
            self.history.rows.append({"step": self.step,
                                      **{name: _number(value) for name, value in result.items()}})
        self.step, self.begun = self.step + 1, False
        if processes() > 1:
            self.listen()
        if self.run.resume is not None and self.step % self.run.save_every == 0 and not last:
            try:
                write_bytes(self.run.resume, self.content())
                self.saved = self.step
            except OSError as error:
                print(f"{error}; the training goes on, unsaved")

    def finish(self) -> None:
        """The run is over: give the model its mean weights, and save what is new and whole."""
        new = self.run.resume is not None and not self.begun and self.step != self.saved
        content = self.content() if new else self._count_minutes()
        if self.ema:
            self.ema.copy_to(self.model)                # before the file: whatever becomes of that
        if content:
            write_bytes(self.run.resume, content)

    def how_it_stopped(self) -> str:
        """One sentence on an interrupted run."""
        step, file = f"step {self.step} of {self.settings['steps']}", self.run.resume
        said = (f"stopped in the middle of {step}: the model is half moved", f"; {file} is as it was last saved")
        if not self.begun:
            said = f"stopped at {step}; the model is usable as it is", f", and the same call goes on from {file}"
        return said[0] + (said[1] if file is not None else "")

    def content(self) -> bytes:
        """The state as a file has it: what torch writes, and a last line with the SHA-256 of that."""
        self._count_minutes()
        state = {"model": self.model.state_dict(), "settings": self.settings,
                 "optimizers": [opt.state_dict() for opt in self.optimizers], "step": self.step,
                 "seed": self.run.seed, "rows": self.history.rows, "cpu_minutes": self.history.cpu_minutes}
        if self.ema:
            state["average"] = {"weights": self.ema.weights, "updates": self.ema.updates}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue() + _last_line(buffer.getvalue())

    def load(self, path) -> None:
        """Read the state of a run. ValueError if the file holds none, or that of another run; other rates or
        steps than the file's hold from here on, and are said."""
        saved = _read_state(path, device_of(self.model))
        self._compare(path, saved)
        try:
            self.model.load_state_dict(saved["model"])
        except RuntimeError as error:
            raise ValueError(f"{path} belongs to a run of another model: name another file "
                             f"({str(error)[:120]})") from None
        for optimizer, content in zip(self.optimizers, saved["optimizers"], strict=True):
            own = [{**group} for group in optimizer.param_groups]
            optimizer.load_state_dict(content)
            for group, settings in zip(optimizer.param_groups, own):
                group.update((name, value) for name, value in settings.items() if name != "params")
        if self.ema:
            self.ema.weights, self.ema.updates = saved["average"]["weights"], saved["average"]["updates"]
        self.history.rows[:] = saved["rows"]
        self.history.cpu_minutes, self.step, self.saved = saved["cpu_minutes"], saved["step"], saved["step"]

    def _compare(self, path, saved: dict) -> None:
        """Refuse the file of another run, and say which settings of this call are others."""
        before, now = {"device": "cpu", **saved["settings"]}, self.settings     # older files do not say it
        differ = {f"with seed {saved['seed']}": saved["seed"] != self.run.seed,
                  f"with the optimizer {before['name']}": before["name"] != now["name"],
                  "with a running mean of its weights": "average" in saved and not self.ema,
                  "without a running mean of its weights": "average" not in saved and bool(self.ema)}
        for what in (what for what, other in differ.items() if other):
            raise ValueError(f"{path} belongs to a run {what}: name another file, or delete it to begin anew")
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            was, here = (", ".join(f"{name} {have.get(name)}" for name in changed) for have in (before, now))
            say(f"{path} was made with {was}; from here on: {here}")

    def _count_minutes(self) -> None:
        now = time.process_time() + self.elsewhere
        self.history.cpu_minutes += (now - self.clock) / 60
        self.clock = now


def _read_state(path, device) -> dict:
    """What `State.content` wrote. ValueError that says what to do if the file is not whole."""
    data = Path(path).read_bytes()
    end = len(data) - len(_last_line(b""))
    try:
        if data[max(end, 0):] != _last_line(data[:max(end, 0)]):
            raise EOFError
        return torch.load(io.BytesIO(data[:end]), weights_only=True, map_location=device)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        raise ValueError(f"{path} is not a saved run (or is damaged, or of an older version of the course): "
                         "delete it to begin anew") from None


def _last_line(data: bytes) -> bytes:
    return f"\nsha256 {_digest(data)}\n".encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def progress_bar(start: int, end: int, progress: bool):
    """A bar from step `start` to `end`; none if `progress` is false, and but one for all processes."""
    from tqdm.auto import tqdm
    return tqdm(initial=min(start, end), total=end, disable=not progress or rank() > 0, mininterval=1.0, leave=True)


def to_device(model: nn.Module, batch: tuple) -> tuple:
    """The batch where the model is (CPU or GPU)."""
    device = device_of(model)
    return tuple(part.to(device) if isinstance(part, torch.Tensor) else part for part in batch)


@contextlib.contextmanager
def held_interrupt() -> Iterator[list]:
    """Hold Ctrl-C back until the step is done: the list is then no longer empty. A second
    Ctrl-C does not wait.

    A step cut in two could not be resumed exactly: the codebook would have moved, the weights not.
    Hence it is not saved.
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
