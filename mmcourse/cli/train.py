"""`mmcourse train NAME`: train a shipped checkpoint again. `mmcourse study NAME`: measure a table again.

Both list what is there: a recipe is a file of `mmcourse/recipes`, a study one of `mmcourse/studies`.
"""
from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from mmcourse.cli import usage_error

PACKAGE = Path(__file__).resolve().parents[1]
# `train all` follows the imports: what a recipe needs is trained before it.
ORDER = ("bpe", "picture_judge", "word_judge", "vqvae", "codec", "second_listener", "transformer", "drafter", "decoder",
         "decoder128", "sound_decoder", "sign_judge", "sign_vqvae", "sign_painters", "glyph_vqvae", "learners", "practice",
         "phrase_listener", "chat", "shelf_nets")
OLD_NAMES = {"reference": "transformer"}                # the transformer's recipe was called so in the first edition


def modules(folder: str) -> list[str]:
    """The modules of a folder of the package by name, in alphabetical order (imports nothing)."""
    return sorted(m.name for m in pkgutil.iter_modules([str(PACKAGE / folder)]) if not m.name.startswith("_"))


def recipes() -> list[str]:
    """The names that `train` takes, in the order in which `train all` runs them."""
    return sorted(modules("recipes"), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def studies() -> list[str]:
    """The names that `study` takes."""
    return modules("studies")


def train(argv: list[str]) -> int:
    """Train one checkpoint, or all of them in order."""
    return _run("train", "recipes", recipes(), argv)


def study(argv: list[str]) -> int:
    """Measure one table, or all of them."""
    return _run("study", "studies", studies(), argv)


def _run(verb: str, folder: str, names: list[str], argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: mmcourse {verb} NAME [options]      (mmcourse {verb} NAME --help: its options)\n\nNAME is one of:")
        for name in ["all", *names]:
            print(f"  {name:<18} {_first_line(folder, name)}")
        return 0 if argv else 2
    name, options = OLD_NAMES.get(argv[0], argv[0]), argv[1:]
    if name != "all" and name not in names:
        return usage_error(f"nothing to {verb} is called {name!r}: choose one of all {' '.join(names)}")
    if verb == "train" and name == "all" and not {"--ship", "-h", "--help"} & {*options}:
        return usage_error("train all trains each checkpoint on those before it, so it replaces what lies in data/checkpoints "
                           "(git restores that): say so with --ship")
    for each in names if name == "all" else [name]:
        importlib.import_module(f"mmcourse.{folder}.{each}").main(options)
    return 0


def _first_line(folder: str, name: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    import ast
    if name == "all":
        return "every one of them, in this order"
    text = ast.get_docstring(ast.parse((PACKAGE / folder / f"{name}.py").read_text("utf-8"))) or ""
    return text.split("\n")[0]
