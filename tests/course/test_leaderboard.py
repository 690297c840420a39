"""The leaderboard: our entry follows from the files in the repository, the rules are kept, the table says what the entries say."""
import copy

import pytest

from mmcourse.cli import leaderboard as board
from mmcourse.files import read_json, results, write_json
from mmcourse.matrix import FIRST
from mmcourse.paths import CHECKPOINTS

MANIFEST = read_json(CHECKPOINTS / "manifest.json")


def changed(**changes) -> dict:
    """A measurement in which all directions score 0.99 of 1.0, but for these."""
    evaluated = copy.deepcopy(results("evaluate"))
    for rows in evaluated["matrix"].values():
        for row in rows.values():
            if isinstance(row, dict):
                row.update(score=0.99, low=0.98, high=0.995, ceiling=None if row["ceiling"] is None else 1.0)
    for direction, measures in changes.items():
        for measure, row in measures.items():
            evaluated["matrix"][direction][measure].update(row)
    return evaluated


def test_our_entry_is_computed_from_what_is_in_the_repository():
    entry = board.make_entry("reference", results("evaluate"), MANIFEST)
    assert entry == read_json(board.FOLDER / "reference.json")
    assert entry["total"] == pytest.approx(sum(MANIFEST[part]["cpu_minutes"] for part in board.PARTS), abs=0.05)


def test_the_page_has_the_table_of_the_entries(tmp_path):
    page = (board.FOLDER / "README.md").read_text("utf-8")
    for file in board.FOLDER.glob("*.json"):
        write_json(tmp_path / file.name, read_json(file))
    (tmp_path / "README.md").write_text(page.split(board.BEGIN)[0] + board.BEGIN + board.END + page.split(board.END)[1], "utf-8")
    board.write_table(tmp_path)
    assert (tmp_path / "README.md").read_text("utf-8") == page
    (tmp_path / "README.md").write_text("nothing here", "utf-8")
    with pytest.raises(ValueError, match="no place for the table"):
        board.write_table(tmp_path)


def test_verdicts_follow_the_interval_and_the_ceiling():
    assert board.direction_row({"score": 0.97, "low": 0.96, "high": 0.98, "ceiling": 1.0})["verdict"] == "holds"
    assert board.direction_row({"score": 0.95, "low": 0.93, "high": 0.97, "ceiling": 1.0})["verdict"] == "undecided"
    assert board.direction_row({"score": 0.90, "low": 0.88, "high": 0.92, "ceiling": 1.0})["verdict"] == "fails"
    assert board.direction_row({"score": 0.90, "low": 0.88, "high": 0.92, "ceiling": 0.9})["verdict"] == "holds"
    assert board.direction_row({"score": 0.97, "low": 0.96, "high": 0.98, "ceiling": None})["bar"] == 0.95


def test_who_stands_in_more_comes_first_and_of_equals_who_was_quicker():
    entries = [board.make_entry("slow", changed(), MANIFEST), board.make_entry("quick", changed(), MANIFEST),
               board.make_entry("weak", changed(**{"image->text": {"exact": {"score": 0.5, "low": 0.4, "high": 0.6}}}), MANIFEST)]
    entries[1]["total"], entries[2]["total"] = 10.0, 1.0
    assert [entry["name"] for entry in board.ranked(entries)] == ["quick", "slow", "weak"]
    said = board.table(entries).split("\n")
    assert len(said) == 5 and "| yes |" in said[2] and f"no: {len(FIRST) - 1} of {len(FIRST)}" in said[4] and "50.0 (below)" in said[4]


def test_what_is_no_entry():
    good = changed()
    with pytest.raises(ValueError, match="test questions"):
        board.make_entry("x", {**good, "seed": 3}, MANIFEST)
    with pytest.raises(ValueError, match="test questions"):
        board.make_entry("x", {**good, "n": 100}, MANIFEST)
    with pytest.raises(ValueError, match="minutes these parts took: codec"):
        board.make_entry("x", good, {name: row for name, row in MANIFEST.items() if name != "codec"})
    with pytest.raises(ValueError, match="trained elsewhere: vqvae"):
        board.make_entry("x", good, {**MANIFEST, "vqvae": {**MANIFEST["vqvae"], "device": "cuda:0, bf16"}})
    without = {**good, "matrix": {name: row for name, row in good["matrix"].items() if name != "text->image"}}
    with pytest.raises(ValueError, match="text->image was not measured"):
        board.make_entry("x", without, MANIFEST)


def test_the_verb_writes_an_entry(tmp_path, capsys):
    (tmp_path / "README.md").write_text(f"{board.BEGIN}\n{board.END}\n", "utf-8")
    assert board.leaderboard(["mine", "--folder", str(tmp_path)]) == 0
    assert read_json(tmp_path / "mine.json")["name"] == "mine" and "| mine |" in (tmp_path / "README.md").read_text("utf-8")
    assert "directions stand" in capsys.readouterr().out
