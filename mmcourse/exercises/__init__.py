"""Exercises that mark themselves, at the moment the learner runs the cell.

In a notebook, the learner writes over a stub::

    @exercise("03.straight_through")
    def straight_through(z, z_q):
        raise NotImplementedError

- unfinished (the stub raises `NotImplementedError`): one line is printed and the name stands for the
  reference solution, so that the chapter runs from top to bottom untouched;
- wrong: `WrongAnswer` that names the case that broke it (a forgotten `return` is looked for first);
- right: a tick, and the name stands for the learner's own function.

In `mmcourse/exercises/ch03.py` the check takes the learner's function (or class) as its only argument::

    @register("03.straight_through", reference=vqvae.straight_through, wrong=[forgets_detach], minutes=5)
    def check_straight_through(fn):
        out = fn(torch.tensor([1.0]), torch.tensor([2.0]))
        assert out.item() == 2.0, f"for z = 1 and z_q = 2 the value must be 2, but it is {out.item()}"

The chapters' check modules are imported only when one of their exercises is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import pkgutil
import random
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Exercise", "WrongAnswer", "check_all", "exercise", "get", "register", "registered", "verdict"]


@dataclass(frozen=True)
class Exercise:
    """One exercise: its check, the reference solution, and wrong answers that the check must catch."""

    name: str
    check: Callable[[Any], None]
    reference: Any
    wrong: tuple
    minutes: int
    difficulty: int = 1
    hint: str = ""


_REGISTRY: dict[str, Exercise] = {}


def register(
    name: str, *, reference: Any, wrong: Sequence, minutes: int, difficulty: int = 1, hint: str = ""
) -> Callable:
    """Decorate a check so that `@exercise(name)` runs it; `name` is two digits of the chapter, a dot, a word.

    `wrong` holds answers that look plausible and must fail: a check that lets one pass is itself broken.
    """
    if not re.fullmatch(r"\d\d\.[a-z][a-z0-9_]*", name):
        raise ValueError(f"exercise name {name!r}: write two digits, a dot and a word, as in '03.psnr'")
    if not wrong:
        raise ValueError(f"exercise {name}: plant a wrong answer, or nobody knows that the check can fail")

    def decorate(check: Callable[[Any], None]) -> Callable[[Any], None]:
        old = _REGISTRY.get(name)
        if old is not None and (old.check.__module__, old.check.__qualname__) != (
            check.__module__,
            check.__qualname__,
        ):
            raise ValueError(f"exercise {name} is registered twice: by {old.check.__qualname__} "
                             f"and by {check.__qualname__}")
        _REGISTRY[name] = Exercise(name, check, reference, tuple(wrong), minutes, difficulty, hint)
        return check

    return decorate


def get(name: str) -> Exercise:
    """The registered exercise called `name`; ValueError listing the chapter's exercises if there is none."""
    chapter = name.split(".")[0]
    module = f"{__name__}.ch{chapter}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ValueError(f"no exercise {name!r}: chapter {chapter!r} has no exercises") from None
    if name not in _REGISTRY:
        known = ", ".join(sorted(n for n in _REGISTRY if n.startswith(chapter + ".")))
        raise ValueError(f"no exercise {name!r}: chapter {chapter} has {known or 'none'}")
    return _REGISTRY[name]


def registered() -> list[str]:
    """The names of all exercises of all chapters, sorted (imports every check module)."""
    for module in pkgutil.iter_modules(__path__):
        if re.fullmatch(r"ch\d\d", module.name):
            importlib.import_module(f"{__name__}.{module.name}")
    return sorted(_REGISTRY)


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """Seed every generator for the check, then put the learner's back: a check changes no later result."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    before = random.getstate(), numpy and numpy.random.get_state(), torch and torch.get_rng_state()
    try:
        random.seed(0)
        if numpy:
            numpy.random.seed(0)
        if torch:
            torch.manual_seed(0)
        yield
    finally:
        random.setstate(before[0])
        if numpy:
            numpy.random.set_state(before[1])
        if torch:
            torch.set_rng_state(before[2])


class WrongAnswer(AssertionError):
    """An answer that its check refused; a notebook shows the sentence and not the way to it."""

    def _render_traceback_(self) -> list[str]:
        return [f"✗ {self}"]                            # IPython prints these lines in place of its traceback


def _watched(answer: Any, returned: list) -> Any:
    """A function that does what `answer` does and notes what it gives back; anything but a function is left alone."""
    if not isinstance(answer, types.FunctionType):
        return answer

    @functools.wraps(answer)
    def watched(*args: Any, **kwargs: Any) -> Any:
        returned.append(answer(*args, **kwargs))
        return returned[-1]

    return watched


def _forgot_to_return(task: Exercise, returned: list) -> bool:
    """Whether an answer gave back None where the reference gives back something."""
    if not returned or returned[-1] is not None:
        return False
    expected: list = []
    task.check(_watched(task.reference, expected))
    return any(value is not None for value in expected)


def verdict(name: str, answer: Any) -> bool:
    """True if `answer` is right, False if it is unfinished; WrongAnswer naming the case if it is wrong."""
    task, returned = get(name), []
    with _own_randomness():
        try:
            task.check(_watched(answer, returned))
        except NotImplementedError:
            return False
        except Exception as error:
            if _forgot_to_return(task, returned):
                said = "the function gave back None: does it end in `return`?"
            elif isinstance(error, AssertionError):
                said = str(error) or "the answer differs from what was expected"
            else:
                said = f"the answer stopped with {type(error).__name__}: {error}"
            raise WrongAnswer(f"exercise {name}: {said}") from error
    return True


def exercise(name: str) -> Callable[[Any], Any]:
    """Decorate the learner's function or class: check it now, keep it if right, replace it if unfinished."""
    task = get(name)

    def decorate(answer: Any) -> Any:
        if verdict(name, answer):
            print(f"✓ exercise {name}: right")
            return answer
        print(f"… exercise {name}: not finished yet (about {task.minutes} minutes); "
              "the reference solution stands in for it")
        return task.reference

    return decorate


def _unfinished(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError


def check_all(names: Sequence[str] | None = None) -> list[str]:
    """What is wrong with the exercises themselves, one sentence each; empty if all hold both ways.

    For each: the reference passes, a stub counts as unfinished, every planted wrong answer fails loudly.
    """
    problems = []
    for name in registered() if names is None else names:
        task = get(name)
        try:
            if not verdict(name, task.reference):
                problems.append(f"{name}: the reference itself is unfinished")
        except AssertionError as error:
            problems.append(f"{name}: the reference fails ({error})")
        try:
            if verdict(name, _unfinished):
                problems.append(f"{name}: the check passes without calling the answer")
        except AssertionError as error:
            problems.append(f"{name}: an untouched stub is called wrong instead of unfinished ({error})")
        for answer in task.wrong:
            called = getattr(answer, "__name__", repr(answer))
            try:
                done = verdict(name, answer)
                said = "passes" if done else "counts as unfinished"
                problems.append(f"{name}: the wrong answer {called} {said}")
            except AssertionError as error:
                if not str(error.__cause__):
                    problems.append(f"{name}: the wrong answer {called} fails without naming the case")
    return problems
