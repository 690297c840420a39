"""All chapters have one form; each rule is shown a chapter that breaks it."""
import copy
import json

import pytest

from mmcourse import exercises
from mmcourse.cli import form, notebooks
from mmcourse.cli.notebooks import Notebook


@pytest.mark.parametrize("path", notebooks.all_notebooks(), ids=lambda p: p.stem)
def test_a_chapter_has_the_common_form(path):
    assert form.problems(Notebook.read(path)) == []


def text(*lines):
    return {"cell_type": "markdown", "metadata": {}, "id": "m", "source": "\n".join(lines)}


def code(*lines, outputs=()):
    return {"cell_type": "code", "metadata": {}, "id": "c", "execution_count": 1, "source": "\n".join(lines), "outputs": list(outputs)}


MINUTES = exercises.get("01.token_bits").minutes
PICTURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "aGFsbG8="}}
GOOD = [
    text("# 01 · A chapter", "word " * 390, f"**Time:** about 3 minutes to read, {MINUTES} for the exercises, 1 for the machine."),
    text(f"### Exercise 01.token_bits · {MINUTES} minutes · easy", "Write it.", "<details><summary>Hint</summary>", "", "Think.", "</details>"),
    code('@exercise("01.token_bits")', "def token_bits(n):", "    raise NotImplementedError"),
    text("<details><summary>Solution</summary>", "", "```python", "x = 1", "```", "</details>"),
    code("# a comment", "show()", outputs=[PICTURE, PICTURE]),
    text("## What you can do now", "### Five quick questions", *["<details><summary>Why?</summary>", "", "So.", "", "</details>"] * 5,
         "## What works, what does not, and what real systems do"),
    text("## In depth", "word " * 4000),
]


def chapter(tmp_path, cells):
    path = tmp_path / "01_planted.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), "utf-8")
    return Notebook.read(path)


def test_the_good_chapter_passes(tmp_path):
    assert form.problems(chapter(tmp_path, GOOD)) == []


def test_reading_counts_words_lines_and_figures_before_in_depth(tmp_path):
    book = chapter(tmp_path, [text("one two three four"), code("x = 1", "# no", "", "y = 2", outputs=[PICTURE]), text("five", "## In depth", "six"), code("z")])
    assert form.reading_minutes(book) == pytest.approx(5 / 200 + 2 / 20 + 1 / 3)


@pytest.mark.parametrize("cell, old, new, said", [
    (0, "**Time:**", "Time:", "has no line"),
    (0, "about 3 minutes to read", "about 1 minutes to read", "promises 1 minutes of reading"),
    (0, f"{MINUTES} for the exercises", "99 for the exercises", f"they add up to {MINUTES}"),
    (1, f"· {MINUTES} minutes", "· 99 minutes", f"'### Exercise 01.token_bits · {MINUTES} minutes · easy' is missing"),
    (1, "<details><summary>Hint</summary>", "", "no folded hint"),
    (1, "Write it.", "Write it. *Hint: log2.*", "a hint outside the fold"),
    (3, "<details><summary>Solution</summary>", "# Solution", "no folded solution"),
    (4, "show()", "show(" + "1, " * 30 + ")", "wider than 92 columns"),
    (5, "## What you can do now", "## End", "'## What you can do now' is missing"),
    (5, "## What works", "## Real systems, and what works", "'## What works, what does not' is missing"),
    (5, "<summary>Why?</summary>", "Why?", "0 folded answers"),
])
def test_a_planted_breakage_is_found(tmp_path, cell, old, new, said):
    cells = copy.deepcopy(GOOD)
    assert old in cells[cell]["source"]
    cells[cell]["source"] = cells[cell]["source"].replace(old, new)
    found = form.problems(chapter(tmp_path, cells))
    assert any(said in sentence for sentence in found), found
