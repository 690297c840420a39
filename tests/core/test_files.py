"""Files are written whole or not at all; what was measured is found by name, or the error says how to measure it."""
import errno
import json
import math
import os
import subprocess
import sys

import pytest

from mmcourse import files
from mmcourse.files import atomic_write, locked, read_json, results, write_bytes, write_json, write_text


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


def test_a_new_file_has_the_mode_that_the_users_files_have(tmp_path):
    (tmp_path / "theirs").touch()
    with atomic_write(tmp_path / "ours") as draft:
        draft.write_bytes(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_what_a_killed_process_left_is_cleared_away_a_day_later(tmp_path):
    old, young, other = (tmp_path / name for name in (".a.txt.1-00.part.txt", ".a.txt.2-00.part.txt", ".b.txt.1-00.part.txt"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    write_text(tmp_path / "a.txt", "x")
    assert names(tmp_path) == [young.name, other.name, "a.txt"]


# ---- what the disk says

def no_room(draft):
    raise OSError(errno.ENOSPC, "No space left on device")


def hidden(draft):
    try:
        no_room(draft)
    finally:
        raise ValueError("Can't close the ZIP file while there is an open writing handle on it")


@pytest.mark.parametrize("write", [no_room, hidden])
def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path, monkeypatch, write):
    path = tmp_path / "a.npz"
    with pytest.raises(OSError, match=r"a.npz could not be written \(No space left on device\); make room on that disk") as caught, \
            atomic_write(path) as draft:
        write(draft)
    assert caught.value.errno == errno.ENOSPC and "MMCOURSE_CACHE" not in str(caught.value) and names(tmp_path) == []
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="MMCOURSE_CACHE names another folder"), atomic_write(path) as draft:
        write(draft)


def test_a_disk_that_is_really_full(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        write_bytes(tmp_path / "a", b"old")
        with pytest.raises(OSError, match="a could not be written .*; make room on that disk"):
            write_bytes(tmp_path / "a", bytes(100_000))
        assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_is_none_or_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="b.txt could not be written"):
        write_text(tmp_path / "file" / "b.txt", "x")

    def read_only(*args):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "b.txt"))
    monkeypatch.setattr(files.os, "replace", read_only)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "b.txt", "x")
    assert names(tmp_path) == ["file"]


def test_an_error_that_has_nothing_to_do_with_the_file_passes_as_it_is(tmp_path):
    for error in (FileNotFoundError(2, "No such file", "elsewhere"), KeyError("x")):
        with pytest.raises(type(error)) as caught, atomic_write(tmp_path / "a"):
            raise error
        assert caught.value is error


# ---- one at a time

def test_a_lock_keeps_others_out_while_it_lasts_and_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "a.json"
    with locked(path):
        with pytest.raises(BlockingIOError, match="a.json is in use by another process"), locked(path, wait=False):
            pass
        with locked(tmp_path / "b.json", wait=False):
            pass
    with locked(path, wait=False):
        pass
    assert names(path.parent) == []


ADD = """
import sys
from mmcourse.files import locked, read_json, write_json
for _ in range(40):
    with locked(sys.argv[1]):
        write_json(sys.argv[1], read_json(sys.argv[1]) + 1)
"""


def test_nothing_is_lost_where_three_write_and_a_killed_one_locks_nobody_out(tmp_path):
    path = tmp_path / "n.json"
    write_json(path, 0)
    hold = "import sys, time; from mmcourse.files import locked\nwith locked(sys.argv[1]): print(flush=True), time.sleep(60)"
    killed = subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE)
    killed.stdout.readline()
    running = [subprocess.Popen([sys.executable, "-c", ADD, str(path)]) for _ in range(3)]
    killed.kill()
    assert [process.wait() for process in running] == [0, 0, 0] and read_json(path) == 120
    killed.communicate()


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
