"""The command line: `mmcourse VERB ...` or `python -m mmcourse VERB ...`; the work is done elsewhere."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

USAGE = """Build a small model that reads, draws and speaks.

  mmcourse lab [CHAPTER]     open the course in JupyterLab (--check: start the server, ask its status, stop)
  mmcourse test              unit tests, oracle tests and every notebook (--fast: the quick tests only)
  mmcourse check             are the notebooks clean, and do they agree with the package?
  mmcourse data              make the generated data now instead of at first use, and say where it is kept
                             (data human-digits: fetch recordings of real voices as well)
  mmcourse train NAME        train a shipped checkpoint again: NAME is one of {recipes}
  mmcourse evaluate          measure the shipped model in every direction (--json for programs)
  mmcourse gallery           draw data/gallery.png, the picture in the README, from the shipped model

Each verb answers --help."""

# `train all` follows the imports: what a recipe needs is trained before it.
ORDER = ("bpe", "picture_judge", "word_judge", "vqvae", "codec", "reference", "decoder", "decoder128",
         "sound_decoder")
_COMMANDS = ("lab", "test", "check", "data")
_OTHERS = {"evaluate": "mmcourse.evaluate", "gallery": "mmcourse.gallery"}


def recipes() -> list[str]:
    """The names that `train` takes, in the order in which `train all` runs them (imports nothing)."""
    folder = Path(__file__).parent / "recipes"
    found = [
        f.stem for f in folder.glob("*.py") if re.search(r"^def main\(", f.read_text("utf-8"), re.MULTILINE)
    ]
    return sorted(set(found) - {"all"}, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))


def _train(argv: list[str]) -> int:
    names = recipes()
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: mmcourse train NAME [options]\nNAME is one of: all {' '.join(names)}")
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name != "all" and name not in names:
        return _complain(f"no recipe called {name!r}: choose one of all {' '.join(names)}")
    for each in ORDER if name == "all" else [name]:            # "all" makes the checkpoints, and leaves studies out
        run = importlib.import_module(f"mmcourse.recipes.{each}").main
        if "argv" in inspect.signature(run).parameters:
            run(rest)
        elif rest and name != "all":
            return _complain(f"the recipe {each!r} takes no options, but got {' '.join(rest)}")
        else:
            run()
    return 0


def _complain(sentence: str) -> int:
    print(f"mmcourse: {sentence}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code is 0 well, 1 something failed, 2 not understood, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a Windows console may lack a letter: never die of printing
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE.format(recipes=", ".join(["all", *recipes()])))
        return 0 if argv else 2
    verb, rest = argv[0], argv[1:]
    try:
        if verb in _COMMANDS:
            return getattr(importlib.import_module("mmcourse.commands"), verb)(rest) or 0
        if verb == "train":
            return _train(rest)
        if verb in _OTHERS:
            answer = importlib.import_module(_OTHERS[verb]).main(rest)
            return answer if isinstance(answer, int) else 0
    except (ValueError, FileNotFoundError) as error:
        if verb == "train":  # may come from anywhere in hours of work: show where
            raise
        return _complain(str(error))
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return _complain(f"no command {verb!r}: choose lab, test, check, data, train, evaluate or gallery")


if __name__ == "__main__":
    sys.exit(main())
