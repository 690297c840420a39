"""The command line: `mmcourse VERB ...` or `python -m mmcourse VERB ...`; the work is done in `mmcourse.cli`."""
from __future__ import annotations

import importlib
import sys

USAGE = """Build a small model that reads, draws and speaks.

  mmcourse lab [CHAPTER]     open the course in JupyterLab (--check: start the server, ask its status, stop)
  mmcourse test              unit tests, oracle tests and every notebook (--fast: the quick tests only)
  mmcourse run [CHAPTER ...] execute chapters from a clean kernel and save them with their outputs
  mmcourse check             are the notebooks clean, and do they agree with the package?
  mmcourse data              make the generated data now instead of at first use, and say where it is kept
                             (data human-digits: fetch recordings of real voices as well)
  mmcourse train NAME        train a shipped checkpoint again, into a folder of the run (--ship: in its place):
                             {recipes}
  mmcourse study NAME        measure a table of the chapters again:
                             {studies}
  mmcourse evaluate          measure the shipped model in every direction (--json for programs)
  mmcourse leaderboard       CPU minutes until every direction stands: compute an entry of data/leaderboard
  mmcourse gallery           draw data/gallery.png, the picture in the README, from the shipped model

Each verb answers --help."""
# verb -> the module and the function that do it
VERBS = {
    "lab": ("mmcourse.cli.lab", "lab"),
    "test": ("mmcourse.cli.test", "test"),
    "run": ("mmcourse.cli.run", "run"),
    "check": ("mmcourse.cli.check", "check"),
    "data": ("mmcourse.cli.data", "data"),
    "train": ("mmcourse.cli.train", "train"),
    "study": ("mmcourse.cli.train", "study"),
    "evaluate": ("mmcourse.evaluate", "main"),
    "leaderboard": ("mmcourse.cli.leaderboard", "leaderboard"),
    "gallery": ("mmcourse.gallery", "main"),
}


def usage() -> str:
    """The text of `mmcourse --help`, with what can be trained and measured (imports no model)."""
    import textwrap

    from mmcourse.cli.train import recipes, studies

    def listed(names: list[str]) -> str:
        return textwrap.fill(", ".join(["all", *names]), 90, initial_indent="", subsequent_indent=" " * 29)
    return USAGE.format(recipes=listed(recipes()), studies=listed(studies()))


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code is 0 well, 1 something failed, 2 not understood, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):             # a Windows console may lack a letter: never die of printing
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        print(f"mmcourse: no command {verb!r}: choose one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    module, function = VERBS[verb]
    try:
        answer = getattr(importlib.import_module(module), function)(rest)
        return answer if isinstance(answer, int) else 0
    except (ValueError, OSError) as error:
        misread = isinstance(error, ValueError | FileNotFoundError)
        if misread and verb in ("train", "study"):      # may come from anywhere in hours of work: show where
            raise
        print(f"mmcourse: {error}", file=sys.stderr)
        return 2 if misread else 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
