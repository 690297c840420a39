"""How each shipped checkpoint was made, one file for each: `mmcourse train NAME` calls
`mmcourse.recipes.NAME.main()`.

A recipe trains into a folder of its run, and into data/checkpoints only if `--ship` is asked for. It may use a
judge to report (`metrics` in the manifest); the tables of the chapters are measured by `mmcourse.studies`.
"""
import argparse
import ast
import hashlib
import importlib
import inspect
import json
import os
from pathlib import Path

from mmcourse import checkpoints
from mmcourse.paths import CHECKPOINTS, cache_dir


def options(name: str, argv: list[str] | None, steps: int | None, together: bool = False) -> argparse.Namespace:
    """The options that every recipe has; `--steps` if it takes steps. Sets threads and hardware of the process, and joins
    the others that torchrun started if the recipe trains `together`."""
    import torch

    from mmcourse.recipes import _device
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog=f"mmcourse train {name}")
    if steps is not None:
        parser.add_argument("--steps", type=count, default=steps, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=count, default=threads, help="default: %(default)s")
    parser.add_argument("--fresh", action="store_true", help="train from the first step, whatever was trained before")
    _device.add_options(parser, together)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, help="the folder for the checkpoint (default: that of the run, in the cache)")
    where.add_argument("--ship", action="store_true", help="replace the shipped checkpoint in data/checkpoints")
    _device.check_alone(parser, together)
    args = parser.parse_args(argv if argv is not None else [])
    torch.set_num_threads(args.threads)
    _device.use(parser, args)
    return args


def count(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, got {text}")
    return int(text)


def run_file(recipe: str, code: bool = True, **settings) -> Path:
    """Where a run is kept: the folder's name holds the hash of what decides it, the recipe's code and constants
    (but for `code=False`) and the `settings`.

    So a recipe that was changed, or another tokenizer beneath it, begins a run of its own.
    """
    module = importlib.import_module(f"mmcourse.recipes.{recipe}")
    made_of = {name: repr(value) for name, value in settings.items()}
    if code:
        made_of[""] = ast.dump(ast.parse(inspect.getsource(module)))
        made_of |= {name: repr(value) for name, value in vars(module).items() if name.isupper() and len(name) > 1}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "runs" / f"{recipe}-{digest[:10]}" / "run.pt"


def begin(file: Path, args: argparse.Namespace) -> Path:
    """The file of a run; with `--fresh` it is gone."""
    if args.fresh:
        file.unlink(missing_ok=True)
    return file


def finished(history):
    """The history of a run; KeyboardInterrupt if it was interrupted: half a run is neither shipped nor a row."""
    if history.interrupted:
        raise KeyboardInterrupt
    return history


def rank_0_goes_on() -> None:
    """The training is over: the first process measures and saves, the others end here without a word."""
    from mmcourse.distributed import leave, rank
    first = rank() == 0
    leave()
    if not first:
        raise SystemExit


def ship(name: str, model, history, args: argparse.Namespace, run: Path, metrics: dict, folder: Path | None = None,
         **more) -> Path:
    """Save what was trained, in `folder`, `--out`, data/checkpoints (`--ship`) or the run's own, and say where."""
    from mmcourse.recipes._device import trained_on
    folder = target(args, run, folder)
    path = checkpoints.save(name, model, seed=args.seed, steps=args.steps, cpu_minutes=history.cpu_minutes,
                            metrics=metrics, folder=folder, **trained_on(), **more)
    say_where(path, metrics)
    return path


def target(args: argparse.Namespace, run: Path, folder: Path | None) -> Path:
    """The folder that a checkpoint goes to."""
    return Path(folder or args.out or (CHECKPOINTS if args.ship else run.parent))


def say_where(path: Path, metrics: dict) -> None:
    """What was measured, where the checkpoint is, and what no longer belongs to it."""
    print(f"{metrics or ''} -> {path}".strip())
    if path.parent != CHECKPOINTS:
        print("(the shipped checkpoint is as it was; the same command with --ship replaces it)")
    for other, part in checkpoints.strangers(path.parent).items():
        print(f"{other} was trained on another {part} and loads no more: mmcourse train {other} --ship")
