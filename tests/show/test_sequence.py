"""Chapter 06's drawings: what they say is computed from what they were given."""
import pytest
import torch

from mmcourse import show
from mmcourse.files import results


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
    rows = show.sequence.tax({"text->image": {"one net": [2.0, 3.0, 4.0], "specialist": [1.0, 2.1, 2.9], "small": [2.1, 2.8, 4.1]}})
    assert [r["verdict"] for r in rows] == ["specialist is better", "no clear difference"]
    assert rows[0]["paid (bits a token)"] == pytest.approx(1.0) and rows[0]["standard error"] == pytest.approx(0.1 / 3**0.5)


def test_edits_are_shown_in_threes():
    pictures = torch.rand(2, 3, 8, 8)
    show.sequence.edits(["a", "b"], pictures, pictures, pictures, [{"change": True, "kept": False}] * 2)
    with pytest.raises(ValueError):
        show.sequence.edits(["a"], pictures, pictures, pictures, [])


def test_the_composition_table_reads_the_shipped_file(capsys):
    show.sequence.composition(results("ch06_composition"))
    assert "held-out pairs" in capsys.readouterr().out
