"""How each shipped checkpoint was made, one file for each: `mmcourse train NAME` calls
`mmcourse.recipes.NAME.main()`.

A recipe trains and ships. It may use a judge to report (`metrics` in the manifest); the tables of the
chapters are measured by `mmcourse.studies`.
"""
import argparse
import os


def options(name: str, argv: list[str] | None, steps: int | None) -> argparse.Namespace:
    """The options that every recipe has: `--seed`, `--threads` and, if it takes steps, `--steps`."""
    import torch
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog=f"mmcourse train {name}")
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps, help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=threads, help="default: %(default)s")
    args = parser.parse_args(argv if argv is not None else [])
    torch.set_num_threads(args.threads)
    return args


def finished(history):
    """The history of a run; KeyboardInterrupt if it was interrupted: half a run is neither shipped nor a row."""
    if history.interrupted:
        raise KeyboardInterrupt
    return history
