"""Chapter 06's drawings: what they say is computed from what they were given."""
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.files import results
from mmcourse.judges.metrics import newcombe
from mmcourse.media import Image, Text


def test_reliability_counts_in_bins():
    rows = show.sequence.reliability([0.1, 0.15, 0.9, 1.0], [False, True, True, True], bins=5)
    assert [(r["from"], r["n"], r["right"]) for r in rows] == [(0.0, 2, 0.5), (0.8, 2, 1.0)]
    assert rows[0]["confidence"] == pytest.approx(0.125)


@pytest.mark.parametrize(("confidence", "correct"), [([], []), ([0.5], [True, False]), ([-3.0], [True]), ([1.5], [False])])
def test_reliability_refuses(confidence, correct):
    with pytest.raises(ValueError, match="confidence"):
        show.sequence.reliability(confidence, correct)


def test_specialists_are_drawn_direction_by_direction(capsys):
    rows = [{"seed": s, "net": net, "direction": d, "bits": b + s, "right": None if d == "text->audio" else 0.5, "parameters": 9,
             "cpu_minutes": 0.1} for s in (0, 1) for net, b in (("one net", 2.0), ("specialist, a third", 3.0))
            for d in ("text->image", "text->audio")]
    found = show.sequence.specialists(rows)
    assert found["text->image"] == {"one net": [2.0, 3.0], "specialist, a third": [3.0, 4.0]}
    said = capsys.readouterr().out
    assert "right, text → image" in said and "right, text → audio" not in said


def test_the_tax_is_taken_seed_by_seed(capsys):
    rows = show.sequence.tax({"text->image": {"one net": [2.0, 3.0, 4.0], "specialist": [1.0, 2.1, 2.9], "small": [2.1, 2.8, 4.1],
                                              "close": [1.9, 2.96, 3.99]}})
    assert [r["verdict"] for r in rows] == ["specialist is better", "undecided", "undecided"]
    assert rows[0]["paid (bits a token)"] == pytest.approx(1.0)
    assert rows[0]["95 %: ±"] == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-3)            # t for two degrees of freedom


def test_one_seed_decides_nothing_about_the_tax():
    assert show.sequence.tax({"text->image": {"one net": [2.0], "specialist": [1.0]}})[0]["verdict"] == "undecided"


def composed(seen=98, new=90, n=100, drafts=1) -> list[dict]:
    return [{"split": split, "drafts": drafts, "n": n, "right": k, "ceiling": n, "chance": 0, "hits": [1] * k + [0] * (n - k)}
            for split, k in (("pairs from training", seen), ("held-out pairs", new))]


def test_composing_compares_the_two_sides_with_newcombe(capsys):
    one, eight = show.sequence.composing(composed() + composed(99, 98, drafts=8))
    assert (one["drafts"], eight["drafts"]) == (1, 8) and one["gap"] == pytest.approx(0.08)
    assert (one["low"], one["high"]) == newcombe(98, 100, 90, 100)
    assert "98 of 100" in capsys.readouterr().out


def test_a_habit_helps_hurts_or_is_undecided():
    def row(score):
        return {"score": score, "low": score - 0.05, "high": score + 0.05, "n": 200}
    matrix = {"speech->image": {"object_said_single": row(0.9), "object_direct_single": row(0.1)},
              "image+text->image": {"both_said_single": row(0.3), "both_direct_single": row(0.6)},
              "image->speech": {"word_single": row(0.81), "word_direct_single": row(0.8)},
              "speech->text": {"word": row(0.9), "word_single": row(0.7)}}
    found = show.sequence.habits(matrix, composed(98, 80) + composed(99, 95, drafts=8))
    assert [r["verdict"] for r in found] == ["helps", "helps", "hurts", "undecided", "helps"]
    assert found[0]["gain"] == pytest.approx(0.15)


def test_words_first_is_compared_within_each_seed():
    rows = [{"arm": arm, "seed": s, "n": 100, "word": 90, "direct": 50 + 10 * s, "said": 70 + 10 * s + s, "told": 95}
            for arm in ("equally often", "other") for s in range(3)]
    found = show.sequence.words_first(rows)
    assert [r["arm"] for r in found] == ["equally often", "other"] and found[0]["gain"] == pytest.approx(0.21)
    assert found[0]["half"] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3)


def test_guidance_is_drawn_from_the_shipped_file():
    show.sequence.guidance(results("ch06_composing")["guidance"])


# ---- the box to type into

class Talker:
    """An assistant that notes what it was asked."""

    def __init__(self):
        self.asked = []

    def generate(self, parts, want, seed=0, decoder=None):
        self.asked.append(([p.text if isinstance(p, Text) else "picture" for p in parts], want, seed))
        return Image(np.zeros((64, 64, 3), np.uint8))


def test_a_caption_is_drawn_and_then_changed():
    talker = Talker()
    show.sequence.typed(talker, "a cat", "make the ground green", seed=3)
    assert talker.asked == [(["a cat"], "image", 3), (["picture", "make the ground green"], "image", 3)]
    show.sequence.typed(talker, "a cat", "  ")
    assert len(talker.asked) == 3
    with pytest.raises(ValueError, match="caption first"):
        show.sequence.typed(talker, " ")


@pytest.mark.parametrize("error, said", [(ValueError("no such thing"), "no such thing"), (RuntimeError("x"), "x"),
                                         (KeyboardInterrupt(), "stopped"), (None, "")])
def test_whatever_happens_the_button_wakes_up_and_a_sentence_is_said(error, said):
    button, label, out = SimpleNamespace(disabled=False), SimpleNamespace(value="?"), widgets.Output()

    def job():
        assert button.disabled and label.value == "drawing ..."
        if error:
            raise error
    show.sequence.answer_click(job, button, label, out)()
    assert not button.disabled and said in label.value and bool(said) == bool(label.value)


# ---- drawings

@pytest.mark.parametrize("name, word", [("packed_row", "position"), ("answering", "closing token"), ("strategies", "drafts")])
def test_the_drawings_say_what_they_show(name, word, capsys):
    getattr(show.diagrams.ch06, name)()
    assert word in capsys.readouterr().out


def test_edits_are_shown_in_threes():
    pictures = torch.rand(2, 3, 8, 8)
    show.sequence.edits(["a", "b"], pictures, pictures, pictures, [{"change": True, "kept": False}] * 2)
    with pytest.raises(ValueError):
        show.sequence.edits(["a"], pictures, pictures, pictures, [])


def test_the_composition_table_reads_the_shipped_file(capsys):
    show.sequence.composition(results("ch06_composition"))
    assert "held-out pairs" in capsys.readouterr().out
