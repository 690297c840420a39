"""A chapter's code is the package's code; proven able to fail."""

import ast
import inspect

import pytest

from mmcourse import training
from mmcourse.cli import notebooks
from mmcourse.cli.notebooks import Notebook, drift, package_definitions

HALF = ast.parse("def half(x: int) -> float:\n    return x / 2").body[0]
PACKAGE = {"half": {"mmcourse.x": notebooks.meaning(HALF)}}


def book(*cells, name="03_planted.ipynb"):
    """A notebook made of code cells, not saved anywhere."""
    made = [{"cell_type": "code", "source": text, "outputs": [], "execution_count": i} for i, text in enumerate(cells, 1)]
    return Notebook(notebooks.Path(name), {"cells": made, "metadata": {}}, 0)


@pytest.mark.parametrize("path", notebooks.all_notebooks(), ids=lambda p: p.stem)
def test_notebook_definitions_are_the_packages(path):
    assert drift(Notebook.read(path)) == []


@pytest.mark.parametrize("text", [
    "def half(x: int) -> float:\n    return x // 2",
    "def half(x) -> float:\n    return x / 2",
    "def half(x: int, y=0) -> float:\n    return x / 2",
    "@cache\ndef half(x: int) -> float:\n    return x / 2",
    "class half:\n    pass",
    "if True:\n    def half(x: int) -> float:\n        return 0.5 * x",
    "%matplotlib inline\ndef half(x: int) -> float:\n    return -x / 2",
    "x = 1\n# naive: too late, this is not the first line\ndef half(x: int) -> float:\n    return x",
])
def test_a_planted_difference_is_found(text):
    (problem,) = drift(book("1 + 1", text), PACKAGE)
    assert "03_planted.ipynb: code cell 2 defines half otherwise than mmcourse.x" in problem


@pytest.mark.parametrize("text", [
    "def half(x: int) -> float:\n    '''Another docstring.'''\n    return x / 2  # a comment",
    "def half(\n    x: int,\n) -> float:\n\n    return (x / 2)",
    "# naive: whole numbers only\ndef half(x):\n    return x // 2",
    "@exercise('03.half')\ndef half(x):\n    raise NotImplementedError",
    "def third(x):\n    return x / 3",
])
def test_equal_or_declared_code_passes(text):
    assert drift(book(text), PACKAGE) == []


def test_a_changed_number_in_real_code_is_found():
    """The guard sees the real package: one real function passes, and fails with one sign changed."""
    name, function = next((n, f) for n, f in inspect.getmembers(training, inspect.isfunction)
                          if f.__module__ == training.__name__ and "+" in inspect.getsource(f))
    text = inspect.getsource(function)
    assert drift(book(text)) == []
    assert [name in problem for problem in drift(book(text.replace("+", "-")))] == [True]


def test_the_guard_knows_the_components():
    known = package_definitions()
    for name in ("BPETokenizer", "VQVAE", "AudioCodec", "Transformer", "train"):
        assert name in known, f"the guard cannot protect {name}: the package has no such definition"
