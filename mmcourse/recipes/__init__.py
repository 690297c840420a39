"""How each shipped checkpoint was made: `python -m mmcourse train NAME` calls `mmcourse.recipes.NAME.main()`."""
import argparse
import os


def options(name: str, argv: list[str] | None, steps: int) -> argparse.Namespace:
    """The options that every recipe has: `--steps`, `--seed`, `--threads`."""
    import torch
    parser = argparse.ArgumentParser(prog=f"mmcourse train {name}")
    parser.add_argument("--steps", type=int, default=steps, help=f"training steps (default {steps})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1)
    args = parser.parse_args(argv if argv is not None else [])
    torch.set_num_threads(args.threads)
    return args
