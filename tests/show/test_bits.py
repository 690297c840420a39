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


def test_a_coin_says_its_entropy(capsys):
    show.bits.coin(0.9)
    assert "0.47 bits a throw" in capsys.readouterr().out
    show.bits.coin(1.0)                                                     # the sunrise: tails never come
    said = capsys.readouterr().out
    assert "0.00 bits a throw" in said and "tails" not in said


def test_prices_and_repeats_draw(capsys):
    rows = [{"tokens of": f"{kind}, x", "nominal": 9.0, "counted": 6.0, "predicted": 4.0, "low": 3.5, "high": 4.5, "lower bound": bound}
            for kind, bound in (("a", 1.0), ("b", None))]
    show.bits.prices(rows, "prices")
    show.bits.repeats([64, 128, 256, 512], [60, 100, 150, 200], 32, "repeats")
    show.bits.told({"fresh": {"alone": 3.0, "after": 1.0}, "held out": {"alone": 4.0, "after": 2.0}}, {"fresh": 2, "held out": 3}, "told")
    assert capsys.readouterr().out == "prices\nrepeats\ntold\n"
