"""Exercises hold both ways: the reference passes, a stub falls back, each planted wrong answer fails loudly."""

import random
import sys
import types

import pytest

from mmcourse import exercises
from mmcourse.cli import notebooks

BOOKS = [notebooks.Notebook.read(path) for path in notebooks.all_notebooks()]


@pytest.mark.parametrize("name", exercises.registered())
def test_exercise_holds_both_ways(name):
    assert exercises.check_all([name]) == []


@pytest.mark.parametrize("name", exercises.registered())
def test_unfinished_falls_back_to_the_reference(name, capsys):
    @exercises.exercise(name)
    def stub(*args, **kwargs):
        raise NotImplementedError

    assert stub is exercises.get(name).reference
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and name in said and "not finished" in said


def test_notebooks_and_check_modules_have_the_same_exercises():
    asked = [name for book in BOOKS for name in notebooks.exercises_in(book)]
    assert sorted(asked) == exercises.registered()


@pytest.mark.parametrize("book", BOOKS, ids=lambda b: b.path.stem)
def test_exercises_are_stubs_in_their_own_chapter(book):
    assert notebooks.exercise_problems(book) == []
    if book.path.name[:2] != "00":
        assert notebooks.exercises_in(book), "a chapter has at least one exercise"


# The framework itself, on an exercise of a chapter that does not exist.


def increment(x):
    return x + 1


def forgets(x):
    return x


@pytest.fixture
def chapter(monkeypatch):
    module = types.ModuleType("mmcourse.exercises.ch99")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(exercises, "_REGISTRY", {})
    return module


def plant(check=None, **changes):
    """Register the exercise 99.increment, with a check of one's own."""
    def good(fn):
        assert fn(3) == 4, f"for x = 3 the answer is 4, but it is {fn(3)}"

    facts = {"reference": increment, "wrong": [forgets, lambda x: None], "minutes": 2, **changes}
    return exercises.register("99.increment", **facts)(check or good)


def test_right_keeps_the_answer_and_ticks(chapter, capsys):
    plant()
    answer = exercises.exercise("99.increment")(lambda x: 1 + x)
    assert answer is not increment and answer(1) == 2
    assert "✓" in capsys.readouterr().out


def test_wrong_names_the_case(chapter):
    plant()
    with pytest.raises(AssertionError, match=r"99\.increment: for x = 3 the answer is 4, but it is 3"):
        exercises.exercise("99.increment")(forgets)


def test_an_answer_that_crashes_is_wrong_and_keeps_its_error(chapter):
    plant()
    with pytest.raises(AssertionError, match="ZeroDivisionError") as caught:
        exercises.exercise("99.increment")(lambda x: x / 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_forgotten_return_is_named_first(chapter):
    plant(wrong=[forgets])

    def forgot(x):
        x + 1

    with pytest.raises(exercises.WrongAnswer, match=r"99\.increment: the function gave back None: does it end in `return`"):
        exercises.exercise("99.increment")(forgot)


def test_none_may_be_an_answer(chapter):
    def in_place(values):
        values.append(1)

    def check(fn):
        values = []
        fn(values)
        assert values == [1], f"the list must be [1], but it is {values}"

    plant(check, reference=in_place, wrong=[lambda values: None])
    with pytest.raises(exercises.WrongAnswer, match=r"must be \[1\]"):
        exercises.exercise("99.increment")(lambda values: None)


def test_a_notebook_shows_the_sentence_alone(chapter):
    plant()
    with pytest.raises(exercises.WrongAnswer) as caught:
        exercises.exercise("99.increment")(forgets)
    shown = caught.value._render_traceback_()
    assert len(shown) == 1 and shown[0].startswith("✗ exercise 99.increment: for x = 3 the answer is 4, but it is 3")


@pytest.mark.parametrize("name", exercises.registered())
def test_a_forgotten_return_is_named_in_every_exercise(name):
    """Whatever an exercise asks for: a function that does nothing is told so, unless nothing is to be given back."""
    import functools
    import types

    task = exercises.get(name)
    if not isinstance(task.reference, types.FunctionType):
        pytest.skip("a class")

    @functools.wraps(task.reference)
    def nothing(*args, **kwargs):
        return None

    with pytest.raises(exercises.WrongAnswer) as caught:
        exercises.exercise(name)(nothing)
    returned = []
    task.check(exercises._watched(task.reference, returned))
    assert "does it end in `return`" in str(caught.value) or returned[-1] is None


def test_an_unfinished_class_falls_back(chapter, capsys):
    def check(cls):
        assert cls().value == 1, "the value must be 1"

    good = type("Good", (), {"value": 1})
    plant(check, reference=good, wrong=[type("Bad", (), {"value": 2})])

    @exercises.exercise("99.increment")
    class Stub:
        def __init__(self):
            raise NotImplementedError

    assert Stub is good
    assert exercises.check_all(["99.increment"]) == []


def accepts_all(fn):
    fn(3)


def ignores(fn):
    pass


def speechless(fn):
    if fn(3) != 4:
        raise AssertionError


@pytest.mark.parametrize("check, changes, found", [
    (accepts_all, {}, "wrong answer forgets passes"),
    (ignores, {}, "passes without calling the answer"),
    (speechless, {}, "without naming the case"),
    (None, {"reference": forgets}, "the reference fails"),
    (None, {"wrong": [increment]}, "wrong answer increment passes"),
])
def test_a_bad_check_is_found(chapter, check, changes, found):
    plant(check, **changes)
    assert any(found in problem for problem in exercises.check_all(["99.increment"]))


def test_checking_leaves_the_learners_randomness_alone(chapter):
    torch = pytest.importorskip("torch")

    def check(fn):
        random.random(), torch.rand(3)
        assert fn(3) == 4, "3 gives 4"

    plant(check)
    random.seed(5), torch.manual_seed(5)
    expected = random.random(), torch.rand(1).item()
    random.seed(5), torch.manual_seed(5)
    exercises.exercise("99.increment")(increment)
    assert (random.random(), torch.rand(1).item()) == expected


def test_mistakes_of_authors_are_named(chapter):
    plant()
    with pytest.raises(ValueError, match="registered twice"):
        exercises.register("99.increment", reference=increment, wrong=[forgets], minutes=1)(accepts_all)
    with pytest.raises(ValueError, match="two digits"):
        exercises.register("increment", reference=increment, wrong=[forgets], minutes=1)
    with pytest.raises(ValueError, match="plant a wrong answer"):
        exercises.register("99.other", reference=increment, wrong=[], minutes=1)
    with pytest.raises(ValueError, match="chapter 99 has 99.increment"):
        exercises.exercise("99.decrement")
    with pytest.raises(ValueError, match="no exercises"):
        exercises.exercise("98.increment")
