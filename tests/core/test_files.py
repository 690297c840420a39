"""Files are written whole or not at all; what was measured is found by name, or the error says how to measure it."""
import json
import math

import pytest

from mmcourse import files
from mmcourse.files import atomic_write, read_json, results, write_json, write_text


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_new_content_only_when_all_is_written(tmp_path):
    path = tmp_path / "new" / "table.json"
    with atomic_write(path) as draft:
        assert draft.parent == path.parent and draft.suffix == ".json", "beside it, and of its kind: np.savez looks at the name"
        draft.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half" and names(path.parent) == ["table.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_whole_and_no_draft(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(error)), atomic_write(path) as draft:
        draft.write_text("ne")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_two_who_write_at_once_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as one, atomic_write(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one" and names(tmp_path) == ["a.txt"], "the last to finish wins, whole"


def test_text_has_line_feeds_and_utf8_everywhere(tmp_path):
    write_text(tmp_path / "a.txt", "một\ncon\n")
    assert (tmp_path / "a.txt").read_bytes() == "một\ncon\n".encode()


def test_json_comes_back_and_what_is_no_json_is_not_written(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None, "b"]})
    assert read_json(path) == {"a": [1, None, "b"]} and path.read_text().endswith("}\n")
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError):
            write_json(path, {"a": bad})
    assert read_json(path) == {"a": [1, None, "b"]} and names(tmp_path) == ["a.json"]


def test_a_damaged_json_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1')
    with pytest.raises(ValueError, match="a.json is not JSON any more .*restore it with git"):
        read_json(tmp_path / "a.json")


def test_results_are_found_by_name_or_the_error_says_how_to_measure_them(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "RESULTS", tmp_path)
    (tmp_path / "ch99_x.json").write_text(json.dumps({"rows": []}))
    assert results("ch99_x") == {"rows": []}
    with pytest.raises(FileNotFoundError, match="'ch99_y'.*mmcourse study ch99_y"):
        results("ch99_y")
