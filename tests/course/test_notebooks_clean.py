"""The chapters are clean top-to-bottom runs that any page can show; every rule proven able to fail."""

import copy
import json
import re

import nbformat
import pytest

from mmcourse import checkpoints
from mmcourse.cli import ROOT, notebooks
from mmcourse.cli.notebooks import Notebook, lint

GOOD = {
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "id": "a",
         "source": ["# Title\n", "A [link](https://example.org) may stay."]},
        {"cell_type": "code", "metadata": {}, "id": "b", "execution_count": 1, "source": "print(1)",
         "outputs": [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]},
        {"cell_type": "code", "metadata": {}, "id": "c", "execution_count": None, "source": "", "outputs": []},
        {"cell_type": "code", "metadata": {}, "id": "d", "execution_count": 2, "source": ["%time x = 2\n", "!echo hello"],
         "outputs": [{"output_type": "display_data", "metadata": {}, "data": {"image/png": "aGFsbG8=", "text/plain": ["a"]}}]},
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.mark.parametrize("path", notebooks.all_notebooks(), ids=lambda p: p.stem)
def test_notebook_is_a_clean_run(path):
    book = Notebook.read(path)
    nbformat.validate(nbformat.from_dict(book.content))
    assert lint(book) == []


def test_every_notebook_has_a_chapters_name():
    assert sorted(notebooks.NOTEBOOKS.glob("*.ipynb")) == notebooks.all_notebooks()


def test_the_readme_links_to_every_chapter_and_to_no_other():
    linked = re.findall(r"\(notebooks/([^)]+\.ipynb)\)", (ROOT / "README.md").read_text("utf-8"))
    assert sorted(set(linked)) == [path.name for path in notebooks.all_notebooks()]


def chapters(text: str) -> list[tuple[str, bool, str]]:
    """The rows of a table of chapters: number and name, whether it is to come, the question that it answers."""
    found = re.findall(r"^\| (\d\d) \|? ?(.+?) \| (.+?) \|$", re.sub(r"\| \[(\d\d)", r"| \1 [", text), re.MULTILINE)
    return [(f"{number} {re.sub(r'[][]|[(][^)]*[)]|[*]', '', name).strip()}", "to come" in name, question) for number, name, question in found]


def test_chapter_00_and_the_readme_list_the_same_chapters():
    start = Notebook.read(notebooks.all_notebooks()[0])
    here, there = chapters("\n".join(start.prose)), chapters((ROOT / "README.md").read_text("utf-8"))
    assert len(here) == 16 and [row[:2] for row in here] == [row[:2] for row in there]
    assert [row[2] for row in here[1:]] == [row[2] for row in there[1:]]
    written = [path.name[:2] for path in notebooks.all_notebooks()]
    assert [name[:2] for name, to_come, _ in here if not to_come] == written
    links = re.findall(r"\| \[\d\d [^]]+\]\(([^)]+)\)", "\n".join(start.prose))
    assert links == [path.name for path in notebooks.all_notebooks()[1:]]


def test_the_readme_says_what_the_training_cost():
    hours = sum(part.get("cpu_minutes") or 0 for part in checkpoints.manifest().values()) / 60
    assert 15.2 < hours < 15.8 and "some fifteen and a half CPU hours" in (ROOT / "README.md").read_text("utf-8")


def saved(tmp_path, content):
    path = tmp_path / "03_planted.ipynb"
    path.write_text(json.dumps(content), "utf-8")
    return Notebook.read(path)


def test_the_good_notebook_passes(tmp_path):
    assert lint(saved(tmp_path, GOOD)) == []


def output(kind, text):
    return {"output_type": "display_data", "metadata": {}, "data": {kind: text}}


BREAKAGES = {
    "run twice": (lambda n: n["cells"][3].update(execution_count=3), "not one clean run"),
    "never run": (lambda n: n["cells"][1].update(execution_count=None), "code cell 1 has execution count None"),
    "an error": (lambda n: n["cells"][1]["outputs"].append(
        {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": []}), "ends in KeyError"),
    "remote picture": (lambda n: n["cells"][0].update(source="![x](https://example.org/x.png)"), "loads something"),
    "remote img": (lambda n: n["cells"][0].update(source="<img width=3 src='https://example.org/x.png'>"), "loads something"),
    "remote script": (lambda n: n["cells"][1]["outputs"].append(
        output("text/html", "<script src=\"//example.org/x.js\"></script>")), "output of code cell 1 loads"),
    "a private folder": (lambda n: n["cells"][1]["outputs"].append(
        output("text/plain", "saved in /home/ada/x.pt")), "/home/ada/x.pt"),
    "too large": (lambda n: n["cells"][3]["outputs"][0]["data"].update({"image/png": "A" * 1_600_000}), "1.60 MB"),
    "another kernel": (lambda n: n["metadata"]["kernelspec"].update(name="my-venv"), "my-venv"),
    "no language": (lambda n: n["metadata"].pop("language_info"), "language"),
    "not Python": (lambda n: n["cells"][1].update(source="x = ???"), "not Python"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_planted_breakage_is_found(tmp_path, name):
    change, said = BREAKAGES[name]
    content = copy.deepcopy(GOOD)
    change(content)
    assert any(said in problem for problem in lint(saved(tmp_path, content))), lint(saved(tmp_path, content))


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    path = tmp_path / "03_planted.ipynb"
    for text in ("hello", "[]", '{"cells": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is not a notebook"):
            Notebook.read(path)


def test_statistics_count_what_a_reader_reads(tmp_path):
    content = copy.deepcopy(GOOD)
    content["cells"][0]["source"] = "One two.\n```\nnot these words\n```\n<details>nor these\n\nhere</details> three"
    assert "2 code cells" in notebooks.statistics(saved(tmp_path, content))
    assert " 3 words" in notebooks.statistics(saved(tmp_path, content))
