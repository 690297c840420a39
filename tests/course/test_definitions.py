"""A chapter's code is the package's code, and the package's core stands in the chapters; both proven able to fail."""

import ast
import inspect

import pytest

from mmcourse import generate, optim
from mmcourse.cli import notebooks
from mmcourse.cli.notebooks import CORE, Notebook, core_definition, drift, missing, package_definitions

BOOKS = [Notebook.read(path) for path in notebooks.all_notebooks()]
HALF = ast.parse('def half(x: int) -> float:\n    """Half of it."""\n    check_number(x)\n    return x / 2').body[0]
PACKAGE = {"half": {"mmcourse.x": HALF}}

# The files of the model, and what of them no chapter has to show. Everything else that is public stands in CORE.
MODEL = ("bpe", "quantize", "vqvae", "spectrogram", "codec", "vocabulary", "transformer", "optim", "training", "generate", "rerank",
         "dataset", "diffusion", "sound_decoder", "painters", "posttraining", "chat", "distributed")
PLUMBING = {
    "bpe": {"VocabularyFile": "files and printing", "several": "one text or several", "numbered": "ids of special tokens",
            "names_in": "which special tokens are allowed", "split_at": "one regular expression",
            "whole_numbers": "turns arrays into integers"},
    "codec": {"cross_faded": "long sounds in pieces"},
    "spectrogram": {"normalize_mel": "one line", "denormalize_mel": "one line", "dc_offset": "one line"},
    "vocabulary": {"whole_numbers": "turns arrays into integers",
                   "Segment": "two fields; chapter 06 uses the package's, or its own would not equal the tokenizers'"},
    "optim": {"Optim": "settings"},
    "transformer": {"predicted": "a number; chapter 14 says what for"},
    "training": {"Run": "settings", "Hardware": "settings", "on_hardware": "takes the model to the device and back",
                 "History": "a list of rows", "State": "files, logging and going on after a stop",
                 "running": "the run's file, Ctrl-C and eval mode, however it ends", "say": "one line",
                 "meet": "several processes begin alike",
                 "progress_bar": "one line", "to_device": "one line", "held_interrupt": "Ctrl-C waits for the end of a step"},
    "distributed": {"Place": "four numbers from the environment", "join": "meets the others, or says who did not come",
                    "leave": "parts from them", "processes": "one line", "rank": "one line", "first_alone": "two messages",
                    "agree": "compares what all say", "divided": "`Divided`, if there is anybody to divide it with",
                    "unmoved": "refuses statistics that move"},
    "chat": {"Exchange": "a record", "Chat": "calls what is shown, and remembers"},
    "generate": {"content_limit": "arithmetic of limits"},
    "rerank": {"Preset": "settings", "route": "the key of the table", "preset": "looks into the table",
               "answer_heard": "a choice between two of what chapter 06 shows"},
    "dataset": {
        **dict.fromkeys(("training_scenes", "training_edits", "kept", "image_tokens", "speech_tokens", "Clips", "heard_clips"),
                        "makes and caches tokens"),
        **dict.fromkeys(("stretch", "near_codes", "confuse_codes"), "augments tokens of speech"),
        **dict.fromkeys(("is_kind", "fresh_edit", "partial_caption"), "what is drawn at random"),
        **dict.fromkeys(("speak_word", "write_down", "write_then_draw", "name_image", "describe_then_name", "edit_image", "say_edit",
                         "edit_caption"), "a direction like the four that chapter 06 shows"),
        "pad": "fills a table up with zeros", "tokens_that_count": "one line; chapter 14 says what for"},
    "sound_decoder": {"sample_mel": "`paint_flow` once more, for sound", "mel_to_sound": "one line",
                      "plain_mel_and_codes": "`plain_and_codes` once more, for sound"},
}


def book(*cells, prose=(), name="03_planted.ipynb"):
    """A notebook made of code cells, not saved anywhere."""
    made = [{"cell_type": "code", "source": text, "outputs": [], "execution_count": i} for i, text in enumerate(cells, 1)]
    made += [{"cell_type": "markdown", "source": text} for text in prose]
    return Notebook(notebooks.Path(name), {"cells": made, "metadata": {}}, 0)


# ---------------------------------------------------------------- a chapter's code is the package's

@pytest.mark.parametrize("book", BOOKS, ids=lambda b: b.path.stem)
def test_notebook_definitions_are_the_packages(book):
    assert drift(book) == []


@pytest.mark.parametrize("text", [
    "def half(x: int) -> float:\n    '''Half of it.'''\n    return x // 2",
    "def half(x) -> float:\n    '''Half of it.'''\n    return x / 2",
    "def half(x: int, y=0) -> float:\n    '''Half of it.'''\n    return x / 2",
    "@cache\ndef half(x: int) -> float:\n    '''Half of it.'''\n    return x / 2",
    "class half:\n    pass",
    "if True:\n    def half(x: int) -> float:\n        '''Half of it.'''\n        return 0.5 * x",
    "%matplotlib inline\ndef half(x: int) -> float:\n    '''Half of it.'''\n    return -x / 2",
    "x = 1\n# naive: too late, this is not the first line\ndef half(x: int) -> float:\n    return x",
    "def half(x: int) -> float:\n    '''A half.'''\n    return x / 2",
    "def half(x: int) -> float:\n    return x / 2",
    "def half(x: int) -> float:\n    '''Half of it.'''\n    check_other(x)\n    return x / 2",
    "def half(x: int) -> float:\n    '''Half of it.'''\n    x = check_number(x)\n    return x / 2",
])
def test_a_planted_difference_is_found(text):
    (problem,) = drift(book("1 + 1", text), PACKAGE)
    assert "03_planted.ipynb: code cell 2 defines half otherwise than mmcourse.x" in problem


@pytest.mark.parametrize("text", [
    "def half(x: int) -> float:\n    '''Half\n    of it.'''\n    check_number(x)\n    return x / 2  # a comment",
    "def half(\n    x: int,\n) -> float:\n    '''Half of it.'''\n\n    return (x / 2)",
    "# naive: whole numbers only\ndef half(x):\n    return x // 2",
    "@exercise('03.half')\ndef half(x):\n    raise NotImplementedError",
    "def third(x):\n    return x / 3",
])
def test_equal_or_declared_code_passes(text):
    assert drift(book(text), PACKAGE) == []


@pytest.mark.parametrize(("change", "to"), [("(step + 1) / warmup", "(step - 1) / warmup"), ("linear warm-up", "warm-up"),
                                            ("floor: float = 0.05", "floor: float = 0.5")])
def test_a_change_of_real_code_is_found(change, to):
    """The guard sees the real package: one real function passes, and fails with one number, sign or word changed."""
    text = inspect.getsource(optim.schedule)
    assert drift(book(text)) == [] and change in text
    (problem,) = drift(book(text.replace(change, to)))
    assert "defines schedule otherwise than mmcourse.optim" in problem


def test_only_checks_may_be_left_out_of_real_code():
    text = inspect.getsource(generate.filter_logits)
    lines = text.splitlines()
    check = next(i for i, line in enumerate(lines) if line.strip().startswith("check_filter("))
    assert drift(book("\n".join(lines[:check] + lines[check + 1:]))) == []
    assert len(drift(book("\n".join(lines[:-1])))) == 1


def test_the_guard_knows_the_components_and_not_the_helpers_of_studies_and_drawings():
    known = package_definitions()
    for name in ("BPETokenizer", "VQVAE", "AudioCodec", "Transformer", "train", "World", "PictureReader"):
        assert name in known, f"the guard cannot protect {name}: the package has no such definition"
    homes = {home.split(".")[1] for modules in known.values() for home in modules}
    assert not homes & {"show", "studies", "recipes", "exercises", "cli"}


# ---------------------------------------------------------------- the core stands in the chapters

@pytest.mark.parametrize("book", BOOKS, ids=lambda b: b.path.stem)
def test_the_core_stands_in_its_chapter(book):
    assert missing(book) == []


def test_every_entry_of_the_core_exists_and_its_chapter_too():
    assert not [name for core in CORE.values() for module, names in core.items() for name in names.split()
                if core_definition(module, name) is None]
    assert set(CORE) <= {book.path.name[:2] for book in BOOKS}


CORE_03 = {"03": {"optim": "schedule EMA.update"}}


def method(owner, name):
    """A method as it stands in a lesson: a function whose first parameter is `self`."""
    return inspect.cleandoc("\n" + inspect.getsource(getattr(owner, name)))


def test_what_stands_there_is_found():
    whole = inspect.getsource(optim.schedule)
    assert missing(book(whole, method(optim.EMA, "update")), CORE_03) == []
    assert missing(book(whole, method(optim.EMA, "update"), name="04_other.ipynb"), CORE_03) == []


@pytest.mark.parametrize("spoil", [lambda text: "", lambda text: "# naive: first\n" + text, lambda text: text.replace("floor", "low"),
                                   lambda text: text.replace("def schedule", "def my_schedule"),
                                   lambda text: "from mmcourse.optim import schedule"])
def test_what_is_missing_is_named(spoil):
    (problem,) = missing(book(spoil(inspect.getsource(optim.schedule)), method(optim.EMA, "update")), CORE_03)
    assert "03_planted.ipynb: schedule of mmcourse.optim must stand in this chapter" in problem


def test_a_missing_method_is_named():
    (problem,) = missing(book(inspect.getsource(optim.schedule), inspect.getsource(optim.EMA)), CORE_03)
    assert "EMA.update" in problem


def test_an_entry_that_the_package_lacks_is_named():
    assert missing(book("1"), {"03": {"optim": "Adagrad"}}) == ["CORE names Adagrad, which mmcourse.optim does not define"]


STUB = "@exercise('03.schedule')\ndef schedule(step, steps, warmup, floor=0.05):\n    raise NotImplementedError"
SOLUTION = """def schedule(step, steps, warmup, floor=0.05):
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
"""


@pytest.mark.parametrize(("solution", "words", "found"), [
    (SOLUTION, "", 0),
    (SOLUTION.replace("0.5", "0.6"), "", 1),
    (SOLUTION.replace("0.5", "0.6"), "The package's\nversion is another.", 0),
    ("", "", 1),
    ("schedule = ...", "The package's version is another.", 1),
])
def test_an_exercise_stands_there_by_its_folded_solution(solution, words, found):
    fold = f"Text.\n\n<details><summary>Solution</summary>\n\n```python\n{solution}```\n{words}\n</details>"
    problems = missing(book(STUB, prose=[fold]), {"03": {"optim": "schedule"}})
    assert len(problems) == found and all("folded solution" in problem for problem in problems)
    assert len(missing(book("1", prose=[fold]), {"03": {"optim": "schedule"}})) == 1      # a solution without its exercise


def test_every_public_definition_of_the_model_is_shown_or_is_plumbing():
    for module in MODEL:
        tree = ast.parse((notebooks.PACKAGE / f"{module}.py").read_text("utf-8"))
        public = {node.name for node in notebooks._definitions(tree)
                  if not node.name.startswith(("_", "check_"))}
        shown = {name.split(".")[0] for core in CORE.values() for name in core.get(module, "").split()}
        plumbing = set(PLUMBING.get(module, {}))
        assert public - shown - plumbing == set(), f"{module}.py: put these into CORE and their chapter, or call them plumbing"
        assert plumbing <= public, f"{module}.py: these are plumbing no more"
    assert set(PLUMBING) <= set(MODEL)
