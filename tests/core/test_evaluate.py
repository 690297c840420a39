"""The matrix: its arithmetic on hand-made answers, and its shape on a tiny untrained model."""
import json

import numpy as np
import pytest
import torch

from mmcourse import evaluate as module
from mmcourse.evaluate import Evaluation, agreement, evaluate, picture_rows, row, shuffled, table
from mmcourse.judges.hearing import WordJudge
from mmcourse.judges.picture_net import PictureNet
from mmcourse.paths import RESULTS
from mmcourse.vocabulary import Segment
from mmcourse.world.human_digits import HumanDigits
from mmcourse.world.scene import WORDS, Group, Scene, is_held_out
from mmcourse.world.speech import SpeechCorpus

# What programs may rely on: direction -> measures. Keys stay as they are once given; more may come.
KEYS = {
    "text->image": {"object", "count", "ground", "word", "sign_ocr", "object_net"},
    "image->text": {"exact", "object", "count", "ground", "word"},
    "text->speech": {"word"}, "speech->text": {"word", "word_single", "human_digit", "human_digit_single"},
    "image->speech": {"word", "word_direct"},
    "speech->image": {"object", "object_direct"},
    "image+text->image": {"change", "kept", "both", "copy", "ground", "noun", "sign", "add", "remove", "move"},
    "tokenizer:image": {"object", "word", "psnr_db", "codes_used"},
    "tokenizer:audio": {"stoi", "pesq", "bits_per_second"},
    "decoder:image": {"fd_plain", "fd_diffusion"},
}
PARTS = ("tokenizer:image", "tokenizer:audio", "decoder:image")


# ---------------------------------------------------------------- arithmetic

def test_agreement():
    assert agreement([1, 2, 3, 4], [1, 2, 0, 4]) == 0.75
    assert agreement([], []) is None, "nothing was asked: not zero, not NaN"
    with pytest.raises(ValueError):
        agreement([1], [1, 2])


def test_shuffled_answers_belong_to_other_questions():
    truths = list(range(12))
    assert agreement(truths, truths) == 1 and shuffled(truths, truths) == 0
    assert shuffled(["cat"] * 6, ["cat"] * 6) == 1, "an answer that is always the same scores as well by chance"
    assert shuffled([1, 2], [2, 1]) == 1 and shuffled([], []) is None
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 8, 4000).tolist()
    assert abs(shuffled(truths, truths) - 1 / 8) < 0.03


def test_row_is_rounded_and_keeps_what_is_missing():
    assert row(1 / 3, np.float64(1), None, 7) == {"score": 0.3333, "ceiling": 1.0, "chance": None, "n": 7}
    json.dumps(row(np.float32(0.5), 1, 0, 3))


def test_picture_rows_compare_part_by_part():
    asked = [Scene((Group("cat", 1, "left"),), "blue", "KITE"), Scene((Group("dog", 2, "right"),), "red"),
             Scene((Group("sun", 3),), "green")]
    seen = [Scene((Group("cat", 2, "left"),), "blue", "KITT"), Scene((Group("dog", 2, "right"),), "grey", "CAR"), None]
    rows = picture_rows(seen, asked, asked)
    assert {k: v["score"] for k, v in rows.items()} == {"object": 0.6667, "count": 0.3333, "ground": 0.3333, "word": 0.0}
    assert all(v["ceiling"] == 1 for v in rows.values())
    assert rows["word"]["n"] == 1 and rows["object"]["n"] == 3, "a sign is asked only of scenes that have one"


def test_no_scene_with_a_sign_leaves_a_gap_and_no_nan():
    plain = [Scene((Group("cat", 1, "left"),), "blue")] * 3
    assert picture_rows(plain, plain, plain)["word"] == {"score": None, "ceiling": None, "chance": None, "n": 0}


def test_table_shows_shares_and_gaps():
    text = table({"text->image": {"object": row(0.45, 0.9, 0.01, 200), "word": row(None, None, None, 0)},
                  "decoder:image": {"fd_plain": 1.25, "fd_diffusion": None}})
    line = next(x for x in text.splitlines() if " object " in x)
    assert "0.450" in line and "0.900" in line and "50%" in line and "200" in line
    assert "1.25" in text and text.count("\n") == 4


# ---------------------------------------------------------------- a tiny model, judged by untrained judges

@pytest.fixture
def judged(monkeypatch):
    """Untrained judges, and a corpus of tones in place of the speech: quick, and alike on every machine."""
    torch.manual_seed(1)
    judges = {"word_judge": WordJudge().eval(), "picture_judge": PictureNet().eval()}
    monkeypatch.setattr(module.checkpoints, "load", lambda name, *a, **k: judges[name])
    clips = [0.2 * np.sin(np.arange(2000 + 10 * i) * (i % 84 + 5) / 60).astype(np.float32) for i in range(2 * len(WORDS))]
    voices = [i // len(WORDS) for i in range(len(clips))]
    corpus = SpeechCorpus(clips, [*WORDS, *WORDS], voices, np.array(voices) == 1)
    monkeypatch.setattr("mmcourse.world.speech.load_speech", lambda progress=True: corpus)
    monkeypatch.setattr("mmcourse.world.human_digits.load_human_digits", lambda: None)
    monkeypatch.setattr("mmcourse.judges.hearing.measure_codec", lambda *a, levels, **k: {
        "true": {"judge": 1.0}, **{f"{n} levels": {"judge": 0.5, "stoi": 0.7, "pesq": 1.9} for n in levels}})
    return corpus


@pytest.fixture
def matrix(tiny, judged):
    return evaluate(tiny, n=4, seed=3, progress=False)


def test_the_matrix_has_every_key_and_is_json(matrix):
    assert list(matrix) == list(KEYS)
    for direction, measures in KEYS.items():
        assert measures <= set(matrix[direction]), direction
        for name, value in matrix[direction].items():
            if direction not in PARTS:
                assert set(value) == {"score", "ceiling", "chance", "n"}, (direction, name)
                assert all(v is None or 0 <= v <= 1 for k, v in value.items() if k != "n"), (direction, name, value)
    assert json.loads(json.dumps(matrix, allow_nan=False)) == matrix
    assert len(table(matrix).splitlines()) == 1 + sum(map(len, matrix.values()))


def test_what_is_not_there_is_none_not_zero(matrix):
    assert matrix["speech->text"]["human_digit"]["score"] is None, "no human digits in the cache"
    assert matrix["decoder:image"] == {"fd_plain": None, "fd_diffusion": None}, "this model has no diffusion decoder"


def test_the_same_seed_gives_the_same_matrix(tiny, judged, matrix):
    assert evaluate(tiny, n=4, seed=3, only=["text->image"], progress=False) == {"text->image": matrix["text->image"]}


def test_only_held_out_scenes_and_voices_are_asked(tiny, judged):
    e = Evaluation(tiny, n=30, progress=False)
    assert all(is_held_out(s) for s in e.scenes)
    clips, words, _ = e.speech
    kept = {id(clip) for clip, out in zip(judged.clips, judged.held_out, strict=True) if out}
    assert {id(c) for c in clips} == kept and sorted(words) == sorted(WORDS)


def test_a_copy_is_no_edit(matrix):
    edits = matrix["image+text->image"]
    assert edits["copy"]["score"] == 0
    assert sum(edits[kind]["n"] for kind in ("ground", "noun", "sign", "add", "remove", "move")) == edits["both"]["n"]


def test_human_digits_are_those_of_the_unknown_speaker(tiny, judged, monkeypatch):
    asked = []
    digits = HumanDigits([np.full(1600, 0.1 * (i % 2), np.float32) for i in range(6)], ["one", "two"] * 3, ["jackson", "yweweler"] * 3,
                         np.array([False, True] * 3))
    monkeypatch.setattr("mmcourse.world.human_digits.load_human_digits", lambda: digits)
    e = Evaluation(tiny, n=5, progress=False)
    monkeypatch.setattr(tiny, "sound_segment", lambda clip: asked.append(clip) or Segment("audio", (1, 2)))
    found = e.speech_text()["human_digit"]
    assert found["n"] == 3 and found["chance"] == 0.1
    assert all(clip.max() > 0.05 for clip in asked[-3:]), "clips that something trains on are never asked"


@pytest.mark.parametrize("n", [0, 2, -5])
def test_too_few_scenes(tiny, n):
    with pytest.raises(ValueError, match=f"n must be at least 3, got {n}: the chance level needs answers to shuffle"):
        evaluate(tiny, n=n)


# ---------------------------------------------------------------- the command

def test_the_command_prints_json_for_programs(monkeypatch, capsys, tmp_path):
    told = {}

    def fake(**settings):
        told.update(settings)
        return {"text->image": {"object": row(0.5, 1, 0, 3)}}
    monkeypatch.setattr(module, "evaluate", fake)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    assert module.main(["--json", "--n", "3", "--seed", "4", "--only", "text-image, speech->text", "--save"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == {"text->image": {"object": {"score": 0.5, "ceiling": 1.0, "chance": 0.0, "n": 3}}}
    assert (told["n"], told["seed"], told["only"]) == (3, 4, ["text->image", "speech->text"])
    saved = json.loads((tmp_path / "results" / "evaluate.json").read_text())
    assert saved == {"n": 3, "seed": 4, "matrix": json.loads(out)}
    assert module.main(["--n", "3"]) == 0 and "direction" in capsys.readouterr().out


@pytest.mark.parametrize("argv, sentence", [
    (["--only", "text-video"], "--only takes some of text-image, image-text"),
    (["--n", "2"], "--n must be at least 3, got 2"),
])
def test_the_command_names_what_it_cannot_do(argv, sentence, capsys):
    with pytest.raises(SystemExit):
        module.main(argv)
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(not (RESULTS / "evaluate.json").exists(), reason="no matrix is shipped yet")
def test_the_shipped_matrix_has_every_key():
    shipped = json.loads((RESULTS / "evaluate.json").read_text())
    assert {"n", "seed", "matrix"} <= set(shipped)
    for direction, measures in KEYS.items():
        assert measures <= set(shipped["matrix"].get(direction, {})), f"{direction}: run `python -m mmcourse evaluate --save`"
