"""`mmcourse check`: are the notebooks clean, and do they agree with the package?"""
from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

from mmcourse.cli import FROM_A_CLONE, NOTEBOOKS, ROOT, find_notebook, usage_error


def check(argv: list[str]) -> int:
    """Lint the notebooks, compare their definitions with the package's, and run ruff over all."""
    parser = argparse.ArgumentParser(
        prog="mmcourse check", description="Are the notebooks clean and in step?"
    )
    parser.add_argument("notebooks", nargs="*", help="which notebooks (default: all)")
    args = parser.parse_args(argv)
    from mmcourse.cli import form, notebooks

    if not NOTEBOOKS.is_dir():
        return usage_error(f"there are no notebooks in {NOTEBOOKS}: {FROM_A_CLONE}")
    try:
        paths = [find_notebook(name) for name in args.notebooks] or notebooks.all_notebooks()
    except ValueError as error:
        return usage_error(str(error))
    problems = []
    for path in paths:
        try:
            book = notebooks.Notebook.read(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        print(f"{path.name}: {notebooks.statistics(book)}, "
              f"{form.reading_minutes(book):.0f} minutes to read")
        for note in notebooks.notes(book):
            print(f"  note: {note}")
        problems += (notebooks.lint(book) + notebooks.drift(book) + notebooks.missing(book)
                     + notebooks.exercise_problems(book) + form.problems(book))
    for problem in problems:
        print(f"PROBLEM {problem}")
    code = 0
    if importlib.util.find_spec("ruff"):
        own = [ROOT / part for part in ("mmcourse", "tests", "notebooks", "setup.py")]
        targets = [str(p) for p in (paths if args.notebooks else own) if p.exists()]
        code = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet", "--output-format=concise", *targets], cwd=ROOT
        ).returncode
    else:
        print('ruff is not installed: `pip install -e ".[test]" -c constraints.txt` brings it')
    print(f"{len(paths)} notebooks, {len(problems)} problems" + (", and ruff complains" if code else ""))
    return 1 if problems or code else 0
