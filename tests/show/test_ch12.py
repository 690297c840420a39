"""Chapter 12 shown: verdicts follow from the rows, each claim can fail, and the calculator knows what a pass settles."""
import copy

import numpy as np
import pytest
import torch

from mmcourse.exercises.ch12 import settled_a_pass
from mmcourse.show import ch12


def ledger_rows():
    """A ledger in which all is as expected."""
    def row(tokens, bits, cheap, flops, **more):
        return {"weighed": {"tokens": tokens, "nominal": 9.0 * tokens, "bits": bits, "alone": 2 * bits, "cheap": cheap, "sound": 0.0},
                "timed": {"tokens": tokens, "flops": flops, "render flops": 1.0, "moved": 1e6, "cpu": 0.2, "first token": 0.01,
                          "render": 0.01, **more}}
    sound = {"first sound": 0.05, "sound": 0.5}
    return {"rows": {"caption": row(14, 2.0, 0.9, 1e8), "picture": row(64, 6.0, 0.9, 5e8), "word": row(28, 60.0, 0.2, 2e8, **sound),
                     "phrase": row(90, 200.0, 0.2, 6e8, **sound)}}


def test_the_ledger_and_its_verdicts(capsys):
    found = ledger_rows()
    ch12.ledger(found)
    said = capsys.readouterr().out
    assert "bits a token" in said and "0.09" in said and "0.42" in said     # 6 / 64; (.2 + .01) s for half a second
    assert [text.split()[0] for text in ch12.ledger_verdicts(found).values()] == ["holds"] * 4


@pytest.mark.parametrize(("claim", "place", "value"), [
    ("L1", ("picture", "weighed", "bits"), 17.0), ("L1", ("word", "weighed", "bits"), 20.0), ("L2", ("picture", "weighed", "cheap"), 0.4),
    ("L3", ("picture", "timed", "flops"), 1e7), ("L4", ("word", "timed", "cpu"), 0.6), ("L4", ("word", "timed", "first sound"), 0.3)])
def test_a_claim_of_the_ledger_can_fail(claim, place, value):
    found = ledger_rows()
    row = found["rows"][place[0]][place[1]]
    row[place[2]] = value
    verdicts = {name[:2]: text.split()[0] for name, text in ch12.ledger_verdicts(found).items()}
    assert verdicts[claim] == "fails"


def parallel_rows():
    """A table in which all is as expected."""
    def row(passes, cpu):
        return {"n": 48, "passes": passes, "tokens": 80.0 if passes == 65 else 300.0, "flops": 1e9, "cpu": cpu}

    def at(size):
        crowd = size == 16
        return {"one at a time": row(65, 0.04 if crowd else 0.3), "Jacobi": row(18, 0.15), "drafted": row(2.5, 0.03),
                "Jacobi, together": row(20, 0.09), "drafted, together": row(10, 0.08)}
    cost = {choice: {str(size): at(size) for size in (1, 2, 4, 16)} for choice in ("the likeliest", "sampled")}
    rng = np.random.default_rng(0)
    model = "".join(map(str, (rng.random(500) < 0.9).astype(int)))
    return {"same": {choice: {"Jacobi": {"n": 100, "same": 100}, "drafted": {"n": 500, "same": 500}} for choice in cost},
            "cost": cost, "alone": {"n": 500, "model": model, "drafter": "0" * 100 + model[100:], "tokens equal": 0.97,
                                    "pictures equal": 200},
            "others": {"word": {"n": 60, "tokens": 28.0, "passes": 17.0, "same": 60}},
            "agreement": {"n": 100, "race": 0.9, "speculative": 0.91},
            "chi-square": {"contexts": 40, "draws": 2000, "test": {"chi2": 140.0, "df": 137, "deviations": 0.2},
                           "wrong test": {"chi2": 7000.0, "df": 137, "deviations": 414.6},
                           "race": {"chi2": 130.0, "df": 137, "deviations": -0.4}}}


def test_what_was_measured_of_many_tokens_in_one_pass(capsys):
    found = parallel_rows()
    verdicts = ch12.parallel_verdicts(found)
    assert [text.split()[0] for text in verdicts.values()] == ["holds"] * 6
    assert "1,200 of 1,200" in verdicts["P1, the same ids in every picture"]
    ch12.same(found)
    ch12.speeds(found)
    ch12.others(found)
    ch12.chi_squares(found)
    ch12.costs(found, "the likeliest", "Costs.")
    said = capsys.readouterr().out
    assert "500 of 500" in said and "10.00" in said and "0.61" in said and "Costs." in said
    assert "what is left over" in said and "+414.6" in said


@pytest.mark.parametrize(("rule", "deviations"), [("test", 4.0), ("race", -3.5), ("wrong test", 9.0)])
def test_a_distribution_that_is_off_is_seen(rule, deviations):
    found = parallel_rows()
    assert ch12.chi_verdict(found).startswith("holds")
    found["chi-square"][rule]["deviations"] = deviations
    assert ch12.chi_verdict(found).startswith("fails")


@pytest.mark.parametrize(("claim", "change"), [
    ("P1", lambda found: found["same"]["sampled"]["drafted"].update(same=499)),
    ("P2", lambda found: found["cost"]["the likeliest"]["1"]["drafted"].update(passes=7)),
    ("P2", lambda found: found["cost"]["the likeliest"]["1"]["Jacobi"].update(passes=30)),
    ("P3", lambda found: found["cost"]["sampled"]["1"]["drafted"].update(cpu=0.11)),
    ("P4", lambda found: found["cost"]["sampled"]["16"]["drafted, together"].update(cpu=0.01)),
    ("P4", lambda found: found["cost"]["the likeliest"]["16"]["drafted"].update(cpu=0.05)),
    ("P5", lambda found: found["alone"].update(drafter=found["alone"]["model"])),
    ("P6", lambda found: found["others"]["word"].update(passes=10.0))])
def test_a_claim_on_passes_can_fail(claim, change):
    found = copy.deepcopy(parallel_rows())
    change(found)
    verdicts = {name[:2]: text.split()[0].lower() for name, text in ch12.parallel_verdicts(found).items()}
    assert verdicts.pop(claim) == "fails" and set(verdicts.values()) == {"holds"}


def test_passes_that_are_to_be_expected():
    assert ch12.expected_passes(64, 0.0) == 64 and ch12.expected_passes(64, 1.0) == 1
    assert 64 / settled_a_pass(0.9, 64) <= ch12.expected_passes(64, 0.9) < 12
    assert ch12.expected_passes(64, 0.99) < ch12.expected_passes(64, 0.9) < ch12.expected_passes(64, 0.5)


def test_the_price_of_a_pass_solves_both_rows():
    found = parallel_rows()
    row = found["cost"]["the likeliest"]["1"]
    base, each = ch12.price(found)
    for way in ("one at a time", "Jacobi"):
        assert np.isclose(base * row[way]["passes"] + each * row[way]["tokens"], row[way]["cpu"])


class Painter:
    """A tokenizer whose pictures are grey."""

    def decode(self, ids):
        return torch.full((len(ids), 3, 64, 64), 0.5)


def test_a_film_and_a_map_of_bits_can_be_drawn(capsys):
    final = torch.arange(64)
    guesses = [torch.zeros(64, dtype=torch.long), torch.where(torch.arange(64) < 9, final, 3), final]
    ch12.settling(guesses, [1, 9, 64], final, Painter(), caption="A film.", columns=2)
    ch12.scrub({"drafted": (guesses, [1, 9, 64]), "Jacobi": (guesses[1:], [9, 64])}, Painter())
    ch12.surprise(torch.zeros(2, 3, 64, 64), [np.ones(65), np.zeros(65)], ["a", "b"], "Bits.")
    ch12.calculator(parallel_rows())
    said = capsys.readouterr().out
    assert "A film." in said and "After 3 passes." in said and "Bits." in said and "64 tokens, each guess right in 95%" in said
