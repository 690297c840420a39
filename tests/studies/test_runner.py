"""The runner of the studies: rows are saved as they come, what is there is not measured again, plans are not mixed."""
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcourse import __main__ as cli
from mmcourse import files, studies
from mmcourse.cli.train import studies as names
from mmcourse.paths import RESULTS
from mmcourse.studies import Job, Study, brief, finished, render, select
from mmcourse.training import History


@dataclass(frozen=True)
class Plan:
    """What decides the numbers."""
    steps: int = 10
    sizes: tuple[int, ...] = (1, 2)


class Recorder:
    """A study of three kinds of rows that notes what it measures, and can be stopped at a row."""

    def __init__(self, folder):
        self.file, self.measured, self.stop_at = folder / "table.json", [], None
        self.study = Study("ch99_table", Plan(), Plan(steps=1), self.jobs, seeds=(0, 1))

    def row(self, name, steps):
        if name == self.stop_at:
            raise KeyboardInterrupt
        self.measured.append(name)
        return {"score": steps, "name": name}

    def jobs(self, plan, seeds):
        out = [Job("base", partial(self.row, "base", plan.steps), section=()),
               *(Job(name, partial(self.row, name, plan.steps)) for name in ("b", "a", "ab"))]
        out += [Job("listed", lambda seed=seed: {"seed": seed, **self.row(f"listed {seed}", plan.steps)},
                    section=("deep", "list"), key={"seed": seed}, seed=seed) for seed in seeds]
        return [*out, Job("sum", lambda result: sum(r["score"] for r in result["rows"].values()), section=(), derived=True)]

    def run(self, *argv):
        self.measured = []
        return self.study.run(list(argv), self.file)


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path)


ALL = ["base", "b", "a", "ab", "listed 0", "listed 1"]


def test_everything_is_measured_once_and_written(recorder):
    result = recorder.run()
    assert recorder.measured == ALL
    assert result == files.read_json(recorder.file) == {
        "plan": {"steps": 10, "sizes": [1, 2]}, "base": {"score": 10, "name": "base"},
        "rows": {name: {"score": 10, "name": name} for name in ("b", "a", "ab")},
        "deep": {"list": [{"seed": seed, "score": 10, "name": f"listed {seed}"} for seed in (0, 1)]}, "sum": 30}
    before = recorder.file.read_bytes()
    recorder.run()
    assert recorder.measured == [] and recorder.file.read_bytes() == before


@pytest.mark.parametrize("stop_at", ALL)
def test_a_study_that_was_stopped_goes_on(recorder, tmp_path, stop_at):
    recorder.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        recorder.run()
    done = ALL[:ALL.index(stop_at)]
    assert recorder.measured == done and recorder.file.exists() == bool(done)
    recorder.stop_at = None
    recorder.run()
    assert recorder.measured == ALL[len(done):]
    whole = Recorder(tmp_path / "whole")
    whole.run()
    assert recorder.file.read_bytes() == whole.file.read_bytes()


def test_a_killed_process_leaves_whole_rows(tmp_path):
    """Killed for good, without a chance to clean up."""
    script = """
import os, signal, sys
from dataclasses import dataclass
from mmcourse.studies import Job, Study

@dataclass(frozen=True)
class Plan:
    steps: int = 1

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def jobs(plan, seeds):
    return [Job("first", lambda: {"x": 1}), Job("second", kill if sys.argv[2] == "kill" else lambda: {"x": 2})]

Study("ch99_kill", Plan(), Plan(), jobs).run([], sys.argv[1])
"""
    if sys.platform == "win32":
        pytest.skip("no SIGKILL on Windows")
    run = partial(subprocess.run, capture_output=True, text=True, timeout=120)
    file = tmp_path / "kill.json"
    killed = run([sys.executable, "-c", script, str(file), "kill"])
    assert killed.returncode != 0
    assert files.read_json(file)["rows"] == {"first": {"x": 1}} and os.listdir(tmp_path) == ["kill.json"]
    resumed = run([sys.executable, "-c", script, str(file), "go on"])
    assert resumed.returncode == 0, resumed.stderr
    assert "first" not in resumed.stdout and files.read_json(file)["rows"] == {"first": {"x": 1}, "second": {"x": 2}}


def test_a_crash_while_writing_leaves_the_old_file_whole(recorder, monkeypatch):
    recorder.run("--only", "b")
    before = recorder.file.read_bytes()

    def crash(*args):
        raise OSError("the disk is full")
    monkeypatch.setattr(files.os, "replace", crash)
    with pytest.raises(OSError, match="disk is full"):
        recorder.run()
    assert recorder.file.read_bytes() == before and os.listdir(recorder.file.parent) == ["table.json"]


def test_what_another_process_measured_meanwhile_stays(recorder, tmp_path):
    """Two processes with other rows of one study, the second at work while the first measures."""
    other = Recorder(tmp_path)
    real = recorder.row

    def row(name, steps):
        if name == "b":
            other.run("--only", "a", "listed", "--seeds", "1")
        return real(name, steps)
    recorder.row = row
    result = recorder.run("--only", "b", "ab")
    kept = files.read_json(recorder.file)
    assert result == kept and list(kept["rows"]) == ["b", "a", "ab"] and kept["deep"]["list"][0]["seed"] == 1
    assert recorder.measured == ["b", "ab"] and os.listdir(tmp_path) == ["table.json"]


def test_another_plan_is_refused_and_fresh_replaces_it(recorder):
    recorder.run()
    old = recorder.file.read_text().replace('"steps": 10', '"steps": 99')
    recorder.file.write_text(old)
    for argv in ((), ("--only", "b"), ("--fresh", "--only", "b")):
        with pytest.raises(ValueError, match=r"'steps': 99.*'steps': 10.*--fresh measures all of it again"):
            recorder.run(*argv)
    assert recorder.measured == [] and recorder.file.read_text() == old
    assert recorder.run("--fresh")["plan"]["steps"] == 10 and recorder.measured == ALL


def test_only_takes_names_and_parts_of_names(recorder):
    recorder.run("--only", "b")                         # "ab" contains it, but one is called so
    assert recorder.measured == ["b"]
    recorder.run("--only", "list", "base")
    assert recorder.measured == ["base", "listed 0", "listed 1"]
    with pytest.raises(ValueError, match="no row is called 'c'; the rows are base, b, a, ab, listed, sum"):
        recorder.run("--only", "c")
    recorder.run()
    assert recorder.measured == ["a", "ab"]


def test_fresh_with_only_measures_nothing_else_again(recorder):
    recorder.run()
    files.write_json(recorder.file, {**files.read_json(recorder.file), "base": {"kept": True}})
    result = recorder.run("--fresh", "--only", "a", "listed", "--seeds", "1")
    assert recorder.measured == ["a", "listed 1"] and result["base"] == {"kept": True}
    assert [row["seed"] for row in result["deep"]["list"]] == [0, 1]


def test_further_seeds_are_added_in_their_place(recorder):
    recorder.run("--seeds", "1")
    assert recorder.measured == [*ALL[:4], "listed 1"]
    result = recorder.run("--seeds", "0", "5")
    assert recorder.measured == ["listed 0", "listed 5"]
    assert [row["seed"] for row in result["deep"]["list"]] == [0, 1, 5]


def test_an_optional_row_is_measured_by_name_alone_and_its_lack_is_said(tmp_path, capsys):
    measured, file = [], tmp_path / "optional.json"
    study = Study("ch99_optional", None, None, lambda plan, seeds: [
        Job(name, partial(measured.append, name), optional=name == "b") for name in "ab"], lambda plan: {})
    study.run([], file)
    study.run(["--fresh"], file)
    assert measured == ["a", "a"]
    capsys.readouterr()
    study.run([], file)
    assert "optional and not measured, --only NAME does it:\n  b" in capsys.readouterr().out
    study.run(["--only", "b"], file)
    assert measured == ["a", "a", "b"] and list(files.read_json(file)["rows"]) == ["a", "b"]
    study.run([], file)
    assert "optional" not in capsys.readouterr().out.split("nothing to do")[1].split(str(file))[1]


def test_rows_stand_in_the_order_of_the_study(recorder):
    recorder.run("--only", "ab")
    recorder.run("--only", "b")
    result = recorder.run()
    assert list(result["rows"]) == ["b", "a", "ab"]


def test_a_toy_is_written_elsewhere(recorder, monkeypatch, tmp_path):
    monkeypatch.setattr(studies, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(studies, "RESULTS", tmp_path / "results")
    result = recorder.study.run(["--toy"])
    assert files.read_json(tmp_path / "toy" / "ch99_table.json") == result and result["base"]["score"] == 1
    assert not (tmp_path / "results").exists()
    recorder.study.run()
    assert files.read_json(tmp_path / "results" / "ch99_table.json")["base"]["score"] == 10


def bare(measured: list, steps: int = 3) -> Study:
    """A study whose file is one list of rows: the plan stands in each."""
    def rows(name):
        measured.append(name)
        return [{"name": name, "steps": steps, "half": half} for half in (1, 2)]
    return Study("ch99_list", None, None, lambda plan, seeds: [
        Job(name, partial(rows, name), section=(), key={"name": name}) for name in "ab"], lambda plan: {"steps": steps})


def test_a_file_may_be_one_list_of_rows(tmp_path):
    measured, file = [], tmp_path / "list.json"
    bare(measured).run(["--only", "b"], file)
    result = bare(measured).run([], file)
    assert measured == ["b", "a"]
    assert [(row["name"], row["half"]) for row in result] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert files.read_json(file) == result
    with pytest.raises(ValueError, match="'steps': 3.*'steps': 4"):
        bare(measured, steps=4).run([], file)
    assert bare(measured, steps=4).run(["--fresh"], file)[0]["steps"] == 4


def test_what_a_new_checkpoint_made_untrue_is_measured_again(tmp_path):
    measured, shipped = [], {"codec": "old", "vqvae": "same"}

    def jobs(plan, seeds):
        return [Job(name, lambda name=name: measured.append(name) or {"of": shipped[name]}) for name in shipped]

    def outdated(result, head):
        for name in shipped:
            if result["made_with"][name] != head["made_with"][name]:
                result["rows"].pop(name)
        result["made_with"] = head["made_with"]
    study = Study("ch99_new", None, None, jobs, lambda plan: {"made_with": dict(shipped)}, outdated=outdated)
    study.run([], tmp_path / "new.json")
    shipped["codec"] = "new"
    result = study.run([], tmp_path / "new.json")
    assert measured == ["codec", "vqvae", "codec"] and result["rows"]["codec"] == {"of": "new"}
    assert result["made_with"] == shipped


def test_a_number_that_is_not_finite_is_refused_with_its_row(tmp_path):
    jobs = [Job("good", lambda: {"x": 1.0}), Job("bad", lambda: {"x": float("nan")})]
    study = Study("ch99_nan", None, None, lambda plan, seeds: jobs, lambda plan: {})
    with pytest.raises(ValueError, match="bad: a number is not finite"):
        study.run([], tmp_path / "nan.json")
    assert files.read_json(tmp_path / "nan.json") == {"rows": {"good": {"x": 1.0}}}


def test_minutes_are_summed_over_calls(tmp_path, monkeypatch):
    clock = iter([0.0, 60.0, 0.0, 120.0])
    monkeypatch.setattr(studies.time, "process_time", lambda: next(clock))
    study = Study("ch99_minutes", None, None, lambda plan, seeds: [Job(name, dict) for name in "ab"], lambda plan: {},
                  minutes=True)
    study.run(["--only", "a"], tmp_path / "minutes.json")
    assert study.run([], tmp_path / "minutes.json")["cpu_minutes"] == 3.0


def test_half_a_run_is_no_row():
    assert finished(History()).rows == []
    with pytest.raises(KeyboardInterrupt):
        finished(History(interrupted=True))


# ---- what is written

JSON = st.recursive(st.none() | st.booleans() | st.integers(-10**6, 10**6) | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(max_size=20), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner))


@given(JSON)
def test_what_is_written_is_what_was_measured(content):
    assert json.loads(render(content)) == content


def test_what_fits_a_line_stays_on_one():
    assert render({"a": [1, 2], "b": {}}) == '{"a": [1, 2], "b": {}}'
    numbers = list(range(100))
    lines = render({"curve": numbers, "rows": [{"name": "x" * 50, "bits": 0.5}] * 2}).split("\n")
    assert lines[1] == f' "curve": {numbers},' and len(lines) == 7 and lines[3].strip().startswith('{"name"')
    with pytest.raises(ValueError):
        render([float("inf")])


def test_the_terminal_sees_no_pictures():
    assert brief({"psnr_db": 20.0, "pictures": "x" * 500, "curve": [1] * 9, "gain": [1, 2, 3]}) == \
        "{'psnr_db': 20.0, 'gain': [1, 2, 3]}"
    assert len(brief([{"a": "b" * 300}] * 3)) < 410 and brief(3) == "3"


def test_select_keeps_the_studys_order():
    jobs = [Job(name, dict) for name in ("a", "b", "c")]
    assert select(jobs, ["c", "a"]) == [jobs[0], jobs[2]] and select(jobs, None) is jobs


# ---- every study

def test_every_file_of_a_study_is_found():
    there = {path.stem for path in Path(studies.__file__).parent.glob("ch[0-9][0-9]_*.py")}
    assert set(names()) == there and {name[:4] for name in there} >= {f"ch{n:02}" for n in (1, 3, 4, 5, 6, 7)}


@pytest.mark.parametrize("name", names())
def test_every_study_answers_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and f"mmcourse study {name}" in said and f"data/results/{name}.json" in said
    for option in ("--only", "--fresh", "--toy", "--threads"):
        assert option in said
    module = getattr(__import__(f"mmcourse.studies.{name}").studies, name)
    assert ("--seeds" in said) == (module.STUDY.seeds is not None)
    for job in module.STUDY.jobs(module.STUDY.plan, module.STUDY.seeds or ()):
        assert f"  {job.name}\n" in said


@pytest.mark.parametrize("name", names())
def test_a_studys_name_is_that_of_its_module_and_file_and_of_no_two_rows(name):
    study = getattr(__import__(f"mmcourse.studies.{name}").studies, name).STUDY
    assert study.name == name and study.file == RESULTS / f"{name}.json" and study.file.exists()
    for plan in (study.plan, study.toy):
        jobs = study.jobs(plan, study.seeds or ())
        places = [(job.section, str(job.key or job.name)) for job in jobs]
        assert len(set(places)) == len(places), "two rows would overwrite each other"
        assert len({(job.name, job.seed) for job in jobs}) == len(jobs), "--only could not tell two rows apart"
