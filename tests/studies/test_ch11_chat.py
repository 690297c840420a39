"""The studies of the model that converses: what a true answer earns, what is counted, and what the verdicts make of it."""
from types import SimpleNamespace

import numpy as np
import pytest

from mmcourse import checkpoints
from mmcourse.evaluate import sample_scene
from mmcourse.experiments.talking import Asked
from mmcourse.judges.metrics import wilson
from mmcourse.show import ch11 as show_ch11
from mmcourse.studies import ch11_chat, ch11_one_try
from mmcourse.studies.ch11_chat import by_voice, errors, spoken_row
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import Part, Turn


@pytest.mark.slow                                                      # speaks and listens
def test_what_is_said_is_heard_beside_a_true_voice(few_talks, monkeypatch):
    turns = [turn for talk in few_talks.talks for turn in talk if turn.answer.kind == "spoken"]
    rng = np.random.default_rng(0)
    true = {turn.answer.value: few_talks.segment(turn.answer, rng, answer=True) for turn in turns}
    said = [[Segment("audio", ()), Segment("text", tuple(few_talks.bpe.encode(" " + turn.answer.value)))] for turn in turns]
    monkeypatch.setattr(ch11_chat, "draw_or_speak", lambda model, vocabulary, replies: [
        true[few_talks.bpe.decode(reply[-1].ids).strip()] for reply in replies])
    row = spoken_row(few_talks, None, [Asked(turn, answer, True) for turn, answer in zip(turns, said)])
    assert row["answers"] == row["answer"]["n"] == row["truth"]["n"] == len(turns)
    assert row["answer"]["wrong"] < 0.4 * row["answer"]["words"], "the listener hears most of what true voices say"
    monkeypatch.setattr(ch11_chat, "draw_or_speak", lambda model, vocabulary, replies: [true[turns[0].answer.value]] * len(replies))
    same = spoken_row(few_talks, None, [Asked(turn, answer, True) for turn, answer in zip(turns, said)])
    assert same["answer"]["right"] <= sum(turn.answer.value == turns[0].answer.value for turn in turns) < len(turns)


def test_nothing_spoken_is_said_to_be_nothing(few_talks):
    assert spoken_row(few_talks, None, []) == {"answers": 0}


def test_only_right_answers_by_voice_are_listened_to():
    turn = Turn((Part("text", "say cat"),), Part("spoken", "cat"), "say")
    spoken, text = [Segment("audio", ()), Segment("text", (1,))], [Segment("text", (1,))]
    assert by_voice(Asked(turn, spoken, True))
    assert not by_voice(Asked(turn, spoken, False)) and not by_voice(Asked(turn, text, True))


def test_words_are_counted_over_all_texts():
    assert errors(["a cat on left", "two"], ["a cat on the left", "two"]) == {"n": 2, "right": 1, "wrong": 1, "words": 6}
    assert errors(["tell me how many cats"], ["tell me: how many cats?"])["right"] == 1, "marks are not heard"


def test_a_conversation_is_right_if_all_its_turns_are(monkeypatch):
    talks = [[SimpleNamespace(right=True)], [SimpleNamespace(right=True), SimpleNamespace(right=False)], [SimpleNamespace(right=False)]]
    monkeypatch.setattr(ch11_chat, "ask_through", lambda model, few_talks, seed: talks)
    monkeypatch.setattr(ch11_chat, "talks_of", lambda plan: None)
    monkeypatch.setattr(ch11_chat, "model_of", lambda name: None)
    assert ch11_chat.whole("chat", ch11_chat.STUDY.toy) == {"1": {"n": 2, "right": 1}, "2": {"n": 1, "right": 0}}


def test_scene_hits_count_signs_only_where_there_are_some():
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng, "test") for _ in range(30)]
    hits = ch11_one_try.scene_hits(scenes, scenes)
    assert all(all(each) for each in hits.values()) and len(hits["word"]) == sum(bool(s.sign) for s in scenes) < 30
    wrong = ch11_one_try.scene_hits([None, *scenes[1:]], scenes)
    assert wrong["exact"] == wrong["object"] == [False] + [True] * 29


def planted(right: int) -> dict:
    rows = {name: {"n": 100, "right": right, "kind": 100, "refused": 1} for name in (
        "inside", "ask", "ask: typed", "ask: spoken", "ask: typed, answered aloud", "ask: spoken, answered aloud", "draw")}
    rows["outside"] = {"n": 100, "right": right, "kind": 100, "refused": right}
    heard = {"n": 100, "right": right, "wrong": 300 - 3 * right, "words": 300}
    return {"turns": {"rows": rows, "spoken": {"answers": 100, "answer": heard, "truth": heard}}, "phrases": {"all": heard, "caption": heard}}


def test_verdicts_follow_the_numbers():
    good = show_ch11.chat_verdicts({"chat": planted(100), "before": planted(0)})
    bad = show_ch11.chat_verdicts({"chat": planted(40), "before": planted(100)})
    assert {says.split()[0] for name, says in good.items() if "inside: at most 3" not in name} == {"holds"}
    assert {says.split()[0] for name, says in bad.items() if "inside: at most 3" not in name} == {"FAILS"}
    assert "n = 200" in good["C2, typed questions right: at least 95 %"]
    low, high = wilson(100, 100)
    assert f"({100 * low:.1f} to {100 * high:.1f})" in good["C3, refused of what is outside: at least 90 %"]


def test_one_try_is_compared_question_by_question():
    def row(hits):
        return {"exact": {"n": len(hits), "right": sum(map(int, hits)), "hits": hits}, "cpu": 0.5 if hits[0] == "1" else 0.1}
    ways = {"before, best of eight": row("1" * 40), "before, one try": row("0" * 40), "after, one try": row("0" + "1" * 39)}
    says = show_ch11.tries_verdicts({"rows": {"text->image": ways}})
    assert says["R1, against one try: draws a caption"].startswith("holds")
    assert says["R3, against the best of eight: draws a caption"].startswith(("undecided", "FAILS"))
    assert says["R2, a picture costs"] == "0.20 of the best of eight"


def test_a_new_model_keeps_the_rows_of_the_one_before():
    head = {"made with": {"chat": "new", "transformer": "same"}}
    tried = {"made with": {"chat": "old", "transformer": "same"}, "rows": {"text->image": {"before, one try": 1, "after, one try": 2}}}
    ch11_one_try.outdated(tried, head)
    assert tried == {**head, "rows": {"text->image": {"before, one try": 1}}}
    asked = {"made with": {"chat": "old", "transformer": "same"}, "chat": {"turns": 1}, "before": {"turns": 2}}
    ch11_chat.outdated(asked, head)
    assert asked == {**head, "before": {"turns": 2}}
    other = {"made with": {"chat": "old", "transformer": "other"}, "chat": 1}
    ch11_chat.outdated(other, head)
    assert other["chat"] == 1 and other["made with"]["transformer"] == "other", "left to be refused"


@pytest.mark.parametrize("study", [ch11_chat, ch11_one_try])
def test_the_head_names_the_models_that_were_measured(study):
    made = study.head(study.STUDY.plan)["made with"]
    assert made["chat"] == checkpoints.identity("chat")[:8] and "transformer" in made
