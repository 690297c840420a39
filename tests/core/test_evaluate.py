"""The matrix: its arithmetic on hand-made answers, and its shape on a tiny untrained model."""
import json

import numpy as np
import pytest
import torch

from mmcourse import evaluate as module
from mmcourse.evaluate import (
    Answers,
    Evaluation,
    edit_done,
    evaluate,
    moved_on,
    picture_rows,
    row,
    same,
)
from mmcourse.judges.hearing import WordJudge
from mmcourse.judges.picture_net import PictureNet
from mmcourse.judges.second_listener import SecondListener
from mmcourse.matrix import (
    ROWS,
    best_and_worst,
    first_rows,
    other_rows,
    pair_rows,
    short_rows,
    short_table,
    split_of,
    table,
)
from mmcourse.vocabulary import Segment
from mmcourse.world.edits import KINDS, Edit
from mmcourse.world.human_digits import HumanDigits
from mmcourse.world.scene import WORDS, Group, Scene, is_held_out
from mmcourse.world.speech import SpeechCorpus

# What programs may rely on: direction -> measures. Keys stay as they are once given; more may come.
KEYS = {
    "text->image": {"object", "count", "ground", "word", "exact", "sign_ocr", "object_net", "object_single", "word_single",
                    "exact_single"},
    "image->text": {"exact", "object", "count", "ground", "word", "exact_single", "word_single"},
    "text->speech": {"word", "word_single", "word_second", "word_sphinx"},
    "speech->text": {"word", "word_single", "human_digit", "human_digit_single"},
    "image->speech": {"word", "word_single", "word_direct", "word_direct_single", "word_second", "word_sphinx"},
    "speech->image": {"object", "object_single", "object_said", "object_said_single", "object_direct", "object_direct_single"},
    "image+text->image": {"change", "kept", "both", "copy", *KINDS, "both_single", "both_said", "both_said_single",
                          "both_direct", "both_direct_single"},
    "tokenizer:image": {"object", "word", "psnr_db", "codes_used"},
    "tokenizer:audio": {"stoi", "pesq", "bits_per_second"},
    "decoder:image": {"fd_plain", "fd_diffusion"},
}
PARTS = ("tokenizer:image", "tokenizer:audio", "decoder:image")
CELLS = {"score", "low", "high", "ceiling", "reference", "chance", "n"}


# ---------------------------------------------------------------- arithmetic

def test_same_and_moved_on():
    assert same([1, 2, 3, 4], [1, 2, 0, 4]) == [True, True, False, True] and same([], []) == []
    with pytest.raises(ValueError):
        same([1], [1, 2])
    truths = list(range(12))
    assert not any(same(moved_on(truths), truths)), "moved on, each answer stands at another question"
    assert all(same(moved_on(["cat"] * 6), ["cat"] * 6)), "an answer that is always the same scores as well by chance"
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 8, 4000).tolist()
    assert abs(np.mean(same(moved_on(truths), truths)) - 1 / 8) < 0.03


def test_a_row_has_its_interval_and_keeps_what_is_missing():
    assert row([True, False, False], ceiling=[True] * 3) == {
        "score": 0.3333, "low": 0.0615, "high": 0.7923, "ceiling": 1.0, "reference": None, "chance": None, "n": 3}
    assert row([True] * 50)["high"] == 1.0 and 0.9 < row([True] * 50)["low"] < 0.95, "50 of 50 is not certainty"
    assert row([]) == dict.fromkeys(CELLS - {"n"}) | {"n": 0}, "nothing was asked: not zero, not NaN"
    json.dumps(row([np.bool_(True)], chance=[False]), allow_nan=False)


def test_picture_rows_compare_part_by_part():
    asked = [Scene((Group("cat", 1, "left"),), "blue", "KITE"), Scene((Group("dog", 2, "right"),), "red"),
             Scene((Group("sun", 3),), "green"), Scene((Group("bee", 1, "left"),), "grey")]
    seen = [Scene((Group("cat", 2, "left"),), "blue", "KITT"), Scene((Group("dog", 2, "right"),), "grey", "CAR"), None,
            Scene((Group("bee", 1, "left"),), "grey", "ANT")]
    rows = picture_rows(seen, asked, asked)
    assert {k: v["score"] for k, v in rows.items()} == {"object": 0.75, "count": 0.5, "ground": 0.5, "word": 0.0, "exact": 0.0}
    assert all(v["ceiling"] == 1 for v in rows.values())
    assert rows["word"]["n"] == 1 and rows["object"]["n"] == 4, "a sign is asked only of scenes that have one"
    assert picture_rows(asked, asked, asked, "_single")["exact_single"]["score"] == 1
    assert picture_rows([None] * 4, seen, asked)["exact"]["ceiling"] == 0, "a sign that nobody asked for is wrong"


def test_no_scene_with_a_sign_leaves_a_gap_and_no_nan():
    plain = [Scene((Group("cat", 1, "left"),), "blue")] * 3
    assert picture_rows(plain, plain, plain)["word"]["score"] is None


CAT, DOG, SUN = Group("cat", 1, "left"), Group("dog", 1, "right"), Group("sun", 1, "left")
BOTH = Scene((CAT, DOG), "blue", "KITE")


@pytest.mark.parametrize("edit, seen, change, kept", [
    (Edit("noun", BOTH, "replace the cat with a sun", Scene((SUN, DOG), "blue", "KITE")), Scene((SUN, DOG), "blue", "KITE"), 1, 1),
    (Edit("noun", BOTH, "replace the cat with a sun", Scene((SUN, DOG), "blue", "KITE")),
     Scene((SUN, Group("bee", 1, "right")), "blue", "KITE"), 0, 0),                    # the other thing was replaced as well
    (Edit("noun", BOTH, "replace the cat with a sun", Scene((SUN, DOG), "blue", "KITE")), BOTH, 0, 1),
    (Edit("remove", BOTH, "remove the cat", Scene((DOG,), "blue", "KITE")), Scene((DOG,), "blue", "KITE"), 1, 1),
    (Edit("remove", BOTH, "remove the cat", Scene((DOG,), "blue", "KITE")), Scene((CAT,), "blue", "KITE"), 0, 0),
    (Edit("remove", BOTH, "remove the cat", Scene((DOG,), "blue", "KITE")), Scene((SUN, DOG), "blue", "KITE"), 0, 1),
    (Edit("ground", BOTH, "make the ground red", Scene((CAT, DOG), "red", "KITE")), Scene((CAT,), "red", "KITE"), 1, 0),
    (Edit("ground", BOTH, "make the ground red", Scene((CAT, DOG), "red", "KITE")), Scene((CAT, DOG), "red", "KITT"), 1, 0),
    (Edit("sign", BOTH, "remove the sign", Scene((CAT, DOG), "blue")), BOTH, 0, 1),
    (Edit("sign", BOTH, "remove the sign", Scene((CAT, DOG), "blue")), None, 0, 0),
])
def test_an_edit_changes_what_it_names_and_keeps_the_rest(edit, seen, change, kept):
    assert edit_done(seen, edit) == {"change": bool(change), "kept": bool(kept), "both": bool(change and kept)}


def test_tables_show_intervals_references_and_gaps():
    result = {"text->image": {"object": row([True, False] * 100, ceiling=[True] * 9 + [False]), "exact": row([True] * 200),
                              "exact_single": row([False] * 200)},
              "speech->text": {"word": row([True] * 3, reference=[True])}, "image->text": {"exact": row([])},
              "decoder:image": {"fd_plain": 1.25, "fd_diffusion": None}}
    text = table(result)
    line = next(x for x in text.splitlines() if " object " in x)
    assert all(x in line for x in ("0.500", "0.431-0.569", "0.900", "200")) and "1.25" in text
    assert len(text.splitlines()) == 1 + sum(map(len, result.values()))
    short = short_table(result).splitlines()
    assert next(x for x in short if x.startswith("draws all")).split()[-5:] == ["0.981-1.000", "0.000", "-", "-", "200"]
    assert "1.000 (r)" in next(x for x in short if x.startswith("writes down a word"))
    assert not any(x.startswith("describes") for x in short), "what was not measured has no row"
    assert len(ROWS) == 12 and not any("%" in x for x in short[1:4]), "a reference is never divided by"


def test_pairs_stand_side_by_side():
    said, direct = row([True] * 10), row([False] * 10)
    found = pair_rows({"image->speech": {"word": said, "word_single": said, "word_direct": direct, "word_direct_single": direct}})
    assert len(found) == 1 and found[0]["said first, best of 8"].startswith("1.000") and found[0]["direct, one draft"].startswith("0.000")
    assert pair_rows({}) == []


def test_seeds_below_a_thousand_are_validation():
    assert [split_of(seed) for seed in (0, 999, 1000)] == ["validation", "validation", "test"]


# ---------------------------------------------------------------- a tiny model, judged by untrained judges

@pytest.fixture
def judged(monkeypatch):
    """Untrained judges, and a corpus of tones in place of the speech: quick, and alike on every machine."""
    torch.manual_seed(1)
    judges = {"word_judge": WordJudge().eval(), "picture_judge": PictureNet().eval(), "second_listener": SecondListener().eval()}
    monkeypatch.setattr(module.checkpoints, "load", lambda name, *a, **k: judges[name])
    clips = [0.2 * np.sin(np.arange(2000 + 10 * i) * (i % 84 + 5) / 60).astype(np.float32) for i in range(2 * len(WORDS))]
    voices = [i // len(WORDS) for i in range(len(clips))]
    corpus = SpeechCorpus(clips, [*WORDS, *WORDS], voices, np.array(voices) == 1)
    monkeypatch.setattr(module, "load_speech", lambda progress=True: corpus)
    monkeypatch.setattr(module, "load_human_digits", lambda: None)
    monkeypatch.setattr(module, "SphinxJudge", lambda: type("Deaf", (), {"hear": staticmethod(lambda clips: [""] * len(clips))}))
    monkeypatch.setattr(module, "measure_codec", lambda *a, levels, **k: {
        "true": {"judge": 1.0}, **{f"{n} levels": {"judge": 0.5, "stoi": 0.7, "pesq": 1.9} for n in levels}})
    return corpus


@pytest.fixture(scope="module")
def shared():
    """What one module-wide run of the tiny model gives; filled by the first test that needs it."""
    return {}


@pytest.fixture
def matrix(tiny, judged, shared):
    if not shared:
        shared.update(evaluate(tiny, n=4, seed=3, progress=False))
    return shared


def test_the_matrix_has_every_key_and_is_json(matrix):
    assert list(matrix) == list(KEYS)
    for direction, measures in KEYS.items():
        assert measures <= set(matrix[direction]), direction
        for name, value in matrix[direction].items():
            if direction not in PARTS:
                assert set(value) == CELLS, (direction, name)
                assert all(v is None or 0 <= v <= 1 for k, v in value.items() if k != "n"), (direction, name, value)
    assert json.loads(json.dumps(matrix, allow_nan=False)) == matrix
    assert len(table(matrix).splitlines()) == 1 + sum(map(len, matrix.values()))


def test_another_listener_is_a_reference_and_no_ceiling(matrix):
    for direction, measure in (("speech->text", "word"), ("speech->text", "word_single")):
        assert matrix[direction][measure]["ceiling"] is None and matrix[direction][measure]["reference"] is not None
    assert matrix["speech->image"]["object"]["reference"] is not None
    assert all(value["ceiling"] is not None for value in matrix["image->text"].values() if value["n"])


def test_what_is_not_there_is_none_not_zero(matrix):
    assert matrix["speech->text"]["human_digit"]["score"] is None, "no human digits in the cache"
    assert matrix["decoder:image"] == {"fd_plain": None, "fd_diffusion": None}, "this model has no diffusion decoder"


def test_the_same_seed_gives_the_same_matrix(tiny, judged, matrix):
    assert evaluate(tiny, n=4, seed=3, only=["text->image"], progress=False) == {"text->image": matrix["text->image"]}


def test_saying_first_and_going_direct_differ_in_nothing_else(tiny, judged, monkeypatch):
    asked = {}

    def answer(model, vocabulary, prompts, want, *, say_first=None, views=None, **how):
        asked[len(asked)] = {"say_first": say_first, "views": views, **how}
        return [Segment("image", (0,) * 64)] * len(prompts)
    monkeypatch.setattr(module.rerank, "answer", answer)
    e = Evaluation(tiny, n=3, progress=False)
    labels = []
    monkeypatch.setattr(e, "ask", lambda prompts, want, label, real=e.ask, **how: labels.append(label) or real(
        prompts, want, label, **how))
    e.editing()
    e.speech_image()
    how = dict(zip(labels, asked.values(), strict=True))
    for direction, key in (("edits", "both"), ("speech->image", "object")):
        for single in ("", "_single"):
            said, direct = (dict(how[f"{direction}, {key}_{x}{single}"]) for x in ("said", "direct"))
            assert said.pop("say_first") is True and direct.pop("say_first") is False
            assert not said.pop("views") and not direct.pop("views"), "one view of the question on both sides"
            assert said == direct, "same seed, same number of drafts, same sampling"


def test_only_held_out_scenes_and_voices_are_asked_and_training_voices_are_the_ceiling(tiny, judged, monkeypatch):
    e = Evaluation(tiny, n=30, progress=False)
    assert all(is_held_out(s) for s in e.scenes)
    clips, words = e.speech
    kept = {id(clip) for clip, out in zip(judged.clips, judged.held_out, strict=True) if out}
    assert {id(c) for c in clips} == kept and sorted(words) == sorted(WORDS)
    heard = []
    monkeypatch.setattr(tiny, "sound_segment", lambda clip: heard.append(id(clip)) or Segment("audio", (1, 2)))
    e.imitated(["cat", "dog"])
    assert len(heard) == 2 and not set(heard) & kept


def test_a_copy_is_no_edit(matrix):
    edits = matrix["image+text->image"]
    assert edits["copy"]["score"] == 0
    assert sum(edits[kind]["n"] for kind in KINDS) == edits["both"]["n"]


def test_human_digits_are_those_of_the_validation_speaker_and_people_are_asked_all(tiny, judged, monkeypatch):
    asked = []
    digits = HumanDigits([np.full(1600, 0.1 * (i % 2), np.float32) for i in range(6)], ["one", "two"] * 3,
                         ["jackson", module.VALIDATION_SPEAKER] * 3, np.array([False, True] * 3))
    monkeypatch.setattr(module, "load_human_digits", lambda: digits)
    people = HumanDigits([np.full(1600, 0.3, np.float32)] * 2, ["one", "two"], ["anna", "ben"], np.array([True, True]))
    monkeypatch.setattr(tiny, "sound_segment", lambda clip: asked.append(clip) or Segment("audio", (1, 2)))
    found = Evaluation(tiny, n=5, progress=False, people=people).speech_text()
    assert found["human_digit"]["n"] == 3 and found["people"]["n"] == 2 and found["people_single"]["n"] == 2
    assert all(clip.max() > 0.05 for clip in asked[5 * 7:]), "clips that something trains on are never asked"


def test_a_run_that_was_killed_goes_on_with_the_same_answers(tiny, judged, tmp_path, matrix):
    answers, made = Answers(tmp_path / "run.json"), []

    def make():
        made.append(1)
        return [Segment("text", (1, 2))]
    assert answers.get("a 0", make) == Answers(tmp_path / "run.json").get("a 0", make) == [Segment("text", (1, 2))]
    assert len(made) == 1, "what the file holds is not asked again"
    answers.forget()
    assert not (tmp_path / "run.json").exists()

    class Killed(Exception):
        pass
    e = Evaluation(tiny, n=4, seed=3, progress=False, answers=Answers(tmp_path / "half.json"))
    real, calls = e.answers.get, []

    def dies(label, make):
        calls.append(label)
        if len(calls) == 2:
            raise Killed
        return real(label, make)
    e.answers.get = dies
    with pytest.raises(Killed):
        e.text_image()
    again = Evaluation(tiny, n=4, seed=3, progress=False, answers=Answers(tmp_path / "half.json"))
    assert list(again.answers.kept) == calls[:1]
    assert again.text_image() == matrix["text->image"]


@pytest.mark.parametrize("n", [0, 2, -5])
def test_too_few_scenes(tiny, n):
    with pytest.raises(ValueError, match=f"n must be at least 3, got {n}: the chance level needs answers to shuffle"):
        evaluate(tiny, n=n)


# ---------------------------------------------------------------- the command

def test_the_command_prints_json_for_programs(monkeypatch, capsys, tmp_path):
    told, cell = {}, row([True, False], ceiling=[True])

    def fake(**settings):
        told.update(settings)
        return {"text->image": {"object": cell}}
    monkeypatch.setattr(module, "evaluate", fake)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    assert module.main(["--json", "--n", "3", "--seed", "1004", "--only", "text-image, speech->text", "--save"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == {"text->image": {"object": cell}}
    assert (told["n"], told["seed"], told["only"]) == (3, 1004, ["text->image", "speech->text"])
    saved = json.loads((tmp_path / "results" / "evaluate.json").read_text())
    assert saved == {"n": 3, "seed": 1004, "split": "test", "matrix": json.loads(out)}
    assert module.main(["--n", "3"]) == 0 and "draws the right things" in capsys.readouterr().out
    assert module.main(["--n", "3", "--all"]) == 0 and "direction" in capsys.readouterr().out


@pytest.mark.parametrize("argv, sentence", [
    (["--only", "text-video"], "--only takes some of text-image, image-text"),
    (["--n", "2"], "--n must be at least 3, got 2"),
])
def test_the_command_names_what_it_cannot_do(argv, sentence, capsys):
    with pytest.raises(SystemExit):
        module.main(argv)
    assert sentence in capsys.readouterr().err


def test_a_first_reader_sees_one_row_for_each_direction():
    stored = {direction: {measure: row([True, False], ceiling=[True]) for name, d, measure, _ in ROWS if d == direction}
              for _, direction, _, _ in ROWS}
    stored["text->image"]["exact"] = row([True] * 9 + [False], ceiling=[True] * 10)
    first, rest = first_rows(stored), other_rows(stored)
    directions = {name: direction for name, direction, _, _ in ROWS}
    assert len(first) == 7 == len({directions[r[""]] for r in first})
    assert [r[""] for r in short_rows(stored)] == sorted([r[""] for r in first + rest], key=list(directions).index)
    best = best_and_worst(stored).splitlines()
    assert len(best) == 7 and best[0].endswith("draws all that a caption says") and best[0].strip().startswith("90.0 %")
