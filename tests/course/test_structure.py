"""The package stands as CONTRIBUTING.md draws it: imports run downwards, functions are short, nothing lies about unused.

Every rule is proven able to fail, on a planted package.
"""
import ast
import json
import re
from pathlib import Path

import pytest

from mmcourse.cli import NOTEBOOKS, ROOT
from mmcourse.cli.train import recipes, studies

PACKAGE = ROOT / "mmcourse"
# Where a module stands: its folder, or for the files of the root `model`, but for these few.
ROOT_FILES = {"files": "files", "paths": "files", "evaluate": "evaluate", "gallery": "gallery", "__main__": "cli"}
# Each may import itself and what is named: world < model < judges < recipes < studies; show beside the judges; the
# material of the experiments (chapters 08 on) between judges and recipes.
BELOW = {
    "files": set(),
    "world": {"files"},
    "model": {"files", "world"},
    "judges": {"files", "world", "model"},
    "experiments": {"files", "world", "model", "judges"},
    "recipes": {"files", "world", "model", "judges", "experiments"},
    "studies": {"files", "world", "model", "judges", "experiments", "recipes", "evaluate"},
    "show": {"files", "world", "model", "judges", "experiments"},
    "exercises": {"files", "world", "model", "judges", "experiments"},
    "evaluate": {"files", "world", "model", "judges"},
    "gallery": {"files", "world", "model", "judges", "show"},
    "cli": {"files", "world", "model", "exercises"},    # trains and measures by name: importlib, nothing at its head
}
LONGEST = 60                # lines of a function
LONGEST_IN_STUDIES = 80
MODEL_LINES = 4750          # of the root's files, the empty ones aside


def layer(module: str, package: Path) -> str:
    """Where a full dotted name stands: `mmcourse.judges.hearing` -> `judges`, `mmcourse.codec` -> `model`."""
    first = (module.split(".") + [""])[1]
    return first if (package / first).is_dir() and first else ROOT_FILES.get(first, "model")


def name_of(path: Path, package: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, package: Path) -> set[str]:
    """Full dotted names of what a file imports from the package, anywhere in it, however it is written."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:                              # from . import x: relative to the file's folder
                here = name_of(path, package).split(".")
                above = here if path.name == "__init__.py" else here[:-1]
                base = ".".join([*above[:len(above) - node.level + 1], *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == package.name}


def upward(package: Path) -> list[str]:
    """Every import that does not run downwards, in words."""
    problems = []
    for path in sorted(package.rglob("*.py")):
        here = layer(name_of(path, package), package)
        if here not in BELOW:
            problems.append(f"{path.relative_to(package)} is in a folder without a place in BELOW")
            continue
        problems += [f"{path.relative_to(package)} ({here}) imports {name} ({there})"
                     for name in sorted(imported(path, package))
                     if (there := layer(name, package)) not in {here, *BELOW[here]}]
    return problems


def test_imports_run_downwards():
    assert upward(PACKAGE) == []


@pytest.mark.parametrize(("file", "line", "said"), [
    ("codec.py", "from mmcourse.judges import hearing", "codec.py (model) imports mmcourse.judges.hearing (judges)"),
    ("codec.py", "from mmcourse import show", "codec.py (model) imports mmcourse.show (show)"),
    ("codec.py", "def f():\n    import mmcourse.judges.hearing as h", "imports mmcourse.judges.hearing (judges)"),
    ("codec.py", "from . import evaluate", "imports mmcourse.evaluate (evaluate)"),
    ("codec.py", "from .cli.test import test", "imports mmcourse.cli.test.test (cli)"),
    ("world/scene.py", "from mmcourse.codec import AudioCodec", "(world) imports mmcourse.codec.AudioCodec (model)"),
    ("world/scene.py", "from ..vqvae import VQVAE", "(world) imports mmcourse.vqvae.VQVAE (model)"),
    ("judges/hearing.py", "from mmcourse.recipes.codec import main", "(judges) imports mmcourse.recipes.codec.main (recipes)"),
    ("recipes/codec.py", "from mmcourse.studies import ch04", "(recipes) imports mmcourse.studies.ch04 (studies)"),
    ("show/audio.py", "from mmcourse.studies import ch04", "(show) imports mmcourse.studies.ch04 (studies)"),
    ("show/audio.py", "from mmcourse import evaluate", "(show) imports mmcourse.evaluate (evaluate)"),
    ("evaluate.py", "from mmcourse.recipes.decoder import measure", "evaluate.py (evaluate) imports mmcourse.recipes.decoder.measure"),
    ("exercises/ch01.py", "from mmcourse.show import audio", "(exercises) imports mmcourse.show.audio (show)"),
    ("cellar/x.py", "", "cellar/x.py is in a folder without a place"),
])
def test_a_planted_import_is_found(tmp_path, file, line, said):
    package = tmp_path / "mmcourse"
    for name in (*BELOW, "cellar") if file.startswith("cellar") else BELOW:
        if name not in ("files", "model", "evaluate", "gallery"):
            (package / name).mkdir(parents=True)
            (package / name / "__init__.py").write_text("")
    (package / file).write_text(f"import os\nfrom mmcourse.paths import cache_dir\n{line}\n")
    problems = [problem for problem in upward(package) if "cellar/__init__" not in problem]
    assert len(problems) == 1 and said in problems[0]


# ---------------------------------------------------------------- size

def too_long(source: str, limit: int) -> list[str]:
    """Functions of more than `limit` lines."""
    return [f"{node.name}: {lines} lines" for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > limit]


@pytest.mark.parametrize("folder", sorted({"", *(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())}))
def test_functions_are_short(folder):
    limit = LONGEST_IN_STUDIES if folder == "studies" else LONGEST
    found = {path.name: too_long(path.read_text("utf-8"), limit) for path in (PACKAGE / folder).glob("*.py")}
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_a_planted_long_function_is_found():
    assert too_long("def f():\n" + "    x = 1\n" * 5, 5) == ["f: 6 lines"] and not too_long("def f():\n" + "    x = 1\n" * 4, 5)


def test_the_model_can_be_read():
    """Some 4,700 lines in thirty files: what README.md says of its size (-s prints it)."""
    files = [path for path in PACKAGE.glob("*.py") if layer(name_of(path, PACKAGE), PACKAGE) in ("model", "files")]
    lines = [line for path in files for line in path.read_text("utf-8").splitlines()]
    filled = sum(bool(line.strip()) for line in lines)
    print(f"the model: {len(files)} files, {len(lines):,} lines, {filled:,} of them not empty")
    assert filled < MODEL_LINES and len(files) <= 30


# ---------------------------------------------------------------- nothing lies about

def defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """The names that a module defines at its top level, with the statement that does."""
    found = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                found |= {name.id: node for name in ast.walk(target)
                      if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
    return found


def unused(modules: dict[str, str], entries: set[str], also_read: str = "") -> set[str]:
    """Names `module:name` that no entry leads to.

    Args:
        modules: dotted name -> source, of modules that may import each other.
        entries: names `module:name` that are called from elsewhere.
        also_read: other code (of notebooks) that may name them.
    """
    trees = {module: ast.parse(source) for module, source in modules.items()}
    names = {module: defined(tree) for module, tree in trees.items()}
    known = {module: aliases(tree, names) for module, tree in trees.items()}

    def uses(module: str, node: ast.AST) -> set[str]:
        found = set()
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                found.add(f"{module}:{part.id}" if part.id in names[module] else known[module].get(part.id, ""))
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                found.add(f"{known[module].get(part.value.id, '')}:{part.attr}")
        return found & every

    every = {f"{module}:{name}" for module in names for name in names[module]}
    todo = (every & entries) | (every & read_of(also_read, modules))
    for module, tree in trees.items():                  # what runs when a module is imported
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)):
                todo |= uses(module, node)
    reached = set()
    while todo:
        reached.add(full := todo.pop())
        module, name = full.split(":")
        todo |= uses(module, names[module][name]) - reached
    return every - reached


def aliases(tree: ast.Module, names: dict[str, dict]) -> dict[str, str]:
    """What a module imports of the others: local name -> `module` or `module:name`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                is_module = f"{node.module}.{alias.name}" in names
                found[alias.asname or alias.name] = f"{node.module}{'.' if is_module else ':'}{alias.name}"
    return found


def read_of(code: str, modules) -> set[str]:
    """What the code of notebooks names of the modules, `module:name`: as `short.name`, or by importing it."""
    longer = {}
    for module in modules:
        longer.setdefault(module.rpartition(".")[2], []).append(module)
    found = {f"{module}:{name}" for short, name in re.findall(r"\b(\w+)\.(\w+)", code) for module in longer.get(short, ())}
    for module, names in re.findall(r"from ([\w.]+) import ([^\n]+)", code):
        found |= {f"{module}:{name}" for name in re.findall(r"\w+", names)}
    return found


def test_everything_in_recipes_and_studies_is_reached_by_train_or_study():
    paths = [path for folder in ("recipes", "studies") for path in (PACKAGE / folder).glob("*.py")]
    modules = {name_of(path, PACKAGE): path.read_text("utf-8") for path in paths}
    cells = [cell for path in NOTEBOOKS.glob("*.ipynb") for cell in json.loads(path.read_text("utf-8"))["cells"]]
    read = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    entries = {f"mmcourse.recipes.{name}:main" for name in recipes()} | {f"mmcourse.studies.{name}:main" for name in studies()}
    without = {entry for entry in entries if "main" not in defined(ast.parse(modules[entry.split(":")[0]]))}
    assert without == set(), "`mmcourse train NAME` and `mmcourse study NAME` call main()"
    assert unused(modules, entries, read) == set()


def test_what_is_planted_and_unused_is_found():
    one = ("from p.two import helper\nfrom p import three as t\nSIZE = 3\nUNUSED = 4\n"
           "def main():\n    return helper(SIZE) + t.deep\n")
    two = "def helper(n):\n    return inner(n)\ndef inner(n):\n    return n\ndef nobody():\n    return inner(1)\n"
    three = "deep = 1\nshown = 1\nimported = 1\nlonely = 2\nother_lonely = 2\n"
    read = "three.shown + three.other_lonely2\nfrom p.three import x, imported"
    found = unused({"p.one": one, "p.two": two, "p.three": three}, {"p.one:main"}, read)
    assert found == {"p.one:UNUSED", "p.two:nobody", "p.three:lonely", "p.three:other_lonely"}


# ---------------------------------------------------------------- the tests

def test_the_tests_stand_in_folders_like_the_package():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    assert folders == {"core", "world", "judges", "recipes", "studies", "show", "course", "browser", "shipped", "benchmarks"}
    assert not list((ROOT / "tests").glob("test_*.py"))
