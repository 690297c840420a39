"""Files written whole or not at all, and the results that scripts of this repository have measured."""
import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from mmcourse.paths import RESULTS


@contextlib.contextmanager
def atomic_write(path) -> Iterator[Path]:
    """A path to write to in place of `path`, which gets the new content only when the block ends without an error.

    A crash, a full disk or Ctrl-C leaves the old file whole. The draft lies beside it under a name of its own (two
    processes may write at once), and is gone in the end.

    >>> with atomic_write("table.json") as draft:                                # doctest: +SKIP
    ...     draft.write_text("{}")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path, text: str) -> None:
    """A text file in UTF-8 with line feeds, atomically."""
    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def write_json(path, content, indent: int | None = 1) -> None:
    """A JSON file, atomically. ValueError for NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path):
    """The content of a JSON file; ValueError that names the file if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON any more ({error}): restore it with git") from None


def results(name: str):
    """What a script of this repository has measured: data/results/NAME.json. FileNotFoundError says how to make it."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"nothing was measured under {name!r} yet ({path}): run `mmcourse study {name}`, "
                                "or restore data/results with git")
    return read_json(path)
