"""Chapter 01's drawings: what they say is what they were given."""
import numpy as np

from mmcourse import show


def test_the_budget_says_what_it_draws(capsys):
    show.bits.budget(vocabulary=512, size=64, patch=8, seconds=1.0, frame_ms=40, levels=2, context=256)
    said = capsys.readouterr().out
    assert "64 tokens, 576 bits" in said and "50 tokens, 450 bits" in said and "25% of the context" in said
    show.bits.budget(size=16, patch=32)
    assert "do not fill" in capsys.readouterr().out


def test_ladder_and_binary_draw(capsys):
    show.bits.ladder({"raw": 98304.0, "tokens": 576.0, "less": 0.5}, "a ladder")
    show.bits.binary([np.eye(4)[None], np.zeros((2, 4, 4))], ["one", "two"], "pictures")
    assert capsys.readouterr().out == "a ladder\npictures\n"
