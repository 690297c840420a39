"""Chapter 14 shown: verdicts follow from the rows, each can fail, bills say what they are asked."""
import copy

import pytest

from mmcourse.experiments.bill import PUBLISHED, Bill
from mmcourse.experiments.scaling import COUNTS, Law
from mmcourse.show import bill

LAWS = {"all": Law(0.5, 30, 0.4, 5e4, 0.8), "text": Law(1.86, 20, 0.6, 2e3, 0.9), "image | text": Law(0.01, 30, 0.4, 5e5, 1.0),
        "image": Law(0.40, 30, 0.45, 3e5, 1.0), "text | image": Law(0.01, 40, 0.4, 5e5, 1.0), "audio | word": Law(1.0, 10, 0.3, 1e3, 0.5)}
SIZES = {32: 2.5e4, 64: 1e5, 96: 3.3e5, 128: 7.9e5, 160: 1.5e6, 192: 2.7e6}
STRETCH = {"all": 1.6, "with head": 1.3, "hidden": 1.0}                # of the exponent by the count


def as_expected() -> dict:
    """A result in which all is as was expected."""
    runs = [{"width": width, "seed": 0, "steps": steps, **{count: SIZES[width] for count in COUNTS}, "tokens": 1000 * steps,
             "bits": {role: float(law(SIZES[width], 1000 * steps)) for role, law in LAWS.items()}}
            for width in SIZES for steps in (200, 400, 800, 1600)]
    top = runs[-1]["bits"]
    n = {"text": 14.0, "image": 65}
    top["image | text"] = (n["image"] * top["image"] + n["text"] * top["text | image"] - n["text"] * top["text"]) / n["image"]

    def fitted(role: str, count: str) -> dict:
        law = LAWS[role]
        wide = [0.3, 2.0] if role == "audio | word" else [law.E * 0.99, law.E * 1.01]
        return {"E": law.E, "A": law.A, "a": law.a * STRETCH[count], "B": law.B, "b": law.b, "misfit": 0.01,
                "intervals": {"E": [0.005, 0.05] if law.E < 0.1 else wide, "a": [0.2, 0.6], "b": [0.8, 1.1], "share": [0.4, 0.8]}}
    laws = {count: {role: fitted(role, count) for role in LAWS} for count in COUNTS}

    def said(times: float) -> dict:
        return {count: {role: {"bits": value * (2 * times if role == "text | image" else times), "interval": [0.5 * value, 2 * value]}
                        for role, value in top.items()} for count in COUNTS}
    return {"runs": runs, "laws": laws,
            "truth": {"bits": {"text": 1.86, "image": 0.398, "image | text": 0.0, "text | image": 0.0, "word": 3.6}, "tokens": n,
                      "split unknown": {"text": 1.88, "image": 0.40}},
            "rates": {"32": {"hidden": 2.5e4, "losses": {"1.0": 3.0, "2.0": 2.8}, "best": 2.0}},
            "predictions": {"160": said(1.0), "192": said(1.005), "reference": said(1.0), "laws": laws},
            "reference": {"hidden": 2.7e6, "tokens": 6e7, "bits": {role: 0.4 * top[role] for role in ("image | text", "text | image",
                                                                                                  "audio | word")}}}


def test_all_holds_where_all_is_as_expected():
    assert [text.split()[0] for text in bill.law_verdicts(as_expected()).values()] == ["holds"] * 6


@pytest.mark.parametrize(("claim", "place", "value"), [
    ("S1", ("laws", "hidden", "image | text", "intervals", "b"), [0.3, 0.6]), ("S2", ("laws", "all", "text", "a"), 0.1),
    ("S3", ("laws", "hidden", "text", "intervals", "E"), [1.5, 1.6]), ("S3", ("laws", "hidden", "image | text", "intervals", "E"), [0.02, 0.2]),
    ("S3", ("laws", "hidden", "audio | word", "intervals", "E"), [1e-5, 1e-5]),
    ("S4", ("predictions", "192", "hidden", "all", "bits"), 9.0), ("S5", ("reference", "bits", "image | text"), 9.0),
    ("S6", ("truth", "tokens", "text"), 2.0)])
def test_a_claim_can_fail(claim, place, value):
    found = as_expected()
    *way, last = place
    row = found
    for step in way:
        row = row[step]
    row[last] = value
    verdicts = {name[:2]: text.split()[0] for name, text in bill.law_verdicts(found).items()}
    assert verdicts[claim] == "fails"


def test_a_claim_can_be_undecided():
    found = as_expected()
    found["laws"]["hidden"]["text"]["intervals"]["E"] = [1.4, 1.9]
    found["laws"]["hidden"]["image | text"]["intervals"]["b"] = [0.9, 1.5]
    verdicts = [text.split()[0] for text in bill.law_verdicts(found).values()]
    assert verdicts == ["undecided", "holds", "undecided", "holds", "holds", "holds"]


def test_figures_of_the_law(drawn):
    found = as_expected()
    bill.losses(found)
    bill.losses(found, "text", "all", "said so")
    bill.foretold_figure(found)
    bill.rates(found)
    assert [len(fig.axes) for fig, _ in drawn] == [2, 2, 1, 1] and drawn[1][1] == "said so"
    assert len(drawn[0][0].axes[0].lines) == 2 * len(SIZES) and len(drawn[0][0].axes[1].lines) == 2 * 4


def test_tables_of_the_law(capsys):
    found = as_expected()
    bill.floors(found)
    bill.exponents(found)
    bill.foretold(found)
    said = capsys.readouterr().out
    assert "not known" in said and "the reference" in said and "0.64 (" in said and "+0%" in said
    assert bill.error(found, "text | image") == pytest.approx(1.01)


def test_the_newest_of_the_largest():
    found = as_expected()
    assert bill.largest_run(found) == found["runs"][-1]
    found["runs"].append({**copy.deepcopy(found["runs"][-1]), "seed": 1, "steps": 9999})
    assert bill.largest_run(found)["seed"] == 0 and bill.largest_run(found, 32)["width"] == 32


@pytest.mark.parametrize(("number", "said"), [(24_896, "24.9k"), (9.2e12, "9.2T"), (7e9, "7B"), (12, "12")])
def test_numbers_for_people(number, said):
    assert bill.human(number) == said


def test_bills_and_runs_are_said(capsys):
    text = bill.bill_text(Bill(7e9, 9.2e12, "A100", 0.4), 1024)
    assert "7B parameters, 9.2T tokens" in text and "860k A100 hours" in text and "1.2 million to 2.9 million dollars" in text
    assert bill.money(0.1234) == "0.12" and bill.money(1234) == "1,200" and bill.money(3.42e6) == "3.4 million"
    bill.calculator()
    bill.published()
    bill.devices()
    bill.gpt4o()
    said = capsys.readouterr().out
    assert all(run.name in said for run in PUBLISHED) and "40.2%" in said and "not public" in said and "860k A100 hours" in said
