"""The command line: what it prints, what it returns, and a real JupyterLab server on loopback."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mmcourse import __main__ as cli
from mmcourse import cli as commands_package
from mmcourse.cli import check as check_verb
from mmcourse.cli import data as data_verb
from mmcourse.cli import lab
from mmcourse.cli import test as test_verb
from mmcourse.cli import train as train_verb

EMPTY = {"cells": [], "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
         "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def notebook(tmp_path):
    path = tmp_path / "00_start_here.ipynb"
    path.write_text(json.dumps(EMPTY), "utf-8")
    return path


def test_help_imports_no_torch():
    code = "import sys; from mmcourse.__main__ import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in ("lab", "test", "check", "data", "train", "evaluate", "gallery"):
        assert f"mmcourse {verb}" in done.stdout


def test_what_it_does_not_know_it_says(capsys):
    assert cli.main(["paint"]) == 2
    assert "no command 'paint'" in capsys.readouterr().err
    assert cli.main(["train", "everything"]) == 2
    said = capsys.readouterr().err
    assert "nothing to train is called 'everything'" in said and "bpe" in said
    assert cli.main([]) == 2


def test_train_study_and_evaluate_reach_their_modules(monkeypatch):
    import types

    called = []

    def module(name):
        return types.SimpleNamespace(main=lambda argv: called.append((name, argv)) or 1)

    found = {name: module(name) for name in ("mmcourse.recipes.a", "mmcourse.recipes.b", "mmcourse.recipes.transformer",
                                             "mmcourse.studies.ch01_x", "mmcourse.evaluate")}
    real = cli.importlib.import_module
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: found[name] if name in found else real(name))
    monkeypatch.setattr(train_verb, "recipes", lambda: ["a", "b"])
    monkeypatch.setattr(train_verb, "studies", lambda: ["ch01_x"])
    assert cli.main(["train", "a", "--steps", "3"]) == 0
    assert cli.main(["train", "all", "--seed", "1"]) == 2                    # without --ship each would miss the one before
    assert cli.main(["train", "all", "--seed", "1", "--ship"]) == 0
    assert cli.main(["study", "ch01_x"]) == 0
    assert cli.main(["train", "ch01_x"]) == 2                                # a study makes no checkpoint
    assert cli.main(["evaluate", "--json"]) == 1
    monkeypatch.setattr(train_verb, "recipes", lambda: ["transformer"])
    assert cli.main(["train", "reference"]) == 0                             # its name in the first edition
    assert called == [("mmcourse.recipes.a", ["--steps", "3"]), ("mmcourse.recipes.a", ["--seed", "1", "--ship"]),
                      ("mmcourse.recipes.b", ["--seed", "1", "--ship"]), ("mmcourse.studies.ch01_x", []),
                      ("mmcourse.evaluate", ["--json"]), ("mmcourse.recipes.transformer", [])]


def test_what_can_be_trained_and_measured_is_listed_from_the_folders(capsys):
    assert cli.main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("all", "bpe", "vqvae", "codec", "transformer", "sound_decoder"))
    assert cli.main(["study", "--help"]) == 0
    assert "ch03_sweep" in capsys.readouterr().out
    assert set(train_verb.ORDER) <= set(train_verb.recipes())


def test_ctrl_c_ends_quietly(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_verb, "data", interrupted)
    assert cli.main(["data"]) == 130
    assert "stopped" in capsys.readouterr().err


@pytest.mark.slow
def test_lab_check_starts_a_server_and_stops_it(notebook, capsys):
    assert cli.main(["lab", "--check", str(notebook)]) == 0
    assert "OK" in capsys.readouterr().out


@pytest.mark.slow
def test_the_server_listens_on_loopback_and_wants_its_token(notebook):
    with lab.running_server(notebook) as (server, base, token):
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        listening = []
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):            # the server asks short-lived programs: they listen to nothing
                listening += [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert listening and set(listening) == {"127.0.0.1"}
        assert token not in " ".join(psutil.Process(server.pid).cmdline())
        for path in ("/api/contents/00_start_here.ipynb", "/api/kernels", "/api/status"):
            assert lab._ask(base + path, token)[0] == 200
            assert lab._ask(base + path, None)[0] in (401, 403)
            assert lab._ask(base + path, token[:-1] + "!")[0] in (401, 403)
    assert server.poll() is not None


@pytest.mark.slow
def test_lab_check_on_a_port_in_use_fails_with_the_log(notebook, capsys):
    with lab.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["lab", "--check", "--port", str(taken.getsockname()[1]), str(notebook)]) == 1
    assert "the JupyterLab server stopped" in capsys.readouterr().err


def test_a_chapter_is_found_by_number_name_or_path(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(commands_package, "NOTEBOOKS", tmp_path)
    made = [tmp_path / f"{name}.ipynb" for name in ("00_start_here", "03_images")]
    for path in made:
        path.write_text("{}")
    for name in ("3", "03", "03_images", "03_images.ipynb", str(made[1])):
        assert commands_package.find_notebook(name).name == "03_images.ipynb"
    assert cli.main(["lab", "--check", "17"]) == 2
    said = capsys.readouterr().err
    assert "no chapter '17'" in said and "03_images" in said


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A course of two chapters in git, the second of which was changed; a notebook that somebody dropped beside them, and
    things that are none."""
    root = tmp_path / "clone"
    (root / "notebooks").mkdir(parents=True)

    def git(*argv):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *argv], cwd=root, check=True, capture_output=True)
    for name in ("00_start_here", "01_bits", "02_cut"):
        (root / "notebooks" / f"{name}.ipynb").write_text(json.dumps(EMPTY), "utf-8")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    evil = {**EMPTY, "cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "<script>steal()</script>"}]}
    (root / "notebooks" / "01_bits.ipynb").write_text(json.dumps(evil), "utf-8")
    (root / "notebooks" / "99_dropped.ipynb").write_text(json.dumps({**evil, "nbformat_minor": 4}), "utf-8")
    (root / "notebooks" / "02_cut.ipynb").write_text("{")
    for name, text in (("a", "[]"), ("b", '{"cells": 3}'), ("c", '{"nbformat": "x"}'), ("d", "\0")):
        (root / "notebooks" / f"{name}.ipynb").write_text(text)
    (root / "notebooks" / "folder.ipynb").mkdir()
    monkeypatch.setattr(lab, "NOTEBOOKS", root / "notebooks")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return root / "notebooks"


def trusted(folder) -> list[str]:
    import nbformat
    from nbformat.sign import NotebookNotary
    names = ("00_start_here.ipynb", "01_bits.ipynb", "99_dropped.ipynb")
    return [name for name in names if NotebookNotary().check_signature(nbformat.read(folder / name, as_version=4))]


def test_only_chapters_as_git_has_them_are_trusted(clone, capsys):
    assert trusted(clone) == []
    lab._trust()
    assert trusted(clone) == ["00_start_here.ipynb"] and capsys.readouterr().out == ""


@pytest.mark.parametrize("why", ["no repository", "no git"])
def test_without_git_nothing_is_trusted_and_the_course_opens(clone, capsys, monkeypatch, why):
    if why == "no git":
        monkeypatch.setenv("PATH", "")
    else:
        (clone.parent / ".git").rename(clone.parent / "git")
    lab._trust()
    assert trusted(clone) == [] and "their sounds play once their cells have run" in capsys.readouterr().out


@pytest.mark.parametrize("argv, said", [
    (["lab", "/missing.ipynb"], "no chapter '/missing.ipynb'"), (["lab", "/"], "no chapter '/'"), (["check", "/missing"], "no chapter"),
    (["lab", "../*"], "no chapter"), (["lab", "a" * 5000], "no chapter 'aaa"), (["check", "[0"], "no chapter"), (["lab", "\0"], "no chapter")])
def test_what_is_no_chapter_is_one_sentence(capsys, argv, said):
    assert cli.main(argv) == 2
    assert said in (err := capsys.readouterr().err) and "Traceback" not in err and len(err) < 800


@pytest.mark.parametrize("port", ["99999", "-1", "0", "x", "8888.5"])
def test_a_port_that_is_none_is_refused(capsys, port):
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab", "--check", "--port", port])
    assert ended.value.code == 2 and "--port" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "3", "{}", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"source": 3}]}', '{"cells": [{"source": "x"}]}',
                                  "\x89PNG", "[" * 100_000])
def test_a_broken_notebook_is_a_problem_not_a_crash(tmp_path, capsys, text):
    path = tmp_path / "05_broken.ipynb"
    path.write_text(text, "utf-8")
    assert cli.main(["check", str(path)]) == 1
    assert "05_broken.ipynb is not a notebook" in capsys.readouterr().out


def test_check_writes_nothing_and_looks_at_the_course_alone(monkeypatch, capsys):
    """A read-only clone has no place for a cache; in a wheel the next folder is everybody's packages."""
    called = []

    def run(command, cwd, **more):
        called.append(command)
        return subprocess.CompletedProcess(command, 0)
    monkeypatch.setattr(check_verb.subprocess, "run", run)
    cli.main(["check"])
    (command,) = called
    assert "--no-cache" in command
    assert {Path(part).name for part in command if part.startswith(str(commands_package.ROOT))} == {"mmcourse", "tests", "notebooks", "setup.py"}


def test_what_needs_a_clone_says_so(tmp_path, monkeypatch, capsys):
    for module in (commands_package, check_verb):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path / "notebooks")
    for argv in (["check"], ["lab", "3"], ["lab"]):
        assert cli.main(argv) == 2
        assert "there are no notebooks in" in (said := capsys.readouterr().err) and "pip install -e ." in said


def test_a_machines_refusal_is_one_sentence_whatever_the_verb(monkeypatch, capsys):
    def full(argv):
        raise OSError(28, "x.pt could not be written (No space left on device); make room on that disk")
    monkeypatch.setattr(train_verb, "train", full)
    assert cli.main(["train", "vqvae"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mmcourse: ") and said.strip().endswith("x.pt could not be written (No space left on device); make room on that disk")
    assert len(said.splitlines()) == 1


def test_test_says_what_is_missing(monkeypatch, capsys):
    real = test_verb.importlib.util.find_spec
    monkeypatch.setattr(test_verb.importlib.util, "find_spec", lambda m: None if m == "hypothesis" else real(m))
    assert cli.main(["test"]) == 2
    assert 'the tests need hypothesis: run `pip install -e ".[test]"' in capsys.readouterr().err


def commands(*argv: str) -> dict[str, list[str]]:
    return {title: command for title, command, _ in test_verb.steps(*test_verb.parse(list(argv)))}


def test_test_runs_what_it_is_asked_for():
    units, books = "unit and oracle tests", "every notebook, from a clean kernel"
    assert list(commands()) == [units, books] and list(commands("--only-notebooks")) == [books]
    assert list(commands("--no-notebooks")) == list(commands("--fast")) == [units]
    assert "not slow" in commands("--fast")[units] and "not slow" not in commands()[units]
    assert "--nbval-lax" in commands()[books] and "--nbval-lax" not in commands()[units]
    for command in commands("-x", "-k", "codec").values():
        assert ["-x", "-k", "codec"] == [part for part in command if part in ("-x", "-k", "codec")], "the rest goes to pytest"
    with pytest.raises(SystemExit):
        test_verb.parse(["--only-notebooks", "--fast"])


def test_a_hunt_says_how_to_meet_its_examples_again(capsys):
    (command,) = commands("--random", "--no-notebooks").values()
    (seed,) = [part for part in command if part.startswith("--hypothesis-seed=")]
    assert f"mmcourse test --random {seed}" in capsys.readouterr().out
    (again,) = commands("--random", "--no-notebooks", seed).values()
    assert [part for part in again if part.startswith("--hypothesis")] == [seed]
    assert not any(part.startswith("--hypothesis") for command in commands().values() for part in command)
    at_random, always = (test_verb.offline(test_verb.Path("x"), flag) for flag in (True, False))
    assert at_random["MMCOURSE_TEST_RANDOM"] == "1" and "MMCOURSE_TEST_RANDOM" not in always
    assert always["MMCOURSE_TEST_CACHE"] == always["MMCOURSE_CACHE"] == "x" and always["OMP_NUM_THREADS"] == "1"


def test_test_fails_if_one_of_its_parts_does(monkeypatch, capsys):
    codes = {"data": 0, "tests": 0, "notebooks": 0}

    def run(command, cwd, env):
        part = "notebooks" if "--nbval-lax" in command else "data" if command[-1] == "data" else "tests"
        assert env["MMCOURSE_CACHE"] != str(test_verb.cache_dir()), "a cache of their own"
        return subprocess.CompletedProcess(command, codes[part])
    monkeypatch.setattr(test_verb.subprocess, "run", run)
    assert cli.main(["test"]) == 0
    assert capsys.readouterr().out.count("passed: ") == 2
    for part, said in (("tests", "FAILED (exit code 1): unit"), ("notebooks", "FAILED (exit code 1): every notebook"),
                       ("data", "FAILED (exit code 1): `mmcourse data`")):
        codes.update(dict.fromkeys(codes, 0) | {part: 1})
        assert cli.main(["test"]) == 1
        assert said in capsys.readouterr().out


def test_data_says_where(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMCOURSE_CACHE", str(tmp_path / "cache"))
    assert cli.main(["data", "--where"]) == 0
    assert str(tmp_path / "cache") in capsys.readouterr().out
