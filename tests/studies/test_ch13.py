"""Helpers of chapter 13's studies of features and of the second hop."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from mmcourse.experiments.inside import stream
from mmcourse.studies import ch13_hop
from mmcourse.studies.ch13_sae import (
    NAMES,
    Seen,
    average_precision,
    by_family,
    compared,
    factors,
    mean_where,
    others_than,
    slots,
    top,
)
from mmcourse.world.facts import GROUPS, NOUNS, Prompt
from mmcourse.world.scene import WORLD, Group, Scene


def test_average_precision_is_scikit_learns():
    values, has = torch.randn(60, 7), torch.rand(60, 3) < 0.3
    found = average_precision(values, has)
    for f in range(7):
        for k in range(3):
            assert found[f, k].item() == pytest.approx(average_precision_score(has[:, k], values[:, f]), abs=1e-5)
    assert average_precision(values, torch.zeros(60, 1, dtype=torch.bool)).eq(0).all()


def test_tokens_are_pooled_row_by_row():
    found = Seen(torch.arange(12.0).view(6, 2), torch.zeros(6, 8), torch.tensor([1, 3, 2]))
    assert found.each(lambda z, up: z).tolist() == [[0, 1], [6, 7], [10, 11]]
    assert found.each(lambda z, up: -z, "mean").tolist() == [[0, -1], [-4, -5], [-9, -10]]


def test_factors_of_a_scene():
    scene = Scene((Group("cat", 1, "left"), Group("sun", 2, "right")), "blue", "KIK")
    assert factors(scene) == {("noun", "cat"), ("noun", "sun"), ("count", 1), ("count", 2), ("place", "left"), ("place", "right"),
                              ("ground", "blue"), ("letter", "K"), ("letter", "I")}
    assert factors(scene) <= {*NAMES} and ("place", "") not in factors(Scene((Group("cat", 3),), "blue"))


def test_families_are_means_over_what_is_common():
    values, common = torch.zeros(len(NAMES)), torch.zeros(len(NAMES), dtype=torch.bool)
    for i, (family, value) in enumerate(NAMES):
        if family == "place":
            values[i], common[i] = (value == "left"), True
    assert by_family(values, common) == {"place": 0.5}


def test_means_where_a_factor_is():
    values, has = torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]), torch.tensor([[True, False], [True, False], [False, False]])
    assert mean_where(values, has).tolist() == [[2, 1], [0, 0]]
    assert top(torch.tensor([[3.0, 1.0, 2.0]]), 2).tolist() == [[1, 0, 1]] and top(torch.ones(1, 2), 9).tolist() == [[1, 1]]


def test_what_a_caption_says():
    scene = Scene((Group("cat", 2, "left"),), "blue")
    assert slots(WORLD.caption(scene)) == {"noun": "cat", "count": 2, "place": "left", "ground": "blue"}
    assert slots("two cat blue") is None and slots("a cat on the left, a sun on the right, blue ground") is None


def test_captions_compared():
    cat = {"noun": "cat", "count": 1, "place": "left", "ground": "blue"}
    red, dog = {**cat, "ground": "red"}, {**cat, "noun": "dog", "ground": "red"}
    assert compared([cat] * 4, [cat, red, dog, None], "ground", ["red"] * 4) == {
        "target": 0.75, "others": 0.5, "broken": 0.25, "wanted": 0.5, "clean": 0.25}
    assert "wanted" not in compared([cat], [cat], "ground")


def test_another_value_is_never_the_own():
    dice = np.random.default_rng(0)
    found = others_than("abc", "a" * 50 + "b" * 50, dice)
    assert set(found[:50]) == {"b", "c"} and set(found[50:]) == {"a", "c"}


# ---------------------------------------------------------------- the second hop

@pytest.fixture(scope="module")
def net():
    return ch13_hop.net_of(0, ch13_hop.STUDY.toy)


def test_spots_stand_where_they_are_said_to(net):
    data, prompt = net.data, net.data.facts.prompts("T")[0]
    text = data.vocabulary.ranges["text"]
    for context in ch13_hop.SPOTS:
        row, where = ch13_hop.spots(net, context, prompt)
        assert list(where) == list(ch13_hop.SPOTS[context])
        said = data.bpe.decode([i - text.start for i in row[:where["name"] + 1] if i in text])
        assert said.strip() == f"a {prompt.name}"
        if context == "question":
            assert data.bpe.decode([row[where["says"]] - text.start]) == " a"
            assert data.vocabulary.pack([data.text("a fish")])[1] == row[where["says"]]
    question, caption = (ch13_hop.spots(net, context, prompt)[0] for context in ("question", "caption"))
    at = where["name"]
    assert question[:at + 1] == caption[:at + 1]                        # so the name's own state is the same in both
    assert torch.allclose(ch13_hop.run_of(net, question)[:, at], ch13_hop.run_of(net, caption)[:, at], atol=1e-5)


def test_own_states_change_no_picture_and_all_of_anothers_make_its_picture(net):
    prompts = net.data.facts.prompts("T")
    mine, other = prompts[:6], prompts[-6:]
    runs, others = ([ch13_hop.run_of(net, ch13_hop.spots(net, "caption", p)[0]) for p in each] for each in (mine, other))
    for layer, part in enumerate(stream(net.model)):
        everywhere = [range(run.shape[1]) for run in runs]
        assert ch13_hop.drawn(net, mine, part, everywhere, [run[layer] for run in runs]) == ch13_hop.drawn(net, mine)
        if all(a.shape == b.shape for a, b in zip(runs, others)):
            assert ch13_hop.drawn(net, mine, part, everywhere, [run[layer] for run in others]) == ch13_hop.drawn(net, other)


def test_who_may_not_look_at_the_name_cannot_know_it(net):
    """With all looks cut, names of one length make the same picture."""
    facts = net.data.facts
    alike = [Prompt(name, facts.noun(name), "left", "blue") for name in facts.of("T")
             if len(net.data.bpe.encode(f" {name}")) == 2][:4]
    rows = [ch13_hop.spots(net, "caption", prompt) for prompt in alike]
    assert len({(len(row), where["name"]) for row, where in rows}) == 1 and len(alike) > 1
    assert len({*ch13_hop.drawn(net, alike, cut_from=("after", "pictures"))}) == 1


def test_a_probe_is_not_marked_on_names_that_it_was_taught():
    """States that say the name and not the noun: taught names are found, others are not."""
    dice = torch.Generator().manual_seed(0)
    prompts = {group: [Prompt(f"{group}{i}", NOUNS[i % 12], place, "blue") for i in range(60) for place in ("left", "right")]
               for group in GROUPS}
    own = {group: torch.randn(60, 200, generator=dice).repeat_interleave(2, 0) for group in GROUPS}
    found = ch13_hop.probed(own, prompts)
    assert max(found.values()) < 0.3
    nouns = torch.eye(12)[torch.arange(60) % 12].repeat_interleave(2, 0)
    found = ch13_hop.probed({group: nouns for group in GROUPS}, prompts)
    assert set(found.values()) == {1.0}


def test_right_pictures():
    prompts = [SimpleNamespace(noun="fish"), SimpleNamespace(noun="cat")]
    assert ch13_hop.right(prompts, ["fish", "fish"]) == 0.5
