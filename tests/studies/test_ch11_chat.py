"""The studies of the model that converses: right answers are marked right, others are not, and rows are counted as they are named."""
import numpy as np
import pytest

from mmcourse import checkpoints
from mmcourse.evaluate import sample_scene
from mmcourse.experiments.conversations import Conversations
from mmcourse.judges.metrics import wilson
from mmcourse.show import ch11 as show_ch11
from mmcourse.studies import ch11_chat, ch11_one_try
from mmcourse.studies.ch11_chat import Asked, group_of, marked, refused, spoken_row
from mmcourse.vocabulary import Segment
from mmcourse.world.dialogues import UNKNOWN, Part, Turn


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("skimage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCOURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Conversations("validation", 24, 2, progress=False)


def every_turn(data) -> list[Asked]:
    rng = np.random.default_rng(0)
    return [Asked(q.truth, q.answer, q.answer) for i, j in data.turns if (q := data.question(i, j, rng)) is not None]


@pytest.mark.slow                                                      # speaks, draws, reads and listens
def test_true_answers_are_right_and_those_of_others_are_not(data):
    asked = marked(data, every_turn(data))
    by_kind = {kind: [each for each in asked if each.truth.modality == kind] for kind in ("text", "image", "audio")}
    assert all(each.right for each in by_kind["text"] + by_kind["image"]), "the ceiling of what is read is full"
    assert np.mean([each.right for each in by_kind["audio"]]) > 0.6, "the listener hears most of what true voices say"
    for same in by_kind.values():
        swapped = marked(data, [Asked(a.turn, a.truth, b.truth) for a, b in zip(same, same[1:] + same[:1])
                                if a.turn.answer.value != b.turn.answer.value])
        assert swapped and not any(each.right for each in swapped)


def test_an_answer_of_another_kind_is_never_right(data):
    turns = every_turn(data)
    text = Segment("text", tuple(data.bpe.encode(" yes")))
    asked = marked(data, [Asked(each.turn, each.truth, text) for each in turns if each.truth.modality == "image"])
    assert asked and not any(each.right for each in asked)


def test_rows_are_named_by_what_was_asked_and_how(data):
    yes, spoken = Part("text", "yes"), Part("spoken", "is there a cat?")
    ids = Segment("text", tuple(data.bpe.encode(" yes")))
    ask = Asked(Turn((Part("text", "is there a cat?"),), yes, "ask"), ids, ids)
    assert group_of(ask) == ["inside", "ask", "ask: typed"]
    assert group_of(Asked(Turn((spoken,), Part("spoken", "yes"), "ask"), ids, ids))[-1] == "ask: spoken, answered aloud"
    unknown = Asked(Turn((Part("outside", "noise"),), Part("text", UNKNOWN), "refuse", "noise"), ids, ids)
    assert group_of(unknown) == ["outside", "outside: noise"]
    assert not refused(data, ask) and refused(data, Asked(ask.turn, ids, Segment("text", tuple(data.bpe.encode(" " + UNKNOWN)))))


def test_nothing_spoken_is_said_to_be_nothing(data):
    assert spoken_row(data, []) == {"answers": 0}


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
    spoken = {"answers": 10, **{name: {"wrong": 1, "words": 20, "right": 9} for name in ("answer", "truth")}}
    return {"turns": {"rows": rows, "spoken": spoken}, "phrases": {"all": {"n": 100, "right": right, "wrong": 300 - 3 * right, "words": 300},
                                                                   "caption": {"n": 9, "right": 9, "wrong": 0, "words": 30}}}


def test_verdicts_follow_the_numbers():
    good = show_ch11.chat_verdicts({"chat": planted(100), "before": planted(0)})
    bad = show_ch11.chat_verdicts({"chat": planted(40), "before": planted(100)})
    assert {says.split()[0] for name, says in good.items() if name[:2] in ("C1", "C2", "C4")} == {"holds"}
    assert {says.split()[0] for name, says in bad.items() if name[:2] in ("C1", "C2", "C4")} == {"FAILS"}
    assert "n = 200" in good["C2, questions right by text: 95 % or more"]
    low, high = wilson(100, 100)
    assert f"({100 * low:.1f} to {100 * high:.1f})" in good["C3, refused of what is outside: 90 % or more"]


def test_one_try_is_compared_question_by_question():
    def row(hits):
        return {"exact": {"n": len(hits), "right": sum(map(int, hits)), "hits": hits}, "cpu": 0.5 if hits[0] == "1" else 0.1}
    ways = {"before, best of eight": row("1" * 40), "before, one try": row("0" * 40), "after, one try": row("0" + "1" * 39)}
    says = show_ch11.tries_verdicts({"rows": {"text->image": ways}})
    assert says["R1, against one try: draws a caption"].startswith("holds")
    assert says["R3, against the best of eight: draws a caption"].startswith(("undecided", "FAILS"))
    assert says["R2, a picture costs"] == "0.20 of the best of eight"


@pytest.mark.parametrize("study", [ch11_chat, ch11_one_try])
def test_the_head_names_the_models_that_were_measured(study):
    made = study.head(study.STUDY.plan)["made with"]
    assert made["chat"] == checkpoints.identity("chat")[:8] and "transformer" in made
