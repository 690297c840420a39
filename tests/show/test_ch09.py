"""Chapter 09's figures, verdicts and widget: decided by intervals over names; bad names get a sentence."""
import itertools

import numpy as np
import pytest
import torch

from mmcourse import show
from mmcourse.show import ch09
from mmcourse.world.facts import FACT_WORLD, NOUNS, make_facts, scene
from mmcourse.world.grammar import PLACES
from mmcourse.world.scene import BACKGROUNDS

FACTS = make_facts(per_noun={"D": 1, "T": 1, "E": 1, "N": 1})
SCENES = [scene(noun, place, ground) for noun in NOUNS for place in PLACES for ground in BACKGROUNDS]
DRAWINGS = FACT_WORLD.draw(SCENES).flatten(1)


def read(pictures):
    return [SCENES[i] for i in torch.cdist(pictures.flatten(1), DRAWINGS).argmin(1).tolist()]


class Net:
    """Draws a fish directly, and what it says (a tree) after saying."""

    def direct(self, prompts):
        return [FACT_WORLD.draw([scene("fish", p.place, p.ground)])[0] for p in prompts], [""] * len(prompts)

    def said_first(self, prompts):
        return [FACT_WORLD.draw([scene("tree", p.place, p.ground)])[0] for p in prompts], ["a tree"] * len(prompts)

    def paint(self, drawn):
        return torch.stack(drawn)


@pytest.mark.parametrize(("interval", "bounds", "said"), [
    ((0.0, 0.05), {"below": 0.1}, "holds"), ((0.05, 0.15), {"below": 0.1}, "undecided"), ((0.15, 0.2), {"below": 0.1}, "FAILS"),
    ((0.01, 0.2), {"above": 0.0}, "holds"), ((-0.3, -0.1), {"above": 0.0}, "FAILS"), ((-0.1, 0.1), {"above": 0.0}, "undecided"),
    ((-0.05, 0.05), {"above": -0.1, "below": 0.1}, "holds")])
def test_a_verdict_needs_the_whole_interval_on_one_side(interval, bounds, said):
    assert ch09.decide(*interval, **bounds) == said


@pytest.mark.parametrize(("values", "said"), [([0.0] * 60, "holds"), ([0.25] * 60, "FAILS"), ([0.0, 0.0, 0.0, 1.0], "undecided")])
def test_no_better_than_chance_fails_above_and_holds_only_within_the_margin(values, said):
    assert ch09._line("H", "", values, 2, **ch09.nothing_above(values, 0))["verdict"] == said


# ---------------------------------------------------------------- the study's file

def planted(t_direct: float = 0.0, said: float = 1.0, flow: float = 0.0, others: float = 0.0, back: int = 5) -> dict:
    """A study in which T is drawn directly with a share of names, and so on; three seeds of 60 names a group."""
    def row(run, arm, group, share, n=60, **more):
        k = round(share * n)
        unit = 1 if arm == "asked" else ch09.PROMPTS
        return {"run": run, "arm": arm, "group": group, "n": n * unit, "k": k * unit, "k_net": k * unit, "exact": k * unit,
                "names": str(unit) * k + "0" * (n - k), **more}
    rows = []
    for seed, group in itertools.product(range(3), "DTEN"):
        known = 0.0 if group == "N" else 1.0
        direct = {"D": 1.0, "T": t_direct, "E": 0.2, "N": 0.08}[group]
        for run, arm, share in (("headline", "direct", direct), ("headline", "said first", said * known),
                                ("headline", "noun itself", 1.0), ("formats", "chain", known),
                                ("formats", "told in prompt", 1.0), *((run, "direct", flow) for run in ch09.FLOWS.values()),
                                *((run, "asked", known) for run in ch09.FLOWS.values())):
            rows.append(row(run, arm, group, share, seed=seed))
        rows.append(row("headline", "asked", group, known, seed=seed, backwards=60 if group in "DE" else back, place=5))
    for seed in range(3):
        for run, asked in (("8 x 4", 0.1), ("1 x 16", 0.4), ("8 x 16", 0.6 + 0.05 * seed), ("D 0 %", 1.0), ("D 60 %", 1.0)):
            rows += [row(run, "direct", "T", t_direct, seed=seed), row(run, "asked", "T", asked, seed=seed),
                     row(run, "said first", "T", asked, seed=seed)]
        for part, share in (("learned", 0.8), ("others", others)):
            rows += [row("headline", "direct, read on", f"T, {part}", 0.0, 30, seed=seed),
                     row("headline", "direct, distilled", f"T, {part}", share, 30, seed=seed)]
    return {"rows": rows}


def found(**what):
    return {f"{row['']} {row['measured'][:20]}": row["verdict"] for row in ch09.verdicts(planted(**what))}


def test_all_hold_if_nothing_reaches_the_picture():
    assert set(found().values()) == {"holds"}


@pytest.mark.parametrize(("what", "names"), [
    ({"t_direct": 0.5}, ("H1 T", "H1, known")), ({"said": 0.5}, ("H2",)), ({"flow": 0.5}, ("H6",)), ({"back": 30}, ("H7",)),
    ({"others": 0.5}, ("H5, others",))])
def test_each_hypothesis_can_fail_alone(what, names):
    failed = {key for key, verdict in found(**what).items() if verdict == "FAILS"}
    assert failed and all(key.startswith(names) for key in failed), failed


def test_only_equal_seeds_are_compared():
    study = planted()
    study["rows"] += [{**r, "seed": 3} for r in study["rows"] if r["run"] == "headline" and r["seed"] == 0]
    assert len(ch09.seeds_of(study, "headline")) == 4 and ch09.seeds_of(study, "headline", "flow") == [0, 1, 2]
    assert {row["verdict"] for row in ch09.verdicts(study)} == {"holds"}


def test_the_words_are_the_limit_of_what_is_said_first():
    assert set(ch09.less_the_words(planted())["headline"]) == {0.0}


def test_a_name_that_is_left_out_does_not_count():
    assert ch09.share([0.5, np.nan, 0.5])[0] == 0.5


def test_a_missing_row_is_named():
    with pytest.raises(ValueError, match="no row of run 'headline', arm 'sung'"):
        ch09.shares(planted(), "headline", "sung")


def test_names_are_the_units_not_prompts():
    assert len(ch09.by_name(planted(), "headline", "direct")) == 180
    assert set(ch09.by_name(planted(t_direct=0.5), "headline", "direct")) == {0.0, 1.0}


# ---------------------------------------------------------------- figures and widget

def test_figures_can_be_drawn(drawn):
    prompts = FACTS.prompts("T")[:3]
    ch09.side_by_side(prompts, {"directly": Net().paint(Net().direct(prompts)[0])}, read, "side by side")
    ch09.ways(ch09.headline(planted()), {"T": "told only"}, "ways", {"chance": 1 / 12})
    ch09.curves({"a": {"T": {4: [0.1, 0.2], 64: [0.3, 0.2]}}, "b": {"T": {4: [0.1], 64: [0.9]}}}, "readings", "curves", log=True)
    assert [text for _, text in drawn] == ["side by side", "ways", "curves"]


def test_a_wrong_picture_is_marked(drawn):
    prompts = [p for p in FACTS.prompts("T") if p.noun in ("fish", "tree")][::4]
    ch09.side_by_side(prompts, {"directly": Net().paint(Net().direct(prompts)[0])}, read)
    titles = {axis.get_title() for axis in drawn[0][0].axes}
    assert "fish" in titles and "fish ✗" in titles


@pytest.mark.parametrize(("typed", "said"), [("", "no name yet"), ("two words", "one word"), ("x1", "letters a to z"),
                                             ("bé", "letters a to z"), ("z" * 40, "at most 12 letters")])
def test_bad_names_get_a_sentence(typed, said, capsys):
    ch09.try_name(Net(), FACTS, read, typed)
    out = capsys.readouterr().out
    assert out.startswith("That did not work:") and said in out and out.count("\n") == 1


def test_a_bad_place_gets_a_sentence(capsys):
    ch09.try_name(Net(), FACTS, read, "wug", ground="plaid")
    assert "grounds" in capsys.readouterr().out


@pytest.mark.parametrize(("group", "said"), [("D", "drawn"), ("T", "told only"), ("E", "never drawn"), ("N", "guess")])
def test_each_group_is_answered_honestly(group, said, capsys):
    ch09.try_name(Net(), FACTS, read, f" {FACTS.of(group)[0].upper()} ")
    out = capsys.readouterr().out
    assert said in out and "'a tree'" in out


def test_a_name_never_invented_is_called_a_guess(capsys):
    ch09.name_box(Net(), FACTS, read, "wug")
    out = capsys.readouterr().out
    assert "no invented name" in out and "guess" in out and "'a wug on the left" in out
    ch09.try_name(Net(), FACTS, read, "fish")
    assert "is a noun" in capsys.readouterr().out


def test_the_experiment_is_drawn_and_described(capsys):
    show.diagrams.ch09.experiment("the caption", "fopo", "tree")
    assert "the caption" in capsys.readouterr().out


def test_the_interval_is_of_names():
    mean, low, high = ch09.share(np.repeat([0.0, 1.0], 30))
    assert mean == 0.5 and 0.3 < low < 0.45 < 0.55 < high < 0.7
