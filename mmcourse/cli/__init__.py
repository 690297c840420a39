"""What the command line does: one file for each verb, but `study` (in train.py), `evaluate` and `gallery` (files of the root).

`VERBS` in `mmcourse.__main__` is the list. Each function takes the verb's arguments and returns an exit code: 0 well, 1
something failed, 2 not understood.
"""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"


def usage_error(sentence: str) -> int:
    """Say on stderr what was not understood; returns exit code 2."""
    print(f"mmcourse: {sentence}", file=sys.stderr)
    return 2


def find_notebook(chapter: str) -> Path:
    """The notebook for `3`, `03`, `03_images`, a file name or a path; ValueError that lists the chapters."""
    for path in (Path(chapter), NOTEBOOKS / chapter):
        if path.suffix == ".ipynb" and path.is_file():
            return path.resolve()
    stem = chapter.zfill(2) if chapter.isdigit() else chapter
    found = sorted(NOTEBOOKS.glob(f"{stem}*.ipynb")) if stem else []
    if not found:
        have = ", ".join(p.stem for p in sorted(NOTEBOOKS.glob("*.ipynb"))) or "none"
        raise ValueError(f"no chapter {chapter!r} in {NOTEBOOKS}; there are: {have}")
    return found[0]
