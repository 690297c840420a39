"""Chapter 12's shelves shown: verdicts follow from the rows, and each claim can fail."""
import copy

import pytest
import torch

from mmcourse.show import shelves

LENGTHS = ("1", "2", "4", "6", "8", "10", "12")


def nested_rows():
    """Tables in which all is as expected."""
    def way(right, unlike, fd, lengths=LENGTHS):
        return {seed: {k: {"psnr": 20.0, "compartments": right[min(i, len(right) - 1)] + 0.001 * int(seed), "pictograms": 0.5,
                           "letters": 0.5, "whole": 0.1, "unlike": unlike, "fd": fd} for i, k in enumerate(lengths)}
                for seed in shelves.SEEDS}
    rising = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
    worse = tuple(x - 0.1 for x in rising[:-1]) + (0.99,)
    by_passes = {"0": 0.05, "1": 0.1, "2": 0.3, "4": 0.6, "8": 0.63, "16": 0.65}

    def drawn(more):
        best = {k: {passes: n + more for passes, n in by_passes.items()} for k in ("4", "6", "8")}
        poor = {k: {passes: n / 2 for passes, n in by_passes.items()} for k in ("0", "2", "12")}
        return {"both": {k: (best | poor)[k] for k in ("0", "2", "4", "6", "8", "12")},
                "tokens": {k: (best | poor)[k] for k in ("2", "4", "6", "8", "12")}}
    each = {"n": 300, "small": drawn(0), "large": drawn(0.2)}
    return {"plan": {"n": 1024},
            "rebuilt": {"plain": way(rising, 0.5, 9.0), "random order": way(worse, 0.5, 9.0), "fixed": way((0.61,), 0.4, 9.0, ("4",)),
                        "large": way(rising, 0.5, 9.0), "flow, 1": way(worse, 0.5, 9.0), "flow, 4": way(worse, 0.1, 2.0),
                        "flow, 8": way(worse, 0.1, 2.0)},
            "drawn": {seed: copy.deepcopy(each) for seed in shelves.SEEDS},
            "flops": {"small": {"first": 10e6, "token": 1e6}, "large": {"first": 40e6, "token": 4e6}, "pass": 30e6,
                      "large pass": 120e6, "plain": 20e6}}


def budget_rows():
    """A learned budget as it was expected."""
    def row(tokens, right, needs, dealt):
        return {"tokens": tokens, "right": right, "rank": 0.9, "needs": needs, "dealt": dealt, "by count": [float(i) for i in range(9)]}
    each = {"fixed": {str(k): k / 12 for k in range(1, 13)},
            "learned": {"0.04": row(5.0, 0.6, 7.2, [5.0, 0.3]), "0.02": row(4.0, 0.5, 6.0, [4.0, 0.2])},
            "best": {"0.04": row(4.0, 0.65, 7.8, [4.0, 0.3])},
            "stop": {"0.001": row(5.2, 0.62, 7.4, [5.0, 0.3]), "0.01": row(4.9, 0.6, 7.2, [5.0, 0.3])}}
    return {"plan": {"n": 1024}, "rows": {seed: copy.deepcopy(each) for seed in shelves.SEEDS}}


TABLES = {"N": (nested_rows, shelves.nested_verdicts), "balance": (nested_rows, shelves.balance_verdicts),
          "B": (budget_rows, shelves.budget_verdicts)}


@pytest.mark.parametrize("table", TABLES)
def test_all_as_expected(table):
    rows, verdicts = TABLES[table]
    found = {claim: text.split()[0] for claim, text in verdicts(rows()).items()}
    assert set(found.values()) == {"holds"}, found


def set_all(rows, key, value):
    for row in rows.values():
        for each in row.values():
            each[key] = value


@pytest.mark.parametrize(("table", "claim", "change"), [
    ("N", "N1", lambda f: set_all(f["rebuilt"]["fixed"], "compartments", 0.7)),
    ("N", "N2", lambda f: set_all(f["rebuilt"]["random order"], "compartments", 0.58)),
    ("N", "N3a", lambda f: set_all(f["rebuilt"]["flow, 4"], "unlike", 0.6)),
    ("N", "N3b", lambda f: set_all(f["rebuilt"]["flow, 4"], "fd", 9.5)),
    ("N", "N3c", lambda f: set_all(f["rebuilt"]["flow, 4"], "compartments", 0.9)),
    ("N", "N4", lambda f: set_all(f["rebuilt"]["flow, 4"], "compartments", 0.5)),
    ("balance", "N5", lambda f: [row["small"]["both"]["0"].update({"4": 0.99}) for row in f["drawn"].values()]),
    ("balance", "N6", lambda f: [row["large"]["both"]["6"].update({"4": 0.3}) for row in f["drawn"].values()]),
    ("B", "B1", lambda f: [row["learned"]["0.04"].update(rank=0.7) for row in f["rows"].values()]),
    ("B", "B2", lambda f: [row["learned"]["0.04"].update(needs=5.5) for row in f["rows"].values()]),
    ("B", "B3", lambda f: [row["learned"]["0.04"].update(dealt=[5.0, 0.5]) for row in f["rows"].values()]),
    ("B", "B4", lambda f: [row["stop"]["0.01"].update(tokens=4.0) for row in f["rows"].values()])])
def test_a_claim_can_fail(table, claim, change):
    rows, verdicts = TABLES[table]
    found = rows()
    change(found)
    assert "fails" in {text.split()[0] for name, text in verdicts(found).items() if name.startswith(claim)}


def test_a_wide_spread_is_undecided():
    found = nested_rows()
    for seed, right in zip(shelves.SEEDS, (0.3, 0.6, 0.9)):
        found["rebuilt"]["fixed"][seed]["4"]["compartments"] = right
    assert [t.split()[0] for name, t in shelves.nested_verdicts(found).items() if name.startswith("N1")] == ["undecided"]


def test_the_frontier_rises():
    rows = shelves.best_by_share(nested_rows())
    assert [row["flops"] for row in rows] == sorted(row["flops"] for row in rows)
    assert [row["right"] for row in rows] == sorted({row["right"] for row in rows})
    assert all(row["flops"] == row["write"] + row["paint"] for row in rows)
    without = next(row for row in shelves.points(nested_rows(), "small", "both", "0") if row["k"] == 0)
    assert without["write"] == 0


def test_everything_is_shown(capsys):
    found = nested_rows()
    shelves.rates(found)
    shelves.balance(found)
    shelves.frontier(found)
    shelves.budgets(budget_rows())
    said = capsys.readouterr().out
    assert "1,024 test shelves" in said and "of them the writer's" in said


def test_pictures_and_slider(capsys):
    pictures = torch.rand(2, 3, 48, 48)
    made = {"plain": [torch.rand(2, 3, 48, 48) for _ in range(3)]}
    shelves.beginnings(pictures, made, (1, 2, 3), "Beginnings.")
    assert "Beginnings." in capsys.readouterr().out
    shelves.slider(pictures, made, 9)
