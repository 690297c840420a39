"""Questions about a scene: the answer follows from the scene, by a check that does not know how it was asked."""
import re
from collections import Counter

import numpy as np
import pytest

from mmcourse.world.questions import KINDS, possible, sample_question
from mmcourse.world.scene import BACKGROUNDS, NOUNS, WORLD, Group, Scene, World, plural, sample_scene

SINGULAR = {plural(noun): noun for noun in NOUNS} | {noun: noun for noun in NOUNS}
NUMBERS = ("none", "one", "two", "three", "four")


def rng(seed=0):
    return np.random.default_rng(seed)


def answered(text: str, scene: Scene) -> str:
    """The right answer to a question as typed, read off the scene by its words alone."""
    if noun := re.fullmatch(r"how many (\w+) (?:are there|do you see)\?", text):
        return NUMBERS[sum(group.count for group in scene.groups if group.noun == SINGULAR[noun[1]])]
    if noun := re.fullmatch(r"where (?:is the|are the|do you see an?|do you see two) (\w+)\?", text):
        there = [group for group in scene.groups if group.noun == SINGULAR[noun[1]]]
        return f"on the {there[0].place}" if there else f"there is no {noun[1]}"
    if place := re.fullmatch(r"what (?:is|do you see) on the (left|right)\?", text):
        there = [group for group in scene.groups if group.place == place[1]]
        if not there:
            return "nothing"
        article = "an" if there[0].noun[0] in "aeiou" else "a"
        return f"{article} {there[0].noun}" if there[0].count == 1 else f"two {plural(there[0].noun)}"
    if noun := re.fullmatch(r"(?:is there|do you see) an? (\w+)\?", text):
        return "yes" if noun[1] in [group.noun for group in scene.groups] else "no"
    if text in ("what does the sign say?", "what is written on the sign?"):
        return " ".join(scene.sign) or "there is no sign"
    assert text in ("what colour is the ground?", "which colour does the ground have?"), text
    return scene.background


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_follows_from_the_scene(kind):
    asked, dice = [], rng(3)
    while len(asked) < 200:
        scene = sample_scene(dice, "any")
        if kind in possible(scene):
            asked.append(sample_question(dice, scene, kind))
            assert asked[-1].answer == answered(asked[-1].text, scene) and asked[-1].kind == kind, (asked[-1], scene)
    assert len({question.text.split(" ")[:2][-1] + question.text[-5:] for question in asked}) > 1         # wordings
    assert len({question.answer for question in asked}) > 1


def test_yes_and_no_are_as_frequent_and_the_words_do_not_tell():
    """And so it is where there are two of something: a plural would be a yes."""
    for scene in (Scene((Group("cat", 2, "left"), Group("sun", 1, "right"))), Scene((Group("owl", 4),))):
        asked = [sample_question(rng(seed), scene, "exists") for seed in range(1000)]
        assert 450 < sum(question.answer == "yes" for question in asked) < 550
        assert all(re.search(r" an? \w+\?$", question.text) for question in asked)


def test_what_is_not_there_is_asked_for_too():
    scene = Scene((Group("ant", 1, "left"), Group("owl", 2, "right")), "red")
    said = {kind: Counter(sample_question(rng(s), scene, kind).answer for s in range(400)) for kind in ("count", "place", "what")}
    assert set(said["count"]) == {"one", "two", "none"} and 60 < said["count"]["none"] < 140
    nowhere = sum(n for answer, n in said["place"].items() if answer.startswith("there is no "))
    assert 60 < nowhere < 140 and {"on the left", "on the right"} < set(said["place"])
    assert set(said["what"]) == {"an ant", "two owls"}
    alone = Scene((Group("ant", 1, "left"),))
    assert {sample_question(rng(s), alone, "what").answer for s in range(40)} == {"an ant", "nothing"}
    assert {sample_question(rng(s), alone, "sign").answer for s in range(40)} == {"there is no sign"}


def test_nobody_asks_what_has_no_plain_answer():
    assert possible(Scene((Group("cat", 3),), "#123456")) == ("count", "sign", "exists")
    assert possible(Scene((Group("cat", 2, "left"),))) == KINDS
    with pytest.raises(ValueError, match="'place' does not fit this scene; what does: count, sign, exists, ground"):
        sample_question(rng(), Scene((Group("cat", 4),)), "place")
    with pytest.raises(ValueError, match="'colour' does not fit this scene"):
        sample_question(rng(), Scene((Group("cat", 4),)), "colour")


def test_another_world_asks_in_its_own_words():
    world = World({"ox": "🐮"}, {"red": (200, 0, 0)}, kinds=(1,), grammar=type(WORLD.grammar)("field", "board", False, {"ox": "oxen"}))
    scene = Scene((Group("ox", 2, "right"),), "red", "KITE")
    assert possible(scene, world) == ("count", "place", "what", "sign", "ground")             # nothing could be absent
    said = {sample_question(rng(seed), scene, world=world) for seed in range(300)}
    pairs = {(question.text, question.answer) for question in said}
    assert ("how many oxen are there?", "two") in pairs and ("where are the oxen?", "on the right") in pairs
    assert ("what does the board say?", "KITE") in pairs and ("what colour is the field?", "red") in pairs
    assert not any(answer == "none" or answer.startswith("there is no ") for _, answer in pairs)


def test_the_same_dice_ask_the_same():
    scene = sample_scene(rng(5))
    assert [sample_question(rng(s), scene) for s in range(50)] == [sample_question(rng(s), scene) for s in range(50)]
    kinds = Counter(sample_question(rng(s), scene).kind for s in range(600))
    assert set(kinds) == set(possible(scene)) and min(kinds.values()) > 60
    colours = {sample_question(rng(s), Scene((Group("cat", 4),), ground), "ground").answer for s, ground in enumerate(BACKGROUNDS)}
    assert colours == set(BACKGROUNDS)
