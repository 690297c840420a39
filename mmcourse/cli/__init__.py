"""What the command line does: one file for each verb, but `study` (in train.py), `evaluate` and `gallery` (files of the root).

`VERBS` in `mmcourse.__main__` is the list. Each function takes the verb's arguments and returns an exit code: 0 well, 1
something failed, 2 not understood.
"""
import contextlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
FROM_A_CLONE = "clone the course and run `pip install -e .` in it"


def usage_error(sentence: str) -> int:
    """Say on stderr what was not understood; returns exit code 2."""
    print(f"mmcourse: {sentence}", file=sys.stderr)
    return 2


def find_notebook(chapter: str) -> Path:
    """The notebook for `3`, `03`, `03_images`, a file name or a path; ValueError that lists the chapters."""
    with contextlib.suppress(OSError, ValueError):          # a name that no file can have
        for path in (Path(chapter), NOTEBOOKS / chapter):
            if path.suffix == ".ipynb" and path.is_file():
                return path.resolve()
    there = sorted(NOTEBOOKS.glob("*.ipynb"))
    if not there:
        raise ValueError(f"there are no notebooks in {NOTEBOOKS}: {FROM_A_CLONE}")
    stem = chapter.zfill(2) if chapter.isdigit() else chapter
    found = [path for path in there if stem and path.name.startswith(stem)]
    if not found:
        have = ", ".join(path.stem for path in there)
        raise ValueError(f"no chapter {chapter!r:.200} in {NOTEBOOKS}; there are: {have}")
    return found[0]
