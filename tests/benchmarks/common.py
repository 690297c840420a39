"""What the benchmarks share: whoever is compared takes turns, the fastest turn counts; verdicts, and the
results file.

A benchmark is run by hand, `python tests/benchmarks/NAME.py`, on a quiet machine: read its ratios, not its
seconds. Its floors were fixed before it was run.
"""
import platform
import time
from collections.abc import Callable

from mmcourse.files import write_json
from mmcourse.paths import RESULTS


def spent(job: Callable) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    job()
    return time.process_time() - start


def fastest(jobs: dict[str, Callable], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """CPU seconds of each job: the fastest of its turns, after some that do not count.

    They take turns, so that a busy machine slows all alike.
    """
    turns = [{name: spent(job) for name, job in jobs.items()} for _ in range(warm_up + rounds)][warm_up:]
    return {name: min(turn[name] for turn in turns) for name in jobs}


def one_thread() -> dict:
    """Make torch use one thread; returns what the results file says of the machine."""
    import torch
    torch.set_num_threads(1)
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": 1}


def conclude(name: str, result: dict, met: dict[str, bool]) -> None:
    """Say which floors are met, and write data/results/NAME.json."""
    for floor, value in met.items():
        print(f"{'met   ' if value else 'MISSED'} {floor}")
    write_json(RESULTS / f"{name}.json", {**result, "met": met})
