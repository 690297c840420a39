"""The study of post-training: what a step of each arm costs, rewards that know nothing or the wrong thing, what is kept."""
import numpy as np
import pytest

from mmcourse.experiments import practice
from mmcourse.posttraining import METHODS
from mmcourse.studies import _ch11, ch11_posttraining, ch11_shipped
from mmcourse.studies._ch11 import Arm
from mmcourse.vocabulary import Segment


@pytest.mark.parametrize(("name", "drawn", "learned"), [("sft", 0, 1), ("rejection", 8, 1), ("random selection", 8, 1), ("dpo", 8, 2),
                                                        ("grpo", 8, 8), ("grpo, differing", 8, 8)])
def test_a_question_costs_what_is_drawn_and_three_times_what_is_learned(name, drawn, learned):
    assert _ch11.PRICE[name] == drawn + 3 * learned and set(_ch11.PRICE) == set(METHODS)
    assert (METHODS[name].group > 1) == bool(drawn)


def test_a_coin_knows_nothing_of_the_answer():
    """Wherever it may stand in a batch, no answer is favoured: half of its places say heads."""
    rng = np.random.default_rng(0)
    for answer in [Segment("text", (i,)) for i in range(7)] + [Segment("image", tuple(rng.integers(512, size=64))) for _ in range(20)]:
        marks = _ch11.coin([None] * 64, [answer] * 64)
        assert set(marks) == {0.0, 1.0} and 0.4 < np.mean(marks) < 0.6
        assert marks == _ch11.coin([None] * 64, [answer] * 64), "it falls alike for the same answers"


def test_bright_is_paid_where_it_is_right(monkeypatch):
    monkeypatch.setitem(_ch11.REWARD, "draw", lambda asked, given: [1.0, 0.0])
    monkeypatch.setattr(_ch11, "brightness", lambda asked, given: [0.25, 0.75])
    assert _ch11.right_and_bright([None] * 2, [None] * 2) == [0.25, 0.0]


def test_supervised_training_has_the_side_that_has_answers(monkeypatch):
    asked = []
    monkeypatch.setattr(practice, "side", lambda split: type("Side", (), {"ask": lambda self, *args: asked.append(split)})())
    for method in METHODS:
        Arm(method).task("draw").ask(None, 1)
    assert asked == ["train"] + ["practice"] * (len(METHODS) - 1)


def test_another_reward_takes_the_place_of_the_tasks():
    assert Arm("grpo", _ch11.coin).task("hear").reward is _ch11.coin
    assert Arm("grpo").task("hear").reward is practice.REWARD["hear"]


def test_every_method_has_a_rate_that_was_tried():
    for arm in ch11_posttraining.ARMS:
        method = ch11_posttraining.OF.get(arm, arm)
        assert ch11_posttraining.CHOSEN[method] in ch11_posttraining.RATES[method]


def test_the_rates_are_the_best_of_the_table():
    """`CHOSEN` is what the committed table says was best on validation, greedy and sampled together."""
    from mmcourse.files import results
    rates = results("ch11_posttraining")["rates"]
    for method, chosen in ch11_posttraining.CHOSEN.items():
        own = {row["rate"]: row["greedy"]["report"] + row["sampled"]["report"] for row in rates if row["arm"] == method}
        assert chosen == max(own, key=own.get)


def test_the_shipped_models_captions_are_of_the_split_and_have_signs_if_asked():
    a = ch11_shipped.shipped()
    questions = ch11_shipped.ask(a, "validation", np.random.default_rng(0), 5, signed=True)
    assert all(q.truth.sign and ch11_shipped.WORLD.split_of(q.truth) == "validation" for q in questions)
    right = [Segment("image", tuple(a.vqvae.encode(ch11_shipped.WORLD.draw([q.truth])).flatten().tolist())) for q in questions]
    assert ch11_shipped.right(a, questions, right) == [1.0] * 5
    assert ch11_shipped.right(a, questions, right[1:] + right[:1]) == [0.0] * 5
