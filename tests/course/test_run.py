"""`mmcourse run`: what a kernel alone can show is not saved; a chapter that fails is left as it was."""
import copy
import json

from mmcourse.__main__ import main
from mmcourse.cli import run

VIEW = "application/vnd.jupyter.widget-view+json"


def book(*cells):
    return {"cells": [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "source": source, "outputs": outputs}
                      for i, (source, outputs) in enumerate(cells)],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"},
                         "widgets": {"state": {}}}, "nbformat": 4, "nbformat_minor": 5}


def display(**data):
    return {"output_type": "display_data", "metadata": {}, "data": data}


def stderr(text):
    return {"output_type": "stream", "name": "stderr", "text": text}


def test_tidy_leaves_what_a_page_can_show():
    slider = display(**{VIEW: {"model_id": "x"}, "image/png": "aGk=", "text/plain": "[Sliders (t).]"})
    bar = display(**{VIEW: {"model_id": "y"}, "text/plain": "  0%|          | 0/700 [00:00<?, ?it/s]"})
    bare = display(**{VIEW: {"model_id": "z"}, "text/plain": "interactive(children=(IntSlider(value=1),))"})
    said, warned = {"output_type": "stream", "name": "stdout", "text": "100%| sure"}, stderr("careful: 3 of 4")
    content = run.tidy(book(("a", [slider, bar, bare, said, warned, stderr("100%|███| 5/5 [00:01<00:00]")])))
    assert content["cells"][0]["outputs"] == [display(**{"image/png": "aGk=", "text/plain": "[Sliders (t).]"}), said, warned]
    assert "widgets" not in content["metadata"]


def test_what_was_printed_in_two_pieces_is_one_output():
    pieces = [{"output_type": "stream", "name": "stdout", "text": ["one\n", "two"]}, {"output_type": "stream", "name": "stdout", "text": "\n"}]
    content = run.tidy(book(("a", [*pieces, stderr("careful\n")])))
    assert content["cells"][0]["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "one\ntwo\n"}, stderr("careful\n")]


def test_a_chapter_is_executed_and_saved(tmp_path, capsys):
    path = tmp_path / "03_planted.ipynb"
    path.write_text(json.dumps(book(("x = 20 + 1", []), ("print(2 * x)", []))))
    assert main(["run", str(path)]) == 0 and "executed" in capsys.readouterr().out
    saved = json.loads(path.read_text("utf-8"))
    assert [c["execution_count"] for c in saved["cells"]] == [1, 2]
    assert "".join(saved["cells"][1]["outputs"][0]["text"]) == "42\n"


def test_a_chapter_that_fails_is_left_as_it_was(tmp_path, capsys):
    path, content = tmp_path / "03_planted.ipynb", book(("1 / 0", []))
    path.write_text(json.dumps(copy.deepcopy(content)))
    assert main(["run", str(path)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out and json.loads(path.read_text()) == content
